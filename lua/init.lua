-- Puts the module together.

local native, load_part = ...

local compat = load_part("compat.lua")
local check = load_part("check.lua", compat)
local errors = load_part("errors.lua", native, compat)
local loop = load_part("loop.lua", native, compat, check, errors)
local timer = load_part("timer.lua", native, compat, check, loop)
local clock = load_part("clock.lua", native, check, loop)
local parallel = load_part("parallel.lua", native, compat, check, errors, loop)

loop.settle, loop.forked, loop.report_unobserved = parallel.settle, parallel.forked, parallel.report_unobserved

local scheduler = {
  _VERSION = native.VERSION,
  run = loop.run,
  poll = loop.poll,
  stop = native.stop,
  now = native.now,
  on_error = errors.on_error,
  pending = loop.pending,
  clock = clock,
  parallel = { run = parallel.run },
}

for name, fn in pairs(timer) do
  scheduler[name] = fn
end

function scheduler.fd()
  local descriptor, failure = native.fd()
  if not descriptor then error("scheduler has no descriptor: " .. failure, 2) end
  loop.embedded = true
  if loop.has_microtasks() then native.raise() end
  return descriptor
end

function scheduler.await(awaitable)
  local kind = type(awaitable)
  local method = (kind == "table" or kind == "userdata") and awaitable.await
  if not method then check.bad_argument(1, "await", "something to await", awaitable) end
  return method(awaitable)
end

function scheduler.stats()
  local stats = native.stats()
  stats.microtasks_pending, stats.microtasks_run = loop.microtask_count()
  stats.errors = errors.reported
  return stats
end

return scheduler, load_part("worker.lua", errors, loop, compat)
