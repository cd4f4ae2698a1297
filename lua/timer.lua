-- The JS family: setTimeout and its kin, in milliseconds.

local native, compat, check, loop = ...

local select, type = select, type
local pack, unpack = compat.pack, compat.unpack
local overlapping = loop.overlapping
local set_timeout, set_interval, set_immediate = native.set_timeout, native.set_interval, native.set_immediate

local timer = {}

--- What calls `fn` with these arguments, nils included: `fn` itself if there are none.
local function bound(fn, ...)
  local count = select("#", ...)
  if count == 0 then
    return fn
  elseif count == 1 then
    local a = ...
    return function()
      return fn(a)
    end
  elseif count == 2 then
    local a, b = ...
    return function()
      return fn(a, b)
    end
  end
  local args = pack(...)
  return function()
    return fn(unpack(args, 1, count))
  end
end

--- What the raw functions leave to Lua: further arguments, callable tables, mistakes.
local function set_slowly(fn, ms, ...)
  check.callable(fn, 1, "setTimeout")
  return set_timeout(bound(fn, ...), ms) or check.bad_argument(2, "setTimeout", "number", ms)
end

local function clear_slowly(id)
  check.bad_argument(1, "clearTimeout", "number", id)
end

timer.setTimeout, timer.clearTimeout =
  native.timer_functions(loop.callbacks, overlapping, loop.waiting, set_slowly, clear_slowly)
-- One function under three names: timers and immediates share their ids.
timer.clearInterval, timer.clearImmediate = timer.clearTimeout, timer.clearTimeout

-- As the native numbers them.
local SKIP = 0
local missed_modes = { skip = SKIP, burst = 1, delay = 2 }

--- The period and the ways of an interval, from what stands in place of `ms`.
local function interval_options(options)
  if type(options) ~= "table" then return options, SKIP, false end
  local missed = options.missed == nil and SKIP or missed_modes[options.missed]
  if not missed then
    check.raise("bad argument #2 to 'setInterval' (field 'missed' must be \"skip\", \"burst\" or \"delay\")")
  end
  if type(options.ms) ~= "number" or options.ms ~= options.ms then
    check.raise("bad argument #2 to 'setInterval' (field 'ms' must be a number and not NaN)")
  end
  return options.ms, missed, options.overlap
end

function timer.setInterval(fn, ms, ...)
  if type(fn) ~= "function" then check.callable(fn, 1, "setInterval") end
  local period, missed, overlap = interval_options(ms)
  return set_interval(bound(fn, ...), period, missed, overlap and overlapping)
    or check.bad_argument(2, "setInterval", "number", ms)
end

function timer.setImmediate(fn, ...)
  if type(fn) ~= "function" then check.callable(fn, 1, "setImmediate") end
  local id = set_immediate(bound(fn, ...))
  loop.has_immediates = true
  return id
end

function timer.queueMicrotask(fn, ...)
  if type(fn) ~= "function" then check.callable(fn, 1, "queueMicrotask") end
  if type(fn) == "function" then return loop.queue_microtask(bound(fn, ...)) end
  -- A table that can be called would be taken for one that reacts.
  local arguments = pack(...)
  loop.queue_microtask(function()
    fn(unpack(arguments, 1, arguments.n))
  end)
end

local function check_id(id, name)
  if type(id) ~= "number" then check.bad_argument(1, name, "number", id) end
end

function timer.ref(id)
  check_id(id, "ref")
  native.set_ref(id, true)
  return id
end

function timer.unref(id)
  check_id(id, "unref")
  native.set_ref(id, false)
  return id
end

function timer.hasRef(id)
  check_id(id, "hasRef")
  return native.has_ref(id)
end

function timer.refresh(id)
  check_id(id, "refresh")
  return native.refresh(id)
end

return timer
