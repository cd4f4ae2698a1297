-- Promises: timing and adoption as in Promises/A+, names and cancellation as in evaera's Promise library for Roblox.
--
-- A promise is a table:
--
--   status                 STARTED until it is settled
--   value, values          what it was settled with: the first value, and all with their count `n` unless it is one
--   source                 the promise that it takes its outcome from, as long as it is not settled itself
--   react                  what it does when the source is settled; the microtask is the promise itself
--   first, last            its consumers in order, linked by `before` and `after`: what has it as source. If there is
--                          only one, `last` is nil
--   waiting                the list of coroutines that wait for it
--   is_locked              it was resolved, be it with a promise that is pending; what comes later is ignored
--   is_handled             it was rejected, and somebody has asked for it since, or it was reported
--   co                     the coroutine that works for it and has waited; or the number of its job
--   hooks                  what is to be called when it is cancelled
--   origin                 where it was made, or the one that its outcome comes from: as origins of tasks
--
-- Fields that most promises do without are nil until they are needed: a table grows in powers of two, and eight fields
-- are to be enough for a promise with a handler.
--
-- A consumer is a promise, or an observer: a table with `source`, `react` and links, but without a status.
--
-- What calls the program's functions adds to this part: promise_executor.lua and promise_handler.lua.

local native, compat, check, errors, wait, outcome, waiters, loop, task, Error = ...

local getmetatable, ipairs, pcall = getmetatable, ipairs, pcall
local rawequal, select, setmetatable, type = rawequal, select, setmetatable, type
local match, remove = string.match, table.remove
local pack, unpack = compat.pack, compat.unpack
local queue_microtask = loop.queue_microtask
local WAKE = wait.WAKE

local STARTED, RESOLVED, REJECTED, CANCELLED = "Started", "Resolved", "Rejected", "Cancelled"
local NONE = { n = 0 } -- values, of a promise that was settled with none

local Promise = { __name = "scheduler.promise" }
Promise.__index = Promise

local promise = {
  STARTED = STARTED,
  RESOLVED = RESOLVED,
  REJECTED = REJECTED,
  CANCELLED = CANCELLED,
  --- The methods of promises.
  prototype = Promise,
}

loop.promise_class = Promise

-- Rejected promises that nobody handles, of the last turn and of the running one.
local overdue, unhandled = {}, {}
local rejection_hooks = {}
-- Whether one is being reported. What the program rejects meanwhile, or makes that is rejected later, is not to be told
-- to the same functions again: that might go on for ever.
local is_reporting = false

local take, cancel, resolve

-- Consumers -----------------------------------------------------------------------------------------------------------

--- A promise that nothing settles yet; `job` is the number of the job that will.
local function new(origin, job)
  local self = setmetatable({ status = STARTED, origin = origin, value = nil, first = nil, co = job }, Promise)
  if is_reporting then self.is_of_report = true end
  return self
end

promise.new = new

--- Makes `node` a consumer of `source`: `node:react(source)` runs as a microtask once that is settled.
local function consume(source, node)
  node.source = source
  local status = source.status
  if status ~= STARTED then
    if status == REJECTED then source.is_handled = true end
    return queue_microtask(node)
  end
  local first = source.first
  if not first then
    source.first = node
    return
  end
  local last = source.last or first
  last.after, node.before, source.last = node, last, node
end

--- Whether somebody would miss the outcome of a promise. A promise that `finally` made misses it only if somebody would
--- miss its own.
local function is_wanted(self)
  local at = self
  while true do
    if at.waiting and waiters.is_any(at.waiting) then return true end
    local node = at.first
    -- There may be many of `finally`, one made from the other: this goes back up by itself.
    while not node do
      if at == self then return false end
      node, at = at.after, at.source
    end
    if not node.is_final then return true end
    at = node
  end
end

--- Takes a consumer out of those of its source.
local function leave(node)
  local source, before, after = node.source, node.before, node.after
  node.source = nil
  if source.status ~= STARTED then return end
  node.before, node.after = nil, nil
  if before then before.after = after else source.first = after end
  if after then after.before = before else source.last = before ~= source.first and before or nil end
end

promise.consume = consume

--- Takes a consumer back; a promise that nobody is left to want is cancelled.
function promise.release(node, reason)
  local source = node.source
  if not source then return end
  leave(node)
  if source.status == STARTED and not is_wanted(source) then cancel(source, reason) end
end

-- Settling ------------------------------------------------------------------------------------------------------------

--- Queues the consumers of a promise that was settled, and wakes those that wait for it.
local function tell(self)
  local node, waiting = self.first, self.waiting
  if node then
    self.first = nil
    if self.last then self.last = nil end
    repeat
      local after = node.after
      if after then node.after, after.before = nil, nil end
      queue_microtask(node)
      node = after
    until not node
  end
  if self.co then self.co = nil end
  if self.hooks then self.hooks = nil end
  if waiting then waiters.wake_all(waiting) end
end

local function values_of(self)
  local values = self.values
  if values then return unpack(values, 1, values.n) end
  return self.value
end

