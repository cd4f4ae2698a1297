-- What is made from promises: by `andThen` and `finally`, with the handlers that these are given.

local promise, Error = ...

local getmetatable, setmetatable, type = getmetatable, setmetatable, type
local new, consume, take = promise.new, promise.consume, promise.take
local resolve, reject, values_of = promise.resolve, promise.reject, promise.values_of
local describe, method_of = promise.describe, promise.method_of
local STARTED, RESOLVED, REJECTED, CANCELLED = promise.STARTED, promise.RESOLVED, promise.REJECTED, promise.CANCELLED
local Promise = promise.prototype

--- What a promise does that `andThen` made.
local function run_handler(self)
  local source = self.source
  if not source then return end
  local handler
  if source.status == RESOLVED then handler = self.on_resolved else handler = self.on_rejected end
  self.origin = source.origin
  if not handler then return take(self, source) end
  if source.values then return resolve(self, handler(values_of(source))) end
  return resolve(self, handler(source.value))
end

--- `andThen`; handlers that are nil pass the outcome on.
local function chain(self, on_resolved, on_rejected)
  local child = setmetatable({
    status = STARTED,
    source = nil,
    react = run_handler,
    on_resolved = on_resolved,
    on_rejected = on_rejected,
    origin = nil,
    value = nil,
    first = nil,
  }, Promise)
  if self.status == CANCELLED then
    child.react, child.origin = nil, self.origin
    reject(child, promise.already_cancelled(self))
    return child
  end
  consume(self, child)
  return child
end

promise.chain = chain

--- The error of those that ask for the outcome of a promise that was cancelled.
function promise.already_cancelled(self)
  return Error.new({
    kind = "AlreadyCancelled",
    error = "the promise was cancelled",
    context = "It was " .. describe(self) .. ".",
  })
end

--- Ends a promise that `finally` made, once what its handler returned is settled.
local function after_handler(self)
  local source, kept = self.source, self.kept
  if not source then return end
  self.kept, self.sees_cancel = nil, nil
  if source.status == REJECTED then return take(self, source) end
  return take(self, kept)
end

--- Goes on after the handler of `finally`, with what it returned.
local function finish(self, source, result)
  local kind = type(result)
  local is_thenable = getmetatable(result) == Promise
    or (kind == "table" or kind == "userdata") and method_of(result) ~= nil
  if not is_thenable then
    if self.status ~= STARTED then self.source = nil end
    return take(self, source)
  end
  local other = result
  if getmetatable(result) ~= Promise then
    other = new(self.origin)
    resolve(other, result)
  end
  if self.status ~= STARTED then
    self.source = nil
    return
  end
  self.kept, self.react, self.sees_cancel, self.is_final = source, after_handler, true, nil
  self.is_locked = true
  consume(other, self)
end

--- What a promise does that `finally` made; if it was cancelled itself, its handler runs all the same.
local function run_final(self)
  local source, handler = self.source, self.on_end
  self.on_end, self.is_final, self.origin = nil, nil, source.origin
  return finish(self, source, handler(source.status))
end

function promise.finally(self, handler)
  local child = new(nil)
  child.react, child.on_end, child.sees_cancel, child.is_final = run_final, handler, true, true
  consume(self, child)
  return child
end
