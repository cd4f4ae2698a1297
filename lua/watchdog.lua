-- The watchdog: reports a callback or a task that holds the loop for too long, while it still does.
--
-- The hook that looks (see src/binding/raw/watch.rs) is set on all that is there, and new coroutines take it over from
-- those that make them. Where it cannot look, in C functions and in code that LuaJIT has compiled, the
-- report comes when the loop has control again.

local native, looking, compat, check, errors, wait, outcome, loop, tasks = ...

local getinfo, traceback = compat.getinfo, compat.traceback
local ipairs, pcall, type = ipairs, pcall, type
local format, gsub = string.format, string.gsub
local watch_step, next_work = looking.watch_step, native.next_work
loop.watch_hook = looking.watch_hook
local WAKE = native.WAKE

local handler
local last, last_origin -- the coroutine that was resumed last, nil if it was that of callbacks; where it comes from

local function report(how, held, text, source)
  if handler then
    local ok, failure = pcall(handler, held, text, source)
    if not ok then errors.report(failure, "", "the function given to 'watchdog'") end
    return
  end
  errors.report(errors.new("watchdog", format("the loop %s held for %.3g s", how, held)), text, source)
end

--- The traceback of the code that runs, without what has looked.
local function traceback_here()
  if not traceback then return "" end
  local level = 2
  local info = getinfo(level, "S")
  while info and (info.what == "C" or compat.is_own(info.source)) do
    level = level + 1
    info = getinfo(level, "S")
  end
  return gsub(traceback("", info and level or 2), "^\n", "")
end

--- In words, what ran last; it may have ended.
local function describe_last()
  local origin = last_origin or native.fired_origin()
  if last and (outcome.names[last] or not last_origin) then return outcome.describe(last) end
  return type(origin) == "number" and native.describe(origin) or origin
end

--- Called by the hook, in the code that holds the loop.
function looking.watcher.report(held)
  local co = loop.thread and looking.resumed_by(loop.thread)
  -- It has just ended: it was compiled, or a C function.
  if not co then return report("was", held, "", describe_last()) end
  report("is", held, (traceback_here()), loop.describe_source(co))
end

local function note_last(co)
  last, last_origin = co, co and (outcome.origins[co] or looking.origin_in(co))
end

--- Something else begins to run, or nothing.
local function step(is_idle, co)
  local held = watch_step(is_idle)
  if held then report("was", held, "", describe_last()) end
  if type(co) ~= "thread" then co = nil end
  note_last(co)
end

local function next_watched_work()
  step(false)
  local kind, slot = next_work()
  if kind == WAKE then
    local sleeper = loop.callbacks[slot]
    if type(sleeper) == "table" then sleeper = sleeper.co end
    if type(sleeper) == "thread" then note_last(sleeper) end
  end
  return kind, slot
end

--- Sets the hook on all that is there already.
local function hook_all()
  looking.watch_hook(native.thread())
  if loop.thread then looking.watch_hook(loop.thread) end
  for _, co in ipairs(tasks.find()) do
    looking.watch_hook(co)
  end
  loop.drop_idle()
end

--- Watches for what holds the loop longer than so many seconds; nil for no more.
local function set(seconds, fn)
  handler, last, last_origin = fn, nil, nil
  looking.watch_limit(seconds)
  looking.set_watch(seconds and looking.watch_look or nil)
  wait.watch(seconds and step or nil)
  loop.next_work_by(seconds and next_watched_work or next_work)
  if seconds then hook_all() end
end

loop.drop_watchdog = set

--- `scheduler.watchdog`.
return function(seconds, fn)
  if seconds ~= nil and (type(seconds) ~= "number" or seconds ~= seconds) then
    check.bad_argument(1, "watchdog", "number or nil", seconds)
  end
  if seconds and seconds <= 0 then check.raise("bad argument #1 to 'watchdog' (seconds above 0 expected)") end
  if fn ~= nil then check.callable(fn, 2, "watchdog") end
  set(seconds, fn)
end
