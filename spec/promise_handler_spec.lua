local scheduler = require("scheduler")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local Promise, task = scheduler.Promise, scheduler.task
local Error = Promise.Error
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, open, line_here = promised.counted, promised.outcome, promised.open, promised.line_here
local resolved, rejected, pending = promised.resolved, promised.rejected, promised.pending
local refuses, unhurried = promised.refuses, promised.unhurried
local VALUES, ERRORS = promised.VALUES, promised.ERRORS
local NOT_CALLABLE, callable = promised.NOT_CALLABLE, promised.callable
local in_each_place = promised.in_each_place

local unpack = table.unpack or unpack

local function ignore() end

describe("andThen", function()
  promised.setup(before_each, after_each)

  it("calls one handler, once, with all values", function()
    for _, values in ipairs(VALUES) do
      for _, is_late in ipairs({ false, true }) do
        local list, record = recorder()
        local function note(name)
          return function(...)
            record(name)
            record(counted(...))
          end
        end
        local one, resolve = open()
        local two, _, reject = open()
        if not is_late then
          resolve(unpack(values, 1, values.n))
          reject(unpack(values, 1, values.n))
        end
        one:andThen(note("one"), note("wrong"))
        two:andThen(note("wrong"), note("two"))
        resolve(unpack(values, 1, values.n))
        reject(unpack(values, 1, values.n))
        assert.are.same({}, list)
        scheduler.poll()
        assert.are.same({ "one", values, "two", values }, list)
      end
    end
  end)

  it("keeps all values that a handler returns, of either kind", function()
    for _, values in ipairs(VALUES) do
      local function give()
        return unpack(values, 1, values.n)
      end
      local expected = resolved(unpack(values, 1, values.n))
      assert.are.same(expected, outcome(Promise.resolve("x"):andThen(give)))
      assert.are.same(expected, outcome(Promise.resolve(nil, "x"):andThen(give)))
      assert.are.same(expected, outcome(Promise.reject("x"):andThen(nil, give)))
    end
  end)

  it("passes on what it has no handler for", function()
    for _, values in ipairs(VALUES) do
      local fulfilled = Promise.resolve(unpack(values, 1, values.n))
      local failed = Promise.reject(unpack(values, 1, values.n))
      assert.are.same(resolved(unpack(values, 1, values.n)), outcome(fulfilled:andThen(nil, ignore):andThen()))
      assert.are.same(rejected(unpack(values, 1, values.n)), outcome(failed:andThen(ignore):andThen()))
    end
  end)

  it("ignores handlers that cannot be called", function()
    for _, value in ipairs(NOT_CALLABLE) do
      assert.are.same(resolved(1, nil), outcome(Promise.resolve(1, nil):andThen(value, value)))
      assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):andThen(value, value)))
      assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):catch(value)))
    end
  end)

  it("takes callable tables", function()
    local double = callable(function(x)
      return x * 2
    end)
    assert.are.same(resolved(4), outcome(Promise.resolve(2):andThen(double)))
    assert.are.same(resolved(4), outcome(Promise.reject(2):andThen(nil, double)))
    assert.are.same(resolved(4), outcome(Promise.reject(2):catch(double)))
  end)

  it("is rejected with what a handler raises, of any type", function()
    for _, err in ipairs(ERRORS) do
      local function fail()
        error(err, 0)
      end
      local promises = { Promise.resolve():andThen(fail), Promise.reject():andThen(nil, fail),
        Promise.reject():catch(fail) }
      for i = 1, 3 do
        promises[i]:catch(ignore)
      end
      scheduler.poll()
      for _, promise in ipairs(promises) do
        assert.are.equal(err, select(2, promise:awaitStatus()))
      end
    end
    local promise = Promise.resolve():andThen(function()
      error()
    end)
    assert.are.same(rejected(raised.none), outcome(promise))
  end)

  it("waits for a promise or thenable that a handler returns", function()
    local inner, resolve_inner = open()
    local function give()
      return inner, "dropped"
    end
    local one, two = Promise.resolve():andThen(give), Promise.reject():catch(give)
    assert.are.same(pending, outcome(one))
    resolve_inner("inner", nil)
    assert.are.same(resolved("inner", nil), outcome(one))
    assert.are.same(resolved("inner", nil), outcome(two))
    local three = Promise.resolve():andThen(function()
      return Promise.reject("failed", nil)
    end)
    assert.are.same(rejected("failed", nil), outcome(three))
    local four = Promise.resolve():andThen(function()
      return {
        andThen = function(_, _, reject)
          reject("thenable", nil)
        end,
      }
    end)
    assert.are.same(rejected("thenable", nil), outcome(four))
  end)

  it("runs handlers in the order in which they came, each as a microtask, with others in between", function()
    local list, record = recorder()
    local promise, resolve = open()
    promise:andThen(function()
      record("first")
      promise:andThen(function()
        record("added by the first")
      end)
      scheduler.queueMicrotask(function()
        record("microtask of the first")
      end)
    end)
    promise:finally(function()
      record("second")
    end)
    promise:andThenCall(record, "third")
    scheduler.queueMicrotask(function()
      record("microtask before")
    end)
    resolve()
    scheduler.queueMicrotask(function()
      record("microtask after")
    end)
    promise:andThenCall(record, "late")
    record("synchronous")
    scheduler.poll()
    assert.are.same({ "synchronous", "microtask before", "first", "second", "third", "microtask after", "late",
      "added by the first", "microtask of the first" }, list)
  end)

  it("runs handlers in order, of 10,000 on one promise", unhurried(function()
    local list, record = recorder()
    local promise, resolve = open()
    for i = 1, 10000 do
      promise:andThenCall(record, i)
    end
    resolve()
    scheduler.poll()
    for i = 1, 10000 do
      assert.are.equal(i, list[i])
    end
  end))

  it("may wait in a handler, which holds up nobody but its own promise", function()
    local list, record = recorder()
    local promise, resolve = open()
    local child = promise:andThen(function(...)
      record("waits")
      task.wait(1)
      record("waited")
      return ...
    end)
    child:andThenCall(record, "child")
    promise:andThenCall(record, "next")
    resolve(1, nil)
    assert.are.same(pending, outcome(child))
    assert.are.same({ "waits", "next" }, list)
    advance(1000)
    assert.are.same({ "waits", "next", "waited", "child" }, list)
    assert.are.same(resolved(1, nil), outcome(child))
  end)

  it("may raise after a wait in a handler of either kind", function()
    for _, err in ipairs(ERRORS) do
      local function fail_later()
        task.wait()
        error(err, 0)
      end
      local one, two = Promise.resolve():andThen(fail_later), Promise.reject():catch(fail_later)
      one:catch(ignore)
      two:catch(ignore)
      advance(0)
      assert.are.equal(err, select(2, one:awaitStatus()))
      assert.are.equal(err, select(2, two:awaitStatus()))
    end
  end)

  it("may be called anywhere", function()
    local given
    in_each_place(function()
      given = nil
      Promise.resolve(1):andThen(function(x)
        given = x
      end)
      assert.is_nil(given)
    end, function(place)
      assert.are.equal(1, given, place)
    end)
  end)

  it("makes a chain of a million, which does not overflow", unhurried(function()
    local function count(n)
      return n + 1
    end
    local promise, resolve = open()
    for _ = 1, 1000000 do
      promise = promise:andThen(count)
    end
    resolve(0)
    assert.are.same(resolved(1000000), outcome(promise))
  end))

  it("passes a rejection along a long chain without handlers", unhurried(function()
    local promise, _, reject = open()
    for _ = 1, 100000 do
      promise = promise:andThen(ignore)
    end
    promise = promise:catch(function(err)
      return "caught", err
    end)
    reject("failed")
    assert.are.same(resolved("caught", "failed"), outcome(promise))
  end))
