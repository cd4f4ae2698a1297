-- Memory that VMs share: numbers, arrays and tables. They are userdata; what stands here are their methods.
--
-- The natives answer nil or false if an argument is not what it should be. So the plain case is one call, and only then
-- does Lua look what is wrong, and raises it at the line of the call.

local native, check, wait, compat = ...

local format, sub = string.format, string.sub
local collectgarbage, error, floor, select = collectgarbage, error, math.floor, select
local tostring, type = tostring, type
local create, resume, status, yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local bad_argument, refuse_self, raise = check.bad_argument, check.bad_self, check.raise

local shared = {}

local function shown(value)
  if type(value) ~= "number" or value ~= value then return value ~= value and "NaN" or type(value) end
  return tostring(value)
end

--- Raises that a number is none, or not the one that was expected.
local function refuse(value, position, name, expected)
  raise(format("bad argument #%d to '%s' (%s expected, got %s)", position, name, expected, shown(value)))
end

-- Atomic ------------------------------------------------------------------------------------------------------------

local is_whole = native.is_whole
-- Where Lua has floats only, they tell whole numbers up to this one from each other.
local WHOLE = is_whole(2 ^ 53) and "whole number of 64 bits" or "whole number of 53 bits"

local function refuse_whole(name, ...)
  for position = 1, select("#", ...) do
    local value = select(position, ...)
    if not is_whole(value) then refuse(value, position, name, WHOLE) end
  end
end

local Atomic = { __name = "scheduler.shared.atomic" }
Atomic.__index = Atomic

local atomic_get, atomic_set, atomic_swap = native.atomic_get, native.atomic_set, native.atomic_swap
local atomic_add, atomic_sub, atomic_exchange = native.atomic_add, native.atomic_sub, native.atomic_exchange

--- Raises what is wrong with a call of a method, given its arguments.
local function refuse_atomic(self, name, ...)
  if not atomic_get(self) then refuse_self(self, name, "atomic") end
  refuse_whole(name, ...)
  raise("the number of the atomic would not be a whole number of 53 bits any more")
end

function Atomic:get()
  return atomic_get(self) or refuse_atomic(self, "get")
end

function Atomic:set(value)
  if not atomic_set(self, value) then refuse_atomic(self, "set", value) end
end

--- Adds to the number; returns the new one, as who counts wants to know it.
function Atomic:add(number)
  return atomic_add(self, number) or refuse_atomic(self, "add", number)
end

function Atomic:sub(number)
  return atomic_sub(self, number) or refuse_atomic(self, "sub", number)
end

--- Sets the number; returns the former one.
function Atomic:swap(value)
  return atomic_swap(self, value) or refuse_atomic(self, "swap", value)
end

--- Sets the number if it is `expected`; returns whether it was, and which it was.
function Atomic:compare_exchange(expected, value)
  local was_expected, former = atomic_exchange(self, expected, value)
  if was_expected == nil then refuse_atomic(self, "compare_exchange", expected, value) end
  return was_expected, former
end

function Atomic:__tostring()
  return format("atomic(%s)", tostring(Atomic.get(self)))
end

function shared.atomic(value)
  if value == nil then value = 0 end
  return native.new_atomic(value) or refuse(value, 1, "atomic", WHOLE)
end

-- Buffer ------------------------------------------------------------------------------------------------------------

local Buffer = { __name = "scheduler.shared.buffer" }
Buffer.__index = Buffer

local buffer_get, buffer_set, buffer_info = native.buffer_get, native.buffer_set, native.buffer_info

-- The collector does not see how much memory a buffer has, so it is told when there may be much to free.
local COLLECT_AFTER = 64 * 1024 * 1024
local bytes_since = 0

local function length_of(self, name)
  local length = buffer_info(self)
  return length or refuse_self(self, name, "buffer")
end

--- Raises unless `value` is a position from `least` to `most`.
local function check_position(value, least, most, position, name)
  if type(value) == "number" and value >= least and value <= most and floor(value) == value then return value end
  refuse(value, position, name, format("position from %d to %d", least, most))
