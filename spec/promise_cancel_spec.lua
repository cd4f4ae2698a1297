local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local Error = Promise.Error
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, open = promised.counted, promised.outcome, promised.open
local resolved, rejected, pending = promised.resolved, promised.rejected, promised.pending
local unhurried = promised.unhurried

local function ignore() end

--- The names of the promises that have each status, in a table by name.
local function statuses(promises)
  local list = {}
  for name, promise in pairs(promises) do
    list[name] = promise:getStatus()
  end
  return list
end

--- Runs the microtasks and asserts that a promise was cancelled with this reason.
local function assert_cancelled(promise, reason)
  assert.are.same({ status = "Cancelled", n = 1, reason }, outcome(promise))
end

--- A task that awaits a promise and notes what it sees: in `record`, the error if it is interrupted.
local function waiter(promise, record)
  return task.spawn(function()
    local ok, err = scheduler.pcall(promise.expect, promise)
    record(ok and "resumed" or err)
  end)
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
    local first = open()
    local last = first
    for _ = 1, 100000 do
      last = last:andThen(ignore)
    end
    first:cancel("reason")
    assert.are.equal("Cancelled", last:getStatus())
    assert_cancelled(last, "reason")
  end))

  it("goes along 100,000 that were each resolved with the next", unhurried(function()
    local promises, resolvers = {}, {}
    for i = 1, 100000 do
      promises[i], resolvers[i] = open()
      if i > 1 then resolvers[i](promises[i - 1]) end
    end
    promises[1]:cancel("reason")
    assert_cancelled(promises[100000], "reason")
  end))

  it("goes along 10,000 of finally, each with its handler", unhurried(function()
    local count = 0
    local function on_end()
      count = count + 1
    end
    local first = open()
    local last = first
    for _ = 1, 10000 do
      last = last:finally(on_end)
    end
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
    local first = open()
    local last = first
    for _ = 1, 100000 do
      last = last:andThen(ignore)
    end
    last:cancel("reason")
    assert.are.equal("Cancelled", first:getStatus())
    assert_cancelled(first, "reason")
  end))

  it("goes along 100,000 that were each resolved with the next", unhurried(function()
    local promises, resolvers = {}, {}
    for i = 1, 100000 do
      promises[i], resolvers[i] = open()
      if i > 1 then resolvers[i](promises[i - 1]) end
    end
    promises[100000]:cancel("reason")
    assert_cancelled(promises[1], "reason")
  end))

  it("does not overflow where 100,000 of finally hang one on the other", unhurried(function()
    local first = open()
    local last = first
    for _ = 1, 100000 do
      last = last:finally(ignore)
    end
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

describe("hooks for the cancellation", function()
  local reported = promised.setup(before_each, after_each)

  it("are called with the reason, in their order, and none otherwise", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    for i = 1, 3 do
      assert.is_false(on_cancel(function(...)
        record(i)
        record(counted(...))
      end))
    end
    promise:cancel("reason")
    promise:cancel("other")
    assert.are.same({ 1, counted("reason"), 2, counted("reason"), 3, counted("reason") }, list)
    for _, settle in ipairs({ 1, 2 }) do
      local other, resolve, reject, on_cancel_other = open()
      other:catch(ignore)
      on_cancel_other(record);
      ({ resolve, reject })[settle]()
      other:cancel()
      on_cancel_other(record)
      scheduler.poll()
      assert.is_false(on_cancel_other())
    end
    assert.are.equal(6, #list)
  end)

  it("are called by a cancellation from below and from above", function()
    local list, record = recorder()
    local function with_hook(name)
      local promise, resolve, _, on_cancel = open()
      on_cancel(function(reason)
        record(name .. reason)
      end)
      return promise, resolve
    end
    with_hook("up "):andThen(ignore):catch(ignore):cancel(1)
    local inner = with_hook("inner ")
    local outer, resolve_outer = with_hook("outer ")
    resolve_outer(inner)
    inner:cancel(2)
    local inner_two = with_hook("inner two ")
    local outer_two, resolve_outer_two = with_hook("outer two ")
    resolve_outer_two(inner_two)
    outer_two:cancel(3)
    scheduler.poll()
    assert.are.equal("Cancelled", outer:getStatus())
    assert.are.same({ "up 1", "inner 2", "outer 2", "outer two 3", "inner two 3" }, list)
  end)

  it("that are added afterwards are called at once, and the state is told", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    assert.is_false(on_cancel())
    promise:cancel("reason")
    assert.is_true(on_cancel())
    assert.is_true(on_cancel(function(...)
      record(counted(...))
    end))
    assert.are.same({ counted("reason") }, list)
  end)

  it("may be callable tables, and are refused else", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    on_cancel(setmetatable({}, {
      __call = function(_, reason)
        record(reason)
      end,
    }))
    for _, value in ipairs({ 1, "text", {}, false }) do
      promised.refuses("bad argument #1 to 'onCancel' (function expected, got " .. type(value) .. ")", on_cancel, value)
    end
    promise:cancel("reason")
    assert.are.same({ "reason" }, list)
  end)

  it("may wait, and hold nobody up", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    on_cancel(function()
      record("waits")
      task.wait(1)
      record("waited")
    end)
    on_cancel(function()
      record("second")
    end)
    promise:cancel()
    assert_cancelled(promise)
    assert.are.same({ "waits", "second" }, list)
    advance(1000)
    assert.are.same({ "waits", "second", "waited" }, list)
  end)

  it("that fail are reported, and the others are called", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    local child = promise:andThen(ignore)
    on_cancel(function()
      error("hook", 0)
    end)
    on_cancel(function()
      task.wait(1)
      error("late hook", 0)
    end)
    on_cancel(record)
    promise:cancel("reason")
    assert_cancelled(child, "reason")
    advance(1000)
    assert.are.same({ "reason" }, list)
    local errors = reported()
    assert.are.equal(2, #errors)
    assert.are.equal("hook", errors[1].err)
    assert.are.equal("late hook", errors[2].err)
  end)

  it("see the promise cancelled, and may cancel and settle what they like", function()
    local list, record = recorder()
    local promise, resolve, reject, on_cancel = open()
    local other, resolve_other = open()
    on_cancel(function()
      record(promise:getStatus())
      promise:cancel("again")
      resolve(1)
      reject(2)
      resolve_other("from a hook")
      record(on_cancel())
    end)
    promise:cancel("reason")
    assert_cancelled(promise, "reason")
    assert.are.same(resolved("from a hook"), outcome(other))
    assert.are.same({ "Cancelled", true }, list)
  end)

  it("may cancel the other end of the chain", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    local child = promise:andThen(ignore)
    local last = child:andThen(ignore):finally(record)
    on_cancel(function()
      last:cancel("hook")
      child:cancel("hook")
    end)
    child:cancel("reason")
    scheduler.poll()
    assert.are.same({ "Cancelled" }, list)
    assert.are.same({ promise = "Cancelled", child = "Cancelled", last = "Cancelled" },
      statuses({ promise = promise, child = child, last = last }))
  end)
end)

describe("the code that works for a promise that is cancelled", function()
  local reported = promised.setup(before_each, after_each)

  --- Ways to make a promise whose code is `fn`.
  local MAKERS = {
    ["an executor"] = Promise.new,
    ["a deferred executor"] = Promise.defer,
    ["an async function"] = function(fn)
      return scheduler.async(fn)()
    end,
    ["Promise.try"] = Promise["try"],
    ["Promise.promisify"] = function(fn)
      return Promise.promisify(fn)()
    end,
    ["a handler"] = function(fn)
      return Promise.resolve():andThen(fn)
    end,
    ["a handler of rejections"] = function(fn)
      return Promise.reject():catch(fn)
    end,
    ["a handler of finally"] = function(fn)
      return Promise.resolve():finally(fn)
    end,
    ["tap"] = function(fn)
      return Promise.resolve():tap(fn)
    end,
    ["a retry"] = function(fn)
      return Promise.retry(fn, 3)
    end,
    ["each"] = function(fn)
      return Promise.each({ 1, 2 }, fn)
    end,
    ["map"] = function(fn)
      return Promise.map({ 1 }, fn)
    end,
    ["fold"] = function(fn)
      return Promise.fold({ 1, 2 }, fn, 0)
    end,
  }

  for name, make in pairs(MAKERS) do
    it("is interrupted in its wait, and may clean up: " .. name, function()
      local list, record = recorder()
      local promise = make(function()
        record("begun")
        local _, err = scheduler.pcall(task.wait, 10)
        record(err)
        error(err, 0)
      end)
      scheduler.poll()
      assert.are.same({ "begun" }, list)
      promise:cancel("reason")
      assert_cancelled(promise, "reason")
      assert.are.equal(2, #list)
      assert.are.equal("cancelled", list[2].kind)
      assert.are.equal("reason", list[2].reason)
      assert.are.equal(0, scheduler.stats().timers_pending)
    end)
  end

  it("does not go on without a protected call", function()
    local list, record = recorder()
    for _, wait in ipairs({ task.wait, coroutine.yield, function() open():expect() end,
      function() Promise.delay(1):await() end, function() task.join(task.delay(0.001, ignore)) end }) do
      local promise = Promise.new(function(resolve)
        wait(1)
        record("goes on")
        resolve()
      end)
      promise:cancel("reason")
      assert_cancelled(promise, "reason")
    end
    advance(2000)
    assert.are.same({}, list)
  end)

  it("may wait no more while it cleans up", function()
    local list, record = recorder()
    local promise = Promise.new(function()
      scheduler.pcall(task.wait, 1)
      local ok, err = scheduler.pcall(task.wait, 1)
      record(ok)
      record(err.kind)
    end)
    promise:cancel()
    scheduler.poll()
    assert.are.same({ false, "cancelled" }, list)
  end)

  it("tells the error handler what goes wrong while it cleans up", function()
    local promise = Promise.new(function()
      scheduler.pcall(task.wait, 1)
      error("clean-up", 0)
    end)
    promise:cancel()
    local errors = reported()
    assert.are.equal(1, #errors)
    assert.are.equal("clean-up", errors[1].err)
    assert.matches("^the rest of a promise made at .*promise_cancel_spec%.lua:%d+$", errors[1].source)
    assert_cancelled(promise)
  end)

  it("may cancel its own promise, and goes on until it waits", function()
    for _, is_late in ipairs({ false, true }) do
      local list, record = recorder()
      local promise
      promise = scheduler.async(function()
        task.wait(is_late and 1 or 0)
        promise:cancel("by itself")
        record("goes on")
        local _, err = scheduler.pcall(task.wait, 1)
        record(err.reason)
        return "dropped"
      end)()
      advance(1000)
      assert.are.same({ "goes on", "by itself" }, list)
      assert_cancelled(promise, "by itself")
    end
  end)

  it("may be cancelled by its executor's caller before it waits", function()
    local list, record = recorder()
    local promise
    promise = Promise.resolve():andThen(function()
      promise:cancel("in the handler")
      record("goes on")
      local _, err = scheduler.pcall(task.wait, 1)
      record(err.reason)
      return "dropped"
    end)
    local child = promise:andThen(record)
    scheduler.poll()
    assert_cancelled(promise, "in the handler")
    assert_cancelled(child, "in the handler")
    assert.are.same({ "goes on", "in the handler" }, list)
  end)

  it("that ends in the same moment has lost", function()
    local promise = Promise["try"](function()
      task.wait()
      return "late"
    end)
    scheduler.setTimeout(ignore)
    promise:cancel("reason")
    advance(0)
    assert_cancelled(promise, "reason")
  end)

  it("is not asked for again by retry", function()
    local calls = 0
    local promise = Promise.retry(function()
      calls = calls + 1
      error("failure", 0)
    end, { times = 10, delay = 1 })
    advance(2000)
    assert.are.equal(3, calls)
    promise:cancel("reason")
    assert.are.equal(0, scheduler.stats().timers_pending)
    advance(10000)
    assert.are.equal(3, calls)
    assert_cancelled(promise, "reason")
  end)

  it("by retry, is cancelled with it", function()
    local inner = open()
    local promise = Promise.retry(function()
      return inner
    end, 3)
    promise:cancel("reason")
    assert_cancelled(inner, "reason")
    assert_cancelled(promise, "reason")
  end)

  it("that is cancelled while retry waits for it is not called again", function()
    local inner, calls = nil, 0
    local promise = Promise.retry(function()
      calls = calls + 1
      inner = open()
      return inner
    end, 3)
    inner:cancel("inner")
    assert_cancelled(promise, "inner")
    assert.are.equal(1, calls)
  end)
end)

-- Lua 5.4's variables that are closed.
local compile = loadstring or load -- luacheck: ignore 113
local make_with_guard = compile([[
  return function(on_close, fn)
    local guard <close> = setmetatable({}, { __close = on_close })
    fn()
  end
]])

if make_with_guard then
  local with_guard = make_with_guard()

  describe("variables to be closed", function()
    local reported = promised.setup(before_each, after_each)

    it("are, when the promise is cancelled", function()
      for _, wait in ipairs({ function() task.wait(1) end, coroutine.yield }) do
        local closed = 0
        local promise = scheduler.async(with_guard)(function()
          closed = closed + 1
        end, wait)
        promise:cancel("reason")
        scheduler.poll()
        assert.are.equal(1, closed)
        assert_cancelled(promise, "reason")
      end
    end)

    it("are, when the code fails, and what fails then is reported", function()
      for _, wait in ipairs({ ignore, task.wait }) do
        local promise = scheduler.async(with_guard)(function()
          error("closing", 0)
        end, function()
          wait()
          error("failed", 0)
        end)
        promise:catch(ignore)
        advance(0)
        local result, errors = outcome(promise), reported()
        assert.are.equal("Rejected", result.status)
        assert.are.equal(1, #errors)
        assert.are.equal("failed", result[1])
        assert.are.equal("closing", errors[1].err)
      end
    end)
  end)
end

describe("a coroutine that awaits a promise", function()
  promised.setup(before_each, after_each)

  --- What interrupts a wait or ends it: functions that start `fn` and return one that cancels it.
  local CANCELS = {
    ["task.cancel"] = function(fn)
      local co = task.spawn(fn)
      return function()
        task.cancel(co)
      end
    end,
    ["a scope"] = function(fn)
      local scope
      task.spawn(scheduler.scope, function(given)
        scope = given
        scope:spawn(fn)
      end)
      return function()
        scope:cancel("reason")
      end
    end,
    ["scheduler.timeout"] = function(fn)
      task.spawn(scheduler.pcall, scheduler.timeout, 1, fn)
      return function()
        advance(1000)
      end
    end,
    ["the cancellation of its async function"] = function(fn)
      local promise = scheduler.async(fn)()
      return function()
        promise:cancel("reason")
      end
    end,
    ["the cancellation of its executor"] = function(fn)
      local promise = Promise.new(fn)
      return function()
        promise:cancel("reason")
      end
    end,
    ["the cancellation of its handler"] = function(fn)
      local promise = Promise.resolve():andThen(fn)
      scheduler.poll()
      return function()
        promise:cancel("reason")
      end
    end,
    ["a failing sibling"] = function(fn)
      local scope
      task.spawn(scheduler.pcall, scheduler.scope, function(given)
        scope = given
        scope:spawn(fn)
        coroutine.yield()
      end)
      return function()
        scope:spawn(error, "failed", 0)
      end
    end,
  }

  for name, start in pairs(CANCELS) do
    it("and is cancelled cancels that, unless others want it: " .. name, function()
      for _, method in ipairs({ "await", "awaitStatus", "expect" }) do
        local promise = open()
        local cancel = start(function()
          promise[method](promise)
          error("goes on")
        end)
        assert.are.equal("Started", promise:getStatus())
        cancel()
        scheduler.poll()
        assert.are.equal("Cancelled", promise:getStatus())
      end
      local wanted, resolve = open()
      local child = wanted:andThen()
      local cancel = start(function()
        wanted:expect()
      end)
      cancel()
      assert.are.same(pending, outcome(wanted))
      resolve(1)
      assert.are.same(resolved(1), outcome(child))
    end)
  end

  it("wants it: neither its child nor another coroutine that leaves ends it", function()
    local list, record = recorder()
    local promise, resolve = open()
    local one, two = waiter(promise, record), waiter(promise, record)
    promise:andThen(ignore):cancel()
    promise:timeout(1):cancel()
    task.cancel(one)
    assert.are.same(pending, outcome(promise))
    resolve(1)
    scheduler.poll()
    assert.are.same({ "resumed" }, list)
    assert.are.equal("done", task.status(two))
  end)

  it("and is the last to be cancelled takes its reason along", function()
    local promise = open()
    local child = promise:andThen(ignore)
    local function wait()
      promise:await()
    end
    local one, two = scheduler.async(wait)(), scheduler.async(wait)()
    child:cancel("child")
    one:cancel("one")
    assert.are.equal("Started", promise:getStatus())
    two:cancel("two")
    assert_cancelled(promise, "two")
  end)

  it("and is resumed by hand leaves it alone", function()
    local promise, resolve = open()
    for _, resume in ipairs({ coroutine.resume, task.spawn, function(co)
      task.defer(co)
      scheduler.poll()
    end }) do
      local co = task.spawn(function()
        promise:await()
      end)
      resume(co)
      assert.are.equal("done", task.status(co))
      assert.are.same(pending, outcome(promise))
    end
    resolve(1)
    assert.are.same(resolved(1), outcome(promise))
  end)

  it("through scheduler.await, or several at once, is the same", function()
    local one, two = open(), open()
    local co = task.spawn(scheduler.await, one)
    task.cancel(co)
    assert.are.equal("Cancelled", one:getStatus())
    one = open()
    local wanted = open()
    wanted:andThen()
    co = task.spawn(scheduler.await, one, two, wanted)
    task.cancel(co)
    assert.are.same({ one = "Cancelled", two = "Cancelled", wanted = "Started" },
      statuses({ one = one, two = two, wanted = wanted }))
  end)

  it("in the inside of a protected call is the same", function()
    local promise = open()
    local list, record = recorder()
    local outer = scheduler.async(function()
      local ok, err = scheduler.pcall(function()
        local _, inner = scheduler.pcall(promise.expect, promise)
        record(inner.reason)
        error(inner, 0)
      end)
      record(ok)
      error(err, 0)
    end)()
    outer:cancel("reason")
    scheduler.poll()
    assert.are.equal("Cancelled", promise:getStatus())
    assert.are.same({ "reason", false }, list)
  end)

  it("that is shielded keeps it alive", function()
    local promise, resolve = open()
    local list, record = recorder()
    local outer = scheduler.async(function()
      scheduler.shield(function()
        record(promise:expect())
      end)
    end)()
    outer:cancel()
    assert.are.same(pending, outcome(promise))
    resolve("shielded")
    scheduler.poll()
    assert.are.same({ "shielded" }, list)
  end)

  it("and was woken already takes the value, and is interrupted later", function()
    local promise, resolve = open()
    local list, record = recorder()
    local outer = scheduler.async(function()
      record(promise:expect())
      record(select(2, scheduler.pcall(task.wait)).kind)
    end)()
    resolve("in time")
    outer:cancel()
    scheduler.poll()
    assert.are.same({ "in time", "cancelled" }, list)
    assert.are.same(resolved("in time"), outcome(promise))
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
