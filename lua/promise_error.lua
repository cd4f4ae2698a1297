-- `Promise.Error`: the error objects of promises, with a kind and the error that they come from.

local compat = ...

local format = string.format
local getmetatable, pairs, setmetatable, tostring, type = getmetatable, pairs, setmetatable, tostring, type
local error, rawget = error, rawget
local concat = table.concat

--- Names that stand for themselves; to ask for another one is an error.
local function enumeration(name, members)
  local values = {}
  for _, member in pairs(members) do
    values[member] = member
  end
  return setmetatable(values, {
    __index = function(_, key)
      error(format("%s is not a valid member of %s", tostring(key), name), 2)
    end,
    __newindex = function()
      error(name .. " cannot be changed", 2)
    end,
  })
end

local Error = { __name = "Promise.Error" }
Error.__index = Error

Error.enumeration = enumeration
Error.Kind =
  enumeration("Promise.Error.Kind", { "ExecutionError", "AlreadyCancelled", "NotResolvedInTime", "TimedOut" })

--- An error of this kind, with what it is about, and the error that it comes from.
function Error.new(options, parent)
  options = options or {}
  return setmetatable({
    error = options.error == nil and "(no error text)" or tostring(options.error),
    trace = options.trace,
    context = options.context,
    kind = options.kind,
    parent = parent,
    createdAt = compat.caller(),
  }, Error)
end

function Error.is(anything)
  if type(anything) ~= "table" then return false end
  local metatable = getmetatable(anything)
  if type(metatable) ~= "table" or rawget(anything, "error") == nil then return false end
  return type(rawget(metatable, "extend")) == "function"
end

function Error.isKind(anything, kind)
  if kind == nil then error("bad argument #2 to 'isKind' (kind expected, got nil)", 2) end
  return Error.is(anything) and anything.kind == kind
end

--- A new error that comes from this one; its kind is the same unless told otherwise.
function Error:extend(options)
  local fields = {}
  for key, value in pairs(options or {}) do
    fields[key] = value
  end
  if fields.kind == nil then fields.kind = self.kind end
  return Error.new(fields, self)
end

--- This error, the one that it comes from, and so on to the first.
function Error:getErrorChain()
  local errors, at = {}, self
  while at do
    errors[#errors + 1] = at
    at = at.parent
  end
  return errors
end

function Error:__tostring()
  local lines = {}
  for _, err in pairs(self:getErrorChain()) do
    lines[#lines + 1] = err.trace or err.error
    lines[#lines + 1] = err.context
  end
  return format("Promise.Error(%s): %s", self.kind or "?", concat(lines, "\n"))
end

return Error
