-- Checks Lua files with luacheck on all cores, one job for a few files at a time, and compares with the same in one Lua
-- state, and with `luacheck -j`, which needs LuaLanes. luacheck itself is what is installed, unchanged.
--
-- usage: lua examples/check.lua [FOLDER...]     (without any: the sources and specs of this project)

local scheduler = require("scheduler")

local MOST_SHOWN = 5

local here = arg[0]:match("^.*/") or "./"
local root = here:match("^(.-)[^/.]+/$") or here .. "../"
-- luacheck runs on every Lua, but Debian has it in the folder of 5.1 alone. Workers search where we do.
package.path = package.path .. ";/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua"

local function fail(message)
  io.stdout:flush()
  io.stderr:write("check: ", message, "\n")
  os.exit(1)
end

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function lines_of(command)
  local output, lines = assert(io.popen(command)), {}
  for line in output:lines() do
    lines[#lines + 1] = line
  end
  output:close()
  return lines
end

local function find_sources(folders)
  local words = {}
  for i, folder in ipairs(folders) do
    words[i] = quote(folder)
  end
  return lines_of("find " .. table.concat(words, " ") .. " -type f -name '*.lua' | sort")
end

--- What luacheck says of a file, as a list of lines. Sent to the workers as it is: each of them requires its luacheck.
local function check(path)
  local luacheck = require("luacheck")
  local options = { std = "max+busted", max_line_length = 120, max_cyclomatic_complexity = 6 }
  local report, messages = luacheck.check_files({ path }, options)[1], {}
  if report.fatal then return { path .. ": " .. (report.msg or report.fatal) } end
  for i, event in ipairs(report) do
    messages[i] = ("%s:%d:%d: %s"):format(path, event.line, event.column, luacheck.get_message(event))
  end
  return messages
end

local function timed(what, fn, ...)
  local start = scheduler.now()
  local result = fn(...)
  local seconds = (scheduler.now() - start) / 1000
  print(("%-16s %6.2f s"):format(what, seconds))
  return result, seconds
end

local function in_parallel(paths)
  return scheduler.parallel.map(paths, check, { progress = true }):expect()
end

local function in_one_state(paths)
  local all = {}
  for i, path in ipairs(paths) do
    all[i] = check(path)
  end
  return all
end

--- `luacheck -j`, in a process of its own. Without LuaLanes it takes the option and checks one file after the other.
local function with_lanes(folders)
  local version = table.concat(lines_of("luacheck --version 2>&1"), "\n")
  if not version:find("LuaLanes: %d") then return print("luacheck -j      not compared: LuaLanes is not installed") end
  local command = "luacheck -qq --no-config --std max+busted --max-cyclomatic-complexity 6 -j"
  local words = { command, scheduler.stats().workers }
  for _, folder in ipairs(folders) do
    words[#words + 1] = quote(folder)
  end
  timed("luacheck -j", os.execute, table.concat(words, " ") .. " >/dev/null 2>&1")
end

local function flatten(all)
  local lines = {}
  for _, messages in ipairs(all) do
    for _, message in ipairs(messages) do
      lines[#lines + 1] = message
    end
  end
  return lines
end

local function main(folders)
  if not pcall(require, "luacheck") then return print("luacheck is not installed: nothing to show here") end
  local paths = find_sources(folders)
  if #paths == 0 then fail("no Lua files in " .. table.concat(folders, ", ")) end
  print(("luacheck %s, %d Lua files"):format(require("luacheck")._VERSION, #paths))

  local parallel, seconds = timed("on all cores", in_parallel, paths)
  local alone, seconds_alone = timed("in one Lua state", in_one_state, paths)
  with_lanes(folders)
  local lines = flatten(parallel)
  if table.concat(lines, "\n") ~= table.concat(flatten(alone), "\n") then fail("the results differ") end
  print(("speed-up %.2f; the same %d messages%s"):format(seconds_alone / seconds, #lines, #lines > 0 and ":" or ""))
  for i = 1, math.min(#lines, MOST_SHOWN) do
    print("  " .. lines[i])
  end
  if #lines > MOST_SHOWN then print("  ...") end
end

main(#arg > 0 and arg or { root .. "lua", root .. "spec" })
