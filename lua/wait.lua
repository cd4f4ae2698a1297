-- Waiting: how a coroutine is registered, suspended and woken; the ready queue; `task.wait` and `task.yield`.
--
-- Ground rules
--
-- A coroutine that waits for something of ours is suspended in a function of ours, and that function's local variable
-- `token` says what it waits for. Nothing else keeps account of it, so a million sleepers take no more than their
-- coroutines and timers. The token is
--
--   a number     the id of the timer that is to wake it; `callbacks` has the coroutine under the timer's slot
--   less than 0  it waits for the next turn, since the turn of that (negative) number
--   QUEUED       it is in the ready queue
--   a node       `node.co` is the coroutine, `false` once it has gone on; its place in a list of waiters, its timer, or
--                what it waits for else (see waiters.lua and task.lua)
--
-- Whoever wakes a coroutine takes it out of all these places. A coroutine that goes on for another reason, resumed by
-- hand or cancelled, is taken out by `release`. So no wake-up is ever stale.
--
-- What a coroutine is resumed with tells why it goes on: WAKE and RAISE come from the loop, BY_HAND from a coroutine of
-- ours that waited in its place (see coroutine.lua), anything else from whoever resumed it by hand.
--
-- The main thread waits as well: MAIN stands for it, and instead of yielding it turns the loop.
--
-- The ready queue, the waits and what cancels them share local variables, which are read several times as fast as
-- fields: so they are in one file, long as it is.

local native, compat, check, fifo = ...

local error, ipairs, pairs, select, setmetatable, type = error, ipairs, pairs, select, setmetatable, type
local resume, status, yield = coroutine.resume, coroutine.status, coroutine.yield
local running, isyieldable = compat.running, compat.isyieldable
local callbacks, set_timer, clear_timer = native.callbacks, native.set_wake, native.clear
local sleep, here, native_token_of = native.sleep, native.here, native.token_of
local raise = check.raise

local NANOS_PER_SECOND = 1e9

-- Marks that meet the program's own values. They are functions since a comparison of two tables might call `__eq`.
local function WAKE() end
local function RAISE() end
local function BY_HAND() end
--- What our calls make a coroutine yield to whoever resumed it.
local function pending() end

local MAIN, QUEUED = {}, {}

-- A task that goes on swallowing its cancellation, in a loop say, is ended after so many times.
local MOST_SWALLOWED = 100

local wait = {
  MAIN = MAIN,
  WAKE = WAKE,
  RAISE = RAISE,
  BY_HAND = BY_HAND,
  QUEUED = QUEUED,
  --- The error that every wait of a task raises from now on, since it was cancelled.
  doomed = setmetatable({}, { __mode = "k" }),
  --- Those of them that do not know of it yet, as what they waited for had come before.
  unaware = setmetatable({}, { __mode = "k" }),
  --- Coroutines in which a protected call runs (see coroutine.lua), with the coroutine that made the call.
  protected_in = setmetatable({}, { __mode = "kv" }),
  --- Coroutines that were resumed by `scheduler.coroutine`, with who did so last.
  carried_in = setmetatable({}, { __mode = "kv" }),
  pending = pending,
  --- Sets a timer that wakes a coroutine or a node after so many seconds; returns its id.
  set_timer = set_timer,
  microtasks = fifo.new(),
  --- Coroutines that were woken or started.
  resumed = 0,
}

local doomed, unaware, protected_in, carried_in = wait.doomed, wait.unaware, wait.protected_in, wait.carried_in
-- The nodes that have taken the place of tokens: by which a coroutine that waits is about to be interrupted, or is
-- scheduled to go on; GONE if it waits for nothing any more and was not resumed yet.
local replaced = setmetatable({}, { __mode = "kv" })
local GONE = { co = false }
-- The nodes by which coroutines that are parked or fresh are scheduled to go on.
local schedules = setmetatable({}, { __mode = "kv" })
local swallowed = setmetatable({}, { __mode = "k" }) -- how often a doomed task was told
local main_token -- what the main thread waits for
local now = 0 -- the time, in nanoseconds, at which the running turn began

-- Whether a wait has nothing to look at but itself: no task is doomed, and no host turns the loop.
local is_plain = true

-- The ready queue ---------------------------------------------------------------------------------------------------

