-- Commands of the runner: how they are put together, and what they print.

local shell = {}

-- Variables that would be taken in place of those that the children are given.
local UNSET = "-u LUA_PATH_5_2 -u LUA_PATH_5_3 -u LUA_PATH_5_4 -u LUA_CPATH_5_2 -u LUA_CPATH_5_3 -u LUA_CPATH_5_4"

function shell.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The lines that `command` prints, and whether it succeeded.
function shell.lines(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  return lines, pipe:close() == true
end

--- The first line that `command` prints on either stream; nil if it fails.
function shell.line(command)
  local lines, succeeded = shell.lines(command .. " 2>&1")
  return succeeded and lines[1] or nil
end

--- A command line for an interpreter that finds its own build of scheduler, and the files of bench/.
function shell.interpreter(name, arguments)
  local environment = ("LUA_PATH='./?.lua;;' LUA_CPATH='build/%s/?.so;;'"):format(name)
  return ("env %s %s %s %s"):format(UNSET, environment, name, arguments)
end

return shell
