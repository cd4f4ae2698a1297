-- Functions that are sent again and again: their code crosses once, and nothing else of one job is seen by another.

-- luacheck: read globals setfenv loadstring newproxy last_function marked, globals kept_functions

local scheduler = require("scheduler")
local memory = require("spec.support.memory")

local await, run = scheduler.await, scheduler.parallel.run
local load, unpack = loadstring or load, table.unpack or unpack
local SHARES_UPVALUES = debug.upvalueid ~= nil -- luacheck: ignore 143

--- Runs a function in one job after the other, so that workers have had it before; calls `check` with each result.
local function again(fn, check, ...)
  for _ = 1, 10 * (scheduler.stats().workers + 2) do
    check(await(run(fn, ...)))
  end
end

describe("a function that is sent again", function()
  it("is the same one in the worker, if it has no upvalues", function()
    local same = 0
    again(function()
      local this = debug.getinfo(1, "f").func
      local is_same = rawget(_G, "last_function") == this
      rawset(_G, "last_function", this)
      return is_same
    end, function(is_same)
      same = same + (is_same and 1 or 0)
    end)
    assert.is_true(same > 0)
  end)

  it("is given all arguments and gives all results, be they few or many", function()
    local KINDS = { 0, -0.0, 1, 1.5, 2 ^ 53, -2 ^ 53, 1 / 0, false, true, "", "a\0b", ("x"):rep(1000), {}, math.type }
    local function echo(...)
      return ...
    end
    local function show(value)
      local is_number = type(value) == "number"
      return (math.type and math.type(value) or type(value)) .. (is_number and ("%g %g"):format(value, 1 / value) or "")
    end
    for count = 0, 40 do
      for offset = 1, #KINDS do
        local values = {}
        -- Plain values up to one that is none, or a hole.
        for i = 1, count do
          values[i] = KINDS[i < count and (offset + i) % 9 + 1 or offset]
        end
        if count > 2 and offset % 3 == 0 then values[2] = nil end
        local taken = { n = 0 }
        local function take(...)
          taken = { n = select("#", ...), ... }
        end
        take(await(run(echo, unpack(values, 1, count))))
        assert.are.equal(count, taken.n)
        for i = 1, count do
          assert.are.equal(show(values[i]), show(taken[i]))
          if type(values[i]) ~= "table" then assert.are.equal(values[i], taken[i]) end
        end
      end
    end
  end)

  it("is the same one in the worker, if it is its only upvalue", function()
    local same = 0
    local function this(n)
      local is_same = rawget(_G, "last_function") == this
      rawset(_G, "last_function", this)
      return n == 0 and is_same or n > 0 and this(n - 1) and is_same
    end
    again(this, function(is_same)
      same = same + (is_same and 1 or 0)
    end, 0)
    assert.is_true(same > 0)
  end)

  it("is its own upvalue again, whatever the last job has put in its place", function()
    local function this(n)
      if n == 0 then return "this" end
      local result = this(n - 1)
      this = function()
        return "another"
      end
      return result .. " " .. this(0)
    end
    again(this, function(result)
      assert.are.equal("this another", result)
    end, 1)
  end)

  it("shares itself as an upvalue with others in the message", function()
    local function this()
      return this
    end
    local function set(value)
      this = value
    end
    local function check(first, second)
      assert.is_true(first)
      assert.are.equal(SHARES_UPVALUES and "string" or "function", type(second))
    end
    local function try(f, g, is_first)
      local fn, setter = is_first and f or g, is_first and g or f
      local is_itself = fn() == fn
      setter("changed")
      return is_itself, fn()
    end
    again(try, check, this, set, true)
    again(try, check, set, this, false)
  end)

  it("has its globals again, whatever the last job has given it", function()
    again(function()
      local seen, env = marked, setmetatable({ marked = true }, { __index = _G })
      if setfenv then
        setfenv(1, env)
      else
        debug.setupvalue(debug.getinfo(1, "f").func, 1, env)
      end
      return seen, marked
    end, function(before, after)
      assert.is_nil(before)
      assert.is_true(after)
    end)
  end)

  it("has the upvalues of its sender, whatever the last job has made of them", function()
    local count, list = 0, { 0 }
    again(function()
      count, list[1] = count + 1, list[1] + 1
      return count + list[1]
    end, function(sum)
      assert.are.equal(2, sum)
    end)
    count = 10
    again(function()
      count = count + 1
      return count
    end, function(sum)
      assert.are.equal(11, sum)
    end)
  end)

  it("leaves alone what an earlier job has kept of it", function()
    local count = 0
    local function counter(n)
      kept_functions = rawget(_G, "kept_functions") or {}
      local sum = 0
      for _, kept in ipairs(kept_functions) do
        sum = sum + kept()
      end
      kept_functions[#kept_functions + 1] = function()
        return count
      end
      count = count + n
      return sum, #kept_functions
    end
    again(counter, function(sum, kept)
      assert.are.equal(kept - 1, sum)
    end, 1)
  end)

  it("is another one for each that was in the message", function()
    local function many()
      local list = {}
      for i = 1, 10 do
        list[load("return 1")] = i
      end
      return list
    end
    again(function(list)
      local count = 0
      for fn, i in pairs(list) do
        count = count + (fn() and i)
      end
      return count
    end, function(count)
      assert.are.equal(55, count)
    end, many())
    again(many, function(list)
      local count = 0
      for _ in pairs(list) do
        count = count + 1
      end
      assert.are.equal(10, count)
    end)
  end)

  it("is told from others in the same message, those of __transfer included", function()
    local value = newproxy and newproxy(true) or io.tmpfile()
    local mt = debug.getmetatable(value)
    local up = 4
    mt.__transfer = function()
      return function(f, g)
        return { f, g }
      end, function()
        return 3
      end, function()
        return up
      end
    end
    local one, two, pair, five = await(run(function(...)
      return ...
    end, function()
      return 1
    end, function()
      return 2
    end, value, function()
      return up + 1
    end))
    mt.__transfer = nil
    assert.are.same({ 1, 2, 3, 4, 5 }, { one(), two(), pair[1](), pair[2](), five() })
  end)

  it("names its lines in errors, as ever", function()
    local line = debug.getinfo(1, "l").currentline + 2
    local function fail()
      error("failed")
    end
    for _ = 1, 5 do
      local ok, err = pcall(await, run(fail))
      assert.is_false(ok)
      assert.matches("transfer_function_spec.lua:" .. line .. ": failed$", err.message)
    end
  end)

end)

describe("the memory of functions that were sent", function()
  -- One worker, as what two of them hold cannot be compared.
  local pool = scheduler.parallel.pool({ size = 1 })

  teardown(function()
    pool:close(0)
  end)

  --- How much Lua memory this state and one worker hold after `work`, beyond what they held before, in KB.
  local function growth(work)
    local function held()
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    work()
    local ours, theirs = held(), await(pool:run(held))
    work()
    return held() - ours, await(pool:run(held)) - theirs
  end

  local function batch(count, make)
    local jobs = {}
    for i = 1, count do
      jobs[i] = pool:run(make(i))
    end
    await(scheduler.Promise.all(jobs))
  end

  it("stays, be the same one sent 10,000 times", function()
    local function same()
      return "x"
    end
    local up = {}
    local function with_upvalue()
      return up
    end
    local ours, theirs = growth(function()
      for _ = 1, 50 do
        batch(100, function(i)
          return i % 2 == 0 and same or with_upvalue
        end)
      end
    end)
    assert.is_true(ours < 100, ours)
    assert.is_true(theirs < 100, theirs)
  end)

  it("stays, be it thousands of different ones", function()
    local made = 0
    local ours, theirs = growth(function()
      for _ = 1, 20 do
        batch(100, function()
          made = made + 1
          return load(("return %q, %d"):format(("x"):rep(5000), made))
        end)
      end
    end)
    -- A worker keeps 1 MiB of code at the most; the 2,000 functions take 10 MiB.
    assert.is_true(ours < 1000, ours)
    assert.is_true(theirs < 3000, theirs)
  end)

  it("is given back when a function is collected", function()
    assert.is_true(memory.is_released(function()
      local plain, up = load("return 1"), {}
      local function with_upvalue()
        return up
      end
      await(run(plain))
      await(run(with_upvalue))
      return plain, with_upvalue, up
    end))
  end)
end)