end)

describe("catch", function()
  promised.setup(before_each, after_each)

  it("sees rejections alone, with all values, and what it returns is no rejection", function()
    assert.are.same(resolved(nil, 1), outcome(Promise.reject(nil, 1):catch(function(...)
      return ...
    end)))
    assert.are.same(resolved(), outcome(Promise.reject(1):catch(ignore)))
    local was_called = false
    assert.are.same(resolved(1, nil), outcome(Promise.resolve(1, nil):catch(function()
      was_called = true
    end)))
    assert.is_false(was_called)
    assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):catch()))
  end)

  it("may raise again", function()
    local promise = Promise.reject("first"):catch(function(err)
      error({ err }, 0)
    end)
    assert.are.same(rejected({ "first" }), outcome(promise))
  end)
end)

describe("tap", function()
  promised.setup(before_each, after_each)

  it("looks at the values and passes them on", function()
    for _, values in ipairs(VALUES) do
      local seen
      local promise = Promise.resolve(unpack(values, 1, values.n)):tap(function(...)
        seen = counted(...)
        return "dropped"
      end)
      assert.are.same(resolved(unpack(values, 1, values.n)), outcome(promise))
      assert.are.same(values, seen)
    end
  end)

  it("waits for a promise or thenable that is returned, and drops its value", function()
    local inner, resolve = open()
    local one = Promise.resolve(1, nil):tap(function()
      return inner
    end)
    assert.are.same(pending, outcome(one))
    resolve("inner")
    advance(0)
    assert.are.same(resolved(1, nil), outcome(one))
    local settle
    local two = Promise.resolve(2):tap(function()
      return {
        andThen = function(_, given)
          settle = given
        end,
      }
    end)
    assert.are.same(pending, outcome(two))
    settle("thenable")
    advance(0)
    assert.are.same(resolved(2), outcome(two))
  end)

  it("waits for its function", function()
    local promise = Promise.resolve(1):tap(function()
      task.wait(1)
    end)
    assert.are.same(pending, outcome(promise))
    advance(1000)
    assert.are.same(resolved(1), outcome(promise))
  end)

  it("is rejected with what is raised, or what the returned promise is rejected with", function()
    assert.are.same(rejected("raised"), outcome(Promise.resolve(1):tap(function()
      error("raised", 0)
    end)))
    assert.are.same(rejected("returned"), outcome(Promise.resolve(1):tap(function()
      return Promise.reject("returned")
    end)))
  end)

  it("does not see rejections", function()
    local was_called = false
    assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):tap(function()
      was_called = true
    end)))
    assert.is_false(was_called)
  end)
