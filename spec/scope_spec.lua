local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local child = require("spec.support.child")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task, scope, timeout, shield = scheduler.task, scheduler.scope, scheduler.timeout, scheduler.shield
local advance, recorder = virtual.advance, virtual.recorder
-- Waits can be protected with the stock `pcall` but in PUC Lua 5.1.
local protected = scheduler.pcall

local function ignore() end

--- Values of all types, nil but for the type `table` last.
local function values_of_all_types()
  return { "text", 42, 0.5, true, false, ignore, io.stdout, coroutine.create(ignore), {} }
end

--- Runs a program that might hang in a process of its own, and returns what it printed.
local function output_of(source)
  local result = child.script("local task, protected = scheduler.task, scheduler.pcall\n" .. source)
  assert.are.equal("", result.err)
  assert.are.equal(0, result.code)
  return (result.out:gsub("\n", " "))
end

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

describe("cancelling a scope", function()
  virtual.setup(before_each, after_each)

  it("ends it without an error, with what its function returned if that had ended", function()
    local result = attempt.start(scope, function(s)
      s:spawn(task.wait, 10)
      s:spawn(function()
        task.wait(0.01)
        s:cancel("enough")
      end)
      return "result"
    end)
    advance(10)
    assert.is_true(result.ok)
    assert.are.equal("result", result[1])
    result = attempt.start(scope, function(s)
      s:cancel()
      task.wait()
      return "result"
    end)
    advance(0)
    assert.is_true(result.ok)
    assert.are.equal(0, result.n)
  end)

  it("raises an error object at the waits, with its kind, reason and message", function()
    local reason, err, message = {}, nil, nil
    attempt.start(scope, function(s)
      s:spawn(function()
        err = select(2, protected(task.wait, 10))
        message = tostring(err)
      end)
      s:cancel(reason)
    end, { name = "crawl" })
    advance(0)
    assert.are.equal("cancelled", err.kind)
    assert.are.equal(reason, err.reason)
    assert.are.equal("scope 'crawl' was cancelled", err.message)
    assert.matches("scope 'crawl' was cancelled", message)
  end)

  it("cancels the children in the order in which they were spawned", function()
    local expected, list, record = {}, recorder()
    local result = attempt.start(scope, function(s)
      for i = 1, 100 do
        expected[i] = i
        s:spawn(function()
          protected(task.wait, 1 + i % 7)
          record(i)
        end)
      end
      task.wait()
      s:cancel()
    end)
    advance(0)
    assert.are.same(expected, list)
    assert.is_true(result.ok)
  end)

  it("waits for the clean-up of the children", function()
    local start, ended = scheduler.now(), nil
    task.spawn(function()
      scope(function(s)
        s:spawn(function()
          protected(task.wait, 10)
          shield(task.wait, 0.02)
        end)
        s:cancel()
      end)
      ended = virtual.since(start)
    end)
    advance(100)
    assert.are.equal(20, ended)
  end)

  it("again, or in the clean-up, changes nothing", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        local _, err = protected(task.wait, 10)
        record(err.reason)
        s:cancel("third")
        _, err = protected(task.wait, 10)
        record(err.reason)
      end)
      s:cancel("first")
      s:cancel("second")
    end)
    advance(0)
    assert.are.same({ "first", "first" }, list)
    assert.is_true(result.ok)
  end)

  it("ends waits of every kind", function()
    local semaphore, mutex = scheduler.semaphore(1), scheduler.mutex()
    local event, queue, full = scheduler.event(), scheduler.queue(), scheduler.queue(0)
    semaphore:acquire()
    mutex:lock()
    local sleeper = task.spawn(task.wait, 10)
    local waits = {
      { "wait", task.wait, 10 },
      { "wait for ever", task.wait, math.huge },
      { "wait for the next turn", task.wait },
      { "yield", task.yield },
      { "join", task.join, sleeper },
      { "acquire", semaphore.acquire, semaphore },
      { "acquire with a timeout", semaphore.acquire, semaphore, 5 },
      { "lock", mutex.lock, mutex, 5 },
      { "event", event.wait, event },
      { "pop", queue.pop, queue, 5 },
      { "push", full.push, full, 1 },
      { "timeout", timeout, 5, task.wait, 10 },
      { "scope", scope, function(s)
        s:spawn(task.wait, 10)
      end },
      { "execute_tasks", scheduler.execute_tasks, { a = function()
        task.wait(10)
      end }, 1 },
    }
    local kinds = {}
    local result = attempt.start(scope, function(s)
      for _, case in ipairs(waits) do
        s:spawn(function()
          local ok, err = protected(case[2], case[3], case[4], case[5])
          kinds[case[1]] = not ok and err.kind .. " " .. tostring(err.reason)
        end)
      end
      s:cancel("enough")
    end)
    advance(0)
    task.cancel(sleeper)
    assert.is_true(result.ok)
    for _, case in ipairs(waits) do
      -- What is ready already has succeeded.
      local is_ready = case[1] == "yield" or case[1] == "wait for the next turn"
      assert.are.equal(not is_ready and "cancelled enough", kinds[case[1]], case[1])
    end
    assert.are.equal(0, scheduler.stats().timers_pending)
    assert.are.equal(0, queue:len() + full:len())
  end)

  it("ends for good a child that is parked in a yield of its own", function()
    local went_on = false
    local co
    local result = attempt.start(scope, function(s)
      co = s:spawn(function()
        protected(coroutine.yield)
        went_on = true
      end)
      s:spawn(function()
        task.wait(0.01)
        s:cancel()
      end)
    end)
    advance(10)
    assert.is_true(result.ok)
    assert.are.equal("cancelled", task.status(co))
    coroutine.resume(co)
    assert.are.equal("cancelled", task.status(co))
    local close = coroutine.close -- luacheck: ignore 143
    if close then assert.is_false(went_on) end
  end)

  it("is raised again at every further wait, the same error", function()
    local errors, record = recorder()
    local waited = false
    local semaphore = scheduler.semaphore(1)
    attempt.start(scope, function(s)
      s:spawn(function()
        record(select(2, protected(task.wait, 10)))
        record(select(2, protected(task.wait)))
        record(select(2, protected(task.yield)))
        record(select(2, protected(timeout, 1, ignore)))
        record(select(2, protected(scope, function()
          waited = true
        end)))
        semaphore:acquire() -- does not have to wait
        record(select(2, protected(semaphore.acquire, semaphore)))
        task.wait(1)
        waited = true
      end)
      s:cancel()
    end)
    advance(1000)
    assert.are.equal(6, #errors)
    for i = 1, 6 do
      assert.are.equal("cancelled", errors[i].kind)
      assert.are.equal(errors[1], errors[i])
    end
    assert.is_false(waited)
  end)

  it("lets what was woken already succeed; the next wait raises", function()
    local list, record = recorder()
    local event, queue = scheduler.event(), scheduler.queue()
    local semaphore = scheduler.semaphore(1)
    semaphore:acquire()
    local result = attempt.start(scope, function(s)
      for _, wait in ipairs({ event.wait, queue.pop, semaphore.acquire }) do
        local of = wait == event.wait and event or wait == queue.pop and queue or semaphore
        s:spawn(function()
          record(wait(of, 1))
          local ok, err = protected(task.wait, 1)
          record(not ok and err.kind)
        end)
      end
      task.wait(0.5)
      event:set()
      queue:push("value")
      semaphore:release()
      s:cancel()
    end)
    advance(500)
    assert.is_true(result.ok)
    assert.are.same({ true, "cancelled", "value", "cancelled", true, "cancelled" }, list)
  end)

  it("with a child in a loop that swallows it ends all the same", function()
    for _, wait in ipairs({ "task.wait(1)", "task.yield()", "event:wait()", "scheduler.timeout(1, task.wait, 2)" }) do
      local out = output_of([[
        local event, rounds = scheduler.event(), 0
        local result = scheduler.scope(function(scope)
          scope:spawn(function()
            while true do
              rounds = rounds + 1
              protected(function() ]] .. wait .. [[ end)
            end
          end)
          scope:spawn(function()
            task.wait(0.001)
            scope:cancel()
          end)
          return "ended"
        end)
        print(result, rounds < 100000)
        scheduler.run()
        print(scheduler.stats().tasks_waiting)
      ]])
      assert.are.equal("ended\ttrue 0 ", out, wait)
    end
  end)

  it("three deep cancels from the inside out, each scope once its children have ended", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(one)
      one:spawn(function()
        local _, err = protected(scope, function(two)
          two:spawn(function()
            local _, err = protected(scope, function(three)
              three:spawn(function()
                local _, err = protected(task.wait, 10)
                record("three " .. err.kind .. " " .. err.reason)
                shield(task.wait, 0.01)
                record("three is clean")
              end)
            end)
            record("two " .. err.kind .. " " .. err.reason)
          end)
        end)
        record("one " .. err.kind .. " " .. err.reason)
      end)
      task.wait(0.005)
      one:cancel("enough")
    end)
    advance(5)
    assert.are.same({ "three cancelled enough" }, list)
    assert.is_nil(result.ended)
    advance(10)
    assert.are.same({
      "three cancelled enough", "three is clean", "two cancelled enough", "one cancelled enough",
    }, list)
    assert.is_true(result.ok)
  end)

  it("of the one in the middle ends what is inside, and leaves the outer one alone", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(one)
      one:spawn(function()
        task.wait(0.02)
        record("outer child")
      end)
      scope(function(two)
        two:spawn(scope, function(three)
          three:spawn(function()
            record(select(2, protected(task.wait, 10)).reason)
          end)
        end)
        two:spawn(function()
          task.wait(0.01)
          two:cancel("the middle")
        end)
      end)
      record("the middle has ended")
      task.wait(0.005)
      record("outer function")
    end)
    advance(20)
    assert.are.same({ "the middle", "the middle has ended", "outer function", "outer child" }, list)
    assert.is_true(result.ok)
  end)

  it("reaches a child that waits inside a generator", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        local step = scheduler.coroutine.wrap(function()
          local ok, err = protected(task.wait, 10)
          record(not ok and err.kind)
          ok, err = protected(task.wait, 10)
          record(not ok and err.kind)
        end)
        step()
        local ok, err = protected(task.wait, 10)
        record(not ok and err.kind)
      end)
      task.wait(0.01)
      s:cancel()
    end)
    advance(10)
    assert.are.same({ "cancelled", "cancelled", "cancelled" }, list)
    assert.is_true(result.ok)
  end)

  it("joins a scope inside a generator before it ends", function()
    local list, record = recorder()
    local result = attempt.start(function()
      scope(function(s)
        s:spawn(function()
          scheduler.coroutine.wrap(function()
            scope(function()
              protected(task.wait, 10)
              shield(task.wait, 0.01)
              record("clean")
            end)
          end)()
        end)
        task.wait(0.01)
        s:cancel()
      end)
      record("ended")
    end)
    advance(100)
    assert.are.same({ "clean", "ended" }, list)
    assert.is_true(result.ok)
  end)

  it("joins a scope inside a protected call before it ends, and tells that call", function()
    local list, record = recorder()
    local result = attempt.start(function()
      scope(function(s)
        s:spawn(function()
          local ok, err = protected(scope, function()
            protected(task.wait, 10)
            shield(task.wait, 0.01)
            record("clean")
          end)
          record(not ok and err.kind)
        end)
        task.wait(0.01)
        s:cancel()
      end)
      record("ended")
    end)
    advance(100)
    assert.are.same({ "clean", "cancelled", "ended" }, list)
    assert.is_true(result.ok)
  end)

  it("from a timer or another task reaches the children", function()
    local given
    for _, cancel in ipairs({
      function()
        scheduler.setTimeout(function()
          given:cancel("from outside")
        end, 5)
      end,
      function()
        task.delay(0.005, function()
          given:cancel("from outside")
        end)
      end,
    }) do
      local reason
      local result = attempt.start(scope, function(s)
        given = s
        reason = select(2, protected(task.wait, 10)).reason
      end)
      cancel()
      advance(5)
      assert.is_true(result.ok)
      assert.are.equal("from outside", reason)
    end
  end)
