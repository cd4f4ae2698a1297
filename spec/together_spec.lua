-- Tasks, promises, jobs, timers, scopes and locks that wait for, contain or cancel each other.

local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local support = require("spec.support.waiters")

local Promise, task = scheduler.Promise, scheduler.task
local async, await, scope_of = scheduler.async, scheduler.await, scheduler.scope
local protected = scheduler.pcall
local advance, recorder, since = virtual.advance, virtual.recorder, virtual.since
local deferred, waiters = support.deferred, support.waiters

local function ignore() end

local function counted(...)
  return { n = select("#", ...), ... }
end

local function cause_of_failure(err)
  error(err, 0)
end

--- A function that waits until it is told to return values, or to raise one; and the functions that tell it.
local function told()
  local event, outcome = scheduler.event(), nil
  local function run()
    event:wait()
    if outcome.err ~= nil then cause_of_failure(outcome.err) end
    return (table.unpack or unpack)(outcome, 1, outcome.n)
  end
  return run, function(...)
    outcome = counted(...)
    event:set()
  end, function(err)
    outcome = { err = err }
    event:set()
  end
end

--- What can be waited for: by its name, a function that makes one and the functions that let it end, and whether it
--- was cancelled.
local targets = {
  ["a promise"] = function()
    local promise, resolve, reject = deferred()
    return promise, resolve, reject, function()
      return promise:getStatus() == "Cancelled"
    end
  end,
  ["a promise made from another"] = function()
    local first, resolve, reject = deferred()
    return first:andThen(function(...)
      return ...
    end), resolve, reject, function()
      return first:getStatus() == "Cancelled"
    end
  end,
  ["the promise of an asynchronous function"] = function()
    local run, succeed, fail = told()
    local promise = async(run)()
    return promise, succeed, fail, function()
      return promise:getStatus() == "Cancelled"
    end
  end,
  ["a race"] = function()
    local promise, resolve, reject = deferred()
    return Promise.race({ promise }), resolve, reject, function()
      return promise:getStatus() == "Cancelled"
    end
  end,
  ["a race of a task"] = function()
    local run, succeed, fail = told()
    local co = task.spawn(run)
    return Promise.race({ co }), succeed, fail, function()
      return task.status(co) == "cancelled"
    end
  end,
  ["an object with `await`"] = function()
    local promise, resolve, reject = deferred()
    return { await = function()
      return await(promise)
    end }, resolve, reject, function()
      return promise:getStatus() == "Cancelled"
    end
  end,
  ["a thenable with `cancel`"] = function()
    local promise, resolve, reject = deferred()
    return { andThen = function(_, ...)
      return promise:andThen(...)
    end }, resolve, reject, function()
      return promise:getStatus() == "Cancelled"
    end
  end,
}

--- A task is joined: it ends by itself, whoever waits for it.
local function joined_task()
  local run, succeed, fail = told()
  local co = task.spawn(run)
  return co, succeed, fail, function()
    return task.status(co) == "cancelled"
  end
end

--- Those that nobody can cancel.
local callbacks = {
  ["a timer"] = function(body)
    scheduler.setTimeout(body, 1)
  end,
  ["an immediate"] = scheduler.setImmediate,
  ["a microtask"] = scheduler.queueMicrotask,
  ["a shielded call"] = function(body)
    task.spawn(scheduler.shield, body)
  end,
}

local function each_waiter(fn)
  for _, list in ipairs({ waiters, callbacks }) do
    for name, run in pairs(list) do
      fn(name, run)
    end
  end
end

local function each_target(fn)
  for name, make in pairs(targets) do
    fn(name, make)
  end
  fn("a task", joined_task)
end

--- The error itself, without what `execute_tasks` puts around it.
local function bare(err)
  return type(err) == "table" and err.kind == "task" and err.value or err
end

