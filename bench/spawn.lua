-- Spawn: tasks that only add one to a counter are created, and run.
--   lua bench/spawn.lua PEER [COUNT]

local measurement = require("bench.measurement")

local name, count = ...
count = tonumber(count) or 1000000

local ran = 0
local function task()
  ran = ran + 1
end

--- For each peer `spawn(fn)`, and `run()`, which returns when all tasks have ended. Some tasks run within `spawn`.
local peers = {}

function peers.scheduler()
  local scheduler = require("scheduler")
  return { spawn = scheduler.task.spawn, run = scheduler.run }
end

function peers.cqueues()
  local cqueues = require("cqueues")
  local controller = cqueues.new()
  return {
    spawn = function(fn)
      controller:wrap(fn)
    end,
    run = function()
      assert(controller:loop())
    end,
  }
end

--- The loop of old versions never ends, and none of them needs one here.
function peers.copas()
  local copas = require("copas")
  return {
    spawn = copas.addthread,
    run = function()
      while ran < count do
        copas.step(0)
      end
    end,
  }
end

--- The limit: a coroutine, and nobody who keeps it.
function peers.raw()
  local create, resume = coroutine.create, coroutine.resume
  return {
    spawn = function(fn)
      resume(create(fn))
    end,
    run = function() end,
  }
end

local peer = measurement.choose(peers, name)()

local function spawn_and_run()
  local spawn = peer.spawn
  for _ = 1, count do
    spawn(task)
  end
  peer.run()
end

local seconds = measurement.time(spawn_and_run)
assert(ran == count, ("only %d of %d tasks have run"):format(ran, count))
measurement.report("spawn", count / seconds, "ops/s")
measurement.finish()
