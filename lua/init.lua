-- Puts the module together.

local native, load_part = ...

local pairs, setmetatable, type = pairs, setmetatable, type

local compat = load_part("compat.lua")
local check = load_part("check.lua", compat)
local errors = load_part("errors.lua", native, compat, check)
local fifo = load_part("fifo.lua")
local wait = load_part("wait.lua", native, compat, check, fifo)
local waiters = load_part("waiters.lua", wait)
local outcome = load_part("outcome.lua", native, compat, errors, wait, waiters)
local loop = load_part("loop.lua", native, compat, check, fifo, wait, outcome)
local timer = load_part("timer.lua", native, compat, check, loop)
local task = load_part("task.lua", native, compat, check, errors, wait, outcome, waiters, loop)

local scheduler = {
  _VERSION = native.VERSION,
  run = loop.run,
  poll = loop.poll,
  stop = loop.stop,
  now = native.now,
  on_error = errors.on_error,
  pending = wait.pending,
  task = {
    spawn = task.spawn,
    defer = task.defer,
    delay = task.delay,
    wait = task.wait,
    yield = task.yield,
    cancel = task.cancel,
    join = task.join,
    status = task.status,
    name = task.name,
  },
}

for name, fn in pairs(timer) do
  scheduler[name] = fn
end

function scheduler.fd()
  local descriptor, failure = native.fd()
  if not descriptor then check.raise("scheduler has no descriptor: " .. failure) end
  loop.embed()
  return descriptor
end

function scheduler.await(awaitable)
  local kind = type(awaitable)
  if kind == "thread" then return task.join(awaitable) end
  local method = (kind == "table" or kind == "userdata") and awaitable.await
  if not method then check.bad_argument(1, "await", "something to await", awaitable) end
  return method(awaitable)
end

function scheduler.stats()
  local stats = native.stats()
  stats.microtasks_pending, stats.microtasks_run = loop.microtask_count()
  stats.tasks_waiting, stats.tasks_resumed = waiters.waiting, wait.resumed
  stats.errors = errors.reported
  return stats
end

-- What is not needed by every program is loaded when it is asked for: it would take longer than all the rest.
local parts = {}

function parts.clock()
  return { clock = load_part("clock.lua", native, check, loop) }
end

function parts.parallel()
  local parallel = load_part("parallel.lua", native, compat, check, errors, wait, waiters, loop)
  return { parallel = { run = parallel.run } }
end

local nested

function parts.coroutine()
  nested = load_part("coroutine.lua", compat, check, wait)
  return {
    coroutine = { wrap = nested.wrap, resume = nested.resume },
    pcall = nested.pcall,
    xpcall = nested.xpcall,
  }
end

local scope

function parts.scope()
  scope = load_part("scope.lua", check, errors, wait, outcome, waiters, timer, task)
  return { scope = scope.run, timeout = scope.timeout, shield = scope.shield }
end

function parts.execute_tasks()
  return { execute_tasks = load_part("execute_tasks.lua", check, errors, waiters, task, scheduler.scope and scope) }
end

function parts.semaphore()
  return { semaphore = load_part("semaphore.lua", check, wait, waiters, task, scheduler.pcall) }
end

function parts.mutex()
  return { mutex = load_part("mutex.lua", check, wait, waiters, outcome, task, scheduler.pcall) }
end

function parts.event()
  return { event = load_part("event.lua", check, wait, waiters) }
end

function parts.queue()
  return { queue = load_part("queue.lua", check, errors, wait, waiters, fifo) }
end

local part_of = {
  clock = parts.clock,
  parallel = parts.parallel,
  coroutine = parts.coroutine,
  pcall = parts.coroutine,
  xpcall = parts.coroutine,
  scope = parts.scope,
  timeout = parts.scope,
  shield = parts.scope,
  execute_tasks = parts.execute_tasks,
  semaphore = parts.semaphore,
  mutex = parts.mutex,
  event = parts.event,
  queue = parts.queue,
}

setmetatable(scheduler, {
  __index = function(module, name)
    local load = part_of[name]
    if not load then return nil end
    for key, value in pairs(load()) do
      module[key], part_of[key] = value, nil
    end
    return module[name]
  end,
})

return scheduler, function(...)
  return load_part("worker.lua", compat, errors, outcome, loop)(...)
end
