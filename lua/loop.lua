-- The loop: turns, the coroutines that callbacks run in, microtasks.
--
-- The engine says which timer is due (`native.next_work`), the queues of coroutines and microtasks are kept here. Every
-- resumption and every call of a callback happens from Lua: no native frame lies between `run` and a callback, an error
-- or an `os.exit` in one crosses none, and each callback costs one call into the engine, each task none.
--
-- Callbacks run in a recycled coroutine, the runner. It runs one callback after the other until one of them waits:
-- from then on it belongs to that callback and ends with it, and the driver goes on with another runner.

local native, compat, check, fifo, wait, outcome = ...

local error, ipairs, pairs, pcall, setmetatable, type = error, ipairs, pairs, pcall, setmetatable, type
local create, resume, status, yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local running_coroutine = compat.running
local is_empty, took = fifo.is_empty, fifo.took
local unpack = compat.unpack

local begin_turn, next_work, is_out_of_time = native.begin_turn, native.next_work, native.is_out_of_time
local microtasks, token_of = wait.microtasks, wait.token_of
local begin_tasks, has_ready, is_ready, run_ready = wait.begin_turn, wait.has_ready, wait.is_ready, wait.run_ready
local failed, came_back = outcome.failed, outcome.came_back
local MAIN, WAKE, RAISE, BY_HAND = wait.MAIN, wait.WAKE, wait.RAISE, wait.BY_HAND
local pending = wait.pending

-- The kinds of work that `next_work` names; MICROTASKS is ours: nothing but the microtasks.
local ONCE, INTERVAL, SLEEPER = native.ONCE, native.INTERVAL, native.WAKE
local MICROTASKS = 0
-- What a runner is at that runs a reaction: a table in the queue of microtasks, which stands for a handler of a promise
-- (see promise.lua).
local REACTION = -1

-- Tasks that are resumed in one turn at the most, of those that are ready and of those that are deferred. What is left
-- over comes first in the next turn.
local TASKS_PER_TURN = 10000

-- What a runner yields to the driver, with the work that is not for it, and what the driver resumes it with.
local function HAND_OVER() end
local function DRIVE() end

local loop = {
  --- The callback of each timer and immediate, and the coroutine of each sleeper, by slot.
  callbacks = native.callbacks,
  --- Intervals (by slot) that fire although their last callback still waits.
  overlapping = {},
  --- The coroutine in which the callback of an interval (by slot) still waits.
  waiting = setmetatable({}, { __mode = "v" }),
  --- The nodes of those that wait for what others may do, by their places (see src/worker/shared/mod.rs).
  places = setmetatable({}, { __mode = "v" }),
  --- Whether immediates were set that have not had their part of a turn.
  has_immediates = false,
  --- Whether there are rejected promises of which it is not known yet whether somebody handles them.
  has_unhandled = false,
}

local callbacks, overlapping, waiting = loop.callbacks, loop.overlapping, loop.waiting

local deferred = fifo.new()
local stopped = false -- since the running turn began, or the last one
local is_bounded, has_run_out = false, false -- whether the turn is bounded in time, and that is used up

local microtasks_run = 0

-- The runner that drives the callbacks now, and what it runs: for the report of its error.
local active, current_kind, current = nil, nil, nil
local idle_runner

--- Names what the active runner is at, as origins are named.
local function current_origin()
  if current_kind == MICROTASKS then return "a microtask defined at " .. compat.defined_at(current) end
  return native.fired_origin()
end

local function run_microtasks(me)
  local batch, first = fifo.batch(microtasks)
  while batch do
    local fn = batch[first]
    batch[first] = nil
    if first < batch.last then microtasks.first = first + 1 else took(microtasks, first + 1) end
    microtasks_run = microtasks_run + 1
    if type(fn) == "function" then
      current_kind, current = MICROTASKS, fn
      fn()
    else
      current_kind, current = REACTION, fn
      fn:react()
    end
    if active ~= me then return end
    batch, first = microtasks.batch, microtasks.first
    if not batch then
      batch, first = fifo.batch(microtasks)
    end
  end
  wait.set_microtasks(false)
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
      if active == me and not is_empty(microtasks) then run_microtasks(me) end
      if active ~= me then
        outcome.ended_otherwise = outcome.ended_otherwise + 1
        return
      end
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
  if current_kind == REACTION then
    if ok then loop.reaction_waits(current, co) else loop.reaction_failed(current, co, what) end
    return MICROTASKS
  end
  outcome.origins[co] = current_origin()
  if ok then
    -- The callback waits, or yielded of its own accord: the coroutine is the callback's until it has ended.
    if current_kind == INTERVAL then waiting[current] = co end
  else
    failed(co, what)
  end
  return MICROTASKS