end)

describe("the task that runs a scope", function()
  virtual.setup(before_each, after_each)

  it("cancelled with task.cancel cancels the children, three deep, and their clean-up runs", function()
    local list, record = recorder()
    local co = task.spawn(function()
      scope(function(one)
        one:spawn(function()
          scope(function(two)
            two:spawn(scope, function(three)
              three:spawn(function()
                local _, err = protected(task.wait, 10)
                record(err.kind)
                shield(task.wait, 0.01)
                record("clean")
              end)
            end)
          end)
        end)
        protected(task.wait, 10)
        record("function")
      end)
      record("never")
    end)
    advance(1)
    task.cancel(co)
    advance(100)
    assert.are.same({ "function", "cancelled", "clean" }, list)
    assert.are.equal("cancelled", task.status(co))
  end)

  it("cancelled with task.cancel closes the scope", function()
    local given
    local co = task.spawn(scope, function(s)
      given = s
      task.wait(10)
    end)
    task.cancel(co)
    assert.matches("is closing", select(2, pcall(given.spawn, given, ignore)))
    advance(0)
  end)

  it("cancelled with task.cancel leaves no timer of a timeout behind", function()
    for _, fn in ipairs({
      function()
        timeout(3600, task.wait, 10)
      end,
      function()
        scope(task.yield, { timeout = 3600 })
      end,
      function()
        scheduler.execute_tasks({ task.yield }, 1, { timeout = 3600 })
      end,
    }) do
      local co = task.spawn(fn)
      task.cancel(co)
      advance(0)
      local left = scheduler.stats().timers_pending
      advance(3600000)
      assert.are.equal(0, left)
    end
  end)

  it("cancelled inside a generator cancels the children", function()
    local kind
    local co = task.spawn(function()
      scheduler.coroutine.wrap(function()
        scope(function()
          local ok, err = protected(task.wait, 10)
          kind = not ok and err.kind
        end)
      end)()
    end)
    task.cancel(co)
    advance(20000)
    assert.are.equal("cancelled", kind)
  end)

  it("goes on waiting when it is resumed by hand", function()
    local result = attempt.start(scope, function()
      task.wait(0.01)
      return "result"
    end)
    for _ = 1, 3 do
      coroutine.resume(result.co, "by hand", 2)
    end
    advance(5)
    assert.is_nil(result.ended)
    coroutine.resume(result.co, "by hand")
    advance(5)
    assert.are.equal("done", task.status(result.co))
    assert.are.equal("result", result[1])
  end)

  it("is refused by spawn, defer and delay", function()
    local result = attempt.start(scope, function()
      task.wait(0.01)
      return "result"
    end)
    for name, start in pairs({
      spawn = task.spawn,
      defer = task.defer,
      delay = function(co)
        task.delay(0.001, co)
      end,
    }) do
      local ok, message = pcall(start, result.co, "by hand")
      assert.is_false(ok)
      assert.matches("bad argument #%d to '" .. name .. "' %(the coroutine is waiting for", message)
    end
    advance(10)
    assert.are.equal("result", result[1])
  end)

  it("goes on waiting when it is resumed by hand inside a protected call or a generator", function()
    for _, call in ipairs({
      protected,
      function(fn, ...)
        return true, scheduler.coroutine.wrap(fn)(...)
      end,
    }) do
      local result = attempt.start(function()
        return call(scope, function()
          task.wait(0.01)
          return "result"
        end)
      end)
      coroutine.resume(result.co, "by hand")
      advance(10)
      local has_ended = result.ended
      if not has_ended then task.cancel(result.co) end
      advance(0)
      assert.is_true(has_ended)
      assert.are.equal("result", result[2])
    end
  end)

  it("resumed by hand after the cancellation came still cancels the children", function()
    local kind
    local result = attempt.start(scope, function(outer)
      local owner = outer:spawn(scope, function()
        local ok, err = protected(task.wait, 10)
        kind = not ok and err.kind
      end)
      outer:cancel()
      coroutine.resume(owner, "by hand")
    end)
    advance(20000)
    assert.are.equal("cancelled", kind)
    assert.is_true(result.ok)
  end)
end)

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

