-- Lua states that come and go, in numbers, on many threads, inside of each other.

local child = require("spec.support.child")

local function ends_well(result)
  assert.are.equal("", result.err)
  assert.are.equal(0, result.code)
end

local WORK = [[
  local scheduler = require("scheduler")
  local fired = 0
  for i = 1, 20 do scheduler.setTimeout(function() fired = fired + 1 end, i % 3) end
  scheduler.task.spawn(function() scheduler.task.wait(0.001) fired = fired + 1 end)
  scheduler.run()
  assert(fired == 21)
  assert(scheduler.await(scheduler.Promise.delay(0.001):andThen(function() return "settled" end)) == "settled")
  local job = scheduler.parallel.run(function(n) return n * n end, 7)
  assert(scheduler.await(job) == 49)
]]

describe("a hundred states", function()
  it("opened and closed on ten threads do their work", function()
    ends_well(child.host(WORK, 10, 10))
  end)

  it("that are closed in the midst of theirs leave no trace", function()
    ends_well(child.host([[
      local scheduler = require("scheduler")
      local channel, mutex = scheduler.channel(), scheduler.shared.mutex()
      for i = 1, 20 do scheduler.setTimeout(print, 1e6) end
      scheduler.task.spawn(function() channel:recv() end)
      mutex:lock()
      scheduler.parallel.run(function(ch, m) m:lock() ch:send(1) end, channel, mutex)
      scheduler.parallel.run(function() local n = 0 for i = 1, 1e8 do n = n + i end end)
      local pool = scheduler.parallel.pool({ size = 1 })
      pool:run(function() require("scheduler").task.wait(1e3) end)
      scheduler.poll()
    ]], 10, 10))
  end)

  it("share a channel's worth of jobs in one default pool", function()
    ends_well(child.host([[
      local scheduler = require("scheduler")
      local jobs = {}
      for i = 1, 30 do jobs[i] = scheduler.parallel.run(function(n) return n + 1 end, i) end
      for i = 1, 30 do assert(scheduler.await(jobs[i]) == i + 1) end
    ]], 10, 10))
  end)

  it("that have slept leave no descriptor open", function()
    ends_well(child.host("host.limit('files', 60)" .. WORK, 100, 1))
  end)

  it("that do nothing but require cost nothing that lasts", function()
    ends_well(child.host([[
      require("scheduler")
      -- The host has one thread besides: no state has begun any.
      local threads = 0
      for line in io.lines("/proc/self/status") do
        threads = tonumber(line:match("^Threads:%s*(%d+)")) or threads
      end
      assert(threads <= 11, threads)
    ]], 10, 10))
  end)
end)

describe("a state", function()
  it("may be used by one thread after the other", function()
    ends_well(child.host_moving("turn = (turn or 0) + 1 " .. WORK .. [[
      -- What an earlier thread has left behind goes on here.
      if turn > 1 then
        assert(left_behind and scheduler.await(left_job) == turn - 1)
      end
      left_behind = false
      scheduler.setTimeout(function() left_behind = true end, 5)
      left_job = scheduler.parallel.run(function(n) return n end, turn)
    ]], 4))
  end)

  it("may be opened and closed in a callback of another", function()
    local inner = child.write(WORK .. "scheduler.setTimeout(print, 1e6)")
    local result = child.host(([[
      local scheduler = require("scheduler")
      local fired = 0
      local function nest() assert(host.in_state(%q) == 0) fired = fired + 1 end
      scheduler.setTimeout(nest, 1)
      scheduler.queueMicrotask(nest)
      scheduler.task.spawn(function() scheduler.task.wait(0.001) nest() end)
      scheduler.Promise.resolve(1):andThen(nest)
      scheduler.run()
      assert(fired == 4)
    ]]):format(inner))
    os.remove(inner)
    ends_well(result)
  end)

  it("may run its loop while another one's on the same thread sleeps between two turns", function()
    local inner = child.write(WORK)
    local result = child.host(([[
      local scheduler = require("scheduler")
      local ticks = 0
      local id = scheduler.setInterval(function() ticks = ticks + 1 end, 1)
      for _ = 1, 5 do
        scheduler.poll()
        assert(host.in_state(%q) == 0)
      end
      scheduler.clearInterval(id)
      assert(ticks > 0)
    ]]):format(inner))
    os.remove(inner)
    ends_well(result)
  end)
end)
