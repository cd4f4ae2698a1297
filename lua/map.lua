-- `parallel.map`: a function called for many values, in parts that are large enough to be worth their way.

local native, compat, check, errors, wait, waiters, promise, parallel = ...

local ceil, max, min = math.ceil, math.max, math.min
local error, next, setmetatable, tonumber, type = error, next, setmetatable, tonumber, type
local remove = table.remove
local WAKE = wait.WAKE

-- What comes before the values of a part, and before its results: see worker.lua.
local HEADER = 2
-- A part is to take so many seconds, and so many bytes on its way to the worker at the most.
local PART_SECONDS = 0.005
local PART_BYTES = 2 ^ 18
-- By how much parts grow at the most from one to the next: the first values may tell little about the others.
local GROWTH = 8
-- Parts in flight for each worker: the next one is there when one has ended.
local AHEAD = 2

local Map = {}
Map.__index = Map

local OPTIONS = { errors = "string", as_completed = "boolean", chunk = "number" }

-- Reading -----------------------------------------------------------------------------------------------------------

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

--- Reads the values of the next part; nil if there are none.
function Map:read()
  local redo = remove(self.redo)
  if redo then return redo end
  if self.is_read then return nil end
  local values = { self.read_count + 1, self.collects }
  local count, most = 0, self:part_size()
  while count < most do
    local is_value, value = self.read_next()
    if not is_value then
      self.is_read = true
      break
    end
    count = count + 1
    values[HEADER + count] = value
  end
  if count == 0 then return nil end
  self.read_count = self.read_count + count
  values.n = HEADER + count
  return values
end

--- How many values the next part is to have.
function Map:part_size()
  if self.chunk then return self.chunk end
  if not self.total then return self.size end
  -- The last parts are small, so that all workers are done at about the same time.
  local left = self.total - self.read_count
  return max(1, min(self.size, ceil(left / (AHEAD * self.workers))))
end

--- Learns from a part of `count` values how large the next ones are to be.
function Map:learn(count, seconds, bytes)
  local by_time = PART_SECONDS / max(seconds / count, 1e-9)
  local by_bytes = PART_BYTES / (bytes / count)
  self.size = max(1, ceil(min(by_time, by_bytes, max(self.size, count) * GROWTH)))
end

-- Sending and taking ------------------------------------------------------------------------------------------------

local Part = {}
Part.__index = Part

--- In words of the map, why a part could not be sent.
local function in_items(refused, first)
  return (refused:gsub("argument #(%d+)", function(position)
    return "item #" .. tonumber(position) - HEADER + first - 1
  end, 1))
end

--- Sends as much as there is to be in flight.
function Map:fill()
  while self.in_flight + #self.settled < AHEAD * self.workers and not self.failure do
    local values = self:read()
    if not values then return end
    local number, bytes, refused = parallel.send(self.pool, native.submit_part, values, values.n, self.mapped)
    if not number then error(in_items(refused, values[1]), 0) end
    local part = setmetatable({ map = self, number = number, values = values, bytes = bytes }, Part)
    parallel.expect(number, part)
    self.parts[part] = true
    self.in_flight = self.in_flight + 1
  end
end