end

--- The range from `from` to `to`, by default all up to `length`, which may be empty.
local function check_range(from, to, length, position, name)
  from = check_position(from == nil and 1 or from, 1, length + 1, position, name)
  return from, check_position(to == nil and length or to, from - 1, length, position + 1, name)
end

--- Raises what is wrong with a value for a buffer.
local function refuse_value(self, value, position, name)
  local _, _, least, greatest = buffer_info(self)
  if not least then bad_argument(position, name, "number", value) end
  refuse(value, position, name, format("whole number from %s to %s", tostring(least), tostring(greatest)))
end

function Buffer:get(index)
  local value = buffer_get(self, index)
  if value ~= nil then return value end
  check_position(index, 1, length_of(self, "get"), 1, "get")
end

function Buffer:set(index, value)
  if type(value) == "number" and buffer_set(self, index, value) then return end
  check_position(index, 1, length_of(self, "set"), 1, "set")
  refuse_value(self, value, 2, "set")
end

function Buffer:fill(value, from, to)
  local length = length_of(self, "fill")
  from, to = check_range(from, to, length, 2, "fill")
  if type(value) ~= "number" or not native.buffer_fill(self, value, from, to) then
    refuse_value(self, value, 1, "fill")
  end
end

--- Raises unless `count` elements fit in from `at` on.
local function check_room(at, count, length, name)
  check_position(at, 1, length + 1, 2, name)
  if count > length - at + 1 then
    raise(format("bad argument #1 to '%s' (%d elements do not fit into %d)", name, count, length - at + 1))
  end
end

