-- Promises for specs: what they are given, where that happens, and what became of them.

local assert = require("luassert")
local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local promised = {}

--- A list of values with their count.
function promised.counted(...)
  return { n = select("#", ...), ... }
end

local counted = promised.counted

local function ignore() end

--- Lists of values that must come out as they went in.
promised.VALUES = {
  counted(), counted(nil), counted(false), counted(1), counted(nil, nil), counted(nil, 2, nil), counted(1, nil, 3, nil),
  counted({}, ignore, "text"),
}

--- Error values of all types.
promised.ERRORS = {
  "text", 42, false, true, { code = 1 }, ignore, io.stdout, coroutine.create(ignore), Promise.Error.new(),
}

--- Values that cannot be called.
promised.NOT_CALLABLE = { 1, "text", false, true, {}, io.stdout, coroutine.create(ignore) }

--- A table that can be called as `fn` can.
function promised.callable(fn)
  return setmetatable({}, {
    __call = function(_, ...)
      return fn(...)
    end,
  })
end

--- What a promise that was resolved with these values should look like; and one that was rejected.
function promised.resolved(...)
  return { status = "Resolved", n = select("#", ...), ... }
end

function promised.rejected(...)
  return { status = "Rejected", n = select("#", ...), ... }
end

promised.pending = { status = "Started", n = 0 }

--- The status of a promise, and its values if it is settled: as `resolved` and `rejected` give them. A cancelled one
--- has its reason as value.
function promised.look(promise)
  local status = promise:getStatus()
  if status == "Started" then return promised.pending end
  local list = counted(select(2, promise:awaitStatus()))
  list.status = status
  if status == "Cancelled" then
    assert(list.n == 1 and list[1].kind == "cancelled", "no error tells of the cancellation")
    list[1] = list[1].reason
  end
  return list
end

--- Runs the microtasks, and looks at a promise.
function promised.outcome(promise)
  scheduler.poll()
  return promised.look(promise)
end

--- A promise that is pending, and what settles it: `resolve` and `reject`, and `onCancel`.
function promised.open()
  local resolve, reject, on_cancel
  local promise = Promise.new(function(...)
    resolve, reject, on_cancel = ...
  end)
  return promise, resolve, reject, on_cancel
end

--- The names of the promises that have each status, in a table by name.
function promised.statuses(promises)
  local list = {}
  for name, promise in pairs(promises) do
    list[name] = promise:getStatus()
  end
  return list
end

--- Runs the microtasks and asserts that a promise was cancelled with this reason.
function promised.assert_cancelled(promise, reason)
  assert.are.same({ status = "Cancelled", n = 1, reason }, promised.outcome(promise))
end

--- Functions that run `fn` at once or in the next turn, by the place where it runs.
promised.PLACES = {
  ["the main thread"] = function(fn)
    fn()
  end,
  ["a task"] = task.spawn,
  ["a generator in a task"] = function(fn)
    task.spawn(function()
      scheduler.coroutine.wrap(fn)()
    end)
  end,
  ["a callback"] = function(fn)
    scheduler.setTimeout(fn)
  end,
  ["a microtask"] = scheduler.queueMicrotask,
  ["an executor"] = Promise.new,
  ["an async function"] = function(fn)
    scheduler.async(fn)()
  end,
  ["a handler"] = function(fn)
    Promise.resolve():andThen(fn)
  end,
  ["a handler of rejections"] = function(fn)
    Promise.reject():catch(fn)
  end,
  ["a handler of finally"] = function(fn)
    Promise.resolve():finally(fn)
  end,
  ["a hook"] = function(fn)
    local promise, _, _, on_cancel = promised.open()
    on_cancel(fn)
    promise:cancel()
  end,
}

--- Has `fn` run in each place; `check(place)` looks at what came of it.
function promised.in_each_place(fn, check)
  for place, run in pairs(promised.PLACES) do
    local has_run = false
    run(function()
      fn()
      has_run = true
    end)
    virtual.advance(0)
    assert.is_true(has_run, place)
    check(place)
  end
end

--- The line in which it is called.
function promised.line_here()
  return debug.getinfo(2, "l").currentline
end

--- Calls `fn(...)`, which must raise a message that names the place of its caller and goes on as told.
function promised.refuses(expected, fn, ...)
  local ok, message = pcall(fn, ...)
  assert(not ok, "nothing was raised: " .. expected)
  assert(type(message) == "string" and message:sub(-#expected - 2) == ": " .. expected, tostring(message))
  return message
end

--- A test of very many promises, for which the collector is what it is by default: at its most aggressive, a Lua goes
--- through all of them whenever one is made.
function promised.unhurried(fn)
  return function()
    local pause = memory.set_pause(200)
    local ok, err = pcall(fn)
    memory.set_pause(pause)
    if not ok then error(err, 0) end
  end
end

--- Virtual time, and a list of the errors that reach the error handler: `take()` returns it, and begins another. What
--- no test has taken fails it.
function promised.setup(before_each, after_each)
  local errors, former
  local function take()
    scheduler.poll()
    scheduler.poll()
    local list = errors
    errors = {}
    return list
  end
  before_each(function()
    errors = {}
    former = scheduler.on_error(function(err, traceback, source)
      errors[#errors + 1] = { err = err, traceback = traceback, source = source }
    end)
  end)
  after_each(function()
    local left = take()
    scheduler.on_error(former)
    if #left > 0 then error("an error was reported: " .. tostring(left[1].err) .. " in " .. left[1].source) end
  end)
  virtual.setup(before_each, after_each)
  return take
end

return promised