end

--- Runs callbacks, beginning with this work; returns the first work that is none, nil when the engine has no more.
local function run_callbacks(kind, slot)
  local co = idle_runner or create(runner)
  idle_runner, active = nil, co
  return after_runner(co, resume(co, DRIVE, kind, slot))
end

--- What comes after a coroutine was resumed.
local function after_resume(co, ok, ...)
  if not ok then
    outcome.ended_otherwise = outcome.ended_otherwise + 1
    failed(co, (...))
  elseif (...) ~= pending then
    came_back(co, ...)
  end
end

wait.after_resume = after_resume

--- Resumes a queued coroutine. Where Lua does not tell beforehand whether a yield works, it may be elsewhere.
function wait.resume_queued(co)
  if compat.tells_yieldable or wait.is_ready_now(token_of(co)) then after_resume(co, resume(co, WAKE)) end
end

--- Resumes a coroutine as it was scheduled to be, unless other code has resumed it since.
local function resume_scheduled(node, co)
  local args = node.args
  if status(co) ~= "suspended" then return end
  if node.is_in_wait then
    after_resume(co, resume(co, BY_HAND, unpack(args, 1, args.n)))
  elseif not node.is_marked and token_of(co) == nil or node.is_marked and native.take_mark(co, node) then
    after_resume(co, resume(co, unpack(args, 1, args.n)))
  end
end

--- Resumes the coroutine of a node, unless it has gone on.
function wait.resume_node(node)
  local co = node.co
  if not co then return end
  if co == MAIN and (token_of(MAIN) == node or node.stands_in) then
    wait.wake_main()
  elseif co == MAIN then
    wait.release(node, co) -- it was left behind by a wait that ran out of memory
  elseif node.args then
    node.co = false
    resume_scheduled(node, co)
  elseif node.is_interrupted then
    node.co = false
    after_resume(co, resume(co, RAISE, node.err))
  elseif compat.tells_yieldable or token_of(co) == node then
    node.co = false
    after_resume(co, resume(co, WAKE))
  else
    wait.release(node, co)
  end
end

--- Whether a coroutine waits for a timer that has just fired.
local function slept(co)
  local token = token_of(co)
  return type(token) == "number" and token > 0 and native.slot(token) == nil
end

local function wake_sleeper(slot)
  local sleeper = callbacks[slot]
  callbacks[slot] = nil
  wait.resumed = wait.resumed + 1
  if type(sleeper) ~= "table" then
    if compat.tells_yieldable or slept(sleeper) then after_resume(sleeper, resume(sleeper, WAKE)) end
  elseif sleeper == MAIN then
    wait.wake_main()
  else
    sleeper.timer = nil
    wait.leave(sleeper)
    wait.resume_node(sleeper)
  end
end

--- Runs callbacks and wakes sleepers, as long as the engine names some.
local function run_due()
  local kind, slot = run_callbacks(MICROTASKS)
  while kind do
    if kind == SLEEPER then
      wake_sleeper(slot)
      if not is_empty(microtasks) then
        kind, slot = run_callbacks(MICROTASKS)
      else
        kind, slot = next_work()
      end
    else
      kind, slot = run_callbacks(kind, slot)
    end
  end
end

function wait.run_microtasks()
  run_due()
  -- The last one may have waited, and so have left the runner before it could tell.
  if is_empty(microtasks) then wait.set_microtasks(false) end
end

--- Whether the turn is to end.
local function is_over()
  if is_bounded and not has_run_out then has_run_out = is_out_of_time() end
  return stopped or has_run_out
end

--- Resumes what is ready in a turn that is bounded in time; returns how many it were.
local function run_ready_bounded(budget)
  local count = 0
  while count < budget and is_ready() and not is_over() do
    count = count + run_ready(1)
  end
  return count
