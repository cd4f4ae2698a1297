-- Workers: a thread with a VM of its own starts, runs an empty job and has ended; microseconds each.
--   lua bench/workers.lua PEER [COUNT]

local measurement = require("bench.measurement")

local ROUNDS = 9

local name, count = ...
count = tonumber(count) or 50

local function empty() end

--- For each peer a function that starts one worker, and returns when it has ended.
local peers = {}

function peers.scheduler()
  local parallel = require("scheduler").parallel
  return function()
    local pool = parallel.pool({ size = 1 })
    pool:run(empty):expect()
    pool:close()
  end
end

function peers.luv()
  local luv = require("luv")
  return function()
    luv.new_thread(empty):join()
  end
end

local start = measurement.choose(peers, name)()
local seconds = measurement.median_time(ROUNDS, function()
  for _ = 1, count do
    start()
  end
end)
measurement.report("start", seconds / count * 1e6, "us")
measurement.finish()