end)

describe("andThenCall and andThenReturn", function()
  promised.setup(before_each, after_each)

  it("call with their own arguments, and return their own values", function()
    for _, values in ipairs(VALUES) do
      local given
      local promise = Promise.resolve("dropped"):andThenCall(function(...)
        given = counted(...)
        return ...
      end, unpack(values, 1, values.n))
      assert.are.same(resolved(unpack(values, 1, values.n)), outcome(promise))
      assert.are.same(values, given)
      promise = Promise.resolve("dropped"):andThenReturn(unpack(values, 1, values.n))
      assert.are.same(resolved(unpack(values, 1, values.n)), outcome(promise))
    end
  end)

  it("pass rejections on", function()
    local was_called = false
    assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):andThenCall(function()
      was_called = true
    end)))
    assert.is_false(was_called)
    assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):andThenReturn(2)))
  end)

  it("wait for a promise", function()
    local inner, resolve = open()
    local one = Promise.resolve():andThenReturn(inner)
    local two = Promise.resolve():andThenCall(function(x)
      return x
    end, inner)
    assert.are.same(pending, outcome(one))
    resolve(1, nil)
    assert.are.same(resolved(1, nil), outcome(one))
    assert.are.same(resolved(1, nil), outcome(two))
  end)
end)