describe("shield", function()
  virtual.setup(before_each, after_each)

  it("passes arguments, results and errors", function()
    local result = attempt.start(shield, function(...)
      task.wait(0.01)
      return select("#", ...), ...
    end, 1, nil, 3, nil)
    advance(10)
    assert.are.same({ 5, 4, 1, nil, 3, nil }, { result.n, result[1], result[2], result[3], result[4], result[5] })
    for _, value in ipairs(values_of_all_types()) do
      result = attempt.start(shield, function()
        task.wait(0.01)
        error(value, 0)
      end)
      advance(10)
      assert.is_false(result.ok)
      assert.are.equal(value, result.err)
    end
    result = attempt.start(shield, error)
    assert.is_false(result.ok)
    assert.are.equal(raised.none, result.err)
  end)

  it("waits on the main thread as well", function()
    scheduler.clock.resume()
    assert.are.equal("result", shield(function()
      task.wait(0.001)
      return "result"
    end))
  end)

  it("lets the clean-up wait after the cancellation, more than once", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        protected(task.wait, 10)
        record(shield(function()
          task.wait(0.01)
          task.wait(0.01)
          return "first"
        end))
        record(select(2, protected(task.wait)).kind)
        record(shield(function()
          task.wait(0.01)
          return "second"
        end))
      end)
      s:cancel()
    end)
    advance(20)
    assert.are.same({ "first", "cancelled" }, list)
    advance(10)
    assert.are.same({ "first", "cancelled", "second" }, list)
    assert.is_true(result.ok)
  end)

  it("lets the clean-up wait inside a protected call as well", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        protected(task.wait, 10)
        record(select(2, protected(shield, function()
          task.wait(0.01)
          record("waited")
          return "result"
        end)))
        record("after")
      end)
      s:cancel()
    end)
    advance(100)
    assert.are.same({ "waited", "result", "after" }, list)
    assert.is_true(result.ok)
  end)

  it("lets the clean-up wait inside a generator as well", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        protected(task.wait, 10)
        scheduler.coroutine.wrap(function()
          record(shield(function()
            task.wait(0.01)
            return "result"
          end))
        end)()
        record("after")
      end)
      s:cancel()
    end)
    advance(100)
    assert.are.same({ "result", "after" }, list)
    assert.is_true(result.ok)
  end)

  it("goes on when the cancellation comes while it waits; the next wait raises", function()
    local list, record = recorder()
    local start = scheduler.now()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        record(shield(function()
          task.wait(0.1)
          return "result"
        end))
        record(virtual.since(start))
        local ok, err = protected(task.wait, 1)
        record(not ok and err.reason)
      end)
      task.wait(0.05)
      s:cancel("enough")
    end)
    advance(100)
    assert.are.same({ "result", 100, "enough" }, list)
    assert.is_true(result.ok)
  end)

  it("goes on when the task is cancelled with task.cancel", function()
    local ended = false
    local co = task.spawn(function()
      shield(function()
        task.wait(0.1)
        ended = true
      end)
    end)
    task.cancel(co)
    advance(100)
    assert.is_true(ended)
    assert.are.equal("cancelled", task.status(co))
  end)

  it("reports an error that nobody is left to be given", function()
    local errors = attempt.reported(function()
      local co = task.spawn(shield, function()
        task.wait(0.1)
        error("failed", 0)
      end)
      task.cancel(co)
      advance(100)
    end)
    assert.are.same({ "failed" }, errors)
  end)

  it("goes on when the task is resumed by hand; spawn refuses the task", function()
    local result = attempt.start(shield, function()
      task.wait(0.01)
      return "result"
    end)
    coroutine.resume(result.co, "by hand")
    assert.is_false(pcall(task.spawn, result.co, "by hand"))
    assert.is_nil(result.ended)
    advance(10)
    assert.are.equal("result", result[1])
  end)

  it("shields a scope inside, whose own errors and cancellation work as ever", function()
    local list, record = recorder()
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        shield(scope, function(inner)
          inner:spawn(function()
            task.wait(0.1)
            record("inner child")
            inner:cancel("inner")
          end)
          local ok, err = protected(task.wait, 10)
          record(not ok and err.reason)
        end)
        record("shielded scope has ended")
        task.wait()
      end)
      task.wait(0.05)
      s:cancel("outer")
    end)
    advance(100)
    assert.are.same({ "inner child", "inner", "shielded scope has ended" }, list)
    assert.is_true(result.ok)
  end)

  it("shields from a timeout, which strikes after it", function()
    local start, ended = scheduler.now(), nil
    local result = attempt.start(function()
      local _, err = protected(timeout, 0.1, function()
        shield(task.wait, 0.3)
        task.wait(10)
      end)
      ended = virtual.since(start)
      return err.kind
    end)
    advance(1000)
    assert.are.equal("timeout", result[1])
    assert.are.equal(300, ended)
  end)

  it("has a timeout inside of its own", function()
    local result = attempt.start(shield, timeout, 0.1, task.wait, 10)
    advance(100)
    assert.are.equal("timeout", result.err.kind)
  end)

  it("shows a task that waits in it after its cancellation as waiting", function()
    local co
    attempt.start(scope, function(s)
      co = s:spawn(function()
        protected(task.wait, 10)
        shield(task.wait, 0.1)
      end)
      s:cancel()
    end)
    local status = task.status(co)
    advance(100)
    assert.are.equal("waiting", status)
  end)

  it("refuses what cannot be called", function()
    for _, value in ipairs({ 1, "print", {} }) do
      local ok, message = pcall(shield, value)
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'shield' %(function expected, got " .. type(value) .. "%)", message)
    end
  end)
end)
