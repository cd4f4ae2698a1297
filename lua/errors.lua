-- Where uncaught errors go: one handler, and what it does if the program gives none.

local native, compat = ...

local error, find, pcall, tostring, type = error, string.find, pcall, tostring, type
local write_stderr = native.write_stderr

local errors = { reported = 0 }
local handler

--- An error value in words, whatever it is: `__tostring` may be missing, or fail.
local function describe(err)
  if type(err) == "string" then return err end
  local ok, text = pcall(tostring, err)
  if not ok or type(text) ~= "string" then return "(error object is a " .. type(err) .. " value)" end
  return text
end

errors.describe = describe

local function write(err, traceback, source)
  local text = describe(err)
  -- The error of a job tells its traceback by itself.
  if traceback ~= "" and not find(text, traceback, 1, true) then text = text .. "\n" .. traceback end
  write_stderr("scheduler: uncaught error in " .. source .. ": " .. text .. "\n")
end

--- Reports an uncaught error. `source` names where it comes from, "a timer set at main.lua:3".
function errors.report(err, traceback, source)
  errors.reported = errors.reported + 1
  if handler ~= nil then
    local ok, failure = pcall(handler, err, traceback, source)
    if ok then return end
    write(failure, "", "the error handler")
  end
  write(err, traceback, source)
end

function errors.on_error(new)
  if new ~= nil and not compat.is_callable(new) then
    error(("bad argument #1 to 'on_error' (function or nil expected, got %s)"):format(type(new)), 2)
  end
  local former = handler
  handler = new
  return former
end

return errors