-- The entries are `ready[first]` to `ready[last]`; all others, up to the capacity, are false, so that Lua keeps them in
-- an array. An entry is a coroutine that is resumed with WAKE, or a node. Nodes, and entries whose coroutine has gone
-- on for another reason, are odd: as long as there is none, nothing has to be looked at.
local ready, first_ready, last_ready, capacity, odd = {}, 1, 0, 0, 0
local stale = setmetatable({}, { __mode = "k" }) -- how many entries of a coroutine are to be skipped
local stopped, has_microtasks = false, false -- what makes the queue odd as well
local this_turn = -1 -- the token of those that wait for the next turn
local stale_next, has_stale_next = setmetatable({}, { __mode = "k" }), false -- as `stale`, for `next_turn`
local next_turn = { last = 0 } -- coroutines that become ready when the next turn begins

--- Moves the entries to the beginning; doubles the capacity if they take up more than half of it.
local function make_room()
  local count = last_ready - first_ready + 1
  if first_ready > 1 then
    for i = 1, count do
      ready[i] = ready[first_ready + i - 1]
    end
    for i = count + 1, last_ready do
      ready[i] = false
    end
    first_ready, last_ready = 1, count
  end
  if 2 * count >= capacity then
    local more = capacity == 0 and 1024 or 2 * capacity
    for i = capacity + 1, more do
      ready[i] = false
    end
    capacity = more
  end
end

make_room()

local function push_ready(entry)
  if last_ready == capacity then make_room() end
  last_ready = last_ready + 1
  ready[last_ready] = entry
end

--- A host that turns the loop by itself has to hear of what is queued outside of a turn.
function wait.tell_host()
  if wait.embedded and not wait.is_running then native.raise() end
end

--- From now on a descriptor tells a host's loop when we have work.
function wait.embed()
  wait.embedded, is_plain = true, false
end

--- Queues a node, whose coroutine goes on with WAKE, or raises `node.err` if `node.is_interrupted`.
function wait.make_ready(node)
  wait.tell_host()
  push_ready(node)
  odd = odd + 1
end

--- Takes out of `next_turn` what is not to wait there any more; returns how many are left.
local function drop_stale_next()
  local count = 0
  for i = 1, next_turn.last do
    local co = next_turn[i]
    next_turn[i] = false
    if stale_next[co] then
      stale_next[co] = stale_next[co] > 1 and stale_next[co] - 1 or nil
    else
      count = count + 1
      next_turn[count] = co
    end
  end
  has_stale_next = false
  return count
end

--- Begins a turn: those that waited for it are ready.
function wait.begin_turn(time)
  now = time
  if stopped then
    stopped, odd = false, odd - 1
  end
  local last = next_turn.last
  if last == 0 then return end
  this_turn = this_turn - 1
  if has_stale_next then last = drop_stale_next() end
  next_turn.last = 0
  for i = 1, last do
    push_ready(next_turn[i])
    next_turn[i] = false
  end
end

function wait.is_ready()
  return first_ready <= last_ready
end

--- Calls `visit` for each coroutine and node that is ready, or will be when the next turn begins.
function wait.each_queued(visit)
  for i = first_ready, last_ready do
    visit(ready[i])
  end
  for i = 1, next_turn.last do
    visit(next_turn[i])
  end
end

--- Whether something is ready for the next turn.
function wait.has_ready()
  return first_ready <= last_ready or next_turn.last > 0
end

--- Resumes a queued entry that is not simply a coroutine.
local function resume_oddly(entry)
  if type(entry) == "table" then
    odd = odd - 1
    wait.resume_node(entry)
  elseif stale[entry] then
    odd = odd - 1
    stale[entry] = stale[entry] > 1 and stale[entry] - 1 or nil
  else
    wait.resume_queued(entry)
  end
end

--- Calls `step(false, co)` before each coroutine is resumed, as the loop does for what it runs; nil is no more.
function wait.watch(step)
  if step and not wait.on_step then odd = odd + 1 end
  if not step and wait.on_step then odd = odd - 1 end
  wait.on_step = step
end

--- Does what is to be done before the next entry, and resumes that. False if there is to be no next one.
local function step_oddly()
  if has_microtasks then wait.run_microtasks() end
  if stopped or first_ready > last_ready then return false end
  local entry = ready[first_ready]
  ready[first_ready] = false
  first_ready = first_ready + 1
  if wait.on_step then wait.on_step(false, type(entry) == "table" and entry.co or entry) end
  resume_oddly(entry)
  return true
end

--- Resumes so many ready coroutines at the most, those as well that become ready meanwhile, unless the turn is stopped;
--- returns how many. This is the way of every wake-up: nothing is done here that need not be.
function wait.run_ready(most)
  local after_resume = wait.after_resume
  local count = 0
  repeat
    while first_ready <= last_ready and count < most do
      if odd == 0 then
        local first = first_ready
        local co = ready[first]
        ready[first], first_ready = false, first + 1
        local ok, what = resume(co, WAKE)
        if what ~= pending or not ok then after_resume(co, ok, what) end
      elseif not step_oddly() then
        break
      end
      count = count + 1
    end
    -- Those of the last one may make others ready.
    local had_microtasks = has_microtasks
    if had_microtasks then wait.run_microtasks() end
  until not had_microtasks or stopped
  if first_ready > last_ready then
    first_ready, last_ready = 1, 0
  end
  wait.resumed = wait.resumed + count
  return count
