-- Events: something has happened, or not yet; any number of tasks wait for it.

local check, wait, waiters = ...

local setmetatable = setmetatable
local WAKE = wait.WAKE

local Event = { __name = "scheduler.event", __transfer = "an event of this VM" }
Event.__index = Event

--- Sets the event, and wakes all that wait for it, in the order in which they came.
function Event:set()
  check.self(self, Event, "set")
  self.has_happened = true
  waiters.wake_all(self.waiters)
end

--- Makes later waits wait again.
function Event:clear()
  check.self(self, Event, "clear")
  self.has_happened = false
end

function Event:is_set()
  if self == nil then check.bad_self(self, "is_set", "event") end
  return self.has_happened
end

local function waited(node, ...)
  if (...) ~= WAKE then return ... end
  if node.woken then return true end
  return false, "timeout"
end

--- Waits until the event is set. False and "timeout" if that takes longer than `seconds`.
function Event:wait(seconds)
  if self == nil then check.bad_self(self, "wait", "event") end
  if seconds ~= nil then check.timeout(seconds, 1, "wait") end
  if self.has_happened then return true end
  local node = waiters.node()
  return waited(node, waiters.wait(self.waiters, seconds, node))
end

return function()
  local self = { has_happened = false }
  self.waiters = waiters.new(nil, "an event", self)
  return setmetatable(self, Event)
end
