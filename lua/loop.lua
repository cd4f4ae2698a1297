-- The loop: turns, the coroutines that callbacks run in, microtasks, waiting.
--
-- The engine says what is to run next (`native.next_work`), this file runs it. So every resumption and every call of
-- a callback happens from Lua: no native frame lies between `run` and a callback, an error or an `os.exit` in one
-- crosses none, and each callback costs one call into the engine.
--
-- Callbacks run in a recycled coroutine, the runner. It runs one callback after the other until one of them waits:
-- from then on it belongs to that callback and ends with it, and the driver goes on with another runner.

local native, compat, check, errors = ...

local error, ipairs, pairs, pcall, setmetatable, type = error, ipairs, pairs, pcall, setmetatable, type
local create, resume, status, yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local running_coroutine, isyieldable, is_suspended_in = compat.running, compat.isyieldable, compat.is_suspended_in
local pack, unpack = compat.pack, compat.unpack
local traceback_and_close = compat.traceback_and_close
local report = errors.report

local begin_turn, end_turn, next_work = native.begin_turn, native.end_turn, native.next_work
local next_completion, register, wake, release = native.next_completion, native.register, native.wake, native.release
local is_alive, is_stopped, park = native.is_alive, native.is_stopped, native.park

-- The kinds of work that `next_work` names; MICROTASKS is ours: nothing but the microtasks.
local ONCE, INTERVAL, TASK = native.ONCE, native.INTERVAL, native.TASK
local MICROTASKS = 0

-- What a runner yields to the driver, with the work that is not for it, and what the driver resumes it with.
local HAND_OVER, DRIVE = {}, {}
-- What a coroutine is resumed with when what it waits for has come. Anything else was passed by whoever resumed it.
local WAKE = {}

local loop = {
  --- The callback of each timer and immediate, by slot.
  callbacks = {},
  --- Intervals (by slot) that fire although their last callback still waits.
  overlapping = {},
  --- The coroutine in which the callback of an interval (by slot) still waits.
  waiting = setmetatable({}, { __mode = "v" }),
  --- What our calls make a coroutine yield to whoever resumed it.
  pending = setmetatable({}, {
    __tostring = function()
      return "scheduler.pending"
    end,
  }),
  --- Whether a descriptor tells a host's loop when we have work.
  embedded = false,
}

local callbacks, overlapping, waiting, pending = loop.callbacks, loop.overlapping, loop.waiting, loop.pending

local is_running = false
local suspended = {} -- the coroutine of each registered wait, by slot
local sources = setmetatable({}, { __mode = "k" }) -- what a suspended coroutine is, for the report of its error
local tasks = setmetatable({}, { __mode = "k" }) -- the outcome record of a task, by its coroutine

-- Microtasks: first in first out.
local microtasks, first_microtask, last_microtask, microtasks_run = {}, 1, 0, 0

-- The runner that drives the callbacks now, and what it runs: for the report of its error.
local active, current_kind, current = nil, nil, nil
local idle_runner

--- Names what the active runner is at.
local function current_source()
  if current_kind == MICROTASKS then return "a microtask defined at " .. compat.defined_at(current) end
  return native.source()
end

local function run_microtasks(me)
  while first_microtask <= last_microtask do
    local fn = microtasks[first_microtask]
    microtasks[first_microtask] = nil
    first_microtask = first_microtask + 1
    microtasks_run = microtasks_run + 1
    current_kind, current = MICROTASKS, fn
    fn()
    if active ~= me then return end
  end
  first_microtask, last_microtask = 1, 0
end

local function run_interval(slot, me)
  local before = waiting[slot]
  if before ~= nil and not overlapping[slot] and status(before) ~= "dead" then return end
  callbacks[slot]()
  if active ~= me and waiting[slot] == me then waiting[slot] = nil end
end

--- What the driver resumed a runner with. A program may have kept the coroutine and resume it by hand: to no effect.
local function driven(drive, ...)
  if drive == DRIVE then return ... end
  return driven(yield())
