-- Runs for minutes or hours and does everything again and again: timers, tasks, promises, jobs, channels, pools and
-- states that are opened and closed. What it takes of memory, threads and descriptors must stay flat.
--
--   SOAK_MINUTES=60 build/host LIBRARY spec/deep/soak.lua 1 1

local scheduler = require("scheduler")
local task, parallel, Promise = scheduler.task, scheduler.parallel, scheduler.Promise

local SECONDS = 60 * (tonumber(os.getenv("SOAK_MINUTES")) or 2)
local MEASUREMENTS = 12
local WARM_UP = 3 -- measurements, in which caches and heaps fill
-- What it may grow by from then on: the figures go up and down by a tenth of that.
local MOST = { lua = 128, resident = 4096, threads = 4, files = 8 } -- KiB, and numbers
local STATES_EVERY = 5 -- rounds

local INNER = os.tmpname()
local file = assert(io.open(INNER, "w"))
file:write([[
  local scheduler = require("scheduler")
  local job = scheduler.parallel.run(function(n) return n + 1 end, 1)
  scheduler.setTimeout(function() end, 1)
  scheduler.run()
  assert(scheduler.await(job) == 2)
  -- Left behind:
  scheduler.setInterval(print, 1e6)
  scheduler.task.spawn(function() scheduler.channel():recv() end)
  scheduler.parallel.run(function() require("scheduler").task.wait(100) end):cancel()
]])
file:close()

local errors_seen = 0
scheduler.on_error(function()
  errors_seen = errors_seen + 1
end)

-- One thing each ------------------------------------------------------------------------------------------------------

local function timers()
  local fired = 0
  for i = 1, 200 do
    scheduler.setTimeout(function() fired = fired + 1 end, i % 5)
    scheduler.clearTimeout(scheduler.setTimeout(error, 1e6))
  end
  local id = scheduler.setInterval(function() fired = fired + 1 end, 1)
  task.wait(0.01)
  scheduler.clearInterval(id)
  assert(fired > 200)
end

local function tasks()
  local event, mutex, done = scheduler.event(), scheduler.mutex(), 0
  for i = 1, 100 do
    local co = task.spawn(function()
      task.wait(0.001)
      event:wait()
      mutex:lock()
      task.yield()
      mutex:unlock()
      done = done + 1
    end)
    if i % 10 == 0 then task.cancel(co) end
  end
  task.spawn(error, "seen by on_error")
  event:set()
  while done < 90 do
    task.wait(0.001)
  end
end

local function promises()
  local chain = Promise.resolve(0)
  for _ = 1, 50 do
    chain = chain:andThen(function(n) return n + 1 end)
  end
  assert(chain:expect() == 50)
  local list = {}
  for i = 1, 20 do
    list[i] = Promise.delay(0.001):andThenReturn(i)
  end
  assert(#Promise.all(list):expect() == 20)
  Promise.race({ Promise.delay(0.001), Promise.delay(1000) }):expect()
  Promise.delay(1000):cancel()
  Promise.reject("seen by on_error")
end

local function jobs()
  local prefix, list = "a", {}
  for i = 1, 20 do
    list[i] = parallel.run(function(n, t) return prefix .. n, t end, i, { i, { i } })
  end
  for i = 1, 20 do
    assert(scheduler.await(list[i]) == "a" .. i)
  end
  parallel.run(function() while true do end end):cancel()
  assert(not scheduler.pcall(scheduler.await, parallel.run(error, "x")))
  assert(#parallel.map({ 1, 2, 3, 4, 5, 6 }, function(n) return n * n end):expect() == 6)
end

local function channels()
  local to, back, counts = scheduler.channel(2), scheduler.channel(), scheduler.shared.table()
  local job = parallel.run(function(from, answers, into)
    local n = from:recv()
    while n do
      into:set(n, { n })
      answers:send(n * 2)
      n = from:recv()
    end
  end, to, back, counts)
  for i = 1, 20 do
    to:send(i)
    assert(back:recv() == 2 * i)
  end
  to:close()
  scheduler.await(job)
  assert(counts:get(20)[1] == 20)
end

local function pools()
  local pool = parallel.pool({ size = 2, queue = 4, init = function() end })
  local results = {}
  for i = 1, 10 do
    results[i] = pool:run(function(n) return n end, i)
  end
  for i = 1, 10 do
    assert(scheduler.await(results[i]) == i)
  end
  pool:close()
end

local function states()
  assert(host.in_state(INNER) == 0) -- luacheck: ignore 113
end

-- Again and again ---------------------------------------------------------------------------------------------------

local function read(path)
  local from = assert(io.open(path, "rb"))
  local text = from:read("*a")
  from:close()
  return text
end

local function descriptors()
  local listing = io.popen("ls /proc/" .. read("/proc/self/stat"):match("^%d+") .. "/fd")
  local _, count = listing:read("*a"):gsub("\n", "")
  listing:close()
  return count
end

local function measure(start, rounds)
  collectgarbage()
  collectgarbage()
  local status = read("/proc/self/status")
  local now = {
    lua = collectgarbage("count"), resident = tonumber(status:match("VmRSS:%s*(%d+)")),
    threads = tonumber(status:match("Threads:%s*(%d+)")), files = descriptors(),
  }
  print(("%6d s %8d rounds %9.0f KiB of Lua %9d KiB in all %4d threads %4d descriptors"):format(
    os.time() - start, rounds, now.lua, now.resident, now.threads, now.files))
  io.stdout:flush()
  return now
end

local function round(number)
  timers()
  tasks()
  promises()
  jobs()
  channels()
  pools()
  if number % STATES_EVERY == 0 then states() end
end

--- The least of some measurements: what lies above it is not held.
local function least(measured, first, last)
  local found = {}
  for i = first, last do
    for name, value in pairs(measured[i]) do
      found[name] = math.min(found[name] or value, value)
    end
  end
  return found
end

local start, rounds, measured = os.time(), 0, {}
scheduler.run(function()
  for i = 1, MEASUREMENTS do
    repeat
      rounds = rounds + 1
      round(rounds)
    until os.time() >= start + SECONDS * i / MEASUREMENTS
    measured[i] = measure(start, rounds)
  end
end)
os.remove(INNER)

assert(errors_seen >= rounds, "errors were lost")
local before = least(measured, WARM_UP + 1, WARM_UP + 3)
local after = least(measured, MEASUREMENTS - 2, MEASUREMENTS)
for name, most in pairs(MOST) do
  assert(after[name] <= before[name] + most, ("%s: %.0f, then %.0f"):format(name, before[name], after[name]))
end
print("flat")
