-- Builds targets with the commands of a description: each after what it needs, so many at a time, each within a limit
-- of time. The first error ends the rest. The parts are in `build/`, and the description that is used if none is given.

local scheduler = require("scheduler")

local USAGE = [[
usage: lua examples/build.lua [options] [TARGET...]

Builds the targets, or the first one of the description; only what is not up to date.

  --file FILE      the description (default: that of examples/build/words, a small program in C)
  --folder FOLDER  where to build (default: a temporary folder, which is removed afterwards)
  --jobs N         run at most N commands at a time (default: one for each core)
  --timeout S      give up if a command takes longer than S seconds (default: 60)
  --help           this text
]]

local SLOWEST_STEPS = 5

local here = arg[0]:match("^.*/") or "./"
package.path = here .. "?.lua;" .. package.path

local command = require("build.command")
local plan = require("build.plan")
local progress = require("build.progress")

-- Building

local function read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("*a")
  file:close()
  return text
end

--- Raises what the build ends with: a step that failed.
local function fail(step, reason)
  error({ step = step, reason = reason, output = read(step.log) }, 0)
end

--- Ends a step whose command did not succeed: it returned an exit status, or waiting for it has raised an error.
local function give_up(step, limit, has_returned, result)
  os.remove(step.path) -- it may be incomplete
  if has_returned then fail(step, "exit status " .. result) end
  if type(result) == "table" and result.kind == "timeout" then fail(step, ("not done within %g s"):format(limit)) end
  error(result, 0) -- it was cancelled, since another one failed
end

--- Runs the command of a step, and shows it.
local function build_step(step, limit, shown)
  local start = scheduler.now()
  shown:begun(step.name)
  local ok, result = scheduler.pcall(scheduler.timeout, limit, command.run, step.command, step.folder, step.log)
  local is_built = ok and result == 0
  step.seconds = is_built and (scheduler.now() - start) / 1000 or nil
  shown:ended(step.name, step.seconds)
  if not is_built then give_up(step, limit, ok, result) end
end

--- Builds what is not up to date: each step is a task that waits for those that it needs, and then for a free place.
local function build_steps(steps, options, shown)
  local places, tasks = scheduler.semaphore(options.jobs), {}
  local function build_in_order(step)
    for _, needed in ipairs(step.needs) do
      if tasks[needed] then scheduler.task.join(tasks[needed]) end
    end
    if step.command then places:with(build_step, step, options.timeout, shown) end
  end
  scheduler.scope(function(scope)
    for _, step in ipairs(steps) do
      if step.is_outdated then tasks[step] = scope:spawn(build_in_order, step) end
    end
  end)
end

-- What is shown

local function count_of(number, noun)
  return number == 1 and "1 " .. noun or number .. " " .. noun .. "s"
end

local function print_slowest(steps)
  local sorted = {}
  for _, step in ipairs(steps) do
    if step.seconds then sorted[#sorted + 1] = step end
  end
  table.sort(sorted, function(a, b)
    return a.seconds > b.seconds
  end)
  for i = 1, math.min(#sorted, SLOWEST_STEPS) do
    print(("  %5.2f s  %s"):format(sorted[i].seconds, sorted[i].name))
  end
end

local function print_summary(steps, options, seconds)
  local done, work = 0, 0
  for _, step in ipairs(steps) do
    done, work = done + (step.seconds and 1 or 0), work + (step.seconds or 0)
  end
  local line = "%s built in %.2f s, at most %d at a time; one after the other: %.2f s"
  print(line:format(count_of(done, "target"), seconds, options.jobs, work))
  print_slowest(steps)
end

local function print_failure(failure)
  local step = failure.step
  io.stdout:flush() -- so that the two are in order, wherever they go
  io.stderr:write(("build: %s failed: %s\n  %s\n%s"):format(step.name, failure.reason, step.command, failure.output))
end

-- The command line

local function refuse(problem)
  io.stderr:write("build: ", problem, "\n\n", USAGE)
  os.exit(2)
end

local function word_for(option, word)
  return word or refuse(option .. " needs a value")
end

--- The number that is the value of an option; `is_valid` says whether it will do, `expected` what would.
local function number_for(option, word, is_valid, expected)
  local number = tonumber(word or "")
  if not number or not is_valid(number) then refuse(option .. " needs " .. expected) end
  return number
end

local function is_count(number)
  return number >= 1 and number % 1 == 0
end

local function is_limit(number)
  return number > 0 and number < math.huge
end

--- The options, each given the iterator over the words, from which it takes its value.
local OPTIONS = {
  ["--file"] = function(options, next_word)
    options.file = word_for("--file", next_word())
  end,
  ["--folder"] = function(options, next_word)
    options.folder = word_for("--folder", next_word())
  end,
  ["--jobs"] = function(options, next_word)
    options.jobs = number_for("--jobs", next_word(), is_count, "a whole number above 0")
  end,
  ["--timeout"] = function(options, next_word)
    options.timeout = number_for("--timeout", next_word(), is_limit, "a number of seconds above 0")
  end,
  ["--help"] = function()
    io.write(USAGE)
    os.exit(0)
  end,
}

local function parse(words)
  local options, position = { targets = {}, timeout = 60, file = here .. "build/words/build.lua" }, 0
  local function next_word()
    position = position + 1
    return words[position]
  end
  for word in next_word do
    if OPTIONS[word] then
      OPTIONS[word](options, next_word)
    elseif word:find("^%-") then
      refuse(("there is no option '%s'"):format(word))
    else
      table.insert(options.targets, word)
    end
  end
  options.jobs = options.jobs or tonumber(command.output("getconf _NPROCESSORS_ONLN")) or 1
  return options
end

--- The path of a folder from the root, since commands may run anywhere; the folder is made if it is missing.
local function make_folder(path)
  local quoted = command.quote(path)
  local full = command.output(("mkdir -p -- %s && cd -- %s && pwd"):format(quoted, quoted)):match("[^\n]+")
  return full or error("there can be no folder " .. path, 0)
end

local function build(options, folder)
  local rules = plan.read(options.file)
  rules.folder = make_folder(rules.folder)
  local steps = plan.make(rules, options.targets, folder)
  if steps.commands == 0 then return print("nothing to do") end

  local shown = progress.start(steps.commands)
  local ok, failure = pcall(build_steps, steps, options, shown)
  shown:close()
  if not ok then error(failure, 0) end
  print_summary(steps, options, shown:seconds())
end

--- Builds; returns whether that succeeded.
local function main(options)
  local folder = make_folder(options.folder or command.output("mktemp -d"):match("[^\n]+"))
  local ok, failure = pcall(build, options, folder)
  command.kill_all() -- nothing runs any more, unless we were interrupted
  if not options.folder then os.execute("rm -r " .. command.quote(folder)) end
  if ok then return true end
  if type(failure) == "table" and failure.step then
    print_failure(failure)
  else
    io.stderr:write("build: ", tostring(failure), "\n")
  end
  return false
end

if not main(parse(arg)) then os.exit(1) end
