-- How a task ended, and who is told.
--
-- An outcome is the list of results with its count `n`, or a table with `failed` or `cancelled`, and `err`. A task that
-- ended without results and was watched by nobody has none: most tasks cost nothing here.

local native, compat, errors, wait, waiters = ...

local error, next, pairs, rawequal, select = error, next, pairs, rawequal, select
local setmetatable, type = setmetatable, type
local status = coroutine.status
local match = string.match
local pack, unpack = compat.pack, compat.unpack
local traceback_and_close = compat.traceback_and_close
local doomed = wait.doomed

local outcome = {
  --- Where a coroutine comes from that did not begin as a task: a number for `native.describe`, or words.
  origins = setmetatable({}, { __mode = "k" }),
  names = setmetatable({}, { __mode = "k" }),
  --- The functions that tasks begin with; each has a local variable `origin`.
  bodies = {},
  --- How many tasks are watched, at least: those that are collected meanwhile are not subtracted.
  watched = 0,
  --- Whether `look_for_lost` may find something.
  has_adrift = false,
  --- Ready-made coroutines that were made tasks.
  foreign = setmetatable({}, { __mode = "k" }),
  --- Who is told of the end of a task.
  watches = setmetatable({}, { __mode = "k" }),
  --- Coroutines that were resumed by the loop, or spawned, and have yielded of their own accord: then at least.
  parked = setmetatable({}, { __mode = "k" }),
  --- Tasks that were seen to end, but for those that have simply returned (see task.lua).
  ended_otherwise = 0,
}

local origins, names, bodies, foreign = outcome.origins, outcome.names, outcome.bodies, outcome.foreign
local watches, parked = outcome.watches, outcome.parked
-- Watched tasks that are where other code may resume them to their end, out of our sight.
local adrift = setmetatable({}, { __mode = "k" })
-- The error that was passed on last from one task to another, and its first traceback.
local passed_on, first_traceback

local keep, kept = compat.keep_outcome, compat.outcome_of
outcome.of = kept

--- Where a coroutine comes from: a number for `native.describe`, or words; of a task that runs for the first time, its
--- function.
function outcome.origin_of(co)
  return origins[co] or compat.first_local(co, bodies, "origin")
end

--- A task in words, for messages.
function outcome.describe(co)
  if co == wait.MAIN then return "the main thread" end
  local name, origin = names[co], outcome.origin_of(co)
  local kind = type(origin)
  local place = kind == "number" and native.describe(origin) or kind == "string" and origin or "a task"
  if not name then return place end
  local where = match(place, " at .+$")
  return "task '" .. name .. "'" .. (where and " spawned" .. where or "")
end

--- Whether a coroutine began as a task, or was made one.
function outcome.is_task(co)
  return foreign[co] or compat.first_local(co, bodies, "origin") ~= nil
end

local function set_adrift(co)
  adrift[co], outcome.has_adrift = true, true
end

--- Who is told of the end of a task: those that wait for it, and its scope. A task that is about to be started is not
--- adrift.
function outcome.watch(co, is_about_to_start)
  local watch = watches[co]
  if not watch then
    watch = { joiners = waiters.new() }
    watches[co] = watch
    outcome.watched = outcome.watched + 1
    if not is_about_to_start and wait.token_of(co) == nil then set_adrift(co) end
  end
  return watch
end

--- Whether anybody is told of the end of a task.
function outcome.is_watched(co)
  local watch = watches[co]
  return watch ~= nil and (watch.on_end ~= nil or watch.joiners.first ~= false)
end

--- Takes back that the end of a task is watched by other than those that wait for it.
function outcome.unwatch(co)
  local watch = watches[co]
  if watch then watch.on_end = nil end
end

local function settle(co, result)
  local watch = watches[co]
  if doomed[co] ~= nil then doomed[co] = nil end
  keep(co, result)
  if not watch then return false end
  watches[co], adrift[co] = nil, nil
  outcome.watched = outcome.watched - 1
  local is_observed = watch.on_end ~= nil or watch.joiners.first ~= false
  if watch.on_end then watch.on_end(co, result) end
  waiters.wake_all(watch.joiners)
  return is_observed
