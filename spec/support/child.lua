-- Runs Lua programs in processes of their own, with a time limit: for what ends a process, or could hang it.

local child = {}

local TIME_LIMIT = 60 -- seconds; generous, as machines may be busy

-- What Lua's processes run under, valgrind say, in words without blanks; and how much slower that is. See `spec/deep/`.
local UNDER, PATIENCE = {}, tonumber(os.getenv("CHILD_PATIENCE")) or 1
for word in (os.getenv("CHILD_UNDER") or ""):gmatch("%S+") do
  UNDER[#UNDER + 1] = word
end

--- The interpreter that runs this spec.
local function find_interpreter()
  local lowest = 0
  while arg[lowest - 1] do
    lowest = lowest - 1
  end
  return arg[lowest]
end

child.interpreter = find_interpreter()

function child.quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  os.remove(path)
  return text
end

function child.write(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

--- Runs a command in words, for so many seconds at the most; returns its exit code, and what it wrote.
function child.command(words, seconds)
  local out, err, code = os.tmpname(), os.tmpname(), os.tmpname()
  local quoted = {}
  for i, word in ipairs(words) do
    quoted[i] = child.quote(word)
  end
  local line = ("timeout -k 5 %d %s >%s 2>%s </dev/null; echo $? >%s"):format(
    (seconds or TIME_LIMIT) * PATIENCE, table.concat(quoted, " "), out, err, code)
  os.execute(line)
  return { code = tonumber(read(code)), out = read(out), err = read(err) }
end

--- The same, for a program that opens Lua states.
local function lua_command(words, seconds)
  local all = {}
  for _, list in ipairs({ UNDER, words }) do
    for _, word in ipairs(list) do
      all[#all + 1] = word
    end
  end
  return child.command(all, seconds)
end

--- Runs this interpreter with these arguments.
function child.run(arguments)
  local words = { child.interpreter }
  for _, word in ipairs(arguments) do
    words[#words + 1] = word
  end
  return lua_command(words)
end

--- Runs a script, in which `scheduler` is loaded already.
function child.script(source, ...)
  local path = child.write("local scheduler = require('scheduler')\n" .. source)
  local result = child.run({ path, ... })
  os.remove(path)
  return result
end

--- The shared library of this interpreter, for the host that opens states of its own.
function child.library()
  if jit then return "libluajit-5.1.so.2" end
  return "lib" .. _VERSION:lower():gsub(" ", "") .. ".so.0"
end

--- The host program, built if it is not there yet.
local function host()
  local path = "build/host"
  local file = io.open(path, "rb")
  if file then
    file:close()
  else
    os.execute("make -s " .. path)
  end
  return path
end

--- Runs a script in the host (`spec/host/host.c`): in so many states one after the other, on so many threads at once.
function child.host(source, states, threads)
  local path = child.write(source)
  local result = lua_command({ host(), child.library(), path, states or 1, threads or 1 })
  os.remove(path)
  return result
end

--- Runs a script in the host again and again in one state: each time on another thread.
function child.host_moving(source, threads)
  local path = child.write(source)
  local result = lua_command({ host(), "move", child.library(), path, threads })
  os.remove(path)
  return result
end

--- Runs a script in one state after the other whose allocator fails later and later, see `spec/host/memory.c`.
function child.host_without_memory(source, failures, step, first)
  local path = child.write(source)
  local result = lua_command({ host(), "memory", child.library(), path, failures, step, first }, 20 * TIME_LIMIT)
  os.remove(path)
  return result
end

return child
