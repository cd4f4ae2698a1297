-- Parallel: fib(27) for each of 64 items on all cores; the wall time, and the speed-up against the same calls one after
-- the other in one VM.
--   lua bench/parallel.lua PEER [ROUNDS [N]]
--
-- `raw` is the limit: a bare thread for each core, with an even share of the calls and nothing to distribute. The pools
-- of the others are started by a first, unmeasured round.

local clock = require("bench.clock")
local measurement = require("bench.measurement")

local JOBS = 64
local ROUNDS = jit and 9 or 3 -- without a compiler a round takes seconds

local name, rounds, n_of_fib = ...
local N = tonumber(n_of_fib) or 27

local function fib(n)
  if n < 2 then return n end
  return fib(n - 1) + fib(n - 2)
end

--- The same for the threads of luv, which take over no upvalues. The global is that of a thread's own VM: LuaJIT
--- compiles a function once, but would do so anew for each closure.
local function fib_alone(n)
  -- luacheck: globals fib_of_thread
  fib_of_thread = fib_of_thread or (function()
    local function self(k)
      if k < 2 then return k end
      return self(k - 1) + self(k - 2)
    end
    return self
  end)()
  return fib_of_thread(n)
end

local RESULT = JOBS * fib(N)

local function run_serially()
  local sum = 0
  for _ = 1, JOBS do
    sum = sum + fib(N)
  end
  return sum
end

--- For each peer a function that prepares it, and returns the one that runs all jobs and gives the sum of the results.
local peers = {}

function peers.scheduler()
  local scheduler = require("scheduler")
  local items = {}
  for i = 1, JOBS do
    items[i] = N
  end
  return function()
    local sum = 0
    for _, result in ipairs(scheduler.parallel.map(items, fib):expect()) do
      sum = sum + result
    end
    return sum
  end
end

function peers.luv()
  local luv = require("luv")
  local sum
  local work = luv.new_work(fib_alone, function(result)
    sum = sum + result
  end)
  return function()
    sum = 0
    for _ = 1, JOBS do
      work:queue(N)
    end
    luv.run()
    return sum
  end
end

function peers.raw()
  local luv = require("luv")
  local cores = #luv.cpu_info()

  local function run_share(code, n, first, step, jobs)
    local fn = (loadstring or load)(code)
    for _ = first, jobs, step do
      fn(n)
    end
  end

  return function()
    local threads = {}
    for i = 1, cores do
      threads[i] = luv.new_thread(run_share, string.dump(fib_alone), N, i, cores, JOBS)
    end
    for i = 1, cores do
      threads[i]:join()
    end
    return RESULT -- a thread has no way to give back its own
  end
end

--- The seconds that `fn` takes to get it right.
local function seconds(fn)
  local start = clock.now()
  assert(fn() == RESULT, "wrong results")
  return clock.now() - start
end

local run = measurement.choose(peers, name)()
run()

local speedups, walls = {}, {}
for round = 1, tonumber(rounds) or ROUNDS do
  local serial = seconds(run_serially)
  walls[round] = seconds(run)
  speedups[round] = serial / walls[round]
end

measurement.report("speedup", measurement.median(speedups), "x")
measurement.report("wall", measurement.median(walls) * 1000, "ms")
measurement.finish()
