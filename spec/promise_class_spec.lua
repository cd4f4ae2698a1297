local scheduler = require("scheduler")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, line_here = promised.counted, promised.outcome, promised.line_here
local resolved, rejected, pending = promised.resolved, promised.rejected, promised.pending
local refuses, unhurried = promised.refuses, promised.unhurried
local VALUES, ERRORS = promised.VALUES, promised.ERRORS
local NOT_CALLABLE, callable = promised.NOT_CALLABLE, promised.callable

local unpack = table.unpack or unpack

local function ignore() end

describe("Promise.try", function()
  local reported = promised.setup(before_each, after_each)
  local try = Promise["try"]

  it("calls a function at once, with all arguments, and keeps all results", function()
    for _, values in ipairs(VALUES) do
      local given
      local promise = try(function(...)
        given = counted(...)
        return ...
      end, unpack(values, 1, values.n))
      assert.are.same(values, given)
      assert.are.same(resolved(unpack(values, 1, values.n)), promised.look(promise))
    end
  end)

  it("is rejected with what is raised, before and after a wait", function()
    for _, err in ipairs(ERRORS) do
      local early = try(error, err, 0)
      local late = try(function()
        task.wait()
        error(err, 0)
      end)
      early:catch(ignore)
      late:catch(ignore)
      advance(0)
      assert.are.equal(err, select(2, early:awaitStatus()))
      assert.are.equal(err, select(2, late:awaitStatus()))
    end
  end)

  it("waits for a promise that is returned, and for the function if that waits", function()
    local promise = try(function()
      task.wait(1)
      return Promise.delay(1):andThenReturn("result", nil), "dropped"
    end)
    advance(1000)
    assert.are.same(pending, outcome(promise))
    advance(1000)
    assert.are.same(resolved("result", nil), outcome(promise))
  end)

  it("refuses what cannot be called", function()
    for _, value in ipairs(NOT_CALLABLE) do
      refuses("bad argument #1 to 'try' (function expected, got " .. type(value) .. ")", try, value)
    end
    assert.are.same(resolved(1), outcome(try(callable(function(x)
      return x
    end), 1)))
  end)

  it("reports what nobody handles, with the traceback of the failure", function()
    local line
    local function fail()
      line = line_here() + 1
      error("boom")
    end
    local made_at = line_here() + 1
    try(function() fail() end)
    local errors = reported()
    assert.are.equal(1, #errors)
    assert.matches("promise_class_spec%.lua:" .. line .. ": boom$", errors[1].err)
    assert.matches("promise_class_spec%.lua:" .. line, errors[1].traceback)
    assert.matches("^a promise made at .*promise_class_spec%.lua:" .. made_at .. "$", errors[1].source)
  end)
end)

describe("Promise.promisify", function()
  promised.setup(before_each, after_each)

  it("makes a function that may wait one that returns a promise of all its results", function()
    local sleep = Promise.promisify(function(seconds, ...)
      task.wait(seconds)
      return ...
    end)
    local one, two = sleep(1, "one", nil), sleep(2)
    advance(1000)
    assert.are.same(resolved("one", nil), outcome(one))
    assert.are.same(pending, outcome(two))
    advance(1000)
    assert.are.same(resolved(), outcome(two))
  end)

  it("rejects with what is raised", function()
    local fail = Promise.promisify(error)
    for _, err in ipairs(ERRORS) do
      local _, value = fail(err, 0):awaitStatus()
      assert.are.equal(err, value)
    end
  end)

  it("refuses what cannot be called, when it is given that", function()
    for _, value in ipairs(NOT_CALLABLE) do
      refuses("bad argument #1 to 'promisify' (function expected, got " .. type(value) .. ")", Promise.promisify, value)
    end
    refuses("bad argument #1 to 'promisify' (function expected, got nil)", Promise.promisify)
    assert.are.same(resolved(1), outcome(Promise.promisify(callable(function(x)
      return x
    end))(1)))
  end)
end)

describe("Promise.delay", function()
  promised.setup(before_each, after_each)

  it("is resolved at its time with the seconds that have passed", function()
    for _, seconds in ipairs({ 0.5, 1, 1000 }) do
      local promise = Promise.delay(seconds)
      advance(seconds * 1000 - 1)
      assert.are.same(pending, outcome(promise))
      advance(1)
      assert.are.same(resolved(seconds), outcome(promise))
    end
  end)

  it("of 0, less, or nothing is resolved in the next turn", function()
    for _, seconds in ipairs({ 0, -1, -math.huge, "none" }) do
      local promise = Promise.delay(seconds ~= "none" and seconds or nil)
      assert.are.equal("Started", promise:getStatus())
      advance(0)
      assert.are.same(resolved(0), outcome(promise))
    end
  end)

  it("of math.huge is never resolved", function()
    local promise = Promise.delay(math.huge)
    advance(1e8)
    assert.are.same(pending, outcome(promise))
    promise:cancel()
  end)

  it("keep their order, whatever the order in which they were made", function()
    local list, record = recorder()
    for _, ms in ipairs({ 3, 1, 2, 1 }) do
      Promise.delay(ms / 1000):andThenCall(record, ms)
    end
    advance(3)
    assert.are.same({ 1, 1, 2, 3 }, list)
  end)

  it("refuses what is no number", function()
    for _, value in ipairs({ "1", {}, ignore, true }) do
      refuses("bad argument #1 to 'delay' (number expected, got " .. type(value) .. ")", Promise.delay, value)
    end
    refuses("bad argument #1 to 'delay' (number expected, got NaN)", Promise.delay, 0 / 0)
  end)
end)

--- An event as Roblox has them, or with names in lower case, or one whose `Connect` returns a function.
local function signal(form)
  local self = { handlers = {}, connected = 0 }
  local function connect(event, handler)
    assert(event == self)
    event.connected = event.connected + 1
    event.handlers[handler] = true
    local function disconnect()
      assert(event.handlers[handler], "disconnected twice")
      event.connected = event.connected - 1
      event.handlers[handler] = nil
    end
    if form == "function" then return disconnect end
    return { [form == "lower" and "disconnect" or "Disconnect"] = disconnect }
  end
  self[form == "lower" and "connect" or "Connect"] = connect
  function self.fire(...)
    for handler in pairs(self.handlers) do
      handler(...)
    end
  end
  return self
end

describe("Promise.fromEvent", function()
  promised.setup(before_each, after_each)

  it("is resolved with what the event fires with next, and disconnects", function()
    for _, form in ipairs({ "upper", "lower", "function" }) do
      local event = signal(form)
      local promise = Promise.fromEvent(event)
      assert.are.equal(1, event.connected)
      assert.are.same(pending, outcome(promise))
      event.fire(1, nil, 3, nil)
      assert.are.equal(0, event.connected)
      event.fire("other")
      assert.are.same(resolved(1, nil, 3, nil), outcome(promise))
    end
  end)

  it("goes on waiting while the predicate says no", function()
    local event, list, record = signal("upper"), recorder()
    local promise = Promise.fromEvent(event, callable(function(...)
      record(counted(...))
      return select("#", ...) == 2
    end))
    event.fire("no")
    event.fire()
    assert.are.same(pending, outcome(promise))
    event.fire("yes", nil)
    event.fire("never asked", nil)
    assert.are.same(resolved("yes", nil), outcome(promise))
    assert.are.same({ counted("no"), counted(), counted("yes", nil) }, list)
  end)

  it("takes an event that fires while it is being connected", function()
    local disconnected = 0
    local event = {
      Connect = function(_, handler)
        handler("at once")
        handler("again")
        return {
          Disconnect = function()
            disconnected = disconnected + 1
          end,
        }
      end,
    }
    assert.are.same(resolved("at once"), outcome(Promise.fromEvent(event)))
    assert.are.equal(1, disconnected)
  end)

  it("disconnects when it is cancelled", function()
    for _, form in ipairs({ "upper", "lower", "function" }) do
      local event = signal(form)
      local promise = Promise.fromEvent(event)
      promise:cancel()
      assert.are.equal(0, event.connected)
      event.fire(1)
      assert.are.equal("Cancelled", outcome(promise).status)
    end
  end)

  it("works without anything to disconnect", function()
    local handler
    local promise = Promise.fromEvent({
      Connect = function(_, given)
        handler = given
      end,
    })
    handler(1)
    handler(2)
    assert.are.same(resolved(1), outcome(promise))
  end)

  it("refuses what is no event, and a predicate that cannot be called", function()
    for _, value in ipairs({ 1, "text", true, {}, ignore, { Connect = 1 } }) do
      local expected = "bad argument #1 to 'fromEvent' (object with a method Connect expected, got %s)"
      refuses(expected:format(type(value)), Promise.fromEvent, value)
    end
    for _, value in ipairs(NOT_CALLABLE) do
      local expected = "bad argument #2 to 'fromEvent' (function expected, got " .. type(value) .. ")"
      refuses(expected, Promise.fromEvent, signal("upper"), value)
    end
  end)
end)

--- A function that fails so many times, in the way of `fail`; and the list of the calls that it has got.
local function failing(times, fail)
  local calls, record = recorder()
  return function(...)
    record(virtual.since(0))
    if #calls <= times then return (fail or error)("failure " .. #calls, 0) end
    return "success", ...
  end, calls
end

--- The times between calls, in milliseconds.
local function gaps(calls)
  local list = {}
  for i = 2, #calls do
    list[i - 1] = math.floor(calls[i] - calls[i - 1] + 0.5)
  end
  return list
end

describe("Promise.retry", function()
  local reported = promised.setup(before_each, after_each)

  it("calls a function with its arguments until that succeeds", function()
    for _, fail in ipairs({ error, Promise.reject, function(err)
      task.wait(0)
      error(err, 0)
    end }) do
      local fn, calls = failing(3, fail)
      local promise = Promise.retry(fn, 5, "a", nil)
      advance(10)
      assert.are.same(resolved("success", "a", nil), outcome(promise))
      assert.are.equal(4, #calls)
    end
  end)

  it("does not call it again where it has succeeded at once", function()
    local fn, calls = failing(0)
    local promise = Promise.retry(fn, 5)
    assert.are.equal(1, #calls)
    assert.are.same(resolved("success"), outcome(promise))
    assert.are.equal(1, #calls)
  end)

  it("makes so many retries and is rejected with the last failure", function()
    for times = 0, 3 do
      local fn, calls = failing(100)
      local promise = Promise.retry(fn, times)
      promise:catch(ignore)
      advance(0)
      assert.are.same(rejected("failure " .. times + 1), outcome(promise))
      assert.are.equal(times + 1, #calls)
    end
    local fn, calls = failing(1000)
    local promise = Promise.retry(fn, math.huge)
    for _ = 1, 10 do
      advance(0)
    end
    assert.are.same(resolved("success"), outcome(promise))
    assert.are.equal(1001, #calls)
  end)

  it("lets the loop turn between retries without end", function()
    local fn, calls = failing(math.huge)
    local promise = Promise.retry(fn, math.huge)
    scheduler.clock.resume() -- to advance a paused one takes it to where nothing is due
    for retries = 100, 500, 100 do
      local others = 0
      assert.are.equal(retries, #calls)
      task.delay(0, function() others = others + 1 end)
      scheduler.poll()
      assert.are.equal(1, others)
    end
    promise:cancel()
    scheduler.poll()
    assert.are.equal(600, #calls)
  end)

  it("takes a back-off of no delay for none, however often it is multiplied", function()
    local fn, calls = failing(1500)
    local promise = Promise.retry(fn, { times = 2000, backoff = 2 })
    for _ = 1, 15 do
      advance(0)
    end
    assert.are.same(resolved("success"), outcome(promise))
    assert.are.equal(1501, #calls)
  end)

  it("keeps all values of the last rejection", function()
    local promise = Promise.retry(function()
      return Promise.reject(nil, 2, nil)
    end, 1)
    promise:catch(ignore)
    advance(0)
    assert.are.same(rejected(nil, 2, nil), outcome(promise))
  end)

  it("reports one failure, the last, if nobody handles it", function()
    local fn = failing(100)
    Promise.retry(fn, 3)
    local errors = reported()
    assert.are.equal(1, #errors)
    assert.are.equal("failure 4", errors[1].err)
  end)

  it("waits between attempts as its options say", function()
    for _, case in ipairs({
      { { times = 3 }, { 0, 0, 0 } },
      { { times = 3, delay = 0.1 }, { 100, 100, 100 } },
      { { times = 4, delay = 0.1, backoff = 2 }, { 100, 200, 400, 800 } },
      { { times = 4, delay = 0.1, backoff = 3, max_delay = 0.5 }, { 100, 300, 500, 500 } },
      { { times = 3, delay = 0.1, backoff = 0.5 }, { 100, 50, 25 } },
    }) do
      local fn, calls = failing(100)
      local promise = Promise.retry(fn, case[1], "argument")
      promise:catch(ignore)
      advance(10000)
      assert.are.same(case[2], gaps(calls))
      assert.are.equal("Rejected", promise:getStatus())
    end
  end)

  it("varies the wait by the jitter, not more, to both sides", unhurried(function()
    local shorter, longer = 0, 0
    local fn, calls = failing(200)
    local promise = Promise.retry(fn, { times = 200, delay = 1, jitter = 0.25 })
    advance(1e6)
    assert.are.same(resolved("success"), outcome(promise))
    for _, gap in ipairs(gaps(calls)) do
      assert.is_true(gap >= 750 and gap <= 1250, gap)
      if gap < 1000 then shorter = shorter + 1 elseif gap > 1000 then longer = longer + 1 end
    end
    assert.is_true(shorter > 40 and longer > 40, shorter .. " are shorter, " .. longer .. " longer")
  end))

  it("asks `when` with the failure and the number of the retry", function()
    local list, record = recorder()
    local fn, calls = failing(100)
    local promise = Promise.retry(fn, {
      times = 10,
      when = function(...)
        record(counted(...))
        return #calls < 3
      end,
    })
    promise:catch(ignore)
    advance(0)
    assert.are.same(rejected("failure 3"), outcome(promise))
    assert.are.same({ counted("failure 1", 1), counted("failure 2", 2), counted("failure 3", 3) }, list)
  end)

  it("is rejected with what `when` raises", function()
    local promise = Promise.retry(failing(100), { times = 10, when = callable(error) })
    promise:catch(ignore)
    advance(0)
    assert.matches("failure 1$", outcome(promise)[1])
  end)

  it("is rejected with what `when` raises after a wait, or goes on", function()
    local fn, calls = failing(2)
    local promise = Promise.retry(fn, { times = 10, when = function()
      task.wait(1)
      return true
    end })
    advance(2000)
    assert.are.same(resolved("success"), outcome(promise))
    assert.are.same({ 1000, 1000 }, gaps(calls))
  end)

  it("refuses bad arguments at the line of its caller", function()
    refuses("bad argument #1 to 'retry' (function expected, got nil)", Promise.retry, nil, 1)
    for _, case in ipairs({
      { nil, "whole number of at least 0 expected, got nil" },
      { "1", "whole number of at least 0 expected, got string" },
      { -1, "whole number of at least 0 expected, got -1" },
      { 1.5, "whole number of at least 0 expected, got 1.5" },
      { 0 / 0, "whole number of at least 0 expected, got NaN" },
      { {}, "option 'times' expected" },
      { { times = -1 }, "whole number of at least 0 expected, got -1" },
      { { times = "1" }, "option 'times': number expected, got string" },
      { { times = 1, delay = "1" }, "option 'delay': number expected, got string" },
      { { times = 1, when = 1 }, "option 'when': function expected, got number" },
      { { times = 1, wait = 1 }, "unknown option 'wait'" },
    }) do
      refuses("bad argument #2 to 'retry' (" .. case[2] .. ")", Promise.retry, ignore, case[1])
    end
    local line = line_here() + 1
    local _, message = pcall(function() Promise.retry(ignore, -1) end)
    local expected = "promise_class_spec.lua:" .. line .. ": bad argument #2 to 'retry'"
    assert.is_truthy(message:find(expected, 1, true), message)
  end)
end)

describe("Promise.retryWithDelay", function()
  promised.setup(before_each, after_each)

  it("waits so many seconds before each retry, and passes the arguments on", function()
    local fn, calls = failing(2)
    local promise = Promise.retryWithDelay(fn, 2, 1.5, "a", nil)
    assert.are.equal(1, #calls)
    advance(1500)
    assert.are.same(pending, outcome(promise))
    advance(1500)
    assert.are.same(resolved("success", "a", nil), outcome(promise))
    assert.are.same({ 1500, 1500 }, gaps(calls))
  end)

  it("is rejected with the last failure", function()
    local fn, calls = failing(100)
    local promise = Promise.retryWithDelay(fn, 2, 1)
    promise:catch(ignore)
    advance(10000)
    assert.are.same(rejected("failure 3"), outcome(promise))
    assert.are.equal(3, #calls)
  end)

  it("refuses bad arguments", function()
    local name = "'retryWithDelay'"
    refuses("bad argument #1 to " .. name .. " (function expected, got nil)", Promise.retryWithDelay)
    refuses("bad argument #2 to " .. name .. " (whole number of at least 0 expected, got -1)",
      Promise.retryWithDelay, ignore, -1, 1)
    refuses("bad argument #2 to " .. name .. " (whole number of at least 0 expected, got table)",
      Promise.retryWithDelay, ignore, {}, 1)
    refuses("bad argument #3 to " .. name .. " (number expected, got nil)", Promise.retryWithDelay, ignore, 1)
    refuses("bad argument #3 to " .. name .. " (number expected, got NaN)", Promise.retryWithDelay, ignore, 1, 0 / 0)
  end)
end)
