-- Puts the module together.

local native, load_part = ...

local ipairs, next, pairs, setmetatable, type = ipairs, next, pairs, setmetatable, type

local compat = load_part("compat.lua")
local check = load_part("check.lua", compat)
local errors = load_part("errors.lua", native, compat, check)
local fifo = load_part("fifo.lua")
local wait = load_part("wait.lua", native, compat, check, fifo)
local waiters = load_part("waiters.lua", compat, wait)
local outcome = load_part("outcome.lua", native, compat, errors, wait, waiters)
local loop = load_part("loop.lua", native, compat, check, fifo, wait, outcome)
local timer = load_part("timer.lua", native, compat, check, loop)

local scheduler = {
  _VERSION = native.VERSION,
  run = loop.run,
  poll = loop.poll,
  stop = loop.stop,
  now = native.now,
  on_error = errors.on_error,
  pending = wait.pending,
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

--- Notes the name of a field, and of the functions in it: under that it crosses to workers, which have their own.
local function note_name(name, field)
  local names = native.own_names
  if type(field) == "function" or type(field) == "table" then names[field] = name end
  for key, value in pairs(type(field) == "table" and field or {}) do
    if type(value) == "function" then names[value] = name .. "." .. key end
  end
end

-- What not every program needs is loaded when it is asked for: it would take longer than all the rest.

local function once(load)
  local part
  return function()
    part = part or load()
    return part
  end
end

local task = once(function()
  return load_part("task.lua", native, compat, check, errors, wait, outcome, waiters, loop)
end)

local looking = once(native.looking)

local tasks = once(function()
  return load_part("tasks.lua", native, looking(), compat, wait, outcome, waiters, loop, task())
end)

function scheduler.stats()
  local stats = native.stats()
  stats.microtasks_pending, stats.microtasks_run = loop.microtask_count()
  stats.tasks_waiting, stats.tasks_resumed = stats.tasks_waiting + waiters.waiting, wait.resumed
  stats.tasks_alive, stats.tasks_ended = tasks().count(), task().ended_count()
  stats.errors, stats.errors_written = errors.reported, errors.written
  return stats
end

local deadlock = once(function()
  return load_part("deadlock.lua", looking(), errors, wait, outcome, tasks())
end)

--- Reports tasks that wait although the loop has nothing left to do; returns whether there were any.
function loop.look_for_deadlock(except)
  return (waiters.waiting > 0 or next(loop.places) ~= nil) and deadlock().report(except)
end

--- What a coroutine waits for, for the end of a message.
function loop.waits_for(co)
  local words = deadlock().describe_wait(co)
  return words and ": it waits for " .. words or ""
end

function scheduler.tasks()
  return tasks().list()
end

function scheduler.dump(out)
  if out ~= nil and not compat.is_callable(out) and not compat.has_fields(out) then
    check.bad_argument(1, "dump", "file or function", out)
  end
  local text = tasks().describe(scheduler.stats())
  if out == nil then return native.write_stderr(text) end
  if compat.is_callable(out) then return out(text) end
  out:write(text)
end

local nested = once(function()
  return load_part("coroutine.lua", compat, check, wait)
end)

--- For calls during which a lock or permit is held.
local hold_during = once(function()
  return load_part("holding.lua", task(), nested().pcall)
end)

local promise_error = once(function()
  return load_part("promise_error.lua", compat)
end)

local promise = once(function()
  local part = load_part(
    "promise.lua", native, compat, check, errors, wait, outcome, waiters, loop, task(), promise_error()
  )
  load_part("promise_executor.lua", native, compat, check, errors, wait, outcome, loop, task(), part)
  load_part("promise_handler.lua", part, promise_error())
  return part
end)

local promise_list

local awaitable = once(function()
  return load_part("awaitable.lua", native, compat, check, outcome, task(), promise(), promise_list)
end)

promise_list = once(function()
  return load_part("promise_list.lua", native, compat, check, promise(), awaitable(), promise_error())
end)

local parallel

--- The class of promises. Whatever gives a program a promise has to load it, for the methods.
local promise_class = once(function()
  promise().load_jobs = parallel
  local class = load_part(
    "promise_class.lua", native, compat, check, timer, task(), promise(), promise_list(), awaitable(), promise_error()
  )
  note_name("Promise", class)
  return class
end)

local scope = once(function()
  return load_part("scope.lua", check, errors, wait, outcome, waiters, timer, task(), awaitable)
end)

local shared = once(function()
  return load_part("shared.lua", native, check, wait, compat)
end)

local shared_mutex = once(function()
  return load_part("shared_mutex.lua", native, check, wait, waiters, outcome, loop, task(), hold_during())
end)

parallel = once(function()
  promise_class()
  return load_part("parallel.lua", native, compat, check, errors, wait, waiters, loop, promise())
end)

local map = once(function()
  local input, protected_call = load_part("map_input.lua", native, compat), nested().pcall
  return load_part(
    "map.lua", native, compat, check, errors, wait, waiters, promise(), parallel(), input, protected_call
  )
end)

local pool = once(function()
  return load_part("pool.lua", native, check, parallel(), map)
end)

local channel = once(function()
  return load_part("channel.lua", native, compat, check, errors, wait, loop)
end)

--- Loads the tasks, which bring their own `start`.
function loop.start(...)
  return task().start(...)
end

--- Those fields of a part that are for users.
local function public(part, ...)
  local fields = {}
  for _, name in ipairs({ ... }) do
    fields[name] = part[name]
  end
  return fields
end

--- What makes each further field of the module.
local makers = {
  clock = function()
    return load_part("clock.lua", native, check, loop)
  end,
  parallel = function()
    local fields = public(parallel(), "run")
    fields.pool = pool().new
    function fields.map(...)
      return map().start(false, ...)
    end
    return fields
  end,
  Promise = promise_class,
  await = function()
    return awaitable().await
  end,
  async = function()
    promise_class()
    local make = promise().async
    return function(fn)
      return make(fn, "async")
    end
  end,
  promisify = function()
    promise_class()
    return load_part("promisify.lua", native, compat, check, promise())
  end,
  watchdog = function()
    return load_part("watchdog.lua", native, looking(), compat, check, errors, wait, outcome, loop, tasks())
  end,
  interval = function()
    return load_part("interval.lua", native, check, task())
  end,
  task = function()
    return public(task(), "spawn", "defer", "delay", "wait", "yield", "cancel", "join", "status", "name")
  end,
  coroutine = function()
    return public(nested(), "wrap", "resume")
  end,
  pcall = function()
    return nested().pcall
  end,
  xpcall = function()
    return nested().xpcall
  end,
  scope = function()
    return scope().run
  end,
  timeout = function()
    return scope().timeout
  end,
  shield = function()
    return scope().shield
  end,
  execute_tasks = function()
    return load_part("execute_tasks.lua", check, errors, waiters, task(), scope())
  end,
  semaphore = function()
    return load_part("semaphore.lua", check, wait, waiters, hold_during())
  end,
  mutex = function()
    return load_part("mutex.lua", check, wait, waiters, outcome, task(), hold_during())
  end,
  event = function()
    return load_part("event.lua", check, wait, waiters)
  end,
  shared = function()
    local fields = public(shared(), "atomic", "buffer", "table")
    fields.mutex = native.new_mutex
    return fields
  end,
  channel = function()
    return channel().new
  end,
  select = function()
    return load_part("select.lua", native, check, channel())
  end,
  queue = function()
    return load_part("queue.lua", check, errors, wait, waiters, fifo)
  end,
}

for name, field in pairs(scheduler) do
  note_name(name, field)
end

setmetatable(scheduler, {
  __index = function(module, name)
    local make = makers[name]
    if not make then return nil end
    local field = make()
    module[name] = field
    note_name(name, field)
    return field
  end,
})

--- The fields of the metatable of what VMs share.
local function load_class(name)
  if name == "mutex" then return shared_mutex() end
  if name == "pool" then return pool().class end
  if name == "channel" then return channel().class end
  return shared().classes[name]
end

--- The part that looks after the jobs of a worker.
local function load_worker_tasks(worker)
  return load_part("worker_tasks.lua", native, worker, errors, outcome, loop, task())
end

return scheduler, load_class, load_worker_tasks
