-- Errors for bad arguments, in the form that Lua's own functions give them, at the line that made the call.

local compat = ...

local error, type = error, type
local check = {}

--- Raises at the caller of the function that calls this.
local function bad_argument(position, name, expected, value)
  error(("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, expected, type(value)), 3)
end

check.bad_argument = bad_argument

function check.callable(value, position, name)
  if type(value) ~= "function" and not compat.is_callable(value) then
    error(("bad argument #%d to '%s' (function expected, got %s)"):format(position, name, type(value)), 3)
  end
end

return check
