-- Semaphores: at most so many at a time, first come, first served.

local check, wait, waiters, hold_during = ...

local setmetatable = setmetatable
local WAKE = wait.WAKE

local Semaphore = { __name = "scheduler.semaphore", __transfer = "a semaphore of this VM" }
Semaphore.__index = Semaphore

local function refuse_self(name)
  check.bad_self(nil, name, "semaphore")
end

local function try_acquire(self)
  if self.permits == 0 then return false end
  self.permits = self.permits - 1
  return true
end

local function release(self)
  if waiters.wake_first(self.waiters) then return end
  if self.permits >= self.size then check.raise("the semaphore is released more often than it was acquired") end
  self.permits = self.permits + 1
end

local function acquired(node, ...)
  if (...) ~= WAKE then return ... end
  if node.woken then return true end
  return false, "timeout"
end

--- Takes a permit, and waits for one if there is none. False and "timeout" if that takes longer than `seconds`.
function Semaphore:acquire(seconds)
  if self == nil then refuse_self("acquire") end
  if seconds ~= nil then check.timeout(seconds, 1, "acquire") end
  if try_acquire(self) then return true end
  local node = waiters.node()
  return acquired(node, waiters.wait(self.waiters, seconds, node))
end

--- Takes a permit if there is one.
function Semaphore:try_acquire()
  if self == nil then refuse_self("try_acquire") end
  return try_acquire(self)
end

--- Gives a permit back: to the one that waits for the longest, if any does.
function Semaphore:release()
  if self == nil then refuse_self("release") end
  return release(self)
end

--- How many permits are left.
function Semaphore:available()
  if self == nil then refuse_self("available") end
  return self.permits
end

--- Runs `fn(...)` with a permit, and gives it back however that ends.
function Semaphore:with(fn, ...)
  check.self(self, Semaphore, "with")
  check.callable(fn, 1, "with")
  local function let_go()
    release(self)
  end
  if not try_acquire(self) and waiters.wait(self.waiters) ~= WAKE then
    check.raise("resumed by hand while it waited for a permit")
  end
  return hold_during(let_go, fn, ...)
end

return function(size)
  check.count(size, 1, 1, "semaphore")
  local self = { size = size, permits = size }
  self.waiters = waiters.new(function()
    release(self)
  end, "a permit of a semaphore", self)
  return setmetatable(self, Semaphore)
end
