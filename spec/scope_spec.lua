local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task, scope, timeout, shield = scheduler.task, scheduler.scope, scheduler.timeout, scheduler.shield
local advance, recorder = virtual.advance, virtual.recorder
local values_of_all_types = raised.values_of_all_types
-- Waits can be protected with the stock `pcall` but in PUC Lua 5.1.
local protected = scheduler.pcall

local function ignore() end

describe("a scope", function()
  virtual.setup(before_each, after_each)

  it("gives its function the scope, and returns what that returns, nils intact", function()
    local given
    local result = attempt.start(scope, function(...)
      given = { n = select("#", ...), ... }
      return 1, nil, 3, nil
    end)
    assert.is_true(result.ok)
    assert.are.same({ 4, 1, nil, 3, nil }, { result.n, result[1], result[2], result[3], result[4] })
    assert.are.equal(1, given.n)
    assert.is_function(given[1].spawn)
    assert.is_function(given[1].cancel)
  end)

  it("without children, and whose function does not wait, ends at once", function()
    local list, record = recorder()
    task.spawn(function()
      scope(ignore)
      record("ended")
    end)
    record("after")
    assert.are.same({ "ended", "after" }, list)
  end)

  it("may have a callable table as its function", function()
    local callable = setmetatable({}, {
      __call = function(_, given)
        return given
      end,
    })
    local result = attempt.start(scope, callable)
    assert.is_function(result[1].spawn)
  end)

  it("starts a child at once, with its arguments, and gives its coroutine", function()
    local list, record = recorder()
    local co
    local result = attempt.start(scope, function(s)
      co = s:spawn(function(...)
        record({ n = select("#", ...), ... })
        record(coroutine.running())
        task.wait(1)
        return "a result"
      end, 1, nil, 3, nil)
      record("the function goes on")
      return task.join(co)
    end)
    advance(1000)
    assert.are.same({ n = 4, 1, nil, 3, nil }, list[1])
    assert.are.equal(co, list[2])
    assert.are.equal("the function goes on", list[3])
    assert.are.equal("a result", result[1])
    assert.are.equal("done", task.status(co))
  end)

  it("joins all its children before it returns", function()
    local list, record = recorder()
    local start = scheduler.now()
    local result = attempt.start(scope, function(s)
      for _, ms in ipairs({ 30, 10, 20 }) do
        s:spawn(function()
          task.wait(ms / 1000)
          record(ms)
        end)
      end
      record("function")
      return "result"
    end)
    advance(29)
    assert.are.same({ "function", 10, 20 }, list)
    assert.is_nil(result.ended)
    advance(1)
    assert.are.same({ "function", 10, 20, 30 }, list)
    assert.are.equal("result", result[1])
    assert.are.equal(30, virtual.since(start))
  end)

  it("joins children that were spawned by children, after its function has returned as well", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        task.wait(0.01)
        record("child")
        s:spawn(function()
          task.wait(0.01)
          record("grandchild")
          s:spawn(function()
            task.wait(0.01)
            record("its child")
          end)
        end)
      end)
    end)
    advance(29)
    assert.are.same({ "child", "grandchild" }, list)
    assert.is_nil(result.ended)
    advance(1)
    assert.are.same({ "child", "grandchild", "its child" }, list)
    assert.is_true(result.ok)
  end)

  it("joins a child that somebody spawns between the end of the last one and its own", function()
    local list, record = recorder()
    local event, given = scheduler.event(), nil
    local result = attempt.start(function()
      scope(function(s)
        given = s
        event:wait()
      end)
      record("the scope has ended")
    end)
    task.spawn(function()
      event:wait()
      local is_accepted = protected(given.spawn, given, function()
        task.wait(0.01)
        record("the child has ended")
      end)
      if not is_accepted then record("the child has ended") end
    end)
    event:set()
    advance(100)
    assert.is_true(result.ok)
    assert.are.same({ "the child has ended", "the scope has ended" }, list)
  end)

  it("goes on without a child that task.cancel has ended", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      local co = s:spawn(task.wait, 10)
      s:spawn(function()
        task.wait(0.01)
        record("sibling")
      end)
      task.cancel(co)
      task.wait(0.02)
      return "result"
    end)
    advance(20)
    assert.are.same({ "sibling" }, list)
    assert.are.equal("result", result[1])
  end)

  it("of a thousand children ends when all have", function()
    local ended = 0
    local result = attempt.start(scope, function(s)
      for i = 1, 1000 do
        s:spawn(function()
          task.wait(i % 100 / 1000)
          ended = ended + 1
        end)
      end
    end)
    advance(98)
    assert.is_nil(result.ended)
    advance(1)
    assert.is_true(result.ok)
    assert.are.equal(1000, ended)
  end)

  it("leaves nothing in memory", function()
    local function run_scopes(count)
      local result = attempt.start(function()
        for _ = 1, count do
          scope(function(s)
            s:spawn(task.yield)
            s:spawn(ignore)
            task.yield()
          end, { timeout = 10 })
        end
      end)
      advance(0)
      assert.is_true(result.ok)
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    run_scopes(100)
    local before = run_scopes(100)
    local after = run_scopes(2000)
    -- 1,900 scopes that stayed would be megabytes.
    assert.is_true(after - before < 500, after - before)
  end)

  it("waits in a timer's callback as well", function()
    local list, record = recorder()
    scheduler.setTimeout(function()
      record(scope(function(s)
        s:spawn(function()
          task.wait(0.01)
          record("child")
        end)
        return "result"
      end))
    end, 1)
    advance(11)
    assert.are.same({ "child", "result" }, list)
  end)

  it("waits on the main thread as well", function()
    scheduler.clock.resume()
    local list, record = recorder()
    record(scope(function(s)
      s:spawn(function()
        task.wait(0.005)
        record("child")
      end)
      return "result"
    end))
    assert.are.same({ "child", "result" }, list)
    local ok, err = pcall(scope, function(s)
      s:spawn(function()
        task.wait(0.001)
        error("failed", 0)
      end)
      local is_done, cancellation = protected(task.wait, 100)
      record(is_done)
      record(cancellation.kind)
      error(cancellation, 0)
    end)
    assert.is_false(ok)
    assert.are.equal("failed", err)
    assert.are.same({ "child", "result", false, "cancelled" }, list)
    ok, err = pcall(scope, function()
      task.wait(100)
    end, { timeout = 0.001 })
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    ok, err = pcall(timeout, 0.001, task.wait, 100)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
  end)

  it("in a coroutine that cannot wait, on the main thread while the loop runs, is refused", function()
    local message
    local started = false
    local sorted = { 2, 1 }
    task.spawn(function()
      table.sort(sorted, function(a, b)
        if not message then
          message = select(2, pcall(scope, function()
            started = true
          end))
        end
        return a < b
      end)
    end)
    if not coroutine.isyieldable then return end -- luacheck: ignore 143
    assert.matches("cannot wait here", message)
    assert.is_false(started)
  end)

  it("refuses a function that cannot be called, and bad options, and starts nothing", function()
    local started = false
    local function start()
      started = true
    end
    for _, case in ipairs({
      { "bad argument #1 to 'scope' (function expected, got nil)" },
      { "bad argument #1 to 'scope' (function expected, got number)", 1 },
      { "bad argument #1 to 'scope' (function expected, got table)", {} },
      { "bad argument #2 to 'scope' (table expected, got number)", start, 1 },
      { "bad argument #2 to 'scope' (unknown option 'time')", start, { time = 1 } },
      { "bad argument #2 to 'scope' (unknown option '1')", start, { 1 } },
      { "bad argument #2 to 'scope' (option 'timeout': number expected, got string)", start, { timeout = "1" } },
      { "bad argument #2 to 'scope' (option 'timeout': number expected, got NaN)", start, { timeout = 0 / 0 } },
      { "bad argument #2 to 'scope' (option 'name': string expected, got boolean)", start, { name = true } },
    }) do
      local ok, message = pcall(scope, case[2], case[3])
      assert.is_false(ok)
      assert.is_truthy(message:find(case[1], 1, true), message)
      assert.matches("^[^\n]*scope_spec%.lua:%d+: ", select(2, pcall(function()
        scope(case[2], case[3])
      end)))
    end
    assert.is_false(started)
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("refuses children that cannot be called, and goes on", function()
    local messages, record = recorder()
    local result = attempt.start(scope, function(s)
      for _, value in ipairs({ 1, "print", {}, coroutine.create(ignore) }) do
        record(select(2, pcall(s.spawn, s, value)))
      end
      record(select(2, pcall(s.spawn, s)))
      return "result"
    end)
    assert.are.equal("result", result[1])
    for i, kind in ipairs({ "number", "string", "table", "thread", "nil" }) do
      assert.matches("bad argument #1 to 'spawn' %(function expected, got " .. kind .. "%)", messages[i])
    end
  end)

  it("is named in words", function()
    local given
    attempt.start(scope, function(s)
      given = { tostring(s) }
    end)
    assert.are.same({ "the scope" }, given)
    attempt.start(scope, function(s)
      given = { tostring(s) }
    end, { name = "crawl" })
    assert.are.same({ "scope 'crawl'" }, given)
  end)
end)

