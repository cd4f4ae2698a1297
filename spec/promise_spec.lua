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
local PLACES, in_each_place = promised.PLACES, promised.in_each_place

local unpack = table.unpack or unpack

local function ignore() end

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
