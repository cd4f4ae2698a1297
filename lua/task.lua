-- Tasks: coroutines that the loop resumes. The names and the order are those of Roblox's `task` library.

local native, compat, check, errors, wait, outcome, waiters, loop = ...

local format = string.format
local error, select, setmetatable, type = error, select, setmetatable, type
local concat, remove = table.concat, table.remove
local create, resume, status = coroutine.create, coroutine.resume, coroutine.status
local pack, unpack, close = compat.pack, compat.unpack, compat.close
local bad_argument, raise = check.bad_argument, check.raise
local origin_here, set_origin = native.origin, native.set_origin
local drop, suspend, set_timer, token_of, task_of = wait.drop, wait.suspend, wait.set_timer, wait.token_of, wait.task_of
local doomed, WAKE, BY_HAND, pending = wait.doomed, wait.WAKE, wait.BY_HAND, wait.pending
local origins, names, bodies, describe = outcome.origins, outcome.names, outcome.bodies, outcome.describe
local failed, keep_results = outcome.failed, outcome.ended
local after_resume, running = loop.after_resume, coroutine.running

local task = { wait = wait.sleep, yield = wait.give_way }
-- What is to be done when a task is cancelled for good, last first: it will not run its own clean-up.
local clean_ups = setmetatable({}, { __mode = "k" })

-- Starting --------------------------------------------------------------------------------------------------------

local has_ended = false -- whether a task has ended since the last one was started
local returned = 0 -- how many have returned

local function ended(...)
  has_ended, returned = true, returned + 1
  if outcome.watched > 0 or (...) ~= nil or select("#", ...) > 0 then return keep_results(running(), ...) end
end

--- What a task begins with that starts at once. `origin` is its function; if the task waits, that is replaced by the
--- origin.
---
--- The stack of a coroutine has room for twenty values besides what the C function needs that yields, and is doubled
--- beyond that. So the plain case has a body of its own with few variables: a million sleepers take half the memory.
local function body(origin)
  return ended(origin())
end

local function body_with_arguments(origin, ...)
  return ended(origin(...))
end

--- What a task was resumed with that was waiting for its start: nothing from the loop, or what somebody else passed.
local function started(...)
  if (...) ~= WAKE then return ... end
end

--- Calls a function with arguments from a list, and further ones.
local function call_with(fn, args, ...)
  local extra = select("#", ...)
  if extra == 0 then return fn(unpack(args, 1, args.n)) end
  local all = {}
  for i = 1, args.n do
    all[i] = args[i]
  end
  for i = 1, extra do
    all[args.n + i] = (select(i, ...))
  end
  return fn(unpack(all, 1, args.n + extra))
end

--- What a task begins with that starts later: it is resumed once to take its function and arguments onto its own
--- stack, so that whoever resumes it before its time runs the function with them.
local function primed_body(origin, node, fn, ...) -- luacheck: no unused args
  local count = select("#", ...)
  if count == 0 then return ended(fn(started(suspend(node)))) end
  if count == 1 then
    local a = ...
    return ended(fn(a, started(suspend(node))))
  end
  local args = pack(...)
  return ended(call_with(fn, args, started(suspend(node))))
end

local new_task = native.task_maker(body, body_with_arguments)
bodies[body], bodies[body_with_arguments], bodies[primed_body] = true, true, true

--- Makes a task that is to be started; returns the node to start it with.
local function prime(origin, fn, ...)
  local co = create(primed_body)
  local node = { co = co, timer = false }
  local ok, err = resume(co, origin, node, fn, ...)
  if not ok then error(err, 0) end -- there was no memory for its arguments
  return node
end

--- Makes `fn(...)` a task that starts in the next turn; what becomes of it is for the caller to see.
function task.start(fn, source, ...)
  local node = prime(source, fn, ...)
  outcome.watch(node.co, "is about to start").on_end = function() end
  wait.make_ready(node)
  return node.co
end

