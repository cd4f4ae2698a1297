-- Idle workers: the CPU time of the process, all its threads included, in 3 s in which nothing happens.
--   lua bench/idle.lua PEER [SECONDS]

local measurement = require("bench.measurement")

local JOBS = 64

local name, duration = ...
duration = tonumber(duration) or 3

local function empty() end

local kept -- what would be collected otherwise

--- For each peer a function that has its workers run jobs, and returns one that waits for so many seconds.
local peers = {}

--- A task and a job wait for messages that never come, each of another channel.
function peers.scheduler()
  local scheduler = require("scheduler")
  local jobs = {}
  for i = 1, JOBS do
    jobs[i] = scheduler.parallel.run(empty)
  end
  for i = 1, JOBS do
    jobs[i]:expect()
  end
  local received, of_job = scheduler.channel(1), scheduler.channel(1)
  scheduler.parallel.run(function()
    received:send("the job has started")
    of_job:recv()
  end)
  assert(received:recv())
  scheduler.task.spawn(function()
    received:recv()
  end)
  kept = { received, of_job }
  return scheduler.task.wait
end

function peers.luv()
  local luv = require("luv")
  local work = luv.new_work(empty, empty)
  for _ = 1, JOBS do
    work:queue()
  end
  luv.run()
  return function(seconds)
    kept = luv.new_timer()
    kept:start(seconds * 1000, 0, luv.stop)
    luv.run()
  end
end

local wait = measurement.choose(peers, name)()
local before = os.clock()
wait(duration)
measurement.report("cpu", (os.clock() - before) * 1000, "ms")
measurement.finish()
