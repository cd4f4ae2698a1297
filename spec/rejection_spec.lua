-- Rejections that nobody handles.

local scheduler = require("scheduler")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local rejections = require("spec.support.rejections")

local Promise, task = scheduler.Promise, scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local deferred, reported, errors_of, assert_silent =
  rejections.deferred, rejections.reported, rejections.errors_of, rejections.assert_silent

local function ignore() end

local function counted(...)
  return { n = select("#", ...), ... }
end

local function line_here()
  return debug.getinfo(2, "l").currentline
end

--- Rejections of different kinds: by their names, functions that return a promise that is rejected, at once or later.
local kinds = {
  ["Promise.reject"] = function()
    return Promise.reject("failed")
  end,
  ["a call of reject"] = function()
    return Promise.new(function(_, reject)
      reject("failed")
    end)
  end,
  ["an executor that raises"] = function()
    return Promise.new(function()
      error("failed", 0)
    end)
  end,
  ["an executor that waits and raises"] = function()
    return Promise.new(function()
      task.wait()
      error("failed", 0)
    end)
  end,
  ["a deferred executor"] = function()
    return Promise.defer(function()
      error("failed", 0)
    end)
  end,
  ["Promise.try"] = function()
    return Promise.try(error, "failed", 0)
  end,
  ["an asynchronous function"] = function()
    return scheduler.async(error)("failed", 0)
  end,
  ["an asynchronous function that waits"] = function()
    return scheduler.async(function()
      task.wait()
      error("failed", 0)
    end)()
  end,
  ["a promisified function"] = function()
    return scheduler.promisify(function(callback)
      callback("failed")
    end)()
  end,
  ["a handler"] = function()
    return Promise.resolve():andThen(function()
      error("failed", 0)
    end)
  end,
  ["a handler that waits"] = function()
    return Promise.resolve():andThen(function()
      task.wait()
      error("failed", 0)
    end)
  end,
  ["a handler of a rejection"] = function()
    return Promise.reject("first"):catch(function()
      error("failed", 0)
    end)
  end,
  ["a handler at the end"] = function()
    return Promise.resolve():finally(function()
      error("failed", 0)
    end)
  end,
  ["a thenable"] = function()
    return Promise.resolve({ andThen = function(_, _, on_rejected)
      on_rejected("failed")
    end })
  end,
  ["a thenable that raises"] = function()
    return Promise.resolve({ andThen = function()
      error("failed", 0)
    end })
  end,
  ["a promise that was adopted"] = function()
    return Promise.resolve():andThen(function()
      return Promise.reject("failed")
    end)
  end,
}

--- Ways in which somebody gets to know: by their names, functions that are given a rejected promise.
local handlings = {
  andThen = function(promise)
    promise:andThen(nil, ignore)
  end,
  catch = function(promise)
    promise:catch(ignore)
  end,
  ["a chain with catch at its end"] = function(promise)
    promise:andThen(ignore):tap(ignore):andThenReturn(1):catch(ignore)
  end,
  ["finally and catch"] = function(promise)
    promise:finally(ignore):catch(ignore)
  end,
  await = function(promise)
    task.spawn(promise.await, promise)
  end,
  awaitStatus = function(promise)
    task.spawn(promise.awaitStatus, promise)
  end,
  ["expect in a protected call"] = function(promise)
    task.spawn(scheduler.pcall, promise.expect, promise)
  end,
  ["scheduler.await in a protected call"] = function(promise)
    task.spawn(scheduler.pcall, scheduler.await, promise)
  end,
  ["scheduler.await for several"] = function(promise)
    task.spawn(scheduler.pcall, scheduler.await, promise, Promise.resolve())
  end,
  all = function(promise)
    Promise.all({ Promise.resolve(), promise }):catch(ignore)
  end,
  allSettled = function(promise)
    Promise.allSettled({ promise })
  end,
  race = function(promise)
    Promise.race({ promise }):catch(ignore)
  end,
  ["a race that is won by another"] = function(promise)
    Promise.race({ Promise.resolve(), promise })
  end,
  any = function(promise)
    Promise.any({ promise, Promise.resolve() })
  end,
  some = function(promise)
    Promise.some({ promise }, 1):catch(ignore)
  end,
  each = function(promise)
    Promise.each({ promise }, ignore):catch(ignore)
  end,
  fold = function(promise)
    Promise.fold({ promise }, ignore):catch(ignore)
  end,
  map = function(promise)
    Promise.map({ promise }, ignore):catch(ignore)
  end,
  timeout = function(promise)
    promise:timeout(1):catch(ignore)
  end,
  ["a promise that is resolved with it"] = function(promise)
    Promise.new(function(resolve)
      resolve(promise)
    end):catch(ignore)
  end,
  ["an asynchronous function that returns it"] = function(promise)
    scheduler.async(function()
      return promise
    end)():catch(ignore)
  end,
}

