local scheduler = require("scheduler")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local task = scheduler.task
local wrap, resume = scheduler.coroutine.wrap, scheduler.coroutine.resume
local advance, recorder = virtual.advance, virtual.recorder

local function ignore() end

local function counted(...)
  return { n = select("#", ...), ... }
end

--- `for value in generate do fn(value) end`; the iterator of a `for` cannot yield in PUC Lua 5.1.
local function each(generate, fn)
  local value = generate()
  while value ~= nil do
    fn(value)
    value = generate()
  end
end

describe("a generator made by Lua itself", function()
  virtual.setup(before_each, after_each)

  it("yields the pending mark where it waits, and goes on by itself", function()
    local list, record = recorder()
    task.spawn(function()
      local generate = coroutine.wrap(function()
        record("waits")
        task.wait(1)
        record("goes on")
      end)
      record(generate())
    end)
    assert.are.same({ "waits", scheduler.pending }, list)
    advance(1000)
    assert.are.same({ "waits", scheduler.pending, "goes on" }, list)
  end)

  it("goes on at once where its consumer resumes it, and the wait is over", function()
    local list, record = recorder()
    task.spawn(function()
      local generate = coroutine.wrap(function()
        for i = 1, 2 do
          record(task.wait(1))
          coroutine.yield(i)
        end
      end)
      for _, value in ipairs({ "a", "b", "c" }) do
        record(generate(value))
      end
    end)
    assert.are.same({ scheduler.pending, "b", 1, scheduler.pending }, list)
    advance(1000)
    assert.are.equal(5, #list)
  end)

  it("works as ever where it does not wait", function()
    local list, record = recorder()
    task.spawn(function()
      for value in coroutine.wrap(function()
        for i = 1, 3 do
          coroutine.yield(i)
        end
      end) do
        record(value)
        task.wait()
      end
    end)
    for _ = 1, 3 do
      scheduler.poll()
    end
    assert.are.same({ 1, 2, 3 }, list)
  end)
end)

describe("a generator made by scheduler.coroutine.wrap", function()
  virtual.setup(before_each, after_each)

  it("may wait between its values", function()
    local list, record = recorder()
    local start = scheduler.now()
    local co = task.spawn(function()
      each(wrap(function()
        for i = 1, 3 do
          task.wait(1)
          coroutine.yield(i)
        end
      end), function(value)
        record({ value, virtual.since(start) })
      end)
      return "ended"
    end)
    advance(5000)
    assert.are.same({ { 1, 1000 }, { 2, 2000 }, { 3, 3000 } }, list)
    assert.are.equal("ended", task.join(co))
  end)

  it("may wait as the iterator of a for loop, or raises and loses nothing", function()
    local list, record = recorder()
    local errors = uncaught(function()
      task.spawn(function()
        for value in wrap(function()
          coroutine.yield(1)
          task.wait(0.001)
          coroutine.yield(2)
        end) do
          record(value)
        end
        record("ended")
      end)
      advance(10)
    end)
    if #errors == 0 then
      assert.are.same({ 1, 2, "ended" }, list)
    else
      assert.are.equal("Lua 5.1", _VERSION)
      assert.matches("yield across", errors[1].err)
      assert.are.same({ 1 }, list)
    end
  end)

  it("lets others run meanwhile", function()
    local list, record = recorder()
    for _, name in ipairs({ "a", "b" }) do
      task.spawn(function()
        each(wrap(function()
          for i = 1, 2 do
            task.wait(0.001)
            coroutine.yield(name .. i)
          end
        end), record)
      end)
    end
    advance(10)
    assert.are.same({ "a1", "b1", "a2", "b2" }, list)
  end)

  it("passes values both ways with their count", function()
    local got = {}
    task.spawn(function()
      local generate = wrap(function(...)
        got[1] = counted(...)
        task.wait()
        got[2] = counted(coroutine.yield(1, nil))
        task.yield()
        got[3] = counted(coroutine.yield())
        return nil, nil
      end)
      got[4] = counted(generate(nil, "in", nil))
      got[5] = counted(generate())
      got[6] = counted(generate(nil))
    end)
    scheduler.poll()
    assert.are.same({
      { n = 3, nil, "in" },
      { n = 0 },
      { n = 1 },
      { n = 2, 1 },
      { n = 0 },
      { n = 2 },
    }, got)
  end)

  it("has each kind of wait, with its results", function()
    local other = task.delay(0.001, function()
      return "joined", nil
    end)
    local results
    task.spawn(function()
      local generate = wrap(function()
        local elapsed = task.wait(0.25)
        local of_yield = counted(task.yield())
        local of_turn = task.wait()
        return elapsed, of_yield.n, of_turn, counted(task.join(other)), counted(task.join(task.delay(1, function()
          return 1, 2
        end)))
      end)
      results = { generate() }
    end)
    advance(5000)
    assert.is_true(math.abs(results[1] - 0.25) < 1e-6)
    assert.are.equal(0, results[2])
    assert.is_true(results[3] >= 0)
    assert.are.same(counted("joined", nil), results[4])
    assert.are.same(counted(1, 2), results[5])
  end)

  it("raises its errors, also after a wait, and is dead then", function()
    local results, record = recorder()
    task.spawn(function()
      for _, err in ipairs({ "text", 42, false, { code = 1 } }) do
        local generate = wrap(function(waits)
          if waits then task.wait() end
          error(err, 0)
        end)
        record(select(2, scheduler.pcall(generate, true)) == err)
        record(select(2, scheduler.pcall(generate)))
      end
    end)
    for _ = 1, 5 do
      scheduler.poll()
    end
    for i = 1, 8, 2 do
      assert.is_true(results[i])
      assert.matches("cannot resume dead coroutine", results[i + 1])
    end
    assert.are.equal(8, #results)
  end)

  it("raises the error of a task that it joins", function()
    local result
    local errors = uncaught(function()
      local failing = task.delay(0.001, error, "boom", 0)
      task.spawn(function()
        result = counted(scheduler.pcall(wrap(function()
          task.join(failing)
        end)))
      end)
      advance(1)
    end)
    assert.are.same(counted(false, "boom"), result)
    assert.are.same({}, errors)
  end)

  it("nests three deep, with waits and values at each depth", function()
    local list, record = recorder()
    local start = scheduler.now()
    local function level(depth)
      return function(first)
        record(("%d begins with %s"):format(depth, tostring(first)))
        local inner = depth < 3 and wrap(level(depth + 1))
        for i = 1, 2 do
          task.wait(0.001)
          if inner then record(("%d got %s"):format(depth, tostring(inner("in" .. depth)))) end
          local back = coroutine.yield(("%d.%d"):format(depth, i))
          record(("%d resumed with %s"):format(depth, tostring(back)))
        end
        task.wait(0.001)
        return "end " .. depth
      end
    end
    local co = task.spawn(function()
      local generate = wrap(level(1))
      for i = 1, 3 do
        record("task got " .. tostring(generate(i)))
      end
      return virtual.since(start)
    end)
    advance(100)
    assert.are.same({
      "1 begins with 1",
      "2 begins with in1",
      "3 begins with in2",
      "2 got 3.1",
      "1 got 2.1",
      "task got 1.1",
      "1 resumed with 2",
      "2 resumed with in1",
      "3 resumed with in2",
      "2 got 3.2",
      "1 got 2.2",
      "task got 1.2",
      "1 resumed with 3",
      "task got end 1",
    }, list)
    assert.are.equal(7, task.join(co))
  end)

  it("waits in the outermost where all of them wait at once", function()
    local co = task.spawn(function()
      local function nest(depth)
        if depth == 0 then return task.wait(1) end
        return wrap(nest)(depth - 1)
      end
      return nest(3)
    end)
    assert.are.equal("waiting", task.status(co))
    assert.are.equal(1, scheduler.stats().timers_pending)
    advance(1000)
    assert.are.equal("done", task.status(co))
    assert.are.equal(1, task.join(co))
  end)

  it("gives what the task is resumed with by hand to the wait inside, and the timer is gone", function()
    for _, wake in ipairs({ coroutine.resume, task.spawn }) do
      for name, wait in pairs({ wait = function() return task.wait(1) end, next_turn = task.wait, yield = task.yield,
        join = function() return task.join(task.delay(1, ignore)) end }) do
        local got
        local function nest(depth)
          if depth > 0 then return wrap(nest)(depth - 1) end
          got = counted(wait())
          coroutine.yield("never")
        end
        local co = task.spawn(nest, 3)
        wake(co, 1, nil, 3, nil)
        assert.are.same({ n = 4, 1, nil, 3 }, got, name)
        advance(2000)
        assert.are.equal("dead", coroutine.status(co))
      end
    end
  end)

  it("goes on to wait as long as it should after it was resumed by hand", function()
    local list, record = recorder()
    local start = scheduler.now()
    local co = task.spawn(function()
      each(wrap(function()
        record(task.wait(1))
        task.wait(2)
        coroutine.yield(virtual.since(start))
        task.yield()
        task.yield()
        coroutine.yield("end")
      end), record)
    end)
    coroutine.resume(co, "early")
    advance(5000)
    assert.are.same({ "early", 2000, "end" }, list)
  end)

  it("is left alone where its task is cancelled, and does not keep the loop", function()
    local list, record = recorder()
    local inner
    local co = task.spawn(function()
      wrap(function()
        inner = coroutine.running()
        task.wait(1)
        record("went on")
      end)()
    end)
    task.cancel(co)
    assert.is_false(scheduler.poll())
    assert.are.equal(0, scheduler.stats().timers_pending)
    advance(2000)
    assert.are.same({}, list)
    assert.are.equal("suspended", coroutine.status(inner))
  end)

  it("may be gone on with by another task", function()
    local list, record = recorder()
    local generate = wrap(function()
      for i = 1, 4 do
        task.wait(0.001)
        coroutine.yield(i)
      end
    end)
    for _, name in ipairs({ "a", "b" }) do
      task.delay(name == "a" and 0 or 0.01, function()
        record(name .. generate())
        record(name .. generate())
      end)
    end
    advance(100)
    assert.are.same({ "a1", "a2", "b3", "b4" }, list)
  end)

  it("works on the main thread, where it turns the loop", function()
    scheduler.clock.resume()
    local list, record = recorder()
    scheduler.setTimeout(record, 1, "timer")
    for value in wrap(function()
      for i = 1, 2 do
        task.wait(0.003)
        coroutine.yield(i)
        task.yield()
        task.wait()
      end
    end) do
      record(value)
    end
    assert.are.same({ "timer", 1, 2 }, list)
    local joined = wrap(function()
      return task.join(task.delay(0.001, function()
        return "joined"
      end))
    end)
    assert.are.equal("joined", joined())
    local nested = wrap(function()
      return wrap(function()
        task.wait(0.001)
        return "nested"
      end)()
    end)
    assert.are.equal("nested", nested())
  end)

  it("on the main thread raises where nothing could end its wait", function()
    local ok, message = pcall(wrap(function()
      task.wait(1)
    end))
    assert.is_false(ok)
    assert.matches("nothing is left that could end this wait", message)
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("takes callable tables, and refuses what cannot be called", function()
    local callable = setmetatable({}, {
      __call = function(self, ...)
        task.wait()
        return self, ...
      end,
    })
    local got
    task.spawn(function()
      got = counted(wrap(callable)(1, nil))
    end)
    scheduler.poll()
    assert.are.same({ n = 3, callable, 1 }, got)
    for _, value in ipairs({ 1, "f", {}, true }) do
      local ok, message = pcall(wrap, value)
      assert.is_false(ok)
      local expected = ("bad argument #1 to 'wrap' (function expected, got %s)"):format(type(value))
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    assert.is_false(pcall(wrap))
  end)

  it("passes values on that only look like waits, or fail to be compared", function()
    local failing = setmetatable({}, { __eq = function() error("in __eq") end })
    local list, record = recorder()
    local errors = uncaught(function()
      task.spawn(function()
        local generate = wrap(function()
          coroutine.yield(scheduler.pending)
          coroutine.yield(failing)
        end)
        record(generate())
        record(generate())
      end)
      scheduler.poll()
    end)
    assert.are.same({}, errors)
    assert.are.equal(scheduler.pending, list[1])
    assert.is_true(rawequal(failing, list[2]))
  end)
end)

describe("scheduler.coroutine.resume", function()
  virtual.setup(before_each, after_each)

  it("is that of Lua for a coroutine that may wait", function()
    local results, record = recorder()
    task.spawn(function()
      local co = coroutine.create(function(...)
        task.wait(1)
        local back = counted(coroutine.yield(...))
        task.wait(1)
        if back.n == 2 then error("boom", 0) end
      end)
      record(counted(resume(co, 1, nil)))
      record(coroutine.status(co))
      record(counted(resume(co, nil, nil)))
      record(coroutine.status(co))
      record(counted(resume(co)))
    end)
    advance(5000)
    assert.are.same({ true, 1, n = 3 }, results[1])
    assert.are.equal("suspended", results[2])
    assert.are.same({ false, "boom", n = 2 }, results[3])
    assert.are.equal("dead", results[4])
    assert.are.same({ false, "cannot resume dead coroutine", n = 2 }, results[5])
  end)

  it("refuses what is no coroutine", function()
    for _, value in ipairs({ 1, "co", {}, ignore }) do
      local ok, message = pcall(resume, value)
      assert.is_false(ok)
      local expected = ("bad argument #1 to 'resume' (coroutine expected, got %s)"):format(type(value))
      assert.is_truthy(message:find(expected, 1, true), message)
    end
  end)
end)