end

--- Ends the turn: `odd` makes `run_ready` look.
function wait.stop()
  if not stopped then
    stopped, odd = true, odd + 1
  end
end

--- Notes that the queue of microtasks is not empty, or that it is.
function wait.set_microtasks(is_any)
  wait.microtasks.is_noted = is_any
  if is_any ~= has_microtasks then
    has_microtasks, odd = is_any, odd + (is_any and 1 or -1)
  end
end

--- Makes the loop look at each coroutine that it resumes: where Lua does not tell beforehand whether a yield works, and
--- with ready-made coroutines, whose results have to be taken from `resume`.
function wait.look_at_each()
  if not wait.looks_at_each then
    wait.looks_at_each = true
    odd = odd + 1
  end
end

if not compat.tells_yieldable then wait.look_at_each() end

-- Tokens ------------------------------------------------------------------------------------------------------------

-- The functions that yield for us; each has a local variable `token`.
local waiting = native.waiting
waiting.yield = yield

--- Whether a coroutine is suspended in a function of ours.
local function is_in_wait(co)
  return native_token_of(co) ~= nil
end

--- What a suspended coroutine waits for; nil if it is parked in a yield of its own, or fresh.
local function token_of(co)
  if co == MAIN then return main_token end
  local token = native_token_of(co)
  return token ~= nil and replaced[co] or token
end

wait.token_of = token_of

--- Whether a coroutine with this token is in the ready queue, or will be when the next turn begins.
local function is_queued(token)
  return token == QUEUED or type(token) == "number" and token < 0
end

wait.is_queued = is_queued

--- Whether a coroutine with this token may be in the ready queue by now.
function wait.is_ready_now(token)
  return is_queued(token) and token ~= this_turn
end

--- Takes a node out of the places where it is to be woken, since its coroutine goes on.
local function leave(node)
  if node.timer then
    clear_timer(node.timer)
    node.timer = nil
  end
  if node.list then node.list.remove(node) end
end

wait.leave = leave

--- Ends what `co` waited for with this token, since it goes on for another reason.
local function release(token, co)
  local is_number = type(token) == "number"
  if is_number and token > 0 then
    clear_timer(token)
  elseif token == this_turn then
    has_stale_next, stale_next[co] = true, (stale_next[co] or 0) + 1
  elseif is_number or token == QUEUED then
    odd, stale[co] = odd + 1, (stale[co] or 0) + 1
  elseif token.co then
    leave(token)
    token.co = false
    if token.is_marked then native.take_mark(co, token) end
    -- It was woken and has not taken what it was woken with.
    if token.woken and token.give_back then token.give_back(token.value, token.number) end
  end
end

wait.release = release

--- Ends what a coroutine waits for, since it goes on for another reason, or is to. Returns whether it is suspended in a
--- function of ours: it has to be resumed with BY_HAND then.
local function drop(co)
  local token, schedule = token_of(co), schedules[co]
  if schedule then
    release(schedule, co)
    schedules[co] = nil
  end
  if token == nil then return false end
  release(token, co)
  replaced[co] = GONE
  return true
end

wait.drop = drop

--- Whether a coroutine waits for something that nothing but that ends: the tasks of its scope.
function wait.is_firm(co)
  local token = token_of(co)
  return type(token) == "table" and token.is_firm
end

--- Lets a coroutine wait for `node` alone: to be resumed by it.
function wait.replace(co, node)
  node.is_in_wait = drop(co)
  if node.is_in_wait then
    replaced[co] = node
  else
    schedules[co] = node
  end
end

--- The node by which a parked coroutine is scheduled to go on.
function wait.scheduled(co)
  local node = schedules[co]
  if not node or not node.co or is_in_wait(co) then return nil end
  if node.is_marked then
    -- To look at a mark is to take it and put it back.
    if not native.take_mark(co, node) then return nil end
    native.mark(co, node)
  end
  return node
end

--- What a call of ours returns whose coroutine was not resumed with WAKE.
local function not_woken(token, ...)
  local first, err = ...
  local co = running()
  local node = replaced[co]
  replaced[co] = nil
  if first == RAISE then error(err, 0) end
  if first == BY_HAND then return select(2, ...) end
  release(node or token, co)
  wait.on_resumed_by_hand(co)
  return ...
