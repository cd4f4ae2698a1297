-- Looks after the jobs of a worker that wait or have failed: see worker.lua.

local native, worker, errors, outcome, loop, task = ...

local find, next, pairs, type = string.find, next, pairs, type
local job_natives = worker.native
local HEADER = worker.HEADER
local STUCK = "the job waits, and nothing is left that could wake it"

local tasks = {}
local waiting = {} -- the coroutines of the jobs that wait, by their numbers
local has_ended = false -- whether one has ended in the turns that are running

--- Whether an error says that there was no memory left. Lua raises a string, mlua an object.
local function is_out_of_memory(err, text)
  return err == "not enough memory" or type(err) == "userdata" and find(text, "not enough memory", 1, true) ~= nil
end

--- Notes an error of a part of a map which goes on after it.
local function go_on(run, part, err, text, traceback)
  part.failures = part.failures or {}
  local refused = job_natives.refusal(err)
  part.failures[#part.failures + 1] = {
    position = part.at - HEADER,
    message = text,
    traceback = traceback,
    value = not refused and err or nil,
  }
  worker.unfinished[#worker.unfinished + 1] = { run = run, part = part }
end

--- Hands in the error of a job.
local function fail(run, part, err, traceback)
  local text = errors.describe(err)
  if is_out_of_memory(err, text) then
    -- What it has is used up: the next job gets a fresh one.
    worker.is_unfit = true
    return job_natives.fail(run, "memory", "not enough memory", traceback)
  end
  if part and part.goes_on then return go_on(run, part, err, text, traceback) end
  return job_natives.fail(run, "error", text, traceback, { err, n = 1 }, part and part.at - HEADER)
end

--- Takes a job whose coroutine has failed before it waited.
function tasks.failed(co, err, run, part)
  local traceback, has_other, other = outcome.traceback_of(co, err)
  fail(run, part, err, traceback)
  if has_other then errors.report(other, "", "the clean-up of a job") end
end

--- Takes a job that waits, or has yielded of its own accord.
function tasks.look_after(co, run, part)
  waiting[run] = co
  worker.waiting = worker.waiting + 1
  outcome.origins[co] = "a job"
  outcome.watch(co).on_end = function(_, result)
    has_ended = true
    if waiting[run] ~= co then return end
    waiting[run] = nil
    worker.waiting = worker.waiting - 1
    if result.failed or result.cancelled then fail(run, part, result.err, result.traceback or "") end
  end
end

--- The job with this number is to stop, if it waits.
function loop.interrupted(run)
  local co = waiting[run]
  if co then task.stop(co, "the job was cancelled") end
end

--- Turns the loop until a job that waits has ended, or there is room for another one that is there.
local function turn(has_room)
  has_ended = false
  native.set_room(has_room)
  loop.turn_until(function()
    return has_ended or has_room and job_natives.has_jobs()
  end)
  native.set_room(false)
  if has_ended or has_room and job_natives.has_jobs() then return end
  for run in pairs(waiting) do
    job_natives.fail(run, "error", STUCK)
  end
  waiting, worker.waiting = {}, 0
end

--- Lets run what a job has queued in its last moments, and drops what it leaves behind.
local function tidy_up()
  local turns = 0
  while loop.has_work() and turns < 2 do
    loop.while_running(loop.turn)
    turns = turns + 1
  end
  loop.discard()
  errors.on_error(nil)
end

--- Does what is to be done before the next job is taken. `has_none` if there is none to take now.
function tasks.attend(has_none)
  local has_room = worker.waiting < worker.concurrency
  if worker.waiting > 0 and (has_none or not has_room) and next(worker.unfinished) == nil then turn(has_room) end
  if worker.waiting == 0 then tidy_up() end
end

--- Goes on with what the pool has each worker call first, if it waits; returns what went wrong.
function tasks.initialise(co, ok, what)
  if not ok then return errors.describe(what) .. "\n" .. outcome.traceback_of(co, what) end
  local result
  outcome.origins[co] = "the init of the pool"
  outcome.watch(co).on_end = function(_, ended)
    result = ended
  end
  loop.turn_until(function()
    return result
  end)
  tidy_up()
  if not result then return STUCK end
  if result.failed or result.cancelled then return errors.describe(result.err) .. "\n" .. (result.traceback or "") end
end

return tasks
