-- Tiny jobs: 100,000 calls of an empty function in other VMs; microseconds each.
--   lua bench/jobs.lua PEER [COUNT]
--
--   map  the calls are one list, which the peer divides
--   run  each call is started alone; the first is waited for when all of them have been

local measurement = require("bench.measurement")
local timers = require("bench.timers")

local ROUNDS = 9

local name, count = ...
count = tonumber(count) or 100000

local function empty() end

--- For each peer the functions that do all calls, under the names of the measurements.
local peers = {}

function peers.scheduler()
  local parallel = require("scheduler").parallel
  local items, jobs = {}, timers.handles(count)
  for i = 1, count do
    items[i] = i
  end

  local function map()
    parallel.map(items, empty):expect()
  end

  local function run()
    local start = parallel.run
    for i = 1, count do
      jobs[i] = start(empty)
    end
    for i = 1, count do
      jobs[i]:expect()
      jobs[i] = false
    end
  end

  return { map = map, run = run }
end

function peers.luv()
  local luv = require("luv")
  local done = 0
  local work = luv.new_work(empty, function()
    done = done + 1
  end)
  return {
    run = function()
      done = 0
      for _ = 1, count do
        work:queue()
      end
      luv.run()
      assert(done == count, "jobs are missing")
    end,
  }
end

local peer = measurement.choose(peers, name)()
for _, kind in ipairs({ "map", "run" }) do
  local run = peer[kind]
  if run then measurement.report(kind, measurement.median_time(ROUNDS, run) / count * 1e6, "us") end
end
measurement.finish()
