-- Semaphores: at most so many at a time, first come, first served.

local check, wait, waiters, task, protected_call = ...

local error, setmetatable = error, setmetatable
local WAKE = wait.WAKE

local Semaphore = { __name = "scheduler.semaphore", __transfer = "a semaphore of this VM" }
Semaphore.__index = Semaphore

local function acquired(node, ...)
  if (...) ~= WAKE then return ... end
  if node.woken then return true end
  return false, "timeout"
end

--- Takes a permit, and waits for one if there is none. False and "timeout" if that takes longer than `seconds`.
function Semaphore:acquire(seconds)
  check.timeout(seconds, 1, "acquire")
  if self:try_acquire() then return true end
  local node = {}
  return acquired(node, waiters.wait(self.waiters, seconds, node))
end

--- Takes a permit if there is one.
function Semaphore:try_acquire()
  if self.permits == 0 then return false end
  self.permits = self.permits - 1
  return true
end

--- Gives a permit back: to the one that waits for the longest, if any does.
function Semaphore:release()
  if waiters.wake_first(self.waiters) then return end
  if self.permits >= self.size then check.raise("the semaphore is released more often than it was acquired") end
  self.permits = self.permits + 1
end

--- How many permits are left.
function Semaphore:available()
  return self.permits
end

--- Gives the permit back after a protected call, and returns or raises what came of the call.
local function finish(self, owner, clean_up, ok, ...)
  if task.pop_clean_up(owner, clean_up) then self:release() end
  if not ok then error((...), 0) end
  return ...
end

--- Runs `fn(...)` with a permit, and gives it back however that ends.
function Semaphore:with(fn, ...)
  check.callable(fn, 1, "with")
  if not self:try_acquire() and waiters.wait(self.waiters, nil, {}) ~= WAKE then
    check.raise("resumed by hand while it waited for a permit")
  end
  local owner = task.current()
  local function clean_up()
    self:release()
  end
  task.push_clean_up(owner, clean_up)
  return finish(self, owner, clean_up, protected_call(fn, ...))
end

return function(size)
  check.count(size, 1, 1, "semaphore")
  local self = { size = size, permits = size }
  self.waiters = waiters.new(function()
    self:release()
  end, "a permit of a semaphore", self)
  return setmetatable(self, Semaphore)
end
