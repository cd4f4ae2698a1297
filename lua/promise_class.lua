-- `scheduler.Promise`: the constructors and methods that programs use. The names are those of evaera's library.

local native, compat, check, timer, task, promise, lists, awaitable, Error = ...

local format = string.format
local error, getmetatable, pairs, random = error, getmetatable, pairs, math.random
local select, type = select, type
local pack, unpack = compat.pack, compat.unpack
local new, resolve, reject, start, chain = promise.new, promise.resolve, promise.reject, promise.start, promise.chain
local origin_here, bad_argument, callable = native.origin, check.bad_argument, check.callable
local is_callable = compat.is_callable
local STARTED, RESOLVED = promise.STARTED, promise.RESOLVED

local NANOS_PER_SECOND = 1e9

local methods = promise.prototype
local Promise = {
  Error = Error,
  Status = Error.enumeration("Promise.Status", { STARTED, RESOLVED, promise.REJECTED, promise.CANCELLED }),
  prototype = methods,
}

methods.awaitValue = methods.expect

function methods:__tostring()
  return format("Promise(%s)", self.status)
end

for name, fn in pairs(lists) do
  Promise[name] = fn
end

-- Making --------------------------------------------------------------------------------------------------------------

function Promise.new(executor)
  if type(executor) ~= "function" then callable(executor, 1, "new") end
  return start(new(origin_here()), promise.execute, executor)
end

function Promise.defer(executor)
  callable(executor, 1, "defer")
  local self = new(origin_here())
  task.defer(function()
    if self.status == STARTED then start(self, promise.execute, executor) end
  end)
  return self
end

Promise.async = Promise.defer

function Promise.resolve(...)
  if getmetatable((...)) == methods then return (...) end
  local self = new(origin_here())
  resolve(self, ...)
  return self
end

function Promise.reject(...)
  local self = new(origin_here())
  reject(self, ...)
  return self
end

Promise["try"] = function(fn, ...)
  if type(fn) ~= "function" then callable(fn, 1, "try") end
  return start(new(origin_here()), promise.call, fn, ...)
end

function Promise.promisify(fn)
  return promise.async(fn, "promisify")
end

function Promise.delay(seconds)
  check.timeout(seconds, 1, "delay")
  local self, begun = new(origin_here()), native.time()
  local id = timer.setTimeout(function()
    resolve(self, (native.time() - begun) / NANOS_PER_SECOND)
  end, (seconds or 0) * 1000)
  promise.on_cancel(self, function()
    timer.clearTimeout(id)
  end)
  return self
end

--- The first of these fields of an object that can be called.
local function method_of(object, ...)
  for i = 1, select("#", ...) do
    local method = object[(select(i, ...))]
    if is_callable(method) then return method end
  end
end

local function disconnect(connection)
  if type(connection) == "function" then return connection() end
  local method = connection and method_of(connection, "Disconnect", "disconnect")
  if method then return method(connection) end
end

function Promise.fromEvent(event, predicate)
  local kind = type(event)
  local connect = (kind == "table" or kind == "userdata") and method_of(event, "Connect", "connect")
  if not connect then bad_argument(1, "fromEvent", "object with a method Connect", event) end
  if predicate ~= nil then callable(predicate, 2, "fromEvent") end
  local self, connection = new(origin_here()), nil
  local function leave()
    local former = connection
    connection = nil
    disconnect(former)
  end
  connection = connect(event, function(...)
    if self.status ~= STARTED or predicate and not predicate(...) then return end
    resolve(self, ...)
    leave()
  end)
  -- It may have fired while it was being connected.
  if self.status ~= STARTED then leave() end
  promise.on_cancel(self, leave)
  return self
end

-- Repeating -----------------------------------------------------------------------------------------------------------

local RETRY_OPTIONS = {
  times = "number",
  delay = "number",
  backoff = "number",
  max_delay = "number",
  jitter = "number",
  when = "function",
}

-- Retries without a pause that follow each other before the loop may turn: else they could hold it for ever.
local RETRIES_IN_A_TURN = 100

--- How long to wait before a retry: `delay * backoff ^ (retry - 1)`, at most `max_delay`, more or less by `jitter`.
local function pause_before(retry, options)
  local seconds = (options.delay or 0) * (options.backoff or 1) ^ (retry - 1)
  if options.max_delay and seconds > options.max_delay then seconds = options.max_delay end
  return seconds * (1 + (options.jitter or 0) * (2 * random() - 1))
end

local function check_times(times, position, name)
  if times ~= math.huge then check.count(times, 0, position, name) end
end

--- Calls `fn(...)` until its promise is resolved, or there are no retries left. `origin` is that of the whole.
local function try_again(origin, fn, options, ...)
  local times, retry = options.times, 0
  while true do
    local attempt = start(new(origin), promise.call, fn, ...)
    attempt:awaitStatus()
    if attempt.status ~= promise.REJECTED or retry >= times then return attempt end
    retry = retry + 1
    if options.when and not options.when(attempt.value, retry) then return attempt end
    local seconds = pause_before(retry, options)
    if seconds > 0 then
      task.wait(seconds)
    elseif retry % RETRIES_IN_A_TURN == 0 then
      task.wait(0)
    end
  end
end

