-- Runs commands of the shell without holding up the loop, and ends them with the task that waits for them.
--
-- The module has no processes of its own yet. So a shell runs the command in the background and leaves its exit status
-- in a file, and the task looks for that file every few milliseconds.

local scheduler = require("scheduler")

local command = {}

local LOOK_SECONDS = 0.01
local GRACE_SECONDS = 1 -- from the signal that a command may act on to the one that it cannot refuse

-- $1: the command, $2: the folder where it runs, $3: the file for its output, $4: the file for its exit status, which
-- is complete when it appears. This shell outlives the signal that ends the command.
local SCRIPT = [[
trap : TERM
echo $$
exec >"$3" 2>&1 </dev/null
cd "$2" && sh -c "$1"
echo $? >"$4.new"
mv "$4.new" "$4"
]]

local running = {} -- the process groups of the commands that run

function command.quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- What a short command writes. This one does hold up the loop.
function command.output(line)
  local output = assert(io.popen(line))
  local text = output:read("*a")
  output:close()
  return text
end

--- Whether a short command succeeds. Lua 5.1 gives its exit status, later ones true.
function command.succeeds(line)
  local status = os.execute(line)
  return status == true or status == 0
end

--- Starts a command in a process group of its own; returns the group and the file that will tell the exit status.
local function start(line, folder, log)
  local words, status = {}, log .. ".status"
  os.remove(status)
  for i, word in ipairs({ SCRIPT, "sh", line, folder, log, status }) do
    words[i] = command.quote(word)
  end
  local output = assert(io.popen("setsid sh -c " .. table.concat(words, " ") .. " &"))
  local group = output:read("*l")
  output:close()
  if not group then error("cannot start a shell for: " .. line, 0) end
  running[group] = true
  return group, status
end

local function signal(group, name)
  os.execute(("kill -s %s -- -%s 2>/dev/null"):format(name, group))
end

local function wait_for(status)
  local file = io.open(status)
  while not file do
    scheduler.task.wait(LOOK_SECONDS)
    file = io.open(status)
  end
  local code = tonumber(file:read("*l"))
  file:close()
  return code
end

--- Ends a command and all that it has started.
local function stop(group, status)
  signal(group, "TERM")
  if not scheduler.pcall(scheduler.timeout, GRACE_SECONDS, wait_for, status) then signal(group, "KILL") end
end

--- Runs a command in a folder, with its output in the file `log`, and returns its exit status. If the task is cancelled
--- meanwhile, or its time is over, the wait raises: then the command is stopped first, and the error goes on.
function command.run(line, folder, log)
  local group, status = start(line, folder, log)
  local ok, result = scheduler.pcall(wait_for, status)
  if not ok then scheduler.shield(stop, group, status) end
  running[group] = nil
  os.remove(status)
  if not ok then error(result, 0) end
  return result
end

--- Ends all that runs, without waiting: for a program that has to leave.
function command.kill_all()
  for group in pairs(running) do
    signal(group, "KILL")
  end
end

return command
