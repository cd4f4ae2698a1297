-- `execute_tasks`: runs functions, at most so many at a time.

local check, errors, waiters, task, scope = ...

local format = string.format
local huge, sort = math.huge, table.sort
local ipairs, pairs, setmetatable, tostring, type = ipairs, pairs, setmetatable, tostring, type

local OPTIONS = { errors = "string", timeout = "number", progress = "function" }

--- Numbers first, then strings, each in ascending order; then the rest.
local RANKS = { number = 1, string = 2 }

local function comes_before(a, b)
  local rank_of_a, rank_of_b = RANKS[type(a)] or 3, RANKS[type(b)] or 3
  if rank_of_a ~= rank_of_b then return rank_of_a < rank_of_b end
  return rank_of_a < 3 and a < b
end

local function name_of(key)
  return type(key) == "string" and format("'%s'", key) or tostring(key)
end

--- The keys of the tasks, in order.
local function keys_of(tasks)
  if type(tasks) ~= "table" then check.bad_argument(1, "execute_tasks", "table", tasks) end
  local keys = {}
  for key, fn in pairs(tasks) do
    if not check.is_callable(fn) then
      local message = "bad argument #1 to 'execute_tasks' (function expected at key %s, got %s)"
      check.raise(format(message, name_of(key), type(fn)))
    end
    keys[#keys + 1] = key
  end
  sort(keys, comes_before)
  return keys
end

local function check_options(options)
  options = check.options(options, OPTIONS, 3, "execute_tasks")
  if options.errors and options.errors ~= "first" and options.errors ~= "collect" then
    check.raise("bad argument #3 to 'execute_tasks' (option 'errors' must be \"first\" or \"collect\")")
  end
  return options
end

--- A run of `execute_tasks`.
local Run = {}
Run.__index = Run

--- Notes the end of a task. False if it is for the scope to look at.
function Run:task_ended(co, result)
  local key = self.key_of[co]
  if key == nil then return false end
  self.key_of[co] = nil
  self.running, self.ended = self.running - 1, self.ended + 1
  if not result.failed and not result.cancelled then
    self.results[key] = result[1]
  elseif self.collects then
    -- A task that raised nil has failed as well.
    self.errors[key] = result.err == nil and errors.new("task", "the error is nil", { key = key }) or result.err
  elseif result.failed or not self.scope.is_closing then
    local message = format("task %s failed: %s", name_of(key), errors.describe(result.err))
    scope.fail(self.scope, errors.new("task", message, { key = key, value = result.err, traceback = result.traceback }))
  end
  waiters.wake_all(self.waiting)
  return true
end

--- Tells of the tasks that have ended since.
function Run:tell_progress()
  while self.progress and self.told < self.ended do
    self.told = self.told + 1
    self.progress(self.told, #self.keys)
  end
end

--- Waits until at most so many tasks are running.
function Run:wait_for(count)
  self:tell_progress()
  while self.running > count do
    waiters.wait(self.waiting)
    self:tell_progress()
  end
end

--- Starts the tasks in order, each as soon as there is room.
function Run:go(tasks, limit)
  for _, key in ipairs(self.keys) do
    self:wait_for(limit - 1)
    local co = scope.prepare(self.scope)
    self.key_of[co] = key
    self.running = self.running + 1
    task.start_watched(co, tasks[key])
  end
  self:wait_for(0)
end

local function new_run(keys, options)
  local self = setmetatable({
    keys = keys,
    key_of = {}, -- of the tasks that run, by their coroutines
    running = 0,
    ended = 0,
    told = 0,
    results = {},
    errors = {},
    collects = options.errors == "collect",
    progress = options.progress,
    waiting = waiters.new(nil, "the tasks of execute_tasks"),
    scope = scope.new("execute_tasks"),
  }, Run)
  self.waiting.children = self.key_of
  function self.scope.observe(co, result)
    return self:task_ended(co, result)
  end
  return self
end

return function(tasks, max_concurrency, options)
  local keys = keys_of(tasks)
  if max_concurrency ~= nil then check.count(max_concurrency, 1, 2, "execute_tasks") end
  options = check_options(options)
  local run = new_run(keys, options)
  scope.run_in(run.scope, options.timeout, run.go, run, tasks, max_concurrency or huge)
  if run.collects then return run.results, run.errors end
  return run.results
end
