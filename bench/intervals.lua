-- Interval precision: 100 intervals of 1 ms for 3 s.
--   lua bench/intervals.lua PEER [SECONDS]
--
--   fired               firings / (100 intervals * 1000 a second)
--   late_p50, late_p99  lateness in ms by the peer's own rule: scheduler keeps to the schedule `start + k * 1 ms`; the
--                       others count each period from the last firing, so that is when the next one is due
--   grid_p50, grid_p99  lateness in ms by the schedule `start + k * 1 ms`, whatever the peer's rule: the time since the
--                       last point of it. A tick that is missed altogether is not in it, but in `fired`
--   cpu                 CPU seconds that the process used meanwhile, all threads together

local clock = require("bench.clock")
local measurement = require("bench.measurement")

local INTERVALS, PERIOD = 100, 0.001

local name, duration = ...
duration = tonumber(duration) or 3

local now = clock.now
local starts, last = {}, {} -- by interval
local firings, grid, own = 0, {}, {} -- lateness of each firing, in seconds

local function fire(interval)
  local time = now()
  firings = firings + 1
  grid[firings] = (time - starts[interval]) % PERIOD
  own[firings] = time - last[interval] - PERIOD
  last[interval] = time
end

-- Made beforehand: what happens between two starts spreads the schedules, and so the wake-ups that they ask for.
local callbacks = {}
for interval = 1, INTERVALS do
  starts[interval], last[interval] = 0, 0
  callbacks[interval] = function()
    fire(interval)
  end
end

--- Starts every interval with `set(fn)`.
local function start_all(set)
  for interval = 1, INTERVALS do
    starts[interval] = now()
    set(callbacks[interval])
  end
  for interval = 1, INTERVALS do
    last[interval] = starts[interval]
  end
end

local peers = {}

function peers.scheduler()
  local scheduler = require("scheduler")
  start_all(function(fn)
    scheduler.setInterval(fn, PERIOD * 1000)
  end)
  scheduler.setTimeout(scheduler.stop, duration * 1000)
  scheduler.run()
end

function peers.luv()
  local luv = require("luv")
  local period = PERIOD * 1000
  local timers = {} -- one that is not referred to would be collected
  start_all(function(fn)
    local timer = luv.new_timer()
    timer:start(period, period, fn)
    timers[#timers + 1] = timer
  end)
  local stop = luv.new_timer()
  stop:start(duration * 1000, 0, luv.stop)
  luv.run()
end

--- An interval of cqueues and copas: a coroutine that sleeps again and again.
local function sleeping(sleep, fn)
  return function()
    while true do
      sleep(PERIOD)
      fn()
    end
  end
end

function peers.cqueues()
  local cqueues = require("cqueues")
  local controller, ends_at = cqueues.new(), now() + duration
  start_all(function(fn)
    controller:wrap(sleeping(cqueues.sleep, fn))
  end)
  while now() < ends_at do
    assert(controller:step())
  end
end

function peers.copas()
  local copas = require("copas")
  local sleep, ends_at = copas.pause or copas.sleep, now() + duration
  if not sleep then measurement.skip(copas._VERSION .. " has no timers") end
  start_all(function(fn)
    copas.addthread(sleeping(sleep, fn))
  end)
  while now() < ends_at do
    copas.step()
  end
end

local function report_percentiles(kind, samples)
  table.sort(samples)
  for _, p in ipairs({ 50, 99 }) do
    measurement.report(("%s_p%d"):format(kind, p), measurement.percentile(samples, p / 100) * 1000, "ms")
  end
end

local run = measurement.choose(peers, name)
local cpu_before = os.clock()
run()
local cpu = os.clock() - cpu_before

measurement.report("fired", firings / (INTERVALS * duration / PERIOD), "ratio")
report_percentiles("late", name == "scheduler" and grid or own)
report_percentiles("grid", grid)
measurement.report("cpu", cpu, "s")
measurement.finish()
