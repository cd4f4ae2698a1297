-- Errors of all kinds and values of errors of all kinds: each arrives as it was raised, and fails nothing but what
-- raised it.

local scheduler = require("scheduler")
local child = require("spec.support.child")
local uncaught = require("spec.support.uncaught")

local task, Promise = scheduler.task, scheduler.Promise

local load = loadstring or load -- luacheck: ignore 113

local function raise()
  error("by a metamethod")
end

local hostile = setmetatable({}, {
  __index = raise, __newindex = raise, __tostring = raise, __len = raise, __eq = raise, __lt = raise, __le = raise,
  __concat = raise, __call = raise, __unm = raise, __add = raise, __pairs = raise, __ipairs = raise, __name = 7,
})

local VALUES = {
  ["a string"] = "text",
  ["an empty string"] = "",
  ["a string with zeros"] = "a\0b",
  ["a long string"] = ("x"):rep(2 ^ 20),
  ["a number"] = 42,
  ["a fraction"] = -0.5,
  ["infinity"] = math.huge,
  ["false"] = false,
  ["true"] = true,
  ["a table"] = { code = 1 },
  ["a table whose metamethods all raise"] = hostile,
  ["a table with a metatable that cannot be seen"] = setmetatable({}, { __metatable = false }),
  ["a table whose __tostring gives no string"] = setmetatable({}, { __tostring = function() end }),
  ["a function"] = print,
  ["a coroutine"] = coroutine.create(function() end),
  ["a userdata"] = io.stdout,
  ["the module"] = scheduler,
  ["the mark of a wait"] = scheduler.pending,
  ["a promise"] = Promise.resolve(1),
  ["a rejected promise"] = (function()
    local promise = Promise.reject("inner")
    promise:catch(function() end)
    return promise
  end)(),
}

-- Ways in which an error gets from where it is raised to somebody who has it: each returns that.
local WAYS = {
  ["a timer, to the error handler"] = function(value)
    return uncaught(function()
      scheduler.setTimeout(error, 0, value, 0)
      scheduler.run()
    end)[1].err
  end,
  ["a microtask, to the error handler"] = function(value)
    return uncaught(function()
      scheduler.queueMicrotask(error, value, 0)
      scheduler.run()
    end)[1].err
  end,
  ["a task, to the error handler"] = function(value)
    return uncaught(task.spawn, error, value, 0)[1].err
  end,
  ["a task, to its join"] = function(value)
    return (select(2, pcall(scheduler.run, function()
      return task.join(task.defer(function()
        task.wait()
        error(value, 0)
      end))
    end)))
  end,
  ["a protected call in a task"] = function(value)
    return scheduler.run(function()
      return (select(2, scheduler.pcall(function()
        task.wait()
        error(value, 0)
      end)))
    end)
  end,
  ["a scope, to its caller"] = function(value)
    return (select(2, pcall(scheduler.run, scheduler.scope, function(scope)
      scope:spawn(error, value, 0)
    end)))
  end,
  ["a handler, to the next one"] = function(value)
    local got
    Promise.resolve(1):andThen(function()
      error(value, 0)
    end):catch(function(err)
      got = err
    end)
    scheduler.run()
    return got
  end,
  ["a rejection, to who awaits it"] = function(value)
    return (select(2, pcall(scheduler.await, Promise.new(function(_, reject)
      reject(value)
    end))))
  end,
  ["an async function, to who awaits it"] = function(value)
    return (select(2, pcall(scheduler.await, scheduler.async(function()
      task.wait()
      error(value, 0)
    end)())))
  end,
  ["an unhandled rejection, to the error handler"] = function(value)
    return uncaught(function()
      Promise.reject(value)
      scheduler.run()
    end)[1].err
  end,
  ["the main task, to who called run"] = function(value)
    return (select(2, pcall(scheduler.run, error, value, 0)))
  end,
}

