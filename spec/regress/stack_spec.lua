-- Stacks that overflow, Lua's and C's: the error is one like any other, and the loop goes on. And what is deep without
-- being recursive does not overflow.

local scheduler = require("scheduler")
local child = require("spec.support.child")
local uncaught = require("spec.support.uncaught")

local function endless()
  return 1 + endless()
end

--- Recursion through C functions, each of which takes from the C stack.
local function endless_in_c()
  return (("x"):gsub(".", endless_in_c))
end

local function nested(depth, fn)
  if depth == 0 then return fn() end
  return (nested(depth - 1, fn))
end

-- LuaJIT knows no limit for calls through C and for coroutines that resume each other: it crashes when the system's
-- stack is used up, with this library or without.
local C_IS_LIMITED = not jit

-- Where a program's functions are called.
local PLACES = {
  ["a timer"] = function(fn)
    scheduler.setTimeout(fn)
    scheduler.run()
  end,
  ["a microtask"] = function(fn)
    scheduler.queueMicrotask(fn)
    scheduler.run()
  end,
  ["a task"] = function(fn)
    scheduler.task.spawn(fn)
  end,
  ["a task that has waited"] = function(fn)
    scheduler.task.spawn(function()
      scheduler.task.wait()
      fn()
    end)
    scheduler.run()
  end,
  ["a handler of a promise"] = function(fn)
    scheduler.Promise.resolve(1):andThen(fn)
    scheduler.run()
  end,
  ["the executor of a promise"] = function(fn)
    scheduler.Promise.new(fn)
    scheduler.run()
  end,
  ["the iterator of a map"] = function(fn)
    local ok, err = pcall(function()
      scheduler.parallel.map(fn, function() end):expect()
    end)
    if not ok then scheduler.setTimeout(error, 0, err, 0) end
    scheduler.run()
  end,
}

local function still_works()
  local fired = false
  scheduler.setTimeout(function()
    fired = true
  end)
  scheduler.run()
  assert.is_true(fired)
end

