local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task, scope, timeout, shield = scheduler.task, scheduler.scope, scheduler.timeout, scheduler.shield
local advance, recorder = virtual.advance, virtual.recorder
local values_of_all_types = raised.values_of_all_types
-- Waits can be protected with the stock `pcall` but in PUC Lua 5.1.
local protected = scheduler.pcall

describe("the timeout of a scope", function()
  virtual.setup(before_each, after_each)

  it("cancels the children and raises an error object that names the scope", function()
    local list, record = recorder()
    local start = scheduler.now()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        local _, err = protected(task.wait, 10)
        record(err.kind)
        record(err.reason)
        record(virtual.since(start))
        error(err, 0)
      end)
    end, { timeout = 0.5, name = "crawl" })
    advance(500)
    assert.are.same({ "cancelled", "timeout", 500 }, list)
    assert.is_false(result.ok)
    assert.are.equal("timeout", result.err.kind)
    assert.are.equal("scope 'crawl' timed out after 0.5 s", result.err.message)
  end)

  it("does nothing once the scope has ended, or has failed before", function()
    local result = attempt.start(scope, function()
      task.wait(0.4)
      return "result"
    end, { timeout = 0.5 })
    advance(400)
    assert.are.equal("result", result[1])
    assert.are.equal(0, scheduler.stats().timers_pending)
    result = attempt.start(scope, function(s)
      s:spawn(function()
        protected(task.wait, 10)
        shield(task.wait, 1)
      end)
      task.wait(0.4)
      error("failed", 0)
    end, { timeout = 0.5 })
    advance(2000)
    assert.are.equal("failed", result.err)
  end)

  it("is told apart from a cancellation that came before it", function()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        protected(task.wait, 10)
        shield(task.wait, 1)
      end)
      task.wait(0.4)
      s:cancel()
      task.wait(1)
    end, { timeout = 0.5 })
    advance(2000)
    assert.is_true(result.ok)
  end)

  it("of 0 or less strikes at the first wait that takes until the next turn", function()
    for _, seconds in ipairs({ 0, -1, -math.huge }) do
      local result = attempt.start(scope, function()
        return "result"
      end, { timeout = seconds })
      assert.are.equal("result", result[1])
      result = attempt.start(scope, function()
        task.wait(1)
      end, { timeout = seconds })
      advance(1)
      assert.are.equal("timeout", result.err.kind)
    end
  end)

  it("of math.huge never strikes", function()
    local result = attempt.start(scope, function()
      task.wait(1e4)
      return "result"
    end, { timeout = math.huge })
    advance(1e8)
    assert.are.equal("result", result[1])
  end)
end)

