-- Random pools and jobs, with all that may happen to them: for specs that look at what is left of them afterwards, and
-- for programs that end in the midst of it.

local scheduler = require("scheduler")

local task, parallel = scheduler.task, scheduler.parallel
local random = math.random

local MOST_POOLS = 3
local MEMORY = 8 * 2 ^ 20

local activity = {}

-- Jobs --------------------------------------------------------------------------------------------------------------

-- Each takes a pool for jobs of its own, a channel and a number. They run in workers, so that they refer to nothing.
local JOBS = {
  compute = function(_, _, n)
    if jit then jit.off() jit.flush() end
    local sum = 0
    for i = 1, n * 1000 do
      sum = sum + i % 7
    end
    return sum
  end,
  wait = function(_, _, n)
    return require("scheduler").task.wait(n / 2000)
  end,
  fail = function(_, _, n)
    local values = { false, 7, "text", { "table" }, function() end, coroutine.create(function() end), io.stdout }
    error(values[n], n % 2)
  end,
  fail_late = function(_, _, n)
    require("scheduler").task.wait(n / 4000)
    error({ late = n })
  end,
  keep = function(_, _, n)
    return { n, nil, { n } }, function() return n end
  end,
  refuse = function()
    return io.stdout
  end,
  catch = function(_, _, n)
    local inner = require("scheduler")
    for _ = 1, n do
      inner.pcall(inner.task.wait, 0.001)
    end
  end,
  nest = function(pool, _, n)
    local inner = require("scheduler")
    local jobs = {}
    for i = 1, 3 do
      jobs[i] = pool:run(function()
        if i == 2 then require("scheduler").task.wait(0.001) end
        return i
      end)
    end
    if n == 1 then return "left" end
    return inner.await(inner.Promise.all(jobs))
  end,
  map = function(_, _, n)
    local list = {}
    for i = 1, 10 * n do
      list[i] = i
    end
    return #require("scheduler").await(require("scheduler").parallel.map(list, function(i)
      return i
    end))
  end,
  send = function(_, channel, n)
    for i = 1, n do
      channel:send_timeout(0.005, { i })
    end
  end,
  receive = function(_, channel, n)
    for _ = 1, n do
      channel:recv(0.005)
    end
  end,
  promise = function(_, _, n)
    local inner = require("scheduler")
    return inner.Promise.delay(n / 4000):andThen(function()
      if n == 3 then error("late") end
      return n
    end)
  end,
  leave = function(_, channel, n)
    local inner = require("scheduler")
    inner.on_error(function() end)
    for i = 1, n do
      inner.task.spawn(function()
        channel:recv()
      end)
      inner.task.delay(i / 1000, error, "left")
      inner.setInterval(function() end, 1)
      inner.parallel.run(function() end)
    end
  end,
}

-- What never ends by itself.
local ENDLESS = {
  function()
    if jit then jit.off() jit.flush() end
    while true do
    end
  end,
  function()
    if jit then jit.off() jit.flush() end
    while true do
      pcall(error, "again")
    end
  end,
  function()
    require("scheduler").task.wait(1000)
  end,
  function()
    require("scheduler").channel():recv(1000)
  end,
}

local HUNGRY = {
  function()
    local list = {}
    for i = 1, 1e9 do
      list[i] = { i }
    end
    return list
  end,
  function()
    return #("x"):rep(2 ^ 26)
  end,
}

