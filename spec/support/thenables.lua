-- Thenables that end in all the ways there are. Each entry is a name and a function `make(field, value)`: a thenable
-- whose method has that name, and that is resolved, or rejected, with that value.

local scheduler = require("scheduler")
local settled = require("spec.support.settled")

local Promise, wait = scheduler.Promise, scheduler.task.wait
local later = settled.later
local thenables = {}

-- What is ignored.
local OTHER = { "the wrong value" }

--- An entry for thenables that are tables with a method; `answer(value, resolve, reject)` is what the method does.
local function by_method(name, answer)
  return { name, function(field, value)
    return { [field] = function(_, resolve, reject)
      return answer(value, resolve, reject)
    end }
  end }
end

--- An object whose fields come from a function.
local function computed(index)
  return setmetatable({}, { __index = index })
end

--- A method that can be had once only.
local function one_time(field, method)
  local is_taken = false
  return computed(function(_, key)
    if key ~= field or is_taken then return nil end
    is_taken = true
    return method
  end)
end

local function callable(fn)
  return setmetatable({}, {
    __call = function(_, ...)
      return fn(...)
    end,
  })
end

--- A thenable that is a userdata; where Lua cannot make any, a table.
local function object(fields)
  local make_proxy = rawget(_G, "newproxy")
  if not make_proxy then return computed(fields) end
  local proxy = make_proxy(true)
  getmetatable(proxy).__index = fields
  return proxy
end

local function resolving(value)
  return function(_, resolve)
    resolve(value)
  end
end

thenables.RESOLVED = {
  by_method("resolves at once", function(value, resolve)
    resolve(value)
  end),
  by_method("resolves later", function(value, resolve)
    later(resolve, value)
  end),
  by_method("waits and resolves", function(value, resolve)
    wait(0.01)
    resolve(value)
  end),
  by_method("resolves and waits", function(value, resolve)
    resolve(value)
    wait(0.01)
  end),
  by_method("resolves twice", function(value, resolve)
    resolve(value)
    resolve(OTHER)
  end),
  by_method("resolves and rejects", function(value, resolve, reject)
    resolve(value)
    reject(OTHER)
  end),
  by_method("resolves and raises", function(value, resolve)
    resolve(value)
    error(OTHER)
  end),
  by_method("resolves, waits and raises", function(value, resolve)
    resolve(value)
    wait(0.01)
    error(OTHER)
  end),
  by_method("resolves and returns a value", function(value, resolve)
    resolve(value)
    return OTHER
  end),
  { "has its method once only", function(field, value)
    return one_time(field, resolving(value))
  end },
  { "has a callable table as method", function(field, value)
    return { [field] = callable(resolving(value)) }
  end },
  { "has a callable table that waits as method", function(field, value)
    return { [field] = callable(function(_, resolve)
      wait(0.01)
      resolve(value)
    end) }
  end },
  { "inherits its method", function(field, value)
    return computed(setmetatable({}, { __index = { [field] = resolving(value) } }))
  end },
  { "is a userdata", function(field, value)
    return object({ [field] = resolving(value) })
  end },
  { "is a resolved promise", function(_, value)
    return settled.WAYS[1].resolved(value)
  end },
  { "is a promise that is resolved later", function(_, value)
    return settled.WAYS[3].resolved(value)
  end },
}

thenables.REJECTED = {
  by_method("rejects at once", function(value, _, reject)
    reject(value)
  end),
  by_method("rejects later", function(value, _, reject)
    later(reject, value)
  end),
  by_method("waits and rejects", function(value, _, reject)
    wait(0.01)
    reject(value)
  end),
  by_method("rejects twice", function(value, _, reject)
    reject(value)
    reject(OTHER)
  end),
  by_method("rejects and resolves", function(value, resolve, reject)
    reject(value)
    resolve(OTHER)
  end),
  by_method("rejects and raises", function(value, _, reject)
    reject(value)
    error(OTHER)
  end),
  by_method("raises", function(value)
    error(value, 0)
  end),
  by_method("waits and raises", function(value)
    wait(0.01)
    error(value, 0)
  end),
  by_method("raises, and resolves later", function(value, resolve)
    later(resolve, OTHER)
    error(value, 0)
  end),
  { "has its method once only", function(field, value)
    return one_time(field, function(_, _, reject)
      reject(value)
    end)
  end },
  { "raises when it is asked for its method", function(field, value)
    return computed(function(_, key)
      if key == field then error(value, 0) end
    end)
  end },
  { "is a userdata", function(field, value)
    return object({ [field] = function(_, _, reject)
      reject(value)
    end })
  end },
  { "is a rejected promise", function(_, value)
    return settled.quietly_rejected(value)
  end },
  { "is a promise that is rejected later", function(_, value)
    local promise = settled.WAYS[3].rejected(value)
    promise:catch(function() end)
    return promise
  end },
}

--- All of them, with the status that they come to in front.
thenables.ALL = {}
for _, status in ipairs({ "resolved", "rejected" }) do
  for _, entry in ipairs(thenables[status:upper()]) do
    table.insert(thenables.ALL, { status, entry[1], entry[2] })
  end
end

--- The names that the method of a thenable may have.
thenables.FIELDS = { "andThen", "then_" }

--- The ways in which a promise is resolved with something: a name, and a function `resolve_with(make)` that returns a
--- promise which is resolved with what `make()` returns.
thenables.ROUTES = {
  { "returned by onResolved", function(make)
    return Promise.resolve("source"):andThen(function()
      return make()
    end)
  end },
  { "returned by onRejected", function(make)
    return Promise.reject("source"):andThen(nil, function()
      return make()
    end)
  end },
  { "returned by a handler that has waited", function(make)
    return Promise.resolve("source"):andThen(function()
      wait(0.01)
      return make()
    end)
  end },
  { "given to resolve by the executor", function(make)
    return Promise.new(function(resolve)
      resolve(make())
    end)
  end },
  { "given to resolve later", function(make)
    local promise, settle = settled.deferred()
    later(function()
      settle.resolved(make())
    end)
    return promise
  end },
  { "given to Promise.resolve", function(make)
    return Promise.resolve(make())
  end },
  { "returned by an async function", function(make)
    return scheduler.async(make)()
  end },
}

return thenables