--- Takes the outcome of a part.
function Part:settle(ok, ...)
  local map = self.map
  map.parts[self] = nil
  map.in_flight = map.in_flight - 1
  if ok then
    self.results = (...)
    map:learn(self.values.n - HEADER, self.results[1], self.bytes)
    map.settled[#map.settled + 1] = self
  else
    map:take_failure(self, ...)
  end
  waiters.wake_all(map.waiting)
end

function Map:new_error(first, kind, message, traceback, value, position)
  local index = position and first + position - 1
  return errors.new(kind, message, { traceback = traceback, value = value, index = index, origin = self.origin })
end

--- Takes the failure of a whole part. If the worker died with it, and errors are collected, its values go one by one.
function Map:take_failure(part, kind, message, traceback, value, position)
  local values = part.values
  local first, count = values[1], values.n - HEADER
  if not self.collects or kind == "cancelled" then
    self.failure = self.failure or self:new_error(first, kind, message, traceback, value, position)
    return self:cancel()
  end
  if count > 1 then
    for i = count, 1, -1 do
      self.redo[#self.redo + 1] = { first + i - 1, true, values[HEADER + i], n = HEADER + 1 }
    end
    return
  end
  local failure = { position = 1, message = message, traceback = traceback, value = value, kind = kind }
  part.results = { 0, { failure }, n = HEADER + 1 }
  self.settled[#self.settled + 1] = part
end

--- Cancels what is in flight.
function Map:cancel()
  local parts = self.parts
  self.parts, self.in_flight, self.is_read, self.redo = {}, 0, true, {}
  for part in next, parts do
    parallel.cancel(part.number)
  end
  self:end_bar()
end

--- Tells how far it is.
function Map:report()
  if self.bar then
    native.progress_set(self.bar, self.done)
  elseif self.progress then
    self.progress(self.done, self.total)
  end
end

--- Leaves the bar as it is on the terminal.
function Map:end_bar()
  if self.bar then native.progress_end(self.bar) end
  self.bar = nil
end

--- Waits until another part has ended.
function Map:wait()
  if #self.settled > 0 or self.failure then return end
  if waiters.wait(self.waiting, nil, {}) ~= WAKE then check.raise("resumed by hand while it waited for a map") end
end

--- Takes the next part that has ended, with its errors by the places of their values; nil if all have. Waits for one.
function Map:next_part()
  self:fill()
  while self.in_flight > 0 and #self.settled == 0 and not self.failure do
    self:wait()
    self:fill()
  end
  if self.failure then error(self.failure, 0) end
  local part = remove(self.settled, 1)
  if not part then
    self:end_bar()
    return nil
  end
  local values, failures = part.values, {}
  for _, failure in next, part.results[2] or {} do
    local kind, at = failure.kind or "error", failure.position
    failures[at + HEADER] = self:new_error(values[1], kind, failure.message, failure.traceback, failure.value, at)
  end
  self.done = self.done + values.n - HEADER
  self:report()
  return part.values, part.results, failures
end

-- What users get ----------------------------------------------------------------------------------------------------

--- All results in their order, and the errors.
local function collect(self)
  local results, failures = {}, {}
  local values, part_results, part_failures = self:next_part()
  while values do
    local before = values[1] - HEADER - 1
    for i = HEADER + 1, values.n do
      results[before + i], failures[before + i] = part_results[i], part_failures[i]
    end
    values, part_results, part_failures = self:next_part()
  end
  if self.collects then return results, failures end
  return results
end

--- For `promise.start`: settles the promise of a map.
local function drive(target, self)
  promise.on_cancel(target, function()
    self:cancel()
  end)
  return promise.call(target, collect, self)
end

--- An iterator over the results as they come: the place of the value, and the result; or nil and the error.
local function as_completed(self)
  local values, results, failures
  local i = 0
  return function()
    while not values or i == values.n do
      values, results, failures = self:next_part()
      if not values then return nil end
      i = HEADER
    end
    i = i + 1
    return values[1] + i - HEADER - 1, results[i], failures[i]
  end
end

local function check_options(options)
  if options == nil then return {} end
  if type(options) ~= "table" then check.bad_argument(3, "map", "table", options) end
  local rest = {}
  for key, value in next, options do
    if key ~= "progress" then rest[key] = value end
  end
  check.options(rest, OPTIONS, 3, "map")
  local mode, chunk, progress = options.errors, options.chunk, options.progress
  if mode ~= nil and mode ~= "collect" and mode ~= "first" then
    local message = "bad argument #3 to 'map' (option 'errors': \"first\" or \"collect\" expected, got \"%s\")"
    check.raise(message:format(mode))
  end
  if chunk and (chunk < 1 or chunk % 1 ~= 0) then
    check.raise("bad argument #3 to 'map' (option 'chunk': whole number of at least 1 expected, got " .. chunk .. ")")
  end
  if progress ~= nil and type(progress) ~= "boolean" and not check.is_callable(progress) then
    local message = "bad argument #3 to 'map' (option 'progress': boolean or function expected, got %s)"
    check.raise(message:format(type(progress)))
  end
  return options
end

local function check_arguments(input, fn)
  local is_iterator = type(input) == "function" or check.is_callable(input)
  if type(input) ~= "table" and not is_iterator then
    check.bad_argument(1, "map", "table or iterator", input)
  end
  if type(fn) ~= "function" then check.bad_argument(2, "map", "function", fn) end
  return is_iterator
end

--- `parallel.map` and `pool:map`; `pool` is false for the default one.
local function start(pool, input, fn, options)
  local is_iterator = check_arguments(input, fn)
  options = check_options(options)
  local mapped, refused = native.map_function({ fn })
  if not mapped then check.raise((refused:gsub("argument #1", "argument #2", 1))) end
  local total = not is_iterator and #input or nil
  local is_function = type(options.progress) ~= "boolean"
  local self = setmetatable({
    pool = pool,
    mapped = mapped,
    workers = native.pool_size(pool),
    origin = compat.caller(),
    total = total,
    read_next = total and from_list(input, total) or from_iterator(input),
    read_count = 0,
    size = 1,
    chunk = options.chunk,
    collects = options.errors == "collect",
    progress = is_function and options.progress or nil,
    bar = options.progress == true and native.progress_start(total) or nil,
    done = 0,
    in_flight = 0,
    parts = {},
    redo = {},
    settled = {},
    waiting = waiters.new(),
  }, Map)
  if options.as_completed then return as_completed(self) end
  return promise.start(promise.new("a map started at " .. (self.origin or "?")), drive, self)
end

return { start = start }
