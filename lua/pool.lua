-- Pools: workers of one's own, with a bound on what may wait for them.

local native, check, parallel, load_map = ...

local format, gsub = string.format, string.gsub
local floor, pairs, setmetatable, tostring = math.floor, pairs, setmetatable, tostring

local Pool = { __name = "scheduler.pool" }
Pool.__index = Pool

local pool = { class = Pool }
local numbers = setmetatable({}, { __mode = "k" })

local function refuse_self(self, name)
  check.bad_self(self, name, "pool")
end

local OPTIONS = {
  size = "number",
  queue = "number",
  concurrency = "number",
  memory_limit = "number",
  idle = "number",
  name = "string",
  init = "function",
}

-- Those that are whole numbers, and the least that each may be; `queue` may be infinite.
local LEAST = { size = 1, queue = 0, concurrency = 1, memory_limit = 1 }
local MOST = 2 ^ 53

local function check_counts(options)
  for name, least in pairs(LEAST) do
    local value = options[name]
    local is_infinite = name == "queue" and value == math.huge
    if value and not is_infinite and (value < least or value > MOST or floor(value) ~= value) then
      local message = "bad argument #1 to 'pool' (option '%s': whole number of at least %d expected, got %s)"
      check.raise(format(message, name, least, tostring(value)))
    end
  end
end

--- `parallel.pool`.
function pool.new(options)
  local given = check.options(options, OPTIONS, 1, "pool")
  check_counts(given)
  local wanted = {}
  for name, value in pairs(given) do
    wanted[name] = value
  end
  if wanted.queue == math.huge then wanted.queue = nil end
  if given.init then
    wanted.init = { given.init }
    parallel.tell_paths()
  end
  local self, refused = native.new_pool(wanted)
  if not self then check.raise((gsub(refused, "argument #1", "option 'init'", 1))) end
  return self
end

--- The number by which the natives know a pool; nil of anything else.
local function number_of(self)
  local number = native.pool_number(self)
  if number then numbers[self] = number end
  return number
end

function Pool:run(fn, ...)
  local number = numbers[self] or number_of(self) or refuse_self(self, "run")
  return parallel.run_in(self, number, fn, ...)
end

function Pool:map(input, fn, options)
  if not native.is_pool(self) then refuse_self(self, "map") end
  return load_map().start(self, input, fn, options)
end

local function is_done(self)
  return native.pool_is_done(self)
end

--- Takes no more jobs, and waits for those that are queued or run. After so many seconds the rest is cancelled. Returns
--- whether all have ended by themselves.
function Pool:close(seconds)
  if not native.is_pool(self) then refuse_self(self, "close") end
  check.timeout(seconds, 1, "close")
  native.pool_close(self)
  if seconds and seconds <= 0 then
    local is_idle = is_done(self)
    native.pool_cancel_all(self)
    return is_idle
  end
  if native.is_own_pool(self) then check.raise("a job cannot wait for the end of the pool that it runs in") end
  if parallel.wait_for_end(self, seconds) then return true end
  native.pool_cancel_all(self)
  return false
end

function Pool:stats()
  if not native.is_pool(self) then refuse_self(self, "stats") end
  return native.pool_figures(self)
end

function Pool:__tostring()
  local figures = native.pool_figures(self)
  return format("pool of %d workers, %d jobs", figures.size, figures.queued + figures.running)
end

return pool
