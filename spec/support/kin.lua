-- Jobs that send jobs, to any pool, in all the ways there are. Each has a seed, which says what it does and what it
-- comes to; so its parent knows, and fails if a child that it has not stopped comes to something else.

local scheduler = require("scheduler")
local inside = require("spec.support.inside")

local scope, task = scheduler.scope, scheduler.task

local kin = {}

--- Whether a job with this seed raises that, in the end; else it returns it.
local function raises(seed)
  return seed % 7 == 0
end

--- What was raised in the job in which an error began.
local function root_of(err)
  while type(err) == "table" and err.value ~= nil do
    err = err.value
  end
  return err
end

--- Raises unless a job came to what it had to.
function kin.check(given, ok, result, how)
  local came_to = result
  if not ok then came_to = root_of(result) end
  if came_to == given.seed and ok ~= raises(given.seed) then return end
  error(("%s, seed %d: %s"):format(how, given.seed, tostring(came_to)), 0)
end

-- What a job does itself.
local leaves = {
  function(given)
    given.mutex:with(task.wait, 0.0002)
  end,
  function(given)
    if given.mutex:lock(0.0005) == true then given.mutex:unlock() end
  end,
  function(given)
    task.spawn(given.mutex.with, given.mutex, task.wait, 0.0005)
  end,
  function(given)
    given.channel:send_timeout(0.0005, given.seed)
  end,
  function(given)
    given.channel:recv(0.0005)
  end,
  function(given)
    scheduler.select({ { given.channel, "recv" }, { given.channel, "send", given.seed }, timeout = 0.0005 })
  end,
  function()
    task.wait(0.0003)
  end,
  function()
    task.yield()
  end,
  function()
    local sum = 0
    for i = 1, 5000 do
      sum = sum + i
    end
    return sum
  end,
}

-- How a job has others done. Each takes a function that makes the argument of a child, and one that picks a pool and a
-- number, from 1 to what it is given.
local ways = {
  run = function(child, pick)
    local given = child()
    local ok, result = pick.pool():run(kin.work, given):await()
    kin.check(given, ok, result, "run")
  end,
  several = function(child, pick)
    local all, jobs = {}, {}
    for i = 1, pick.number(3) do
      all[i] = child()
      jobs[i] = pick.pool():run(kin.work, all[i])
    end
    for i, job in ipairs(jobs) do
      local ok, result = job:await()
      kin.check(all[i], ok, result, "several")
    end
  end,
  cancel = function(child, pick)
    local job = pick.pool():run(kin.work, child())
    if pick.number(2) == 1 then task.wait(pick.number(10) / 10000) end
    job:cancel()
  end,
  timeout = function(child, pick)
    local given = child()
    local ok, result = scheduler.pcall(scheduler.timeout, pick.number(20) / 10000, function()
      return pick.pool():run(kin.work, given):expect()
    end)
    if ok or result.kind ~= "timeout" then kin.check(given, ok, result, "timeout") end
  end,
  map = function(child, pick)
    local all = {}
    for i = 1, pick.number(4) do
      all[i] = child()
    end
    local options = { errors = "collect", chunk = pick.number(2) }
    local results, errors = pick.pool():map(all, kin.work, options):expect()
    for i, given in ipairs(all) do
      local err = errors and errors[i]
      kin.check(given, not err, err or results[i], "map")
    end
  end,
  map_half_way = function(child, pick)
    local all = { child(), child(), child() }
    local next_result = pick.pool():map(all, kin.work, { as_completed = true, errors = "collect", chunk = 1 })
    local i, result, err = next_result()
    kin.check(all[i], not err, err or result, "map_half_way")
  end,
  own_pool = function(child, pick)
    local pool = scheduler.parallel.pool({ size = pick.number(2), concurrency = pick.number(2) })
    local first, second = child(), child()
    local jobs = { pool:run(kin.work, first), pool:run(kin.work, second) }
    if pick.number(2) == 1 then return pool:close(0) end
    pool:close()
    for i, given in ipairs({ first, second }) do
      local ok, result = jobs[i]:await()
      kin.check(given, ok, result, "own_pool")
    end
  end,
  scope = function(child, pick)
    scheduler.pcall(scope, function(s)
      s:spawn(function()
        pick.pool():run(kin.work, child()):expect()
      end)
      task.wait(0.0005)
      if pick.number(2) == 1 then error("out of the scope") end
    end)
  end,
}

local names = {}
for name in pairs(ways) do
  names[#names + 1] = name
end
table.sort(names)

--- A generator of numbers of its own, as several jobs share the one of a worker.
local function generator(seed)
  local state = seed * 7919 % 2147483647
  return function(most)
    state = state * 16807 % 2147483647
    return state % most + 1
  end
end

--- The job.
function kin.work(given)
  -- Those that are left behind may fail, as their seeds say, with nobody to hear of it.
  scheduler.on_error(function() end)
  local number = generator(given.seed)
  local pick = { number = number }
  function pick.pool()
    return given.pools[number(#given.pools)]
  end
  local function child()
    local copy = {}
    for key, value in pairs(given) do
      copy[key] = value
    end
    copy.seed, copy.depth = number(1000000), given.depth - 1
    return copy
  end
  for _ = 1, number(3) do
    local around, leaf, way = inside[number(#inside)], leaves[number(#leaves)], ways[names[number(#names)]]
    local has_children = given.depth > 0 and number(2) == 1
    around(function()
      if has_children then return way(child, pick) end
      return leaf(given)
    end)
  end
  if raises(given.seed) then error(given.seed, 0) end
  return given.seed
end

return kin
