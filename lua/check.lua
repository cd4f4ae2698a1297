-- Errors for bad arguments, in the form that Lua's own functions give them, at the line that made the call.

local compat = ...

local error, type = error, type
local check = {}

local function kind_of(value)
  return value ~= value and "NaN" or type(value)
end

--- Raises at the caller of the function that calls this, or at another `level` counted from here.
function check.bad_argument(position, name, expected, value, level)
  error(("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, expected, kind_of(value)), level or 3)
end

function check.callable(value, position, name, level)
  if type(value) ~= "function" and not compat.is_callable(value) then
    error(("bad argument #%d to '%s' (function expected, got %s)"):format(position, name, type(value)), level or 3)
  end
end

return check