end

--- Resumes what is deferred; returns how many it were.
local function run_deferred(budget)
  local count = 0
  while count < budget and not is_empty(deferred) and not is_over() do
    local batch, first = fifo.batch(deferred)
    local node = batch[first]
    batch[first] = nil
    took(deferred, first + 1)
    count = count + 1
    if wait.on_step then wait.on_step(false, node.co) end
    wait.resume_node(node)
    if microtasks.coming.last > 0 then run_due() end
  end
  wait.resumed = wait.resumed + count
  return count
end

--- Resumes what is ready, then what is deferred, and again, since each may make more of the other.
local function run_tasks()
  local run = is_bounded and run_ready_bounded or run_ready
  local for_ready, for_deferred = TASKS_PER_TURN, TASKS_PER_TURN
  local ran
  repeat
    ran = run(for_ready)
    for_ready = for_ready - ran
    if not is_empty(deferred) then
      local deferred_ran = run_deferred(for_deferred)
      for_deferred, ran = for_deferred - deferred_ran, ran + deferred_ran
    end
  until ran == 0 or stopped or has_run_out or is_empty(deferred) and not is_ready()
end

--- Somebody has ended the wait at a place; or, at none, has left, and so leaves less to wait for.
local function woken(place)
  local node = loop.places[place]
  if node then
    node.list.woken(node)
  elseif place == 0 and loop.others_left then
    loop.others_left()
  end
end

local function settle_completion(number, ...)
  if number == nil then return false end
  if number > 0 then
    loop.settle(number, ...)
  elseif number == 0 and (...) then
    loop.interrupted(...)
  else
    woken(-number)
    if number == 0 and loop.pool_changed then loop.pool_changed() end
  end
  return true
end

local function take_completions()
  local last_lost = native.take_lost_jobs()
  if last_lost then loop.forked(last_lost) end
  while settle_completion(native.next_completion()) do end
end

--- One turn: what is due and ready by now.
local function turn(budget_ms)
  local now, has_callbacks, has_completions = begin_turn(budget_ms)
  stopped, is_bounded, has_run_out = false, budget_ms ~= nil, false
  begin_tasks(now)
  if wait.on_step then wait.on_step(false) end
  if has_completions then take_completions() end
  if has_callbacks or microtasks.coming.last > 0 then run_due() end
  if not stopped and (is_ready() or not is_empty(deferred)) then run_tasks() end
  if (has_callbacks or loop.has_immediates) and not stopped then
    loop.has_immediates = false
    native.begin_immediates()
    run_due()
  end
  if outcome.has_adrift then outcome.look_for_lost() end
  if loop.release_locks then loop.release_locks() end
  if loop.has_unhandled then loop.report_unhandled() end
  if wait.on_step then wait.on_step(true) end
end

--- Whether something is queued for the next turn, on this side of the engine.
local function has_work()
  return has_ready() or not is_empty(deferred) or not is_empty(microtasks) or loop.has_unhandled
end

local function is_never_done()
  return false
end

--- Turns and parks until `is_done` says so, the loop is stopped, or nothing is left.
local function turns(is_done)
  repeat
    turn()
    if stopped or is_done() then return end
    if not has_work() then
      if not native.is_alive() then return end
      local failure = native.park()
      if failure then error("scheduler cannot park: " .. failure, 0) end
    end
  until false
end

local function drive_marked(drive, ...)
  wait.is_running, loop.thread = true, native.thread()
  if wait.on_step then loop.watch_hook(loop.thread) end
  return drive(...)
end

--- Runs `drive(...)`, which turns the loop, and marks the loop as running meanwhile: inside the `pcall`, since the call
--- of that may fail itself, for lack of stack. Returns whether it ended without an error, or the error.
local function try_running(drive, ...)
  local ok, err = pcall(drive_marked, drive, ...)
  wait.is_running, loop.thread = false, nil
  if wait.on_step then wait.on_step(true) end
  native.end_turn()
  return ok, err
end

