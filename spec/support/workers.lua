-- Runs a function in several workers at once.

local scheduler = require("scheduler")

local workers = {}

--- Runs `fn(...)` as so many jobs at once; returns their promises.
function workers.start(count, fn, ...)
  local jobs = {}
  for i = 1, count do
    jobs[i] = scheduler.parallel.run(fn, ...)
  end
  return jobs
end

--- Runs `fn(...)` as so many jobs at once; returns a list of the first result of each.
function workers.run(count, fn, ...)
  return scheduler.await(scheduler.Promise.all(workers.start(count, fn, ...)))
end

-- How many of the jobs of `collect` have begun. Made once, so that it does not count as something new.
local begun = scheduler.shared.atomic(0)

--- Lets those workers end that stood in for others; returns how many are left.
local function settle()
  local before
  repeat
    before = scheduler.stats().workers
    workers.run(2 * before, function() end)
  until scheduler.stats().workers == before
  return before
end

--- Frees what workers still have of earlier jobs: collects in each of them. Each job waits for the others, so no worker
--- runs two.
function workers.collect()
  local count = settle()
  local all = begun:get() + count
  workers.run(count, function()
    local inner = require("scheduler")
    begun:add(1)
    local deadline = os.time() + 10
    while begun:get() < all and os.time() < deadline do
      inner.task.wait(0.001)
    end
    -- Compiled code may refer to what it was compiled for.
    if jit then jit.flush() end
    for _ = 1, 3 do
      collectgarbage()
    end
  end)
end

return workers