describe("timeout", function()
  virtual.setup(before_each, after_each)

  it("passes arguments and results, nils intact", function()
    local result = attempt.start(timeout, 1, function(...)
      task.wait(0.5)
      return select("#", ...), ...
    end, 1, nil, 3, nil)
    advance(500)
    assert.are.same({ 5, 4, 1, nil, 3, nil }, { result.n, result[1], result[2], result[3], result[4], result[5] })
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("passes errors as they are", function()
    for _, value in ipairs(values_of_all_types()) do
      local result = attempt.start(timeout, 1, function()
        task.wait(0.5)
        error(value, 0)
      end)
      advance(500)
      assert.is_false(result.ok)
      assert.are.equal(value, result.err)
    end
    local result = attempt.start(timeout, 1, error)
    assert.is_false(result.ok)
    assert.are.equal(raised.none, result.err)
  end)

  it("raises an error object of the kind timeout, at its time", function()
    local start, ended = scheduler.now(), nil
    local result = attempt.start(function()
      local ok, err = protected(timeout, 0.25, task.wait, 10)
      ended = virtual.since(start)
      -- The task itself is not cancelled.
      task.wait(1)
      return ok, err
    end)
    advance(1250)
    assert.are.equal(250, ended)
    assert.is_false(result[1])
    assert.are.equal("timeout", result[2].kind)
    assert.are.equal("the call timed out after 0.25 s", result[2].message)
    assert.matches("the call timed out after 0.25 s", tostring(result[2]))
  end)

  it("bounds what it calls, however deep that waits, and children of scopes as well", function()
    local list, record = recorder()
    local result = attempt.start(timeout, 0.1, function()
      scope(function(s)
        s:spawn(function()
          local ok, err = protected(task.wait, 10)
          record(not ok and err.reason)
        end)
        scheduler.coroutine.wrap(function()
          task.wait(10)
        end)()
      end)
    end)
    advance(100)
    assert.are.equal("timeout", result.err.kind)
    assert.are.same({ "timeout" }, list)
  end)

  it("waits for the clean-up, which may not swallow it by waiting on", function()
    local start, ended = scheduler.now(), nil
    local result = attempt.start(function()
      local ok, err = protected(timeout, 0.1, function()
        protected(task.wait, 10)
        shield(task.wait, 0.05)
        task.wait(10)
      end)
      ended = virtual.since(start)
      return ok, err
    end)
    advance(1000)
    assert.are.equal(150, ended)
    assert.is_false(result[1])
    assert.are.equal("timeout", result[2].kind)
  end)

  it("returns the results of a function that ends all the same", function()
    local result = attempt.start(timeout, 0.1, function()
      protected(task.wait, 10)
      return "partial result"
    end)
    advance(100)
    assert.are.equal("partial result", result[1])
  end)

  it("inside of another: the one that is due first strikes", function()
    local function nested(outer, inner)
      local list, record = recorder()
      local result = attempt.start(function()
        local _, err = protected(timeout, outer, function()
          local ok, err = protected(timeout, inner, task.wait, 10)
          record(not ok and "inner: " .. err.kind)
          return "the outer one goes on"
        end)
        record(type(err) == "table" and "outer: " .. err.kind or err)
      end)
      advance(10000)
      assert.is_true(result.ended)
      return list
    end
    assert.are.same({ "inner: timeout", "the outer one goes on" }, nested(2, 1))
    local list = nested(1, 2)
    assert.are.equal("inner: cancelled", list[1])
    -- Both at once: the outer one was set first.
    list = nested(1, 1)
    assert.are.equal("inner: cancelled", list[1])
  end)

  it("inside of another that is due first, or at once, raises the outer one", function()
    for _, inner in ipairs({ 2, 1 }) do
      local result = attempt.start(timeout, 1, timeout, inner, task.wait, 10)
      advance(1000)
      assert.are.equal("timeout", result.err.kind)
      assert.matches("timed out after 1 s", result.err.message)
    end
    local result = attempt.start(timeout, 1.5, timeout, 0.5, task.wait, 10)
    advance(500)
    assert.matches("timed out after 0.5 s", result.err.message)
  end)

  it("at the moment of the result: what comes first counts", function()
    local event = scheduler.event()
    scheduler.setTimeout(function()
      event:set()
    end, 1000)
    local before = attempt.start(timeout, 1, event.wait, event)
    advance(1000)
    assert.is_true(before.ok)
    assert.is_true(before[1])

    event:clear()
    local after = attempt.start(timeout, 1, event.wait, event)
    scheduler.setTimeout(function()
      event:set()
    end, 1000)
    advance(1000)
    assert.is_false(after.ok)
    assert.are.equal("timeout", after.err.kind)

    local same = attempt.start(timeout, 1, task.wait, 1)
    advance(1000)
    assert.are.equal("timeout", same.err.kind)
  end)

  it("that strikes after the result, in the same turn, does not undo it", function()
    local queue = scheduler.queue()
    scheduler.setTimeout(function()
      queue:push("value")
    end, 1000)
    local result = attempt.start(timeout, 1, function()
      local value = queue:pop()
      return value, queue:len()
    end)
    advance(1000)
    assert.is_true(result.ok)
    assert.are.equal("value", result[1])
  end)

  it("refuses bad arguments, and leaves no trace", function()
    local started = false
    local function start()
      started = true
    end
    for _, case in ipairs({
      { "bad argument #1 to 'timeout' (number expected, got nil)", nil, start },
      { "bad argument #1 to 'timeout' (number expected, got string)", "1", start },
      { "bad argument #1 to 'timeout' (number expected, got function)", start },
      { "bad argument #1 to 'timeout' (number expected, got NaN)", 0 / 0, start },
      { "bad argument #2 to 'timeout' (function expected, got nil)", 1 },
      { "bad argument #2 to 'timeout' (function expected, got table)", 1, {} },
    }) do
      local ok, message = pcall(timeout, case[2], case[3])
      assert.is_false(ok)
      assert.is_truthy(message:find(case[1], 1, true), message)
    end
    assert.is_false(started)
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)
end)