function Promise.retry(fn, times, ...)
  callable(fn, 1, "retry")
  local options = { times = times }
  if type(times) == "table" then
    options = check.options(times, RETRY_OPTIONS, 2, "retry")
    if options.times == nil then check.raise("bad argument #2 to 'retry' (option 'times' expected)") end
  end
  check_times(options.times, 2, "retry")
  local origin = origin_here()
  return start(new(origin), promise.call, try_again, origin, fn, options, ...)
end

function Promise.retryWithDelay(fn, times, seconds, ...)
  callable(fn, 1, "retryWithDelay")
  check_times(times, 2, "retryWithDelay")
  check.number(seconds, 3, "retryWithDelay")
  local origin = origin_here()
  return start(new(origin), promise.call, try_again, origin, fn, { times = times, delay = seconds }, ...)
end

-- Looking -------------------------------------------------------------------------------------------------------------

--- Whether something is a promise, or can be used as one.
function Promise.is(anything)
  if type(anything) ~= "table" then return false end
  return getmetatable(anything) == methods or promise.method_of(anything) ~= nil
end

function Promise.onUnhandledRejection(hook)
  callable(hook, 1, "onUnhandledRejection")
  return promise.on_unhandled(hook)
end

function methods:getStatus()
  if self == nil then check.bad_self(self, "getStatus", "promise") end
  return self.status
end

-- Handlers ------------------------------------------------------------------------------------------------------------

--- A handler as Promises/A+ 2.2.1 has it: what cannot be called is ignored.
local function handler(fn)
  if fn == nil or type(fn) == "function" then return fn end
  return is_callable(fn) and fn or nil
end

function methods:andThen(on_resolved, on_rejected)
  if type(on_resolved) ~= "function" then
    check.self(self, methods, "andThen")
    on_resolved = handler(on_resolved)
  end
  if on_rejected ~= nil then on_rejected = handler(on_rejected) end
  return chain(self, on_resolved, on_rejected)
end

function methods:catch(on_rejected)
  check.self(self, methods, "catch")
  return chain(self, nil, handler(on_rejected))
end

function methods:finally(on_end)
  check.self(self, methods, "finally")
  if on_end == nil then on_end = function() end end
  callable(on_end, 1, "finally")
  return promise.finally(self, on_end)
end

function methods:tap(fn)
  check.self(self, methods, "tap")
  callable(fn, 1, "tap")
  return chain(self, function(...)
    local values = pack(...)
    awaitable.value_of(fn(...))
    return unpack(values, 1, values.n)
  end)
end

--- A function that calls `fn` with these arguments, whatever it is given itself.
local function bound(fn, ...)
  local args = pack(...)
  return function()
    return fn(unpack(args, 1, args.n))
  end
end

--- A function that returns these values.
local function constant(...)
  local values = pack(...)
  return function()
    return unpack(values, 1, values.n)
  end
end

function methods:andThenCall(fn, ...)
  check.self(self, methods, "andThenCall")
  callable(fn, 1, "andThenCall")
  return chain(self, bound(fn, ...))
end

function methods:andThenReturn(...)
  check.self(self, methods, "andThenReturn")
  return chain(self, constant(...))
end

function methods:finallyCall(fn, ...)
  check.self(self, methods, "finallyCall")
  callable(fn, 1, "finallyCall")
  return promise.finally(self, bound(fn, ...))
end

function methods:finallyReturn(...)
  check.self(self, methods, "finallyReturn")
  return promise.finally(self, constant(...))
end

function methods:cancel(reason)
  check.self(self, methods, "cancel")
  promise.cancel(self, reason)
end

-- Limits --------------------------------------------------------------------------------------------------------------

--- The values to reject with: those that the caller gave, or else an error of this kind.
local function rejection(self, kind, message, value)
  if value ~= nil then return value end
  return Error.new({ kind = kind, error = message, context = "It was " .. promise.describe(self) .. "." })
end

function methods:timeout(seconds, value)
  check.self(self, methods, "timeout")
  check.number(seconds, 1, "timeout")
  local late = chain(Promise.delay(seconds), function()
    local message = format("timed out after %g s", seconds)
    return Promise.reject(rejection(self, "TimedOut", message, value))
  end)
  return lists.race({ late, self })
end

function methods:now(value)
  check.self(self, methods, "now")
  if self.status == RESOLVED then return chain(self) end
  return Promise.reject(rejection(self, "NotResolvedInTime", "not resolved yet", value))
end

-- On the way to other VMs ---------------------------------------------------------------------------------------------

--- Makes a promise of another VM anew: by what it was settled with, or as one that waits for the same job.
function Promise.__arrive(status, ...)
  local self = promise.new(nil)
  if status == RESOLVED then
    promise.fulfil(self, ...)
  elseif status == promise.REJECTED then
    promise.reject(self, ...)
    -- It is reported where it comes from.
    self.is_handled = true
  elseif status == promise.CANCELLED then
    promise.cancel(self, ...)
  else
    promise.load_jobs().join(self, ...)
  end
  return self
end

--- What makes it anew.
function methods:__transfer()
  local status = self.status
  if status == promise.CANCELLED then return Promise.__arrive, status, self.value.reason end
  if status ~= promise.STARTED then return Promise.__arrive, status, promise.values_of(self) end
  local job = type(self.co) == "number" and native.share_job(self.co)
  if not job then error("a promise that is pending, and not that of a job", 0) end
  -- Its failure is heard of there.
  self.is_handled = true
  return Promise.__arrive, status, job
end

return Promise
