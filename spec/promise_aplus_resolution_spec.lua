-- Promises/A+ 2.3, what a promise is resolved with, clause by clause, with the permutations of the official test suite.
-- A thenable is asked through `andThen` or `then_`.

local scheduler = require("scheduler")
local settled = require("spec.support.settled")
local thenables = require("spec.support.thenables")
local virtual = require("spec.support.virtual")
local caught_as = require("spec.support.raised").as
local clauses = require("spec.support.clauses")

local Promise, task = scheduler.Promise, scheduler.task
local check, deferred, later, run, watch = settled.check, settled.deferred, settled.later, settled.run, settled.watch
local recorder = virtual.recorder
local append_to, raise, give, TIMINGS = clauses.append_to, clauses.raise, clauses.give, clauses.TIMINGS
local each_way, each_side_and_way = clauses.each_way, clauses.each_side_and_way
local VALUE, OTHER = clauses.VALUE, clauses.OTHER

local function ignore() end

-- 2.3.1, 2.3.2 --------------------------------------------------------------------------------------------------------

describe("Promises/A+ 2.3.1, a promise that is resolved with itself, rejects:", function()
  settled.setup(before_each, after_each)

  local function check_refused(seen)
    assert.are.equal("rejected", seen.status)
    assert.is_true(Promise.Error.isKind(seen.value, Promise.Error.Kind.ExecutionError))
    assert.matches("resolved with itself", tostring(seen.value))
  end

  each_side_and_way(it, "2.3.1 returned by its own HANDLER", function(side, way)
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
      each_way(it, ("2.3.2.%d becomes %s with the same value as that, %s"):format(i + 1, status, name), function(way)
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