describe("a scope that has ended, or is closing,", function()
  virtual.setup(before_each, after_each)

  it("refuses children", function()
    local given
    local started = false
    local result = attempt.start(scope, function(s)
      given = s
    end, { name = "crawl" })
    assert.is_true(result.ok)
    local ok, message = pcall(given.spawn, given, function()
      started = true
    end)
    assert.is_false(ok)
    assert.matches("^[^\n]*cannot spawn: scope 'crawl' is closing", message)
    assert.is_false(started)
  end)

  it("refuses them in the clean-up of a child, after a failure, a cancellation, or a timeout", function()
    local function fail()
      error("failed", 0)
    end
    for _, close in ipairs({
      function(s)
        s:spawn(fail)
      end,
      function(s)
        s:cancel()
      end,
      ignore,
    }) do
      local started, messages, record = false, recorder()
      local result = attempt.start(scope, function(s)
        s:spawn(function()
          protected(task.wait, 10)
          record(select(2, pcall(s.spawn, s, function()
            started = true
          end)))
        end)
        protected(close, s)
        record(select(2, protected(s.spawn, s, task.wait, 10)))
      end, { timeout = 1 })
      advance(1000)
      assert.is_true(result.ended)
      assert.is_false(started)
      -- Until the timeout, the scope is open.
      if close == ignore then messages = { messages[2], messages[2] } end
      assert.matches("cannot spawn: the scope is closing", messages[1])
      assert.matches("cannot spawn: the scope is closing", messages[2])
    end
  end)

  it("may be cancelled, which does nothing", function()
    local given
    local result = attempt.start(scope, function(s)
      given = s
      return "result"
    end)
    given:cancel()
    assert.are.equal("result", result[1])
  end)
end)