end

--- What a wait returns, given what its coroutine was resumed with: WAKE, or what somebody passed to `resume`.
local function resumed(token, ...)
  if (...) == WAKE then return WAKE end
  return not_woken(token, ...)
end

--- Suspends the running coroutine, or turns the loop for the main thread.
local function suspend(token, co)
  if co == MAIN then
    main_token = token
    return resumed(token, wait.turn_main())
  end
  return resumed(token, yield(pending))
end

wait.suspend = suspend
waiting[suspend] = true

function wait.wake_main()
  main_token = nil
end

--- Whether the main thread is still waiting.
function wait.is_main_waiting()
  return main_token ~= nil
end

--- Waits with a node in spite of any cancellation and of being resumed by hand, until it is woken. `again` registers
--- the node anew after an interruption. Returns the error of the interruption, if there was one.
function wait.suspend_through(token, co, again)
  local first, err, interruption
  repeat
    if co == MAIN then
      main_token = token
      first = wait.turn_main()
    else
      first, err = yield(pending)
    end
    local node = replaced[co]
    replaced[co] = nil
    if first ~= RAISE then err = node and node.is_interrupted and node.err or nil end
    if node then release(node, co) end
    -- Whoever was resumed by hand in our place has released the node.
    if first ~= WAKE and not token.co and not token.woken then again(co, err) end
    interruption = interruption or err
  until first == WAKE or token.woken and not token.co
  return interruption
end

waiting[wait.suspend_through] = true

--- The main thread waits no more, and nothing has come.
function wait.release_main()
  local token = main_token
  main_token = nil
  release(token, MAIN)
end

--- Lets `outer` wait for what `inner` has just been registered for; returns the token, nil if inner does not wait.
function wait.take_over(inner, outer)
  local token = token_of(inner)
  if type(token) == "number" and token > 0 then
    callbacks[native.slot(token)] = outer
  elseif is_queued(token) then
    if outer == MAIN then
      odd, outer = odd + 1, { co = MAIN, stands_in = true }
    end
    -- It has just been queued, by `sleep` or by `give_way`.
    if next_turn[next_turn.last] == inner then next_turn[next_turn.last] = outer end
    if ready[last_ready] == inner then ready[last_ready] = outer end
  elseif token then
    token.co = outer
  end
  return token
end

--- What a coroutine is to be told that was carried, given what its carrier was resumed with. What the carrier was
--- resumed with by hand is for the one inside, as if it had been resumed so.
local function carried(co, token, ...)
  local first = ...
  if first == WAKE then
    if not is_plain and is_queued(token) and doomed[co] ~= nil then return RAISE, wait.tell_doom(co) end
    return WAKE
  end
  if first ~= RAISE and first ~= BY_HAND then return BY_HAND, not_woken(token, ...) end
  replaced[co] = nil
  return ...
end

--- Suspends a coroutine that waits in the place of one inside; returns what that one is to be resumed with.
function wait.carry(token, co)
  if co == MAIN then
    main_token = token
    return wait.turn_main()
  end
  return carried(co, token, yield(pending))
end

waiting[wait.carry] = true

-- Cancellation ------------------------------------------------------------------------------------------------------

--- Counts how often a task was told of its cancellation; if it goes on and on, this does not return.
function wait.tell_doom(co)
  local times = (swallowed[co] or 0) + 1
  swallowed[co] = times
  if unaware[co] then unaware[co] = nil end
  if times > MOST_SWALLOWED then
    wait.end_swallower(co)
    yield(pending)
  end
  return doomed[co]
end

--- The running coroutine, if it may wait; or MAIN. A wait that is shielded is not kept from one by a cancellation.
local function current(is_shielded)
  local co = running()
  if co == nil then
    if wait.is_running then raise("cannot wait on the main thread while the scheduler is running") end
    return MAIN
  end
  if not isyieldable() then raise("cannot wait here: the coroutine cannot yield across a C call") end
  if not is_plain and not is_shielded then
    local me = wait.runner_of(co)
    if doomed[me] ~= nil then error(wait.tell_doom(me), 0) end
  end
  return co
end

wait.current = current

--- Makes every wait of a task raise `err` from now on.
function wait.doom(co, err)
  doomed[co], is_plain = err, false
end

--- Whether what a coroutine waits for with this token has come. If not, what is between VMs will not come any more.
local function has_come(token)
  if type(token) ~= "table" then return false end
  local list = token.list
  return token.woken or list and list.settle and list.settle(token)
end

