local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local child = require("spec.support.child")
local virtual = require("spec.support.virtual")

local task, scope, timeout, shield = scheduler.task, scheduler.scope, scheduler.timeout, scheduler.shield
local advance, recorder = virtual.advance, virtual.recorder
-- Waits can be protected with the stock `pcall` but in PUC Lua 5.1.
local protected = scheduler.pcall

local function ignore() end

--- Runs a program that might hang in a process of its own, and returns what it printed.
local function output_of(source)
  local result = child.script("local task, protected = scheduler.task, scheduler.pcall\n" .. source)
  assert.are.equal("", result.err)
  assert.are.equal(0, result.code)
  return (result.out:gsub("\n", " "))
end

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
      { "yield in a generator", scheduler.coroutine.wrap(task.yield) },
      { "wait for the next turn in a generator in another", scheduler.coroutine.wrap(function()
        scheduler.coroutine.wrap(task.wait)()
      end) },
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
      assert.are.equal("cancelled enough", kinds[case[1]], case[1])
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

  for name, together in pairs({
    scope = function(fn)
      scope(function(s)
        s:spawn(fn)
      end)
    end,
    timeout = function(fn)
      timeout(10, fn)
    end,
    shield = shield,
    execute_tasks = function(fn)
      scheduler.execute_tasks({ fn })
    end,
  }) do
    it("ends though what runs in a " .. name .. " ends at that very moment", function()
      local mutex, outer = scheduler.mutex(), nil
      mutex:lock()
      local result = attempt.start(scope, function(s)
        outer = s
        s:spawn(together, function()
          mutex:with(ignore)
        end)
      end)
      mutex:unlock()
      outer:cancel()
      advance(0)
      assert.is_true(result.ok)
    end)
  end

  it("ends a child that parks only then, as one that is parked already", function()
    local result = attempt.start(scope, function(s)
      s:spawn(error, "failed", 0)
      coroutine.yield()
    end)
    advance(0)
    assert.are.equal("failed", result.err)
    result = attempt.start(scope, function(s)
      local event = scheduler.event()
      s:spawn(function()
        event:wait()
        coroutine.yield()
      end)
      event:set()
      s:cancel()
    end)
    advance(0)
    assert.is_true(result.ok)
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