describe("an error in a scope", function()
  virtual.setup(before_each, after_each)

  it("of a child is raised as it is, whatever its type, and not reported", function()
    local errors = attempt.reported(function()
      local function check(value)
        local result = attempt.start(scope, function(s)
          s:spawn(function()
            task.wait(0.01)
            error(value, 0)
          end)
          task.wait(10)
        end)
        advance(10)
        assert.is_true(result.ended)
        assert.is_false(result.ok)
        assert.are.equal(raised.as(value), result.err)
      end
      for _, value in ipairs(values_of_all_types()) do
        check(value)
      end
      check(nil)
    end)
    assert.are.same({}, errors)
  end)

  it("of its own function is raised as it is, and cancels the children", function()
    for _, seconds in ipairs({ false, 0.01 }) do
      local list, record = recorder()
      local failure = {}
      local result = attempt.start(scope, function(s)
        s:spawn(function()
          local ok, err = protected(task.wait, 10)
          record(ok)
          record(err.kind)
        end)
        if seconds then task.wait(seconds) end
        error(failure, 0)
      end)
      advance(10)
      assert.are.same({ false, "cancelled" }, list)
      assert.are.equal(failure, result.err)
      assert.is_nil(failure.later)
    end
  end)

  it("of a child that fails at once is raised as well, while the function goes on up to its next wait", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      record(type(s:spawn(error, "failed", 0)))
      record("goes on")
      local ok, err = protected(task.wait)
      record(ok)
      record(err.kind)
      record(err.reason)
    end)
    advance(0)
    assert.are.same({ "thread", "goes on", false, "cancelled", "a sibling failed" }, list)
    assert.are.equal("failed", result.err)
  end)

  it("cancels the siblings, waits for their clean-up, and is raised after that", function()
    local list, record = recorder()
    local start = scheduler.now()
    local result = attempt.start(function()
      local ok, err = protected(scope, function(s)
        for i = 1, 3 do
          s:spawn(function()
            local _, cancellation = protected(task.wait, 10)
            record(cancellation.reason .. " " .. i)
            shield(task.wait, i / 100)
            record("clean-up " .. i)
          end)
        end
        task.wait(0.005)
        error("failed", 0)
      end)
      record(virtual.since(start))
      return ok, err
    end)
    advance(100)
    assert.are.same({
      "a sibling failed 1", "a sibling failed 2", "a sibling failed 3",
      "clean-up 1", "clean-up 2", "clean-up 3", 35,
    }, list)
    assert.is_false(result[1])
    assert.are.equal("failed", result[2])
  end)

  it("that comes later is attached to a string in words", function()
    local errors = attempt.reported(function()
      local result = attempt.start(scope, function(s)
        for i = 1, 2 do
          s:spawn(function()
            protected(task.wait, 10)
            error(i == 1 and "second" or setmetatable({}, {
              __tostring = function()
                return "third"
              end,
            }), 0)
          end)
        end
        error("first", 0)
      end)
      advance(0)
      assert.are.equal("first\nand later: second\nand later: third", result.err)
    end)
    assert.are.same({}, errors)
  end)

  it("that comes later is attached to a table in a list", function()
    local errors = attempt.reported(function()
      local first, third = { name = "first" }, { name = "third" }
      local result = attempt.start(scope, function(s)
        for i = 1, 2 do
          s:spawn(function()
            protected(task.wait, 10)
            error(i == 1 and "second" or third, 0)
          end)
        end
        error(first, 0)
      end)
      advance(0)
      assert.are.equal(first, result.err)
      assert.are.equal(2, #first.later)
      assert.are.equal("second", first.later[1])
      assert.are.equal(third, first.later[2])
    end)
    assert.are.same({}, errors)
  end)

  it("that comes later than one of another type is reported", function()
    local errors = attempt.reported(function()
      for _, first in ipairs({ 42, true, ignore, io.stdout }) do
        local result = attempt.start(scope, function(s)
          s:spawn(function()
            protected(task.wait, 10)
            error("later", 0)
          end)
          error(first, 0)
        end)
        advance(0)
        assert.are.equal(first, result.err)
      end
    end)
    assert.are.same({ "later", "later", "later", "later" }, errors)
  end)

  it("that two children raise, the same table, does not become its own part", function()
    local failure = {}
    local result = attempt.start(scope, function(s)
      for _ = 1, 2 do
        s:spawn(function()
          protected(task.wait, 10)
          error(failure, 0)
        end)
      end
      task.wait(0.01)
      error(failure, 0)
    end)
    advance(10)
    assert.are.equal(failure, result.err)
    for _, later in ipairs(failure.later or {}) do
      assert.are_not.equal(failure, later)
    end
  end)

  it("inside of another scope can be caught there, and the outer one goes on", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(outer)
      outer:spawn(function()
        task.wait(0.02)
        record("outer child")
      end)
      outer:spawn(function()
        record(select(2, protected(scope, function()
          task.wait(0.01)
          error("inner", 0)
        end)))
        task.wait(0.02)
        record("goes on")
      end)
    end)
    advance(30)
    assert.are.same({ "inner", "outer child", "goes on" }, list)
    assert.is_true(result.ok)
  end)

  it("goes through three scopes, each of which cancels its other children", function()
    local list, record = recorder()
    local function sibling(name)
      return function()
        local ok, err = protected(task.wait, 10)
        record(name .. " " .. tostring(ok) .. " " .. err.reason)
      end
    end
    local result = attempt.start(scope, function(one)
      one:spawn(sibling("one"))
      one:spawn(scope, function(two)
        two:spawn(sibling("two"))
        two:spawn(scope, function(three)
          three:spawn(sibling("three"))
          task.wait(0.01)
          error("deep", 0)
        end)
      end)
    end)
    advance(10)
    assert.are.same({
      "three false a sibling failed", "two false a sibling failed", "one false a sibling failed",
    }, list)
    assert.are.equal("deep", result.err)
  end)

  it("of the clean-up is raised, when nothing failed before", function()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        protected(task.wait, 10)
        error("clean-up failed", 0)
      end)
      s:cancel("enough")
    end)
    advance(0)
    assert.is_false(result.ok)
    assert.are.equal("clean-up failed", result.err)
  end)

  it("of the clean-up is reported when nobody is left to be given it", function()
    local errors = attempt.reported(function()
      local co = task.spawn(scope, function()
        protected(task.wait, 10)
        error("clean-up failed", 0)
      end)
      task.cancel(co)
      advance(0)
    end)
    assert.are.same({ "clean-up failed" }, errors)
  end)
end)
