-- Waiting in tasks, for specs of `async`, `await` and what belongs to them.

local scheduler = require("scheduler")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local async, await = scheduler.async, scheduler.await
local advance = virtual.advance

local counted = promised.counted

--- Waits in a task, as time passes; returns what `scheduler.pcall(await, ...)` does.
local function attempt(...)
  local results
  task.spawn(function(...)
    results = counted(scheduler.pcall(await, ...))
  end, ...)
  advance(2000)
  assert(results, "the wait has not ended")
  return (table.unpack or unpack)(results, 1, results.n)
end

local function succeeded(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

--- As `attempt`, but raises what that fails with.
local function settled(...)
  return succeeded(attempt(...))
end

--- An object that can be called.
local function callable(fn)
  return setmetatable({}, {
    __call = function(_, ...)
      return fn(...)
    end,
  })
end

--- Ways to run a function where it may wait.
local places = {
  ["a task"] = task.spawn,
  ["a deferred task"] = task.defer,
  ["a delayed task"] = function(fn)
    task.delay(0.001, fn)
  end,
  ["a timer"] = function(fn)
    scheduler.setTimeout(fn, 1)
  end,
  ["an interval"] = function(fn)
    local id
    id = scheduler.setInterval(function()
      scheduler.clearInterval(id)
      fn()
    end, 1)
  end,
  ["an immediate"] = scheduler.setImmediate,
  ["a microtask"] = scheduler.queueMicrotask,
  ["an executor"] = function(fn)
    Promise.new(fn)
  end,
  ["a deferred executor"] = Promise.defer,
  ["a handler"] = function(fn)
    Promise.resolve():andThen(fn)
  end,
  ["a handler of a rejection"] = function(fn)
    Promise.reject():catch(fn)
  end,
  ["a handler at the end"] = function(fn)
    Promise.resolve():finally(fn)
  end,
  ["a hook of a cancelled promise"] = function(fn)
    Promise.new(function(_, _, on_cancel)
      on_cancel(fn)
    end):cancel()
  end,
  ["an asynchronous function"] = function(fn)
    async(fn)()
  end,
  ["a scope"] = function(fn)
    task.spawn(scheduler.scope, fn)
  end,
  ["the child of a scope"] = function(fn)
    task.spawn(scheduler.scope, function(scope)
      scope:spawn(fn)
    end)
  end,
  ["a shielded call"] = function(fn)
    task.spawn(scheduler.shield, fn)
  end,
  ["a protected call"] = function(fn)
    task.spawn(scheduler.pcall, fn)
  end,
  ["a generator"] = function(fn)
    task.spawn(scheduler.coroutine.wrap(fn))
  end,
  ["a generator in a task"] = function(fn)
    task.spawn(function()
      scheduler.coroutine.wrap(fn)()
    end)
  end,
  ["a coroutine that was made before"] = function(fn)
    task.spawn(coroutine.create(fn))
  end,
}

--- Whether the running coroutine's `pcall` and generic `for` let a wait pass: not those of Lua 5.1.
local function crosses_calls()
  return coroutine.wrap(function()
    return pcall(coroutine.yield, true)
  end)() == true
end

return {
  counted = counted,
  deferred = promised.open,
  attempt = attempt,
  settled = settled,
  crosses_calls = crosses_calls,
  callable = callable,
  places = places,
}
