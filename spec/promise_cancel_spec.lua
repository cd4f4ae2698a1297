local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local Error = Promise.Error
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, open = promised.counted, promised.outcome, promised.open
local resolved, rejected, pending = promised.resolved, promised.rejected, promised.pending
local unhurried, assert_cancelled = promised.unhurried, promised.assert_cancelled

local function ignore() end

--- The first and the last of so many promises, each made from the one before by a method, with a handler.
local function chain(count, method, handler)
  local first = open()
  local last = first
  for _ = 1, count do
    last = last[method](last, handler)
  end
  return first, last
end

--- The first and the last of 100,000 promises, each of which was resolved with the one before.
local function resolved_in_turn()
  local first = open()
  local last = first
  for _ = 2, 100000 do
    local next_one, resolve = open()
    resolve(last)
    last = next_one
  end
  return first, last
end

describe("cancel", function()
  promised.setup(before_each, after_each)

  it("settles at once, with a reason of any type or none", function()
    for _, reason in ipairs({ "reason", 42, false, { code = 1 }, ignore }) do
      local promise = open()
      promise:cancel(reason)
      assert.are.equal("Cancelled", promise:getStatus())
      local status, err = promise:awaitStatus()
      assert.are.equal("Cancelled", status)
      assert.are.equal("cancelled", err.kind)
      assert.are.equal(reason, err.reason)
      assert.matches("cancelled", tostring(err))
    end
    local promise = open()
    assert.are.equal(0, select("#", promise:cancel()))
    assert_cancelled(promise, nil)
  end)

  it("keeps a promise from being settled by anything else", function()
    local promise, resolve, reject = open()
    local list, record = recorder()
    promise:andThen(record, record)
    promise:cancel("first")
    resolve(1)
    reject(2)
    resolve(Promise.resolve(3))
    assert_cancelled(promise, "first")
    assert.are.same({}, list)
  end)

  it("does nothing where the promise is settled or cancelled", function()
    local one, two, three = Promise.resolve(1, nil), Promise.reject(2, nil), open()
    local child = one:andThen(function(...)
      return ...
    end)
    two:catch(ignore)
    three:cancel("first")
    for _, promise in ipairs({ one, two, three }) do
      promise:cancel("late")
      promise:cancel()
    end
    assert.are.same(resolved(1, nil), outcome(one))
    assert.are.same(rejected(2, nil), outcome(two))
    assert_cancelled(three, "first")
    assert.are.same(resolved(1, nil), outcome(child))
  end)

  it("is no rejection that anybody should have handled", function()
    local promise = open()
    local child = promise:andThen(ignore)
    promise:finally(ignore)
    promise:cancel(Promise.reject("as a reason"):catch(ignore))
    scheduler.poll()
    scheduler.poll()
    assert.are.equal("Cancelled", child:getStatus())
  end)

  it("of one that was resolved in the same turn comes too late, of its child in time", function()
    local promise, resolve = open()
    local was_called = false
    local child = promise:andThen(function()
      was_called = true
    end)
    resolve(1)
    promise:cancel()
    child:cancel("child")
    assert.are.same(resolved(1), outcome(promise))
    assert_cancelled(child, "child")
    assert.is_false(was_called)
  end)

  it("may be called anywhere", function()
    local promises = {}
    local function cancel(name)
      local promise = open()
      promises[name] = promise
      return function()
        promise:cancel(name)
      end
    end
    cancel("main thread")()
    task.spawn(cancel("task"))
    scheduler.setTimeout(cancel("callback"))
    scheduler.queueMicrotask(cancel("microtask"))
    coroutine.wrap(cancel("coroutine"))()
    Promise.new(cancel("executor"))
    Promise.resolve():andThen(cancel("handler"))
    Promise.resolve():finally(cancel("finally"))
    local other, _, _, on_cancel = open()
    on_cancel(cancel("hook"))
    other:cancel()
    advance(0)
    for name, promise in pairs(promises) do
      assert_cancelled(promise, name)
    end
  end)
end)

