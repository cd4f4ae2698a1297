-- What runs a function, once or more often, for the task that calls it.

local scheduler = require("scheduler")

local Promise, async, scope, task = scheduler.Promise, scheduler.async, scheduler.scope, scheduler.task

return {
  function(fn)
    return fn()
  end,
  function(fn)
    return scheduler.coroutine.wrap(fn)()
  end,
  function(fn)
    local ok, err = scheduler.pcall(fn)
    if not ok then error(err, 0) end
  end,
  function(fn)
    return scheduler.await(async(fn)())
  end,
  function(fn)
    return Promise.all({ async(fn)(), Promise.resolve() }):expect()
  end,
  function(fn)
    return Promise.any({ async(fn)(), Promise.reject(1) }):expect()
  end,
  function(fn)
    return Promise.map({ 1, 2 }, fn):expect()
  end,
  function(fn)
    return Promise.retry(async(fn), 1):expect()
  end,
  function(fn)
    return scheduler.execute_tasks({ fn, fn }, 1)
  end,
  function(fn)
    return task.join(task.spawn(fn))
  end,
  function(fn)
    return scheduler.timeout(100, fn)
  end,
  function(fn)
    return scope(function(s)
      s:spawn(fn)
    end)
  end,
  function(fn)
    return scope(function(s)
      s:hold(async(fn)())
      fn()
    end)
  end,
  scheduler.shield,
}
