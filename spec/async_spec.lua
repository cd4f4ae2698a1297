-- `scheduler.async` and `scheduler.await`.

local scheduler = require("scheduler")
local child = require("spec.support.child")
local misuse = require("spec.support.misuse")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")
local awaited = require("spec.support.awaited")

local Promise, task = scheduler.Promise, scheduler.task
local async, await = scheduler.async, scheduler.await
local advance, recorder, since = virtual.advance, virtual.recorder, virtual.since
local counted, deferred, attempt, settled, callable, places =
  awaited.counted, awaited.deferred, awaited.attempt, awaited.settled, awaited.callable, awaited.places

local function ignore() end

--- A promise that is resolved after so many milliseconds.
local function later(ms, ...)
  return Promise.delay(ms / 1000):andThenReturn(...)
end

--- A place in a coroutine from which no Lua can yield: calls `fn` while a table is sorted.
local function in_sort(fn)
  table.sort({ 1, 2 }, function(a, b)
    fn()
    return a < b
  end)
end

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
