local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local workers = require("spec.support.workers")
local refuses = require("spec.support.refuses")

local await, run, shared = scheduler.await, scheduler.parallel.run, scheduler.shared

local HAS_INTEGERS = math.type ~= nil
local MOST = HAS_INTEGERS and math.maxinteger or 2 ^ 53 - 1
local LEAST = HAS_INTEGERS and math.mininteger or -MOST

describe("a shared atomic", function()
  it("begins with its number, or 0", function()
    assert.are.equal(7, shared.atomic(7):get())
    assert.are.equal(0, shared.atomic():get())
    assert.are.equal("atomic(-3)", tostring(shared.atomic(-3)))
  end)

  it("gives the new number after it was added to or subtracted from", function()
    local atomic = shared.atomic(5)
    assert.are.equal(8, atomic:add(3))
    assert.are.equal(6, atomic:sub(2))
    assert.are.equal(6, atomic:add(0))
    assert.are.equal(-4, atomic:add(-10))
    assert.are.equal(-4, atomic:get())
  end)

  it("is set, and gives the former number when it is swapped", function()
    local atomic = shared.atomic(1)
    assert.is_nil(atomic:set(2))
    assert.are.equal(2, atomic:swap(3))
    assert.are.equal(3, atomic:get())
  end)

  it("is exchanged only if it is the number that was expected", function()
    local atomic = shared.atomic(1)
    assert.are.same({ false, 1 }, { atomic:compare_exchange(2, 9) })
    assert.are.same({ true, 1 }, { atomic:compare_exchange(1, 9) })
    assert.are.equal(9, atomic:get())
  end)

  it("counts exactly what four workers add at once", function()
    local atomic = shared.atomic(0)
    workers.run(4, function(count)
      for _ = 1, count do
        atomic:add(1)
      end
    end, 100000)
    assert.are.equal(400000, atomic:get())
  end)

  it("loses no exchange that workers race for", function()
    local atomic = shared.atomic(0)
    workers.run(4, function()
      for _ = 1, 5000 do
        local seen = atomic:get()
        local ok
        repeat
          ok, seen = atomic:compare_exchange(seen, seen + 1)
        until ok
      end
    end)
    assert.are.equal(20000, atomic:get())
  end)

  it("takes the whole numbers that Lua tells from each other", function()
    local atomic = shared.atomic(MOST)
    assert.are.equal(MOST, atomic:get())
    assert.are.equal(MOST, atomic:swap(LEAST))
    assert.are.equal(LEAST, atomic:get())
    atomic:set(3.0)
    assert.are.equal(3, atomic:get())
    if HAS_INTEGERS then assert.are.equal("integer", math.type(atomic:get())) end
  end)

  it("wraps around as integers do; where Lua has floats only, it refuses to leave their range", function()
    local atomic = shared.atomic(MOST)
    if HAS_INTEGERS then
      assert.are.equal(LEAST, atomic:add(1))
      assert.are.equal(MOST, atomic:sub(1))
      assert.are.equal(-1, atomic:sub(LEAST))
    else
      refuses("the number of the atomic would not be a whole number of 53 bits any more", atomic.add, atomic, 1)
      assert.are.equal(MOST, atomic:get())
      atomic:set(LEAST)
      refuses("the number of the atomic would not be a whole number of 53 bits any more", atomic.sub, atomic, 1)
      assert.are.equal(LEAST, atomic:get())
    end
  end)

  it("refuses what is no whole number, at the line of the call", function()
    local atomic = shared.atomic(1)
    for _, case in ipairs({
      { 1.5, "1%.5" }, { 0 / 0, "NaN" }, { math.huge, "inf" }, { -math.huge, "%-inf" }, { "1", "string" },
      { nil, "nil" }, { 2 ^ 63, (tostring(2 ^ 63):gsub("%p", "%%%0")) }, { {}, "table" },
    }) do
      local function message(position, name)
        return "bad argument #" .. position .. " to '" .. name .. "' %(whole number of %d%d bits expected, got "
          .. case[2] .. "%)"
      end
      for _, name in ipairs({ "add", "sub", "set", "swap" }) do
        refuses(message(1, name), atomic[name], atomic, case[1])
      end
      if case[1] ~= nil then refuses(message(1, "atomic"), shared.atomic, case[1]) end
      refuses(message(1, "compare_exchange"), atomic.compare_exchange, atomic, case[1], 1)
      refuses(message(2, "compare_exchange"), atomic.compare_exchange, atomic, 1, case[1])
    end
    if not HAS_INTEGERS then
      refuses("bad argument #1 to 'set' %(whole number of 53 bits expected, got 9.007.*%)", atomic.set, atomic, 2 ^ 53)
    end
    assert.are.equal(1, atomic:get())
  end)

  it("refuses to be called with a dot, or on something else", function()
    local atomic = shared.atomic(1)
    for _, name in ipairs({ "get", "set", "add", "sub", "swap", "compare_exchange" }) do
      refuses("calling '" .. name .. "' on bad self %(atomic expected, got number%)", atomic[name], 5, 5)
      refuses("calling '" .. name .. "' on bad self %(atomic expected, got userdata%)", atomic[name], shared.mutex(), 5)
    end
  end)

  it("is the same one wherever it arrives: as argument, result, upvalue and in tables", function()
    local atomic = shared.atomic(0)
    local list = await(run(function(argument, tables)
      atomic:add(1)
      argument:add(10)
      tables[1].deep:add(100)
      assert(rawequal(atomic, argument) and rawequal(argument, tables[1].deep))
      return { atomic, { argument } }
    end, atomic, { { deep = atomic } }))
    assert.are.equal(111, atomic:get())
    assert.is_true(rawequal(atomic, list[1]) and rawequal(atomic, list[2][1]))
    assert.is_true(await(run(function(a)
      return a
    end, atomic)) == atomic)
    assert.is_false(shared.atomic(0) == shared.atomic(0))
  end)

  it("crosses through the __transfer of a userdata", function()
    local atomic = shared.atomic(1)
    -- A userdata of the program's own, where pure Lua can make one.
    local make = rawget(_G, "newproxy")
    if not make then return end
    local proxy = make(true)
    getmetatable(proxy).__transfer = function()
      return function(a)
        a:add(1)
        return a
      end, atomic
    end
    assert.is_true(rawequal(atomic, await(run(function(a)
      a:add(1)
      return a
    end, proxy))))
    assert.are.equal(3, atomic:get())
  end)

  it("can be collected, and is freed with the last VM that has it", function()
    assert.is_true(memory.is_released(function()
      return shared.atomic(1)
    end))
    workers.collect()
    memory.collect()
    local before = scheduler.stats().shared
    local function share()
      local atomic = shared.atomic(1)
      assert.are.equal(before + 1, scheduler.stats().shared)
      workers.run(2, function()
        return atomic:add(1)
      end)
    end
    coroutine.wrap(function()
      scheduler.run(share)
    end)()
    workers.collect()
    memory.collect()
    -- What an earlier test has left on a stack may go meanwhile.
    assert.is_true(scheduler.stats().shared <= before)
  end)

  it("outlives the job that made it", function()
    local atomic = await(run(function()
      return require("scheduler").shared.atomic(41)
    end))
    workers.collect()
    assert.are.equal(42, atomic:add(1))
  end)
end)