local function copy_bytes(self, source, at, from, to)
  local length, element = buffer_info(self)
  local size = native.element_size(element)
  if #source % size ~= 0 then
    local message = "bad argument #1 to 'copy' (elements of %d bytes do not make up a string of %d)"
    raise(format(message, size, #source))
  end
  from, to = check_range(from, to, #source / size, 3, "copy")
  check_room(at, to - from + 1, length, "copy")
  native.buffer_write(self, at, sub(source, (from - 1) * size + 1, to * size))
end

--- Copies elements of another buffer of the same type, or the bytes of a string, to the position `at`.
function Buffer:copy(source, at, from, to)
  local length, element = buffer_info(self)
  if not length then refuse_self(self, "copy", "buffer") end
  if at == nil then at = 1 end
  if type(source) == "string" then return copy_bytes(self, source, at, from, to) end
  local source_length, source_element = buffer_info(source)
  if not source_length then bad_argument(1, "copy", "buffer or string", source) end
  if source_element ~= element then
    raise(format("bad argument #1 to 'copy' (buffer of %s expected, got one of %s)", element, source_element))
  end
  from, to = check_range(from, to, source_length, 3, "copy")
  check_room(at, to - from + 1, length, "copy")
  native.buffer_copy(self, at, source, from, to)
end

--- A part of the buffer, in the same memory.
function Buffer:slice(from, to)
  from, to = check_range(from, to, length_of(self, "slice"), 1, "slice")
  return native.buffer_slice(self, from, to)
end

--- The bytes of a part of the buffer, as this machine orders them.
function Buffer:tostring(from, to)
  from, to = check_range(from, to, length_of(self, "tostring"), 1, "tostring")
  return native.buffer_bytes(self, from, to) or raise("not enough memory")
end

function Buffer:pointer()
  return native.buffer_pointer(self) or refuse_self(self, "pointer", "buffer")
end

function Buffer:__len()
  return length_of(self, "#")
end

function Buffer:__tostring()
  local length, element = buffer_info(self)
  return format("buffer(%s, %d)", element, length)
end

function shared.buffer(element, length)
  local size = type(element) == "string" and native.element_size(element)
  if not size then
    local got = type(element) == "string" and "'" .. element .. "'" or shown(element)
    raise("bad argument #1 to 'buffer' ('i8', 'u8', ... 'i64', 'u64', 'f32' or 'f64' expected, got " .. got .. ")")
  end
  check.count(length, 0, 2, "buffer")
  bytes_since = bytes_since + size * length
  if bytes_since > COLLECT_AFTER and bytes_since > collectgarbage("count") * 1024 then
    bytes_since = 0
    collectgarbage()
  end
  local buffer = length < 2 ^ 53 and native.new_buffer(element, length)
  return buffer or raise(format("not enough memory for a buffer of %s elements of %d bytes", tostring(length), size))
end

-- Table -------------------------------------------------------------------------------------------------------------

local Table = { __name = "scheduler.shared.table" }
Table.__index = Table

-- What the natives say: see src/binding/shared/table.rs.
local DONE, REFUSED, NESTED = 0, 2, 3

local table_get, table_set, table_update = native.table_get, native.table_set, native.table_update
local table_count = native.table_count

--- Raises what is wrong with a call of a method.
local function refuse_table(self, name, key, outcome, message)
  if not table_count(self) then refuse_self(self, name, "table") end
  if outcome == REFUSED then raise(message or "not enough memory") end -- not even for the reason
  if outcome == NESTED then
    raise("cannot change a shared table in the function of an 'update': others would wait for each other for ever")
  end
  bad_argument(1, name, "string, number or boolean", key)
end

local function is_negative_zero(value)
  return value == 0 and 1 / value < 0
end

function Table:get(key)
  local outcome, value = table_get(self, key)
  if outcome ~= DONE then refuse_table(self, "get", key, outcome, value) end
  return value
end

--- Sets the value of a key; nil deletes it.
function Table:set(key, value)
  local outcome, message = table_set(self, key, value, is_negative_zero(value))
  if outcome ~= DONE then refuse_table(self, "set", key, outcome, message) end
end

--- Deletes a key; returns whether it had a value.
function Table:delete(key)
  local outcome, was_there = table_set(self, key, nil, false)
  if outcome ~= DONE then refuse_table(self, "delete", key, outcome, was_there) end
  return was_there
end

-- Functions of updates run in a coroutine, used again as long as they neither raise nor wait. So one that waits, also
-- on the main thread, is noticed: to yield anything but this is to wait.
local function RETURNED() end
local updater
local given_fn, given_value -- what the updater is to call

--- Calls what was given; nothing stays behind that would keep it from being collected.
local function call_given()
  local fn, value = given_fn, given_value
  given_fn, given_value = nil, nil
  return (fn(value))
end

local function update_forever()
  while true do
    yield(RETURNED, (call_given()))
  end
end

local function after_update(co, ok, what, value)
  if ok and what == RETURNED then
    updater = co
    return true, value, is_negative_zero(value)
  end
  if not ok then return false, { err = what }, false end
  wait.drop(co)
  return false, { waits = true }, false
end

--- Calls `fn(value)` as the native wants it.
local function run(fn, value)
  local co = updater
  updater = nil
  if not co or status(co) ~= "suspended" then co = create(update_forever) end
  wait.carried_in[co] = compat.running() or wait.MAIN
  given_fn, given_value = fn, value
  return after_update(co, resume(co))
end

--- Sets the value of a key to what `fn` returns for it; nobody else can change it meanwhile. Returns the new value.
function Table:update(key, fn)
  if table_count(self) then check.callable(fn, 2, "update") end
  local outcome, result = table_update(self, key, run, fn)
  if outcome == DONE then return result end
  if type(result) ~= "table" then refuse_table(self, "update", key, outcome, result) end
  if result.waits then raise("the function given to 'update' must not wait, or yield") end
  error(result.err, 0)
end

--- A list of the keys, in no order.
function Table:keys()
  return native.table_keys(self) or refuse_self(self, "keys", "table")
end

function Table:__len()
  return table_count(self) or refuse_self(self, "#", "table")
end

function Table:__tostring()
  return format("table of %d shared values", table_count(self))
end

function shared.table()
  return native.new_table()
end

shared.classes = { atomic = Atomic, buffer = Buffer, table = Table }

return shared
