-- A process that waits is quiet: while nothing is due, none of its threads runs.

local child = require("spec.support.child")

-- How often the threads of the process went to sleep and were taken off the processor, as the system counts them. Who
-- makes a system call that has to wait, or computes for a while, is counted; an idle process is not.
local COUNT = [[
  local function switches(pid)
    local count = 0
    local folder = "/proc/" .. pid .. "/task"
    for id in io.popen("ls " .. folder):lines() do
      local file = io.open(folder .. "/" .. id .. "/status")
      for line in file and file:lines() or function() end do
        count = count + (tonumber(line:match("ctxt_switches:%s*(%d+)")) or 0)
      end
      if file then file:close() end
    end
    return count
  end
]]

--- Runs a script that writes "idle" to a file when it has begun to wait for long; returns how many times its threads
--- were switched in 0.6 seconds after that.
local function switches_of(source)
  local ready, path = os.tmpname(), child.write(([[
    local scheduler = require("scheduler")
    local task = scheduler.task
    local function is_idle() local file = io.open(arg[1], "w") file:write("idle") file:close() end
  ]]) .. source)
  local watcher = child.write(COUNT .. [[
    local pid, ready = arg[1], arg[2]
    local function is_ready()
      local file = io.open(ready)
      local text = file:read("*a")
      file:close()
      return text == "idle"
    end
    for _ = 1, 200 do if is_ready() then break end os.execute("sleep 0.05") end
    assert(is_ready(), "it has not begun to wait")
    os.execute("sleep 0.2")
    local before = switches(pid)
    os.execute("sleep 0.6")
    io.write(switches(pid) - before)
  ]])
  local lua = child.quote(child.interpreter)
  local result = child.command({ "sh", "-c", ("%s %s %s & pid=$!; %s %s $pid %s; kill -KILL $pid"):format(
    lua, path, ready, lua, watcher, ready) })
  os.remove(path)
  os.remove(watcher)
  os.remove(ready)
  assert.are.equal("", (result.err:gsub("[^\n]*Killed[^\n]*\n", "")))
  return assert(tonumber(result.out), result.out)
end

local WAITING = {
  ["that sleeps until a timer far ahead"] = "scheduler.setTimeout(print, 1e6) is_idle() scheduler.run()",
  ["with tasks that wait for each other"] = [[
    local event = scheduler.event()
    for _ = 1, 10 do task.spawn(function() event:wait() end) end
    scheduler.setTimeout(print, 1e6)
    is_idle()
    scheduler.run()
  ]],
  ["with pools that have nothing to do"] = [[
    local pool = scheduler.parallel.pool({ size = 2 })
    for _ = 1, 4 do pool:run(function() end) scheduler.parallel.run(function() end) end
    pool:run(function() require("scheduler").task.wait(0.001) end):expect()
    scheduler.setTimeout(print, 1e6)
    is_idle()
    scheduler.run()
  ]],
  ["with jobs that wait for messages"] = [[
    local channel = scheduler.channel()
    for _ = 1, 3 do scheduler.parallel.run(function(ch) return ch:recv() end, channel) end
    task.wait(0.05)
    scheduler.setTimeout(print, 1e6)
    is_idle()
    scheduler.run()
  ]],
  ["that was sent a signal and sleeps again"] = [[
    io.popen("(sleep 0.1; kill -WINCH $PPID) >/dev/null 2>&1 &"):close()
    io.popen("(sleep 0.15; kill -STOP $PPID; sleep 0.05; kill -CONT $PPID) >/dev/null 2>&1 &"):close()
    scheduler.setTimeout(is_idle, 250)
    scheduler.setTimeout(print, 1e6)
    scheduler.run()
  ]],
  ["whose descriptor a host watches"] = [[
    scheduler.fd()
    scheduler.setTimeout(print, 1e6)
    scheduler.poll()
    is_idle()
    io.popen("sleep 1000"):read("*a")
  ]],
}

describe("an idle process", function()
  if not io.open("/proc/self/task") then return end -- only there it can be seen

  for name, source in pairs(WAITING) do
    it(name .. " does nothing", function()
      assert.are.equal(0, switches_of(source))
    end)
  end

  it("that polls a clock, for comparison, is seen", function()
    assert.is_true(switches_of("scheduler.setInterval(function() end, 50) is_idle() scheduler.run()") >= 5)
  end)

  it("makes no system call", function()
    local path = child.write([[
      local scheduler = require("scheduler")
      scheduler.parallel.run(function() end):expect()
      scheduler.setTimeout(print, 1e6)
      scheduler.setTimeout(function() io.stderr:write("idle\n") end, 50)
      scheduler.run()
    ]])
    local trace = os.tmpname()
    local result = child.command({ "timeout", "-s", "KILL", "2", "strace", "-f", "-o", trace, child.interpreter, path })
    local file = io.open(trace)
    local is_idle, after = false, nil
    for line in file:lines() do
      if after and not line:find("+++ killed", 1, true) then after[#after + 1] = line end
      is_idle = is_idle or line:find('write(2, "idle', 1, true)
      if is_idle and not after and line:find("epoll_wait", 1, true) then after = {} end
    end
    file:close()
    os.remove(path)
    os.remove(trace)
    -- Where processes may not be traced, or strace is missing, the counts above have to do.
    if not after then return pending(result.err) end
    assert.are.same({}, after)
  end)
end)
