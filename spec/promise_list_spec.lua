local scheduler = require("scheduler")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local Error = Promise.Error
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, open, line_here = promised.counted, promised.outcome, promised.open, promised.line_here
local resolved, rejected, pending = promised.resolved, promised.rejected, promised.pending
local refuses, unhurried = promised.refuses, promised.unhurried

local function ignore() end

--- Promises that are pending, as a list, and lists of what resolves and rejects them.
local function several(count)
  local promises, resolve, reject = {}, {}, {}
  for i = 1, count do
    promises[i], resolve[i], reject[i] = open()
  end
  return promises, resolve, reject
end

local function statuses(promises)
  local list = {}
  for i, promise in ipairs(promises) do
    list[i] = promise:getStatus()
  end
  return list
end

--- Asserts that a promise was rejected with a Promise.Error of this kind.
local function assert_kind(kind, promise)
  local result = outcome(promise)
  assert.are.equal("Rejected", result.status)
  assert.is_true(Error.isKind(result[1], kind), tostring(result[1]))
end

--- A promise that is cancelled.
local function cancelled()
  local promise = open()
  promise:cancel("entry")
  return promise
end

--- A thenable that answers in a microtask.
local function thenable(name, ...)
  local values = counted(...)
  return {
    andThen = function(_, resolve, reject)
      local settle = name == "resolve" and resolve or reject
      settle((table.unpack or unpack)(values, 1, values.n))
    end,
  }
end

--- Those that take a list of promises, as functions of the list.
local COMBINATORS = {
  all = Promise.all,
  allSettled = Promise.allSettled,
  any = Promise.any,
  race = Promise.race,
  some = function(list)
    return Promise.some(list, 1)
  end,
}

--- Those that go through a list of values, as functions of the list and of what is called with each.
local WALKERS = {
  each = Promise.each,
  map = Promise.map,
  fold = function(list, fn)
    return Promise.fold(list, function(_, ...)
      return fn(...)
    end, 0)
  end,
}

