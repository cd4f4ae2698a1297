-- Mutexes between VMs: one task at a time, of all VMs, first come, first served.
--
-- Who holds a mutex or waits for it has a place there, a number (see src/worker/shared/mutex.rs). One that waits is in
-- a list of waiters like any other; whoever takes its node out of the list before it was woken gives up its place.

local native, check, wait, waiters, outcome, loop, task, hold_during = ...

local error, pairs, pcall, type = error, pairs, pcall, type
local status = coroutine.status
local WAKE = wait.WAKE

local Mutex = { __name = "scheduler.shared.mutex" }
Mutex.__index = Mutex

local places = loop.places
local holds = {} -- what this VM holds, by the mutex: the place, and the task in `owner`

local function refuse_self(self, name)
  check.bad_self(self, name, "mutex")
end

-- The list of all that wait here. Who goes on otherwise after it was woken gives up the place.
local list = waiters.new(native.mutex_leave, "a mutex between VMs")
local take_out = list.remove

--- Takes a node out. If the mutex is its by now, it is woken with that, whether the news has come or not.
function list.remove(node)
  local place = node.place
  take_out(node)
  places[place] = nil
  if native.mutex_is_held(place) then
    node.woken, node.value = true, place
  else
    native.mutex_leave(place)
  end
end

--- Ends a wait, unless the mutex was handed over by now: then the news is on its way. Returns whether it was.
function list.settle(node)
  if native.mutex_is_held(node.place) then return true end
  native.mutex_leave(node.place)
  return false
end

--- Wakes who waits: it holds the mutex now.
function list.woken(node)
  wait.make_ready(node)
  wait.leave(node)
end

--- When a job has ended, whose places were left.
function loop.discard_locks()
  holds = {}
  while list.first do
    take_out(list.first)
  end
end

local function note_holder(self, place)
  holds[self] = { place = place, owner = task.current() }
end

--- Notes that the running task holds the mutex; where there is no memory for that it holds it no more.
local function hold(self, place)
  local ok, err = pcall(note_holder, self, place)
  if not ok then
    native.mutex_leave(place)
    error(err, 0)
  end
  return true
end

--- Whether a task has ended, or is a coroutine that has. Before Lua 5.4 one that was cancelled is never dead.
local function has_ended(owner)
  return type(owner) == "thread" and (status(owner) == "dead" or outcome.of(owner) ~= nil)
end

--- Lets go what is held by those that have ended, and by a worker's `idle` coroutine, whose job has: nobody else may
--- unlock it, and nobody could tell those who wait for it in other VMs.
function loop.release_locks(idle)
  for mutex, held in pairs(holds) do
    if held.owner == idle or has_ended(held.owner) then
      holds[mutex] = nil
      native.mutex_leave(held.place)
    end
  end
end

--- Takes a place in the mutex; returns whether that is the first, which holds it.
local function take_place(self, seconds, node, co)
  local place, is_held = native.mutex_lock(self)
  node.place = place
  if is_held then
    node.woken, node.value = true, place
  else
    places[place] = node
    waiters.enter(list, seconds, node, co)
  end
  return is_held
end

--- Leaves the place of one who cannot wait, as memory has run out.
local function leave_half_way(node, err)
  local place = node.place
  if place then
    native.mutex_leave(place)
    if places[place] then places[place] = nil end
  end
  error(err, 0)
end

--- Waits for the mutex; what `waiters.wait` returns.
local function wait_for(self, seconds, node)
  local co = wait.current()
  node.place = false
  local ok, is_held = pcall(take_place, self, seconds, node, co)
  if not ok then leave_half_way(node, is_held) end
  if is_held then return WAKE end
  return wait.suspend(node, co)
end

--- Locks the mutex if nobody has.
local function try_lock(self, name)
  local place = native.mutex_try_lock(self)
  if place then return hold(self, place) end
  if native.mutex_is_locked(self) == nil then refuse_self(self, name) end
  return false
end

local function refuse_twice(self)
  local held = holds[self]
  if held and held.owner == task.current() then check.raise("the mutex is locked by this task already") end
end

local function locked(self, node, ...)
  if (...) ~= WAKE then return ... end
  if not node.woken then return false, "timeout" end
  return hold(self, node.value)
end

--- Locks the mutex, and waits until that can be. False and "timeout" if it takes longer than `seconds`.
function Mutex:lock(seconds)
  check.timeout(seconds, 1, "lock")
  if try_lock(self, "lock") then return true end
  refuse_twice(self)
  local node = waiters.node()
  return locked(self, node, wait_for(self, seconds, node))
end

--- Locks the mutex if nobody has.
function Mutex:try_lock()
  return try_lock(self, "try_lock")
end

--- Hands the mutex to the one that waits for the longest, if any does.
local function unlock(self, held)
  holds[self] = nil
  native.mutex_leave(held.place)
end

--- Unlocks the mutex.
function Mutex:unlock()
  local held = holds[self]
  if held and held.owner == task.current() then return unlock(self, held) end
  local is_locked = native.mutex_is_locked(self)
  if is_locked == nil then refuse_self(self, "unlock") end
  if not is_locked then check.raise("the mutex is not locked") end
  check.raise("the mutex is locked by " .. (held and outcome.describe(held.owner) or "another VM or task"))
end

function Mutex:is_locked()
  local is_locked = native.mutex_is_locked(self)
  if is_locked == nil then refuse_self(self, "is_locked") end
  return is_locked
end

--- Runs `fn(...)` with the mutex locked, and unlocks it however that ends.
function Mutex:with(fn, ...)
  check.callable(fn, 1, "with")
  local owner = task.current()
  local function let_go()
    local held = holds[self]
    if held and held.owner == owner then unlock(self, held) end
  end
  if not try_lock(self, "with") then
    refuse_twice(self)
    local node = waiters.node()
    if wait_for(self, nil, node) ~= WAKE then check.raise("resumed by hand while it waited for the mutex") end
    hold(self, node.value)
  end
  return hold_during(let_go, fn, ...)
end

function Mutex:__tostring()
  return Mutex.is_locked(self) and "mutex, locked" or "mutex"
end

return Mutex
