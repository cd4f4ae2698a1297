-- Looks after the jobs of a worker that wait or have failed: see worker.lua.

local native, worker, errors, outcome, loop, task = ...

local find, getmetatable, pairs, type = string.find, getmetatable, pairs, type
local job_natives = worker.native
local HEADER = worker.HEADER
-- What is raised in one that is stopped while it computes (see src/binding/worker.rs).
local STOPPED = "the job was cancelled"
local STUCK = "the job waits, and nothing is left that could wake it"

local tasks = {}
local waiting = {} -- the coroutines of the jobs that wait, by their numbers
local ended = {} -- what is to be handed in: functions, and their arguments

--- Whether a job has returned a promise: its outcome is the job's then.
function tasks.is_promise(value)
  return type(value) == "table" and loop.promise_class ~= nil and getmetatable(value) == loop.promise_class
end

--- Hands in the end of a job, by a function, once what it leaves behind is dropped.
function tasks.finish(hand_in, run, result)
  ended[#ended + 1] = { hand_in = hand_in, run = run, result = result }
end

--- While a job is interrupted, whatever of it runs raises, timers too: nobody has to hear of that, nor of what is left
--- of it later, while other jobs go on to their end.
function errors.is_expected(err)
  if err == STOPPED or job_natives.is_stopping() then return true end
  return not job_natives.is_fit() and find(errors.describe(err), STOPPED, 1, true) ~= nil
end

--- Whether an error says that there was no memory left. Lua raises a string, the buffers of 5.3 one of their own, which
--- begins with a line, and mlua an object.
local function is_out_of_memory(err, text)
  if err == "not enough memory" then return true end
  if type(err) == "userdata" then return find(text, "not enough memory", 1, true) ~= nil end
  return type(err) == "string" and find(err, "not enough memory for buffer allocation$") ~= nil
end

--- Notes an error of a part of a map which goes on after it.
local function go_on(run, part, err, text, traceback)
  part.failures = part.failures or {}
  local failure = { position = part.at - HEADER, message = text, traceback = traceback }
  -- The error itself is left out where it cannot cross.
  if not job_natives.refusal(err) then failure.value = err end
  part.failures[#part.failures + 1] = failure
  worker.unfinished[#worker.unfinished + 1] = { run = run, part = part }
end

local function hand_in_error(run, failure)
  return job_natives.fail(run, failure.kind, failure.message, failure.traceback, failure.value, failure.position)
end

--- Notes the error of a job.
local function fail(run, part, err, traceback)
  local text = errors.describe(err)
  local failure = { kind = "error", message = text, traceback = traceback }
  if is_out_of_memory(err, text) then
    -- What the worker has is used up: the next job gets a fresh one.
    job_natives.give_up()
    failure.kind, failure.message = "memory", "not enough memory"
  elseif part and part.goes_on and not job_natives.is_cancelled(run) then
    return go_on(run, part, err, text, traceback)
  else
    failure.value, failure.position = { err, n = 1 }, part and part.at - HEADER
  end
  return tasks.finish(hand_in_error, run, failure)
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
  job_natives.waits(run)
  outcome.origins[co] = "a job"
  outcome.watch(co).on_end = function(_, result)
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

--- Turns the loop until a job that waits has ended or is to go on, or there is room for another one that is there.
local function turn(has_room)
  -- Asked once more, it might say otherwise: another worker may have taken the job.
  local was_done = false
  local function is_done()
    was_done = #ended > 0 or #worker.unfinished > 0 or has_room and job_natives.has_jobs()
    return was_done
  end
  native.set_room(has_room)
  loop.turn_until(is_done)
  native.set_room(false)
  if was_done then return end
  for run, co in pairs(waiting) do
    tasks.finish(hand_in_error, run, { kind = "error", message = STUCK .. loop.waits_for(co) })
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

--- Does what is to be done before the next job is taken. `has_none` if there is none to take now; `idle` is the
--- coroutine that takes it, if there is one yet.
function tasks.attend(has_none, idle)
  local has_room = worker.waiting < worker.concurrency and not worker.is_leaving
  local is_idle = #ended == 0 and #worker.unfinished == 0
  if worker.waiting > 0 and is_idle and (has_none or not has_room) then turn(has_room) end
  if loop.release_locks then loop.release_locks(idle) end
  if worker.waiting == 0 and #worker.unfinished == 0 then tidy_up() end
  for i = 1, #ended do
    local one = ended[i]
    ended[i] = nil
    one.hand_in(one.run, one.result)
  end
end

--- Goes on with what the pool has each worker call first, if it waits; returns what went wrong.
function tasks.initialise(co, ok, what)
  if not ok then return errors.describe(what) .. "\n" .. outcome.traceback_of(co, what) end
  local result
  outcome.origins[co] = "the init of the pool"
  outcome.watch(co).on_end = function(_, how)
    result = how
  end
  loop.turn_until(function()
    return result
  end)
  tidy_up()
  if not result then return STUCK end
  if result.failed or result.cancelled then return errors.describe(result.err) .. "\n" .. (result.traceback or "") end
end

return tasks
