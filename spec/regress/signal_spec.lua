-- Signals: what they do stays the host's affair. The default action ends the process, and the stock interpreter's
-- handler for Ctrl-C raises "interrupted!", also while the loop sleeps.

local child = require("spec.support.child")

-- `io.popen`, unlike `os.execute`, leaves the signals of the process alone. The killer gives up with the process; each
-- second before that it sends the signal `again`, if there is one.
local SIGNAL = [[
  local function signal(name, seconds, again)
    local line = "(sleep %s; kill -%s $PPID; for i in 1 2 3 4 5 6 7 8; do sleep 1; kill -%s $PPID || exit; done; "
      .. "kill -KILL $PPID) >/dev/null 2>&1 &"
    io.popen(line:format(seconds, name, again or 0)):close()
  end
]]

local function signalled(name, seconds, source, again)
  return child.script(SIGNAL .. ("signal(%q, %s, %q) "):format(name, seconds, again or "0") .. source)
end

-- In which a program can be when a signal comes.
local MOMENTS = {
  { "while it sleeps", "scheduler.setTimeout(print, 1e6) scheduler.run()" },
  { "while it waits for ever", [[
    local channel = scheduler.channel()
    scheduler.parallel.run(function(ch) require("scheduler").task.wait(1e3) ch:send(1) end, channel)
    channel:recv()
  ]] },
  { "while intervals fire", [[
    scheduler.setInterval(function() end, 1)
    scheduler.setInterval(function() local t = {} for i = 1, 1000 do t[i] = i end end, 2)
    scheduler.run()
  ]] },
  { "while tasks yield", "scheduler.run(function() while true do scheduler.task.yield() end end)" },
  { "while workers compute", [[
    for _ = 1, 3 do scheduler.parallel.run(function() while true do end end) end
    scheduler.setTimeout(print, 1e6)
    scheduler.run()
  ]] },
  { "while jobs come and go", [[
    scheduler.run(function()
      while true do scheduler.await(scheduler.parallel.run(function() return 1 end)) end
    end)
  ]] },
  { "in a host's own loop", "while true do scheduler.poll() end" },
}

describe("SIGTERM", function()
  for _, moment in ipairs(MOMENTS) do
    it(moment[1] .. " ends the process, as by default", function()
      local result = signalled("TERM", 0.05, moment[2])
      assert.are.equal(128 + 15, result.code)
    end)
  end

  it("at any moment ends the process, as by default", function()
    for i = 0, 9 do
      local result = signalled("TERM", i / 300, [[
        local pool = scheduler.parallel.pool({ size = 2 })
        scheduler.setInterval(function() pool:run(function() return {} end) end, 1)
        scheduler.task.spawn(function() while true do scheduler.task.wait(0.001) end end)
        scheduler.run()
      ]])
      assert.are.equal(128 + 15, result.code)
    end
  end)
end)

describe("SIGINT", function()
  for _, moment in ipairs(MOMENTS) do
    it(moment[1] .. " raises 'interrupted!' in the stock interpreter", function()
      -- LuaJIT's hook hits whatever coroutine runs: the error may be one callback's, and not be seen. It takes another.
      local result = signalled("INT", 0.05, moment[2], jit and "INT")
      assert.are.equal(1, result.code)
      if not jit then assert.matches("interrupted!", result.err) end
    end)
  end

  it("can be caught, and the loop goes on after that", function()
    local result = signalled("INT", 0.05, [[
      local fired = false
      scheduler.setTimeout(function() fired = true end, 150)
      local ok, err = pcall(scheduler.run)
      assert(not ok and tostring(err):find("interrupted!", 1, true), tostring(err))
      assert(not fired)
      scheduler.run()
      assert(fired)
      assert(scheduler.await(scheduler.parallel.run(function() return 7 end)) == 7)
      io.write("went on")
    ]])
    assert.are.equal("went on", result.out, result.err)
  end)
end)

describe("SIGINT after another signal", function()
  it("ends a sleep as well", function()
    local result = signalled("INT", 0.3, [[
      io.popen("(sleep 0.1; kill -STOP $PPID; sleep 0.02; kill -CONT $PPID) >/dev/null 2>&1 &"):close()
      scheduler.setTimeout(print, 1e6)
      scheduler.run()
    ]])
    assert.matches("interrupted!", result.err)
    assert.are.equal(1, result.code)
  end)
end)

describe("a wait of the main thread that SIGINT has ended", function()
  it("wakes nothing later", function()
    local result = signalled("INT", 0.05, [[
      local promise = scheduler.Promise.delay(0.15)
      local ok, err = pcall(scheduler.await, promise)
      assert(not ok and tostring(err):find("interrupted!", 1, true), tostring(err))
      local waited = scheduler.task.wait(0.3)
      assert(waited >= 0.3, waited)
      assert(promise:getStatus() == "Resolved")
      io.write("waited")
    ]])
    assert.are.equal("waited", result.out, result.err)
  end)
end)

describe("other signals", function()
  it("that the process ignores wake nothing", function()
    local result = signalled("WINCH", 0.02, [[
      local start = scheduler.now()
      scheduler.task.wait(0.1)
      assert(scheduler.now() - start >= 100)
      io.write("waited")
    ]])
    assert.are.equal("waited", result.out, result.err)
  end)

  it("that stop and continue the process lose no timer and no job", function()
    local result = child.script([[
      io.popen("(sleep 0.05; kill -STOP $PPID; sleep 0.2; kill -CONT $PPID) >/dev/null 2>&1 &"):close()
      local ticks, late = 0, 0
      local id = scheduler.setInterval(function() ticks = ticks + 1 end, 10)
      scheduler.setTimeout(function() late = late + 1 end, 100)
      local job = scheduler.parallel.run(function() require("scheduler").task.wait(0.1) return "done" end)
      scheduler.setTimeout(function() scheduler.clearInterval(id) end, 400)
      scheduler.run()
      assert(late == 1 and ticks > 3 and ticks <= 41, ticks)
      assert(scheduler.await(job) == "done")
      io.write("went on")
    ]])
    assert.are.equal("went on", result.out, result.err)
  end)

  it("SIGPIPE ends a program whose reader has gone, as by default", function()
    local path = child.write([[
      local scheduler = require("scheduler")
      scheduler.setInterval(function() print(("x"):rep(1000)) io.stdout:flush() end, 1)
      scheduler.run()
    ]])
    -- LuaSocket, which other specs load, ignores it for all processes that come after.
    local line = "{ env --default-signal=PIPE %s %s; echo $? >&2; } | head -c 10 >/dev/null"
    local result = child.command({ "sh", "-c", line:format(child.quote(child.interpreter), path) })
    os.remove(path)
    assert.are.equal("141\n", result.err)
  end)
end)
