local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local Promise, task = scheduler.Promise, scheduler.task
local Error = Promise.Error
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, open, line_here = promised.counted, promised.outcome, promised.open, promised.line_here
local resolved, rejected, pending = promised.resolved, promised.rejected, promised.pending
local refuses, unhurried = promised.refuses, promised.unhurried

local unpack = table.unpack or unpack

local function ignore() end

--- Lists of values that must come out as they went in.
local VALUES = {
  counted(), counted(nil), counted(false), counted(1), counted(nil, nil), counted(nil, 2, nil), counted(1, nil, 3, nil),
  counted({}, ignore, "text"),
}

--- Error values of all types.
local ERRORS = { "text", 42, false, true, { code = 1 }, ignore, io.stdout, coroutine.create(ignore), Error.new() }

--- Values that cannot be called.
local NOT_CALLABLE = { 1, "text", false, true, {}, io.stdout, coroutine.create(ignore) }

local function callable(fn)
  return setmetatable({}, {
    __call = function(_, ...)
      return fn(...)
    end,
  })
end

--- Functions that run `fn` at once or in the next turn, by the place where it runs.
local PLACES = {
  ["the main thread"] = function(fn)
    fn()
  end,
  ["a task"] = task.spawn,
  ["a generator in a task"] = function(fn)
    task.spawn(function()
      scheduler.coroutine.wrap(fn)()
    end)
  end,
  ["a callback"] = function(fn)
    scheduler.setTimeout(fn)
  end,
  ["a microtask"] = scheduler.queueMicrotask,
  ["an executor"] = Promise.new,
  ["an async function"] = function(fn)
    scheduler.async(fn)()
  end,
  ["a handler"] = function(fn)
    Promise.resolve():andThen(fn)
  end,
  ["a handler of rejections"] = function(fn)
    Promise.reject():catch(fn)
  end,
  ["a handler of finally"] = function(fn)
    Promise.resolve():finally(fn)
  end,
  ["a hook"] = function(fn)
    local promise, _, _, on_cancel = open()
    on_cancel(fn)
    promise:cancel()
  end,
}

--- Has `fn` run in each place; `check(place)` looks at what came of it.
local function in_each_place(fn, check)
  for place, run in pairs(PLACES) do
    local has_run = false
    run(function()
      fn()
      has_run = true
    end)
    advance(0)
    assert.is_true(has_run, place)
    check(place)
  end
end

