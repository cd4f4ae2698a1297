-- `scheduler.async`, `scheduler.await`, `scheduler.promisify` and `scheduler.interval`.

local scheduler = require("scheduler")
local child = require("spec.support.child")
local misuse = require("spec.support.misuse")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local Promise, task = scheduler.Promise, scheduler.task
local async, await, promisify, interval = scheduler.async, scheduler.await, scheduler.promisify, scheduler.interval
local advance, recorder, since = virtual.advance, virtual.recorder, virtual.since

local function counted(...)
  return { n = select("#", ...), ... }
end

local function ignore() end

--- A promise and the functions that settle it.
local function deferred()
  local resolve, reject
  local promise = Promise.new(function(...)
    resolve, reject = ...
  end)
  return promise, resolve, reject
end

--- A promise that is resolved after so many milliseconds.
local function later(ms, ...)
  return Promise.delay(ms / 1000):andThenReturn(...)
end

--- Waits in a task, as time passes; returns what `scheduler.pcall(await, ...)` does.
local function attempt(...)
  local results
  task.spawn(function(...)
    results = counted(scheduler.pcall(await, ...))
  end, ...)
  advance(2000)
  assert(results, "the wait has not ended")
  return (table.unpack or unpack)(results, 1, results.n)
end

local function succeeded(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

--- As `attempt`, but raises what that fails with.
local function settled(...)
  return succeeded(attempt(...))
end

--- Whether the running coroutine's `pcall` and generic `for` let a wait pass: not those of Lua 5.1.
local function crosses_calls()
  return coroutine.wrap(function()
    return pcall(coroutine.yield, true)
  end)() == true
end

--- A place in a coroutine from which no Lua can yield: calls `fn` while a table is sorted.
local function in_sort(fn)
  table.sort({ 1, 2 }, function(a, b)
    fn()
    return a < b
  end)
end

--- An object that can be called.
local function callable(fn)
  return setmetatable({}, {
    __call = function(_, ...)
      return fn(...)
    end,
  })
end

--- Ways to run a function where it may wait.
local places = {
  ["a task"] = task.spawn,
  ["a deferred task"] = task.defer,
  ["a delayed task"] = function(fn)
    task.delay(0.001, fn)
  end,
  ["a timer"] = function(fn)
    scheduler.setTimeout(fn, 1)
  end,
  ["an interval"] = function(fn)
    local id
    id = scheduler.setInterval(function()
      scheduler.clearInterval(id)
      fn()
    end, 1)
  end,
  ["an immediate"] = scheduler.setImmediate,
  ["a microtask"] = scheduler.queueMicrotask,
  ["an executor"] = function(fn)
    Promise.new(fn)
  end,
  ["a deferred executor"] = Promise.defer,
  ["a handler"] = function(fn)
    Promise.resolve():andThen(fn)
  end,
  ["a handler of a rejection"] = function(fn)
    Promise.reject():catch(fn)
  end,
  ["a handler at the end"] = function(fn)
    Promise.resolve():finally(fn)
  end,
  ["a hook of a cancelled promise"] = function(fn)
    Promise.new(function(_, _, on_cancel)
      on_cancel(fn)
    end):cancel()
  end,
  ["an asynchronous function"] = function(fn)
    async(fn)()
  end,
  ["a scope"] = function(fn)
    task.spawn(scheduler.scope, fn)
  end,
  ["the child of a scope"] = function(fn)
    task.spawn(scheduler.scope, function(scope)
      scope:spawn(fn)
    end)
  end,
  ["a shielded call"] = function(fn)
    task.spawn(scheduler.shield, fn)
  end,
  ["a protected call"] = function(fn)
    task.spawn(scheduler.pcall, fn)
  end,
  ["a generator"] = function(fn)
    task.spawn(scheduler.coroutine.wrap(fn))
  end,
  ["a generator in a task"] = function(fn)
    task.spawn(function()
      scheduler.coroutine.wrap(fn)()
    end)
  end,
  ["a coroutine that was made before"] = function(fn)
    task.spawn(coroutine.create(fn))
  end,
}

describe("scheduler.async", function()
  virtual.setup(before_each, after_each)

  it("makes a function that returns a promise of all results", function()
    for _, results in ipairs({ counted(), counted(nil), counted(1), counted(nil, false, nil) }) do
      local promise = async(function(...)
        return ...
      end)((table.unpack or unpack)(results, 1, results.n))
      assert.is_true(Promise.is(promise))
      assert.are.equal("Resolved", promise:getStatus())
      assert.are.same(results, counted(promise:expect()))
    end
  end)

  it("keeps the results of a function that waits", function()
    local promise = async(function(...)
      task.wait(1)
      return nil, ..., nil
    end)(1, 2)
    assert.are.equal("Started", promise:getStatus())
    advance(1000)
    assert.are.same(counted(nil, 1, nil), counted(promise:expect()))
  end)

  it("runs the function at once, until it waits", function()
    local list, record = recorder()
    local promise = async(function()
      record("begun")
      task.wait()
      record("ended")
    end)()
    record("returned")
    promise:expect()
    assert.are.same({ "begun", "returned", "ended" }, list)
  end)

  it("rejects with what is raised, whatever that is", function()
    for _, value in ipairs({ "text", 1, false, {}, ignore, coroutine.create(ignore) }) do
      for _, wait in ipairs({ ignore, task.wait }) do
        local ok, err = async(function()
          wait()
          error(value, 0)
        end)():await()
        assert.is_false(ok)
        assert.are.equal(value, err)
      end
    end
    assert.are.same(counted(false, raised.none), counted(async(error)():await()))
  end)

  it("rejects with what is raised where no message can be added", function()
    local err = setmetatable({}, { __index = error, __tostring = error })
    local ok, same = async(function()
      error(err)
    end)():await()
    assert.is_false(ok)
    assert.is_true(rawequal(err, same))
  end)

  it("takes the outcome of a promise or thenable that is returned", function()
    local promise, resolve = deferred()
    local adopting = async(function()
      return promise, "extra"
    end)()
    local asking = async(function()
      return { andThen = function(_, on_resolved)
        on_resolved(1, nil)
      end }
    end)()
    resolve(2, nil)
    assert.are.same(counted(2, nil), counted(adopting:expect()))
    assert.are.same(counted(1, nil), counted(asking:expect()))
  end)

  it("lets many calls be under way", function()
    local list, record = recorder()
    local work = async(function(i)
      task.wait((4 - i) / 1000)
      record(i)
      return i
    end)
    local promises = { work(1), work(2), work(3) }
    assert.are.same({ 1, 2, 3 }, settled(Promise.all(promises)))
    assert.are.same({ 3, 2, 1 }, list)
  end)

  it("may be called from within itself", function()
    local sum
    sum = async(function(n)
      if n == 0 then return 0 end
      return n + await(sum(n - 1))
    end)
    assert.are.equal(1275, sum(50):expect())
    sum = async(function(n)
      task.wait()
      if n == 0 then return 0 end
      return n + await(sum(n - 1))
    end)
    assert.are.equal(500500, sum(1000):expect())
  end)

  it("takes what can be called", function()
    local work = async(callable(function(a)
      task.wait()
      return a + 1
    end))
    assert.are.equal(2, work(1):expect())
  end)

  it("may be called in every place", function()
    for name, run in pairs(places) do
      local results
      run(function()
        results = counted(await(async(function(a)
          task.wait(0.001)
          return a, nil
        end)(name)))
      end)
      advance(5)
      assert.are.same(counted(name, nil), results)
    end
  end)

  it("interrupts the function when its promise is cancelled", function()
    local pending = scheduler.stats().timers_pending
    local list, record = recorder()
    local promise = async(function()
      local ok, err = scheduler.pcall(task.wait, 10)
      record(ok)
      record(err.kind)
      record(err.reason)
      record((select(2, scheduler.pcall(task.wait, 10)) == err))
      return "too late"
    end)()
    promise:cancel("enough")
    assert.are.equal("Cancelled", promise:getStatus())
    assert.are.same({}, list)
    advance(0)
    assert.are.same({ false, "cancelled", "enough", true }, list)
    assert.are.equal("Cancelled", promise:getStatus())
    assert.are.equal(pending, scheduler.stats().timers_pending)
  end)

  it("cancels what the function awaits with it", function()
    local inner, outer
    inner = async(function()
      task.wait(10)
    end)()
    outer = async(function()
      await(inner)
    end)()
    outer:cancel()
    assert.are.equal("Cancelled", inner:getStatus())
    advance(0)
  end)

  it("reports what the function raises once its promise is cancelled", function()
    local errors = uncaught(function()
      local promise = async(function()
        scheduler.pcall(task.wait, 10)
        error("while cleaning up", 0)
      end)()
      promise:cancel()
      advance(0)
    end)
    assert.are.equal(1, #errors)
    assert.are.equal("while cleaning up", errors[1].err)
    assert.matches("^the rest of a promise made at .*async_spec", errors[1].source)
    assert.matches("async_spec", errors[1].traceback)
  end)

  it("does not report the cancellation itself", function()
    local errors = uncaught(function()
      async(task.wait)(10):cancel()
      advance(0)
    end)
    assert.are.same({}, errors)
  end)

  it("ends a function that goes on and on once it is cancelled", function()
    local rounds = 0
    local promise = async(function()
      while true do
        scheduler.pcall(task.wait, 1)
        rounds = rounds + 1
      end
    end)()
    promise:cancel()
    advance(0)
    assert.is_true(rounds < 1000)
  end)

  it("refuses what cannot be called, at the caller's line", function()
    misuse(function() async(nil) end, "bad argument #1 to 'async' (function expected, got nil)")
    misuse(function() async({}) end, "bad argument #1 to 'async' (function expected, got table)")
    misuse(function() async("print") end, "bad argument #1 to 'async' (function expected, got string)")
  end)
end)

describe("scheduler.await", function()
  virtual.setup(before_each, after_each)

  it("returns all values of a promise, settled or not", function()
    assert.are.same(counted(), counted(await(Promise.resolve())))
    assert.are.same(counted(nil), counted(await(Promise.resolve(nil))))
    assert.are.same(counted(1, nil, 3, nil), counted(await(Promise.resolve(1, nil, 3, nil))))
    assert.are.same(counted(1, nil, 3, nil), counted(settled(later(1, 1, nil, 3, nil))))
  end)

  it("returns all results of a task, ended or not", function()
    local co = task.delay(1, function()
      return nil, 2, nil
    end)
    for _ = 1, 2 do
      assert.are.same(counted(nil, 2, nil), counted(settled(co)))
    end
  end)

  it("asks a thenable", function()
    for _, name in ipairs({ "andThen", "then_" }) do
      local thenable
      thenable = { [name] = function(self, on_resolved)
        scheduler.setTimeout(on_resolved, 1, self == thenable, nil, 3, nil)
      end }
      assert.are.same(counted(true, nil, 3, nil), counted(settled(thenable)))
    end
    local ok, err = pcall(await, { andThen = function(_, _, on_rejected)
      on_rejected("refused")
    end })
    assert.is_false(ok)
    assert.are.equal("refused", err)
  end)

  it("calls the method `await` of an object", function()
    local object = { await = function(self, ...)
      task.wait(0.001)
      return self.name, select("#", ...), nil
    end, name = "object" }
    assert.are.same(counted("object", 0, nil), counted(settled(object)))
    local ok, err = pcall(await, { await = function()
      error("refused", 0)
    end })
    assert.is_false(ok)
    assert.are.equal("refused", err)
  end)

  it("prefers the methods of a thenable", function()
    local both = {
      await = function()
        return "await"
      end,
      andThen = function(_, on_resolved)
        on_resolved("andThen")
      end,
      then_ = function(_, on_resolved)
        on_resolved("then_")
      end,
    }
    assert.are.equal("andThen", await(both))
    both.andThen = nil
    assert.are.equal("then_", await(both))
    both.then_ = nil
    assert.are.equal("await", await(both))
  end)

  it("raises the error of a thenable whose fields cannot be read", function()
    local err = {}
    local ok, same = pcall(await, setmetatable({}, { __index = function()
      error(err)
    end }))
    assert.is_false(ok)
    assert.are.equal(err, same)
  end)

  it("waits for a job", function()
    scheduler.clock.resume()
    local job = scheduler.parallel.run(function(...)
      return ...
    end, 1, nil)
    assert.are.same(counted(1, nil), counted(await(job)))
    scheduler.clock.pause()
  end)

  it("raises what was rejected with, the same value", function()
    for _, value in ipairs({ "text", 1, false, {}, setmetatable({}, { __tostring = error }) }) do
      for _, make in ipairs({
        Promise.reject,
        function()
          return Promise.delay(0.001):andThen(function()
            return Promise.reject(value)
          end)
        end,
        function()
          return task.spawn(error, value, 0)
        end,
      }) do
        local promise
        uncaught(function()
          promise = make(value)
        end)
        local ok, err = attempt(promise)
        assert.is_false(ok)
        assert.is_true(rawequal(value, err))
      end
    end
    assert.are.same(counted(false, raised.none), counted(pcall(await, Promise.reject())))
  end)

  it("raises for a cancelled promise, with the reason", function()
    local promise = deferred()
    promise:cancel("enough")
    local ok, err = pcall(await, promise)
    assert.is_false(ok)
    assert.are.equal("cancelled", err.kind)
    assert.are.equal("enough", err.reason)
    local waiting
    promise = deferred()
    task.spawn(function()
      waiting = counted(scheduler.pcall(await, promise))
    end)
    promise:cancel("again")
    advance(0)
    assert.is_false(waiting[1])
    assert.are.equal("cancelled", waiting[2].kind)
    assert.are.equal("again", waiting[2].reason)
  end)

  it("does not give way for what is settled", function()
    local list, record = recorder()
    task.spawn(function()
      scheduler.queueMicrotask(record, "microtask")
      await(Promise.resolve())
      record("promise")
      await(task.spawn(ignore))
      record("task")
    end)
    assert.are.same({ "promise", "task" }, list)
    advance(0)
  end)

  it("wakes all that wait for a promise, in their order, with the same values", function()
    local list, record = recorder()
    local promise, resolve = deferred()
    for i = 1, 10 do
      task.spawn(function()
        record(i .. await(promise))
      end)
    end
    resolve("!")
    assert.are.same({}, list)
    advance(0)
    assert.are.same({ "1!", "2!", "3!", "4!", "5!", "6!", "7!", "8!", "9!", "10!" }, list)
  end)

  it("works in every place", function()
    for name, run in pairs(places) do
      local results
      run(function()
        results = counted(await(later(1, name, nil)))
      end)
      advance(5)
      assert.are.same(counted(name, nil), results)
    end
  end)

  it("raises in every place", function()
    for name, run in pairs(places) do
      local ok, err
      run(function()
        ok, err = scheduler.pcall(await, Promise.delay(0.001):andThen(function()
          error(name, 0)
        end))
      end)
      advance(5)
      assert.is_false(ok)
      assert.are.equal(name, err)
    end
  end)

  it("lets a generator yield between", function()
    local numbers = scheduler.coroutine.wrap(function()
      for i = 1, 3 do
        coroutine.yield(await(later(1, i)))
      end
    end)
    local list, record = recorder()
    task.spawn(function()
      local n = numbers()
      while n do
        record(n)
        n = numbers()
      end
    end)
    advance(5)
    assert.are.same({ 1, 2, 3 }, list)
  end)

  it("takes no more time than it has to", function()
    local start, took = scheduler.now(), nil
    task.spawn(function()
      await(later(3), later(5), later(1))
      took = since(start)
    end)
    advance(10)
    assert.are.equal(5, took)
  end)

  it("turns the loop on the main thread until then, whatever else is left", function()
    local promise, resolve = deferred()
    local turns = 0
    local id = scheduler.setTimeout(ignore, 1000)
    local function turn()
      turns = turns + 1
      if turns == 5 then resolve("value") end
      scheduler.setImmediate(turn)
    end
    scheduler.setImmediate(turn)
    assert.are.equal("value", await(promise))
    assert.is_true(turns == 5 or turns == 6)
    scheduler.clearTimeout(id)
    turn = ignore
    advance(0)
  end)

  it("raises on the main thread when nothing is left that could end the wait", function()
    local promise, resolve = deferred()
    local ok, err = pcall(await, promise)
    assert.is_false(ok)
    assert.matches("nothing is left that could end this wait", err)
    resolve("later")
    assert.are.equal("later", await(promise))
  end)

  it("raises on the main thread when the loop is stopped", function()
    local promise, resolve = deferred()
    scheduler.setImmediate(scheduler.stop)
    local ok, err = pcall(await, promise)
    assert.is_false(ok)
    assert.matches("the scheduler was stopped", err)
    resolve("later")
    assert.are.equal("later", await(promise))
  end)

  it("goes on with what it is resumed with by hand, and the promise stays as it is", function()
    local results
    local promise, resolve = deferred()
    local co = task.spawn(function()
      results = counted(await(promise))
    end)
    task.spawn(co, "by hand", nil)
    assert.are.same(counted("by hand", nil), results)
    assert.are.equal("Started", promise:getStatus())
    resolve("value")
    assert.are.equal("value", await(promise))
  end)

  it("is ended by task.cancel, and lets go of the promise", function()
    local promise = deferred()
    local went_on = false
    local co = task.spawn(function()
      await(promise)
      went_on = true
    end)
    task.cancel(co)
    assert.are.equal("Cancelled", promise:getStatus())
    advance(0)
    assert.is_false(went_on)
  end)

  it("leaves a promise alone that others wait for", function()
    local results
    local promise, resolve = deferred()
    local co = task.spawn(await, promise)
    task.spawn(function()
      results = counted(await(promise))
    end)
    task.cancel(co)
    resolve("value")
    advance(0)
    assert.are.same(counted("value"), results)
  end)

  describe("in a coroutine that cannot yield", function()
    --- Awaits where that cannot be; returns what that raised.
    local function await_in_sort(x)
      local err
      task.spawn(function()
        in_sort(function()
          err = err or select(2, pcall(await, x))
        end)
      end)
      return err
    end

    it("raises, and the promise can still be awaited", function()
      local promise, resolve = deferred()
      local err = await_in_sort(promise)
      assert.is_string(err)
      assert.are.equal("Started", promise:getStatus())
      resolve("value", nil)
      assert.are.same(counted("value", nil), counted(await(promise)))
    end)

    it("raises, and the results of a task are not lost", function()
      local co = task.delay(0.001, function()
        return "result"
      end)
      assert.is_string(await_in_sort(co))
      assert.are.equal("result", settled(co))
    end)

    it("returns what is settled already", function()
      local results
      task.spawn(function()
        in_sort(function()
          results = counted(await(Promise.resolve(1, nil)))
        end)
      end)
      assert.are.same(counted(1, nil), results)
    end)

    it("raises, and a later rejection is still reported", function()
      local promise, _, reject = deferred()
      local errors = uncaught(function()
        assert.is_string(await_in_sort(promise))
        reject("nobody looks")
        advance(0)
      end)
      assert.are.equal(1, #errors)
      assert.are.equal("nobody looks", errors[1].err)
    end)

    it("raises, and does not go on from a later yield", function()
      local promise, resolve = deferred()
      local resumed_with
      local co = task.spawn(function()
        in_sort(function()
          pcall(await, promise)
        end)
        resumed_with = counted(coroutine.yield())
      end)
      resolve("value")
      advance(0)
      assert.is_nil(resumed_with)
      coroutine.resume(co, "by hand")
      assert.are.same(counted("by hand"), resumed_with)
    end)
  end)

  describe("with several", function()
    it("returns the first value of each, in their order", function()
      local object = { await = function()
        return "object", "more"
      end }
      local thenable = { andThen = function(_, on_resolved)
        on_resolved("thenable", "more")
      end }
      local co = task.delay(0.002, function()
        return "task", "more"
      end)
      assert.are.same(
        counted("late", "early", "task", "thenable", "object"),
        counted(settled(later(3, "late", "more"), Promise.resolve("early", "more"), co, thenable, object))
      )
    end)

    it("keeps the places of those without a value", function()
      assert.are.same(counted(nil, 2, nil), counted(await(Promise.resolve(), Promise.resolve(2), task.spawn(ignore))))
    end)

    it("raises the first failure, and cancels what nobody else wants", function()
      local unwanted, wanted = deferred(), deferred()
      local handled = wanted:andThen(ignore)
      local ok, err = attempt(unwanted, wanted, later(1):andThen(function()
        error("failed", 0)
      end))
      assert.is_false(ok)
      assert.are.equal("failed", err)
      assert.are.equal("Cancelled", unwanted:getStatus())
      assert.are.equal("Started", wanted:getStatus())
      handled:cancel()
    end)

    it("raises for one that was cancelled", function()
      local promise = deferred()
      promise:cancel()
      local ok, err = attempt(later(1), promise)
      assert.is_false(ok)
      assert.is_true(Promise.Error.isKind(err, Promise.Error.Kind.AlreadyCancelled))
    end)

    it("cancels all of them with the task that waits", function()
      local first, second = deferred(), deferred()
      local co = task.spawn(await, first, second)
      task.cancel(co)
      assert.are.equal("Cancelled", first:getStatus())
      assert.are.equal("Cancelled", second:getStatus())
    end)

    it("works where nothing else of promises was used before", function()
      local result = child.script([[
        local function double(n) return 2 * n end
        local run = scheduler.parallel.run
        print(scheduler.await(run(double, 1), run(double, 2)))
      ]])
      assert.are.equal("2\t4\n", result.out, result.err)
    end)

    it("takes the same one twice", function()
      local promise = later(1, "value")
      assert.are.same({ "value", "value" }, { settled(promise, promise) })
    end)
  end)

  it("refuses what cannot be awaited, at the caller's line", function()
    misuse(function() await() end, "bad argument #1 to 'await' (something to await expected, got nil)")
    misuse(function() await(nil) end, "bad argument #1 to 'await' (something to await expected, got nil)")
    misuse(function() await({}) end, "bad argument #1 to 'await' (something to await expected, got table)")
    misuse(function() await(scheduler) end, "bad argument #1 to 'await' (something to await expected, got table)")
    misuse(function() await(ignore) end, "bad argument #1 to 'await' (something to await expected, got function)")
    misuse(function() await(Promise.resolve(), 1) end,
      "bad argument #2 to 'await' (something to await expected, got number)")
    misuse(function() await(Promise.resolve(), nil) end,
      "bad argument #2 to 'await' (something to await expected, got nil)")
  end)
end)

describe("scheduler.promisify", function()
  virtual.setup(before_each, after_each)

  it("settles by the rule that the first argument of the callback is an error or nil", function()
    local read = promisify(function(a, b, callback)
      scheduler.setTimeout(callback, 1, a, b, nil)
    end)
    assert.are.same(counted("b", nil), counted(settled(read(nil, "b"))))
    assert.are.same(counted("b", nil), counted(settled(read(false, "b"))))
    for _, err in ipairs({ "text", 0, {}, true }) do
      local promise = read(err, "b")
      assert.are.same(counted(false, err), counted(attempt(promise)))
    end
  end)

  it("resolves with all that the callback is given, if told so", function()
    local read = promisify(function(a, b, callback)
      scheduler.setTimeout(callback, 1, a, b, nil)
    end, { error_first = false })
    assert.are.same(counted("a", "b", nil), counted(settled(read("a", "b"))))
    assert.are.same(counted(nil, nil, nil), counted(settled(read(nil, nil))))
  end)

  it("takes a callback without values", function()
    for _, options in ipairs({ { error_first = true }, { error_first = false }, {} }) do
      assert.are.same(counted(), counted(promisify(function(callback)
        callback()
      end, options)():expect()))
    end
  end)

  it("passes the callback after all arguments, nils included", function()
    local given
    promisify(function(...)
      given = counted(...)
      given[given.n]()
    end)(nil, 2, nil):expect()
    assert.are.equal(4, given.n)
    assert.are.equal(2, given[2])
    assert.is_nil(given[3])
    assert.is_function(given[4])
  end)

  it("calls the function at once, and settles at once if that calls back", function()
    local promise = promisify(function(callback)
      callback(nil, "value")
    end)()
    assert.are.equal("Resolved", promise:getStatus())
    local list, record = recorder()
    promise:andThen(record)
    assert.are.same({}, list)
    advance(0)
    assert.are.same({ "value" }, list)
  end)

  it("looks at the first call of the callback only", function()
    for _, first in ipairs({ { nil, "value" }, { "failed" } }) do
      local promise = promisify(function(callback)
        callback(first[1], first[2])
        callback("second")
        callback(nil, "third")
        scheduler.setTimeout(callback, 1, "fourth")
      end)()
      local results = counted(attempt(promise))
      assert.are.same(counted(first[1] == nil, first[1] or first[2]), results)
      advance(1)
      assert.are.same(results, counted(attempt(promise)))
    end
  end)

  it("looks at the first call only, also if that was given a promise", function()
    local inner, resolve = deferred()
    local promise = promisify(function(callback)
      callback(nil, inner)
      callback(nil, "second")
      callback("third")
    end)()
    assert.are.equal("Started", promise:getStatus())
    resolve("value")
    assert.are.equal("value", promise:expect())
  end)

  it("rejects with what the function raises before it has called back", function()
    local err = {}
    for _, wait in ipairs({ ignore, task.wait }) do
      local ok, same = promisify(function(callback)
        wait()
        if callback then error(err) end
      end)():await()
      assert.is_false(ok)
      assert.are.equal(err, same)
    end
  end)

  it("reports what the function raises after it has called back", function()
    local promise
    local errors = uncaught(function()
      promise = promisify(function(callback)
        callback(nil, "value")
        error("too late", 0)
      end)()
    end)
    assert.are.equal("value", promise:expect())
    assert.are.equal(1, #errors)
    assert.are.equal("too late", errors[1].err)
    assert.matches("^the rest of a promise made at .*async_spec", errors[1].source)
  end)

  it("ignores what the function returns, also if it calls back after that", function()
    local call
    local promise = promisify(function(callback)
      call = callback
      return "returned"
    end)()
    advance(0)
    assert.are.equal("Started", promise:getStatus())
    call(nil, "called back")
    assert.are.equal("called back", promise:expect())
  end)

  it("takes a function that waits before it calls back", function()
    local promise = promisify(function(a, callback)
      task.wait(1)
      callback(nil, a)
    end)("value")
    advance(1000)
    assert.are.equal("value", promise:expect())
  end)

  it("ignores the callback once the promise is cancelled, and interrupts the function", function()
    local call, err
    local promise = promisify(function(callback)
      call = callback
      err = select(2, scheduler.pcall(task.wait, 1))
    end)()
    promise:cancel("enough")
    advance(0)
    assert.are.equal("enough", err.reason)
    call(nil, "value")
    call("failed")
    assert.are.equal("Cancelled", promise:getStatus())
    advance(0)
  end)

  it("lets the callback be called in a coroutine of any kind", function()
    for _, run in pairs(places) do
      local promise = promisify(function(callback)
        run(function()
          callback(nil, "value")
        end)
      end)()
      advance(5)
      assert.are.equal("value", promise:expect())
    end
  end)

  it("takes what can be called", function()
    assert.are.equal(2, promisify(callable(function(a, callback)
      callback(nil, a + 1)
    end))(1):expect())
  end)

  it("refuses bad arguments, at the caller's line", function()
    misuse(function() promisify(nil) end, "bad argument #1 to 'promisify' (function expected, got nil)")
    misuse(function() promisify({}) end, "bad argument #1 to 'promisify' (function expected, got table)")
    misuse(function() promisify(ignore, 1) end, "bad argument #2 to 'promisify' (table expected, got number)")
    misuse(function() promisify(ignore, { first = true }) end,
      "bad argument #2 to 'promisify' (unknown option 'first')")
    misuse(function() promisify(ignore, { error_first = 1 }) end,
      "bad argument #2 to 'promisify' (option 'error_first': boolean expected, got number)")
  end)
end)

describe("scheduler.interval", function()
  virtual.setup(before_each, after_each)

  --- Counts ticks in a task, with a body that takes so many milliseconds after these ticks; returns the list of
  --- "tick@time", up to tick `last`. The iterator is called, since a `for` cannot wait in a coroutine of Lua 5.1.
  local function count(seconds, last, bodies)
    local list, start = {}, scheduler.now()
    local co = task.spawn(function()
      local tick = interval(seconds)
      repeat
        local n = tick()
        list[#list + 1] = ("%d@%g"):format(n, since(start))
        if bodies and bodies[n] then task.wait(bodies[n] / 1000) end
      until n >= last
    end)
    return list, co
  end

  it("gives the numbers of its ticks on a fixed schedule", function()
    local list = count(0.5, 4)
    advance(499)
    assert.are.same({}, list)
    advance(5000)
    assert.are.same({ "1@500", "2@1000", "3@1500", "4@2000" }, list)
  end)

  it("does not drift by what its body takes", function()
    local list = count(0.01, 4, { 3, 9, 1 })
    advance(100)
    assert.are.same({ "1@10", "2@20", "3@30", "4@40" }, list)
  end)

  it("skips the ticks that a slow body misses: the number jumps", function()
    local list = count(0.01, 9, { 25, [4] = 47 })
    advance(200)
    -- The body is over at 35, after tick 3 was due; then at 87, after tick 8 was.
    assert.are.same({ "1@10", "3@35", "4@40", "8@87", "9@90" }, list)
  end)

  it("skips them too where the period is no binary fraction", function()
    for _, seconds in ipairs({ 0.1, 0.3, 0.7, 0.001, 1 / 3 }) do
      local ms = seconds * 1000
      local list, start, numbers = {}, scheduler.now(), {}
      task.spawn(function()
        local tick = interval(seconds)
        for i = 1, 8 do
          local n = tick()
          numbers[i] = n
          list[i] = math.abs(since(start) - n * ms) < 0.01
          -- Sleeps until a later tick is due, exactly.
          task.wait((2 * n + 1) * seconds - (scheduler.now() - start) / 1000)
        end
      end)
      advance(ms * 600)
      assert.are.same({ 1, 3, 7, 15, 31, 63, 127, 255 }, numbers)
      assert.are.same({ true, true, true, true, true, true, true, true }, list)
    end
  end)

  it("counts whole numbers", function()
    local tick = interval(0.001)
    assert.are.equal("1", tostring(settled({ await = tick })))
    assert.are.equal("2000", tostring(settled({ await = tick })))
  end)

  it("begins its schedule when it is made", function()
    local list, start = {}, scheduler.now()
    local tick = interval(0.01)
    advance(4)
    task.spawn(function()
      for i = 1, 2 do
        list[i] = ("%d@%g"):format(tick(), since(start))
      end
    end)
    advance(100)
    assert.are.same({ "1@10", "2@20" }, list)
  end)

  it("is an iterator for a loop on the main thread, which can be left", function()
    local pending = scheduler.stats().timers_pending
    scheduler.clock.resume()
    local last = 0
    for n in interval(0.001) do
      assert.is_true(n > last)
      last = n
      if n >= 3 then break end
    end
    scheduler.clock.pause()
    assert.is_true(last >= 3)
    assert.are.equal(pending, scheduler.stats().timers_pending)
  end)

  it("is an iterator in a task too", function()
    if not crosses_calls() then return end
    local list, record = recorder()
    task.spawn(function()
      for n in interval(0.5) do
        record(n)
        if n == 3 then break end
      end
      record("left")
    end)
    advance(5000)
    assert.are.same({ 1, 2, 3, "left" }, list)
  end)

  it("goes beside others", function()
    local first, second = count(0.002, 3), count(0.003, 2)
    local third = count(0.002, 3)
    advance(10)
    assert.are.same({ "1@2", "2@4", "3@6" }, first)
    assert.are.same({ "1@3", "2@6" }, second)
    assert.are.same(first, third)
  end)

  it("ends with the task in which it ticks", function()
    local pending = scheduler.stats().timers_pending
    local list, co = count(0.01, 100)
    advance(20)
    task.cancel(co)
    assert.are.equal(pending, scheduler.stats().timers_pending)
    advance(100)
    assert.are.same({ "1@10", "2@20" }, list)
  end)

  it("raises in an asynchronous function that is cancelled", function()
    local ticks, err = 0, nil
    local promise = async(function()
      local tick = interval(0.01)
      local ok = true
      while ok do
        ok, err = scheduler.pcall(tick)
        if ok then ticks = ticks + 1 end
      end
    end)()
    advance(35)
    promise:cancel("enough")
    advance(35)
    assert.are.equal(3, ticks)
    assert.are.equal("enough", err.reason)
  end)

  it("refuses bad arguments, at the caller's line", function()
    misuse(function() interval() end, "bad argument #1 to 'interval' (number expected, got nil)")
    misuse(function() interval("1") end, "bad argument #1 to 'interval' (number expected, got string)")
    misuse(function() interval(0 / 0) end, "bad argument #1 to 'interval' (number expected, got NaN)")
    misuse(function() interval(0) end, "bad argument #1 to 'interval' (seconds above 0 expected)")
    misuse(function() interval(-1) end, "bad argument #1 to 'interval' (seconds above 0 expected)")
  end)
end)