end

--- Notes that a task has returned.
function outcome.ended(co, ...)
  if watches[co] then
    settle(co, pack(...))
  elseif select("#", ...) > 0 then
    keep(co, pack(...))
  end
  return ...
end

--- The traceback of a coroutine that failed with `err`, which it is closed with, and after that the first one if the
--- error comes from elsewhere. Then also whether the closing made another error, and which.
function outcome.traceback_of(co, err)
  local traceback, has_other, other = traceback_and_close(co, err)
  if first_traceback and rawequal(err, passed_on) and first_traceback ~= "" then
    traceback = traceback .. "\npassed on from another task:\n" .. first_traceback
  end
  passed_on, first_traceback = nil, nil
  return traceback, has_other, other
end

--- Notes that a task has failed; its error goes to those that watch it, or else to the error handler.
function outcome.failed(co, err)
  local source = outcome.describe(co)
  if err == "cannot resume dead coroutine" and not native.has_failed(co) then
    -- Other code has closed it while it waited.
    settle(co, { cancelled = true, err = errors.new("cancelled", source .. " was closed") })
    return
  end
  local traceback, has_other, other = outcome.traceback_of(co, err)
  local is_cancelled = doomed[co] ~= nil and rawequal(err, doomed[co])
  local result = { failed = not is_cancelled, cancelled = is_cancelled, err = err, traceback = traceback }
  if not settle(co, result) and not is_cancelled then errors.report(err, traceback, source) end
  if has_other then errors.report(other, "", "the clean-up of " .. source) end
end

--- Notes that a task was cancelled and will not be resumed again.
function outcome.cancelled(co, err)
  outcome.ended_otherwise = outcome.ended_otherwise + 1
  settle(co, { cancelled = true, err = err })
end

--- Notes that a task has yielded of its own accord. One that was cancelled ends there, as it would have if it had done
--- so before.
function outcome.park(co)
  parked[co] = true
  if wait.doomed[co] ~= nil then return outcome.end_parked(co) end
  if watches[co] then set_adrift(co) end
end

--- Looks at a coroutine that came back with something else than `pending`: it yielded of its own accord, or has ended.
--- What a ready-made one returns is not noted elsewhere.
function outcome.came_back(co, ...)
  if status(co) ~= "dead" then
    outcome.park(co)
  elseif foreign[co] or watches[co] then
    outcome.ended_otherwise = outcome.ended_otherwise + 1
    outcome.ended(co, ...)
  end
end

--- Notes that other code has resumed a task.
function wait.on_resumed_by_hand(co)
  if watches[co] then set_adrift(co) end
  -- Where Lua cannot close coroutines, this is how one that was cancelled is kept from going on.
  local result = kept(co)
  if result and result.cancelled then error(result.err, 0) end
end

--- Settles watched tasks that other code has resumed to their end.
function outcome.look_for_lost()
  local lost = {}
  for co in pairs(adrift) do
    if status(co) == "dead" then lost[#lost + 1] = co end
  end
  outcome.has_adrift = next(adrift) ~= nil
  for _, co in pairs(lost) do
    settle(co, { failed = true, is_lost = true, err = outcome.lost(co), traceback = "" })
  end
end

--- The error for a task whose end was not seen.
function outcome.lost(co)
  return errors.new("lost", outcome.describe(co) .. " ended where other code had resumed it")
end

--- Raises an error that came with this traceback from elsewhere.
function outcome.pass_on(err, traceback)
  passed_on, first_traceback = err, traceback
  error(err, 0)
end

--- What a task returned; raises what it failed with.
function outcome.unwrap(result)
  if not result.failed and not result.cancelled then return unpack(result, 1, result.n) end
  return outcome.pass_on(result.err, result.traceback)
end

return outcome