describe("all that can wait, with all that can be waited for:", function()
  virtual.setup(before_each, after_each)

  each_waiter(function(who, run)
    it(who .. " gets the values", function()
      each_target(function(what, make)
        local results
        local x, succeed = make()
        run(function()
          results = counted(await(x))
        end)
        advance(2)
        assert.is_nil(results)
        succeed("value", nil)
        advance(2)
        assert.are.same(counted("value", nil), results, what)
      end)
    end)

    it(who .. " gets the same error, which is reported once if it is not caught", function()
      each_target(function(what, make)
        local err = {}
        local list = uncaught(function()
          local x, _, fail = make()
          run(function()
            await(x)
          end)
          advance(2)
          fail(err)
          advance(2)
        end)
        assert.are.equal(1, #list, what)
        assert.is_true(rawequal(err, bare(list[1].err)), what)
      end)
    end)

    it(who .. " can catch it, and nothing is reported", function()
      each_target(function(what, make)
        local err, results = {}, nil
        local list = uncaught(function()
          local x, _, fail = make()
          run(function()
            results = counted(protected(await, x))
          end)
          advance(2)
          fail(err)
          advance(2)
        end)
        assert.are.same({}, list, what)
        assert.is_false(results[1])
        assert.is_true(rawequal(err, results[2]), what)
      end)
    end)
  end)

  for who, run in pairs(waiters) do
    it(who .. " that is cancelled cancels what nobody else wants", function()
      for what, make in pairs(targets) do
        local went_on = false
        local list = uncaught(function()
          local x, _, _, is_cancelled = make()
          local cancel = run(function()
            await(x)
            went_on = true
          end)
          advance(2)
          assert.is_false(is_cancelled(), what)
          cancel()
          advance(2)
          assert.is_true(is_cancelled(), what)
        end)
        assert.are.same({}, list, what)
        assert.is_false(went_on)
      end
    end)

    it(who .. " that is cancelled leaves alone what others want", function()
      each_target(function(what, make)
        local x, succeed, _, is_cancelled = make()
        -- One who asks an object or a thenable himself has a promise of his own.
        local shared = type(x) == "thread" and x or Promise.resolve(x)
        if not Promise.is(x) and type(x) == "table" then shared = async(await)(x) end
        local results
        task.spawn(function()
          results = counted(await(shared))
        end)
        local cancel = run(function()
          await(shared)
        end)
        advance(2)
        cancel()
        advance(2)
        assert.is_false(is_cancelled(), what)
        succeed("value")
        advance(2)
        assert.are.same(counted("value"), results, what)
      end)
    end)

    it(who .. " that is cancelled lets a task that it waits for go on", function()
      local co, succeed = joined_task()
      local cancel = run(function()
        await(co)
      end)
      advance(2)
      cancel()
      advance(2)
      assert.are.equal("waiting", task.status(co))
      succeed("value")
      assert.are.equal("value", attempt.start(task.join, co)[1])
    end)
  end
end)

describe("the error of a promise", function()
  virtual.setup(before_each, after_each)

  --- The report of what `run(fail)` leads to, where `fail` raises in a coroutine of its own.
  local function report_of(run)
    local list = uncaught(function()
      run(function()
        cause_of_failure("failed")
      end)
      advance(5)
    end)
    assert.are.equal(1, #list)
    assert.are.equal("failed", list[1].err)
    return list[1]
  end

  it("comes to a task that joins a task that awaits it, with the first traceback", function()
    for _, wait in ipairs({ ignore, task.wait }) do
      local report = report_of(function(fail)
        local promise = async(function()
          wait()
          fail()
        end)()
        local co = task.spawn(function()
          task.wait()
          await(promise)
        end)
        task.spawn(function()
          task.join(co)
        end)
      end)
      assert.matches("cause_of_failure", report.traceback)
      assert.matches("passed on from another task", report.traceback)
    end
  end)

  it("comes to a promise through a task, with the first traceback", function()
    for _, wait in ipairs({ ignore, task.wait }) do
      local report = report_of(function(fail)
        local co = task.defer(function()
          task.wait()
          fail()
        end)
        async(function()
          wait()
          task.join(co)
        end)()
      end)
      assert.matches("cause_of_failure", report.traceback)
    end
  end)

  it("comes through asynchronous functions that wait for each other, with the first traceback", function()
    for _, wait in ipairs({ ignore, task.wait }) do
      local report = report_of(function(fail)
        local work = async(function()
          wait()
          fail()
        end)
        local outer = async(function()
          await(work())
        end)
        async(function()
          await(outer())
        end)()
      end)
      assert.matches("cause_of_failure", report.traceback)
    end
  end)

  it("comes through a handler that awaits it, with the first traceback", function()
    local report = report_of(function(fail)
      local promise = Promise.try(fail)
      Promise.resolve():andThen(function()
        await(promise)
      end)
    end)
    assert.matches("cause_of_failure", report.traceback)
  end)

  it("comes through lists, with the first traceback and the place of the first promise", function()
    local line
    local report = report_of(function(fail)
      line = debug.getinfo(1, "l").currentline + 1
      local promise = Promise.try(fail)
      Promise.all({ Promise.race({ promise, Promise.delay(1) }), Promise.delay(1) })
    end)
    assert.matches("cause_of_failure", report.traceback)
    assert.matches(":" .. line .. "$", report.source)
  end)

  it("is reported once if a promise and a task wait for the same promise, and both catch it", function()
    local list = uncaught(function()
      local promise = Promise.try(cause_of_failure, "failed")
      task.spawn(protected, await, promise)
      promise:catch(ignore)
      advance(2)
    end)
    assert.are.same({}, list)
  end)

  it("is an error of the scope whose child awaits it, and ends the others", function()
    local interrupted
    local result = attempt.start(scope_of, function(scope)
      scope:spawn(function()
        interrupted = select(2, protected(task.wait, 10))
      end)
      scope:spawn(function()
        Promise.delay(0.001):andThen(function()
          error("failed", 0)
        end):expect()
      end)
    end)
    advance(2)
    assert.is_false(result.ok)
    assert.are.equal("failed", result.err)
    assert.are.equal("a sibling failed", interrupted.reason)
  end)

  it("is the error of a promise whose function runs the scope", function()
    local err = {}
    local promise = async(scope_of)(function(scope)
      scope:spawn(function()
        task.wait(0.001)
        error(err)
      end)
    end)
    promise:catch(ignore)
    advance(2)
    assert.is_true(rawequal(err, select(2, promise:await())))
  end)

  it("is that of a key of execute_tasks", function()
    local results, errors
    task.spawn(function()
      results, errors = scheduler.execute_tasks({
        good = function()
          return await(Promise.delay(0.001):andThenReturn("value"))
        end,
        bad = function()
          await(Promise.reject("failed"))
        end,
      }, nil, { errors = "collect" })
    end)
    advance(2)
    assert.are.same({ good = "value" }, results)
    assert.are.same({ bad = "failed" }, errors)
  end)
end)

describe("a list of a task and promises", function()
  virtual.setup(before_each, after_each)

  it("is raced: the task that loses may clean up, the promise that loses is cancelled", function()
    local kind
    local co = task.spawn(function()
      kind = select(2, protected(task.wait, 10)).kind
    end)
    local loser = deferred()
    local race = Promise.race({ co, loser, Promise.delay(0.001):andThenReturn("won") })
    advance(1)
    assert.are.equal("won", race:expect())
    assert.are.equal("Cancelled", loser:getStatus())
    advance(0)
    assert.are.equal("done", task.status(co))
    assert.are.equal("cancelled", kind)
  end)

  it("is raced: the task wins, with all its results", function()
    local loser = deferred()
    local race = Promise.race({ loser, task.delay(0.001, function()
      return "won", nil
    end) })
    advance(1)
    assert.are.same(counted("won", nil), counted(race:expect()))
    assert.are.equal("Cancelled", loser:getStatus())
  end)

  it("is raced: a task that others join goes on", function()
    local co = task.delay(0.005, function()
      return "result"
    end)
    local joined = attempt.start(task.join, co)
    local race = Promise.race({ co, Promise.delay(0.001) })
    advance(10)
    assert.are.equal("Resolved", race:getStatus())
    assert.are.equal("result", joined[1])
  end)

  it("is taken by `all`, and a failure ends the others", function()
    assert.are.same({ 1, 2 }, Promise.all({ Promise.resolve(1), task.spawn(function()
      return 2
    end) }):expect())
    local co = task.spawn(task.wait, 10)
    local other = deferred()
    local all = Promise.all({ co, other, Promise.delay(0.001):andThen(function()
      error("failed", 0)
    end) })
    all:catch(ignore)
    advance(2)
    assert.are.same(counted(false, "failed"), counted(all:await()))
    assert.are.equal("Cancelled", other:getStatus())
    assert.are.equal("cancelled", task.status(co))
  end)

  it("fails with the error of its task, which is reported once", function()
    local list = uncaught(function()
      Promise.all({ task.delay(0.001, function()
        cause_of_failure("failed")
      end), Promise.delay(1) })
      advance(2)
    end)
    assert.are.equal(1, #list)
    assert.are.equal("failed", list[1].err)
    assert.matches("cause_of_failure", list[1].traceback)
  end)

  it("takes a task that was cancelled as a failure", function()
    local co = task.spawn(task.wait, 10)
    local all = Promise.all({ co })
    all:catch(ignore)
    task.cancel(co)
    advance(0)
    assert.is_not_equal("Resolved", all:getStatus())
    assert.is_not_equal("Started", all:getStatus())
  end)

  it("may hold a job", function()
    scheduler.clock.resume()
    local function slow()
      local start = os.clock()
      while os.clock() - start < 0.05 do
        math.random()
      end
      return "slow"
    end
    local co = task.spawn(function()
      return "task"
    end)
    assert.are.equal("task", Promise.race({ scheduler.parallel.run(slow), co }):expect())
    local job = scheduler.parallel.run(function()
      return "job"
    end)
    assert.are.equal("job", Promise.race({ job, task.spawn(coroutine.yield) }):expect())
    assert.are.same({ "job", "task", 3 }, Promise.all({ job, co, Promise.resolve(3) }):expect())
    scheduler.run()
    scheduler.clock.pause()
  end)
end)

describe("a mutex that an asynchronous function holds", function()
  virtual.setup(before_each, after_each)

  it("is unlocked when the promise is cancelled, and goes to the next", function()
    local list, record = recorder()
    local mutex = scheduler.mutex()
    local promise = async(function()
      mutex:with(function()
        record("first")
        task.wait(10)
      end)
    end)()
    local second = async(mutex.with)(mutex, function()
      record("second")
    end)
    promise:cancel()
    advance(0)
    assert.are.same({ "first", "second" }, list)
    assert.are.equal("Resolved", second:getStatus())
    assert.is_false(mutex:is_locked())
  end)

  it("is not taken by one that was cancelled while it waited", function()
    local mutex = scheduler.mutex()
    mutex:lock()
    local promise = async(mutex.with)(mutex, ignore)
    promise:cancel()
    advance(0)
    mutex:unlock()
    assert.is_false(mutex:is_locked())
  end)

  it("is unlocked if the function fails", function()
    local mutex = scheduler.mutex()
    local promise = async(mutex.with)(mutex, function()
      task.wait()
      error("failed", 0)
    end)
    promise:catch(ignore)
    advance(0)
    assert.is_false(mutex:is_locked())
  end)

  it("belongs to the handler that locked it", function()
    local mutex = scheduler.mutex()
    local list, record = recorder()
    for i = 1, 3 do
      Promise.resolve():andThen(function()
        mutex:with(function()
          record(i)
          task.wait(0.001)
          record(-i)
        end)
      end)
    end
    advance(5)
    assert.are.same({ 1, -1, 2, -2, 3, -3 }, list)
  end)
end)

describe("an asynchronous function that waits for a lock, an event or a queue", function()
  virtual.setup(before_each, after_each)

  local semaphore, event, queue, full = scheduler.semaphore(1), scheduler.event(), scheduler.queue(), scheduler.queue(1)
  semaphore:acquire()
  full:push("first")

  for name, wait in pairs({
    ["a permit"] = function()
      return semaphore:acquire()
    end,
    ["an event"] = function()
      return event:wait()
    end,
    ["a value"] = function()
      return queue:pop()
    end,
    ["room"] = function()
      return full:push("second")
    end,
  }) do
    it("for " .. name .. ", goes away when its promise is cancelled", function()
      local err
      local waiting = scheduler.stats().tasks_waiting
      local promise = async(function()
        err = select(2, protected(wait))
      end)()
      assert.are.equal(waiting + 1, scheduler.stats().tasks_waiting)
      promise:cancel("enough")
      advance(0)
      assert.are.equal("enough", err.reason)
      assert.are.equal(waiting, scheduler.stats().tasks_waiting)
    end)
  end

  it("leaves all to the others", function()
    local first, second = async(queue.pop)(queue), async(queue.pop)(queue)
    first:cancel()
    queue:push("value")
    advance(0)
    assert.are.equal("value", second:expect())
    local permit = async(semaphore.acquire)(semaphore)
    async(semaphore.acquire)(semaphore):cancel()
    semaphore:release()
    advance(0)
    assert.is_true(permit:expect())
    async(full.push)(full, "second"):cancel()
    advance(0)
    assert.are.equal("first", full:pop())
    assert.is_nil(full:try_pop())
  end)
end)

describe("what is cancelled", function()
  virtual.setup(before_each, after_each)

  it("twice, is cancelled once", function()
    local reasons, record = recorder()
    local promise = Promise.new(function(_, _, on_cancel)
      on_cancel(record)
    end)
    local co = task.spawn(await, promise)
    promise:cancel("first")
    promise:cancel("second")
    task.cancel(co)
    advance(0)
    assert.are.same({ "first" }, reasons)
  end)

  it("at the moment when its promise is settled has succeeded", function()
    local promise, resolve = deferred()
    local results
    local given
    task.spawn(scope_of, function(scope)
      given = scope
      scope:spawn(function()
        results = counted(await(promise))
      end)
    end)
    resolve("value")
    given:cancel()
    advance(0)
    assert.are.same(counted("value"), results)
    assert.are.equal("Resolved", promise:getStatus())
  end)

  it("in a handler by its own promise, is cancelled", function()
    local promise
    local list, record = recorder()
    promise = Promise.resolve():andThen(function()
      promise:cancel("itself")
      local _, err = protected(task.wait, 10)
      record(err.reason)
    end)
    advance(0)
    assert.are.equal("Cancelled", promise:getStatus())
    assert.are.same({ "itself" }, list)
  end)

  it("with an execute_tasks in it, starts nothing any more", function()
    local started = 0
    local promise = async(scheduler.execute_tasks)({
      function()
        started = started + 1
        task.wait(1)
      end,
      function()
        started = started + 1
      end,
    }, 1)
    promise:cancel()
    advance(2000)
    assert.are.equal(1, started)
  end)

  it("is a timer by its promise, which leaves none behind", function()
    local pending = scheduler.stats().timers_pending
    local promise = Promise.delay(10):andThen(ignore)
    assert.are.equal(pending + 1, scheduler.stats().timers_pending)
    promise:cancel()
    advance(0)
    assert.are.equal(pending, scheduler.stats().timers_pending)
  end)

  it("is not a timer whose callback waits for a promise, when that is cancelled: it gets an error", function()
    local promise = deferred()
    local list = uncaught(function()
      scheduler.setTimeout(function()
        await(promise)
      end, 1)
      advance(2)
      promise:cancel("enough")
      advance(2)
    end)
    assert.are.equal(1, #list)
    assert.are.equal("cancelled", list[1].err.kind)
    assert.are.equal("enough", list[1].err.reason)
    assert.matches("^a timer set at ", list[1].source)
  end)
end)

describe("the virtual clock", function()
  virtual.setup(before_each, after_each)

  it("drives all of them", function()
    local list, start = {}, scheduler.now()
    local function note(name)
      list[#list + 1] = ("%g %s"):format(since(start), name)
    end
    scheduler.setTimeout(note, 1, "timer")
    task.delay(0.002, note, "task")
    Promise.delay(0.003):andThenCall(note, "promise")
    async(function()
      task.wait(0.004)
      note("asynchronous function")
    end)()
    deferred():timeout(0.005):catch(function()
      note("time limit")
    end)
    task.spawn(function()
      protected(scheduler.timeout, 0.006, coroutine.yield)
      note("call")
    end)
    local tries = 0
    Promise.retry(function()
      tries = tries + 1
      assert(tries == 3)
    end, { times = 5, delay = 0.0035 }):andThenCall(note, "retry")
    task.spawn(function()
      local tick = scheduler.interval(0.004)
      tick()
      tick()
      note("interval")
    end)
    task.spawn(function()
      scheduler.execute_tasks({ function()
        task.wait(0.009)
      end })
      note("execute_tasks")
    end)
    task.spawn(function()
      scheduler.event():wait(0.010)
      note("event")
    end)
    advance(20)
    assert.are.same({
      "1 timer", "2 task", "3 promise", "4 asynchronous function", "5 time limit", "6 call", "7 retry", "8 interval",
      "9 execute_tasks", "10 event",
    }, list)
  end)
end)