--- Makes every wait of a task raise `err` from now on, the one that it is in as well. False if that cannot be: it is
--- parked in a yield of its own.
function wait.interrupt(co, err)
  wait.doom(co, err)
  if status(co) ~= "suspended" then return true end
  local token = token_of(co)
  if token == nil then return false end
  -- Who only gives way looks again, and who is interrupted already will hear of it.
  if is_queued(token) or type(token) == "table" and token.is_interrupted then return true end
  local node = { co = co, is_interrupted = true, err = err }
  -- What has come already has succeeded; the next wait raises.
  if has_come(token) then
    unaware[co] = true
    return true
  end
  wait.replace(co, node)
  wait.make_ready(node)
  wait.tell_awaited(token, err)
  return true
end

--- Tells the promise that a coroutine was waiting for with this token that the coroutine was cancelled.
function wait.tell_awaited(token, err)
  if type(token) == "table" and token.awaits then wait.abandon(token.awaits, err) end
end

--- The task that a coroutine belongs to: itself, but for the inside of a protected call.
function wait.task_of(co)
  local outer = protected_in[co]
  while outer do
    co, outer = outer, protected_in[outer]
  end
  return co
end

--- The task in which a coroutine runs, also the inside of a generator.
function wait.runner_of(co)
  local outer = protected_in[co] or carried_in[co]
  while outer do
    co, outer = outer, protected_in[outer] or carried_in[outer]
  end
  return co
end

-- Time and giving way -----------------------------------------------------------------------------------------------

local function elapsed(token, start, ...)
  if (...) == WAKE then return (now - start) / NANOS_PER_SECOND end
  return not_woken(token, ...)
end

--- `elapsed` for what `suspend` returns.
local function elapsed_slowly(start, ...)
  if (...) == WAKE then return (now - start) / NANOS_PER_SECOND end
  return ...
end

--- What `sleep` has left to Lua: the main thread, bad arguments, and coroutines that cannot yield.
local function sleep_slowly(seconds)
  if seconds ~= nil and (type(seconds) ~= "number" or seconds ~= seconds) then
    check.bad_argument(1, "wait", "number", seconds)
  end
  local co, start = current(), native.time()
  return elapsed_slowly(start, suspend(set_timer(co, seconds or 0), co))
end

--- Looks at what is not plain before a coroutine waits; `id` is that of the timer that was set for it.
local function look_closer(co, id)
  if doomed[co] ~= nil then
    if id then clear_timer(id) end
    error(wait.tell_doom(co), 0)
  end
  if not id then wait.tell_host() end
end

--- Who only gives way gets nothing that could be lost: a cancellation that came meanwhile is raised there.
local function gave_way(co, token, ...)
  if (...) ~= WAKE then return not_woken(token, ...) end
  if not is_plain and doomed[co] ~= nil then error(wait.tell_doom(co), 0) end
end

--- `elapsed` for who gives way for a turn.
local function elapsed_in_turn(co, token, start, ...)
  if not is_plain and (...) == WAKE then gave_way(co, token, WAKE) end
  return elapsed(token, start, ...)
end

--- `task.wait`.
function wait.sleep(seconds)
  local co, start, token = sleep(seconds)
  if not co then return sleep_slowly(seconds) end
  if not is_plain then look_closer(co, token) end
  if token then return elapsed(token, start, yield(pending)) end
  token = this_turn
  local last = next_turn.last + 1
  next_turn.last, next_turn[last] = last, co
  return elapsed_in_turn(co, token, start, yield(pending))
end

waiting[wait.sleep] = true

--- For the main thread, and coroutines that cannot yield.
local function give_way_slowly()
  local node = { co = current() }
  wait.make_ready(node)
  suspend(node, node.co)
end

--- `task.yield`: goes on after everything that is ready now.
function wait.give_way()
  local co, token = here(), QUEUED
  if not co then return give_way_slowly() end
  if not is_plain then look_closer(co) end
  if last_ready == capacity then make_room() end
  last_ready = last_ready + 1
  ready[last_ready] = co
  return gave_way(co, token, yield(pending))
end

waiting[wait.give_way] = true

--- Drops all that is ready: what a job leaves behind must not run into the next one.
function wait.discard()
  for i = first_ready, last_ready do
    ready[i] = false
  end
  first_ready, last_ready, next_turn.last = 1, 0, 0
  odd = (wait.looks_at_each and 1 or 0) + (stopped and 1 or 0) + (wait.on_step and 1 or 0)
  has_stale_next = false
  for _, counts in ipairs({ stale, stale_next }) do
    for co in pairs(counts) do
      counts[co] = nil
    end
  end
  fifo.clear(wait.microtasks)
  has_microtasks, wait.microtasks.is_noted = false, false
end

return wait
