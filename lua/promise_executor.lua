-- The code that works for promises: executors, and functions that return a promise of what they return.
--
-- Handlers run in the recycled coroutine of all callbacks, executors in one of their own kind. If one waits, the
-- coroutine is its own from then on, as with callbacks. No `pcall` is needed, so they may wait in Lua 5.1 too: what is
-- raised ends the coroutine, and whoever resumed it rejects the promise.

local native, compat, check, errors, wait, outcome, loop, task, promise = ...

local type = type
local create, resume, status_of, yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local running = compat.running
local new, resolve, reject, cancel = promise.new, promise.resolve, promise.reject, promise.cancel
local describe, on_cancel = promise.describe, promise.on_cancel
local STARTED, CANCELLED = promise.STARTED, promise.CANCELLED
local unaware = wait.unaware

--- Takes what was raised by the code that works for a promise.
local function failed(node, err, traceback, co)
  local self = node.owner or node
  if node.owner then
    -- A thenable that has answered may raise what it likes.
    if node.has_answered then return end
    node.has_answered = true
  elseif self.status ~= STARTED or self.is_locked then
    -- Who has cancelled it wants no outcome. Code that was told and fails then has a fault of its own.
    if self.status == CANCELLED and unaware[co] then return end
    return errors.report(err, traceback, "the rest of " .. describe(self))
  end
  self.traceback = traceback
  if self.source and self.source.is_of_report then self.is_of_report = true end
  return reject(self, err)
end

--- Notes that the code which works for a promise waits, in a coroutine that is its own from now on.
local function waits(node, co)
  local self = node.owner or node
  self.co = co
  local origin = self.origin
  outcome.origins[co] = type(origin) == "number" and native.promise_origin(origin) or describe(self)
  outcome.watch(co).on_end = function(_, result)
    local is_at_work = self.co == co and not self.is_locked
    if self.co == co then self.co = nil end
    -- Other code has resumed it to its end, where it has done what it was to do.
    if result.is_lost and not is_at_work then return end
    if result.failed then return failed(node, result.err, result.traceback, co) end
    if result.cancelled then return cancel(self, result.err.reason) end
  end
  if self.status == CANCELLED then task.interrupt(co, self.value) end
end

local function ended_in_error(node, co, err)
  local traceback, has_other, other = outcome.traceback_of(co, err)
  failed(node, err, traceback, co)
  if has_other then errors.report(other, "", "the clean-up of " .. describe(node.owner or node)) end
end

loop.reaction_waits, loop.reaction_failed = waits, ended_in_error

-- The coroutine that executors and asynchronous functions run in: it is used again if they have not waited, as the
-- runner of loop.lua is. `active` is the one in use.
local idle, active

local function START() end
local function DONE() end

--- Runs what the starter was resumed with; a program may have kept the coroutine and resume it by hand: to no effect.
local function go(what, self, run, ...)
  if what ~= START then return false end
  run(self, ...)
  return true
end

local function starter()
  local me = running()
  repeat
    while not go(yield(DONE)) do
    end
  until active ~= me
end

function loop.drop_idle_starter()
  idle = nil
end

--- A starter that waits for what it is to run. What that is given must not stay in the frame of its first function.
local function new_starter()
  local co = create(starter)
  resume(co)
  return co
end

local function after_start(self, outer, co, ok, what)
  active = outer
  if not ok then
    ended_in_error(self, co, what)
  elseif what == DONE then
    idle = co
  elseif status_of(co) ~= "dead" then
    waits(self, co)
  end
  return self
end

--- Runs `run(self, ...)` at once, until it waits; returns `self`.
local function start(self, run, ...)
  local co, outer = idle or new_starter(), active
  idle, active = nil, co
  return after_start(self, outer, co, resume(co, START, self, run, ...))
end

promise.start = start

--- For `start`: resolves a promise with what a function returns.
function promise.call(self, fn, ...)
  return resolve(self, fn(...))
end

--- A function that calls `fn` and returns a promise of what that returns. `name` is that of the caller, for errors.
function promise.async(fn, name)
  if type(fn) ~= "function" then check.callable(fn, 1, name) end
  return function(...)
    return start(new(native.origin()), promise.call, fn, ...)
  end
end

--- For `start`: runs the function of `Promise.new`.
function promise.execute(self, executor)
  executor(function(...)
    if not self.is_locked then return resolve(self, ...) end
  end, function(...)
    if not self.is_locked then return reject(self, ...) end
  end, function(hook)
    if hook ~= nil then check.callable(hook, 1, "onCancel") end
    if hook == nil then return self.status == CANCELLED end
    return on_cancel(self, hook)
  end)
  -- It has ended, whoever has resumed it last.
  self.co = nil
end