end

--- The body of a runner. If `active` is another one after a callback, then the callback has waited: it had the
--- coroutine for itself since, and the driver has gone on with another.
local function runner(_, kind, slot)
  local me = running_coroutine()
  while true do
    repeat
      if kind == ONCE then
        local fn = callbacks[slot]
        callbacks[slot] = nil
        current_kind = ONCE
        fn()
      elseif kind == INTERVAL then
        current_kind, current = INTERVAL, slot
        run_interval(slot, me)
      end
      if active == me and first_microtask <= last_microtask then run_microtasks(me) end
      if active ~= me then return end
      kind, slot = next_work()
    until kind ~= ONCE and kind ~= INTERVAL
    kind, slot = driven(yield(HAND_OVER, kind, slot))
  end
end

--- What comes after a runner gave back control.
local function after_runner(co, ok, what, kind, slot)
  active = nil
  if ok and what == HAND_OVER then
    idle_runner = co
    return kind, slot
  end
  if ok then
    -- The callback waits, or yielded of its own accord: the coroutine is the callback's until it has ended.
    sources[co] = current_source()
    if current_kind == INTERVAL then waiting[current] = co end
  else
    local source = current_source()
    report(what, traceback_and_close(co), source)
  end
  return MICROTASKS
end

--- Runs callbacks, beginning with this work; returns the first work that is none, nil at the end of the turn.
local function run_callbacks(kind, slot)
  local co = idle_runner or create(runner)
  idle_runner, active = nil, co
  return after_runner(co, resume(co, DRIVE, kind, slot))
end

--- What comes after a coroutine of ours was resumed: its error goes to its outcome record, if somebody reads that.
local function after_resume(co, ok, err)
  if ok then return end
  local traceback, source, outcome = traceback_and_close(co), sources[co] or "a coroutine", tasks[co]
  if outcome then
    outcome.settled, outcome.failed, outcome.err, outcome.traceback = true, true, err, traceback
  end
  if not outcome or outcome.abandoned then report(err, traceback, source) end
end

--- Yields to whoever resumed this coroutine; the wait is registered by then.
local function suspend()
  return yield(pending)
end

local function run_task(slot)
  local co = suspended[slot]
  suspended[slot] = nil
  if status(co) == "suspended" and is_suspended_in(co, suspend) then after_resume(co, resume(co, WAKE)) end
end

local function settle_completion(number, ...)
  if number == nil then return false end
  loop.settle(number, ...)
  return true
end

--- One turn: what is due and ready by now.
local function turn(budget)
  local last_lost = begin_turn(budget)
  if last_lost then loop.forked(last_lost) end
  while settle_completion(next_completion()) do end
  local kind, slot = MICROTASKS, nil
  while kind do
    if kind == TASK then
      run_task(slot)
      kind, slot = MICROTASKS, nil
    else
      kind, slot = run_callbacks(kind, slot)
    end
  end
  end_turn()
  loop.report_unobserved()
end

local function has_microtasks()
  return first_microtask <= last_microtask
end

local function is_never_done()
  return false
end

--- Turns and parks until `is_done` says so, the loop is stopped, or nothing is left.
local function turns(is_done)
  repeat
    turn()
    if is_stopped() or is_done() then return end
    if not has_microtasks() then
      if not is_alive() then return end
      local failure = park()
      if failure then error("scheduler cannot park: " .. failure, 0) end
    end
  until false
end