--- What a promise needs no more once it is settled.
local function forget(self)
  if self.source then
    self.source = nil
    if self.on_resolved then self.on_resolved = nil end
    if self.on_rejected then self.on_rejected = nil end
  end
end

promise.values_of = values_of

--- Notes what a promise was settled with.
local function set_values(self, ...)
  local count = select("#", ...)
  self.value = (...)
  if count ~= 1 then self.values = count == 0 and NONE or pack(...) end
end

--- Settles a promise with values, whatever they are.
local function fulfil(self, ...)
  if self.status ~= STARTED then return end
  self.status = RESOLVED
  set_values(self, ...)
  if self.source then forget(self) end
  if self.first or self.waiting or self.co or self.hooks then tell(self) end
end

promise.fulfil = fulfil

--- Notes a rejection that nobody handles so far.
local function set_rejected(self)
  self.status = REJECTED
  forget(self)
  if not self.first and not (self.waiting and waiters.is_any(self.waiting)) then
    if is_reporting then self.is_of_report = true end
    unhandled[#unhandled + 1] = self
    loop.has_unhandled = true
    wait.tell_host()
  end
  tell(self)
end

local function reject(self, ...)
  if self.status ~= STARTED then return end
  set_values(self, ...)
  set_rejected(self)
end

promise.reject = reject

--- Where a promise was made, in words; nil if that is not known.
local function place_of(origin)
  local place = type(origin) == "number" and match(native.describe(origin), " at (.+)$")
  return place ~= "?" and place or nil
end

promise.place_of = place_of

--- Settles a promise as `source` is settled.
function take(self, source)
  local status = source.status
  if status == CANCELLED then return cancel(self, source.value.reason) end
  if self.status ~= STARTED then return end
  self.value, self.values = source.value, source.values
  if status == RESOLVED then
    self.status = RESOLVED
    forget(self)
    return tell(self)
  end
  self.traceback, self.is_of_report = source.traceback, source.is_of_report
  -- One that was made in a tail call has no place.
  local origin = source.origin
  if self.origin == nil or type(origin) == "string" or place_of(origin) then self.origin = origin end
  set_rejected(self)
end

promise.take = take

-- Resolving -----------------------------------------------------------------------------------------------------------

--- What a promise does that was resolved with another.
local function adopted(self)
  local source = self.source
  if source then return take(self, source) end
end

--- Resolves a promise with another one.
local function adopt(self, other)
  if rawequal(self, other) then
    return reject(self, Error.new({ kind = "ExecutionError", error = "a promise cannot be resolved with itself" }))
  end
  if self.status == CANCELLED and not is_wanted(other) then cancel(other, self.value.reason) end
  if self.status ~= STARTED then return end
  if other.status ~= STARTED then
    if other.status == REJECTED then other.is_handled = true end
    return take(self, other)
  end
  forget(self)
  self.is_locked, self.react = true, adopted
  consume(other, self)
end

local function index(object, key)
  return object[key]
end

--- The method of a thenable by which it is asked; or nil; or nil and what its `__index` raised.
local function method_of(object)
  if not compat.has_fields(object) then return nil end
  for _, name in ipairs({ "andThen", "then_" }) do
    local ok, method = pcall(index, object, name)
    if not ok then return nil, true, method end
    if type(method) == "function" or compat.is_callable(method) then return method end
  end
end

promise.method_of = method_of

--- Asks a thenable, in a microtask. Its first answer counts, whatever it does after that.
local function ask(node)
  local self = node.owner
  if self.status ~= STARTED then return end
  local child = node.method(node.thenable, function(...)
    if node.has_answered then return end
    node.has_answered = true
    return resolve(self, ...)
  end, function(...)
    if node.has_answered then return end
    node.has_answered = true
    return reject(self, ...)
  end)
  local has_methods = type(child) == "table" or type(child) == "userdata"
  local ok, stop = pcall(index, has_methods and child or {}, "cancel")
  if ok and compat.is_callable(stop) then
    promise.on_cancel(self, function()
      stop(child)
    end)
  end
end

local function resolve_with_object(self, object, ...)
  if getmetatable(object) == Promise then return adopt(self, object) end
  if self.status ~= STARTED then return end
  if type(object) == "table" and getmetatable(object) == nil and object.andThen == nil and object.then_ == nil then
    return fulfil(self, ...)
  end
  local method, has_failed, failure = method_of(object)
  if has_failed then return reject(self, failure) end
  if method == nil then return fulfil(self, ...) end
  self.is_locked = true
  forget(self)
  queue_microtask({ react = ask, owner = self, thenable = object, method = method })
end

--- Resolves a promise: with values, or with the outcome of a promise or thenable.
function resolve(self, ...)
  local kind = type((...))
  if kind == "table" or kind == "userdata" then return resolve_with_object(self, (...), ...) end
  return fulfil(self, ...)
end

promise.resolve = resolve

--- A promise in words, for messages.
local function describe(self)
  local origin = self.origin
  if type(origin) == "string" then return origin end
  local place = type(origin) == "number" and native.describe(origin) or ""
  if match(place, "^a job") then return place end
  return "a promise made at " .. (place_of(origin) or "?")
end

promise.describe, loop.describe_promise = describe, describe

-- Cancelling ----------------------------------------------------------------------------------------------------------

--- Ends what works for a promise, since that was cancelled.
local function stop_work(co, hooks, err)
  if type(co) == "number" then
    loop.cancel_job(co)
  elseif co then
    task.interrupt(co, err)
  end
  for _, hook in ipairs(hooks or {}) do
    task.spawn(hook, err.reason)
  end
end

--- Cancels one promise, and adds to the list `todo` what is to be cancelled with it; returns the list's new length.
local function cancel_one(self, err, todo, last)
  local co, hooks, source, node = self.co, self.hooks, self.source, self.first
  self.status, self.value = CANCELLED, err
  self.first, self.last, self.co, self.hooks, self.on_resolved, self.on_rejected = nil, nil, nil, nil, nil, nil
  stop_work(co, hooks, err)
  while node do
    local after = node.after
    node.before, node.after = nil, nil
    if node.sees_cancel then
      queue_microtask(node)
    else
      node.source = nil
      last = last + 1
      todo[last] = node
    end
    node = after
  end
  if source then
    -- The handler of `finally` runs when the source ends, whoever wants to know.
    if not self.is_final then leave(self) end
    if source.status == STARTED and not is_wanted(source) then
      last = last + 1
      todo[last] = source
    end
  end
  if self.waiting then waiters.wake_all(self.waiting) end
  return last
end

--- Cancels a promise that is pending, what is made from it, and what nobody else wants that it is made from. This is a
--- list, not a recursion: chains may be long.
function cancel(self, reason)
  if self.status ~= STARTED then return end
  local err = errors.new("cancelled", "the promise was cancelled", { reason = reason })
  local todo, first, last = { self }, 1, 1
  repeat
    local next_one = todo[first]
    todo[first], first = nil, first + 1
    if next_one.status == STARTED then last = cancel_one(next_one, err, todo, last) end
  until first > last
end

promise.cancel = cancel

--- Calls `hook(reason)` when the promise is cancelled; at once if it was. Returns whether it was.
local function on_cancel(self, hook)
  if self.status == STARTED then
    local hooks = self.hooks or {}
    self.hooks, hooks[#hooks + 1] = hooks, hook
  elseif self.status == CANCELLED then
    task.spawn(hook, self.value.reason)
    return true
  end
  return false
end

promise.on_cancel = on_cancel

--- Notes that a coroutine which waited for a promise was cancelled.
function wait.abandon(self, err)
  if is_wanted(self) then return end
  return cancel(self, err.reason)
end

-- Waiting -------------------------------------------------------------------------------------------------------------

--- Waits until a promise is settled. Returns WAKE, or what somebody passed to `resume`.
local function settled(self)
  if self.status ~= STARTED then
    if self.status == REJECTED then self.is_handled = true end
    return WAKE
  end
  if not self.waiting then self.waiting = waiters.new() end
  local node = waiters.node()
  node.awaits = self
  return waiters.wait(self.waiting, nil, node)
end

local function with_status(self, ...)
  if (...) ~= WAKE then return ... end
  return self.status, values_of(self)
end

local function with_success(self, ...)
  if (...) ~= WAKE then return ... end
  return self.status == RESOLVED, values_of(self)
end

local function raising(self, ...)
  if (...) ~= WAKE then return ... end
  if self.status == RESOLVED then return values_of(self) end
  return outcome.pass_on(self.value, self.traceback)
end

function Promise:awaitStatus()
  check.self(self, Promise, "awaitStatus")
  return with_status(self, settled(self))
end

function Promise:await()
  check.self(self, Promise, "await")
  return with_success(self, settled(self))
end

function Promise:expect()
  if self == nil then check.bad_self(self, "expect", "promise") end
  if self.status == RESOLVED then return values_of(self) end
  return raising(self, settled(self))
end

-- Rejections that nobody handles --------------------------------------------------------------------------------------

--- Adds a function that is called with each promise whose rejection nobody handles, and its values. Returns a function
--- that takes it out again.
function promise.on_unhandled(hook)
  local entry = { hook = hook }
  rejection_hooks[#rejection_hooks + 1] = entry
  return function()
    entry.hook = nil
    for i, other in ipairs(rejection_hooks) do
      if other == entry then return remove(rejection_hooks, i) end
    end
  end
end

local function report(self)
  self.is_handled = true
  local traceback, source = self.traceback or "", describe(self)
  if self.is_of_report then return errors.write(self.value, traceback, source) end
  is_reporting = true
  for _, entry in ipairs({ unpack(rejection_hooks) }) do
    if entry.hook then task.spawn(entry.hook, self, values_of(self)) end
  end
  errors.report(self.value, traceback, source)
  is_reporting = false
end

--- Reports the rejections of the turn before this one that are still not handled.
function loop.report_unhandled()
  local due = overdue
  overdue, unhandled = unhandled, {}
  loop.has_unhandled = #overdue > 0
  for _, self in ipairs(due) do
    if not self.is_handled then report(self) end
  end
end

return promise
