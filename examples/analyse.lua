-- Analyses all Lua sources of a folder on all cores, shows progress and keeps to a time limit meanwhile, and compares
-- with the same work in one VM. What is found in a file, and how it is shown, are in `analyse/`.

local scheduler = require("scheduler")

local USAGE = [[
usage: lua examples/analyse.lua [options] [FOLDER]

Counts lines, functions and identifiers in all *.lua files of FOLDER; without one, in the Lua libraries that are
installed on this machine.

  --limit SECONDS  give up after so long (default: 120)
  --repeat N       analyse each file N times (default: so often that there is something to time)
  --no-compare     do not do the same work again in one VM
  --help           this text
]]

local MOST_FILES_PER_JOB = 16 -- many: each job has results to send and to add up
local FEWEST_JOBS = 64 -- if there are files for so many: a core that is done with one finds another
local TIMED_ANALYSES, MOST_REPEATS = 2500, 20 -- a second or two of work, if there are not very few files
local REDRAW_MS = 50

local library_path = package.path
-- Workers find modules where we do: this goes for them too.
package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local report = require("analyse.report")

local function fail(message)
  io.stdout:flush() -- so that the two are in order, wherever they go
  io.stderr:write("analyse: ", message, "\n")
  os.exit(1)
end

-- The work, in parallel and in one VM

--- The job, sent to a worker VM as it is. It requires what it needs: that stays loaded there, for the jobs to come.
local function analyse_batch(paths, times)
  local source, reports = require("analyse.source"), require("analyse.report")
  local batch = reports.new()
  for _, path in ipairs(paths) do
    local analysis, reason
    for _ = 1, times do
      analysis, reason = source.analyse_file(path)
    end
    if analysis then reports.add_file(batch, path, analysis) else reports.add_skipped(batch, path, reason) end
  end
  return batch
end

