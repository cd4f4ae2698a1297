-- Who can wait, for specs of parts that are used together.

local scheduler = require("scheduler")
local promised = require("spec.support.promised")

local Promise, task = scheduler.Promise, scheduler.task
local async, scope_of, protected = scheduler.async, scheduler.scope, scheduler.pcall

--- Who can wait: by its name, a function that calls `body()` there at once or soon, and returns a function that cancels
--- it. What `body` raises is nobody else's.
local waiters = {
  ["a task"] = function(body)
    local co = task.spawn(body)
    return function()
      task.cancel(co)
    end
  end,
  ["an asynchronous function"] = function(body)
    local promise = async(body)()
    return function()
      promise:cancel()
    end
  end,
  ["a handler"] = function(body)
    local promise = Promise.resolve():andThen(body)
    return function()
      promise:cancel()
    end
  end,
  ["a handler of a rejection"] = function(body)
    local promise = Promise.reject():catch(body)
    return function()
      promise:cancel()
    end
  end,
  ["a handler at the end"] = function(body)
    local promise = Promise.resolve():finally(body)
    return function()
      promise:cancel()
    end
  end,
  ["an executor"] = function(body)
    local promise = Promise.new(function(resolve)
      resolve(body())
    end)
    return function()
      promise:cancel()
    end
  end,
  ["the function of a retry"] = function(body)
    local promise = Promise.retry(body, 0)
    return function()
      promise:cancel()
    end
  end,
  ["the function of a map"] = function(body)
    local promise = Promise.map({ 1 }, body)
    return function()
      promise:cancel()
    end
  end,
  ["a generator"] = function(body)
    local co = task.spawn(function()
      scheduler.coroutine.wrap(body)()
    end)
    return function()
      task.cancel(co)
    end
  end,
  ["a protected call"] = function(body)
    local co = task.spawn(function()
      local ok, err = protected(body)
      if not ok then error(err, 0) end
    end)
    return function()
      task.cancel(co)
    end
  end,
  ["a scope"] = function(body)
    local co = task.spawn(scope_of, body)
    return function()
      task.cancel(co)
    end
  end,
  ["a child of a scope"] = function(body)
    local given
    task.spawn(scope_of, function(scope)
      given = scope
      scope:spawn(body)
    end)
    return function()
      given:cancel()
    end
  end,
  ["a child of a scope in an asynchronous function"] = function(body)
    local promise = async(scope_of)(function(scope)
      scope:spawn(body)
    end)
    return function()
      promise:cancel()
    end
  end,
  ["a call with a time limit"] = function(body)
    local co = task.spawn(scheduler.timeout, 10, body)
    return function()
      task.cancel(co)
    end
  end,
  ["a function of execute_tasks"] = function(body)
    local co = task.spawn(scheduler.execute_tasks, { body })
    return function()
      task.cancel(co)
    end
  end,
  ["a call that holds a mutex"] = function(body)
    local co = task.spawn(function()
      scheduler.mutex():with(body)
    end)
    return function()
      task.cancel(co)
    end
  end,
  ["a call that holds a permit"] = function(body)
    local promise = async(function()
      scheduler.semaphore(1):with(body)
    end)()
    return function()
      promise:cancel()
    end
  end,
}

return {
  deferred = promised.open,
  waiters = waiters,
}
