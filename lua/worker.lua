-- What a worker does: it takes jobs and runs them one after the other, in a coroutine that is used again as long as
-- they neither wait nor fail. The coroutine of a job that does is that job's, and `worker_tasks.lua` looks after it,
-- which is loaded with the rest of the module for the first of its kind, or when a job requires the module.
--
-- A part of a map is a job as well: its values are `first`, the position of the first value in the map, then whether to
-- go on after an error, then the values to call the function with. It ends with the seconds that it took, the list of
-- errors or false, and the results: so a value and its result have the same place in both lists.

local native, worker = ...

local error, select, type = error, select, type
local create, resume, running = coroutine.create, coroutine.resume, coroutine.running
local close, status, yield = coroutine.close, coroutine.status, coroutine.yield
local debug = debug
local gsub, remove, unpack = string.gsub, table.remove, table.unpack or unpack
local pack = table.pack or function(...)
  return { n = select("#", ...), ... }
end

local take, done, done_plain = native.take, native.done, native.done_plain
local has_too_much = native.has_too_much -- with a memory limit
-- What comes before the values of a part, and before its results.
local HEADER = 2
local MOST_FUNCTIONS = 8
-- What Lua raises where there is none.
local NO_MEMORY = "not enough memory"

worker.HEADER = HEADER
--- Jobs that wait.
worker.waiting = 0
--- Parts of maps that are to go on after an error, with the numbers of their jobs.
worker.unfinished = {}

local functions, functions_known = {}, 0 -- of maps, by their ids
-- The coroutine that takes jobs, and what it runs.
local active, number, part

local function NO_JOB() end
local function LEAVE() end
local function DONE() end

--- Hands in the results of a job.
local function hand_in(run, list)
  local refused = done(run, list)
  if refused then native.fail(run, "error", refused) end
end

--- Raises an error if the state has more than it may. In LuaJIT that is otherwise found out at the next instruction of
--- a job, and a C function that has returned to us has none. In Lua 5.1 the garbage of one job, which is not freed
--- before something is refused, is no reason to refuse the next.
local function look_at_memory()
  if has_too_much and has_too_much() then error(NO_MEMORY, 0) end
end

--- Notes that a job has returned. What it leaves behind is dropped before anybody hears of its end.
local function finish(run, ...)
  look_at_memory()
  local tasks = worker.tasks
  if not tasks then return done_plain(run, ...) or hand_in(run, pack(...)) end
  if tasks.is_promise((...)) then return tasks.finish(hand_in, run, pack((...):expect())) end
  return tasks.finish(hand_in, run, pack(...))
end

--- The first result of a part that cannot cross, and why.
local function first_refused(results, before)
  for i = HEADER + 1, results.n do
    local refused = native.refusal(results[i])
    if refused then return i, (gsub(refused, "result #1", "the result of item #" .. before + i, 1)) end
  end
end

local function hand_in_part(run, this)
  local results = this.results
  results[1], results[2] = this.seconds, this.failures or false
  local refused = done(run, results)
  while refused do
    local at, reason = first_refused(results, this.values[1] - HEADER - 1)
    if not at then return native.fail(run, "error", refused) end
    if not this.goes_on then return native.fail(run, "error", reason, "", nil, at - HEADER) end
    results[at] = nil
    this.failures = this.failures or {}
    this.failures[#this.failures + 1] = { position = at - HEADER, message = reason, traceback = "" }
    results[2] = this.failures
    refused = done(run, results)
  end
end

--- Calls the function of a map for the values of a part, after the one at which it is.
local function run_part(run, this)
  number, part = run, this
  local fn, values, results, before = this.fn, this.values, this.results, this.values[1] - HEADER - 1
  for i = this.at + 1, values.n do
    this.at = i
    local result = fn(values[i], before + i)
    local tasks = worker.tasks
    if tasks and tasks.is_promise(result) then result = result:expect() end
    results[i] = result
  end
  look_at_memory()
  this.seconds = native.elapsed(run)
  if worker.tasks then return worker.tasks.finish(hand_in_part, run, this) end
  return hand_in_part(run, this)
end

local function new_part(run, values, id)
  local fn = functions[id]
  if not fn then
    if functions_known == MOST_FUNCTIONS then functions, functions_known = {}, 0 end
    fn = native.mapped_function(run)
    if not fn then return nil end
    functions[id], functions_known = fn, functions_known + 1
  end
  return { fn = fn, values = values, results = { n = values.n }, at = HEADER, goes_on = values[2] }
end

--- Runs a job that was taken: its function and arguments, or their list; or the list of the values of a part and the id
--- of its function. Returns what the driver is to be told.
local function run_taken(run, call, ...)
  if not run then return run == nil and LEAVE or NO_JOB end
  number, part = run, nil
  local id = ...
  if type(call) == "function" then
    finish(run, call(...))
  elseif id then
    local this = new_part(run, call, id)
    if this then run_part(run, this) end
  else
    finish(run, call[1](unpack(call, 2, call.n)))
  end
  return worker.tasks and DONE
end

--- Takes a job, if there is one, and runs it.
local function run_next()
  local unfinished = worker.unfinished[1]
  if not unfinished then
    if worker.is_leaving then return NO_JOB end
    return run_taken(take(worker.waiting == 0))
  end
  remove(worker.unfinished, 1)
  run_part(unfinished.run, unfinished.part)
  return DONE
end

--- The body of the coroutine that takes jobs: until one of them has waited.
local function runner()
  local me = running()
  repeat
    local what = run_next()
    if what and active == me then yield(what) end
  until active ~= me
end

local function load_tasks()
  if not worker.tasks then native.load() end
  return worker.tasks
end

--- Fails the job that ran in a coroutine. For one that has run out of memory the rest of the module is not loaded,
--- which takes some itself; the next job gets a fresh worker.
local function fail(co, err)
  if err ~= NO_MEMORY then return load_tasks().failed(co, err, number, part) end
  native.free_reserve()
  if worker.tasks then return worker.tasks.failed(co, err, number, part) end
  native.give_up()
  local traceback = debug and debug.traceback(co) or ""
  if close then close(co) end
  native.fail(number, "memory", NO_MEMORY, traceback)
end

--- Takes jobs and runs them, until there are no more for this worker or `goes_on()` says so.
local function run_jobs(goes_on)
  local idle
  while goes_on() do
    local co = idle or create(runner)
    idle, active = nil, co
    local ok, what = resume(co)
    active = nil
    if not ok then
      fail(co, what)
    elseif what == NO_JOB or what == DONE then
      idle = co
    elseif what == LEAVE then
      return
    else
      load_tasks().look_after(co, number, part)
    end
    if worker.tasks then worker.tasks.attend(what == NO_JOB, idle) end
  end
end

--- Takes jobs until there are no more for this worker; or until it is not fit to go on.
local function work()
  run_jobs(native.is_fit)
end

local function has_begun()
  return worker.waiting > 0 or worker.unfinished[1] ~= nil
end

--- Runs to their end the jobs that have begun, in a worker that is not fit to take more.
local function finish_begun()
  worker.is_leaving = true
  run_jobs(has_begun)
end

--- Calls what the pool has each worker call first. Returns what went wrong.
local function initialise(call)
  local co = create(function()
    call[1]()
  end)
  local ok, what = resume(co)
  if ok and status(co) == "dead" then return nil end
  return load_tasks().initialise(co, ok, what)
end

return work, finish_begun, initialise
