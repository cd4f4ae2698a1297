-- What differs between the Lua versions, told by looking for the feature, not for the version.
-- Everything is taken into locals when the module loads, so that a program may change its globals afterwards.

local compat = {}

local debug = debug or {}
local getinfo = debug.getinfo
local getmetatable = debug.getmetatable or getmetatable
local rawget, select, type = rawget, select, type

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

--- Whether `co` is fresh or suspended in a call of `fn`, which called `coroutine.yield`. Needed where Lua cannot tell
--- beforehand that a yield is going to fail: the wait that was registered for it must not wake the coroutine from a
--- later yield of the user's own.
if coroutine.isyieldable or not getinfo then
  function compat.is_suspended_in()
    return true
  end
else
  function compat.is_suspended_in(co, fn)
    local info = getinfo(co, 1, "f")
    if info == nil then return getinfo(co, 0, "f") == nil end
    return info.func == fn
  end
end

--- The traceback of a coroutine that failed; its pending `<close>` variables are closed after that (5.4 and later).
local traceback, close = debug.traceback, coroutine.close
function compat.traceback_and_close(co)
  local text = traceback and traceback(co) or ""
  if close then close(co) end
  return text
end

function compat.is_callable(value)
  if type(value) == "function" then return true end
  local metatable = getmetatable(value)
  return type(metatable) == "table" and rawget(metatable, "__call") ~= nil
end

--- "file:line" of the caller at `level`, or of the Lua function nearest above it.
function compat.where(level)
  if not getinfo then return "?" end
  for at = level + 1, level + 5 do
    local info = getinfo(at, "Sl")
    if not info then break end
    if info.currentline > 0 then return info.short_src .. ":" .. info.currentline end
  end
  return "?"
end

--- Where a function was defined.
function compat.defined_at(fn)
  if type(fn) ~= "function" or not getinfo then return "?" end
  local info = getinfo(fn, "S")
  return info.what == "C" and "a C function" or info.short_src .. ":" .. info.linedefined
end

return compat
