-- What the tests of Promises/A+ begin with: promises that are settled before a test looks at them, at once after it
-- did, or later by a timer; values of each kind; and a look at how a promise has ended.

local scheduler = require("scheduler")
local virtual = require("spec.support.virtual")

local Promise = scheduler.Promise
local settled = {}

local LATER = 10 -- milliseconds

-- What is to be done once a test has attached its handlers; nil while `run` is at it.
local actions
local errors

--- As `virtual.setup`; a test fails too if anything reaches the error handler, such as a rejection nobody handles.
function settled.setup(before_each, after_each)
  local former
  virtual.setup(before_each, after_each)
  before_each(function()
    actions, errors = {}, {}
    former = scheduler.on_error(function(err)
      errors[#errors + 1] = tostring(err)
    end)
  end)
  after_each(function()
    -- Rejections are reported one turn after they happened.
    for _ = 1, 3 do
      scheduler.poll()
    end
    scheduler.on_error(former)
    if #errors > 0 then error("the test leaves errors behind: " .. table.concat(errors, "; "), 0) end
  end)
end

--- Does what was put off, and runs all that is due.
function settled.run()
  local list = actions
  actions = nil
  for _, action in ipairs(list) do
    action()
  end
  virtual.advance(10 * LATER)
  actions = {}
end

--- A pending promise, and the functions `resolved` and `rejected` which settle it.
function settled.deferred()
  local settle = {}
  local promise = Promise.new(function(resolve, reject)
    settle.resolved, settle.rejected = resolve, reject
  end)
  return promise, settle
end

function settled.later(fn, ...)
  scheduler.setTimeout(fn, LATER, ...)
end

local function at_once(fn, value)
  -- Within a handler, what comes at once after that is a microtask.
  if not actions then return scheduler.queueMicrotask(fn, value) end
  actions[#actions + 1] = function()
    fn(value)
  end
end

local function way(name, settle_by)
  local made = { name = name }
  for _, status in ipairs({ "resolved", "rejected" }) do
    made[status] = function(value)
      local promise, settle = settled.deferred()
      settle_by(settle[status], value)
      return promise
    end
  end
  return made
end

--- The ways in which a promise comes to be settled: each with a name, and with functions `resolved(value)` and
--- `rejected(reason)` that return such a promise.
settled.WAYS = {
  way("already settled", function(fn, value)
    fn(value)
  end),
  way("settled at once", at_once),
  way("settled later", settled.later),
}

--- A rejected promise that is nobody's concern.
function settled.quietly_rejected(reason)
  local promise = Promise.reject(reason)
  promise:catch(function() end)
  return promise
end

-- Values --------------------------------------------------------------------------------------------------------------

local make_proxy, upvalue_id = rawget(_G, "newproxy"), rawget(debug, "upvalueid")

--- A userdata that has no fields, not even a metatable.
local function bare_userdata()
  if upvalue_id then return upvalue_id(settled.run, 1) end
  return make_proxy()
end

--- A userdata that has a metatable but no fields, where Lua can make one.
local function empty_userdata()
  if make_proxy then return make_proxy(true) end
  return bare_userdata()
end

--- Values of each kind that are not thenables: a name, and a function that returns one.
settled.VALUES = {
  { "nil", function() return nil end },
  { "false", function() return false end },
  { "true", function() return true end },
  { "0", function() return 0 end },
  { "NaN", function() return 0 / 0 end },
  { "an empty string", function() return "" end },
  { "a string", function() return "andThen" end },
  { "a table", function() return {} end },
  { "a table with a metatable", function() return setmetatable({}, { __index = {} }) end },
  { "an error object", function() return Promise.Error.new({ kind = "ExecutionError" }) end },
  { "a function", function() return function() error("called") end end },
  { "a coroutine", function() return coroutine.create(function() error("resumed") end) end },
  { "a userdata", function() return io.stdout end },
  { "a userdata without a metatable", bare_userdata },
  { "a userdata without fields", empty_userdata },
}

--- Whatever a promise can be rejected with: as `VALUES`, and what would be adopted in their place.
settled.REASONS = {
  { "a pending thenable", function() return { andThen = function() end } end },
  { "a pending promise", function() return (settled.deferred()) end },
  { "a resolved promise", function() return Promise.resolve("adopted") end },
  { "a rejected promise", function() return settled.quietly_rejected("adopted") end },
}
for _, entry in ipairs(settled.VALUES) do
  table.insert(settled.REASONS, entry)
end

--- Values that cannot be called.
settled.NOT_CALLABLE = {}
for _, entry in ipairs(settled.VALUES) do
  if entry[1] ~= "a function" then table.insert(settled.NOT_CALLABLE, entry) end
end
table.insert(settled.NOT_CALLABLE, { "a list with a function", function() return { function() end } end })

--- Whether two values are the same one.
function settled.is_same(a, b)
  return rawequal(a, b) or a ~= a and b ~= b
end

-- Looking -------------------------------------------------------------------------------------------------------------

--- Watches a promise: returns a table that gets its `status`, its `value` and how many `calls` told so.
function settled.watch(promise)
  local seen = { calls = 0, status = "pending" }
  local function noting(status)
    return function(...)
      seen.calls, seen.status, seen.count, seen.value = seen.calls + 1, status, select("#", ...), (...)
    end
  end
  promise:andThen(noting("resolved"), noting("rejected"))
  return seen
end

--- Checks what a watched promise has come to; `context` is what the test is at, for the message.
function settled.check(seen, status, value, context)
  local calls = status == "pending" and 0 or 1
  if seen.status == status and seen.calls == calls and settled.is_same(seen.value, value) then return end
  local message = "expected: %s with %s%s, got: %s with %s (%d calls)"
  context = context and ", " .. context or ""
  error(message:format(status, tostring(value), context, seen.status, tostring(seen.value), seen.calls), 2)
end

return settled
