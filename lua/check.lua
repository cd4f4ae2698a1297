-- Errors for bad arguments, in the form that Lua's own functions give them, at the line of the program that made the
-- call.

local compat = ...

local format, match = string.format, string.match
local error, floor, getmetatable, pairs, tostring, type = error, math.floor, getmetatable, pairs, tostring, type
local check = { caller = compat.caller, is_callable = compat.is_callable }

local function kind_of(value)
  return value ~= value and "NaN" or type(value)
end

--- Raises a message at the line of the program that called the module.
function check.raise(message)
  local caller = compat.caller()
  error(caller and caller .. ": " .. message or message, 0)
end

local raise = check.raise

function check.bad_argument(position, name, expected, value)
  raise(format("bad argument #%d to '%s' (%s expected, got %s)", position, name, expected, kind_of(value)))
end

local bad_argument = check.bad_argument

function check.callable(value, position, name)
  if type(value) == "function" or compat.is_callable(value) then return end
  bad_argument(position, name, "function", value)
end

--- Raises that a method was called on something else than its object: with a dot, say, for a colon. `class` is what it
--- should have been.
function check.bad_self(self, name, class)
  raise(format("calling '%s' on bad self (%s expected, got %s)", name, class, type(self)))
end

--- That a method was called on an object of its class. The methods that are called most look only whether there is any:
--- this takes as long as what they do.
function check.self(self, class, name)
  if getmetatable(self) ~= class then check.bad_self(self, name, match(class.__name, "[^.]+$")) end
end

function check.number(value, position, name)
  if type(value) ~= "number" or value ~= value then bad_argument(position, name, "number", value) end
end

--- Seconds to wait at the most; nil is no limit.
function check.timeout(value, position, name)
  if value ~= nil then check.number(value, position, name) end
end

--- A whole number, at least `least`, that may be infinite.
function check.count(value, least, position, name)
  if type(value) ~= "number" or value ~= value or value < least or floor(value) ~= value then
    local got = type(value) == "number" and value == value and tostring(value) or kind_of(value)
    local expected = format("whole number of at least %d expected, got %s", least, got)
    raise(format("bad argument #%d to '%s' (%s)", position, name, expected))
  end
end

--- A table of options of which only these are known, each with the type that it must have.
function check.options(options, known, position, name)
  if options == nil then return {} end
  if type(options) ~= "table" then bad_argument(position, name, "table", options) end
  for key, value in pairs(options) do
    local expected = known[key]
    local is_right = type(value) == expected and value == value or expected == "function" and compat.is_callable(value)
    if not expected then
      raise(format("bad argument #%d to '%s' (unknown option '%s')", position, name, tostring(key)))
    elseif not is_right then
      local message = "bad argument #%d to '%s' (option '%s': %s expected, got %s)"
      raise(format(message, position, name, key, expected, kind_of(value)))
    end
  end
  return options
end

return check