--- Runs `drive(...)`, which turns the loop, and marks the loop as running meanwhile. The `pcall` is a try/finally: what
--- reaches it comes from outside of any callback (an interrupt of the host's, say), and goes on.
local function while_running(drive, ...)
  is_running = true
  local ok, err = pcall(drive, ...)
  is_running = false
  if not ok then
    end_turn()
    error(err, 0)
  end
end

local function refuse_nesting()
  if is_running then error("scheduler is already running", 3) end
end

--- Makes `fn(...)` a task that starts in the next turn; returns its outcome record. The task may be resumed by other
--- code as well, so it notes its results itself; its error then goes to that code.
function loop.start(fn, source, ...)
  local args, outcome = pack(...), {}
  local co = create(function()
    outcome.results = pack(fn(unpack(args, 1, args.n)))
    outcome.settled = true
  end)
  outcome.co, tasks[co], sources[co] = co, outcome, source
  local token, slot = register()
  suspended[slot] = co
  wake(token)
  return outcome
end

function loop.run(main, ...)
  if main ~= nil then check.callable(main, 1, "run") end
  refuse_nesting()
  local outcome = main ~= nil and loop.start(main, "the main task", ...)
  while_running(turns, is_never_done)
  if not is_stopped() then loop.report_unobserved("all") end
  if not outcome then return end
  if outcome.failed then error(outcome.err, 0) end
  if outcome.settled then return unpack(outcome.results, 1, outcome.results.n) end
  -- A later `run` may go on with it, but has nobody to give its error to.
  outcome.abandoned = true
  if not is_stopped() then error("the function given to 'run' " .. loop.why_unsettled(outcome), 2) end
end

--- Why an outcome is still open when the loop has come to its end.
function loop.why_unsettled(outcome)
  if status(outcome.co) == "dead" then return "failed where other code had resumed it" end
  return "waits, and nothing is left that could wake it"
end

--- Turns the loop until `waitable.settled` (or its task is dead all the same), whatever else is left.
function loop.run_until_settled(waitable)
  local co = waitable.co
  while_running(turns, function()
    return waitable.settled or co and status(co) == "dead"
  end)
end

function loop.poll(budget_ms)
  if budget_ms ~= nil and (type(budget_ms) ~= "number" or budget_ms ~= budget_ms) then
    check.bad_argument(1, "poll", "number", budget_ms)
  end
  refuse_nesting()
  while_running(turn, budget_ms)
  if has_microtasks() then native.raise() end
  return native.poll_again(has_microtasks())
end

function loop.queue_microtask(fn)
  last_microtask = last_microtask + 1
  microtasks[last_microtask] = fn
  if loop.embedded and not is_running then native.raise() end
end

--- Waits until `waitable.settled`; `waitable.waiters` is the list of wake tokens. Returns `loop.WAKE` then, or else
--- what the coroutine was resumed with by somebody else.
function loop.wait(waitable)
  if waitable.settled then return WAKE end
  local co = running_coroutine()
  if co == nil then
    if is_running then error("cannot wait on the main thread while the scheduler is running", 3) end
    loop.run_until_settled(waitable)
    if waitable.settled then return WAKE end
    error(is_stopped() and "the scheduler was stopped" or "nothing is left that could end this wait", 3)
  end
  if not isyieldable() then error("cannot wait here: the coroutine cannot yield across a C call", 3) end
  local token, slot = register()
  suspended[slot] = co
  waitable.waiters[#waitable.waiters + 1] = token
  return loop.resumed(token, slot, suspend())
end

function loop.resumed(token, slot, ...)
  if (...) ~= WAKE then
    suspended[slot] = nil
    release(token)
  end
  return ...
end

--- Wakes who waits for `waitable`, which is settled now.
function loop.wake_waiters(waitable)
  local waiters = waitable.waiters
  waitable.waiters = {}
  for i = 1, #waiters do
    wake(waiters[i])
  end
end

function loop.microtask_count()
  return last_microtask - first_microtask + 1, microtasks_run
end

--- Drops all that is scheduled: what a job leaves behind must not run into the next one.
function loop.discard()
  native.discard()
  for _, slots in ipairs({ callbacks, overlapping, waiting, suspended, microtasks }) do
    for slot in pairs(slots) do
      slots[slot] = nil
    end
  end
  first_microtask, last_microtask = 1, 0
end

loop.WAKE, loop.turn, loop.has_microtasks = WAKE, turn, has_microtasks
loop.refuse_nesting, loop.while_running = refuse_nesting, while_running

return loop