local NAMES = {}
for name in pairs(JOBS) do
  NAMES[#NAMES + 1] = name
end
table.sort(NAMES)

-- Activities --------------------------------------------------------------------------------------------------------

local function pick(...)
  return (select(random(select("#", ...)), ...))
end

local Activity = {}
Activity.__index = Activity

function activity.new(seed)
  math.randomseed(seed)
  return setmetatable({
    pools = {},
    closed = {},
    jobs = {},
    tasks = {},
    channel = scheduler.channel(pick(0, 1, 4)),
    faults = {},
    is_over = false,
  }, Activity)
end

--- Notes an error that comes from within the module.
function Activity:note(err)
  local text = type(err) == "table" and tostring(err.message) or tostring(err)
  if text:find("%[scheduler%]/[%w_]+%.lua:%d+: ") or text:find("attempt to", 1, true) or text:find("panick") then
    self.faults[#self.faults + 1] = text
  end
end

function Activity:new_pool()
  local memory_limit = pick(nil, MEMORY)
  local entry = {
    pool = parallel.pool({
      size = random(3),
      queue = pick(math.huge, math.huge, 0, 1, 5),
      concurrency = pick(1, 1, 3),
      idle = pick(10, 10, 0, 0.003),
      memory_limit = memory_limit,
      init = pick(nil, nil, function() package.loaded.state = {} end),
    }),
    is_limited = memory_limit ~= nil,
    sent = 0,
    nests = false,
    has_endless = false,
  }
  self.pools[#self.pools + 1] = entry
  return entry
end

--- Sends a job, which may have to wait for room.
function Activity:send(entry)
  local fn, name
  local kind = random(20)
  if kind <= 2 then
    fn = ENDLESS[random(#ENDLESS)]
    entry.has_endless = true
  elseif kind == 3 and entry.is_limited then
    fn = HUNGRY[random(#HUNGRY)]
  else
    name = NAMES[random(#NAMES)]
    fn = JOBS[name]
  end
  if name == "nest" then entry.nests = true end
  local ok, job = scheduler.pcall(entry.pool.run, entry.pool, fn, entry.pool, self.channel, random(7))
  if not ok then return self:note(job) end
  entry.sent = entry.sent + 1
  return job
end

function Activity:map(entry)
  local count = random(40)
  local list, i = {}, 0
  for n = 1, count do
    list[n] = n
  end
  local function iterate()
    i = i + 1
    if i == 30 then error("iterator") end
    if i % 10 == 0 then task.wait(0.001) end
    return list[i]
  end
  entry.nests = true -- it sends as many as it likes
  local ok, job = scheduler.pcall(entry.pool.map, entry.pool, pick(list, iterate), function(n)
    if n == 20 then error("item") end
    if n % 9 == 0 then require("scheduler").task.wait(0.001) end
    return n
  end, { errors = pick("first", "collect"), chunk = pick(nil, 1, 4), progress = pick(nil, function() end) })
  if not ok then return self:note(job) end
  return job
end

--- Takes a pool out of those in use.
function Activity:drop(entry)
  for i, other in ipairs(self.pools) do
    if other == entry then table.remove(self.pools, i) end
  end
end

function Activity:close(entry)
  self:drop(entry)
  if not entry.has_endless and random(3) == 1 then
    -- It is collected.
    return
  end
  self.closed[#self.closed + 1] = entry
  local seconds = pick(0, 0, 0.002, nil)
  if seconds == nil and entry.has_endless then seconds = 0.002 end
  local ok, err = scheduler.pcall(entry.pool.close, entry.pool, seconds)
  if not ok then self:note(err) end
end

--- One step of a task.
function Activity:step()
  local entry = #self.pools < MOST_POOLS and random(4) == 1 and self:new_pool() or self.pools[random(#self.pools)]
  entry = entry or self:new_pool()
  local what = random(16)
  if what == 1 then return self:close(entry) end
  if what == 2 then return collectgarbage() end
  local job = what <= 4 and self:map(entry) or self:send(entry)
  if not job then return end
  -- Some are left to the collector.
  if entry.has_endless or random(4) > 1 then self.jobs[#self.jobs + 1] = job end
  local how = random(6)
  if how == 1 then
    job:cancel()
  elseif how == 2 then
    task.wait(random(0, 3) / 1000)
    job:cancel()
  elseif how == 3 then
    local ok, err = scheduler.pcall(scheduler.await, job:timeout(random(5) / 1000))
    if not ok then self:note(err) end
  elseif how == 4 then
    local ok, err = scheduler.pcall(scheduler.timeout, random(5) / 1000, scheduler.await, job)
    if not ok then self:note(err) end
  end
end

--- Starts tasks that send jobs, and things to happen to these tasks.
function Activity:start(count)
  for i = 1, count do
    self.tasks[i] = task.spawn(function()
      while not self.is_over do
        self:step()
        task.wait(random(0, 2) / 1000)
      end
    end)
  end
end

--- Ends it: cancels what goes on. Returns the entries of its pools.
function Activity:finish()
  self.is_over = true
  for _, co in ipairs(self.tasks) do
    pcall(task.cancel, co)
  end
  for _, job in ipairs(self.jobs) do
    job:cancel()
  end
  local entries = self.closed
  for _, entry in ipairs(self.pools) do
    entries[#entries + 1] = entry
  end
  for _, entry in ipairs(entries) do
    entry.pool:close(0)
  end
  return entries
end

return activity
