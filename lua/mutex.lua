-- Mutexes: one task at a time, first come, first served. The task that locked one has to unlock it.

local check, wait, waiters, outcome, task, protected_call = ...

local error, setmetatable = error, setmetatable
local WAKE = wait.WAKE

local Mutex = { __name = "scheduler.mutex", __transfer = "a mutex of this VM" }
Mutex.__index = Mutex

local function locked(self, node, ...)
  if (...) ~= WAKE then return ... end
  if not node.woken then return false, "timeout" end
  self.owner = task.current()
  return true
end

--- Locks the mutex, and waits until that can be. False and "timeout" if it takes longer than `seconds`.
function Mutex:lock(seconds)
  check.timeout(seconds, 1, "lock")
  if self:try_lock() then return true end
  if self.owner == task.current() then check.raise("the mutex is locked by this task already") end
  local node = {}
  return locked(self, node, waiters.wait(self.waiters, seconds, node))
end

--- Locks the mutex if nobody has.
function Mutex:try_lock()
  if self.is_held then return false end
  self.is_held, self.owner = true, task.current()
  return true
end

--- Hands the mutex to the one that waits for the longest, if any does.
local function hand_over(self)
  self.owner = nil
  if not waiters.wake_first(self.waiters) then self.is_held = false end
end

--- Unlocks the mutex.
function Mutex:unlock()
  if not self.is_held then check.raise("the mutex is not locked") end
  if self.owner ~= task.current() then
    check.raise("the mutex is locked by " .. (self.owner and outcome.describe(self.owner) or "another task"))
  end
  hand_over(self)
end

function Mutex:is_locked()
  return self.is_held
end

local function finish(self, owner, clean_up, ok, ...)
  if task.pop_clean_up(owner, clean_up) and self.owner == owner then hand_over(self) end
  if not ok then error((...), 0) end
  return ...
end

--- Runs `fn(...)` with the mutex locked, and unlocks it however that ends.
function Mutex:with(fn, ...)
  check.callable(fn, 1, "with")
  local owner = task.current()
  if not self:try_lock() then
    if self.owner == owner then check.raise("the mutex is locked by this task already") end
    if waiters.wait(self.waiters, nil, {}) ~= WAKE then check.raise("resumed by hand while it waited for the mutex") end
    self.owner = owner
  end
  local function clean_up()
    if self.owner == owner then hand_over(self) end
  end
  task.push_clean_up(owner, clean_up)
  return finish(self, owner, clean_up, protected_call(fn, ...))
end

return function()
  local self = { is_held = false }
  self.waiters = waiters.new(function()
    hand_over(self)
  end, "a mutex", self)
  return setmetatable(self, Mutex)
end
