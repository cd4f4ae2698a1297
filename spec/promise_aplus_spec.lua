-- Promises/A+ (https://promisesaplus.com), its clauses 2.1 and 2.2, with the permutations of its official test suite.
-- `andThen` is its `then`; a thenable is asked through `andThen` or `then_`.

local scheduler = require("scheduler")
local settled = require("spec.support.settled")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local caught_as = require("spec.support.raised").as
local clauses = require("spec.support.clauses")

local Promise, task = scheduler.Promise, scheduler.task
local check, deferred, later, run, watch = settled.check, settled.deferred, settled.later, settled.run, settled.watch
local recorder = virtual.recorder
local append_to, raise, give = clauses.append_to, clauses.raise, clauses.give
local SIDES, TIMINGS = clauses.SIDES, clauses.TIMINGS
local each_way, each_side_and_way = clauses.each_way, clauses.each_side_and_way
local VALUE, OTHER = clauses.VALUE, clauses.OTHER

local function ignore() end

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
      each_way(it, clause .. ".2 a " .. first .. " promise has a value that does not change: " .. name, function(way)
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

    each_way(it, "2.2.1.1 an onResolved that is " .. name .. " is ignored", function(way)
      local seen = watch(way.resolved(VALUE):andThen(make(), ignore))
      local further = watch(way.rejected(VALUE):andThen():andThen(make(), give(OTHER)))
      run()
      check(seen, "resolved", VALUE)
      check(further, "resolved", OTHER)
    end)

    each_way(it, "2.2.1.2 an onRejected that is " .. name .. " is ignored", function(way)
      local seen = watch(way.rejected(VALUE):andThen(ignore, make()))
      local further = watch(way.resolved(VALUE):andThen(give(OTHER), make()))
      run()
      check(seen, "rejected", VALUE)
      check(further, "resolved", OTHER)
    end)
  end

  each_side_and_way(it, "2.2.1 HANDLER may be a callable table", function(side, way)
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
      each_way(it, clause:format(side.clause, side.handler, name), function(way)
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

  each_side_and_way(it, "CLAUSE.3 HANDLER is called once", function(side, way)
    local list = {}
    local promise = way[side.status](VALUE)
    side.on(promise, append_to(list, "handler"))
    run()
    run()
    assert.are.same({ "handler" }, list)
  end)

  each_side_and_way(it, "CLAUSE HANDLER is not called if the promise ends the other way", function(side, way)
    local list = {}
    local seen = watch(side.on(way[side.opposite](VALUE), append_to(list, "handler")))
    run()
    assert.are.same({}, list)
    check(seen, side.opposite, VALUE)
  end)

  each_side_and_way(it, "CLAUSE only HANDLER is called of two", function(side, way)
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

  each_side_and_way(it, "2.2.4 andThen returns before HANDLER is called", function(side, way)
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
      each_way(it, ("2.2.4 an %s added within an %s is called after that"):format(side.handler, outer.handler),
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

  each_side_and_way(it, "2.2.5 HANDLER is called as a function: with the value, and no object", function(side, way)
    local list, record = recorder()
    side.on(way[side.status](VALUE), function(...)
      record({ n = select("#", ...), ... })
    end)
    run()
    assert.are.same({ { n = 1, VALUE } }, list)
    assert.are.equal(VALUE, list[1][1])
  end)

  for _, side in ipairs(SIDES) do
    each_way(it, side.order .. " all " .. side.handler .. " are called, in the order of andThen", function(way)
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

    each_way(it, side.order .. " all " .. side.handler .. " are called, even if one raises", function(way)
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

    each_way(it, side.order .. " all " .. side.handler .. " begin in order, even if one waits", function(way)
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

    each_way(it, side.order .. " each " .. side.handler .. " has a branch of its own", function(way)
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

    each_way(it, side.order .. " " .. side.handler .. " added within another one come last", function(way)
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

  each_side_and_way(it, "2.2.7 andThen returns a new promise, for HANDLER", function(side, way)
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
    each_side_and_way(it, "2.2.7.1 resolves with what HANDLER returns: " .. name, function(side, way)
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
    each_side_and_way(it, "2.2.7.2 rejects with what HANDLER raises: " .. name, function(side, way)
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

    each_way(it, "2.2.7.4 rejects as the promise does, if onRejected is not callable: reason " .. name, function(way)
      local reason = make()
      local seen = watch(way.rejected(reason):andThen(ignore):andThen())
      run()
      check(seen, "rejected", reason)
    end)
  end

  each_side_and_way(it, "2.2.7.2 rejects with the error of Lua that HANDLER causes", function(side, way)
    local seen = watch(side.on(way[side.status](VALUE), function()
      return (nil).field
    end))
    run()
    assert.are.equal("rejected", seen.status)
    assert.matches("attempt to index", seen.value)
  end)

  for _, entry in ipairs(settled.NOT_CALLABLE) do
    local name, make = entry[1], entry[2]

    each_way(it, "2.2.7.3 resolves as the promise does, if onResolved is " .. name, function(way)
      local seen = watch(way.resolved(VALUE):andThen(make()))
      run()
      check(seen, "resolved", VALUE)
    end)

    each_way(it, "2.2.7.4 rejects as the promise does, if onRejected is " .. name, function(way)
      local seen = watch(way.rejected(VALUE):andThen(nil, make()))
      run()
      check(seen, "rejected", VALUE)
    end)
  end
end)