--- When a handler may be added: by their names, functions that call `add` before the end of the next turn.
local moments = {
  ["at once"] = function(add)
    add()
  end,
  ["in a microtask"] = scheduler.queueMicrotask,
  ["in a deferred task"] = task.defer,
  ["in an immediate"] = scheduler.setImmediate,
  ["a turn later"] = function(add)
    scheduler.poll()
    add()
  end,
  ["in the next turn"] = function(add)
    task.spawn(function()
      task.wait()
      add()
    end)
  end,
}

describe("a rejection that nobody handles", function()
  virtual.setup(before_each, after_each)

  it("is reported once, whatever it comes from", function()
    for name, make in pairs(kinds) do
      local list = reported(make)
      assert.are.equal(1, #list, name)
      assert.are.equal("failed", list[1].err)
      assert.is_string(list[1].traceback)
      assert.matches("^a promise made at .*rejections?[%w_]*%.lua:%d+$", list[1].source) -- some end in a tail call
    end
  end)

  it("is reported at the end of the next turn", function()
    local list = uncaught(function()
      Promise.reject("failed")
    end)
    assert.are.same({}, list)
    assert.are.same({}, uncaught(scheduler.poll))
    assert.are.same({ "failed" }, errors_of(uncaught(scheduler.poll)))
    for _ = 1, 5 do
      assert.are.same({}, uncaught(scheduler.poll))
    end
  end)

  it("is reported at the end of the turn after the one in which it happened", function()
    local list = uncaught(function()
      scheduler.setImmediate(function()
        Promise.reject("failed")
      end)
      scheduler.poll()
    end)
    assert.are.same({}, list)
    assert.are.same({ "failed" }, errors_of(uncaught(scheduler.poll)))
  end)

  it("is reported after what runs in that turn", function()
    local list, record = recorder()
    local former = scheduler.on_error(record)
    Promise.reject("failed")
    scheduler.poll()
    scheduler.setTimeout(record, 0, "timer")
    task.defer(record, "task")
    scheduler.setImmediate(record, "immediate")
    advance(0)
    scheduler.on_error(former)
    table.sort(list, function(a, b)
      return a ~= "failed" and (b == "failed" or a < b)
    end)
    assert.are.same({ "immediate", "task", "timer", "failed" }, list)
  end)

  it("is reported with others in the order in which they happened", function()
    assert.are.same({ 1, 2, 3 }, errors_of(reported(function()
      local _, _, reject_second = deferred()
      Promise.reject(1)
      reject_second(2)
      Promise.try(error, 3, 0)
    end)))
  end)

  it("is reported with the value itself, of any type", function()
    local values = { "text", 0, true, false, {}, ignore, coroutine.create(ignore), io.stderr,
      setmetatable({}, { __tostring = error, __index = error, __eq = error }) }
    for _, value in ipairs(values) do
      for _, reject in ipairs({ Promise.reject, scheduler.async(function(err)
        error(err, 0)
      end) }) do
        local list = reported(function()
          reject(value)
        end)
        assert.are.equal(1, #list)
        assert.is_true(rawequal(value, list[1].err))
      end
    end
  end)

  it("is reported with the first of several values, and nil for none", function()
    local list = {}
    local former = scheduler.on_error(function(...)
      list[#list + 1] = counted(...)
    end)
    Promise.reject("first", "second")
    Promise.reject()
    Promise.reject(nil)
    advance(0)
    scheduler.on_error(former)
    assert.are.equal(3, #list)
    assert.are.equal("first", list[1][1])
    for i = 1, 3 do
      assert.are.equal(3, list[i].n)
      assert.are.equal("string", type(list[i][2]))
      assert.matches("^a promise made at ", list[i][3])
    end
    assert.is_nil(list[2][1])
    assert.is_nil(list[3][1])
  end)

  it("is reported with the traceback of what was raised", function()
    local function fail_deeply()
      error("failed")
    end
    for _, make in ipairs({
      function()
        Promise.new(function()
          fail_deeply()
        end)
      end,
      function()
        Promise.resolve():andThen(function()
          fail_deeply()
        end)
      end,
      function()
        Promise.resolve():andThen(function()
          task.wait()
          fail_deeply()
        end)
      end,
      function()
        Promise.resolve():finally(function()
          fail_deeply()
        end)
      end,
      function()
        scheduler.async(function()
          task.wait()
          fail_deeply()
        end)():andThen(ignore):andThenReturn(1)
      end,
      function()
        Promise.all({ Promise.race({ Promise.try(function()
          fail_deeply()
        end) }) })
      end,
      function()
        Promise.resolve({ andThen = function()
          fail_deeply()
        end })
      end,
    }) do
      local list = reported(make)
      assert.are.equal(1, #list)
      assert.matches("rejection_spec%.lua:%d+: failed$", list[1].err)
      assert.matches("^stack traceback:", list[1].traceback)
      assert.matches("fail_deeply", list[1].traceback)
    end
  end)

  it("is reported without a traceback if nothing was raised", function()
    assert.are.equal("", reported(function()
      Promise.reject("failed")
    end)[1].traceback)
  end)

  it("is reported with the place where the promise was made", function()
    local line
    for _, make in ipairs({
      function()
        line = line_here() + 1
        Promise.reject("failed")
      end,
      function()
        line = line_here() + 1
        local _, _, reject = deferred()
        line = debug.getinfo(deferred, "S").linedefined + 2
        reject("failed")
      end,
      function()
        local work = scheduler.async(error)
        line = line_here() + 1
        work("failed")
      end,
      function()
        local read = scheduler.promisify(function(callback)
          scheduler.setTimeout(callback, 1, "failed")
        end)
        line = line_here() + 1
        read()
      end,
      function()
        line = line_here() + 1
        Promise.defer(error)
      end,
      function()
        line = line_here() + 1
        local promise = Promise.delay(0.001)
        promise:andThen(ignore):andThen(ignore):andThen(error)
      end,
      function()
        line = line_here() + 1
        local promise = Promise.reject("failed")
        Promise.all({ Promise.race({ promise:andThen(ignore) }) }):finally(ignore):andThen(ignore)
      end,
    }) do
      local list = reported(make)
      assert.are.equal(1, #list)
      assert.matches("^a promise made at .*spec/[%w_/]+%.lua:" .. line .. "$", list[1].source)
    end
  end)

  it("counts as an error", function()
    local before = scheduler.stats().errors
    reported(function()
      Promise.reject("failed")
      Promise.reject("handled"):catch(ignore)
    end)
    assert.are.equal(before + 1, scheduler.stats().errors)
  end)

  it("is reported for the last promise of a chain only", function()
    local list = reported(function()
      Promise.reject("failed"):andThen(ignore):tap(ignore):finally(ignore):andThenReturn(1)
    end)
    assert.are.same({ "failed" }, errors_of(list))
  end)

  it("is reported for each end of a chain with branches that nobody handles", function()
    local list = reported(function()
      local promise = Promise.reject("failed")
      promise:andThen(ignore)
      promise:andThen(ignore):catch(ignore)
      promise:finally(ignore)
    end)
    assert.are.same({ "failed", "failed" }, errors_of(list))
  end)

  it("is reported if finally is all that is added", function()
    assert.are.same({ "failed" }, errors_of(reported(function()
      Promise.reject("failed"):finally(ignore)
    end)))
  end)

  it("is reported as what the handler of it raises", function()
    assert.are.same({ "second" }, errors_of(reported(function()
      Promise.reject("first"):catch(function()
        error("second", 0)
      end)
    end)))
  end)

  it("is reported by a combinator whose own promise nobody handles, once", function()
    for _, name in ipairs({ "all", "race", "any" }) do
      assert.are.same({ "failed" }, errors_of(reported(function()
        Promise[name]({ Promise.reject("failed") })
      end)), name)
    end
    for _, name in ipairs({ "each", "fold", "map" }) do
      assert.are.same({ "failed" }, errors_of(reported(function()
        Promise[name]({ Promise.reject("failed") }, ignore)
      end)), name)
    end
    assert.are.same({ "failed" }, errors_of(reported(function()
      Promise.some({ Promise.reject("failed") }, 1)
    end)))
  end)

  it("is not reported of a promise that was cancelled", function()
    assert_silent(function()
      local promise, _, reject = deferred()
      promise:cancel()
      reject("too late")
      deferred():andThen(ignore):cancel()
    end)
  end)

  it("is reported of what is made from a promise that was cancelled", function()
    local list = reported(function()
      local promise = deferred()
      promise:cancel()
      promise:andThen(ignore)
    end)
    assert.are.equal(1, #list)
    assert.is_true(Promise.Error.isKind(list[1].err, Promise.Error.Kind.AlreadyCancelled))
  end)

  it("is not silenced by one who waited and was resumed by hand", function()
    assert.are.same({ "failed" }, errors_of(reported(function()
      local promise, _, reject = deferred()
      local co = task.spawn(promise.await, promise)
      coroutine.resume(co, "by hand")
      reject("failed")
    end)))
  end)

  it("is not kept once it was reported", function()
    assert.is_true(memory.is_released(function()
      local promise
      reported(function()
        promise = Promise.reject({})
      end)
      return promise
    end))
  end)

  it("is not kept once it was handled", function()
    assert.is_true(memory.is_released(function()
      local promise = Promise.reject({})
      promise:catch(ignore)
      advance(0)
      return promise
    end))
  end)
end)

describe("a rejection is not reported", function()
  virtual.setup(before_each, after_each)

  for name, handle in pairs(handlings) do
    it("if it is handled by " .. name, function()
      for moment, at in pairs(moments) do
        local list = reported(function()
          local promise = Promise.reject("failed")
          at(function()
            handle(promise)
          end)
        end)
        assert.are.same({}, errors_of(list), moment)
      end
    end)

    it("if it is going to be handled by " .. name, function()
      assert_silent(function()
        local promise, _, reject = deferred()
        handle(promise)
        scheduler.setTimeout(reject, 5, "failed")
      end)
    end)
  end

  it("if it is handled in time, whatever it comes from", function()
    for name, make in pairs(kinds) do
      local list = reported(function()
        make():catch(ignore)
      end)
      assert.are.same({}, errors_of(list), name)
    end
  end)

  it("if it is handled by the microtask that follows it", function()
    assert_silent(function()
      scheduler.setImmediate(function()
        local promise = Promise.reject("failed")
        scheduler.queueMicrotask(function()
          promise:catch(ignore)
        end)
      end)
    end)
  end)

  it("again if it is handled too late", function()
    local promise
    assert.are.same({ "failed" }, errors_of(reported(function()
      promise = Promise.reject("failed")
    end)))
    local given
    assert_silent(function()
      promise:catch(function(err)
        given = err
      end)
    end)
    assert.are.equal("failed", given)
  end)

  it("but moves on to what is made of it in time", function()
    local list = reported(function()
      local promise = Promise.reject("failed")
      scheduler.poll()
      local last = promise:andThen(ignore)
      scheduler.poll()
      last:andThen(ignore)
    end)
    assert.are.same({ "failed" }, errors_of(list))
  end)
end)

describe("the loop with a rejection that nobody handles", function()
  it("reports it before `run` returns", function()
    assert.are.same({ "before", "in main" }, errors_of(uncaught(function()
      Promise.reject("before")
      scheduler.run(function()
        Promise.reject("in main")
      end)
    end)))
  end)

  it("reports it when it runs again after a stop", function()
    local list = uncaught(function()
      scheduler.setImmediate(function()
        Promise.reject("failed")
        scheduler.stop()
      end)
      scheduler.run()
    end)
    assert.are.same({}, list)
    assert.are.same({ "failed" }, errors_of(uncaught(scheduler.run)))
  end)

  it("reports it after the main thread has gone on, if nothing was turned meanwhile", function()
    local list = uncaught(function()
      Promise.reject("failed")
      scheduler.await(Promise.resolve())
    end)
    assert.are.same({}, list)
    assert.are.same({ "failed" }, errors_of(uncaught(scheduler.run)))
  end)

  it("says that there is work, until it was reported", function()
    scheduler.run()
    Promise.reject("failed")
    assert.is_true(scheduler.poll())
    local list = uncaught(function()
      assert.is_falsy(scheduler.poll())
    end)
    assert.are.same({ "failed" }, errors_of(list))
  end)

  it("reports it without delay where it would sleep for an hour", function()
    for _, reject in ipairs({
      "Promise.reject('failed')",
      "scheduler.setImmediate(Promise.reject, 'failed')",
      "scheduler.setTimeout(Promise.reject, 1, 'failed')",
      "scheduler.task.spawn(function() scheduler.task.wait() Promise.reject('failed') end)",
      "Promise.delay(0.001):andThen(function() error('failed', 0) end)",
    }) do
      local result = child.script([[
        local Promise = scheduler.Promise
        scheduler.on_error(function(err)
          print(err)
          os.exit(0)
        end)
        scheduler.setTimeout(print, 3600000)
        ]] .. reject .. [[

        scheduler.run()
      ]])
      assert.are.equal("failed\n", result.out, reject .. "\n" .. result.err)
    end
  end)

  -- Debian has no luasocket for Lua 5.5.
  local it_with_socket = _VERSION == "Lua 5.5" and pending or it
  it_with_socket("tells its host of one that happens outside of a turn", function()
    local result = child.script([[
      local socket = require("socket")
      local fd = scheduler.fd()
      local readable = { getfd = function() return fd end }
      local function is_readable()
        return #socket.select({ readable }, nil, 0) == 1
      end
      scheduler.on_error(print)
      local promise, reject
      promise = scheduler.Promise.new(function(_, r) reject = r end)
      while scheduler.poll() do end
      scheduler.poll()
      print(is_readable())
      reject("failed")
      while is_readable() do scheduler.poll() end
    ]])
    assert.are.equal("", result.err)
    assert.matches("^false\nfailed\t", result.out)
  end)

  it("writes it to stderr if there is no error handler", function()
    local result = child.script([[
      scheduler.Promise.reject("failed")
      scheduler.Promise.reject(setmetatable({}, { __tostring = error }))
      scheduler.async(function() error("raised") end)()
      scheduler.run()
    ]])
    assert.are.equal(0, result.code)
    assert.matches("scheduler: uncaught error in a promise made at [^\n]*:2: failed\n", result.err)
    assert.matches("scheduler: uncaught error in a promise made at [^\n]*:3: %(error object is a table value%)\n",
      result.err)
    assert.matches("uncaught error in a promise made at [^\n]*:4: [^\n]*raised\nstack traceback:", result.err)
    assert.are.equal(3, select(2, result.err:gsub("uncaught", "")))
  end)
end)

describe("an executor that fails after its promise was settled", function()
  virtual.setup(before_each, after_each)

  it("is reported, handled or not", function()
    local promise
    local list = reported(function()
      promise = Promise.new(function(resolve)
        resolve("value")
        error("the rest", 0)
      end)
      promise:andThen(ignore):catch(ignore)
    end)
    assert.are.equal("value", promise:expect())
    assert.are.same({ "the rest" }, errors_of(list))
    assert.are.equal("the rest", list[1].err)
    assert.matches("rejection_spec", list[1].traceback)
    assert.matches("^the rest of a promise made at .*rejection_spec%.lua:%d+$", list[1].source)
  end)

  it("is reported besides a rejection", function()
    assert.are.same({ "the rest", "failed" }, errors_of(reported(function()
      Promise.new(function(_, reject)
        reject("failed")
        error("the rest", 0)
      end)
    end)))
  end)

  it("is reported if it waits, and if the promise took another one's outcome", function()
    for _, wait in ipairs({ ignore, task.wait }) do
      assert.are.same({ "the rest" }, errors_of(reported(function()
        local pending, resolve_pending = deferred()
        Promise.new(function(resolve)
          resolve(pending)
          wait()
          error("the rest", 0)
        end)
        scheduler.setTimeout(resolve_pending, 1)
      end)))
    end
  end)

  it("is not reported for a thenable that has answered", function()
    assert_silent(function()
      Promise.resolve({ andThen = function(_, on_resolved)
        on_resolved()
        error("the rest")
      end })
    end)
  end)
end)

describe("a job that fails", function()
  local run = scheduler.parallel.run
  local function fail()
    error("failed", 0)
  end

  it("is reported as what it is, if nobody handles it", function()
    local line
    local list = uncaught(function()
      line = line_here() + 1
      run(fail)
      scheduler.run()
    end)
    assert.are.equal(1, #list)
    assert.are.equal("error", list[1].err.kind)
    assert.are.equal("failed", list[1].err.value or list[1].err.message)
    assert.matches("^a job started at .*rejection_spec%.lua:" .. line .. "$", list[1].source)
  end)

  it("is reported for the last of a chain", function()
    local line
    local list = uncaught(function()
      line = line_here() + 1
      run(fail):andThen(ignore):finally(ignore)
      scheduler.run()
    end)
    assert.are.equal(1, #list)
    assert.matches("^a job started at .*rejection_spec%.lua:" .. line .. "$", list[1].source)
  end)

  it("is silent if it is handled", function()
    local list = uncaught(function()
      for _, handle in pairs(handlings) do
        handle(run(fail))
      end
      scheduler.run()
    end)
    assert.are.same({}, errors_of(list))
  end)
end)