local function analyse_in_parallel(batches, times, on_progress)
  local jobs, all = {}, report.new()
  for i, batch in ipairs(batches) do
    jobs[i] = scheduler.parallel.run(analyse_batch, batch, times)
  end
  for i, job in ipairs(jobs) do
    report.add(all, scheduler.await(job)) -- meanwhile timers fire
    on_progress(#batches[i])
  end
  return all
end

local function analyse_in_one_vm(batches, times, on_progress)
  local all = report.new()
  for _, batch in ipairs(batches) do
    report.add(all, analyse_batch(batch, times))
    on_progress(#batch)
    scheduler.poll() -- nothing waits here: this gives timers the chance to fire
  end
  return all
end

-- The files

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- Whether a command succeeds. Lua 5.1 gives its exit code, later ones true.
local function shell(command)
  local status = os.execute(command)
  return status == true or status == 0
end

local function is_folder(path)
  return shell("test -d " .. quote(path))
end

--- The folders that `require` searches, without those that depend on where we are.
local function library_folders()
  local folders, seen = {}, {}
  for entry in library_path:gmatch("[^;]+") do
    local folder = entry:match("^(/.-)/+%?")
    if folder and not seen[folder] and is_folder(folder) then folders[#folders + 1] = folder end
    if folder then seen[folder] = true end
  end
  return folders
end

--- All Lua sources in the folders, sorted. Dangling links are among them: they are going to be skipped with a reason.
local function find_sources(folders)
  if #folders == 0 then return {} end -- `find` would search the current one
  local words = {}
  for i, folder in ipairs(folders) do
    words[i] = quote(folder)
  end
  local command = "find -L %s -name '*.lua' '(' -type f -o -type l ')' -exec printf '%%s\\0' {} +"
  local output = assert(io.popen(command:format(table.concat(words, " "))))
  local paths, seen = {}, {}
  for path in output:read("*a"):gmatch("[^%z]+") do
    if not seen[path] then paths[#paths + 1] = path end
    seen[path] = true
  end
  output:close()
  table.sort(paths)
  return paths
end

local function in_batches(paths)
  local size = math.min(math.ceil(#paths / FEWEST_JOBS), MOST_FILES_PER_JOB)
  local batches = {}
  for first = 1, #paths, size do
    local batch = {}
    for i = first, math.min(first + size - 1, #paths) do
      batch[#batch + 1] = paths[i]
    end
    batches[#batches + 1] = batch
  end
  return batches
end

-- The clock: progress, limit, comparison

local is_terminal = shell("test -t 1")

--- Runs `analyse` with its progress in one line, which is redrawn if stdout is a terminal. Returns its report and the
--- seconds that it took.
local function with_progress(label, analyse, work)
  local done, start = 0, scheduler.now()
  local function draw()
    local seconds = (scheduler.now() - start) / 1000
    io.write(is_terminal and "\r" or "", ("%s: %d of %d files, %.2f s"):format(label, done, work.files, seconds))
    io.flush()
  end
  local redraw = is_terminal and scheduler.setInterval(draw, REDRAW_MS) or nil
  local all = analyse(work.batches, work.times, function(files)
    done = done + files
  end)
  local seconds = (scheduler.now() - start) / 1000
  scheduler.clearInterval(redraw)
  draw()
  print()
  return all, seconds
end

local function set_limit(seconds)
  return scheduler.setTimeout(function()
    if is_terminal then print() end -- leaves the line with the progress
    fail(("not done within %g s, the limit"):format(seconds))
  end, seconds * 1000)
end

local function count_of(number, noun)
  return number == 1 and "1 " .. noun or number .. " " .. noun .. "s"
end

local function compare(all, seconds, work)
  local again, seconds_alone = with_progress("in one VM", analyse_in_one_vm, work)
  if not report.equal(all, again) then fail("the results differ; was a file changed meanwhile?") end
  local workers = count_of(scheduler.stats().workers, "worker")
  print(("speed-up: %.2f with %s, equal results"):format(seconds_alone / seconds, workers))
  if seconds_alone < 0.5 then print("(That was little work for a comparison; --repeat N makes it more.)") end
end

-- The command line

local function refuse(problem)
  io.stderr:write("analyse: ", problem, "\n\n", USAGE)
  os.exit(2)
end

--- The number that is the value of an option; `is_valid` says whether it will do, `expected` what would.
local function number_for(option, text, is_valid, expected)
  local number = tonumber(text or "")
  if not number or not is_valid(number) then refuse(option .. " needs " .. expected) end
  return number
end

local function is_limit(number)
  return number > 0 and number < math.huge
end

local function is_count(number)
  return number >= 1 and number % 1 == 0
end

--- The options, each given the iterator over the words, from which it takes its value.
local OPTIONS = {
  ["--limit"] = function(options, next_word)
    options.limit = number_for("--limit", next_word(), is_limit, "a number of seconds above 0")
  end,
  ["--repeat"] = function(options, next_word)
    options.times = number_for("--repeat", next_word(), is_count, "a whole number above 0")
  end,
  ["--no-compare"] = function(options)
    options.compare = false
  end,
  ["--help"] = function()
    io.write(USAGE)
    os.exit(0)
  end,
}

local function parse(words)
  local options, position = { limit = 120, compare = true }, 0
  local function next_word()
    position = position + 1
    return words[position]
  end
  for word in next_word do
    if OPTIONS[word] then
      OPTIONS[word](options, next_word)
    elseif word:find("^%-") then
      refuse(("there is no option '%s'"):format(word))
    elseif options.folder then
      refuse("only one folder can be given")
    else
      options.folder = word
    end
  end
  return options
end

local function chosen_folders(folder)
  if not folder then return library_folders() end
  if not is_folder(folder) then fail(("there is no folder '%s'"):format(folder)) end
  -- `find` takes a first word such as "!" for a part of its expression.
  if folder:find("^[^%w/._]") then folder = "./" .. folder end
  return { folder:match("^(.*[^/])/*$") or "/" }
end

--- How often to analyse each of so many files: only the comparison takes more than once.
local function default_times(files, options)
  if not options.compare then return 1 end
  return math.max(1, math.min(math.ceil(TIMED_ANALYSES / files), MOST_REPEATS))
end

local function announce(where, work)
  local files, jobs = count_of(work.files, "Lua file"), count_of(#work.batches, "job")
  local how_often = work.times == 1 and "once" or ("%d times"):format(work.times)
  print(("%s in %s, in %s; each file is analysed %s"):format(files, where, jobs, how_often))
end

local function main()
  local options = parse(arg)
  local limit = set_limit(options.limit)
  local folders = chosen_folders(options.folder)
  local paths, where = find_sources(folders), table.concat(folders, ", ")
  if #paths == 0 then return print("no Lua files in " .. (where == "" and "package.path" or where)) end

  local times = options.times or default_times(#paths, options)
  local work = { batches = in_batches(paths), times = times, files = #paths }
  announce(where, work)
  local all, seconds = with_progress("in parallel", analyse_in_parallel, work)
  print()
  report.print(all)
  if options.compare then compare(all, seconds, work) end
  scheduler.clearTimeout(limit)
end

local ok, failure = pcall(main)
if not ok then fail(tostring(failure)) end
