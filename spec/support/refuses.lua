-- Whether a call is refused: `refuses(message, fn, ...)` checks that `fn(...)` raises a plain string, the message, at
-- the line of the call: here, or in the spec, if `fn` is a function there that makes it. The message is a pattern.

local HERE = debug.getinfo(1, "S").short_src

return function(message, fn, ...)
  local arguments = { n = select("#", ...), ... }
  local ok, err = pcall(function()
    fn((unpack or table.unpack)(arguments, 1, arguments.n))
    return nil
  end)
  if ok then error("nothing is raised", 2) end
  local place, text = tostring(err):match("^([^\n]-):%d+: (.*)$")
  local is_at_call = place == HERE or place == debug.getinfo(2, "S").short_src
  if type(err) ~= "string" or not is_at_call or not text:find("^" .. message .. "$") then
    error(("expected at the call: %s\nraised: %s"):format(message, tostring(err)), 2)
  end
end