describe("finally", function()
  promised.setup(before_each, after_each)

  it("is called with the status, and passes the outcome on", function()
    for _, values in ipairs(VALUES) do
      local list, record = recorder()
      local function note(...)
        record(counted(...))
        return "dropped"
      end
      assert.are.same(resolved(unpack(values, 1, values.n)),
        outcome(Promise.resolve(unpack(values, 1, values.n)):finally(note)))
      assert.are.same(rejected(unpack(values, 1, values.n)),
        outcome(Promise.reject(unpack(values, 1, values.n)):finally(note)))
      assert.are.same({ counted("Resolved"), counted("Rejected") }, list)
    end
  end)

  it("without a handler passes the outcome on", function()
    assert.are.same(resolved(1, nil), outcome(Promise.resolve(1, nil):finally()))
    assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):finally()))
  end)

  it("waits for its handler, and for what that returns", function()
    local inner, resolve_inner = open()
    local one = Promise.resolve(1, nil):finally(function()
      task.wait(1)
      return inner
    end)
    advance(1000)
    assert.are.same(pending, outcome(one))
    resolve_inner("dropped")
    assert.are.same(resolved(1, nil), outcome(one))
    local settle
    local two = Promise.reject(1, nil):finally(function()
      return {
        andThen = function(_, given)
          settle = given
        end,
      }
    end)
    two:catch(ignore)
    assert.are.same(pending, outcome(two))
    settle("dropped")
    assert.are.same(rejected(1, nil), outcome(two))
  end)

  it("is rejected with what its handler raises, or what that returned is rejected with", function()
    for _, start in ipairs({ Promise.resolve, Promise.reject }) do
      assert.are.same(rejected("raised"), outcome(start(1):finally(function()
        error("raised", 0)
      end)))
      assert.are.same(rejected("returned", nil), outcome(start(1):finally(function()
        return Promise.reject("returned", nil)
      end)))
      local late = start(1):finally(function()
        task.wait()
        error("late", 0)
      end)
      late:catch(ignore)
      advance(0)
      assert.are.same(rejected("late"), outcome(late))
    end
  end)
end)

describe("finallyCall and finallyReturn", function()
  promised.setup(before_each, after_each)

  it("call with their own arguments, whatever the outcome, which is passed on", function()
    local list, record = recorder()
    local function note(...)
      record(counted(...))
    end
    assert.are.same(resolved(1, nil), outcome(Promise.resolve(1, nil):finallyCall(note, "a", nil)))
    assert.are.same(rejected(1, nil), outcome(Promise.reject(1, nil):finallyCall(note)))
    local promise = open()
    local child = promise:finallyCall(note, "cancelled")
    promise:cancel()
    assert.are.equal("Cancelled", outcome(child).status)
    assert.are.same({ counted("a", nil), counted(), counted("cancelled") }, list)
  end)

  it("pass the outcome on in spite of the values that finallyReturn is given", function()
    for _, values in ipairs(VALUES) do
      local kept = Promise.resolve("kept"):finallyReturn(unpack(values, 1, values.n))
      assert.are.same(resolved("kept"), outcome(kept))
      assert.are.same(rejected("kept"), outcome(Promise.reject("kept"):finallyReturn(unpack(values, 1, values.n))))
    end
  end)

  it("wait for a promise that finallyReturn is given", function()
    local gate, open_gate = open()
    local promise = Promise.resolve("kept"):finallyReturn(gate)
    advance(0)
    assert.are.equal("Started", promise:getStatus())
    open_gate()
    assert.are.same(resolved("kept"), outcome(promise))
    assert.are.same(rejected("failed"), outcome(Promise.resolve("kept"):finallyReturn(Promise.reject("failed"))))
  end)
end)

describe("methods that take a function", function()
  promised.setup(before_each, after_each)

  it("refuse what cannot be called, at the line of their caller", function()
    local promise = open()
    for _, name in ipairs({ "tap", "andThenCall", "finally", "finallyCall" }) do
      for _, value in ipairs(NOT_CALLABLE) do
        local expected = ("bad argument #1 to '%s' (function expected, got %s)"):format(name, type(value))
        refuses(expected, promise[name], promise, value)
      end
      local line = line_here() + 1
      local ok, message = pcall(function() promise[name](promise, 1) end)
      assert.is_false(ok)
      assert.matches("promise_handler_spec%.lua:" .. line .. ": bad argument #1 to '" .. name .. "'", message)
    end
    for _, name in ipairs({ "tap", "andThenCall", "finallyCall" }) do
      refuses(("bad argument #1 to '%s' (function expected, got nil)"):format(name), promise[name], promise)
    end
  end)

  it("take callable tables", function()
    local list, record = recorder()
    local note = callable(record)
    local promise = Promise.resolve(1)
    promise:tap(note)
    promise:andThenCall(note, 2)
    promise:finally(note)
    promise:finallyCall(note, 4)
    advance(0)
    assert.are.same({ 1, 2, "Resolved", 4 }, list)
  end)
end)