--- Refuses coroutines that cannot be resumed.
local function check_resumable(co, name, position)
  local state, result = status(co), outcome.of(co)
  local is_cancelled, is_firm = result and result.cancelled, state == "suspended" and wait.is_firm(co)
  if not is_cancelled and not is_firm and (state == "suspended" or state ~= "dead" and name ~= "spawn") then return end
  local what = is_cancelled and "cancelled"
    or is_firm and "waiting for the tasks of its scope"
    or state == "normal" and "waiting for one that it resumed"
    or state
  raise(format("bad argument #%d to '%s' (the coroutine is %s)", position, name, what))
end

--- Whether `x` is a coroutine; if not, it must be callable.
local function is_coroutine(x, name, position)
  if type(x) == "thread" then
    check_resumable(task_of(x), name, position)
    return true
  end
  if type(x) ~= "function" and not compat.is_callable(x) then
    bad_argument(position, name, "function or coroutine", x)
  end
  return false
end

--- Makes a coroutine that somebody else made a task.
local function adopt(co)
  if not outcome.is_task(co) then
    outcome.foreign[co], origins[co] = true, origins[co] or origin_here()
    wait.look_at_each()
  end
end

--- What comes after a task ran for the first time.
local function after_start(co, ok, what)
  if not ok then
    origins[co] = origin_here()
    outcome.ended_otherwise = outcome.ended_otherwise + 1
    failed(co, what)
  elseif what == pending or not has_ended then
    -- What has ended may be another one, which it has resumed.
    set_origin(co)
    if what ~= pending then outcome.park(co) end
  end
  has_ended = false
  return co
end

local function resume_now(co, ...)
  co = task_of(co)
  local is_in_wait = drop(co)
  adopt(co)
  if is_in_wait then
    after_resume(co, resume(co, BY_HAND, ...))
  else
    after_resume(co, resume(co, ...))
  end
  return co
end

function task.spawn(f, ...)
  local co = new_task(f, ...)
  if not co then
    if is_coroutine(f, "spawn", 1) then return resume_now(f, ...) end
    co = create(body_with_arguments)
  end
  has_ended = false
  return after_start(co, resume(co, f, ...))
end

--- Makes a task whose end is told to `on_end(co, outcome)`, for `start_watched`.
function task.new_watched(on_end)
  local co = create(body_with_arguments)
  outcome.watch(co, "is about to start").on_end = on_end
  return co
end

function task.start_watched(co, f, ...)
  has_ended = false
  return after_start(co, resume(co, f, ...))
end

--- A node for the scheduled resumption of a ready-made coroutine.
local function schedule(co, ...)
  co = task_of(co)
  adopt(co)
  local node = { co = co, args = pack(...), timer = false }
  wait.replace(co, node)
  if status(co) == "suspended" and not node.is_in_wait then node.is_marked = native.mark(co, node) end
  return node
end

function task.defer(f, ...)
  local is_ready_made = type(f) ~= "function" and is_coroutine(f, "defer", 1)
  local node = is_ready_made and schedule(f, ...) or prime(origin_here(), f, ...)
  local co = node.co
  loop.defer(node)
  return is_ready_made and f or co
end

function task.delay(seconds, f, ...)
  if seconds ~= nil and (type(seconds) ~= "number" or seconds ~= seconds) then
    bad_argument(1, "delay", "number", seconds)
  end
  local is_ready_made = type(f) ~= "function" and is_coroutine(f, "delay", 2)
  local node = is_ready_made and schedule(f, ...) or prime(origin_here(), f, ...)
  node.timer = set_timer(node, seconds or 0)
  return is_ready_made and f or node.co
end

-- Ending ----------------------------------------------------------------------------------------------------------

local function check_task(co, name)
  if type(co) ~= "thread" then bad_argument(1, name, "coroutine", co) end
  return task_of(co)
end

--- The running task; or MAIN.
function task.current()
  return wait.runner_of(compat.running() or wait.MAIN)
end