describe("a stack overflow", function()
  -- Where a finalizer runs while the stack is full, Lua 5.4 says "error in error handling" instead.
  before_each(function()
    collectgarbage("stop")
  end)

  after_each(function()
    collectgarbage("restart")
  end)

  for name, call in pairs(PLACES) do
    it("of Lua's in " .. name .. " is an error like any other", function()
      local errors = uncaught(call, endless)
      assert.are.equal(1, #errors)
      assert.matches("stack overflow", tostring(errors[1].err))
      still_works()
    end)

    it("of C's in " .. name .. " is an error like any other", function()
      if not C_IS_LIMITED then return end
      local errors = uncaught(call, endless_in_c)
      assert.are.equal(1, #errors)
      assert.matches("overflow", tostring(errors[1].err))
      still_works()
    end)
  end

  it("in the error handler falls back to stderr, and the loop goes on", function()
    local result = child.script([[
      local function endless() return 1 + endless() end
      scheduler.on_error(endless)
      scheduler.setTimeout(error, 1, "original")
      scheduler.setTimeout(function() io.write("goes on") end, 2)
      scheduler.run()
    ]])
    assert.are.equal(0, result.code)
    assert.matches("original", result.err)
    assert.are.equal("goes on", result.out)
  end)

  it("in __tostring of an error falls back to its type", function()
    local result = child.script([[
      local function endless() return 1 + endless() end
      scheduler.setTimeout(error, 1, setmetatable({}, { __tostring = endless }))
      scheduler.setTimeout(function() io.write("goes on") end, 2)
      scheduler.run()
    ]])
    assert.are.equal(0, result.code)
    assert.matches("error object is a table value", result.err)
    assert.are.equal("goes on", result.out)
  end)

  it("in a job fails that job, and the worker goes on", function()
    local result = child.script([[
      local pool = scheduler.parallel.pool({ size = 1, init = function() collectgarbage("stop") end })
      for _, fn in ipairs({
        function() local function endless() return 1 + endless() end return endless() end,
        function()
          local function endless() return (("x"):gsub(".", endless)) end
          return jit and error("overflow") or endless()
        end,
        function()
          require("scheduler").task.wait(0.001)
          local function endless() return 1 + endless() end
          return endless()
        end,
      }) do
        local ok, err = pool:run(fn):await()
        assert(not ok and err.kind == "error" and err.message:find("overflow"), tostring(err))
      end
      assert(scheduler.await(pool:run(function() return 7 end)) == 7)
      io.write("works")
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("works", result.out)
  end)

  it("of a handler that is called deep in the stack leaves the loop whole", function()
    local result = child.script([[
      -- So deep that there is hardly room for a call of ours: each works, or says that there is none. PUC Lua allows
      -- for 200 calls of C in each other, which is faster tried than a million values on the stack.
      local function deep(n, fn)
        if n == 0 then return fn() end
        if jit then return (deep(n - 1, fn)) end
        return (pcall(deep, n - 1, fn))
      end
      local calls = {
        function() scheduler.setTimeout(function() end, 0) end,
        function() scheduler.task.spawn(function() end) end,
        function() scheduler.poll() end,
        function() scheduler.Promise.resolve(1):andThen(function() end) end,
        function() scheduler.await(scheduler.parallel.run(function() end)) end,
        function() scheduler.channel(1):send(1) end,
      }
      local least, most = 100, 220
      if jit then
        least, most = 0, 1e5
        while most - least > 50 do
          local depth = math.floor((least + most) / 2)
          if pcall(deep, depth, function() end) then least = depth else most = depth end
        end
        least = least - 50
      end
      for _, call in ipairs(calls) do
        call() -- with all that is loaded for it
        for depth = least, most do pcall(deep, depth, call) end
      end
      scheduler.on_error(function() end)
      scheduler.run()
      local fired = false
      scheduler.setTimeout(function() fired = true end, 1)
      scheduler.run()
      assert(fired and scheduler.await(scheduler.parallel.run(function() return 7 end)) == 7)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
    assert.are.equal(0, result.code)
  end)
end)

describe("tasks that spawn tasks", function()
  if not C_IS_LIMITED then return end

  it("too deep for C raise an error in the one that would be too much", function()
    local deepest, failed = 0, nil
    local function spawn(depth)
      deepest = depth
      local ok, err = pcall(scheduler.task.spawn, spawn, depth + 1)
      if not ok then failed = failed or err end
    end
    local errors = uncaught(function()
      scheduler.task.spawn(function()
        if deepest < 1e5 then spawn(1) end
      end)
    end)
    assert.is_true(deepest > 20)
    assert.is_true(failed ~= nil or #errors > 0)
    assert.matches("overflow", tostring(failed or errors[1].err))
    still_works()
  end)
end)

describe("without recursion, and so without an overflow,", function()
  it("a hundred thousand promises settle each other", function()
    local settle
    local last = scheduler.Promise.new(function(resolve)
      settle = resolve
    end)
    for _ = 1, 1e5 do
      last = last:andThen(function(n)
        return n + 1
      end)
    end
    settle(0)
    assert.are.equal(1e5, scheduler.await(last))
  end)

  it("promises that are resolved with promises settle, twenty thousand deep", function()
    local Promise = scheduler.Promise
    local promise = Promise.delay(0):andThenReturn("innermost")
    for _ = 1, 2e4 do
      local inner = promise
      promise = Promise.new(function(resolve)
        resolve(inner)
      end)
    end
    assert.are.equal("innermost", scheduler.await(promise))
  end)

  it("microtasks queue microtasks, a hundred thousand in a row", function()
    local count = 0
    local function again()
      count = count + 1
      if count < 1e5 then scheduler.queueMicrotask(again) end
    end
    scheduler.queueMicrotask(again)
    scheduler.run()
    assert.are.equal(1e5, count)
  end)

  it("tasks wake each other in a row, ten thousand long", function()
    local events = { [0] = scheduler.event() }
    local last = 0
    for i = 1, 1e4 do
      events[i] = scheduler.event()
      scheduler.task.spawn(function()
        events[i - 1]:wait()
        last = i
        events[i]:set()
      end)
    end
    events[0]:set()
    scheduler.run()
    assert.are.equal(1e4, last)
  end)

  it("a table a hundred thousand levels deep crosses to a worker and back", function()
    local list = {}
    for _ = 1, 1e5 do
      list = { list }
    end
    local back = scheduler.await(scheduler.parallel.run(function(nest)
      return nest
    end, list))
    local depth = 0
    while back[1] do
      back, depth = back[1], depth + 1
    end
    assert.are.equal(1e5, depth)
  end)

  it("scopes in scopes end one after the other", function()
    local depth = 0
    local function open(n)
      if n == 0 then return scheduler.task.wait() end
      scheduler.scope(function(scope)
        depth = depth + 1
        scope:spawn(scheduler.task.wait)
        open(n - 1)
      end)
    end
    scheduler.run(open, 20)
    assert.are.equal(20, depth)
  end)

  it("a wait works at the bottom of a deep stack of Lua", function()
    local ran = false
    scheduler.run(function()
      nested(5000, scheduler.task.wait)
      ran = true
    end)
    assert.is_true(ran)
  end)
end)

describe("a wait across a C function", function()
  local function sort()
    table.sort({ 3, 1, 2 }, function(a, b)
      scheduler.task.wait()
      return a < b
    end)
  end

  local function substitute()
    return (("x"):gsub(".", function()
      scheduler.task.wait()
    end))
  end

  for name, fn in pairs({ ["table.sort"] = sort, ["string.gsub"] = substitute }) do
    it("such as " .. name .. " raises, and nobody is woken for it later", function()
      local waiting = scheduler.stats().tasks_waiting
      local errors = uncaught(function()
        scheduler.task.spawn(fn)
        scheduler.setTimeout(fn)
        scheduler.run()
      end)
      assert.are.equal(2, #errors)
      for _, err in ipairs(errors) do
        assert.matches("across", tostring(err.err))
      end
      still_works()
      assert.are.equal(waiting, scheduler.stats().tasks_waiting)
    end)
  end
end)