describe("timeout", function()
  promised.setup(before_each, after_each)

  it("passes on what comes in time, and takes its timer back", function()
    local one, resolve = open()
    local two, _, reject = open()
    one, two = one:timeout(1), two:timeout(1)
    two:catch(ignore)
    advance(999)
    resolve(1, nil)
    reject(2, nil)
    assert.are.same(resolved(1, nil), outcome(one))
    assert.are.same(rejected(2, nil), outcome(two))
    assert.are.equal(0, scheduler.stats().timers_pending)
    assert.are.same(resolved(3, nil), outcome(Promise.resolve(3, nil):timeout(0)))
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("rejects at its time, and cancels what is late", function()
    local promise = open()
    local limited = promise:timeout(1.5)
    limited:catch(ignore)
    advance(1499)
    assert.are.same(pending, outcome(limited))
    advance(1)
    local result = outcome(limited)
    assert.are.equal("Rejected", result.status)
    assert.is_true(Error.isKind(result[1], Error.Kind.TimedOut))
    assert.matches("1%.5 s", tostring(result[1]))
    assert.are.equal("Cancelled", promise:getStatus())
  end)

  it("rejects with the value that it was given, of any type", function()
    for _, value in ipairs(ERRORS) do
      local limited = open():timeout(1, value)
      limited:catch(ignore)
      advance(1000)
      assert.are.equal("Rejected", limited:getStatus())
      assert.are.equal(value, select(2, limited:awaitStatus()))
    end
  end)

  it("does not cancel what others want", function()
    local promise, resolve = open()
    local child = promise:andThen()
    local limited = promise:timeout(1)
    limited:catch(ignore)
    advance(1000)
    assert.are.equal("Rejected", limited:getStatus())
    assert.are.equal("Started", promise:getStatus())
    resolve(1)
    assert.are.same(resolved(1), outcome(child))
  end)

  it("that is cancelled takes its timer back", function()
    local promise = open()
    promise:timeout(1):cancel()
    assert.are.equal(0, scheduler.stats().timers_pending)
    assert.are.equal("Cancelled", promise:getStatus())
    promise = open()
    local limited = promise:timeout(1)
    promise:cancel()
    assert.is_true(Error.isKind(outcome(limited)[1], Error.Kind.AlreadyCancelled))
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("refuses what is no number", function()
    local promise = open()
    for _, case in ipairs({ { "nil" }, { "string", "1" }, { "NaN", 0 / 0 }, { "table", {} } }) do
      local expected = "bad argument #1 to 'timeout' (number expected, got " .. case[1] .. ")"
      refuses(expected, promise.timeout, promise, case[2])
    end
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)
end)

describe("now", function()
  promised.setup(before_each, after_each)

  it("is resolved where the promise is", function()
    assert.are.same(resolved(1, nil), outcome(Promise.resolve(1, nil):now()))
    assert.are.same(resolved(1, nil), outcome(Promise.resolve(1, nil):now("value")))
  end)

  it("is rejected where it is not, and lets the promise be", function()
    local promise, resolve = open()
    local cancelled = open()
    cancelled:cancel()
    local failed = Promise.reject("failed")
    failed:catch(ignore)
    for _, other in ipairs({ promise, failed, cancelled }) do
      local result = outcome(other:now())
      assert.are.equal("Rejected", result.status)
      assert.is_true(Error.isKind(result[1], Error.Kind.NotResolvedInTime))
      assert.are.same(rejected("value"), outcome(other:now("value")))
      assert.are.same(rejected(false), outcome(other:now(false)))
    end
    resolve(1)
    assert.are.same(resolved(1), outcome(promise))
  end)
end)
