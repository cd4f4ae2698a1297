-- What differs between the Lua versions, told by looking for the feature, not for the version.
-- Everything is taken into locals when the module loads, so that a program may change its globals afterwards.

local compat = {}

local debug = debug or {}
local getinfo = debug.getinfo
local getmetatable = debug.getmetatable or getmetatable
local rawequal, rawget, select, setmetatable, type = rawequal, rawget, select, setmetatable, type
local floor, sub = math.floor, string.sub

-- What the names of the module's own chunks begin with.
local OWN_CHUNKS = "=[scheduler]"

compat.unpack = table.unpack or unpack

compat.pack = table.pack or function(...)
  return { n = select("#", ...), ... }
end

local running = coroutine.running

--- The running coroutine; nil on the main thread, which Lua 5.1 says so and later ones by a second result.
function compat.running()
  local co, is_main = running()
  if not is_main then return co end
end

--- Whether the running coroutine can yield; where Lua cannot say (5.1, 5.2) `coroutine.yield` itself raises.
compat.isyieldable = coroutine.isyieldable or function()
  return true
end

--- Whether Lua tells beforehand that a coroutine cannot yield. If not, the wait that was registered for it must not
--- wake it from a later yield of the user's own.
compat.tells_yieldable = coroutine.isyieldable ~= nil

--- The value of a local variable of the function that a coroutine began with, if that is among `functions`. Lua takes
--- as many steps to a level as lie above it: after an overflow of the stack it would take minutes to look at one after
--- the other, so the last one is searched for.
local getlocal = debug.getlocal
function compat.first_local(co, functions, name)
  if not getinfo or not getinfo(co, 0, "f") then return nil end
  local level, beyond = 0, 1
  while getinfo(co, beyond, "l") do
    level, beyond = beyond, 2 * beyond
  end
  while beyond - level > 1 do
    local middle = floor((level + beyond) / 2)
    if getinfo(co, middle, "l") then level = middle else beyond = middle end
  end
  if not functions[getinfo(co, level, "f").func] then return nil end
  local index = 1
  repeat
    local found, value = getlocal(co, level, index)
    if found == name then return value end
    index = index + 1
  until found == nil
end

--- The traceback of a coroutine that failed with `err`; its pending `<close>` variables are closed after that (5.4 and
--- later). Then also whether that made another error, and which.
local traceback, close = debug.traceback, coroutine.close
compat.close, compat.traceback, compat.getinfo = close, traceback, getinfo
function compat.traceback_and_close(co, err)
  local text = traceback and traceback(co) or ""
  if not close then return text, false end
  local ok, other = close(co)
  local is_same = rawequal(other, err) or other ~= other and err ~= err -- NaN
  return text, not ok and not is_same, other
end

--- Keeps the outcome of a coroutine that has ended for as long as the coroutine is reachable, and no longer, even if
--- the outcome refers to the coroutine. Where a table with weak keys would keep such a pair for ever (5.1, LuaJIT), the
--- coroutine can hold a table itself: its environment, which it does not need any more. One that was cancelled may
--- still run there.
local outcomes = setmetatable({}, { __mode = "k" })
local getfenv, setfenv = debug.getfenv, debug.setfenv
if setfenv then
  local marked = {}
  function compat.keep_outcome(co, outcome)
    if outcome.cancelled then
      outcomes[co] = outcome
    else
      setfenv(co, setmetatable(outcome, marked))
    end
  end

  function compat.outcome_of(co)
    local environment = getfenv(co)
    if getmetatable(environment) == marked then return environment end
    return outcomes[co]
  end
else
  function compat.keep_outcome(co, outcome)
    outcomes[co] = outcome
  end

  function compat.outcome_of(co)
    return outcomes[co]
  end
end

function compat.is_callable(value)
  if type(value) == "function" then return true end
  local metatable = getmetatable(value)
  return type(metatable) == "table" and rawget(metatable, "__call") ~= nil
end

--- Whether a value has fields. A userdata may have none: light ones, say, raise for any that they are asked for.
function compat.has_fields(value)
  if type(value) ~= "userdata" then return type(value) == "table" end
  local metatable = getmetatable(value)
  if type(metatable) ~= "table" then return metatable ~= nil end
  return rawget(metatable, "__index") ~= nil
end

--- Whether a function of this source, as `debug.getinfo` names it, is one of the module's own.
function compat.is_own(source)
  return sub(source, 1, #OWN_CHUNKS) == OWN_CHUNKS
end

--- "file:line" of the program's function that runs: the module's own are passed over. Nil if there is none near.
function compat.caller()
  if not getinfo then return nil end
  for level = 2, 12 do
    local info = getinfo(level, "Sl")
    if not info then return nil end
    if info.currentline > 0 and not compat.is_own(info.source) then
      return info.short_src .. ":" .. info.currentline
    end
  end
end

--- Where a function was defined.
function compat.defined_at(fn)
  if type(fn) ~= "function" or not getinfo then return "?" end
  local info = getinfo(fn, "S")
  return info.what == "C" and "a C function" or info.short_src .. ":" .. info.linedefined
end

return compat
