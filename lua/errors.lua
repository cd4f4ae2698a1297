-- Errors: the objects that the module raises where a program may want to tell them apart, and where uncaught errors
-- go: one handler, and what it does if the program gives none.

local native, compat, check = ...

local error, find, pcall, setmetatable = error, string.find, pcall, setmetatable
local tostring, type = tostring, type
local write_stderr = native.write_stderr

local errors = { reported = 0, written = 0 }
local handler

local Error = { __name = "scheduler.error" }
Error.__index = Error

function Error:__tostring()
  if not self.traceback or self.traceback == "" then return self.message end
  return self.message .. "\n" .. self.traceback
end

--- An error object, by its kind; `fields` are what else it tells.
function errors.new(kind, message, fields)
  local err = fields or {}
  err.kind, err.message = kind, message
  return setmetatable(err, Error)
end

--- Raises that something is closed, at the line of the program that called the module.
function errors.raise_closed(what)
  local caller = check.caller()
  error(errors.new("closed", (caller and caller .. ": " or "") .. what .. " is closed"), 0)
end

--- An error value in words, whatever it is: `__tostring` may be missing, or fail.
local function describe(err)
  if type(err) == "string" then return err end
  local ok, text = pcall(tostring, err)
  if not ok or type(text) ~= "string" then return "(error object is a " .. type(err) .. " value)" end
  return text
end

errors.describe = describe

local function write(err, traceback, source)
  errors.written = errors.written + 1
  local text = describe(err)
  -- The error of a job tells its traceback by itself.
  if traceback ~= "" and not find(text, traceback, 1, true) then text = text .. "\n" .. traceback end
  write_stderr("scheduler: uncaught error in " .. source .. ": " .. text .. "\n")
end

--- Writes an uncaught error to stderr, without asking the error handler.
function errors.write(err, traceback, source)
  errors.reported = errors.reported + 1
  write(err, traceback, source)
end

--- Reports an uncaught error. `source` names where it comes from, "a timer set at main.lua:3".
function errors.report(err, traceback, source)
  if errors.is_expected and errors.is_expected(err) then return end
  errors.reported = errors.reported + 1
  if handler ~= nil then
    local ok, failure = pcall(handler, err, traceback, source)
    if ok then return end
    write(failure, "", "the error handler")
  end
  write(err, traceback, source)
end

function errors.on_error(new)
  if new ~= nil and not compat.is_callable(new) then check.bad_argument(1, "on_error", "function or nil", new) end
  local former = handler
  handler = new
  return former
end

return errors
