-- Leaving: each case in a process of its own, which must end, with the right exit code and nothing on stderr.

local child = require("spec.support.child")

local function ends_with(code, result)
  assert.are.equal("", result.err)
  assert.are.equal(code, result.code)
  return result.out
end

local long_jobs = [[
  for _ = 1, 8 do
    scheduler.parallel.run(function() local n = 0 for i = 1, 1e9 do n = n + i end return n end)
  end
]]

describe("a script", function()
  it("may end with work pending and no run", function()
    ends_with(0, child.script([[
      for i = 1, 1000 do
        scheduler.setTimeout(print, i)
        scheduler.setInterval(print, i)
        scheduler.setImmediate(print)
        scheduler.queueMicrotask(print)
      end
      scheduler.fd()
    ]] .. long_jobs))
  end)

  it("may end after run was stopped with work pending", function()
    ends_with(0, child.script(long_jobs .. [[
      scheduler.setInterval(scheduler.stop, 10)
      scheduler.run()
    ]]))
  end)

  it("that fails with timers pending exits with 1 and its own message alone", function()
    local result = child.script(long_jobs .. [[
      scheduler.setTimeout(print, 1)
      error("failed")
    ]])
    assert.are.equal(1, result.code)
    assert.matches("failed", result.err)
    assert.is_nil(result.err:find("scheduler:", 1, true))
  end)

  it("may collect garbage with everything pending, again and again", function()
    ends_with(0, child.script([[
      for i = 1, 1000 do scheduler.setTimeout(function() return i end, i % 7) end
      require("spec.support.memory").set_pause(0)
      scheduler.run()
      for _ = 1, 10 do collectgarbage() end
    ]]))
  end)
end)

describe("os.exit", function()
  for _, where in ipairs({
    { "a timer", "scheduler.setTimeout(function() leave() end, 1) scheduler.run()" },
    { "an interval", "scheduler.setInterval(function() leave() end, 1) scheduler.run()" },
    { "an immediate", "scheduler.setImmediate(function() leave() end) scheduler.run()" },
    { "a microtask", "scheduler.queueMicrotask(function() leave() end) scheduler.run()" },
    { "the main task", "scheduler.run(function() leave() end)" },
    { "poll", "scheduler.setTimeout(function() leave() end, 0) scheduler.poll()" },
    { "an error handler", "scheduler.on_error(function() leave() end) scheduler.setTimeout(error) scheduler.run()" },
    {
      "a callback that has waited",
      "scheduler.setTimeout(function() scheduler.await(scheduler.parallel.run(function() end)) leave() end) "
        .. "scheduler.run()",
    },
    { "the clock", "scheduler.clock.pause() scheduler.setTimeout(function() leave() end) scheduler.clock.advance(1)" },
  }) do
    it("from " .. where[1] .. " ends the process", function()
      local pending = "for i = 1, 100 do scheduler.setTimeout(print, 1e6) end "
      ends_with(3, child.script(pending .. "local function leave() os.exit(3) end " .. where[2]))
      ends_with(3, child.script(pending .. "local function leave() os.exit(3, true) end " .. where[2]))
    end)
  end

  it("with workers computing ends the process", function()
    for _, close in ipairs({ "false", "true" }) do
      ends_with(4, child.script(long_jobs .. [[
        scheduler.setTimeout(function() os.exit(4, ]] .. close .. [[) end, 20)
        scheduler.run()
      ]]))
    end
  end)
end)

