-- Scopes: tasks that are started together end together. The rules are those of trio's nurseries.
--
-- The function of a scope runs in a task of its own, the first child: so that an error in it can be told to the others
-- also where Lua cannot yield inside of `pcall`.

local check, errors, wait, outcome, waiters, timer, task, awaitable = ...

local format = string.format
local error, ipairs, pairs = error, ipairs, pairs
local rawequal, rawset, setmetatable, type = rawequal, rawset, setmetatable, type
local sort = table.sort

local scope = {}

-- `observe(co, outcome)`, if there is one, is told of the end of each child, and returns whether its error is not the
-- scope's.
local Scope = { __name = "scheduler.scope", __transfer = "a scope" }
Scope.__index = Scope

function Scope:__tostring()
  return self.label
end

--- Attaches an error that came later to the first one, which is what is raised.
local function attach(first, later)
  if type(first) == "string" then return first .. "\nand later: " .. errors.describe(later) end
  if type(first) ~= "table" then
    errors.report(later, "", "a scope that had failed already")
    return first
  end
  local list = first.later or {}
  list[#list + 1] = later
  rawset(first, "later", list)
  return first
end

--- Makes every wait of every child raise.
local function stop(self, reason)
  if self.is_closing then return end
  self.is_closing = true
  local err = errors.new("cancelled", self.label .. " was cancelled", { reason = reason })
  local children = {}
  for co in pairs(self.children) do
    children[#children + 1] = co
  end
  sort(children, function(a, b)
    return self.children[a] < self.children[b]
  end)
  for _, co in ipairs(children) do
    if self.children[co] then task.interrupt(co, err) end
  end
end

--- Notes the error of a child; the first one cancels the others.
local function fail(self, err)
  if self.has_failed then
    -- One who has joined the child that failed has the same error.
    if not rawequal(err, self.first_failure) then self.failure = attach(self.failure, err) end
    return
  end
  self.has_failed, self.first_failure, self.failure = true, err, err
  stop(self, "a sibling failed")
end

scope.fail = fail

--- Makes a child that is to be started.
local function prepare(self)
  local co = task.new_watched(self.on_end)
  self.prepared, self.count = self.prepared + 1, self.count + 1
  self.children[co] = self.prepared
  return co
end

scope.prepare = prepare

local function child_ended(self, co, result)
  self.children[co] = nil
  self.count = self.count - 1
  if result.cancelled then self.was_cut = true end
  local is_noted = self.observe and self.observe(co, result)
  if result.failed and not is_noted then fail(self, result.err) end
  if self.count > 0 then return end
  self.is_closing = true
  waiters.finish(self.joiners)
  if self.is_abandoned and self.has_failed then errors.report(self.failure, "", self.label) end
end

--- Cancels the children; the scope then ends without an error.
function Scope:cancel(reason)
  check.self(self, Scope, "cancel")
  stop(self, reason)
end

--- Starts a child, as `task.spawn` does; returns its coroutine.
function Scope:spawn(f, ...)
  if type(f) ~= "function" then
    check.self(self, Scope, "spawn")
    check.callable(f, 1, "spawn")
  end
  if self.is_closing then check.raise("cannot spawn: " .. self.label .. " is closing") end
  return task.start_watched(prepare(self), f, ...)
end

--- Makes something that can be awaited a child, a promise say: it is waited for, its error is the scope's, and it is
--- cancelled with the scope, unless others want it. Returns it.
function Scope:hold(thing)
  check.self(self, Scope, "hold")
  local promise = awaitable().from(thing)
  if not promise then check.bad_argument(1, "hold", "something to await", thing) end
  self:spawn(promise.expect, promise)
  return thing
end

local function new(label)
  local self = setmetatable({
    label = label,
    children = {}, -- the number of each, by its coroutine
    count = 0,
    prepared = 0,
    joiners = waiters.new(nil, "the tasks of " .. label),
    is_closing = false,
  }, Scope)
  self.joiners.children = self.children
  function self.on_end(co, result)
    child_ended(self, co, result)
  end
  return self
end

--- Waits for all children. If the task that waits is cancelled meanwhile, so are they.
local function join(self)
  local interruption
  if self.count > 0 then
    interruption = waiters.wait_through(self.joiners, function(err)
      stop(self, err.reason)
    end)
  end
  self.is_closing = true
  return interruption
end

local function stop_after(self, seconds)
  return timer.setTimeout(function()
    self.has_timed_out = not self.is_closing
    stop(self, "timeout")
  end, seconds * 1000)
end

--- What a scope returns or raises that has ended.
local function result_of(self, seconds, first, interruption)
  if self.has_failed then error(self.failure, 0) end
  if interruption ~= nil then error(interruption, 0) end
  if self.has_timed_out and self.was_cut then
    error(errors.new("timeout", format("%s timed out after %g s", self.label, seconds)), 0)
  end
  local result = outcome.of(first)
  if result and not result.cancelled then return outcome.unwrap(result) end
end

--- Runs `fn(...)` as the first child of a scope and waits for all. Returns what the function returned.
local function run(self, seconds, fn, ...)
  wait.current()
  local owner = task.current()
  local id = seconds and stop_after(self, seconds)
  local function clean_up()
    if id then timer.clearTimeout(id) end
    self.is_abandoned = true
    stop(self, "the task of the scope was cancelled")
  end
  task.push_clean_up(owner, clean_up)
  local first = task.start_watched(prepare(self), fn, ...)
  local interruption = join(self)
  task.pop_clean_up(owner, clean_up)
  if id then timer.clearTimeout(id) end
  return result_of(self, seconds, first, interruption)
end

scope.new, scope.run_in = new, run

local OPTIONS = { name = "string", timeout = "number" }

function scope.run(fn, options)
  check.callable(fn, 1, "scope")
  options = check.options(options, OPTIONS, 2, "scope")
  local self = new(options.name and "scope '" .. options.name .. "'" or "the scope")
  return run(self, options.timeout, fn, self)
end

function scope.timeout(seconds, fn, ...)
  check.number(seconds, 1, "timeout")
  check.callable(fn, 2, "timeout")
  return run(new("the call"), seconds, fn, ...)
end

--- Runs `fn(...)` in a task of its own that no scope cancels, and waits for it in spite of any cancellation.
function scope.shield(fn, ...)
  check.callable(fn, 1, "shield")
  wait.current("shielded")
  local owner, joiners = task.current(), waiters.new(nil, "a shielded call")
  local has_ended, is_abandoned = false, false
  local co = task.new_watched(function(_, result)
    has_ended = true
    waiters.finish(joiners)
    if is_abandoned and result.failed then errors.report(result.err, result.traceback, "a shielded call") end
  end)
  joiners.children = { [co] = true }
  local function clean_up()
    is_abandoned = true
  end
  task.push_clean_up(owner, clean_up)
  task.start_watched(co, fn, ...)
  if not has_ended then waiters.wait_through(joiners) end
  task.pop_clean_up(owner, clean_up)
  return outcome.unwrap(outcome.of(co))
end

return scope