describe("a list of promises", function()
  promised.setup(before_each, after_each)

  it("is refused where it is none, at the line of the caller", function()
    for name, combine in pairs(COMBINATORS) do
      for _, value in ipairs({ 1, "text", true, ignore, coroutine.create(ignore) }) do
        local expected = "bad argument #1 to '%s' (list of promises expected, got %s)"
        refuses(expected:format(name, type(value)), combine, value)
      end
      refuses(("bad argument #1 to '%s' (list of promises expected, got table)"):format(name), combine, open())
      refuses(("bad argument #1 to '%s' (list of promises expected, got nil)"):format(name), combine)
    end
    local line = line_here() + 1
    local ok, message = pcall(function() Promise.race({ 1 }) end)
    assert.is_false(ok)
    local expected = "bad argument #1 to 'race' (promise or task expected at index 1, got number)"
    assert.is_truthy(message:find("promise_list_spec.lua:" .. line .. ": " .. expected, 1, true), message)
  end)

  it("may have no values in it that cannot be awaited, and none of it is used then", function()
    for name, combine in pairs(COMBINATORS) do
      for _, value in ipairs({ 1, "text", false, ignore, {}, { await = 1 }, io.stdout }) do
        local promise = open()
        local expected = "bad argument #1 to '%s' (promise or task expected at index 2, got %s)"
        refuses(expected:format(name, type(value)), combine, { promise, value })
        assert.are.equal("Started", promise:getStatus())
        promise:andThen(ignore):cancel()
        assert.are.equal("Cancelled", promise:getStatus())
      end
    end
  end)

  it("may have tasks, thenables and objects with await among them", function()
    for name, combine in pairs(COMBINATORS) do
      for _, make in ipairs({
        function()
          return task.delay(1, function()
            return "result", nil
          end)
        end,
        function()
          return {
            then_ = function(_, resolve)
              scheduler.setTimeout(resolve, 1000, "result", nil)
            end,
          }
        end,
        function()
          return {
            await = function()
              task.wait(1)
              return "result", nil
            end,
          }
        end,
        function()
          return Promise.delay(1):andThenReturn("result", nil)
        end,
      }) do
        local promise = combine({ make() })
        assert.are.same(pending, outcome(promise))
        advance(1000)
        local expected = name == "allSettled" and { "Resolved" } or { "result" }
        expected = (name == "any" or name == "race") and resolved("result", nil) or resolved(expected)
        assert.are.same(expected, outcome(promise))
      end
    end
  end)

  it("may have those among them that fail", function()
    for name, combine in pairs(COMBINATORS) do
      for _, make in ipairs({
        function()
          return task.delay(1, error, "failed", 0)
        end,
        function()
          return thenable("reject", "failed")
        end,
        function()
          return {
            await = function()
              task.wait(1)
              error("failed", 0)
            end,
          }
        end,
        function()
          return setmetatable({}, {
            __index = function()
              error("failed", 0)
            end,
          })
        end,
      }) do
        local promise = combine({ make() })
        promise:catch(ignore)
        advance(1000)
        assert.are.same(name == "allSettled" and resolved({ "Rejected" }) or rejected("failed"), outcome(promise))
      end
    end
  end)

  it("is read once: later changes do nothing", function()
    local promises, resolve = several(2)
    local promise = Promise.all(promises)
    promises[1], promises[2], promises[3] = nil, 1, open()
    resolve[1]("one")
    resolve[2]("two")
    assert.are.same(resolved({ "one", "two" }), outcome(promise))
  end)

  it("may have the same promise several times", function()
    local promise, resolve = open()
    local list = { promise, promise, promise }
    local all, settled, some = Promise.all(list), Promise.allSettled(list), Promise.some(list, 2)
    local any, race = Promise.any(list), Promise.race(list)
    race:cancel()
    any:cancel()
    assert.are.equal("Started", promise:getStatus())
    resolve(1)
    assert.are.same(resolved({ 1, 1, 1 }), outcome(all))
    assert.are.same(resolved({ "Resolved", "Resolved", "Resolved" }), outcome(settled))
    assert.are.same(resolved({ 1, 1 }), outcome(some))
  end)

  it("is never settled at once: handlers come first that were there before", function()
    local list, record = recorder()
    local promise = Promise.resolve(1)
    promise:andThenCall(record, "before")
    local others = {}
    for name, combine in pairs(COMBINATORS) do
      others[name] = combine({ promise })
      others[name]:andThenCall(record, name)
      assert.are.equal("Started", others[name]:getStatus())
    end
    scheduler.poll()
    assert.are.equal("before", list[1])
    assert.are.equal(6, #list)
  end)

  it("may be long", unhurried(function()
    local count = 10000
    local function make()
      local promises, resolve = several(count)
      return promises, function()
        for i = count, 1, -1 do
          resolve[i](i)
        end
      end
    end
    for name, combine in pairs({
      all = Promise.all, allSettled = Promise.allSettled, any = Promise.any, race = Promise.race,
      some = function(list)
        return Promise.some(list, count / 2)
      end,
    }) do
      local promises, settle = make()
      local promise = combine(promises)
      settle()
      local result = outcome(promise)
      assert.are.equal("Resolved", result.status, name)
      if name == "any" or name == "race" then
        assert.are.equal(count, result[1])
      elseif name == "some" then
        assert.are.equal(count / 2, #result[1])
        assert.are.equal(count, result[1][1])
      else
        assert.are.equal(count, #result[1])
        assert.are.equal(name == "all" and 17 or "Resolved", result[1][17])
      end
    end
  end))
end)

describe("Promise.all", function()
  promised.setup(before_each, after_each)

  it("is resolved with the first value of each, in the order of the list", function()
    local promises, resolve = several(4)
    local all = Promise.all(promises)
    resolve[3]("three", "dropped")
    resolve[1]("one")
    resolve[4](nil, "dropped")
    assert.are.same(pending, outcome(all))
    resolve[2](false)
    assert.are.same(resolved({ "one", false, "three" }), outcome(all))
  end)

  it("is resolved with all values of each, if it is told to pack them", function()
    local list = { Promise.resolve(1, nil), Promise.resolve(), Promise.resolve(nil, 2, nil) }
    local all = Promise.all(list, { pack = true })
    assert.are.same(resolved({ resolved(1, nil), resolved(), resolved(nil, 2, nil) }), outcome(all))
    assert.are.same(resolved({ 1 }), outcome(Promise.all({ Promise.resolve(1, 2) }, { pack = false })))
  end)

  it("of none is resolved with an empty list", function()
    assert.are.same(resolved({}), promised.look(Promise.all({})))
    assert.are.same(resolved({}), promised.look(Promise.all({}, { pack = true })))
  end)

  it("is rejected with the first failure, all its values, and cancels the others", function()
    local promises, resolve, reject = several(4)
    local hook_reason, wanted = "none", promises[4]:andThen()
    promises[1]:finally(function(status)
      hook_reason = status
    end)
    local all = Promise.all(promises)
    resolve[2](2)
    reject[3]("failed", nil)
    assert.are.same(rejected("failed", nil), outcome(all))
    assert.are.same({ "Cancelled", "Resolved", "Rejected", "Started" }, statuses(promises))
    resolve[4](4)
    assert.are.same(resolved(4), outcome(wanted))
    assert.are.equal("Cancelled", hook_reason)
  end)

  it("is rejected with the first of several failures, and the others are no concern of anybody", function()
    local promises, _, reject = several(3)
    local wanted = promises[1]:andThen()
    wanted:catch(ignore)
    local all = Promise.all(promises)
    reject[2]("two")
    reject[1]("one")
    reject[3]("three")
    assert.are.same(rejected("two"), outcome(all))
  end)

  it("is rejected where one is cancelled, before or after", function()
    local other = open()
    assert_kind("AlreadyCancelled", Promise.all({ other, cancelled() }))
    assert.are.equal("Cancelled", other:getStatus())
    local promises = several(2)
    local all = Promise.all(promises)
    promises[1]:cancel()
    assert_kind("AlreadyCancelled", all)
    assert.are.equal("Cancelled", promises[2]:getStatus())
  end)

  it("that is cancelled cancels what nobody else wants, with its reason", function()
    local promises, resolve = several(3)
    local wanted = promises[2]:andThen()
    local all = Promise.all(promises)
    local child = all:andThen(ignore)
    all:cancel("reason")
    for _, promise in ipairs({ all, child, promises[1], promises[3] }) do
      assert.are.same({ status = "Cancelled", n = 1, "reason" }, outcome(promise))
    end
    resolve[2](1)
    assert.are.same(resolved(1), outcome(wanted))
  end)

  it("refuses unknown options", function()
    refuses("bad argument #2 to 'all' (unknown option 'packed')", Promise.all, {}, { packed = true })
    refuses("bad argument #2 to 'all' (option 'pack': boolean expected, got number)", Promise.all, {}, { pack = 1 })
    refuses("bad argument #2 to 'all' (table expected, got number)", Promise.all, {}, 1)
    refuses("bad argument #2 to 'allSettled' (unknown option 'packed')", Promise.allSettled, {}, { packed = true })
  end)
end)

describe("Promise.allSettled", function()
  promised.setup(before_each, after_each)

  it("is resolved with the status of each", function()
    local promises, resolve, reject = several(4)
    local settled = Promise.allSettled(promises)
    resolve[4](4)
    reject[1](1)
    promises[2]:cancel()
    assert.are.same(pending, outcome(settled))
    resolve[3]()
    assert.are.same(resolved({ "Rejected", "Cancelled", "Resolved", "Resolved" }), outcome(settled))
  end)

  it("is resolved with all values of each, if it is told to pack them", function()
    local promises = { Promise.resolve(1, nil), Promise.reject(nil, 2), Promise.resolve(), cancelled() }
    local list = outcome(Promise.allSettled(promises, { pack = true }))[1]
    assert.are.same({ resolved(1, nil), rejected(nil, 2), resolved() }, { list[1], list[2], list[3] })
    assert.are.equal(4, #list)
    assert.are.same({ "Cancelled", 1, "cancelled", "entry" },
      { list[4].status, list[4].n, list[4][1].kind, list[4][1].reason })
  end)

  it("of none is resolved with an empty list", function()
    assert.are.same(resolved({}), promised.look(Promise.allSettled({})))
  end)

  it("that is cancelled cancels what nobody else wants", function()
    local promises = several(2)
    local wanted = promises[1]:andThen()
    Promise.allSettled(promises):cancel("reason")
    assert.are.same({ "Started", "Cancelled" }, statuses(promises))
    wanted:cancel()
  end)
end)

describe("Promise.some and Promise.any", function()
  promised.setup(before_each, after_each)

  it("are resolved with the first that are, in the order in which they were", function()
    local promises, resolve, reject = several(5)
    local some, any = Promise.some(promises, 2), Promise.any(promises)
    reject[1]("one")
    resolve[4]("four", "more")
    resolve[2]("two", "more")
    assert.are.same(resolved({ "four", "two" }), outcome(some))
    assert.are.same(resolved("four", "more"), outcome(any))
    assert.are.same({ "Rejected", "Resolved", "Cancelled", "Resolved", "Cancelled" },
      statuses({ promises[1], promises[2], promises[3], promises[4], promises[5] }))
  end)

  it("leave those alone that somebody else wants", function()
    local promises, resolve = several(2)
    local wanted = promises[2]:andThen()
    local any = Promise.any(promises)
    resolve[1](1)
    assert.are.same(resolved(1), outcome(any))
    resolve[2](2)
    assert.are.same(resolved(2), outcome(wanted))
  end)

  it("are rejected with the last failure, once too many have failed", function()
    local promises, resolve, reject = several(4)
    local some, any = Promise.some(promises, 3), Promise.any(promises)
    some:catch(ignore)
    any:catch(ignore)
    resolve[2](2)
    assert.are.same(resolved(2), outcome(any))
    reject[1]("one")
    assert.are.same(pending, outcome(some))
    reject[4]("four", nil)
    assert.are.same(rejected("four", nil), outcome(some))
    assert.are.equal("Cancelled", promises[3]:getStatus())
    promises, resolve, reject = several(2)
    any = Promise.any(promises)
    any:catch(ignore)
    reject[2]("two")
    assert.are.same(pending, outcome(any))
    reject[1]("one", nil)
    resolve[1]()
    assert.are.same(rejected("one", nil), outcome(any))
  end)

  it("count a cancelled one as failed", function()
    local promises, resolve = several(2)
    local any = Promise.any(promises)
    promises[1]:cancel()
    resolve[2](2)
    assert.are.same(resolved(2), outcome(any))
    assert_kind("AlreadyCancelled", Promise.any({ cancelled(), cancelled() }))
    assert_kind("AlreadyCancelled", Promise.some({ cancelled(), (open()) }, 2))
  end)

  it("of none, and where more are wanted than there are", function()
    assert.are.same(resolved({}), outcome(Promise.some({}, 0)))
    assert_kind("ExecutionError", Promise.any({}))
    assert_kind("ExecutionError", Promise.some({}, 1))
    local promises = several(2)
    assert_kind("ExecutionError", Promise.some(promises, 3))
    assert.are.same({ "Cancelled", "Cancelled" }, statuses(promises))
  end)

  it("some of 0 is resolved with an empty list, and cancels all", function()
    local promises = several(2)
    assert.are.same(resolved({}), outcome(Promise.some(promises, 0)))
    assert.are.same({ "Cancelled", "Cancelled" }, statuses(promises))
  end)

  it("that are cancelled cancel what nobody else wants", function()
    local promises = several(3)
    local some, any = Promise.some(promises, 2), Promise.any(promises)
    some:cancel("some")
    assert.are.same({ "Started", "Started", "Started" }, statuses(promises))
    any:cancel("any")
    for _, promise in ipairs(promises) do
      assert.are.same({ status = "Cancelled", n = 1, "any" }, outcome(promise))
    end
  end)

  it("some refuses a count that is none", function()
    for _, case in ipairs({ { "nil" }, { "string", "1" }, { "-1", -1 }, { "1.5", 1.5 }, { "NaN", 0 / 0 } }) do
      local expected = "bad argument #2 to 'some' (whole number of at least 0 expected, got " .. case[1] .. ")"
      refuses(expected, Promise.some, {}, case[2])
    end
  end)
end)

describe("Promise.race", function()
  promised.setup(before_each, after_each)

  it("takes over the first that is settled, with all values, and cancels the others", function()
    for _, name in ipairs({ "resolve", "reject" }) do
      local promises, resolve, reject = several(3)
      local race = Promise.race(promises)
      assert.are.same(pending, outcome(race));
      (name == "resolve" and resolve or reject)[2]("two", nil)
      resolve[3]("three")
      assert.are.same(name == "resolve" and resolved("two", nil) or rejected("two", nil), outcome(race))
      assert.are.same({ "Cancelled", name == "resolve" and "Resolved" or "Rejected", "Resolved" }, statuses(promises))
    end
  end)

  it("is won by the first of the list, of those that are settled already", function()
    local loser = Promise.reject("third")
    assert.are.same(resolved("second"), outcome(Promise.race({ open(), Promise.resolve("second"), loser })))
  end)

  it("leaves the losers alone that somebody else wants", function()
    local promises, resolve = several(2)
    local wanted = promises[1]:andThen()
    local race = Promise.race(promises)
    resolve[2](2)
    assert.are.same(resolved(2), outcome(race))
    assert.are.same(pending, outcome(wanted))
    resolve[1](1)
    assert.are.same(resolved(1), outcome(wanted))
  end)

  it("is rejected where the first is cancelled", function()
    local promises = several(2)
    local race = Promise.race(promises)
    promises[2]:cancel()
    assert_kind("AlreadyCancelled", race)
    assert.are.equal("Cancelled", promises[1]:getStatus())
  end)

  it("of none is never settled, but may be cancelled", function()
    local race = Promise.race({})
    assert.are.same(pending, outcome(race))
    race:cancel("reason")
    assert.are.same({ status = "Cancelled", n = 1, "reason" }, outcome(race))
  end)

  it("that is cancelled cancels what nobody else wants", function()
    local promises = several(3)
    local wanted = promises[2]:andThen()
    Promise.race(promises):cancel("reason")
    assert.are.same({ "Cancelled", "Started", "Cancelled" }, statuses(promises))
    wanted:cancel()
  end)

  it("does not report the rejection of a loser", function()
    local promises, resolve, reject = several(2)
    local race = Promise.race(promises)
    resolve[1](1)
    reject[2]("lost")
    assert.are.same(resolved(1), outcome(race))
  end)
end)

describe("a task among promises", function()
  local reported = promised.setup(before_each, after_each)

  it("that loses is interrupted in its wait, and may clean up", function()
    for _, name in ipairs({ "race", "any", "all" }) do
      local seen
      local co = task.spawn(function()
        local _, err = scheduler.pcall(task.wait, 10)
        seen = err
        error(err, 0)
      end)
      local other = name == "all" and Promise.reject(1) or Promise.resolve(1)
      local promise = Promise[name]({ co, other })
      promise:catch(ignore)
      scheduler.poll()
      scheduler.poll()
      assert.are.equal("cancelled", seen and seen.kind)
      assert.are.equal("cancelled", task.status(co))
      assert.are.same(name == "all" and rejected(1) or resolved(1), outcome(promise))
    end
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("that loses is left alone where others join it", function()
    local co = task.delay(1, function()
      return "result"
    end)
    local joined
    task.spawn(function()
      joined = task.join(co)
    end)
    assert.are.same(resolved(1), outcome(Promise.race({ co, Promise.resolve(1) })))
    advance(1000)
    assert.are.equal("result", joined)
  end)

  it("that loses is left alone where it is in another list", function()
    local co = task.delay(1, function()
      return "result"
    end)
    local all = Promise.all({ co })
    assert.are.same(resolved(1), outcome(Promise.race({ co, Promise.resolve(1) })))
    advance(1000)
    assert.are.same(resolved({ "result" }), outcome(all))
  end)

  it("is cancelled with the promise of the list, with its reason", function()
    local seen
    local co = task.spawn(function()
      seen = select(2, scheduler.pcall(task.wait, 10))
    end)
    Promise.all({ co, Promise.resolve(1) }):cancel("reason")
    scheduler.poll()
    assert.are.equal("reason", seen.reason)
  end)

  it("that was cancelled, or has ended, counts as that", function()
    local co, done = task.spawn(coroutine.yield), task.spawn(ignore)
    task.cancel(co)
    assert.are.same(resolved({}), outcome(Promise.all({ done })))
    local settled = Promise.allSettled({ done, co })
    local result = outcome(settled)
    assert.are.equal("Resolved", result[1][1])
    assert.are_not.equal("Resolved", result[1][2])
    local all = Promise.all({ co })
    local failure = outcome(all)
    assert.are.equal("Rejected", failure.status)
  end)

  it("that fails is reported by nobody else", function()
    local co = task.delay(1, error, "failed", 0)
    local all = Promise.all({ co })
    all:catch(ignore)
    advance(1000)
    assert.are.same(rejected("failed"), outcome(all))
    assert.are.equal(0, #reported())
  end)
end)

describe("a list of values", function()
  local reported = promised.setup(before_each, after_each)

  it("is refused where it is none, and so is what cannot be called", function()
    for name in pairs(WALKERS) do
      local walk = Promise[name]
      for _, value in ipairs({ 1, "text", true, ignore }) do
        refuses(("bad argument #1 to '%s' (list expected, got %s)"):format(name, type(value)), walk, value, ignore)
      end
      refuses(("bad argument #1 to '%s' (list expected, got table)"):format(name), walk, open(), ignore)
      for _, value in ipairs({ 1, "text", true, {} }) do
        refuses(("bad argument #2 to '%s' (function expected, got %s)"):format(name, type(value)), walk, {}, value)
      end
      refuses(("bad argument #2 to '%s' (function expected, got nil)"):format(name), walk, {})
    end
  end)

  it("is gone through in order, with values, promises, thenables, and the index", function()
    for name, walk in pairs(WALKERS) do
      local list, record = recorder()
      local three, resolve_three = open()
      local values = { "one", Promise.resolve("two", "dropped"), three, thenable("resolve", "four"), false }
      local promise = walk(values, function(...)
        record(counted(...))
        return (...)
      end, { concurrency = 1 })
      scheduler.poll()
      assert.are.same({ counted("one", 1), counted("two", 2) }, list, name)
      resolve_three("three", "dropped")
      advance(0)
      assert.are.same({ counted("one", 1), counted("two", 2), counted("three", 3), counted("four", 4),
        counted(false, 5) }, list, name)
      local expected = name == "fold" and resolved(false) or resolved({ "one", "two", "three", "four", false })
      assert.are.same(expected, outcome(promise))
    end
  end)

  it("of none calls nothing", function()
    local list, record = recorder()
    assert.are.same(resolved({}), outcome(Promise.each({}, record)))
    assert.are.same(resolved({}), outcome(Promise.map({}, record)))
    assert.are.same(resolved({}), outcome(Promise.map({}, record, { concurrency = 3 })))
    assert.are.same(resolved("initial"), outcome(Promise.fold({}, record, "initial")))
    assert.are.same(resolved(nil), outcome(Promise.fold({}, record)))
    assert.are.same({}, list)
  end)

  it("takes what waits, and callable tables", function()
    for name, walk in pairs(WALKERS) do
      local start, times, record = scheduler.now(), recorder()
      local promise = walk({ 1, 2 }, setmetatable({}, {
        __call = function(_, x)
          task.wait(1)
          record(virtual.since(start))
          return x
        end,
      }))
      advance(3000)
      assert.are.same(name == "map" and { 1000, 1000 } or { 1000, 2000 }, times)
      assert.are.equal("Resolved", promise:getStatus())
    end
  end)

  it("waits for promises and thenables that are returned, and keeps their first value", function()
    for name, walk in pairs(WALKERS) do
      local promise = walk({ 1, 2 }, function(x)
        if x == 1 then return Promise.delay(1):andThenReturn("one", "dropped") end
        return thenable("resolve", "two", "dropped")
      end)
      assert.are.same(pending, outcome(promise))
      advance(1000)
      assert.are.same(name == "fold" and resolved("two") or resolved({ "one", "two" }), outcome(promise))
    end
  end)

  it("is not gone through further after a failure, which is the rejection", function()
    for name, walk in pairs(WALKERS) do
      for kind, fail in pairs({
        raised = function()
          error("failed", 0)
        end,
        returned = function()
          return Promise.reject("failed")
        end,
        ["raised later"] = function()
          task.wait()
          error("failed", 0)
        end,
      }) do
        local list, record = recorder()
        local late = open()
        local promise = walk({ 1, 2, 3, late }, function(x)
          record(x)
          if x == 2 then return fail() end
        end, { concurrency = 1 })
        promise:catch(ignore)
        advance(0)
        assert.are.same(rejected("failed"), outcome(promise))
        assert.are.same({ 1, 2 }, list, name .. ", " .. kind)
        assert.are.equal("Cancelled", late:getStatus(), name .. ", " .. kind)
      end
    end
  end)

  it("is rejected where a promise in it is, when that is reached", function()
    for name, walk in pairs(WALKERS) do
      local list, record = recorder()
      local late, _, reject = open()
      local promise = walk({ 1, late, 3 }, record, { concurrency = 1 })
      promise:catch(ignore)
      advance(0)
      assert.are.same({ 1 }, list)
      reject("failed", 2)
      advance(0)
      assert.are.same({ 1 }, list, name)
      assert.are.same("Rejected", promise:getStatus())
      assert.are.equal("failed", select(2, promise:awaitStatus()))
    end
  end)

  it("that fails is reported where nobody handles that", function()
    for name, walk in pairs(WALKERS) do
      local line = line_here() + 1
      walk({ Promise.resolve(1) }, function() error("failed", 0) end)
      local errors = reported()
      assert.are.equal(1, #errors, name)
      assert.are.equal("failed", errors[1].err)
      if name ~= "fold" then assert.matches("promise_list_spec%.lua:" .. line .. "$", errors[1].source) end
    end
  end)

  it("counts a cancelled promise in it as rejected", function()
    for _, walk in pairs(WALKERS) do
      local list, record = recorder()
      local promise = walk({ cancelled() }, record)
      promise:catch(ignore)
      assert_kind("AlreadyCancelled", promise)
      local late = open()
      promise = walk({ 1, late }, record)
      promise:catch(ignore)
      advance(0)
      late:cancel()
      advance(0)
      assert_kind("AlreadyCancelled", promise)
      assert.are.same({ 1 }, list)
    end
  end)

  it("is let go by a cancellation: its promises, and what its function works on", function()
    for name, walk in pairs(WALKERS) do
      local late, wanted, inner = open(), open(), open()
      local child = wanted:andThen()
      local calls = 0
      local promise = walk({ 1, late, wanted }, function()
        calls = calls + 1
        return inner
      end, { concurrency = 1 })
      advance(0)
      promise:cancel("reason")
      scheduler.poll()
      local expected = { "Cancelled", "Cancelled", "Cancelled", "Started" }
      assert.are.same(expected, statuses({ promise, late, inner, wanted }), name)
      advance(0)
      assert.are.equal(1, calls, name)
      assert.are.same({ status = "Cancelled", n = 1, "reason" }, outcome(late))
      child:cancel()
    end
  end)

  it("is let go by the cancellation of a child", function()
    for _, walk in pairs(WALKERS) do
      local late, inner = open(), open()
      local child = walk({ 1, late }, function()
        return inner
      end):andThen(ignore)
      child:cancel()
      scheduler.poll()
      assert.are.same({ "Cancelled", "Cancelled" }, statuses({ late, inner }))
    end
  end)

  it("may be long", unhurried(function()
    local values = {}
    for i = 1, 10000 do
      values[i] = i % 2 == 0 and i or Promise.resolve(i)
    end
    local function double(x)
      return x * 2
    end
    for _, promise in ipairs({ Promise.each(values, double), Promise.map(values, double),
      Promise.map(values, double, { concurrency = 10 }) }) do
      advance(0)
      local results = outcome(promise)[1]
      assert.are.equal(10000, #results)
      for i = 1, 10000 do
        assert.are.equal(2 * i, results[i])
      end
    end
    local sum = Promise.fold(values, function(a, b)
      return a + b
    end, 0)
    advance(0)
    assert.are.same(resolved(50005000), outcome(sum))
  end))
end)

describe("Promise.each", function()
  promised.setup(before_each, after_each)

  it("begins at once, and calls one at a time", function()
    local list, record = recorder()
    local promise = Promise.each({ "a", "b" }, function(x)
      record(x)
      return Promise.delay(1):andThenCall(record, x .. " done")
    end)
    assert.are.same({ "a" }, list)
    advance(1000)
    assert.are.same({ "a", "a done", "b" }, list)
    advance(1000)
    assert.are.equal("Resolved", promise:getStatus())
  end)

  it("calls nothing where a promise of the list has failed already", function()
    local list, record = recorder()
    local other = open()
    local promise = Promise.each({ 1, other, Promise.reject("failed") }, record)
    assert.are.same(rejected("failed"), outcome(promise))
    assert.are.equal("Cancelled", other:getStatus())
    assert_kind("AlreadyCancelled", Promise.each({ 1, cancelled() }, record))
    assert.are.same({}, list)
  end)
end)

describe("Promise.fold", function()
  promised.setup(before_each, after_each)

  it("reduces with the accumulator, the value and the index", function()
    local calls, record = recorder()
    local promise = Promise.fold({ "b", Promise.resolve("c"), "d" }, function(...)
      record(counted(...))
      return (...) .. select(2, ...)
    end, "a")
    advance(0)
    assert.are.same({ counted("a", "b", 1), counted("ab", "c", 2), counted("abc", "d", 3) }, calls)
    assert.are.same(resolved("abcd"), outcome(promise))
  end)

  it("waits for an initial value that is a promise, and fails with it", function()
    local initial, resolve = open()
    local function add(a, b)
      return a + b
    end
    local promise = Promise.fold({ 1, 2 }, add, initial)
    assert.are.same(pending, outcome(promise))
    resolve(10)
    advance(0)
    assert.are.same(resolved(13), outcome(promise))
    promise = Promise.fold({ 1 }, add, Promise.reject("initial"))
    assert.are.same(rejected("initial"), outcome(promise))
  end)
end)

describe("Promise.map", function()
  promised.setup(before_each, after_each)

  --- Maps so many values, of which each takes `cost(i)` seconds; returns the promise, and a table with the number of
  --- calls that run, and the most that ever did.
  local function measured(count, cost, options)
    local values, load = {}, { running = 0, most = 0, started = {} }
    for i = 1, count do
      values[i] = i
    end
    local promise = Promise.map(values, function(i)
      load.running = load.running + 1
      load.most = math.max(load.most, load.running)
      table.insert(load.started, i)
      task.wait(cost(i))
      load.running = load.running - 1
      return i * i
    end, options)
    return promise, load
  end

  it("keeps the order of the list, whatever ends first", function()
    for _, options in ipairs({ {}, { concurrency = 1 }, { concurrency = 3 }, { concurrency = math.huge } }) do
      local promise = measured(6, function(i)
        return 7 - i
      end, options)
      advance(100000)
      assert.are.same(resolved({ 1, 4, 9, 16, 25, 36 }), outcome(promise))
    end
  end)

  it("runs as many at once as it is told, and begins in order", function()
    for _, case in ipairs({ { 1, 1 }, { 2, 2 }, { 7, 7 }, { 10, 10 }, { 11, 10 }, { math.huge, 10 }, { nil, 10 } }) do
      local promise, load = measured(10, function(i)
        return i % 3 + 1
      end, { concurrency = case[1] })
      assert.are.equal(case[2], load.running)
      advance(100000)
      assert.are.equal(case[2], load.most)
      assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, load.started)
      assert.are.equal("Resolved", promise:getStatus())
    end
  end)

  it("begins the next as soon as one has ended", function()
    local _, load = measured(4, function(i)
      return i == 1 and 10 or 1
    end, { concurrency = 2 })
    advance(1000)
    assert.are.same({ 1, 2, 3 }, load.started)
    advance(1000)
    assert.are.same({ 1, 2, 3, 4 }, load.started)
    advance(10000)
  end)

  it("interrupts the others after a failure, and begins no more", function()
    local interrupted, record = recorder()
    local started = 0
    local promise = Promise.map({ 1, 2, 3, 4, 5 }, function(i)
      started = started + 1
      local ok, err = scheduler.pcall(task.wait, i)
      if not ok then
        record(err.kind)
        error(err, 0)
      end
      error("failed " .. i, 0)
    end, { concurrency = 3 })
    promise:catch(ignore)
    advance(1000)
    assert.are.same(rejected("failed 1"), outcome(promise))
    assert.are.equal(3, started)
    assert.are.same({ "cancelled", "cancelled" }, interrupted)
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("calls no more where the first fails at once", function()
    local calls = 0
    local promise = Promise.map({ 1, 2, 3 }, function()
      calls = calls + 1
      error("failed", 0)
    end)
    promise:catch(ignore)
    advance(0)
    assert.are.same(rejected("failed"), outcome(promise))
    assert.are.equal(1, calls)
  end)

  it("keeps nil and false among its results", function()
    local promise = Promise.map({ 1, 2, 3 }, function(i)
      if i == 2 then return false end
      if i == 3 then return i end
    end)
    advance(0)
    assert.are.same(resolved({ nil, false, 3 }), outcome(promise))
  end)

  it("refuses bad options", function()
    for _, value in ipairs({ 0, -1, 1.5, -math.huge }) do
      refuses("bad argument #3 to 'map' (option 'concurrency': whole number of at least 1 expected)",
        Promise.map, {}, ignore, { concurrency = value })
    end
    refuses("bad argument #3 to 'map' (option 'concurrency': number expected, got string)",
      Promise.map, {}, ignore, { concurrency = "1" })
    refuses("bad argument #3 to 'map' (option 'concurrency': number expected, got NaN)",
      Promise.map, {}, ignore, { concurrency = 0 / 0 })
    refuses("bad argument #3 to 'map' (unknown option 'limit')", Promise.map, {}, ignore, { limit = 1 })
    refuses("bad argument #3 to 'map' (table expected, got number)", Promise.map, {}, ignore, 1)
  end)
end)