--- Calls `fn` if a task is cancelled for good before `task.pop_clean_up`.
function task.push_clean_up(co, fn)
  local list = clean_ups[co]
  if not list then
    list = {}
    clean_ups[co] = list
  end
  list[#list + 1] = fn
end

--- Takes back a `push_clean_up`. False if it was called meanwhile.
function task.pop_clean_up(co, fn)
  local list = clean_ups[co]
  for i = list and #list or 0, 1, -1 do
    if list[i] == fn then
      remove(list, i)
      if #list == 0 then clean_ups[co] = nil end
      return true
    end
  end
  return false
end

local function clean_up(co)
  local list = clean_ups[co]
  if not list then return end
  clean_ups[co] = nil
  for i = #list, 1, -1 do
    list[i]()
  end
end

--- The main thread's wait has ended without what it waited for.
function wait.on_main_gave_up()
  clean_up(wait.MAIN)
end

--- Cancels a suspended task for good: it is never resumed again.
local function cancel(co, reason)
  local token = token_of(co)
  drop(co)
  local err = doomed[co] or errors.new("cancelled", describe(co) .. " was cancelled", { reason = reason })
  clean_up(co)
  wait.tell_awaited(token, err)
  local source = describe(co)
  outcome.cancelled(co, err)
  if close then
    local ok, failure = close(co)
    if not ok then errors.report(failure, "", "the clean-up of " .. source) end
  else
    -- Other code can still resume it, but it is not to wait again.
    wait.doom(co, err)
  end
end

outcome.end_parked = cancel

--- Makes every wait of a task raise `err` from now on; one that is parked in a yield of its own is cancelled for good.
function task.interrupt(co, err)
  if status(co) ~= "dead" and not wait.interrupt(co, err) then cancel(co, err.reason) end
end

--- Cancels a task in such a way that it may clean up.
function task.stop(co, reason)
  task.interrupt(co, errors.new("cancelled", describe(co) .. " was cancelled", { reason = reason }))
end

function task.cancel(co)
  co = check_task(co, "cancel")
  local state = status(co)
  if state == "dead" then return end
  if state == "running" then raise("bad argument #1 to 'cancel' (a task cannot cancel itself)") end
  if state == "normal" then raise("bad argument #1 to 'cancel' (the coroutine waits for one that it resumed)") end
  local result = outcome.of(co)
  if result and result.cancelled then return end
  cancel(co)
end

--- A task that swallows its cancellation over and over ends where it waits.
function wait.end_swallower(co)
  loop.queue_microtask(function()
    if status(co) == "suspended" then cancel(co) end
  end)
end

--- What is wrong about a join that could never end.
function wait.find_cycle(me, co)
  local path, at = { describe(me) }, co
  while at do
    path[#path + 1] = describe(at)
    if at == me then return "this join would never end: " .. concat(path, " waits for ") end
    local token = token_of(at)
    at = type(token) == "table" and token.joins
  end
end

local function joined(co, ...)
  if (...) == WAKE then return outcome.unwrap(outcome.of(co)) end
  return ...
end

function task.join(co)
  co = check_task(co, "join")
  local result = outcome.of(co)
  if result then return outcome.unwrap(result) end
  if status(co) == "dead" then
    if native.has_failed(co) then error(outcome.lost(co), 0) end
    return
  end
  local cycle = wait.find_cycle(task_of(wait.current()), co)
  if cycle then raise(cycle) end
  local node = waiters.node()
  node.joins = co
  return joined(co, waiters.wait(outcome.watch(co).joiners, nil, node))
end

--- How many tasks were seen to end.
function task.ended_count()
  return returned + outcome.ended_otherwise
end

-- Looking ---------------------------------------------------------------------------------------------------------

function task.status(co)
  co = check_task(co, "status")
  local result, state = outcome.of(co), status(co)
  if result then return result.failed and "failed" or result.cancelled and "cancelled" or "done" end
  if state == "dead" then return native.has_failed(co) and "failed" or "done" end
  if state ~= "suspended" then return state end
  local token = token_of(co) or wait.scheduled(co)
  if token == nil then return "parked" end
  if wait.is_queued(token) then return "ready" end
  return type(token) == "table" and not token.timer and not token.list and "ready" or "waiting"
end

function task.name(co, ...)
  co = check_task(co, "name")
  if select("#", ...) > 0 then
    local name = ...
    if name ~= nil and type(name) ~= "string" then bad_argument(2, "name", "string or nil", name) end
    names[co] = name
  end
  return names[co]
end

return task
