-- Mutexes: one task at a time, first come, first served. The task that locked one has to unlock it.

local check, wait, waiters, outcome, task, hold_during = ...

local setmetatable = setmetatable
local WAKE = wait.WAKE

local Mutex = { __name = "scheduler.mutex", __transfer = "a mutex of this VM" }
Mutex.__index = Mutex

local function refuse_self(name)
  check.bad_self(nil, name, "mutex")
end

local function try_lock(self)
  if self.is_held then return false end
  self.is_held, self.owner = true, task.current()
  return true
end

local function locked(self, node, ...)
  if (...) ~= WAKE then return ... end
  if not node.woken then return false, "timeout" end
  self.owner = task.current()
  return true
end

--- Locks the mutex, and waits until that can be. False and "timeout" if it takes longer than `seconds`.
function Mutex:lock(seconds)
  if self == nil then refuse_self("lock") end
  if seconds ~= nil then check.timeout(seconds, 1, "lock") end
  if try_lock(self) then return true end
  if self.owner == task.current() then check.raise("the mutex is locked by this task already") end
  local node = waiters.node()
  return locked(self, node, waiters.wait(self.waiters, seconds, node))
end

--- Locks the mutex if nobody has.
function Mutex:try_lock()
  if self == nil then refuse_self("try_lock") end
  return try_lock(self)
end

--- Hands the mutex to the one that waits for the longest, if any does.
local function hand_over(self)
  if not waiters.wake_first(self.waiters) then self.is_held = false end
  self.owner = false
end

--- Unlocks the mutex.
function Mutex:unlock()
  if self == nil then refuse_self("unlock") end
  if not self.is_held then check.raise("the mutex is not locked") end
  if self.owner ~= task.current() then
    check.raise("the mutex is locked by " .. (self.owner and outcome.describe(self.owner) or "another task"))
  end
  hand_over(self)
end

function Mutex:is_locked()
  if self == nil then refuse_self("is_locked") end
  return self.is_held
end

--- Runs `fn(...)` with the mutex locked, and unlocks it however that ends.
function Mutex:with(fn, ...)
  check.self(self, Mutex, "with")
  check.callable(fn, 1, "with")
  local owner = task.current()
  local function let_go()
    if self.owner == owner then hand_over(self) end
  end
  if not try_lock(self) then
    if self.owner == owner then check.raise("the mutex is locked by this task already") end
    if waiters.wait(self.waiters) ~= WAKE then check.raise("resumed by hand while it waited for the mutex") end
    self.owner = owner
  end
  return hold_during(let_go, fn, ...)
end

return function()
  local self = { is_held = false, owner = false }
  self.waiters = waiters.new(function()
    hand_over(self)
  end, "a mutex", self)
  return setmetatable(self, Mutex)
end
