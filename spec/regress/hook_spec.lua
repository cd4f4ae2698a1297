-- Hooks, debuggers and the collector's controls, used by callbacks.

local child = require("spec.support.child")

local function works(source)
  local result = child.script(source)
  assert.are.equal("", result.err)
  assert.are.equal("works", result.out)
  assert.are.equal(0, result.code)
end

local function is_here(name)
  return (loadstring or load)("return " .. name .. " ~= nil")() -- luacheck: ignore 113
end

describe("a hook of the program's", function()
  it("on the main thread keeps counting while the loop runs", function()
    works([[
      if jit then jit.off() end
      local count = 0
      debug.sethook(function() count = count + 1 end, "", 100)
      for i = 1, 200 do scheduler.setTimeout(function() end, i % 5) end
      scheduler.task.spawn(function() for _ = 1, 20 do scheduler.task.wait(0.001) end end)
      scheduler.run()
      local hook = debug.gethook()
      debug.sethook()
      assert(hook and count > 0, count)
      io.write("works")
    ]])
  end)

  it("that a callback sets is of that coroutine only, or of the state where Lua has one for all", function()
    works([[
      if jit then jit.off() end
      local lines = 0
      scheduler.setTimeout(function()
        debug.sethook(function() lines = lines + 1 end, "l")
        local x = 1
        x = x + 1
        debug.sethook()
      end, 1)
      scheduler.setTimeout(function() end, 2)
      scheduler.run()
      assert(lines > 0)
      assert(debug.gethook() == nil)
      io.write("works")
    ]])
  end)

  it("that raises in a callback fails that callback", function()
    works([[
      if jit then jit.off() end
      local errors, fired = {}, false
      scheduler.on_error(function(err) errors[#errors + 1] = err end)
      scheduler.setTimeout(function()
        debug.sethook(function() debug.sethook() error("from the hook") end, "", 100)
        for _ = 1, 1e5 do end
      end, 1)
      scheduler.setTimeout(function() fired = true end, 2)
      scheduler.run()
      assert(#errors == 1 and errors[1]:find("from the hook") and fired)
      io.write("works")
    ]])
  end)

  it("that raises in the loop itself ends run, which may be called again", function()
    works([[
      if jit then jit.off() end
      scheduler.on_error(function() end) -- where a callback was hit
      local fired = 0
      for i = 1, 1000 do scheduler.setTimeout(function() fired = fired + 1 end, 1) end
      for round = 1, 20 do
        debug.sethook(function() debug.sethook() error("from the hook") end, "", 37 * round)
        pcall(scheduler.run)
        debug.sethook()
      end
      scheduler.run()
      -- What the hook has hit is lost, no more than one for each.
      assert(fired >= 980, fired)
      io.write("works")
    ]])
  end)

  it("that calls the library may", function()
    works([[
      if jit then jit.off() end
      local fired, calls = 0, 0
      debug.sethook(function()
        calls = calls + 1
        if calls <= 50 then
          scheduler.setTimeout(function() fired = fired + 1 end, 0)
          scheduler.queueMicrotask(function() fired = fired + 1 end)
        end
      end, "", 50)
      for i = 1, 500 do scheduler.setTimeout(function() end, i % 3) end
      scheduler.run()
      debug.sethook()
      scheduler.run()
      assert(fired == 2 * math.min(calls, 50), fired .. " of " .. calls)
      io.write("works")
    ]])
  end)

  it("in a job does not keep it from being cancelled, nor the next one from running", function()
    works([[
      local pool = scheduler.parallel.pool({ size = 1 })
      local job = pool:run(function()
        if jit then jit.off() jit.flush() end
        debug.sethook(function() end, "", 10)
        while true do pcall(function() for _ = 1, 1000 do end end) end
      end)
      scheduler.task.wait(0.02)
      job:cancel()
      assert(scheduler.await(pool:run(function() return debug.gethook() == nil end)))
      io.write("works")
    ]])
  end)
end)

describe("debug.debug", function()
  it("in a callback reads its lines, and the loop goes on", function()
    local result = child.script([[
      local ticks = 0
      scheduler.setTimeout(function() debug.debug() ticks = ticks + 1 end, 1)
      scheduler.run(function() scheduler.task.wait(0.005) ticks = ticks + 1 end)
      assert(ticks == 2)
      io.write("works")
    ]])
    assert.are.equal("lua_debug> ", result.err)
    assert.are.equal("works", result.out)
  end)
end)

describe("debug.traceback and debug.getinfo", function()
  it("may look into every coroutine of the library's", function()
    works([[
      local seen = {}
      local function look(co)
        seen[co] = true
        assert(type(debug.traceback(co)) == "string")
        local level = 0
        while true do
          local info = debug.getinfo(co, level, "nSluf")
          if not info then break end
          local index = 1
          while true do
            local name, value = debug.getlocal(co, level, index)
            if not name then break end
            index = index + 1
            if type(value) == "thread" and not seen[value] then look(value) end
          end
          level = level + 1
        end
      end
      for _ = 1, 3 do look(scheduler.task.spawn(function() scheduler.task.wait(0.001) end)) end
      look(scheduler.task.defer(function() end))
      look(scheduler.task.delay(0.001, function() end))
      scheduler.setTimeout(function() look(coroutine.running()) end, 1)
      scheduler.run()
      io.write("works")
    ]])
  end)
end)

if is_here("coroutine.close") then
  describe("coroutine.close", function()
    for name, wait in pairs({
      ["that sleeps"] = "scheduler.task.wait(0.005)",
      ["that waits for the next turn"] = "scheduler.task.wait()",
      ["that yields to the others"] = "scheduler.task.yield()",
      ["that waits for an event"] = "event:wait()",
      ["that waits for a lock"] = "mutex:lock()",
      ["that waits for a message"] = "channel:recv()",
      ["that waits for a promise"] = "scheduler.await(promise)",
      ["that waits for a job"] = "scheduler.await(job)",
      ["that waits for a task"] = "scheduler.task.join(other)",
      ["with a scope"] = "scheduler.scope(function(scope) scope:spawn(scheduler.task.wait, 0.005) end)",
    }) do
      it("of a task " .. name .. " ends it, and nothing wakes it later", function()
        works([[
          local event, mutex, channel = scheduler.event(), scheduler.mutex(), scheduler.channel(1)
          local promise = scheduler.Promise.delay(0.004)
          local job = scheduler.parallel.run(function() end)
          local other = scheduler.task.spawn(function() scheduler.task.wait(0.004) end)
          mutex:lock()
          local errors, went_on, closed = {}, false, false
          scheduler.on_error(function(err) errors[#errors + 1] = tostring(err) end)
          local co = scheduler.task.spawn(function()
            local guard <close> = setmetatable({}, { __close = function() closed = true end })
            ]] .. wait .. [[
            went_on = true
          end)
          assert(coroutine.close(co))
          assert(closed and coroutine.status(co) == "dead")
          event:set() mutex:unlock() channel:send(1)
          scheduler.task.wait(0.01)
          scheduler.run()
          assert(not went_on)
          assert(#errors == 0, errors[1])
          io.write("works")
        ]])
      end)
    end

    it("of a task is told to those that wait for it when it would have gone on", function()
      works([[
        local co = scheduler.task.spawn(scheduler.task.wait, 0.003)
        local ok, err = "pending", nil
        scheduler.task.spawn(function() ok, err = scheduler.pcall(scheduler.task.join, co) end)
        coroutine.close(co)
        scheduler.run()
        assert(ok == false and err.kind == "cancelled", tostring(err))
        io.write("works")
      ]])
    end)

    -- Lua does not tell a closed coroutine from one that has returned.
    it("of a task looks to those that join it later as if it had returned nothing", function()
      works([[
        local co = scheduler.task.spawn(scheduler.task.wait, 100)
        coroutine.close(co)
        assert(select("#", scheduler.task.join(co)) == 0)
        io.write("works")
      ]])
    end)
  end)
end

local HURRY = _VERSION == "Lua 5.5" and 'collectgarbage("param", "pause", 0) collectgarbage("param", "stepmul", 1000)'
  or 'collectgarbage("setpause", 0) collectgarbage("setstepmul", 1000)'

describe("the collector", function()
  for _, call in ipairs({
    'collectgarbage("stop")', 'collectgarbage("step")', 'collectgarbage("step", 1000)', 'collectgarbage()',
    'pcall(collectgarbage, "generational")', 'pcall(collectgarbage, "incremental")',
    HURRY,
  }) do
    it("may be told " .. call:gsub('"', "'") .. " by any callback", function()
      works([[
        local function tell() ]] .. call .. [[ end
        local count = 0
        local function told() count = count + 1 tell() end
        for i = 1, 20 do
          scheduler.setTimeout(told, i % 4)
          scheduler.setImmediate(told)
          scheduler.queueMicrotask(told)
          scheduler.task.spawn(function() told() scheduler.task.wait(0.001) told() end)
          scheduler.Promise.resolve(i):andThen(told)
        end
        scheduler.parallel.run(function() ]] .. call .. [[ require("scheduler").task.wait(0.001) end):andThen(told)
        scheduler.run()
        assert(count == 121, count)
        io.write("works")
      ]])
    end)
  end
end)
