-- Promises/A+ (https://promisesaplus.com), clause by clause, with the permutations of its official test suite.
-- `andThen` is its `then`; a thenable is asked through `andThen` or `then_`.

local scheduler = require("scheduler")
local settled = require("spec.support.settled")
local thenables = require("spec.support.thenables")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local caught_as = require("spec.support.raised").as

local Promise, task = scheduler.Promise, scheduler.task
local check, deferred, later, run, watch =
  settled.check, settled.deferred, settled.later, settled.run, settled.watch
local recorder = virtual.recorder

-- Compared by identity: no other value can be taken for them.
local VALUE, OTHER = { "the value" }, { "the other value" }

local function ignore() end

local function append_to(list, name)
  return function()
    list[#list + 1] = name
  end
end

local function raise(value)
  return function()
    error(value, 0)
  end
end

local function give(value)
  return function()
    return value
  end
end

--- Defines a test for each way in which a promise comes to be settled; `test(way)`.
local function each_way(name, test)
  for _, way in ipairs(settled.WAYS) do
    it(name .. ", " .. way.name, function()
      test(way)
    end)
  end
end

-- Much holds for both handlers alike.
local SIDES = {
  {
    clause = "2.2.2", order = "2.2.6.1", handler = "onResolved", status = "resolved", opposite = "rejected",
    values = settled.VALUES,
    on = function(promise, fn) return promise:andThen(fn) end,
    on_opposite = function(promise, fn) return promise:andThen(nil, fn) end,
  },
  {
    clause = "2.2.3", order = "2.2.6.2", handler = "onRejected", status = "rejected", opposite = "resolved",
    values = settled.REASONS,
    on = function(promise, fn) return promise:andThen(nil, fn) end,
    on_opposite = function(promise, fn) return promise:andThen(fn) end,
  },
}

--- Defines tests for both handlers, each with promises settled in each way; `test(side, way)`.
local function each_side_and_way(name, test)
  for _, side in ipairs(SIDES) do
    each_way(name:gsub("HANDLER", side.handler):gsub("CLAUSE", side.clause), function(way)
      test(side, way)
    end)
  end
end

--- When two things are done: a name, and a function that does them.
local TIMINGS = {
  { "both at once", function(first, second)
    first()
    second()
  end },
  { "the second later", function(first, second)
    first()
    later(second)
  end },
  { "both later", function(first, second)
    later(first)
    later(second)
  end },
  { "both later, in one callback", function(first, second)
    later(function()
      first()
      second()
    end)
  end },
  { "the second in a microtask", function(first, second)
    first()
    scheduler.queueMicrotask(second)
  end },
  { "by tasks", function(first, second)
    task.spawn(function()
      task.wait(0.01)
      first()
    end)
    task.spawn(function()
      task.wait(0.02)
      second()
    end)
  end },
}

-- 2.1 -----------------------------------------------------------------------------------------------------------------

describe("Promises/A+ 2.1, states:", function()
  settled.setup(before_each, after_each)

  for _, status in ipairs({ "resolved", "rejected" }) do
    it("2.1.1.1 a pending promise may become " .. status, function()
      local promise, settle = deferred()
      local seen = watch(promise)
      run()
      check(seen, "pending")
      assert.are.equal(Promise.Status.Started, promise:getStatus())
      settle[status](VALUE)
      run()
      check(seen, status, VALUE)
      assert.are.equal(status, promise:getStatus():lower())
    end)
  end

  it("2.1.1 a promise that nothing settles stays pending", function()
    local seen = watch((deferred()))
    run()
    check(seen, "pending")
  end)

  for i, first in ipairs({ "resolved", "rejected" }) do
    local clause = "2.1." .. i + 1
    for _, second in ipairs({ "resolved", "rejected" }) do
      for _, timing in ipairs(TIMINGS) do
        local name = "%s.1 a %s promise does not become %s: %s"
        it(name:format(clause, first, second, timing[1]), function()
          local promise, settle = deferred()
          local seen = watch(promise)
          timing[2](function()
            settle[first](VALUE)
          end, function()
            settle[second](OTHER)
          end)
          run()
          check(seen, first, VALUE)
          assert.are.equal(first, promise:getStatus():lower())
          check(watch(promise), "pending")
          local late = watch(promise)
          run()
          check(late, first, VALUE)
        end)
      end
    end

    it(clause .. ".1 a " .. first .. " promise is not settled by what its executor raises", function()
      local seen
      local errors = uncaught(function()
        seen = watch(Promise.new(function(resolve, reject)
          local settle = first == "resolved" and resolve or reject
          settle(VALUE)
          error(OTHER)
        end))
        run()
      end)
      check(seen, first, VALUE)
      assert.are.equal(1, #errors)
      assert.are.equal(OTHER, errors[1].err)
    end)

    for _, entry in ipairs(SIDES[i].values) do
      local name, make = entry[1], entry[2]
      each_way(clause .. ".2 a " .. first .. " promise has a value that does not change: " .. name, function(way)
        local value = make()
        local promise = way[first](value)
        for _ = 1, 3 do
          local seen = watch(promise)
          run()
          check(seen, first, value)
        end
      end)
    end
  end

  it("2.1.2 and 2.1.3: a settled promise tells its status at once", function()
    assert.are.equal(Promise.Status.Resolved, Promise.resolve(VALUE):getStatus())
    assert.are.equal(Promise.Status.Rejected, settled.quietly_rejected(VALUE):getStatus())
    run()
  end)
end)

-- 2.2.1 to 2.2.3 ------------------------------------------------------------------------------------------------------

describe("Promises/A+ 2.2.1, optional handlers:", function()
  settled.setup(before_each, after_each)

  for _, entry in ipairs(settled.NOT_CALLABLE) do
    local name, make = entry[1], entry[2]

    each_way("2.2.1.1 an onResolved that is " .. name .. " is ignored", function(way)
      local seen = watch(way.resolved(VALUE):andThen(make(), ignore))
      local further = watch(way.rejected(VALUE):andThen():andThen(make(), give(OTHER)))
      run()
      check(seen, "resolved", VALUE)
      check(further, "resolved", OTHER)
    end)

    each_way("2.2.1.2 an onRejected that is " .. name .. " is ignored", function(way)
      local seen = watch(way.rejected(VALUE):andThen(ignore, make()))
      local further = watch(way.resolved(VALUE):andThen(give(OTHER), make()))
      run()
      check(seen, "rejected", VALUE)
      check(further, "resolved", OTHER)
    end)
  end

  each_side_and_way("2.2.1 HANDLER may be a callable table", function(side, way)
    local list, record = recorder()
    local handler = setmetatable({}, {
      __call = function(self, ...)
        record({ self, ... })
        return OTHER
      end,
    })
    local seen = watch(side.on(way[side.status](VALUE), handler))
    run()
    assert.are.equal(handler, list[1][1])
    assert.are.equal(VALUE, list[1][2])
    check(seen, "resolved", OTHER)
  end)
end)

describe("Promises/A+ 2.2.2 and 2.2.3, calls of handlers:", function()
  settled.setup(before_each, after_each)

  for _, side in ipairs(SIDES) do
    for _, entry in ipairs(side.values) do
      local name, make = entry[1], entry[2]
      local clause = "%s.1 %s is called after the promise is settled, with its value first: %s"
      each_way(clause:format(side.clause, side.handler, name), function(way)
        local value = make()
        local calls, given, status = 0, nil, nil
        local promise = way[side.status](value)
        side.on(promise, function(...)
          calls, given, status = calls + 1, (...), promise:getStatus():lower()
        end)
        run()
        assert.are.equal(1, calls)
        assert.is_true(settled.is_same(value, given))
        assert.are.equal(side.status, status)
      end)
    end
  end

  for _, side in ipairs(SIDES) do
    it(side.clause .. ".2 " .. side.handler .. " is not called before the promise is settled", function()
      local list = {}
      local promise, settle = deferred()
      side.on(promise, append_to(list, "handler"))
      later(function()
        list[#list + 1] = "settled"
        settle[side.status](VALUE)
      end)
      run()
      assert.are.same({ "settled", "handler" }, list)
    end)

    it(side.clause .. ".2 " .. side.handler .. " is not called if the promise is never settled", function()
      local list = {}
      side.on((deferred()), append_to(list, "handler"))
      run()
      assert.are.same({}, list)
    end)

    for _, timing in ipairs(TIMINGS) do
      it(side.clause .. ".3 " .. side.handler .. " is called once if the promise is settled twice: " .. timing[1],
        function()
          local list = {}
          local promise, settle = deferred()
          side.on(promise, append_to(list, "handler"))
          local function act()
            settle[side.status](VALUE)
          end
          timing[2](act, act)
          run()
          assert.are.same({ "handler" }, list)
        end)
    end

    it(side.clause .. ".3 handlers added at different times are each called once", function()
      local list = {}
      local promise, settle = deferred()
      for i = 1, 3 do
        scheduler.setTimeout(function()
          side.on(promise, append_to(list, i))
        end, 10 * i)
      end
      scheduler.setTimeout(settle[side.status], 25, VALUE)
      run()
      assert.are.same({ 1, 2, 3 }, list)
    end)

    it(side.clause .. ".3 handlers added before and after the promise is settled are each called once", function()
      local list = {}
      local promise, settle = deferred()
      side.on(promise, append_to(list, "before"))
      settle[side.status](VALUE)
      side.on(promise, append_to(list, "after"))
      run()
      assert.are.same({ "before", "after" }, list)
    end)
  end

  each_side_and_way("CLAUSE.3 HANDLER is called once", function(side, way)
    local list = {}
    local promise = way[side.status](VALUE)
    side.on(promise, append_to(list, "handler"))
    run()
    run()
    assert.are.same({ "handler" }, list)
  end)

  each_side_and_way("CLAUSE HANDLER is not called if the promise ends the other way", function(side, way)
    local list = {}
    local seen = watch(side.on(way[side.opposite](VALUE), append_to(list, "handler")))
    run()
    assert.are.same({}, list)
    check(seen, side.opposite, VALUE)
  end)

  each_side_and_way("CLAUSE only HANDLER is called of two", function(side, way)
    local list = {}
    way[side.status](VALUE):andThen(append_to(list, "onResolved"), append_to(list, "onRejected"))
    run()
    assert.are.same({ side.handler }, list)
  end)
end)

-- 2.2.4 ---------------------------------------------------------------------------------------------------------------

-- Where code of the program may be at work when a promise is settled: names, and functions that call `fn` there.
local PLACES = {
  { "in a timer's callback", later },
  { "in a microtask", scheduler.queueMicrotask },
  { "in an immediate", scheduler.setImmediate },
  { "in a task", task.spawn },
  { "in a task that has waited", function(fn)
    task.spawn(function()
      task.wait(0.01)
      fn()
    end)
  end },
  { "in a handler", function(fn)
    Promise.resolve():andThen(fn)
  end },
  { "in a handler that has waited", function(fn)
    Promise.resolve():andThen(function()
      task.wait(0.01)
      fn()
    end)
  end },
  { "in an executor", function(fn)
    Promise.new(fn)
  end },
  { "in a thenable", function(fn)
    Promise.resolve({ andThen = fn })
  end },
  { "in a coroutine", function(fn)
    coroutine.wrap(fn)()
  end },
}

describe("Promises/A+ 2.2.4, a clean stack:", function()
  settled.setup(before_each, after_each)

  each_side_and_way("2.2.4 andThen returns before HANDLER is called", function(side, way)
    local list = {}
    side.on(way[side.status](VALUE), append_to(list, "handler"))
    list[#list + 1] = "returned"
    run()
    assert.are.same({ "returned", "handler" }, list)
  end)

  for _, side in ipairs(SIDES) do
    it("2.2.4 " .. side.handler .. " is not called by what settles the promise", function()
      local list = {}
      local promise, settle = deferred()
      side.on(promise, append_to(list, "handler"))
      settle[side.status](VALUE)
      list[#list + 1] = "settled"
      run()
      assert.are.same({ "settled", "handler" }, list)
    end)

    for _, place in ipairs(PLACES) do
      it(("2.2.4 %s is not called within what settles the promise %s"):format(side.handler, place[1]), function()
        local list = {}
        local promise, settle = deferred()
        side.on(promise, append_to(list, "before"))
        place[2](function()
          list[#list + 1] = "begun"
          settle[side.status](VALUE)
          side.on(promise, append_to(list, "after"))
          list[#list + 1] = "ended"
        end)
        run()
        assert.are.same({ "begun", "ended", "before", "after" }, list)
      end)
    end

    for _, outer in ipairs(SIDES) do
      each_way(("2.2.4 an %s added within an %s is called after that"):format(side.handler, outer.handler),
        function(way)
          local list = {}
          local promise = way[side.status](VALUE)
          outer.on(way[outer.status](VALUE), function()
            side.on(promise, append_to(list, "inner"))
            list[#list + 1] = "outer"
          end)
          run()
          assert.are.same({ "outer", "inner" }, list)
        end)
    end
  end

  it("2.2.4 handlers are called before timers and immediates that are due", function()
    local list = {}
    scheduler.setTimeout(append_to(list, "timer"))
    scheduler.setImmediate(append_to(list, "immediate"))
    Promise.resolve():andThen(append_to(list, "handler")):andThen(append_to(list, "next handler"))
    run()
    assert.are.same({ "handler", "next handler", "timer", "immediate" }, list)
  end)

  it("2.2.4 handlers take their turn among the other microtasks", function()
    local list = {}
    local promise = Promise.resolve()
    scheduler.queueMicrotask(append_to(list, 1))
    promise:andThen(append_to(list, 2)):andThen(append_to(list, 4))
    scheduler.queueMicrotask(append_to(list, 3))
    run()
    assert.are.same({ 1, 2, 3, 4 }, list)
  end)
end)

-- 2.2.5, 2.2.6 --------------------------------------------------------------------------------------------------------

describe("Promises/A+ 2.2.5 and 2.2.6:", function()
  settled.setup(before_each, after_each)

  each_side_and_way("2.2.5 HANDLER is called as a function: with the value, and no object", function(side, way)
    local list, record = recorder()
    side.on(way[side.status](VALUE), function(...)
      record({ n = select("#", ...), ... })
    end)
    run()
    assert.are.same({ { n = 1, VALUE } }, list)
    assert.are.equal(VALUE, list[1][1])
  end)

  for _, side in ipairs(SIDES) do
    each_way(side.order .. " all " .. side.handler .. " are called, in the order of andThen", function(way)
      local expected, list, given = {}, {}, 0
      local promise = way[side.status](VALUE)
      for i = 1, 50 do
        expected[i] = i
        side.on_opposite(promise, append_to(list, "opposite")):andThen(nil, ignore)
        side.on(promise, function(value)
          list[i] = #list + 1
          if value == VALUE then given = given + 1 end
        end)
      end
      run()
      assert.are.same(expected, list)
      assert.are.equal(50, given)
    end)

    each_way(side.order .. " all " .. side.handler .. " are called, even if one raises", function(way)
      local list = {}
      local promise = way[side.status](VALUE)
      side.on(promise, append_to(list, 1))
      local failed = watch(side.on(promise, function()
        list[#list + 1] = 2
        error(OTHER)
      end))
      side.on(promise, append_to(list, 3))
      run()
      assert.are.same({ 1, 2, 3 }, list)
      check(failed, "rejected", OTHER)
    end)

    each_way(side.order .. " all " .. side.handler .. " begin in order, even if one waits", function(way)
      local list = {}
      local promise = way[side.status](VALUE)
      side.on(promise, function()
        list[#list + 1] = "1 begins"
        task.wait(0.01)
        list[#list + 1] = "1 ends"
      end)
      side.on(promise, append_to(list, "2"))
      side.on(promise, append_to(list, "3"))
      run()
      assert.are.same({ "1 begins", "2", "3", "1 ends" }, list)
    end)

    each_way(side.order .. " each " .. side.handler .. " has a branch of its own", function(way)
      local promise = way[side.status](VALUE)
      local returned = watch(side.on(promise, give("returned")))
      local raised = watch(side.on(promise, raise("raised")))
      local nothing = watch(side.on(promise, ignore))
      local passed_on = watch(promise:andThen())
      run()
      check(returned, "resolved", "returned")
      check(raised, "rejected", "raised")
      check(nothing, "resolved", nil)
      check(passed_on, side.status, VALUE)
    end)

    each_way(side.order .. " " .. side.handler .. " added within another one come last", function(way)
      local list = {}
      local promise = way[side.status](VALUE)
      side.on(promise, function()
        list[#list + 1] = 1
        side.on(promise, append_to(list, 3))
      end)
      side.on(promise, append_to(list, 2))
      run()
      assert.are.same({ 1, 2, 3 }, list)
    end)
  end
end)

-- 2.2.7 ---------------------------------------------------------------------------------------------------------------

describe("Promises/A+ 2.2.7, the promise that andThen returns:", function()
  settled.setup(before_each, after_each)

  each_side_and_way("2.2.7 andThen returns a new promise, for HANDLER", function(side, way)
    local promise = way[side.status](VALUE)
    local child = side.on(promise, ignore)
    assert.is_true(Promise.is(child))
    assert.are_not.equal(promise, child)
    assert.are.equal(Promise.Status.Started, child:getStatus())
    run()
    assert.are.equal(Promise.Status.Resolved, child:getStatus())
  end)

  for _, entry in ipairs(settled.VALUES) do
    local name, make = entry[1], entry[2]
    each_side_and_way("2.2.7.1 resolves with what HANDLER returns: " .. name, function(side, way)
      local value = make()
      local seen = watch(side.on(way[side.status](OTHER), give(value)))
      local waited = watch(side.on(way[side.status](OTHER), function()
        task.wait(0.01)
        return value
      end))
      run()
      check(seen, "resolved", value)
      check(waited, "resolved", value, "after a wait")
    end)
  end

  for _, entry in ipairs(settled.REASONS) do
    local name, make = entry[1], entry[2]
    each_side_and_way("2.2.7.2 rejects with what HANDLER raises: " .. name, function(side, way)
      local reason = make()
      local seen = watch(side.on(way[side.status](OTHER), raise(reason)))
      local waited = watch(side.on(way[side.status](OTHER), function()
        task.wait(0.01)
        error(reason, 0)
      end))
      run()
      check(seen, "rejected", caught_as(reason))
      check(waited, "rejected", caught_as(reason), "after a wait")
    end)

    each_way("2.2.7.4 rejects as the promise does, if onRejected is not callable: reason " .. name, function(way)
      local reason = make()
      local seen = watch(way.rejected(reason):andThen(ignore):andThen())
      run()
      check(seen, "rejected", reason)
    end)
  end

  each_side_and_way("2.2.7.2 rejects with the error of Lua that HANDLER causes", function(side, way)
    local seen = watch(side.on(way[side.status](VALUE), function()
      return (nil).field
    end))
    run()
    assert.are.equal("rejected", seen.status)
    assert.matches("attempt to index", seen.value)
  end)

  for _, entry in ipairs(settled.NOT_CALLABLE) do
    local name, make = entry[1], entry[2]

    each_way("2.2.7.3 resolves as the promise does, if onResolved is " .. name, function(way)
      local seen = watch(way.resolved(VALUE):andThen(make()))
      run()
      check(seen, "resolved", VALUE)
    end)

    each_way("2.2.7.4 rejects as the promise does, if onRejected is " .. name, function(way)
      local seen = watch(way.rejected(VALUE):andThen(nil, make()))
      run()
      check(seen, "rejected", VALUE)
    end)
  end
end)

-- 2.3.1, 2.3.2 --------------------------------------------------------------------------------------------------------

describe("Promises/A+ 2.3.1, a promise that is resolved with itself, rejects:", function()
  settled.setup(before_each, after_each)

  local function check_refused(seen)
    assert.are.equal("rejected", seen.status)
    assert.is_true(Promise.Error.isKind(seen.value, Promise.Error.Kind.ExecutionError))
    assert.matches("resolved with itself", tostring(seen.value))
  end

  each_side_and_way("2.3.1 returned by its own HANDLER", function(side, way)
    local promise
    promise = side.on(way[side.status](VALUE), function()
      return promise
    end)
    local seen = watch(promise)
    run()
    check_refused(seen)
  end)

  for _, place in ipairs({ { "at once", function(fn) fn() end }, { "later", later } }) do
    it("2.3.1 given to its own resolve " .. place[1], function()
      local promise, settle = deferred()
      local seen = watch(promise)
      place[2](function()
        settle.resolved(promise)
      end)
      run()
      check_refused(seen)
    end)
  end

  it("2.3.1 given to it by a thenable", function()
    local promise, settle = deferred()
    local seen = watch(promise)
    settle.resolved({ andThen = function(_, resolve) resolve(promise) end })
    run()
    check_refused(seen)
  end)
end)

describe("Promises/A+ 2.3.2, a promise that is resolved with a promise:", function()
  settled.setup(before_each, after_each)

  for _, route in ipairs(thenables.ROUTES) do
    local name, resolve_with = route[1], route[2]

    it("2.3.2.1 stays pending until that is settled, " .. name, function()
      local other, settle = deferred()
      local seen = watch(resolve_with(give(other)))
      run()
      check(seen, "pending")
      settle.resolved(VALUE)
      run()
      check(seen, "resolved", VALUE)
    end)

    it("2.3.2.1 stays pending for ever with one that is, " .. name, function()
      local promise = resolve_with(give((deferred())))
      local seen = watch(promise)
      run()
      check(seen, "pending")
      assert.are.equal(Promise.Status.Started, promise:getStatus())
    end)

    for i, status in ipairs({ "resolved", "rejected" }) do
      each_way(("2.3.2.%d becomes %s with the same value as that, %s"):format(i + 1, status, name), function(way)
        local seen = watch(resolve_with(function()
          return way[status](VALUE)
        end))
        run()
        check(seen, status, VALUE)
      end)
    end

    for _, entry in ipairs(settled.REASONS) do
      it(("2.3.2.3 rejects with the reason of that, %s: %s"):format(name, entry[1]), function()
        local reason = entry[2]()
        local seen = watch(resolve_with(function()
          return settled.quietly_rejected(reason)
        end))
        run()
        check(seen, "rejected", reason)
      end)
    end
  end

  for _, status in ipairs({ "resolved", "rejected" }) do
    it("2.3.2 is not settled by anything else: that is " .. status .. " later", function()
      local other, settle_other = deferred()
      local promise, settle = deferred()
      local seen = watch(promise)
      settle.resolved(other)
      settle.resolved(OTHER)
      settle.rejected(OTHER)
      settle.resolved(settled.WAYS[3].resolved(OTHER))
      settle.resolved({ andThen = function() error("asked") end })
      run()
      check(seen, "pending")
      settle_other[status](VALUE)
      run()
      check(seen, status, VALUE)
    end)

    it("2.3.2 may be the last of a long line, the first is " .. status, function()
      local first, settle = deferred()
      local promise = first
      for _ = 1, 1000 do
        local inner = promise
        promise = Promise.new(function(resolve)
          resolve(inner)
        end)
      end
      local seen = watch(promise)
      settle[status](VALUE)
      run()
      check(seen, status, VALUE)
    end)
  end

  it("2.3.2 stays pending if that is resolved with it in turn", function()
    local one, settle_one = deferred()
    local other, settle_other = deferred()
    local seen = watch(one)
    settle_one.resolved(other)
    settle_other.resolved(one)
    run()
    check(seen, "pending")
    one:cancel()
    assert.are.equal(Promise.Status.Cancelled, other:getStatus())
  end)
end)

-- 2.3.3 ---------------------------------------------------------------------------------------------------------------

--- An object that counts how often each of its fields is asked for; `get(key)` gives them.
local function counting(get)
  local counts = {}
  return setmetatable({}, {
    __index = function(_, key)
      counts[key] = (counts[key] or 0) + 1
      return get(key)
    end,
  }), counts
end

-- At once, and later.
local ANSWERS = { function(fn, value) fn(value) end, later }

local function resolving(_, resolve)
  resolve(VALUE)
end

describe("Promises/A+ 2.3.3, thenables:", function()
  settled.setup(before_each, after_each)

  for _, route in ipairs(thenables.ROUTES) do
    local route_name, resolve_with = route[1], route[2]

    it("2.3.3.1 `andThen` is retrieved once, " .. route_name, function()
      local object, counts = counting(function(key)
        return key == "andThen" and resolving or nil
      end)
      local seen = watch(resolve_with(give(object)))
      run()
      check(seen, "resolved", VALUE)
      assert.are.equal(1, counts.andThen)
      assert.is_nil(counts.then_)
    end)

    it("2.3.3.1 `then_` is retrieved once, after `andThen`, " .. route_name, function()
      local object, counts = counting(function(key)
        return key == "then_" and resolving or nil
      end)
      local seen = watch(resolve_with(give(object)))
      run()
      check(seen, "resolved", VALUE)
      assert.are.equal(1, counts.andThen)
      assert.are.equal(1, counts.then_)
    end)

    it("2.3.3.1 both fields are retrieved once from what is no thenable, " .. route_name, function()
      local object, counts = counting(ignore)
      local seen = watch(resolve_with(give(object)))
      run()
      check(seen, "resolved", object)
      assert.are.equal(1, counts.andThen)
      assert.are.equal(1, counts.then_)
    end)

    for _, field in ipairs(thenables.FIELDS) do
      local where = (", `%s`, %s"):format(field, route_name)

      it("2.3.3.2 rejects with what the retrieval raises, of any kind" .. where, function()
        for _, entry in ipairs(settled.REASONS) do
          local reason = entry[2]()
          local object = counting(function(key)
            if key == field then error(reason, 0) end
          end)
          local seen = watch(resolve_with(give(object)))
          run()
          check(seen, "rejected", caught_as(reason), entry[1])
        end
      end)

      it("2.3.3.3 the method is called once, with the object and two functions" .. where, function()
        local list, record = recorder()
        local object = { [field] = function(...)
          record({ n = select("#", ...), ... })
        end }
        local seen = watch(resolve_with(give(object)))
        run()
        assert.are.equal(1, #list)
        assert.are.equal(3, list[1].n)
        assert.are.equal(object, list[1][1])
        assert.are.equal("function", type(list[1][2]))
        assert.are.equal("function", type(list[1][3]))
        check(seen, "pending")
      end)

      it("2.3.3.3.1 resolves with what resolvePromise is called with, of any kind" .. where, function()
        for _, entry in ipairs(settled.VALUES) do
          local value = entry[2]()
          for _, answer in ipairs(ANSWERS) do
            local seen = watch(resolve_with(give({ [field] = function(_, resolve) answer(resolve, value) end })))
            run()
            check(seen, "resolved", value, entry[1])
          end
        end
      end)

      it("2.3.3.3.2 rejects with what rejectPromise is called with, of any kind" .. where, function()
        for _, entry in ipairs(settled.REASONS) do
          local reason = entry[2]()
          for _, answer in ipairs(ANSWERS) do
            local seen = watch(resolve_with(give({ [field] = function(_, _, reject) answer(reject, reason) end })))
            run()
            check(seen, "rejected", reason, entry[1])
          end
        end
      end)

      it("2.3.3.3.4.2 rejects with what the method raises, of any kind" .. where, function()
        for _, entry in ipairs(settled.REASONS) do
          local reason = entry[2]()
          local seen = watch(resolve_with(give({ [field] = raise(reason) })))
          local waited = watch(resolve_with(give({ [field] = function()
            task.wait(0.01)
            error(reason, 0)
          end })))
          run()
          check(seen, "rejected", caught_as(reason), entry[1])
          check(waited, "rejected", caught_as(reason), entry[1] .. ", after a wait")
        end
      end)

      for _, thenable in ipairs(thenables.ALL) do
        local status, name, make = thenable[1], thenable[2], thenable[3]
        it(("2.3.3.3 becomes %s with one that %s"):format(status, name) .. where, function()
          local seen = watch(resolve_with(function()
            return make(field, VALUE)
          end))
          run()
          check(seen, status, VALUE)
        end)
      end

      it("2.3.3.4 resolves with an object whose method is not callable" .. where, function()
        for _, entry in ipairs(settled.NOT_CALLABLE) do
          local method = entry[2]()
          local objects = {
            { [field] = method },
            setmetatable({}, { __index = { [field] = method } }),
            setmetatable({ [field] = method }, { __call = error }),
          }
          for _, object in ipairs(objects) do
            local seen = watch(resolve_with(give(object)))
            run()
            check(seen, "resolved", object, entry[1])
          end
        end
      end)
    end

    it("2.3.3.4 `then_` is asked if `andThen` is not callable, " .. route_name, function()
      for _, entry in ipairs(settled.NOT_CALLABLE) do
        local seen = watch(resolve_with(give({ andThen = entry[2](), then_ = resolving })))
        run()
        check(seen, "resolved", VALUE, entry[1])
      end
    end)

    for _, entry in ipairs(settled.VALUES) do
      it(("2.3.4 resolves with %s as it is, %s"):format(entry[1], route_name), function()
        local value = entry[2]()
        local seen = watch(resolve_with(give(value)))
        run()
        check(seen, "resolved", value)
      end)
    end

    it("2.3.4 resolves with what is no object, whatever its metatable has, " .. route_name, function()
      local fields = setmetatable({ andThen = error, then_ = error }, { __index = string })
      for _, value in ipairs({ 0, true, "a string", ignore, coroutine.create(ignore) }) do
        local former = debug.getmetatable(value)
        debug.setmetatable(value, { __index = fields })
        local ok, seen = pcall(function()
          local seen = watch(resolve_with(give(value)))
          run()
          return seen
        end)
        debug.setmetatable(value, former)
        assert.is_true(ok, seen)
        check(seen, "resolved", value)
      end
    end)
  end

  it("2.3.3 prefers `andThen` to `then_`", function()
    local seen = watch(Promise.resolve({ andThen = resolving, then_ = error }))
    run()
    check(seen, "resolved", VALUE)
  end)

  it("2.3.3.3 the method is not called by what resolves the promise", function()
    local list = {}
    local promise, settle = deferred()
    promise:andThen(append_to(list, "handler"))
    settle.resolved({ andThen = function(_, resolve)
      list[#list + 1] = "method"
      resolve()
      list[#list + 1] = "method ends"
    end })
    list[#list + 1] = "resolved"
    run()
    assert.are.same({ "resolved", "method", "method ends", "handler" }, list)
  end)

  it("2.3.3.3 nothing else settles a promise that has been resolved with a thenable", function()
    local promise, settle = deferred()
    local seen = watch(promise)
    settle.resolved({ andThen = function(_, resolve) later(resolve, VALUE) end })
    settle.resolved(OTHER)
    settle.rejected(OTHER)
    run()
    check(seen, "resolved", VALUE)
  end)
end)

describe("Promises/A+ 2.3.3.3.1, a thenable that answers with a thenable:", function()
  settled.setup(before_each, after_each)

  for _, outer in ipairs(thenables.RESOLVED) do
    for i, field in ipairs(thenables.FIELDS) do
      it(("2.3.3.3.1 one that %s, by `%s`, with each kind of thenable"):format(outer[1], field), function()
        for _, inner in ipairs(thenables.ALL) do
          local status, name, make = inner[1], inner[2], inner[3]
          for _, route in ipairs({ thenables.ROUTES[1], thenables.ROUTES[2], thenables.ROUTES[4] }) do
            local seen = watch(route[2](function()
              return outer[2](field, make(thenables.FIELDS[3 - i], VALUE))
            end))
            run()
            check(seen, status, VALUE, name .. ", " .. route[1])
          end
        end
      end)
    end
  end

  for _, inner in ipairs(thenables.ALL) do
    it(("2.3.3.3.1 a thousand deep, the innermost %s"):format(inner[2]), function()
      local thenable = inner[3]("andThen", VALUE)
      for _ = 1, 1000 do
        local answer = thenable
        thenable = { andThen = function(_, resolve)
          resolve(answer)
        end }
      end
      local seen = watch(Promise.resolve(thenable))
      run()
      check(seen, inner[1], VALUE)
    end)
  end

  for _, entry in ipairs(thenables.ALL) do
    it(("2.3.3.3.2 a reason is not asked, even if it is a thenable that %s"):format(entry[2]), function()
      local reason = entry[3]("andThen", VALUE)
      local seen = watch(Promise.resolve({ andThen = function(_, _, reject) reject(reason) end }))
      run()
      check(seen, "rejected", reason)
    end)
  end
end)

-- What a thenable may do first: a name, what the promise comes to, and a function.
local FIRST = {
  { "resolve with a value", "resolved", function(resolve)
    resolve(VALUE)
  end },
  { "resolve with nil", "resolved", function(resolve)
    resolve(nil)
  end, true },
  { "reject with a value", "rejected", function(_, reject)
    reject(VALUE)
  end },
  { "reject with nil", "rejected", function(_, reject)
    reject(nil)
  end, true },
}
for _, entry in ipairs(thenables.ALL) do
  table.insert(FIRST, { "resolve with what " .. entry[2], entry[1], function(resolve)
    resolve(entry[3]("andThen", VALUE))
  end })
end

-- How often anything looked at an object that comes too late to matter.
local looks = 0
local untouched = setmetatable({}, {
  __index = function()
    looks = looks + 1
  end,
})

-- What it may do after that.
local SECOND = {
  { "resolve with a value", function(resolve)
    resolve(OTHER)
  end },
  { "reject with a value", function(_, reject)
    reject(OTHER)
  end },
  { "resolve with a resolved promise", function(resolve)
    resolve(Promise.resolve(OTHER))
  end },
  { "resolve with a promise that is resolved later", function(resolve)
    resolve(settled.WAYS[3].resolved(OTHER))
  end },
  { "resolve with a rejected promise", function(resolve)
    resolve(settled.quietly_rejected(OTHER))
  end },
  { "resolve with a thenable", function(resolve)
    resolve({ andThen = function() error("asked") end })
  end },
  { "resolve with an object that nothing looks at", function(resolve)
    resolve(untouched)
  end },
}
local RAISE = { "raise", raise(OTHER) }

--- Defines a test for each first answer: whatever follows is ignored. `do_both(first, second)` is the method's body.
local function test_answers(clause, name, seconds, do_both)
  for _, first in ipairs(FIRST) do
    it(("%s only the first answer counts, %s: %s"):format(clause, name, first[1]), function()
      for _, second in ipairs(seconds) do
        for _, field in ipairs(thenables.FIELDS) do
          local seen = watch(Promise.resolve({ [field] = function(_, resolve, reject)
            do_both(function()
              first[3](resolve, reject)
            end, function()
              second[2](resolve, reject)
            end)
          end }))
          run()
          local value = VALUE
          if first[4] then value = nil end
          check(seen, first[2], value, second[1])
          assert.are.equal(0, looks)
        end
      end
    end)
  end
end

describe("Promises/A+ 2.3.3.3.3 and 2.3.3.3.4, thenables that answer more than once:", function()
  settled.setup(before_each, after_each)
  before_each(function()
    looks = 0
  end)

  for _, timing in ipairs(TIMINGS) do
    test_answers("2.3.3.3.3", timing[1], SECOND, timing[2])
  end
  test_answers("2.3.3.3.3", "the second in the method, after a wait", SECOND, function(first, second)
    first()
    task.wait(0.005)
    second()
  end)
  test_answers("2.3.3.3.3", "both in the method, after a wait", SECOND, function(first, second)
    task.wait(0.005)
    first()
    second()
  end)
  test_answers("2.3.3.3.4.1", "raising after that", { RAISE }, function(first, second)
    first()
    second()
  end)
  test_answers("2.3.3.3.4.1", "raising after a wait", { RAISE }, function(first, second)
    first()
    task.wait(0.005)
    second()
  end)
  test_answers("2.3.3.3.4.1", "raising after both", SECOND, function(first, second)
    first()
    second()
    error(OTHER)
  end)

  for _, second in ipairs(SECOND) do
    it("2.3.3.3.4.2 raising counts, if it comes before: " .. second[1], function()
      local resolve, reject
      local seen = watch(Promise.resolve({ andThen = function(_, ...)
        resolve, reject = ...
        later(function()
          second[2](resolve, reject)
        end)
        error(VALUE)
      end }))
      run()
      check(seen, "rejected", VALUE)
      assert.are.equal(0, looks)
    end)

    for _, first in ipairs(FIRST) do
      it(("2.3.3.3.3 nothing happens after the end: %s, then %s"):format(first[1], second[1]), function()
        local resolve, reject
        local promise = Promise.resolve({ andThen = function(_, ...)
          resolve, reject = ...
          first[3](...)
        end })
        local seen = watch(promise)
        run()
        second[2](resolve, reject)
        local late = watch(promise)
        run()
        local value = VALUE
        if first[4] then value = nil end
        check(seen, first[2], value)
        check(late, first[2], value)
        assert.are.equal(0, looks)
      end)
    end
  end
end)
