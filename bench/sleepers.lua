-- Sleepers: a million coroutines, each of which sleeps once, for 0 to 999 ms.
--   lua bench/sleepers.lua PEER [COUNT]
--
--   wall   seconds from the first coroutine's creation to the last one's end
--   bytes  resident memory that each takes while all of them sleep
--
-- Both come from the same run, so that neither is bought with the other: what the collector has not got round to by
-- then, in the time that it was given, counts as memory, and its work counts as time. To read the memory takes some
-- microseconds.

local measurement = require("bench.measurement")
local timers = require("bench.timers")

local MILLION = 1000000
local LONGEST = 0.999 -- seconds that the last ones sleep

local name, count = ...
count = tonumber(count)

local function nothing_to_settle() end

--- For each peer
---
---   count           how many sleep by default; fewer where a million may take minutes
---   spawn(fn)       starts a coroutine
---   sleep(seconds)  for within
---   settle()        brings all of them to sleep, where starting alone does not
---   run()           returns when the last one has ended
local peers = {}

function peers.scheduler()
  local scheduler = require("scheduler")
  return {
    count = MILLION,
    spawn = scheduler.task.spawn,
    sleep = scheduler.task.wait,
    settle = nothing_to_settle,
    run = scheduler.run,
  }
end

--- luv has no sleep for coroutines; it is a timer that resumes. Its delay counts from the time that the loop has read
--- last, and the loop does not run yet: without `update_time` all would sleep too short.
function peers.luv()
  local luv = require("luv")
  local create, resume, running, yield = coroutine.create, coroutine.resume, coroutine.running, coroutine.yield
  local new_timer, start, close, update_time = luv.new_timer, luv.timer_start, luv.close, luv.update_time
  local peer = { count = MILLION, settle = nothing_to_settle, run = luv.run }

  function peer.spawn(fn)
    assert(resume(create(fn)))
  end

  function peer.sleep(seconds)
    local co, timer = running(), new_timer()
    update_time()
    start(timer, seconds * 1000, 0, function()
      close(timer)
      assert(resume(co))
    end)
    yield()
  end

  return peer
end

--- A coroutine starts in the controller's next step. The first one starts all before it looks at a deadline.
function peers.cqueues()
  local cqueues = require("cqueues")
  local controller = cqueues.new()
  return {
    count = MILLION,
    spawn = function(fn)
      controller:wrap(fn)
    end,
    sleep = cqueues.sleep,
    settle = function()
      assert(controller:step(0))
    end,
    run = function()
      assert(controller:loop())
    end,
  }
end

function peers.copas()
  local copas = require("copas")
  local sleep = copas.pause or copas.sleep
  if not sleep then measurement.skip(copas._VERSION .. " has nothing that sleeps") end
  return {
    count = 100000,
    spawn = copas.addthread,
    sleep = sleep,
    settle = function()
      copas.step(0)
    end,
    run = copas.loop,
  }
end

--- The limit: the same coroutines, suspended and left alone. What keeps them is there beforehand, and not counted.
function peers.raw()
  local create, resume = coroutine.create, coroutine.resume
  local kept, length = timers.handles(count or MILLION), 0

  local function spawn(fn)
    local co = create(fn)
    length = length + 1
    kept[length] = co
    assert(resume(co))
  end

  return { count = MILLION, spawn = spawn, sleep = coroutine.yield, settle = nothing_to_settle }
end

local peer = measurement.choose(peers, name)()
count = count or peer.count

local awake = 0
local before, asleep -- bytes of the process

local function fall_asleep()
  local spawn, sleep = peer.spawn, peer.sleep
  for i = 1, count do
    local seconds = i % 1000 * 7919 % 1000 / 1000
    spawn(function()
      sleep(seconds)
      awake = awake + 1
    end)
  end
  peer.settle()
end

local function sleep_and_wake()
  before = measurement.resident()
  fall_asleep()
  asleep = awake == 0 and measurement.resident() -- with one awake already, it is not the memory of all
  if not peer.run then return end
  peer.run()
  assert(awake == count, ("only %d of %d have woken up"):format(awake, count))
end

--- The wall time for a million: the sleep takes as long as for fewer, and the work beyond it is proportional.
local function for_a_million(seconds)
  local sleep = peer.run and LONGEST or 0
  return sleep + (seconds - sleep) * MILLION / count
end

local seconds = measurement.time(sleep_and_wake)
measurement.report("wall", for_a_million(seconds), "s")
if asleep then measurement.report("bytes", (asleep - before) / count, "B") end
measurement.finish()