local function names(list)
  local sorted = {}
  for name in pairs(list) do
    sorted[#sorted + 1] = name
  end
  table.sort(sorted)
  return sorted
end

describe("the value of an error", function()
  for _, way in ipairs(names(WAYS)) do
    it("gets as it is from " .. way, function()
      for _, name in ipairs(names(VALUES)) do
        local value = VALUES[name]
        assert.is_true(rawequal(value, WAYS[way](value)), name)
      end
    end)
  end

  it("may be nil or NaN everywhere", function()
    for _, way in ipairs(names(WAYS)) do
      local got = WAYS[way](nil)
      -- Lua 5.4 and the promises may say it in words; a value that nobody raised it must not be.
      assert.is_true(got == nil or type(got) == "string", way .. ": " .. tostring(got))
      local not_a_number = WAYS[way](0 / 0)
      assert.is_true(not_a_number ~= not_a_number, way)
    end
  end)

  it("reaches the default handler in words, whatever it is", function()
    local result = child.script([[
      local function raise() error("by a metamethod") end
      local hostile = setmetatable({}, { __index = raise, __tostring = raise, __eq = raise, __concat = raise,
        __len = raise, __name = {} })
      local values = { hostile, setmetatable({}, { __metatable = false }), print, coroutine.create(function() end),
        io.stdout,
        scheduler, scheduler.pending, scheduler.Promise.resolve(1), ("x"):rep(1e6), "a\0b", 0/0, math.huge, false }
      for _, value in ipairs(values) do
        scheduler.setTimeout(error, 0, value, 0)
        scheduler.task.spawn(error, value, 0)
        scheduler.Promise.reject(value)
      end
      scheduler.run()
      io.write(#values)
    ]])
    assert.are.equal(0, result.code)
    assert.are.equal("13", result.out)
    local count = select(2, result.err:gsub("scheduler: uncaught error in", ""))
    assert.are.equal(39, count)
  end)

  it("of a job arrives as a copy, or in words where it cannot cross", function()
    local result = child.script([[
      local function fails(fn)
        local ok, err = scheduler.parallel.run(fn):await()
        assert(not ok and type(err) == "table" and err.kind == "error", tostring(err))
        return err
      end
      assert(fails(function() error("text", 0) end).message == "text")
      assert(fails(function() error({ code = 7 }) end).value.code == 7)
      assert(type(fails(function() error(nil) end).message) == "string")
      assert(type(fails(function() error(io.stdout) end).message) == "string")
      assert(type(fails(function() error(coroutine.create(function() end)) end).message) == "string")
      assert(type(fails(function() error(setmetatable({}, { __tostring = function() error("x") end })) end).message)
        == "string")
      assert(type(fails(function() error(setmetatable({}, { __tostring = function() return {} end })) end).message)
        == "string")
      assert(#fails(function() error(("x"):rep(1e6), 0) end).message == 1e6)
      local cycle = fails(function() local t = {} t.t = t error(t) end).value
      assert(cycle.t == cycle)
      io.write("works")
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("works", result.out)
  end)
end)

describe("an error in a metamethod", function()
  local function still_works()
    local fired = false
    scheduler.setTimeout(function()
      fired = true
    end)
    scheduler.run()
    assert.is_true(fired)
  end

  it("of a callable table is that callback's", function()
    local callable = setmetatable({}, { __call = raise })
    local errors = uncaught(function()
      scheduler.setTimeout(callable)
      scheduler.queueMicrotask(callable)
      task.spawn(callable)
      scheduler.run()
    end)
    assert.are.equal(3, #errors)
    still_works()
  end)

  it("of an options table is the caller's", function()
    for _, call in ipairs({
      function() scheduler.setInterval(print, setmetatable({}, { __index = raise, __pairs = raise })) end,
      function() scheduler.parallel.pool(setmetatable({ size = hostile }, { __index = raise })) end,
      function() scheduler.select(hostile) end,
      function() scheduler.execute_tasks(hostile) end,
      function() scheduler.parallel.map(hostile, print) end,
      function() Promise.all(hostile) end,
    }) do
      local ok = pcall(call)
      scheduler.on_error(function() end)
      scheduler.run()
      scheduler.on_error(nil)
      assert.is_boolean(ok)
      still_works()
    end
  end)

  it("of a thenable rejects the promise that takes it over", function()
    local promise = Promise.resolve(setmetatable({}, { __index = raise }))
    local ok, err = pcall(scheduler.await, promise)
    assert.is_true(not ok and tostring(err):find("by a metamethod", 1, true) ~= nil or ok)
    still_works()
  end)

  it("of an argument that is to cross is the sender's", function()
    local odd = setmetatable({}, { __index = raise, __len = raise, __pairs = raise, __eq = raise })
    local result = scheduler.await(scheduler.parallel.run(function(t)
      return rawget(t, 1) == nil
    end, odd))
    assert.is_true(result)
    local refused = setmetatable({}, { __transfer = raise })
    pcall(function()
      scheduler.await(scheduler.parallel.run(function() end, refused))
    end)
    still_works()
  end)
end)

describe("an error in a finalizer", function()
  -- LuaJIT raises it in the midst of compiled code, or of the library's, and crashes, also without this library.
  local is_bearable = not jit

  it("that runs in a callback leaves the loop whole", function()
    if not is_bearable then return end
    local result = child.script([[
      local function finalizer(fn)
        if newproxy then getmetatable(newproxy(true)).__gc = fn else setmetatable({}, { __gc = fn }) end
      end
      scheduler.on_error(function() end) -- Lua 5.1 to 5.3 raise it where the collector happens to run
      local fired, collected = 0, 0
      local function begin(i)
        finalizer(function() collected = collected + 1 error("in a finalizer") end)
        scheduler.setTimeout(function() fired = fired + 1 pcall(collectgarbage) end, i % 7)
        scheduler.task.spawn(function() scheduler.task.wait(0.001) pcall(collectgarbage, "step") end)
      end
      for i = 1, 100 do pcall(begin, i) end
      for _ = 1, 200 do if pcall(scheduler.run) then break end end
      for _ = 1, 200 do if pcall(collectgarbage) then break end end
      assert(collected > 0 and fired >= 90, fired)
      assert(scheduler.parallel.run(function() return 7 end):expect() == 7)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
    assert.are.equal(0, result.code)
  end)

  it("of a job is that job's at the most, and the worker goes on", function()
    local result = child.script([[
      local pool = scheduler.parallel.pool({ size = 1 })
      for _ = 1, 5 do
        pool:run(function()
          local function finalizer(fn)
            if newproxy then getmetatable(newproxy(true)).__gc = fn else setmetatable({}, { __gc = fn }) end
          end
          for _ = 1, 20 do finalizer(function() error("in a finalizer") end) end
          collectgarbage()
        end):await()
      end
      assert(pool:run(function() return 7 end):expect() == 7)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
  end)

  -- While the worker takes and hands in other jobs as well, since the collector runs there too.
  it("that is left by a job is raised in one of the next, and the worker goes on", function()
    local result = child.script([[
      local pool = scheduler.parallel.pool({ size = 1 })
      local ended, jobs = 0, {}
      for i = 1, 1000 do
        jobs[i] = pool:run(function(n, list)
          local function finalizer(fn)
            if newproxy then getmetatable(newproxy(true)).__gc = fn else setmetatable({}, { __gc = fn }) end
          end
          for _ = 1, n do finalizer(function() error("in a finalizer") end) end
          return list, { list, n }
        end, i % 5, { i, { i } })
      end
      for _, job in ipairs(jobs) do job:finally(function() ended = ended + 1 end):catch(function() end) end
      scheduler.run()
      assert(ended == 1000, ended)
      for _ = 1, 100 do if pool:run(collectgarbage):await() then break end end
      assert(pool:run(function() return 7 end):expect() == 7)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
  end)

  it("that calls the library works while the loop runs", function()
    local result = child.script([[
      local function finalizer(fn)
        if newproxy then getmetatable(newproxy(true)).__gc = fn else setmetatable({}, { __gc = fn }) end
      end
      local fired, left = 0, 50
      local function fire() fired = fired + 1 end
      scheduler.setInterval(function()
        left = left - 1
        if left == 0 then scheduler.stop() end
        finalizer(function()
          scheduler.setTimeout(fire, 0)
          scheduler.queueMicrotask(fire)
          scheduler.task.defer(fire)
          scheduler.Promise.resolve(1):andThen(fire)
        end)
        collectgarbage()
      end, 1)
      scheduler.run()
      assert(fired > 100, fired)
      io.write("works")
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("works", result.out)
  end)
end)

local make = load([[
  local fn = ...
  local guard <close> = setmetatable({}, { __close = function() error("in __close") end })
  fn()
]])

if make then
  describe("an error in __close", function()
    it("of a callback or task that returns or fails is reported once, and the loop goes on", function()
      for _, fn in ipairs({ function() end, function() error("before") end, task.wait, function()
        task.wait()
        error("before")
      end }) do
        local errors = uncaught(function()
          scheduler.setTimeout(make, 0, fn)
          task.spawn(make, fn)
          scheduler.run()
        end)
        assert.is_true(#errors >= 2 and #errors <= 4, #errors)
        assert.matches("in __close", tostring(errors[1].err) .. tostring(errors[2].err))
      end
    end)

    it("of a task that is cancelled is reported, and the task is dead", function()
      local errors = uncaught(function()
        local co = task.spawn(make, task.wait)
        task.cancel(co)
        assert.are.equal("dead", coroutine.status(co))
        scheduler.run()
      end)
      assert.are.equal(1, #errors)
      assert.matches("in __close", errors[1].err)
    end)

    it("may wait: a task that is being closed by its end goes on when that is over", function()
      local waits = load([[
        local wait, note = ...
        local guard <close> = setmetatable({}, { __close = function() wait() note() end })
      ]])
      local noted = false
      task.spawn(waits, task.wait, function()
        noted = true
      end)
      scheduler.run()
      assert.is_true(noted)
    end)
  end)
end