describe("Promise.new", function()
  promised.setup(before_each, after_each)

  it("runs its executor at once, and is pending until it is settled", function()
    local list, record = recorder()
    local resolve
    local promise = Promise.new(function(...)
      record(counted(...))
      resolve = ...
    end)
    assert.are.equal(3, list[1].n)
    for i = 1, 3 do
      assert.are.equal("function", type(list[1][i]))
    end
    assert.are.equal("Started", promise:getStatus())
    resolve(1)
    assert.are.equal("Resolved", promise:getStatus())
  end)

  it("settles with all values, nil among them, at once", function()
    for _, values in ipairs(VALUES) do
      local promise = Promise.new(function(resolve)
        resolve(unpack(values, 1, values.n))
      end)
      assert.are.same(resolved(unpack(values, 1, values.n)), promised.look(promise))
      promise = Promise.new(function(_, reject)
        reject(unpack(values, 1, values.n))
      end)
      assert.are.same(rejected(unpack(values, 1, values.n)), promised.look(promise))
    end
  end)

  it("is settled once, whatever is called after that", function()
    local list, record = recorder()
    for _, first in ipairs({ "resolve", "reject", "raise" }) do
      local promise = Promise.new(function(resolve, reject)
        if first == "resolve" then resolve(1, 2) elseif first == "reject" then reject(1, 2) else error("first", 0) end
        resolve("other")
        reject("other")
        resolve(Promise.resolve("other"))
      end)
      promise:andThen(record, record)
      local before = outcome(promise)
      assert.are.same(before, outcome(promise))
      list[#list + 1] = before
    end
    assert.are.same({ 1, resolved(1, 2), 1, rejected(1, 2), "first", rejected("first") }, list)
  end)

  it("is rejected with what its executor raises, of any type", function()
    for _, err in ipairs(ERRORS) do
      local promise = Promise.new(function()
        error(err, 0)
      end)
      assert.are.equal("Rejected", promise:getStatus())
      local status, value = promise:awaitStatus()
      assert.are.equal("Rejected", status)
      assert.are.equal(err, value)
    end
    local promise = Promise.new(function()
      error()
    end)
    assert.are.same(rejected(raised.none), promised.look(promise))
  end)

  it("is settled from any other coroutine, task or callback", function()
    in_each_place(function()
      local one, resolve = open()
      local two, _, reject = open()
      coroutine.wrap(function()
        resolve("one")
      end)()
      scheduler.coroutine.wrap(reject)("two")
      assert.are.same(resolved("one"), promised.look(one))
      assert.are.same(rejected("two"), promised.look(two))
      local three, resolve_three = open()
      scheduler.setTimeout(resolve_three, 1, "three", nil)
      local four, resolve_four = open()
      task.delay(0.001, resolve_four, "four")
      PLACES.kept = { three, four }
    end, function(place)
      advance(1)
      assert.are.same(resolved("three", nil), outcome(PLACES.kept[1]), place)
      assert.are.same(resolved("four"), outcome(PLACES.kept[2]), place)
      PLACES.kept = nil
    end)
  end)

  it("may wait in its executor, and settle or raise after that", function()
    local one = Promise.new(function(resolve)
      resolve(task.wait(1), task.wait(1))
    end)
    local two = Promise.new(function()
      task.wait(1)
      error("late", 0)
    end)
    local three = Promise.new(function(_, reject)
      Promise.delay(1):expect()
      reject(nil, "third")
    end)
    assert.are.same(pending, outcome(one))
    two:catch(ignore)
    three:catch(ignore)
    advance(1000)
    assert.are.same(pending, outcome(one))
    assert.are.same(rejected("late"), outcome(two))
    assert.are.same(rejected(nil, "third"), outcome(three))
    advance(1000)
    assert.are.same(resolved(1, 1), outcome(one))
  end)

  it("does not hold up its creator, and promises made inside are its own", function()
    local list, record = recorder()
    Promise.new(function(resolve)
      record("outer")
      Promise.new(function(resolve_inner)
        record("inner")
        task.wait()
        resolve_inner()
        record("inner later")
      end)
      record("outer again")
      task.wait()
      resolve()
      record("outer later")
    end)
    record("creator")
    advance(0)
    assert.are.same({ "outer", "inner", "outer again", "creator", "inner later", "outer later" }, list)
  end)

  it("stays pending if its executor ends without having settled it", function()
    assert.are.same(pending, outcome(Promise.new(ignore)))
  end)

  it("takes callable tables, and refuses all else at the line of its caller", function()
    assert.are.same(resolved(1), outcome(Promise.new(callable(function(resolve)
      resolve(1)
    end))))
    for _, name in ipairs({ "new", "defer" }) do
      for _, value in ipairs(NOT_CALLABLE) do
        refuses(("bad argument #1 to '%s' (function expected, got %s)"):format(name, type(value)), Promise[name], value)
      end
      local line = line_here() + 1
      local ok, message = pcall(function() Promise[name](nil) end)
      assert.is_false(ok)
      local expected = ("promise_spec.lua:%d: bad argument #1 to '%s' (function expected, got nil)"):format(line, name)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
  end)
end)

describe("Promise.new, where its executor fails after it was settled,", function()
  local reported = promised.setup(before_each, after_each)

  it("tells the error handler, and stays as it is", function()
    local line = line_here() + 1
    local one = Promise.new(function(resolve)
      resolve(1)
      error("too late", 0)
    end)
    local two = Promise.new(function(resolve)
      resolve(2)
      task.wait()
      error({ code = 2 })
    end)
    advance(0)
    assert.are.same(resolved(1), outcome(one))
    assert.are.same(resolved(2), outcome(two))
    local errors = reported()
    assert.are.equal(2, #errors)
    assert.are.equal("too late", errors[1].err)
    assert.matches("^the rest of a promise made at .*promise_spec%.lua:" .. line .. "$", errors[1].source)
    assert.are.same({ code = 2 }, errors[2].err)
  end)

  it("also where it was resolved with a promise that is pending", function()
    local inner, resolve_inner = open()
    local promise = Promise.new(function(resolve)
      resolve(inner)
      error("too late", 0)
    end)
    assert.are.same(pending, outcome(promise))
    assert.are.equal("too late", reported()[1].err)
    resolve_inner(1)
    assert.are.same(resolved(1), outcome(promise))
  end)
end)

describe("a promise whose coroutine is resumed by hand", function()
  local reported = promised.setup(before_each, after_each)

  --- Ways to make a promise from a function that ends with the values to resolve with.
  local MAKERS = {
    ["an executor"] = function(fn)
      return Promise.new(function(resolve)
        resolve(fn())
      end)
    end,
    ["an async function"] = function(fn)
      return scheduler.async(fn)()
    end,
    ["a handler"] = function(fn)
      return Promise.resolve():andThen(fn)
    end,
  }

  --- Starts a promise for each maker whose coroutine waits in `wait`.
  local function each_started(wait, check)
    for name, make in pairs(MAKERS) do
      local co
      local promise = make(function()
        co = coroutine.running()
        return wait()
      end)
      scheduler.poll()
      check(promise, co, name)
    end
    advance(1000)
    assert.are.equal(0, #reported())
  end

  it("goes on with what it was given, and is settled", function()
    local function sleep()
      return task.wait(1)
    end
    local function await()
      return open():await()
    end
    for _, wait in ipairs({ coroutine.yield, sleep, await }) do
      for _, resume in ipairs({ coroutine.resume, task.spawn }) do
        each_started(wait, function(promise, co, name)
          resume(co, "by hand", nil)
          assert.are.same(resolved("by hand", nil), outcome(promise), name)
        end)
      end
    end
  end)

  it("takes over a promise that it ends with", function()
    each_started(coroutine.yield, function(promise, co, name)
      local inner, resolve = open()
      coroutine.resume(co, inner)
      assert.are.same(pending, outcome(promise), name)
      resolve("inner")
      assert.are.same(resolved("inner"), outcome(promise), name)
    end)
  end)

  it("stays pending where its executor has ended, until it is settled", function()
    local co, settle
    local promise = Promise.new(function(resolve)
      co, settle = coroutine.running(), resolve
      coroutine.yield()
    end)
    coroutine.resume(co)
    scheduler.poll()
    assert.are.same(pending, outcome(promise))
    settle("later")
    assert.are.same(resolved("later"), outcome(promise))
    assert.are.equal(0, #reported())
  end)

  it("is rejected where it fails there, whose error went to whoever resumed it", function()
    for name, make in pairs(MAKERS) do
      local co
      local promise = make(function()
        co = coroutine.running()
        coroutine.yield()
        error("failed", 0)
      end)
      scheduler.poll()
      promise:catch(ignore)
      assert.are.same({ false, "failed" }, { coroutine.resume(co) })
      local result = outcome(promise)
      assert.are.equal("Rejected", result.status, name)
      assert.are.equal("lost", result[1].kind, name)
    end
  end)
end)

describe("resolving with a promise", function()
  promised.setup(before_each, after_each)

  it("takes over its outcome, with all values, and drops what else was given", function()
    for _, values in ipairs(VALUES) do
      local settle = {}
      local function adopt(inner)
        return Promise.new(function(resolve)
          resolve(inner, "dropped")
        end)
      end
      local inner_one, inner_two
      inner_one, settle[1] = open()
      inner_two, settle[3], settle[2] = open()
      local one, two = adopt(inner_one), adopt(inner_two)
      two:catch(ignore)
      assert.are.same(pending, outcome(one))
      settle[1](unpack(values, 1, values.n))
      settle[2](unpack(values, 1, values.n))
      assert.are.same(resolved(unpack(values, 1, values.n)), outcome(one))
      assert.are.same(rejected(unpack(values, 1, values.n)), outcome(two))
      assert.are.same(resolved(unpack(values, 1, values.n)), outcome(adopt(inner_one)))
      assert.are.same(rejected(unpack(values, 1, values.n)), outcome(adopt(inner_two)))
    end
  end)

  it("ignores what comes before that one is settled", function()
    local inner, resolve_inner = open()
    local promise, resolve, reject = open()
    resolve(inner)
    resolve("other")
    reject("other")
    assert.are.same(pending, outcome(promise))
    resolve_inner("inner")
    assert.are.same(resolved("inner"), outcome(promise))
  end)

  it("itself is an error", function()
    local promise, resolve = open()
    resolve(promise)
    local status, err = promise:awaitStatus()
    assert.are.equal("Rejected", status)
    assert.is_true(Error.isKind(err, Error.Kind.ExecutionError))
    local child
    child = Promise.resolve():andThen(function()
      return child
    end)
    local result = outcome(child)
    assert.are.equal("Rejected", result.status)
    assert.is_true(Error.isKind(result[1], "ExecutionError"))
  end)

  it("works for a promise that 100,000 others stand in between", unhurried(function()
    local count = 100000
    local promises, resolvers = {}, {}
    for i = 1, count do
      promises[i], resolvers[i] = open()
    end
    for i = 1, count - 1 do
      resolvers[i](promises[i + 1])
    end
    resolvers[count]("deep", nil)
    assert.are.same(resolved("deep", nil), outcome(promises[1]))
    assert.are.same(resolved("deep", nil), outcome(promises[count / 2]))
  end))

  it("works for as many where each is returned by a handler", unhurried(function()
    local function nest(depth)
      if depth == 0 then return "deep" end
      return Promise.resolve(depth - 1):andThen(nest)
    end
    assert.are.same(resolved("deep"), outcome(nest(100000)))
  end))
end)

describe("Promise.defer", function()
  promised.setup(before_each, after_each)

  it("runs its executor later, as task.defer does", function()
    assert.are.equal(Promise.defer, Promise.async)
    local list, record = recorder()
    local promise = Promise.defer(function(resolve)
      record("executor")
      resolve(1, nil)
    end)
    record("caller")
    assert.are.equal("Started", promise:getStatus())
    assert.are.same(resolved(1, nil), outcome(promise))
    assert.are.same({ "caller", "executor" }, list)
  end)

  it("may wait, and is rejected with what is raised", function()
    local one = Promise.defer(function(resolve)
      resolve(task.wait(1))
    end)
    local two = Promise.defer(function()
      error("failed", 0)
    end)
    two:catch(ignore)
    advance(1000)
    assert.are.same(resolved(1), outcome(one))
    assert.are.same(rejected("failed"), outcome(two))
  end)

  it("does not run its executor if it was cancelled before", function()
    local has_run = false
    Promise.defer(function()
      has_run = true
    end):cancel()
    advance(0)
    assert.is_false(has_run)
  end)
end)

describe("Promise.resolve and Promise.reject", function()
  local reported = promised.setup(before_each, after_each)

  it("make promises that are settled, with all values", function()
    for _, values in ipairs(VALUES) do
      local good, bad = Promise.resolve(unpack(values, 1, values.n)), Promise.reject(unpack(values, 1, values.n))
      assert.are.same(resolved(unpack(values, 1, values.n)), promised.look(good))
      assert.are.same(rejected(unpack(values, 1, values.n)), promised.look(bad))
    end
  end)

  it("take a promise: resolve returns it itself, reject has it as its value", function()
    local promise = open()
    assert.are.equal(promise, Promise.resolve(promise))
    local status, value = Promise.reject(promise):awaitStatus()
    assert.are.equal("Rejected", status)
    assert.are.equal(promise, value)
    assert.are.equal("Started", promise:getStatus())
  end)

  it("resolve takes thenables over", function()
    for _, name in ipairs({ "andThen", "then_" }) do
      local thenable = {}
      thenable[name] = function(self, resolve)
        resolve(rawequal(self, thenable), nil)
      end
      assert.are.same(resolved(true, nil), outcome(Promise.resolve(thenable, "dropped")))
    end
  end)

  it("report a rejection that nobody handles, with the place of the call", function()
    local line = line_here() + 1
    Promise.reject("lost", 2)
    local errors = reported()
    assert.are.equal(1, #errors)
    assert.are.equal("lost", errors[1].err)
    assert.matches("^a promise made at .*promise_spec%.lua:" .. line .. "$", errors[1].source)
  end)
end)

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
    assert.matches("promise_spec%.lua:" .. line .. ": boom$", errors[1].err)
    assert.matches("promise_spec%.lua:" .. line, errors[1].traceback)
    assert.matches("^a promise made at .*promise_spec%.lua:" .. made_at .. "$", errors[1].source)
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
    advance(0)
    assert.are.same(resolved("success"), outcome(promise))
    assert.are.equal(1001, #calls)
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
    assert.is_truthy(message:find("promise_spec.lua:" .. line .. ": bad argument #2 to 'retry'", 1, true), message)
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

describe("Promise.is", function()
  promised.setup(before_each, after_each)

  it("tells promises, and tables that can be used as such", function()
    local promise = open()
    assert.is_true(Promise.is(promise))
    assert.is_true(Promise.is(Promise.resolve()))
    assert.is_true(Promise.is(promise:andThen()))
    assert.is_true(Promise.is({ andThen = ignore }))
    assert.is_true(Promise.is({ andThen = callable(ignore) }))
    assert.is_true(Promise.is(setmetatable({}, { __index = { andThen = ignore } })))
  end)

  it("says no to all else", function()
    local raising = setmetatable({}, {
      __index = function()
        error("no such field")
      end,
    })
    for _, value in ipairs({ 1, "text", true, false, ignore, {}, { andThen = 1 }, Promise.Status, raising, io.stdout,
      coroutine.create(ignore) }) do
      assert.is_false(Promise.is(value))
    end
    assert.is_false(Promise.is(nil))
    assert.is_false(Promise.is())
  end)
end)

describe("Promise.Status", function()
  it("names each status, and raises on other names and on changes", function()
    local names = {}
    for key, value in pairs(Promise.Status) do
      assert.are.equal(key, value)
      names[key] = true
    end
    assert.are.same({ Started = true, Resolved = true, Rejected = true, Cancelled = true }, names)
    local line = line_here() + 1
    local ok, message = pcall(function() return Promise.Status.Pending end)
    assert.is_false(ok)
    assert.matches("promise_spec%.lua:" .. line .. ": Pending is not a valid member of Promise%.Status$", message)
    assert.is_false(pcall(function()
      return Promise.Status[nil]
    end))
    ok, message = pcall(function()
      Promise.Status.Other = 1
    end)
    assert.is_false(ok)
    assert.matches("Promise%.Status cannot be changed$", message)
  end)
end)

describe("Promise.Error", function()
  it("has kinds, and raises on other names and on changes", function()
    local names = {}
    for key, value in pairs(Error.Kind) do
      assert.are.equal(key, value)
      names[key] = true
    end
    local expected = { ExecutionError = true, AlreadyCancelled = true, NotResolvedInTime = true, TimedOut = true }
    assert.are.same(expected, names)
    local ok, message = pcall(function()
      return Error.Kind.Unknown
    end)
    assert.is_false(ok)
    assert.matches("promise_spec%.lua:%d+: Unknown is not a valid member of Promise%.Error%.Kind$", message)
    assert.is_false(pcall(function()
      Error.Kind.Unknown = 1
    end))
  end)

  it("is made with what it is told, and knows its place", function()
    local parent = Error.new()
    local line = line_here() + 1
    local err = Error.new({ error = 42, trace = "trace", context = "context", kind = Error.Kind.TimedOut }, parent)
    assert.are.same({ "42", "trace", "context", "TimedOut" }, { err.error, err.trace, err.context, err.kind })
    assert.are.equal(parent, err.parent)
    assert.matches("promise_spec%.lua:" .. line .. "$", err.createdAt)
    assert.are.equal("string", type(parent.error))
    assert.is_nil(parent.kind)
    assert.is_nil(parent.parent)
    assert.are.equal("false", Error.new({ error = false }).error)
  end)

  it("is told from other values", function()
    assert.is_true(Error.is(Error.new()))
    local foreign = setmetatable({ error = "x" }, { extend = ignore })
    assert.is_true(Error.is(foreign))
    for _, value in ipairs({ 1, "text", true, ignore, {}, { error = "x" }, Error, setmetatable({}, { extend = ignore }),
      setmetatable({ error = "x" }, { __index = { extend = ignore } }), setmetatable({ error = 1 }, { extend = 1 }),
      setmetatable({ error = 1 }, { __metatable = "hidden" }), io.stdout }) do
      assert.is_false(Error.is(value))
    end
    assert.is_false(Error.is(nil))
  end)

  it("is told by its kind", function()
    local err = Error.new({ kind = Error.Kind.TimedOut })
    assert.is_true(Error.isKind(err, Error.Kind.TimedOut))
    assert.is_false(Error.isKind(err, Error.Kind.ExecutionError))
    assert.is_false(Error.isKind(Error.new(), Error.Kind.TimedOut))
    for _, value in ipairs({ "TimedOut", 1, {}, { kind = "TimedOut" } }) do
      assert.is_false(Error.isKind(value, "TimedOut"))
    end
    local line = line_here() + 1
    local ok, message = pcall(function() Error.isKind(err, nil) end)
    assert.is_false(ok)
    assert.matches("promise_spec%.lua:" .. line .. ": bad argument #2 to 'isKind'", message)
  end)

  it("is extended into chains, of the same kind unless told otherwise", function()
    local first = Error.new({ error = "first", kind = "TimedOut" })
    local options = { error = "second" }
    local second = first:extend(options)
    local third = second:extend({ kind = "ExecutionError" })
    assert.are.same({ error = "second" }, options)
    assert.are.same({ "second", "TimedOut" }, { second.error, second.kind })
    assert.are.equal("ExecutionError", third.kind)
    assert.are.equal(second, third.parent)
    assert.are.equal("TimedOut", second:extend().kind)
    local chain = third:getErrorChain()
    assert.are.equal(3, #chain)
    for i, err in ipairs({ third, second, first }) do
      assert.are.equal(err, chain[i])
    end
    assert.are.equal(first, first:getErrorChain()[1])
    assert.is_nil(first:getErrorChain()[2])
  end)

  it("becomes a text with all that the chain tells", function()
    local first = Error.new({ error = "first error", context = "first context", kind = "TimedOut" })
    local second = first:extend({ error = "hidden by the trace", trace = "second trace" })
    local text = tostring(second)
    for _, part in ipairs({ "TimedOut", "second trace", "first error", "first context" }) do
      assert.is_truthy(text:find(part, 1, true), part)
    end
    assert.is_nil(text:find("hidden", 1, true))
    assert.is_true(text:find("second trace", 1, true) < text:find("first error", 1, true))
    assert.is_truthy(tostring(Error.new({ error = "x" })):find("?", 1, true))
  end)
end)

describe("a promise", function()
  promised.setup(before_each, after_each)

  it("tells its status, also as a text", function()
    local promise, resolve = open()
    assert.are.equal(Promise.Status.Started, promise:getStatus())
    assert.are.equal("Promise(Started)", tostring(promise))
    resolve()
    assert.are.equal(Promise.Status.Resolved, promise:getStatus())
    assert.are.equal("Promise(Resolved)", tostring(promise))
    promise = Promise.reject()
    promise:catch(ignore)
    assert.are.equal(Promise.Status.Rejected, promise:getStatus())
    assert.are.equal("Promise(Rejected)", tostring(promise))
    promise = open()
    promise:cancel()
    assert.are.equal(Promise.Status.Cancelled, promise:getStatus())
    assert.are.equal("Promise(Cancelled)", tostring(promise))
  end)

  it("has its methods in Promise.prototype", function()
    local promise = open()
    for name, method in pairs(Promise.prototype) do
      if type(name) == "string" and name:sub(1, 2) ~= "__" then assert.are.equal(method, promise[name]) end
    end
    for _, name in ipairs({ "andThen", "catch", "finally", "tap", "andThenCall", "andThenReturn", "finallyCall",
      "finallyReturn", "timeout", "now", "cancel", "await", "awaitStatus", "expect", "awaitValue", "getStatus" }) do
      assert.are.equal("function", type(Promise.prototype[name]), name)
    end
  end)
end)

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
      assert.matches("promise_spec%.lua:" .. line .. ": bad argument #1 to '" .. name .. "'", message)
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

describe("await, awaitStatus and expect", function()
  promised.setup(before_each, after_each)

  it("return at once where the promise is settled, anywhere", function()
    in_each_place(function()
      local good, bad = Promise.resolve(1, nil), Promise.reject(2, nil)
      assert.are.same(counted(true, 1, nil), counted(good:await()))
      assert.are.same(counted("Resolved", 1, nil), counted(good:awaitStatus()))
      assert.are.same(counted(1, nil), counted(good:expect()))
      assert.are.same(counted(false, 2, nil), counted(bad:await()))
      assert.are.same(counted("Rejected", 2, nil), counted(bad:awaitStatus()))
      assert.are.same(counted(false, 2), counted(pcall(bad.expect, bad)))
    end, ignore)
  end)

  it("wait until it is, in all that may wait", function()
    for place, run in pairs(PLACES) do
      if place ~= "the main thread" then
        for _, values in ipairs(VALUES) do
          local list = {}
          local good, resolve = open()
          local bad, _, reject = open()
          for _, case in ipairs({ { good, "await" }, { good, "awaitStatus" }, { good, "expect" }, { bad, "await" },
            { bad, "awaitStatus" } }) do
            run(function()
              local promise, name = unpack(case)
              local given = counted(promise[name](promise))
              list[#list + 1] = given
            end)
          end
          advance(0)
          assert.are.same({}, list)
          resolve(unpack(values, 1, values.n))
          reject(unpack(values, 1, values.n))
          scheduler.poll()
          assert.are.same({
            counted(true, unpack(values, 1, values.n)), counted("Resolved", unpack(values, 1, values.n)), values,
            counted(false, unpack(values, 1, values.n)), counted("Rejected", unpack(values, 1, values.n)),
          }, list, place)
        end
      end
    end
  end)

  it("expect raises the very value, before and after, and awaitValue is the same", function()
    assert.are.equal(Promise.prototype.expect, Promise.prototype.awaitValue)
    for _, err in ipairs(ERRORS) do
      local promise, _, reject = open()
      local failure
      task.spawn(function()
        failure = counted(scheduler.pcall(promise.expect, promise))
      end)
      reject(err)
      scheduler.poll()
      assert.are.equal(2, failure.n)
      assert.is_false(failure[1])
      assert.are.equal(err, failure[2])
      assert.are.equal(err, select(2, pcall(promise.expect, promise)))
    end
    local promise = Promise.reject()
    assert.are.same(counted(false, raised.none), counted(pcall(promise.expect, promise)))
  end)

  it("wake those that wait in their order, and handlers as microtasks", function()
    local list, record = recorder()
    local promise, resolve = open()
    for i = 1, 100 do
      task.spawn(function()
        promise:await()
        record(i)
      end)
    end
    promise:andThenCall(record, "handler")
    resolve()
    assert.are.same({}, list)
    scheduler.poll()
    assert.are.equal("handler", list[1])
    for i = 1, 100 do
      assert.are.equal(i, list[i + 1])
    end
  end)

  it("turn the loop on the main thread", function()
    scheduler.clock.resume()
    assert.are.same(counted(true, "late", nil), counted(Promise.delay(0.001):andThenReturn("late", nil):await()))
    assert.are.same(counted("Resolved"), counted(Promise.delay(0.001):andThenReturn():awaitStatus()))
    assert.are.same(counted("late", nil), counted(Promise.delay(0.001):andThenReturn("late", nil):expect()))
    local promise = Promise.delay(0.001):andThenCall(error, "failed", 0)
    assert.are.same(counted(false, "failed"), counted(pcall(promise.expect, promise)))
  end)

  it("raise on the main thread when nothing is left that could settle the promise", function()
    scheduler.clock.resume()
    local promise = open()
    for _, name in ipairs({ "await", "awaitStatus", "expect" }) do
      local ok, message = pcall(promise[name], promise)
      assert.is_false(ok)
      assert.matches("nothing is left that could end this wait", message)
    end
    assert.are.equal("Started", promise:getStatus())
  end)

  it("return what a coroutine was given that is resumed by hand, and let the promise be", function()
    local promise, resolve = open()
    local list, record = recorder()
    for _, name in ipairs({ "await", "awaitStatus", "expect" }) do
      local co = task.spawn(function()
        record(counted(promise[name](promise)))
      end)
      coroutine.resume(co, "by hand", nil)
    end
    assert.are.same({ counted("by hand", nil), counted("by hand", nil), counted("by hand", nil) }, list)
    assert.are.same(pending, outcome(promise))
    resolve(1)
    assert.are.same(resolved(1), outcome(promise))
    assert.are.equal(3, #list)
  end)
end)

describe("unhandled rejections", function()
  local reported = promised.setup(before_each, after_each)

  it("are reported once, of the last promise of a chain", function()
    local line = line_here() + 1
    local promise = Promise.reject("lost"):andThen(ignore):finally(ignore)
    scheduler.poll()
    local errors = reported()
    assert.are.equal(1, #errors)
    assert.are.equal("lost", errors[1].err)
    assert.matches("^a promise made at .*promise_spec%.lua:" .. line .. "$", errors[1].source)
    assert.are.equal("Rejected", promise:getStatus())
    assert.are.equal(0, #reported())
  end)

  it("of a handler are told with the place where the first promise was made", function()
    for _, method in ipairs({ "andThen", "finally" }) do
      for _, wait in ipairs({ ignore, task.wait }) do
        local resolve
        local line = line_here() + 1
        local first = Promise.new(function(...) resolve = ... end)
        first[method](first:andThen():catch():finally(), function()
          wait()
          error("boom", 0)
        end)
        resolve()
        advance(0)
        local errors = reported()
        assert.are.equal(1, #errors)
        assert.matches("^a promise made at .*promise_spec%.lua:" .. line .. "$", errors[1].source)
      end
    end
  end)

  it("of a retry are told with the place of that", function()
    for _, seconds in ipairs({ 0, 0.001 }) do
      local line = line_here() + 1
      Promise.retry(error, { times = 1, delay = seconds }, "boom", 0)
      advance(1)
      local errors = reported()
      assert.are.equal(1, #errors)
      assert.matches("^a promise made at .*promise_spec%.lua:" .. line .. "$", errors[1].source)
    end
  end)

  it("are not, if they are handled by the end of that turn", function()
    local handlers = {
      function(p) p:catch(ignore) end,
      function(p) p:andThen(nil, ignore) end,
      function(p) p:await() end,
      function(p) p:awaitStatus() end,
      function(p) pcall(p.expect, p) end,
      function(p) Promise.all({ p }):catch(ignore) end,
      function(p) Promise.allSettled({ p }) end,
      function(p) Promise.race({ p }):catch(ignore) end,
      function(p) Promise.resolve():andThenReturn(p):catch(ignore) end,
    }
    for _, handle in ipairs(handlers) do
      local promise = Promise.reject("lost")
      scheduler.poll()
      handle(promise)
    end
    assert.are.equal(0, #reported())
  end)

  it("are told to hooks, with the promise and all values, until they are taken out", function()
    local list, record = recorder()
    local function note(...)
      record(counted(...))
    end
    local stop, stop_other = Promise.onUnhandledRejection(note), Promise.onUnhandledRejection(callable(note))
    local promise = Promise.reject("lost", nil)
    assert.are.equal(1, #reported())
    stop_other()
    local other = Promise.reject()
    assert.are.equal(1, #reported())
    stop()
    stop()
    Promise.reject("unseen")
    assert.are.equal(1, #reported())
    assert.are.equal(3, #list)
    for i, case in ipairs({ counted(promise, "lost", nil), counted(promise, "lost", nil), counted(other) }) do
      assert.are.equal(case.n, list[i].n)
      assert.are.equal(case[1], list[i][1])
      assert.are.equal(case[2], list[i][2])
    end
  end)

  it("tell the error handler what a hook raises, and that one may wait", function()
    local list, record = recorder()
    local stops = {
      Promise.onUnhandledRejection(function()
        error("hook", 0)
      end),
      Promise.onUnhandledRejection(function()
        task.wait(1)
        record("waited")
      end),
    }
    Promise.reject("lost")
    local errors = reported()
    advance(1000)
    for _, stop in ipairs(stops) do
      stop()
    end
    assert.are.equal(2, #errors)
    assert.are.equal("hook", errors[1].err)
    assert.are.equal("lost", errors[2].err)
    assert.are.same({ "waited" }, list)
  end)

  it("onUnhandledRejection refuses what cannot be called", function()
    for _, value in ipairs(NOT_CALLABLE) do
      refuses("bad argument #1 to 'onUnhandledRejection' (function expected, got " .. type(value) .. ")",
        Promise.onUnhandledRejection, value)
    end
  end)
end)

--- `memory.is_released` for promises: the coroutine that executors share refers to the last one that it ran.
local function is_released(make)
  local function and_another(...)
    Promise.new(ignore)
    return ...
  end
  return memory.is_released(function()
    return and_another(make())
  end)
end

describe("the memory of promises", function()
  promised.setup(before_each, after_each)

  it("that are settled, with their values and handlers, is freed", function()
    assert.is_true(is_released(function()
      local value, promise, resolve = {}, open()
      local function handler(...)
        return ...
      end
      local function on_end()
        return handler
      end
      local child = promise:andThen(handler, on_end)
      local last = child:finally(on_end)
      resolve(value)
      scheduler.poll()
      return value, promise, handler, child, last, on_end, resolve
    end))
  end)

  it("is not kept by promises that are settled: of their handlers, hooks and sources", function()
    local kept
    assert.is_true(is_released(function()
      local promise, resolve = open()
      local inner, resolve_inner = open()
      local cancelled, _, _, on_cancel = open()
      local function handler()
        return not kept
      end
      local function on_end()
        return kept == nil
      end
      local function hook()
        return kept
      end
      on_cancel(hook)
      local child = promise:andThen(handler, handler)
      local final = promise:finally(on_end)
      local adopter = Promise.resolve():andThenReturn(inner)
      kept = { child, final, adopter, cancelled }
      cancelled:cancel()
      scheduler.poll()
      resolve()
      resolve_inner()
      scheduler.poll()
      return handler, on_end, hook, promise, inner
    end))
    for i, status in ipairs({ "Resolved", "Resolved", "Resolved", "Cancelled" }) do
      assert.are.equal(status, kept[i]:getStatus())
    end
  end)

  it("that are pending and nobody knows any more is freed", function()
    assert.is_true(is_released(function()
      local promise = open()
      local function handler() end
      local child = promise:andThen(handler)
      local all = Promise.all({ child, promise })
      return promise, child, handler, all
    end))
  end)

  it("of those that were rejected and reported, or cancelled, is freed", function()
    assert.is_true(is_released(function()
      local failed, value = Promise.reject({}), {}
      failed:catch(ignore)
      local promise, _, _, on_cancel = open()
      local function hook() end
      on_cancel(hook)
      local child = promise:finally(hook)
      promise:cancel(value)
      scheduler.poll()
      return failed, promise, hook, child, value
    end))
  end)

  it("is not kept by a long-lived promise: of children that are cancelled or have lost a race", function()
    local forever = open()
    assert.is_true(is_released(function()
      local function handler() end
      local keeper = forever:andThen()
      local child = forever:andThen(handler)
      child:cancel()
      local adopter, resolve = open()
      resolve(forever)
      adopter:cancel()
      local race = Promise.race({ forever, Promise.resolve(1) })
      scheduler.poll()
      local any = Promise.any({ forever, Promise.resolve(1) })
      scheduler.poll()
      local all = Promise.all({ forever, Promise.reject(1) })
      all:catch(ignore)
      scheduler.poll()
      assert.are.equal("Started", forever:getStatus())
      keeper:finally(ignore)
      return handler, child, adopter, race, any, all
    end))
    forever:cancel()
  end)

  it("is flat where a long-lived promise takes part in 10,000 races", unhurried(function()
    local forever = open()
    local keeper = forever:andThen()
    local function races(count)
      for i = 1, count do
        local winner, resolve = open()
        local race = Promise.race({ forever, winner })
        resolve(i)
        if i % 100 == 0 then scheduler.poll() end
        assert(race)
      end
      scheduler.poll()
      memory.collect()
      return collectgarbage("count")
    end
    local before = races(1000)
    local after = races(10000)
    assert.is_true(after - before < 200, after - before .. " KB more")
    assert.are.equal("Started", keeper:getStatus())
  end))

  it("is flat where a promise of each turn is awaited, and another handled, 10,000 times", unhurried(function()
    local stop = false
    local co = task.spawn(function()
      while not stop do
        Promise.delay(0.001):expect()
        Promise.resolve():andThen(ignore)
      end
    end)
    local function rounds(count)
      for _ = 1, count do
        advance(1)
      end
      memory.collect()
      return collectgarbage("count")
    end
    local before = rounds(1000)
    local after = rounds(10000)
    stop = true
    advance(1)
    assert.are.equal("done", task.status(co))
    assert.is_true(after - before < 200, after - before .. " KB more")
  end))
end)

-- Those that were collected are counted still, so that no test of virtual time may look at what is left behind.
describe("the memory of coroutines", function()
  it("that wait for a promise which nobody knows any more is freed", function()
    assert.is_true(is_released(function()
      local promise = open()
      local co = coroutine.create(function()
        promise:await()
      end)
      coroutine.resume(co)
      return promise, co
    end))
  end)
end)
