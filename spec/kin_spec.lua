-- A job comes to what it has to, whatever happens to others: to those that sent it, that it sent, or that share its
-- worker. KIN_SEED=n begins with that seed, and KIN_SECONDS=n goes on for so long.

local scheduler = require("scheduler")
local kin = require("spec.support.kin")

local parallel, shared, task = scheduler.parallel, scheduler.shared, scheduler.task
local random = math.random

local first_seed = tonumber(os.getenv("KIN_SEED")) or os.time() % 1000000 * 100
local SECONDS = tonumber(os.getenv("KIN_SECONDS")) or 2
local LIMIT = 30 -- seconds; generous, as machines may be busy
local DEPTH = 3

local function make_pools()
  return {
    parallel.pool({ size = 2 }),
    parallel.pool({ size = 1 }),
    parallel.pool({ size = 2, queue = 3 }),
    parallel.pool({ size = 1, concurrency = 4 }),
    parallel.pool({ size = 2, concurrency = 2 }),
  }
end

--- Sends a job, cancels it perhaps, and notes in `faults` what it must not come to.
local function start_job(pools, given, faults)
  local is_cancelled = random(4) == 1
  return task.spawn(function()
    local job = pools[random(#pools)]:run(kin.work, given)
    if is_cancelled then
      -- It may fail meanwhile, with nobody to hear of it.
      job:catch(function() end)
      task.wait(random() * 0.004)
      job:cancel()
    end
    local ok, result = job:await()
    if is_cancelled and not ok and result.kind == "cancelled" then return end
    local is_right, fault = pcall(kin.check, given, ok, result, "first")
    if not is_right then faults[#faults + 1] = fault end
  end)
end

local function run(seed)
  local name = "KIN_SEED=" .. seed
  math.randomseed(seed)
  local pools, mutex, channel = make_pools(), shared.mutex(), scheduler.channel(random(3) - 1)
  local tasks, faults = {}, {}
  for i = 1, random(6) do
    local given = { seed = random(1000000), depth = DEPTH, pools = pools, mutex = mutex, channel = channel }
    tasks[i] = start_job(pools, given, faults)
  end
  scheduler.timeout(LIMIT, function()
    for _, co in ipairs(tasks) do
      task.join(co)
    end
    -- Jobs may have left others behind.
    for _, pool in ipairs(pools) do
      pool:close()
    end
  end)
  assert.are.same({}, faults, name)
  -- A job that was stopped may hold it for a moment longer.
  assert.is_true(mutex:lock(LIMIT), name)
  mutex:unlock()
end

describe("jobs that send jobs", function()
  it("come to what they have to, while others are cancelled, time out, fail and are closed", function()
    local deadline, seed = os.time() + SECONDS, first_seed
    repeat
      local ok, err = pcall(run, seed)
      assert.is_true(ok, "KIN_SEED=" .. seed .. ": " .. tostring(err))
      seed = seed + 1
    until os.time() >= deadline
  end)
end)
