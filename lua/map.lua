-- `parallel.map`: a function called for many values, in parts that are large enough to be worth their way.

local native, compat, check, errors, wait, waiters, promise, parallel, input, protected_call = ...

local error, ipairs, next, setmetatable, tonumber, type = error, ipairs, next, setmetatable, tonumber, type
local format, gsub, match = string.format, string.gsub, string.match
local remove, sort = table.remove, table.sort
local WAKE, HEADER = wait.WAKE, input.HEADER

-- Parts in flight for each job that runs at a time: the next one is there when one has ended.
local AHEAD = 2

local Map = {}
Map.__index = Map

local Part = {}
Part.__index = Part

local OPTIONS = { errors = "string", as_completed = "boolean", chunk = "number" }

-- Sending -----------------------------------------------------------------------------------------------------------

--- Ends the map: cancels what is in flight, and reads no more.
function Map:stop()
  local numbers = {}
  for part in next, self.parts do
    numbers[#numbers + 1] = part.number
  end
  self.parts, self.in_flight, self.settled, self.is_filling = {}, 0, {}, false
  self.input:close()
  -- Those first that were sent last, or a worker that gets free would take one which is still queued.
  sort(numbers)
  for i = #numbers, 1, -1 do
    parallel.cancel(numbers[i])
  end
  self:end_bar()
  waiters.wake_all(self.waiting)
end

--- Ends the map with an error, which whoever asks for results gets from now on.
function Map:fail(err)
  if self.has_failed then return end
  self.has_failed, self.failure = true, err
  self:stop()
end

--- An error of the value at this place in a part; of the whole part without one.
function Map:new_error(values, failure)
  local at = failure.position
  return errors.new(failure.kind or "error", failure.message, {
    traceback = failure.traceback,
    value = failure.value,
    index = at and values[1] + at - 1,
    origin = self.origin,
  })
end

--- Takes a part that has failed as a whole, if that has one value only, as one that has ended with an error.
function Map:settle_failed(part, failure)
  failure.position = 1
  part.results = { 0, { failure }, n = HEADER + 1 }
  self.settled[#self.settled + 1] = part
end

--- Takes a part that cannot be sent.
function Map:refuse(part, refused)
  local values = part.values
  if refused == parallel.CLOSED then
    return self:fail(self:new_error(values, { kind = "closed", message = "the pool is closed", traceback = "" }))
  end
  local at = tonumber(match(refused, "argument #(%d+)"))
  local message = at and gsub(refused, "argument #%d+", "item #" .. at - HEADER + values[1] - 1, 1) or refused
  local failure = { message = message, traceback = "", position = at and at - HEADER }
  if not at or not self.collects then return self:fail(self:new_error(values, failure)) end
  if values.n == HEADER + 1 then return self:settle_failed(part, failure) end
  -- The last one comes first.
  self.input:take_back(values, at + 1, values.n)
  self.input:take_back(values, at, at)
  self.input:take_back(values, HEADER + 1, at - 1)
end

--- Sends as much as there is to be in flight.
local function fill(self)
  while self.in_flight + #self.settled < self.width and not self.has_failed do
    local values = self.input:next_part()
    if not values then return end
    local part = setmetatable({ map = self, values = values }, Part)
    local number, bytes, refused = parallel.send(self.pool, native.submit_part, values, values.n, self.mapped)
    if number then
      part.number, part.bytes = number, bytes
      parallel.expect(number, part)
      self.parts[part] = true
      self.in_flight = self.in_flight + 1
    else
      self:refuse(part, refused)
    end
  end
end

--- Sends what is to be in flight, unless another task is about to: an iterator may wait.
function Map:fill()
  if self.is_filling or self.has_failed then return end
  self.is_filling = true
  local ok, err = protected_call(fill, self)
  self.is_filling = false
  if not ok then self:fail(err) end
  waiters.wake_all(self.waiting)
end

-- Taking ------------------------------------------------------------------------------------------------------------

--- Takes the outcome of a part.
function Part:settle(ok, ...)
  local map = self.map
  map.parts[self] = nil
  map.in_flight = map.in_flight - 1
  if ok ~= false then
    self.results = (...)
    map.input:learn(self.values.n - HEADER, self.results[1], self.bytes)
    map.settled[#map.settled + 1] = self
  else
    local kind, message, traceback, value, position = ...
    map:take_failure(self, {
      kind = kind, message = message, traceback = traceback, value = value, position = position,
    })
  end
  waiters.wake_all(map.waiting)
end

--- Takes the failure of a whole part. If the worker died with it, and errors are collected, its values go one by one.
function Map:take_failure(part, failure)
  local values = part.values
  if failure.kind == "cancelled" or not self.collects then
    if failure.kind == "cancelled" and self.target then promise.cancel(self.target, failure.message) end
    return self:fail(self:new_error(values, failure))
  end
  if values.n == HEADER + 1 then return self:settle_failed(part, failure) end
  for i = values.n, HEADER + 1, -1 do
    self.input:take_back(values, i, i)
  end
end

--- Tells how far it is.
function Map:report()
  if self.bar then
    native.progress_set(self.bar, self.done)
  elseif self.progress then
    local ok, err = protected_call(self.progress, self.done, self.input.total)
    if not ok then self:fail(err) end
  end
end

--- Leaves the bar as it is on the terminal.
function Map:end_bar()
  if self.bar then native.progress_end(self.bar) end
  self.bar = nil
end

--- Waits until a part has ended, or nothing is left that could.
function Map:wait()
  while #self.settled == 0 and not self.has_failed and (self.in_flight > 0 or self.is_filling) do
    if waiters.wait(self.waiting) ~= WAKE then check.raise("resumed by hand while it waited for a map") end
    self:fill()
  end
end

--- Takes the next part that has ended, with its errors by the places of their values; nil if all have. Waits for one.
function Map:next_part()
  self:fill()
  self:wait()
  local part = remove(self.settled, 1)
  if part then
    self.done = self.done + part.values.n - HEADER
    self:report()
  end
  if self.has_failed then error(self.failure, 0) end
  if not part then
    self:end_bar()
    return nil
  end
  part.failures = {}
  for _, failure in ipairs(part.results[2] or {}) do
    part.failures[failure.position + HEADER] = self:new_error(part.values, failure)
  end
  return part
end

-- What users get ----------------------------------------------------------------------------------------------------

--- All results in their order, and the errors.
local function collect(self)
  local results, failures = {}, {}
  local part = self:next_part()
  while part do
    local before = part.values[1] - HEADER - 1
    for i = HEADER + 1, part.values.n do
      results[before + i], failures[before + i] = part.results[i], part.failures[i]
    end
    part = self:next_part()
  end
  if self.collects then return results, failures end
  return results
end

--- For `promise.start`: settles the promise of a map.
local function drive(target, self)
  self.target = target
  promise.on_cancel(target, function()
    self:stop()
  end)
  return promise.call(target, collect, self)
end

--- An iterator over the results as they come: the place of the value, and the result; or nil and the error. Several
--- tasks may share it. Where Lua closes what a loop runs over, `break` cancels what is in flight.
local function as_completed(self)
  local taken, i = {}, HEADER
  local function next_result()
    while not taken[1] do
      local part = self:next_part()
      if not part then return nil end
      taken[#taken + 1] = part
    end
    local part = taken[1]
    i = i + 1
    local place, result, failure = part.values[1] + i - HEADER - 1, part.results[i], part.failures[i]
    if i == part.values.n then
      remove(taken, 1)
      i = HEADER
    end
    return place, result, failure
  end
  return next_result, nil, nil, setmetatable({}, {
    __close = function()
      self:stop()
    end,
  })
end

local function bad_option(name, expected, got)
  check.raise(format("bad argument #3 to 'map' (option '%s': %s expected, got %s)", name, expected, got))
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
  if mode and mode ~= "collect" and mode ~= "first" then
    bad_option("errors", '"first" or "collect"', '"' .. mode .. '"')
  end
  if chunk and (chunk < 1 or chunk % 1 ~= 0) then bad_option("chunk", "whole number of at least 1", chunk) end
  if progress ~= nil and type(progress) ~= "boolean" and not check.is_callable(progress) then
    bad_option("progress", "boolean or function", type(progress))
  end
  return options
end

local function check_arguments(values, fn)
  if type(values) ~= "table" and type(values) ~= "function" and not check.is_callable(values) then
    check.bad_argument(1, "map", "table or iterator", values)
  end
  if type(fn) ~= "function" then check.bad_argument(2, "map", "function", fn) end
end

--- `parallel.map` and `pool:map`; `pool` is false for the default one.
local function start(pool, values, fn, options)
  check_arguments(values, fn)
  options = check_options(options)
  local mapped, refused = native.map_function({ fn })
  if not mapped then check.raise((gsub(refused, "argument #1", "argument #2", 1))) end
  local width = AHEAD * native.pool_width(pool)
  local source = input.new(values, options, width)
  local self = setmetatable({
    pool = pool,
    mapped = mapped,
    input = source,
    origin = compat.caller(),
    width = width,
    collects = options.errors == "collect",
    progress = type(options.progress) ~= "boolean" and options.progress or nil,
    bar = options.progress == true and native.progress_start(source.total) or nil,
    done = 0,
    in_flight = 0,
    parts = {},
    settled = {},
    waiting = waiters.new(nil, "the results of a map"),
  }, Map)
  if options.as_completed then return as_completed(self) end
  return promise.start(promise.new("a map started at " .. (self.origin or "?")), drive, self)
end

return { start = start }