--- As `try_running`; an error, which comes from outside of any callback (an interrupt of the host's, say), goes on.
local function while_running(drive, ...)
  local ok, err = try_running(drive, ...)
  if not ok then error(err, 0) end
end

local function refuse_nesting()
  if wait.is_running then check.raise("scheduler is already running") end
end

--- The outcome of the task that was given to `run`, if it has ended.
local function finish_main(co)
  local result = outcome.of(co)
  if result then return outcome.unwrap(result) end
  -- A later `run` may go on with it, but has nobody to give its error to.
  outcome.unwatch(co)
  if not stopped then
    check.raise("the function given to 'run' waits, and nothing is left that could wake it" .. loop.waits_for(co))
  end
end

function loop.run(main, ...)
  if main ~= nil then check.callable(main, 1, "run") end
  refuse_nesting()
  local co = main ~= nil and loop.start(main, "the main task", ...)
  repeat
    while_running(turns, is_never_done)
    -- Whoever hears of a deadlock may have ended it.
    local may_go_on = not stopped and loop.look_for_deadlock(co) and (has_work() or native.is_alive())
  until not may_go_on
  if co then return finish_main(co) end
end

--- Turns the loop until `is_done()`, whatever else is left.
function loop.turn_until(is_done)
  while_running(turns, is_done)
end

local function is_main_woken()
  return not wait.is_main_waiting()
end

--- Turns the loop until the main thread, which waits, is woken.
function wait.turn_main()
  local ok, err = try_running(turns, is_main_woken)
  if ok and not wait.is_main_waiting() then return WAKE end
  local what = (stopped or not ok) and "" or loop.waits_for(MAIN)
  if wait.is_main_waiting() then wait.release_main() end
  if not ok then error(err, 0) end
  if wait.on_main_gave_up then wait.on_main_gave_up() end
  check.raise(stopped and "the scheduler was stopped" or "nothing is left that could end this wait" .. what)
end

function loop.poll(budget_ms)
  if budget_ms ~= nil and (type(budget_ms) ~= "number" or budget_ms ~= budget_ms) then
    check.bad_argument(1, "poll", "number", budget_ms)
  end
  refuse_nesting()
  while_running(turn, budget_ms)
  local is_busy = has_work()
  if is_busy then native.raise() end
  return native.poll_again(is_busy)
end

function loop.stop()
  stopped = true
  wait.stop()
  native.stop()
end

--- Queues a function, or a table with a method `react`: see REACTION.
function loop.queue_microtask(fn)
  local coming = microtasks.coming
  local last = coming.last + 1
  coming.last, coming[last] = last, fn
  if not microtasks.is_noted then
    wait.set_microtasks(true)
    wait.tell_host()
  end
end

--- Queues a node to be resumed after what is ready.
function loop.defer(node)
  fifo.push(deferred, node)
  wait.tell_host()
end

--- What the coroutine that the loop has resumed is at, in words.
function loop.describe_source(co)
  if co ~= active then return outcome.describe(co) end
  if current_kind == REACTION then return loop.describe_promise(current) end
  local origin = current_origin()
  return type(origin) == "number" and native.describe(origin) or origin
end

--- Asks for work by another function than the native.
function loop.next_work_by(fn)
  next_work = fn
end

--- Forgets the coroutines that wait to be used again.
function loop.drop_idle()
  idle_runner = nil
  if loop.drop_idle_starter then loop.drop_idle_starter() end
end

--- Calls `visit` for each node that is deferred.
function loop.each_deferred(visit)
  return fifo.each(deferred, visit)
end

--- From now on a descriptor tells a host's loop when we have work.
function loop.embed()
  wait.embed()
  if has_work() then native.raise() end
end

function loop.microtask_count()
  return fifo.length(microtasks), microtasks_run
end

--- Drops all that is scheduled: what a job leaves behind must not run into the next one.
function loop.discard()
  native.discard()
  if loop.drop_watchdog then loop.drop_watchdog() end
  if loop.discard_locks then loop.discard_locks() end
  if loop.discard_channels then loop.discard_channels() end
  for _, slots in ipairs({ callbacks, overlapping, waiting, loop.places }) do
    for slot in pairs(slots) do
      slots[slot] = nil
    end
  end
  fifo.clear(deferred)
  if loop.discard_lines then loop.discard_lines() end
  wait.discard()
end

loop.turn, loop.has_work, loop.after_resume = turn, has_work, after_resume
loop.refuse_nesting, loop.while_running = refuse_nesting, while_running

return loop
