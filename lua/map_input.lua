-- What a map is called with: the values of a list or an iterator, read in parts that are worth their way.
--
-- A part is a list: the position of its first value, whether its worker goes on after an error, then the values. `n` is
-- its length. worker.lua knows this form as well.

local native, compat = ...

local ceil, huge, max, min = math.ceil, math.huge, math.max, math.min
local setmetatable, type = setmetatable, type
local remove = table.remove

-- What comes before the values of a part.
local HEADER = 2
-- A part is to take so many seconds to be read and so many to be run, and so many bytes on its way at the most.
local PART_SECONDS = 0.005
local PART_BYTES = 2 ^ 18
-- By how much parts grow at the most from one to the next: the first values may tell little about the others.
local GROWTH = 8

local Input = {}
Input.__index = Input

local input = { HEADER = HEADER }

--- The next value of a list.
local function from_list(list, count)
  local i = 0
  return function()
    if i == count then return false end
    i = i + 1
    return true, list[i]
  end
end

--- The next value of an iterator.
local function from_iterator(iterator)
  return function()
    local value = iterator()
    return value ~= nil, value
  end
end

--- The input of a map with so many parts in flight at a time.
function input.new(values, options, parts)
  local is_iterator = type(values) == "function" or compat.is_callable(values)
  local total = not is_iterator and #values or nil
  return setmetatable({
    read_next = total and from_list(values, total) or from_iterator(values),
    -- How many values there are; nil if nobody knows.
    total = total,
    parts = parts,
    chunk = options.chunk,
    goes_on = options.errors == "collect",
    -- What the next part is to have.
    size = 1,
    read = 0,
    is_at_end = false,
    -- Parts that are to be sent again.
    again = {},
  }, Input)
end

--- How many values the next part is to have at the most.
function Input:part_size()
  if self.chunk then return self.chunk end
  if not self.total then return self.size end
  -- The last parts are small, so that all workers are done at about the same time.
  return max(1, min(self.size, ceil((self.total - self.read) / self.parts)))
end

--- How many bytes of a value are seen at a glance.
local function weight(value)
  return type(value) == "string" and #value or 0
end

--- Reads the values of the next part; nil if there are none. A part ends early if it gets heavy, or if the iterator is
--- so slow that workers would wait for the rest.
function Input:next_part()
  local part = remove(self.again)
  if part then return part end
  if self.is_at_end then return nil end
  part = { self.read + 1, self.goes_on }
  local count, most, bytes = 0, self:part_size(), 0
  local deadline = (self.total or self.chunk) and huge or native.stopwatch() + PART_SECONDS
  local most_bytes = self.chunk and huge or PART_BYTES
  repeat
    local is_value, value = self.read_next()
    if not is_value then
      self.is_at_end = true
      break
    end
    count, bytes = count + 1, bytes + weight(value)
    part[HEADER + count] = value
  until count >= most or bytes >= most_bytes or deadline < huge and native.stopwatch() >= deadline
  if count == 0 then return nil end
  self.read = self.read + count
  part.n = HEADER + count
  return part
end

--- Learns from a part of `count` values how large the next ones are to be.
function Input:learn(count, seconds, bytes)
  local by_time = PART_SECONDS / max(seconds / count, 1e-9)
  local by_bytes = PART_BYTES / max(bytes / count, 1)
  self.size = max(1, ceil(min(by_time, by_bytes, max(self.size, count) * GROWTH)))
end

--- Takes back the values of a part from one place in it to another: they come next, as a part.
function Input:take_back(part, from, to)
  if from > to then return end
  local values = { part[1] + from - HEADER - 1, part[2], n = HEADER + to - from + 1 }
  for i = from, to do
    values[HEADER + i - from + 1] = part[i]
  end
  self.again[#self.again + 1] = values
end

--- Reads no more.
function Input:close()
  self.is_at_end, self.again = true, {}
end

return input
