-- What is told when the loop has nothing left to do although tasks wait.

local looking, errors, wait, outcome, tasks = ...

local getmetatable, ipairs, pairs = getmetatable, ipairs, pairs
local setmetatable, type = setmetatable, type
local status = coroutine.status
local concat, format = table.concat, string.format
local token_of = wait.token_of

-- So many tasks are named.
local MOST_NAMED = 20

local deadlock = {}
local reported = setmetatable({}, { __mode = "k" }) -- the nodes of waits that were reported

--- The coroutine that works for a promise, or for the one that it takes its outcome from.
local function worker_of(promise)
  while promise and promise.source do
    promise = promise.source
  end
  return promise and promise.co
end

--- Adds to a list the coroutines that are to bring what a node waits for, as far as they are known.
local function add_bringers(list, node)
  local co = node.joins or worker_of(node.awaits)
  if type(co) == "thread" then list[#list + 1] = co end
  for child in pairs(node.list and node.list.children or {}) do
    list[#list + 1] = child
  end
end

--- Whether a wait is for others than the loop to end: one that has a limit has none that ever comes, and any other is
--- for a task that is parked in a yield of its own, or sleeps for ever, until somebody resumes it.
local function is_left_to_others(node)
  if node.timer then return true end
  local list, seen, at = {}, {}, 1
  add_bringers(list, node)
  while list[at] do
    local co = list[at]
    at = at + 1
    if not seen[co] then
      seen[co] = true
      local token = token_of(co)
      local is_waiting = type(token) == "table" and not token.timer
      if not is_waiting and status(co) == "suspended" then return true end
      if is_waiting then add_bringers(list, token) end
    end
  end
  return false
end

--- The nodes of the tasks that wait for what nothing brings any more, those left out that were reported.
local function find(except)
  local found = {}
  tasks.each_listed(function(node)
    local co = type(node) == "table" and getmetatable(node) == nil and node.co
    if type(co) ~= "thread" or reported[node] or token_of(co) ~= node then return end
    if co == except then
      reported[node] = true
    elseif status(co) == "suspended" and not is_left_to_others(node) then
      found[#found + 1] = node
    end
  end)
  return found
end

--- "a mutex, at main.lua:5".
function deadlock.describe_wait(co)
  local words = tasks.waits_for(token_of(co))
  local place = type(co) == "thread" and tasks.place(co)
  if not words then return nil end
  return place and words .. ", at " .. place or words
end

--- Reports the tasks that can never go on, once for each wait; returns whether there are any. `except` is told of
--- elsewhere.
function deadlock.report(except)
  -- A timer may wake them that does not keep the loop, or whose clock is paused.
  if looking.has_deadline() then return false end
  local nodes = find(except)
  if #nodes == 0 then return false end
  local how_many = #nodes == 1 and "a task waits" or #nodes .. " tasks wait"
  local lines, list = { format("deadlock: %s for what nothing can bring any more", how_many) }, {}
  for i, node in ipairs(nodes) do
    reported[node], list[i] = true, node.co
    if i <= MOST_NAMED then
      lines[#lines + 1] = format("  %s waits for %s", outcome.describe(node.co), deadlock.describe_wait(node.co))
    end
  end
  if #nodes > MOST_NAMED then lines[#lines + 1] = format("  and %d more", #nodes - MOST_NAMED) end
  errors.report(errors.new("deadlock", concat(lines, "\n"), { tasks = list }), "", "run")
  return true
end

return deadlock
