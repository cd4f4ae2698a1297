-- Queues of values between tasks: first in, first out; with a capacity, a push waits for room.

local check, errors, wait, waiters, fifo = ...

local getmetatable, huge, setmetatable = getmetatable, math.huge, setmetatable
local insert, remove = table.insert, table.remove
local WAKE = wait.WAKE
-- What those are woken with that wait when the queue is closed.
local CLOSED = {}

local Queue = { __name = "scheduler.queue", __transfer = "a queue of this VM" }
Queue.__index = Queue

--- Checks what a push is given.
local function check_push(self, value, name)
  if getmetatable(self) ~= Queue then check.bad_self(self, name, "queue") end
  if value == nil then check.bad_argument(1, name, "value", value) end
end

local function refuse_closed()
  errors.raise_closed("the queue")
end

local function try_push(self, value)
  if self.has_closed then refuse_closed() end
  if waiters.wake_first(self.poppers, value) then return true end
  if fifo.length(self.values) >= self.capacity then return false end
  fifo.push(self.values, value)
  return true
end

--- Puts a value in, if somebody waits for it or there is room.
function Queue:try_push(value)
  check_push(self, value, "try_push")
  return try_push(self, value)
end

local function pushed(node, ...)
  if (...) ~= WAKE then return ... end
  if not node.woken then return false, "timeout" end
  if node.value == CLOSED then refuse_closed() end
  return true
end

--- Puts a value in, and waits for room if there is none. False and "timeout" if that takes longer than `seconds`: the
--- value is not in then.
function Queue:push(value, seconds)
  check_push(self, value, "push")
  if seconds ~= nil then check.timeout(seconds, 2, "push") end
  if try_push(self, value) then return true end
  local node = waiters.node()
  node.pushes = value
  return pushed(node, waiters.wait(self.pushers, seconds, node))
end

--- Takes the value of the push that waits for the longest; nil if none does.
local function take_pushed(self)
  local node = self.pushers.first
  if not node then return nil end
  waiters.wake_first(self.pushers)
  return node.pushes
end

local function try_pop(self)
  local returned = self.returned
  if #returned > 0 then
    remove(self.numbers)
    return remove(returned)
  end
  local batch, first = fifo.batch(self.values)
  if not batch then return take_pushed(self) end
  local value = batch[first]
  batch[first] = nil
  fifo.took(self.values, first + 1)
  local next_value = take_pushed(self)
  if next_value ~= nil then fifo.push(self.values, next_value) end
  return value
end

--- Takes the first value out; nil if there is none.
function Queue:try_pop()
  check.self(self, Queue, "try_pop")
  return try_pop(self)
end

local function popped(node, ...)
  if (...) ~= WAKE then return ... end
  if not node.woken then return nil, "timeout" end
  if node.value == CLOSED then return nil, "closed" end
  return node.value
end

--- Takes the first value out, and waits for one if there is none. Nil and "timeout" if that takes longer than
--- `seconds`; nil and "closed" when the queue is closed and empty.
function Queue:pop(seconds)
  if getmetatable(self) ~= Queue then check.bad_self(self, "pop", "queue") end
  if seconds ~= nil then check.timeout(seconds, 1, "pop") end
  local value = try_pop(self)
  if value ~= nil then return value end
  if self.has_closed then return nil, "closed" end
  local node = waiters.node()
  return popped(node, waiters.wait(self.poppers, seconds, node))
end

--- Closes the queue: what is in it can still be taken out; pushing raises, also a push that waits.
function Queue:close()
  check.self(self, Queue, "close")
  self.has_closed = true
  waiters.wake_all(self.poppers, CLOSED)
  waiters.wake_all(self.pushers, CLOSED)
end

--- Whether the queue was closed. There may be values in it.
function Queue:is_closed()
  check.self(self, Queue, "is_closed")
  return self.has_closed
end

--- How many values are in it.
function Queue:len()
  check.self(self, Queue, "len")
  return #self.returned + fifo.length(self.values)
end

Queue.__len = Queue.len

--- `for value in queue do`: takes values out until the queue is closed and empty.
function Queue:__call()
  return (self:pop())
end

return function(capacity)
  if capacity ~= nil then check.count(capacity, 0, 1, "queue") end
  local self = { capacity = capacity or huge, values = fifo.new(), has_closed = false }
  self.pushers = waiters.new(nil, "room in a queue", self)
  -- Values that were given back, and when each was given first: the oldest is the last.
  self.returned, self.numbers = {}, {}
  self.poppers = waiters.new(function(value, number)
    if value == CLOSED or waiters.wake_first(self.poppers, value, number) then return end
    local returned, numbers = self.returned, self.numbers
    local at = #returned + 1
    while at > 1 and numbers[at - 1] < number do
      at = at - 1
    end
    insert(returned, at, value)
    insert(numbers, at, number)
  end, "a value of a queue", self)
  return setmetatable(self, Queue)
end
