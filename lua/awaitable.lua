-- What can be awaited: promises, tasks, thenables, and objects with a method `await`.

local native, compat, check, outcome, task, promise, lists = ...

local format = string.format
local getmetatable, next, pcall, select, type = getmetatable, next, pcall, select, type
local unpack = compat.unpack
local Promise, new, method_of = promise.prototype, promise.new, promise.method_of
local expect = Promise.expect

local awaitable = {}

--- The promise of a task that somebody else started. If it is cancelled, so is the task, unless others wait for it.
local function of_task(co)
  local self = promise.start(new(native.origin()), promise.call, task.join, co)
  promise.on_cancel(self, function(reason)
    if not outcome.is_watched(co) then task.stop(co, reason) end
  end)
  return self
end

local function await_method(object)
  return object.await
end

--- The promise of something that can be awaited; nil if `x` cannot.
local function from(x)
  local kind = type(x)
  if kind == "thread" then return of_task(x) end
  if kind ~= "table" and kind ~= "userdata" then return nil end
  if getmetatable(x) == Promise then return x end
  local method, has_failed = method_of(x)
  if method or has_failed then
    local self = new(native.origin())
    promise.resolve(self, x)
    return self
  end
  local ok, await = pcall(await_method, x)
  -- The module has such a field as well, which would come back here for ever.
  if ok and await ~= awaitable.await and compat.is_callable(await) then
    return promise.start(new(native.origin()), promise.call, await, x)
  end
end

awaitable.from = from

--- Each of a list as a promise; `name` is that of the function that was given the list.
function awaitable.list(list, name)
  local is_list = type(list) == "table" and getmetatable(list) ~= Promise and (#list > 0 or next(list) == nil)
  if not is_list then check.bad_argument(1, name, "list of promises", list) end
  local promises = {}
  for i = 1, #list do
    promises[i] = from(list[i])
    if not promises[i] then
      local message = "bad argument #1 to '%s' (promise or task expected at index %d, got %s)"
      check.raise(format(message, name, i, type(list[i])))
    end
  end
  return promises
end

--- A value, or what it becomes: `await` for what may be no promise.
function awaitable.value_of(...)
  local x = ...
  local kind = type(x)
  if kind ~= "table" and kind ~= "userdata" then return ... end
  if getmetatable(x) ~= Promise and not method_of(x) then return ... end
  return from(x):expect()
end

local function await_one(x)
  if type(x) == "thread" then return task.join(x) end
  local self = from(x)
  if not self then check.bad_argument(1, "await", "something to await", x) end
  return self:expect()
end

--- `scheduler.await`.
function awaitable.await(...)
  local count = select("#", ...)
  if count <= 1 then
    local x = ...
    if getmetatable(x) == Promise then return expect(x) end
    return await_one(x)
  end
  local list = {}
  for i = 1, count do
    local x = select(i, ...)
    list[i] = from(x)
    if not list[i] then check.bad_argument(i, "await", "something to await", x) end
  end
  return unpack(lists().all(list):expect(), 1, count)
end

return awaitable