describe("those that ask a cancelled promise", function()
  promised.setup(before_each, after_each)

  it("get its error", function()
    local promise = open()
    promise:cancel("reason")
    local function check()
      local status, err = promise:awaitStatus()
      assert.are.same({ "Cancelled", "cancelled", "reason" }, { status, err.kind, err.reason })
      assert.are.same(counted(false, err), counted(promise:await()))
      for _, raising in ipairs({ promise.expect, promise.awaitValue, scheduler.await }) do
        local ok, other = pcall(raising, promise)
        assert.is_false(ok)
        assert.are.equal(err, other)
      end
    end
    check()
    local has_run = false
    task.spawn(function()
      check()
      has_run = true
    end)
    assert.is_true(has_run)
  end)

  it("get it where they wait already, and go on", function()
    local promise = open()
    local list, record = recorder()
    local function start(fn, ...)
      task.spawn(function(...)
        record(counted(scheduler.pcall(fn, ...)))
        task.wait(1)
        record("waited")
      end, ...)
    end
    start(promise.awaitStatus, promise)
    start(promise.await, promise)
    start(promise.expect, promise)
    start(scheduler.await, promise)
    promise:cancel("reason")
    scheduler.poll()
    local err = list[1][3]
    assert.are.equal("reason", err.reason)
    assert.are.same({ counted(true, "Cancelled", err), counted(true, false, err), counted(false, err),
      counted(false, err) }, list)
    advance(1000)
    assert.are.equal(8, #list)
  end)

  it("by a handler are rejected", function()
    local promise = Promise.new(ignore)
    promise:cancel("reason")
    local called, record = recorder()
    local children = { promise:andThen(record), promise:andThenCall(record), promise:andThenReturn(1),
      promise:tap(record), promise:catch() }
    for _, child in ipairs(children) do
      child:catch(ignore)
    end
    for _, child in ipairs(children) do
      assert.are.equal("Rejected", child:getStatus())
      local result = outcome(child)
      assert.is_true(Error.isKind(result[1], Error.Kind.AlreadyCancelled))
      assert.matches("promise_cancel_spec%.lua:%d+", tostring(result[1]))
    end
    assert.are.same({}, called)
  end)

  it("by finally are called, and cancelled", function()
    local promise = open()
    promise:cancel("reason")
    local list, record = recorder()
    local child = promise:finally(function(...)
      record(counted(...))
    end)
    assert.are.same({}, list)
    assert_cancelled(child, "reason")
    assert.are.same({ counted("Cancelled") }, list)
  end)
end)

describe("cancellation that goes down", function()
  promised.setup(before_each, after_each)

  it("takes all that was made from the promise, with the reason", function()
    local promise = open()
    local function double(x)
      return x * 2
    end
    local children = { promise:andThen(double), promise:catch(double), promise:tap(double), promise:andThenReturn(1) }
    for i = 1, 4 do
      children[i + 4] = children[i]:andThen(double)
    end
    children[9] = promise:finally(ignore)
    children[10] = children[9]:andThen(double)
    promise:cancel("reason")
    for i = 1, 8 do
      assert.are.equal("Cancelled", children[i]:getStatus(), i)
    end
    for _, child in ipairs(children) do
      assert_cancelled(child, "reason")
    end
  end)

  it("takes those that have adopted it, in executors, handlers and async functions", function()
    local promise = open()
    local adopters = {
      Promise.new(function(resolve)
        resolve(promise)
      end),
      Promise.resolve():andThen(function()
        return promise
      end),
      Promise.reject():catch(function()
        return promise
      end),
      scheduler.async(function()
        return promise
      end)(),
      Promise.resolve():andThenReturn(promise),
      Promise.delay(0):andThenReturn(promise),
    }
    advance(0)
    promise:cancel("reason")
    for _, adopter in ipairs(adopters) do
      assert_cancelled(adopter, "reason")
    end
  end)

  it("takes those that adopt it afterwards", function()
    local promise = open()
    promise:cancel("reason")
    local list, record = recorder()
    local one, resolve = open()
    one:finally(record)
    resolve(promise)
    assert.are.equal("Cancelled", one:getStatus())
    assert_cancelled(one, "reason")
    assert_cancelled(Promise.resolve():andThenReturn(promise), "reason")
    assert.are.same({ "Cancelled" }, list)
  end)

  it("lets handlers of finally run as microtasks, in their order", function()
    local list, record = recorder()
    local promise = open()
    for i = 1, 3 do
      promise:finally(function(status)
        record(i .. status)
      end)
    end
    promise:andThen(ignore):finallyCall(record, "child one")
    promise:andThen(ignore):finallyCall(record, "child two")
    promise:cancel()
    record("synchronous")
    scheduler.poll()
    assert.are.same({ "synchronous", "1Cancelled", "2Cancelled", "3Cancelled", "child one", "child two" }, list)
  end)

  it("goes along 100,000 promises", unhurried(function()
    local first, last = chain(100000, "andThen", ignore)
    first:cancel("reason")
    assert.are.equal("Cancelled", last:getStatus())
    assert_cancelled(last, "reason")
  end))

  it("goes along 100,000 that were each resolved with the next", unhurried(function()
    local first, last = resolved_in_turn()
    first:cancel("reason")
    assert_cancelled(last, "reason")
  end))

  it("goes along 10,000 of finally, each with its handler", unhurried(function()
    local count = 0
    local first, last = chain(10000, "finally", function()
      count = count + 1
    end)
    first:cancel("reason")
    assert_cancelled(last, "reason")
    assert.are.equal(10000, count)
  end))
end)

describe("cancellation that goes up", function()
  promised.setup(before_each, after_each)

  it("takes what nobody else wants", function()
    local promise = open()
    local child = promise:andThen(ignore)
    local grandchild = child:catch(ignore)
    grandchild:cancel("reason")
    for _, each in ipairs({ grandchild, child, promise }) do
      assert.are.equal("Cancelled", each:getStatus())
      assert_cancelled(each, "reason")
    end
  end)

  it("stops where there is another consumer, until that one is cancelled too", function()
    local promise = open()
    local children = {}
    for i = 1, 4 do
      children[i] = promise:andThen(ignore)
    end
    for i, index in ipairs({ 2, 4, 1, 3 }) do
      assert.are.equal("Started", promise:getStatus())
      children[index]:cancel(i)
    end
    assert_cancelled(promise, 4)
  end)

  it("leaves the siblings their order", function()
    local list, record = recorder()
    local promise, resolve = open()
    local children = {}
    for i = 1, 6 do
      children[i] = promise:andThenCall(record, i)
    end
    for _, i in ipairs({ 1, 4, 6 }) do
      children[i]:cancel()
    end
    promise:andThenCall(record, 7)
    resolve()
    scheduler.poll()
    assert.are.same({ 2, 3, 5, 7 }, list)
  end)

  it("does not count those of finally, unless they are wanted themselves", function()
    local list, record = recorder()
    local promise = open()
    promise:finally(record):finally(record)
    local child = promise:andThen(ignore)
    child:cancel("reason")
    assert_cancelled(promise, "reason")
    assert.are.same({ "Cancelled", "Cancelled" }, list)
    promise = open()
    local wanted = promise:finally(ignore):finally(ignore):andThen(ignore)
    child = promise:andThen(ignore)
    child:cancel("child")
    assert.are.equal("Started", promise:getStatus())
    wanted:cancel("wanted")
    assert_cancelled(promise, "wanted")
    promise = open()
    promise:finally(ignore):finally(ignore)
    local middle = promise:finally(ignore)
    middle:finally(ignore):cancel("middle")
    assert_cancelled(promise, "middle")
    promise = open()
    middle = promise:finally(ignore):finally(ignore)
    local co = task.spawn(middle.await, middle)
    promise:finally(ignore)
    promise:andThen(ignore):cancel("child")
    assert.are.equal("Started", promise:getStatus())
    task.cancel(co)
    assert.are.equal("Cancelled", promise:getStatus())
  end)

  it("starts at a promise of finally as well, whose handler runs all the same", function()
    local list, record = recorder()
    local promise = open()
    local final = promise:finally(record)
    final:cancel("reason")
    assert.are.equal("Cancelled", final:getStatus())
    assert_cancelled(promise, "reason")
    assert.are.same({ "Cancelled" }, list)
    local other, resolve = open()
    local child = other:andThen()
    other:finally(record):cancel()
    assert.are.equal("Started", other:getStatus())
    resolve(1)
    assert.are.same(resolved(1), outcome(child))
    assert.are.same({ "Cancelled", "Resolved" }, list)
  end)

  it("takes an adopted promise, unless others want it", function()
    for _, is_wanted in ipairs({ false, true }) do
      local inner, resolve_inner = open()
      local child = is_wanted and inner:andThen()
      local one = Promise.new(function(resolve)
        resolve(inner)
      end)
      local two = Promise.resolve():andThen(function()
        return inner
      end)
      scheduler.poll()
      one:cancel("one")
      assert.are.equal("Started", inner:getStatus())
      two:cancel("two")
      if is_wanted then
        resolve_inner(1)
        assert.are.same(resolved(1), outcome(child))
      else
        assert_cancelled(inner, "two")
      end
    end
  end)

  it("takes a promise that a cancelled one is resolved with too late, unless others want it", function()
    local promise, resolve = open()
    promise:cancel("reason")
    local inner, wanted = open(), open()
    local child = wanted:andThen()
    resolve(inner)
    resolve(wanted)
    assert_cancelled(inner, "reason")
    assert.are.equal("Started", wanted:getStatus())
    child:cancel()
  end)

  it("takes the promise that a handler of a cancelled one returns", function()
    local inner = open()
    local child = Promise.resolve():andThen(function()
      scheduler.pcall(task.wait, 1)
      return inner
    end)
    scheduler.poll()
    child:cancel("reason")
    scheduler.poll()
    assert_cancelled(inner, "reason")
  end)

  it("takes the promise that a handler of finally has returned", function()
    local inner = open()
    local final = Promise.resolve(1):finally(function()
      return inner
    end)
    scheduler.poll()
    assert.are.same(pending, outcome(final))
    final:cancel("reason")
    assert.are.equal("Cancelled", final:getStatus())
    assert_cancelled(inner, "reason")
  end)

  it("leaves the promise that a handler of a cancelled one of finally returns: it may clean up", function()
    local promise = open()
    local inner, resolve = open()
    local cleaned, record = recorder()
    local child = inner:andThen(record)
    promise:finally(function()
      return inner
    end)
    promise:cancel()
    assert.are.same(pending, outcome(inner))
    resolve("cleaned")
    scheduler.poll()
    assert.are.same({ "cleaned" }, cleaned)
    assert.are.same(resolved(), outcome(child))
    local unwanted = open()
    child = unwanted:andThen(ignore)
    local final = open():finally(function()
      return unwanted
    end)
    final:cancel()
    scheduler.poll()
    assert.are.equal("Started", unwanted:getStatus())
    child:cancel()
    assert.are.equal("Cancelled", unwanted:getStatus())
  end)

  it("is the outcome of finally, where what its handler returned is cancelled", function()
    local inner = open()
    local final = Promise.resolve(1, nil):finally(function()
      return inner
    end)
    scheduler.poll()
    inner:cancel()
    assert.are.same(resolved(1, nil), outcome(final))
  end)

  it("goes along 100,000 promises", unhurried(function()
    local first, last = chain(100000, "andThen", ignore)
    last:cancel("reason")
    assert.are.equal("Cancelled", first:getStatus())
    assert_cancelled(first, "reason")
  end))

  it("goes along 100,000 that were each resolved with the next", unhurried(function()
    local first, last = resolved_in_turn()
    last:cancel("reason")
    assert_cancelled(first, "reason")
  end))

  it("does not overflow where 100,000 of finally hang one on the other", unhurried(function()
    local first, last = chain(100000, "finally", ignore)
    local child = first:andThen(ignore)
    child:cancel("reason")
    assert_cancelled(first, "reason")
    assert_cancelled(last, "reason")
  end))

  it("asks a thenable to cancel, and takes back what was asked of it", function()
    local given, record = recorder()
    local asked = { cancel = record }
    local promise = Promise.resolve({
      andThen = function()
        return asked
      end,
    })
    scheduler.poll()
    promise:cancel()
    assert.are.equal(asked, given[1])
    local was_asked = false
    Promise.resolve({
      andThen = function()
        was_asked = true
      end,
    }):cancel()
    scheduler.poll()
    assert.is_false(was_asked)
  end)
end)

describe("promises that are cancelled", function()
  promised.setup(before_each, after_each)

  it("do not keep the loop alive", function()
    local function check()
      assert.are.equal(0, scheduler.stats().timers_pending)
      scheduler.poll()
      local stats = scheduler.stats()
      assert.are.same({ 0, 0 }, { stats.timers_pending, stats.microtasks_pending })
    end
    for _, promise in ipairs({
      Promise.delay(10),
      Promise.delay(10):andThen(ignore):finally(ignore),
      open():timeout(10),
      Promise.delay(10):timeout(20),
      Promise.new(function()
        task.wait(10)
      end),
      Promise.all({ Promise.delay(10), Promise.delay(20) }),
      Promise.race({ Promise.delay(10), Promise.delay(20) }),
      Promise.any({ Promise.delay(10), Promise.delay(20) }),
      Promise.allSettled({ Promise.delay(10), Promise.delay(20) }),
      Promise.each({ Promise.delay(10), Promise.delay(20) }, ignore),
      Promise.map({ Promise.delay(10), 1 }, function()
        return Promise.delay(10)
      end),
      Promise.fold({ 1, Promise.delay(10) }, function()
        return Promise.delay(20)
      end, 0),
    }) do
      promise:cancel()
      assert.are.equal("Cancelled", promise:getStatus())
      scheduler.poll()
    end
    check()
  end)

  it("let the loop end", function()
    scheduler.clock.resume()
    local start = scheduler.now()
    Promise.delay(1000):andThen(ignore):cancel()
    scheduler.async(function()
      Promise.delay(1000):await()
    end)():cancel()
    scheduler.run()
    assert.is_true(scheduler.now() - start < 100)
  end)

  it("do not depend on the collector", function()
    local promise = open()
    promise:andThen(ignore)
    local child = promise:andThen(ignore)
    memory.collect()
    child:cancel()
    -- Somebody has made a promise of it that is not known any more, but would have been settled.
    assert.are.equal("Started", promise:getStatus())
  end)
end)
