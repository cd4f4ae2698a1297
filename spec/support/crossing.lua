-- Sends values to a worker and back, or has that refused.

local assert = require("luassert")
local scheduler = require("scheduler")

local await, run = scheduler.await, scheduler.parallel.run

--- The results of a function in a worker.
local function there(fn, ...)
  return await(run(fn, ...))
end

local function id(...)
  return ...
end

--- The values, there and back.
local function echo(...)
  return there(id, ...)
end

--- Why something is refused; nothing is sent then.
local function refused(...)
  local before = scheduler.stats().jobs_sent
  local ok, message = pcall(run, ...)
  assert.is_false(ok)
  assert.are.equal(before, scheduler.stats().jobs_sent, "something was sent")
  return message
end

local function assert_refused(expected, ...)
  local message = refused(...)
  assert.is_truthy(message:find("cannot transfer " .. expected, 1, true), message)
end

--- The error of a job that fails.
local function failure(...)
  local ok, err = pcall(there, ...)
  assert.is_false(ok)
  return err
end

return {
  there = there,
  id = id,
  echo = echo,
  refused = refused,
  assert_refused = assert_refused,
  failure = failure,
}