describe("lua_close", function()
  it("drops what is pending", function()
    local result = child.host([[
      local scheduler = require("scheduler")
      for i = 1, 100 do
        scheduler.setTimeout(print, i)
        scheduler.setInterval(print, i)
        scheduler.queueMicrotask(print)
      end
      scheduler.fd()
      scheduler.poll()
      scheduler.setTimeout(scheduler.stop, 5)
      scheduler.run()
      scheduler.parallel.run(function() local n = 0 for i = 1, 1e8 do n = n + i end return n end)
    ]])
    ends_with(0, result)
  end)

  it("of five states, one after the other, lets each have its timers and its own ids", function()
    local out = ends_with(0, child.host([[
      local scheduler = require("scheduler")
      local id = scheduler.setTimeout(function() end, 1)
      io.stdout:write(("%d\n"):format(id))
      scheduler.run()
      scheduler.setInterval(print, 1)
      assert(scheduler.await(scheduler.parallel.run(function(x) return x + 1 end, 41)) == 42)
    ]], 5))
    local seen, count = {}, 0
    for id in out:gmatch("%d+") do
      assert.is_nil(seen[id])
      seen[id], count = true, count + 1
    end
    assert.are.equal(5, count)
  end)

  it("of states on two threads at once", function()
    ends_with(0, child.host([[
      local scheduler = require("scheduler")
      local fired = 0
      for i = 1, 200 do scheduler.setTimeout(function() fired = fired + 1 end, i % 5) end
      scheduler.run()
      assert(fired == 200)
      local jobs = {}
      for i = 1, 20 do jobs[i] = scheduler.parallel.run(function(n) return n * n end, i) end
      for i = 1, 20 do assert(scheduler.await(jobs[i]) == i * i) end
      scheduler.setTimeout(print, 1e6)
    ]], 10, 2))
  end)

  it("with finalizers that call the library, older and younger than it", function()
    ends_with(0, child.host([[
      local scheduler
      local function finalizer(fn)
        if newproxy then
          local proxy = newproxy(true)
          getmetatable(proxy).__gc = fn
          return proxy
        end
        return setmetatable({}, { __gc = fn })
      end
      local function use_everything()
        local use = {
          setTimeout = { print, 1 }, setInterval = { print, 1 }, setImmediate = { print }, clearTimeout = { 1 },
          queueMicrotask = { print }, ref = { 1 }, unref = { 1 }, hasRef = { 1 }, refresh = { 1 }, poll = {},
          now = {}, stop = {}, stats = {}, fd = {}, on_error = {},
        }
        for name, arguments in pairs(use) do
          pcall(scheduler[name], (unpack or table.unpack)(arguments))
        end
        pcall(scheduler.setTimeout, print, 1, 2, 3)
        pcall(scheduler.clearTimeout, "x")
        pcall(scheduler.parallel.run, function() end)
        pcall(scheduler.clock.pause)
        pcall(scheduler.clock.advance, 1)
      end
      older = finalizer(use_everything)
      scheduler = require("scheduler")
      scheduler.setTimeout(print, 5)
      younger = finalizer(use_everything)
    ]], 3))
  end)
end)

describe("require", function()
  it("in a coroutine that is then collected", function()
    ends_with(0, child.run({ "-e", [[
      local co = coroutine.create(function()
        local scheduler = require("scheduler")
        scheduler.setTimeout(function() io.write("fired") end, 1)
      end)
      assert(coroutine.resume(co))
      co = nil
      for _ = 1, 5 do collectgarbage() end
      local scheduler = require("scheduler")
      for i = 1, 1000 do coroutine.wrap(function() scheduler.setTimeout(function() end, i % 5) end)() end
      for _ = 1, 5 do collectgarbage() end
      scheduler.run()
      for _ = 1, 5 do collectgarbage() end
      scheduler.setTimeout(function() io.write(" again") end, 1)
      scheduler.run()
      assert(scheduler.await(scheduler.parallel.run(function() return 7 end)) == 7)
      assert(not pcall(scheduler.setTimeout, nil))
    ]] }))
  end)

  it("of a library for another Lua says so where the loader lets it speak", function()
    local others = { "lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit" }
    local mine = jit and "luajit" or _VERSION:lower():gsub(" ", "")
    for _, other in ipairs(others) do
      local file = io.open("build/" .. other .. "/scheduler.so")
      if file and other ~= mine then
        local result = child.command({
          "env", "LUA_CPATH=build/" .. other .. "/?.so", child.interpreter, "-e",
          "io.write(tostring(select(2, pcall(require, 'scheduler'))))",
        })
        assert.are.equal(0, result.code, other .. " in " .. mine .. ": " .. result.err)
        local says_so = result.out:find("this scheduler library was built for", 1, true)
        -- Without a symbol that it needs, the loader refuses it before it can speak.
        assert.is_truthy(says_so or result.out:find("undefined symbol", 1, true), result.out)
      end
      if file then file:close() end
    end
  end)
end)
