-- Promises of lists: `all`, `race` and their kin.
--
-- They observe each promise of the list. Once the one that they return is settled, or was cancelled, they let go of the
-- others, which are cancelled unless somebody else wants them.

local native, compat, check, promise, awaitable, Error = ...

local format = string.format
local error, getmetatable, ipairs, type = error, getmetatable, ipairs, type
local huge, min = math.huge, math.min
local pack, unpack = compat.pack, compat.unpack
local new, start, call = promise.new, promise.start, promise.call
local fulfil, reject, take = promise.fulfil, promise.reject, promise.take
local values_of, value_of, origin_here = promise.values_of, awaitable.value_of, native.origin
local STARTED, RESOLVED, REJECTED, CANCELLED = promise.STARTED, promise.RESOLVED, promise.REJECTED, promise.CANCELLED

local list_of, Promise = awaitable.list, promise.prototype

local lists = {}

--- Lets go of the promises that a group still observes.
local function let_go(group, reason)
  for _, node in ipairs(group.nodes) do
    promise.release(node, reason)
  end
end

--- A promise of the group was settled or cancelled.
local function react(node)
  local source, group = node.source, node.group
  if not source then return end
  node.source = nil
  group.settled(group, source, node.index)
  if group.promise.status ~= STARTED then return let_go(group) end
end

--- Observes promises on behalf of `self`: `settled(group, promise, index)` is called for each.
local function observe(self, promises, group)
  local nodes = {}
  group.promise, group.nodes, group.left = self, nodes, #promises
  for i, source in ipairs(promises) do
    nodes[i] = { source = nil, react = react, sees_cancel = true, group = group, index = i }
    promise.consume(source, nodes[i])
  end
  if self.status ~= STARTED then let_go(group) end
  promise.on_cancel(self, function(reason)
    let_go(group, reason)
  end)
  return self
end

--- Settles a promise with what has kept another from being resolved.
local function fail_as(self, source)
  if source.status == CANCELLED then return reject(self, promise.already_cancelled(source)) end
  return take(self, source)
end

--- The values of a settled promise as one: the first, or all, with their count `n`.
local function value(group, source)
  if not group.is_packed then return source.value end
  local values = pack(values_of(source))
  values.status = source.status
  return values
end

local OPTIONS = { pack = "boolean" }

local function is_packed(options, name)
  return check.options(options, OPTIONS, 2, name).pack
end

local function settled_of_all(group, source, index)
  if source.status ~= RESOLVED then return fail_as(group.promise, source) end
  group.values[index], group.left = value(group, source), group.left - 1
  if group.left == 0 then return fulfil(group.promise, group.values) end
end

function lists.all(list, options)
  local promises, self = list_of(list, "all"), new(origin_here())
  local group = { settled = settled_of_all, values = {}, is_packed = is_packed(options, "all") }
  if #promises == 0 then fulfil(self, group.values) end
  return observe(self, promises, group)
end

local function settled_anyhow(group, source, index)
  group.values[index] = group.is_packed and value(group, source) or source.status
  group.left = group.left - 1
  if group.left == 0 then return fulfil(group.promise, group.values) end
end

function lists.allSettled(list, options)
  local promises, self = list_of(list, "allSettled"), new(origin_here())
  local group = { settled = settled_anyhow, values = {}, is_packed = is_packed(options, "allSettled") }
  if #promises == 0 then fulfil(self, group.values) end
  return observe(self, promises, group)
end

local function settled_of_some(group, source)
  group.left = group.left - 1
  if source.status == RESOLVED then
    group.values[#group.values + 1], group.found = value(group, source), group.found + 1
    if group.found == group.wanted then return group.finish(group.promise, group.values) end
  elseif group.found + group.left < group.wanted then
    return fail_as(group.promise, source)
  end
end

local function some(promises, wanted, finish, options)
  local self = new(origin_here())
  local group = { settled = settled_of_some, values = {}, found = 0, wanted = wanted, finish = finish }
  group.is_packed = options and options.pack
  if wanted == 0 then
    finish(self, group.values)
  elseif wanted > #promises then
    local message = format("%d of the promises are wanted, but there are only %d", wanted, #promises)
    reject(self, Error.new({ kind = "ExecutionError", error = message }))
  end
  return observe(self, promises, group)
end

function lists.some(list, count)
  local promises = list_of(list, "some")
  check.count(count, 0, 2, "some")
  return some(promises, count, fulfil)
end

local function finish_any(self, values)
  local first = values[1]
  return fulfil(self, unpack(first, 1, first.n))
end

function lists.any(list)
  return some(list_of(list, "any"), 1, finish_any, { pack = true })
end

local function settled_first(group, source)
  if source.status == RESOLVED then return take(group.promise, source) end
  return fail_as(group.promise, source)
end

function lists.race(list)
  return observe(new(origin_here()), list_of(list, "race"), { settled = settled_first })
end

-- Those that go through a list of values, promises among them ---------------------------------------------------------

local function nothing() end

--- A value of the list. Whoever asks for a cancelled promise is told so.
local function item(x)
  if getmetatable(x) ~= Promise then return value_of(x) end
  if x:awaitStatus() == CANCELLED then error(promise.already_cancelled(x), 0) end
  return (x:expect())
end

--- Refuses a list with promises that have failed already.
local function check_items(list)
  for i = 1, #list do
    local x = list[i]
    if getmetatable(x) == Promise and (x.status == REJECTED or x.status == CANCELLED) then item(x) end
  end
end

--- Holds the promises of a list until `self` is settled; returns a promise with the same outcome.
local function hold(self, list)
  local promises = {}
  for i = 1, #list do
    if getmetatable(list[i]) == Promise then promises[#promises + 1] = list[i] end
  end
  if #promises == 0 then return self end
  local group = { settled = nothing }
  observe(self, promises, group)
  return promise.finally(self, function()
    let_go(group)
  end)
end

local function check_list(list, fn, name)
  if type(list) ~= "table" or getmetatable(list) == Promise then check.bad_argument(1, name, "list", list) end
  check.callable(fn, 2, name)
end

--- The promise of what `run(promise)` returns, which goes through the list.
local function through(list, run)
  local self = new(origin_here())
  local result = hold(self, list)
  start(self, call, run, self)
  return result
end

function lists.each(list, predicate)
  check_list(list, predicate, "each")
  return through(list, function()
    local results = {}
    check_items(list)
    for i = 1, #list do
      results[i] = value_of(predicate(item(list[i]), i))
    end
    return results
  end)
end

function lists.fold(list, reducer, initial)
  check_list(list, reducer, "fold")
  return through(list, function()
    local result = value_of(initial)
    for i = 1, #list do
      result = value_of(reducer(result, item(list[i]), i))
    end
    return result
  end)
end

local MAP_OPTIONS = { concurrency = "number" }

function lists.map(list, fn, options)
  check_list(list, fn, "map")
  local limit = check.options(options, MAP_OPTIONS, 3, "map").concurrency or huge
  if limit < 1 or limit ~= huge and limit % 1 ~= 0 then
    check.raise("bad argument #3 to 'map' (option 'concurrency': whole number of at least 1 expected)")
  end
  return through(list, function(self)
    local results, workers, last = {}, {}, 0
    local function work()
      while last < #list do
        last = last + 1
        local i = last
        results[i] = value_of(fn(item(list[i]), i))
      end
    end
    for i = 1, min(limit, #list) do
      workers[i] = start(new(self.origin), call, work)
      if workers[i].status == REJECTED then break end
    end
    lists.all(workers):expect()
    return results
  end)
end

return lists
