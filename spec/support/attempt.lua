-- Runs functions in tasks, for specs that look at how they ended.

local scheduler = require("scheduler")
local virtual = require("spec.support.virtual")

local attempt = {}

--- Starts `fn(...)` as a task that is joined, so that its error is not reported. Returns a table that has its coroutine
--- in `co` and gets `ended`, and then `ok` with the results in `n` and 1 to n, or `err`.
function attempt.start(fn, ...)
  local result = { co = scheduler.task.defer(fn, ...) }
  local function keep(ok, ...)
    result.ended, result.ok = true, ok
    if not ok then
      result.err = (...)
      return
    end
    result.n = select("#", ...)
    for i = 1, result.n do
      result[i] = (select(i, ...))
    end
  end
  scheduler.task.spawn(function()
    keep(scheduler.pcall(scheduler.task.join, result.co))
  end)
  scheduler.poll()
  return result
end

--- Runs `fn()` with the errors that reach `on_error` kept in a list.
function attempt.reported(fn)
  local errors, record = virtual.recorder()
  local former = scheduler.on_error(function(err)
    record(err)
  end)
  local ok, err = pcall(fn)
  scheduler.on_error(former)
  if not ok then error(err, 0) end
  return errors
end

--- Ways in which a task that waits goes on, or ends, without what it waits for: by their names, functions that start
--- `fn` as a task at once and return a function that makes it leave.
attempt.leavings = {
  ["task.cancel"] = function(fn)
    local co = scheduler.task.spawn(fn)
    return function()
      scheduler.task.cancel(co)
    end
  end,
  ["the cancellation of its scope"] = function(fn)
    local given
    scheduler.task.spawn(scheduler.scope, function(scope)
      given = scope
      scope:spawn(fn)
    end)
    return function()
      given:cancel()
    end
  end,
  ["the failure of a sibling"] = function(fn)
    local given
    attempt.start(scheduler.scope, function(scope)
      given = scope
      scope:spawn(fn)
      coroutine.yield()
    end)
    return function()
      given:spawn(error, "failed", 0)
    end
  end,
  ["coroutine.resume"] = function(fn)
    local co = scheduler.task.spawn(fn)
    return function()
      coroutine.resume(co, "by hand")
    end
  end,
  ["task.spawn"] = function(fn)
    local co = scheduler.task.spawn(fn)
    return function()
      scheduler.task.spawn(co, "by hand")
    end
  end,
  ["task.defer"] = function(fn)
    local co = scheduler.task.spawn(fn)
    return function()
      scheduler.task.defer(co, "by hand")
    end
  end,
}

return attempt
