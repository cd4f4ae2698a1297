local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local task = scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local close = coroutine.close -- luacheck: ignore 143

local function ignore() end

--- Compiles code that only some versions can parse; nil where it cannot be.
local function compiled(code)
  local load = loadstring or load -- luacheck: ignore 113
  return load(code)
end

--- A function that runs `fn(...)` with a `<close>` variable for which `on_close(err)` is called; nil before Lua 5.4.
local guarding = compiled([[
  local on_close, fn = ...
  return function(...)
    local guard <close> = setmetatable({}, { __close = function(_, err) on_close(err) end })
    return fn(...)
  end
]])

--- Tasks in each of the states in which a task can be cancelled, by name; `record` is called if they go on.
local function suspended_tasks(record)
  local function spawned(wait)
    return task.spawn(function()
      wait()
      record("went on")
      task.wait(1)
      record("went on further")
    end)
  end
  local other = task.spawn(function()
    task.wait(1)
  end)
  local fresh = coroutine.create(record)
  local parked = task.spawn(function()
    coroutine.yield()
    record("went on")
  end)
  task.delay(1, parked)
  return {
    delayed = task.delay(1, record, "ran"),
    deferred = task.defer(record, "ran"),
    waiting = spawned(function() task.wait(1) end),
    next_turn = spawned(task.wait),
    gave_way = spawned(task.yield),
    joining = spawned(function() task.join(other) end),
    parked = spawned(coroutine.yield),
    fresh = coroutine.create(record),
    fresh_and_delayed = task.delay(1, fresh, "ran"),
    fresh_and_deferred = task.defer(coroutine.create(record), "ran"),
    parked_and_delayed = parked,
    for_ever = spawned(function() task.wait(math.huge) end),
  }
end

--- Runs what is left of the tasks above.
local function finish()
  advance(2000)
end

describe("cancel", function()
  virtual.setup(before_each, after_each)

  it("keeps a task from ever going on, whatever it waits for", function()
    local list, record = recorder()
    local errors = uncaught(function()
      for _, co in pairs(suspended_tasks(record)) do
        assert.are.equal(0, select("#", task.cancel(co)))
        assert.are.equal("cancelled", task.status(co))
      end
      advance(5000)
    end)
    assert.are.same({}, list)
    assert.are.same({}, errors)
  end)

  it("takes its timer and its place, so that it does not keep the loop", function()
    for _, co in pairs(suspended_tasks(ignore)) do
      task.cancel(co)
    end
    finish()
    local parked = task.spawn(coroutine.yield)
    for _, start in ipairs({
      function() return task.delay(1, ignore) end,
      function() return task.spawn(task.wait, 1) end,
      function() return task.delay(1, coroutine.create(function() end)) end,
      function() return task.spawn(task.join, parked) end,
    }) do
      local co = start()
      task.cancel(co)
      assert.are.equal(0, scheduler.stats().timers_pending)
      assert.are.equal(0, scheduler.stats().tasks_waiting)
      assert.is_false(scheduler.poll())
    end
  end)

  it("lets go of the task, its function and its arguments", function()
    local names = {}
    for name, co in pairs(suspended_tasks(ignore)) do
      names[#names + 1] = name
      task.cancel(co)
    end
    for _, name in ipairs(names) do
      local is_released = memory.is_released(function()
        local argument = {}
        local tasks = suspended_tasks(function() return argument end)
        for _, co in pairs(tasks) do
          task.cancel(co)
        end
        return tasks[name], argument
      end)
      assert.is_true(is_released, name)
    end
    finish()
  end)

  it("of a task that waits for a job drops the wait", function()
    local list, record = recorder()
    local co = task.spawn(function()
      scheduler.await(scheduler.parallel.run(function() end))
      record("went on")
    end)
    task.cancel(co)
    scheduler.clock.resume()
    scheduler.run()
    assert.are.same({}, list)
    assert.are.equal(0, scheduler.stats().tasks_waiting)
  end)

  it("makes coroutine.resume fail where Lua can express it, and runs nothing", function()
    local list, record = recorder()
    local can_always = { delayed = true, deferred = true, waiting = true, next_turn = true, gave_way = true,
      joining = true, for_ever = true }
    for name, co in pairs(suspended_tasks(record)) do
      task.cancel(co)
      if close or can_always[name] then
        assert.is_false(coroutine.resume(co), name)
        assert.are.equal("dead", coroutine.status(co))
        assert.are.equal("cancelled", task.status(co))
      end
    end
    finish()
    assert.are.same({}, list)
  end)

  it("makes spawn, defer and delay refuse it", function()
    for name, co in pairs(suspended_tasks(ignore)) do
      task.cancel(co)
      for _, start in ipairs({ task.spawn, task.defer, function(f) task.delay(1, f) end }) do
        local ok, message = pcall(start, co)
        assert.is_false(ok, name)
        assert.matches("the coroutine is cancelled", message)
      end
    end
    finish()
  end)

  it("keeps a task that goes on in spite of it, resumed by hand, from waiting", function()
    local list, record = recorder()
    local function wait_again()
      for _, wait in ipairs({ task.wait, task.yield, function() task.wait(0.001) end }) do
        record(scheduler.pcall(wait))
      end
      record("ended")
    end
    for _, before in ipairs({ coroutine.yield, function() scheduler.pcall(task.wait, 1) end }) do
      local co = task.spawn(function()
        before()
        wait_again()
      end)
      task.cancel(co)
      coroutine.resume(co)
    end
    local count = #list
    finish()
    assert.are.equal(count, #list)
    for i = 1, count do
      assert.are.equal(i % 4 == 0 and "ended", list[i])
    end
  end)

  it("of one that is dead or cancelled does nothing", function()
    local errors = uncaught(function()
      local parked = task.spawn(coroutine.yield)
      for _ = 1, 3 do
        task.cancel(parked)
      end
      local done, failed = task.spawn(ignore), task.spawn(error, "x")
      task.cancel(done)
      task.cancel(failed)
      assert.are.equal("done", task.status(done))
      assert.are.equal("failed", task.status(failed))
    end)
    assert.are.equal(1, #errors)
  end)

  it("of the running one, and of one that waits for what it resumed, raises", function()
    local messages, record = recorder()
    local line
    local outer = task.spawn(function()
      local outer = coroutine.running()
      line = debug.getinfo(1, "l").currentline + 1
      record(select(2, pcall(function() task.cancel(outer) end)))
      task.spawn(function()
        record(select(2, pcall(task.cancel, outer)))
      end)
      coroutine.wrap(function()
        record(select(2, pcall(task.cancel, outer)))
      end)()
      task.wait()
      record("goes on")
    end)
    scheduler.poll()
    local place = "cancel_spec%.lua:" .. line .. ": "
    assert.matches(place .. "bad argument #1 to 'cancel' %(a task cannot cancel itself", messages[1])
    assert.matches("bad argument #1 to 'cancel' %(the coroutine waits for one that it resumed", messages[2])
    assert.matches("bad argument #1 to 'cancel' %(the coroutine waits for one that it resumed", messages[3])
    assert.are.equal("goes on", messages[4])
    assert.are.equal("done", task.status(outer))
  end)

  it("refuses what is no coroutine", function()
    for _, value in ipairs({ 1, "co", {}, ignore, true }) do
      local ok, message = pcall(task.cancel, value)
      assert.is_false(ok)
      local expected = ("bad argument #1 to 'cancel' (coroutine expected, got %s)"):format(type(value))
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    assert.is_false(pcall(task.cancel))
  end)

  it("of another one that is due, ready or deferred in the same turn comes in time", function()
    local list, record = recorder()
    local function pair(start)
      local second
      start(function()
        record("first")
        task.cancel(second)
      end)
      second = start(record, "second")
      start(record, "third")
    end
    pair(function(...) return task.delay(0.001, ...) end)
    advance(1)
    pair(task.defer)
    scheduler.poll()
    pair(function(fn, ...)
      return task.spawn(function(...)
        task.wait()
        fn(...)
      end, ...)
    end)
    scheduler.poll()
    pair(function(fn, ...)
      return task.spawn(function(...)
        task.wait(0.001)
        fn(...)
      end, ...)
    end)
    advance(1)
    assert.are.same({ "first", "third", "first", "third", "first", "third", "first", "third" }, list)
  end)

  it("of one that gave way in the turn in which it is cancelled does not disturb the others", function()
    local list, record = recorder()
    local cos = {}
    for i = 1, 5 do
      cos[i] = task.spawn(function()
        task.yield()
        record(i)
        task.yield()
        record(i)
      end)
    end
    task.cancel(cos[2])
    task.cancel(cos[5])
    scheduler.poll()
    assert.are.same({ 1, 3, 4, 1, 3, 4 }, list)
  end)

  it("by a microtask, a timer or the error handler works as well", function()
    local list, record = recorder()
    local former
    local cos = { task.delay(1, record, 1), task.delay(1, record, 2), task.delay(1, record, 3) }
    former = scheduler.on_error(function()
      task.cancel(cos[3])
    end)
    scheduler.queueMicrotask(task.cancel, cos[1])
    scheduler.setTimeout(task.cancel, 0, cos[2])
    task.defer(error)
    advance(2000)
    scheduler.on_error(former)
    assert.are.same({}, list)
  end)

  it("of many thousands is as if they had never been", function()
    memory.relaxed(function()
      local cos = {}
      for i = 1, 20000 do
        cos[i] = task.spawn(i % 2 == 0 and task.wait or task.yield)
      end
      for i = 1, 20000 do
        task.cancel(cos[i])
      end
    end)
    local woken = 0
    for _ = 1, 100 do
      task.spawn(function()
        task.wait()
        woken = woken + 1
      end)
    end
    for _ = 1, 4 do
      scheduler.poll()
    end
    assert.are.equal(100, woken)
  end)
end)

if not guarding then return end

describe("cancel, where variables can be closed,", function()
  virtual.setup(before_each, after_each)

  it("closes those of a task that is suspended, before it returns", function()
    local list, record = recorder()
    local function closing(wait)
      return guarding(function(err)
        record(err == nil and "closed" or err)
      end, wait)
    end
    for _, wait in ipairs({ task.wait, task.yield, coroutine.yield, function() task.wait(1) end, function()
      task.wait(math.huge)
    end }) do
      task.cancel(task.spawn(closing(wait)))
    end
    assert.are.same({ "closed", "closed", "closed", "closed", "closed" }, list)
    task.cancel(task.delay(1, closing(ignore)))
    assert.are.equal(5, #list)
    scheduler.poll()
  end)

  it("lets the handler cancel and start other tasks", function()
    local list, record = recorder()
    local other = task.delay(1, record, "never")
    local co = task.spawn(guarding(function()
      task.cancel(other)
      task.defer(record, "deferred")
      task.spawn(record, "spawned")
    end, task.wait), 1)
    task.cancel(co)
    advance(1000)
    assert.are.same({ "spawned", "deferred" }, list)
    assert.are.equal("cancelled", task.status(other))
  end)

  it("may be called by the handler for others that do the same, and for one that is being cancelled", function()
    local list, record = recorder()
    local cos = {}
    local errors = uncaught(function()
      for i = 1, 3 do
        cos[i] = task.spawn(guarding(function()
          record(i)
          task.cancel(cos[i % 3 + 1])
          record(i + 10)
        end, task.wait), 1)
      end
      task.cancel(cos[1])
    end)
    assert.are.equal(1, list[1])
    assert.are.equal(2, list[2])
    assert.are.equal(3, list[3])
    for i = 1, 3 do
      assert.are.equal("cancelled", task.status(cos[i]))
      assert.are.equal("dead", coroutine.status(cos[i]))
    end
    -- The third cannot cancel the first, which waits for it; it says so.
    assert.is_true(#errors <= 1)
    advance(2000)
  end)

  it("may be called from a handler while a task ends or fails", function()
    local list, record = recorder()
    local other = task.delay(1, record, "never")
    local errors = uncaught(function()
      task.spawn(guarding(function()
        task.cancel(other)
      end, ignore))
      assert.are.equal("cancelled", task.status(other))
      other = task.delay(1, record, "never")
      task.spawn(guarding(function()
        task.cancel(other)
      end, error), "boom", 0)
      assert.are.equal("cancelled", task.status(other))
      advance(2000)
    end)
    assert.are.same({}, list)
    assert.are.equal(1, #errors)
    assert.are.equal("boom", errors[1].err)
  end)

  it("reports an error of the handler, with the task that it is of, and goes on", function()
    local list, record = recorder()
    local errors = uncaught(function()
      local co = task.spawn(guarding(function()
        error("in the handler", 0)
      end, task.wait), 1)
      task.name(co, "careless")
      task.cancel(co)
      record("goes on")
      assert.are.equal("cancelled", task.status(co))
    end)
    assert.are.same({ "goes on" }, list)
    assert.are.equal(1, #errors)
    assert.are.equal("in the handler", errors[1].err)
    assert.matches("task 'careless' spawned at .*cancel_spec%.lua:%d+", errors[1].source)
  end)

  it("gives an error to a handler that waits, and nothing is left of the wait", function()
    local errors = uncaught(function()
      task.cancel(task.spawn(guarding(function()
        task.wait(1)
      end, task.wait), 1))
      task.cancel(task.spawn(guarding(function()
        task.yield()
      end, task.wait), 1))
      advance(2000)
    end)
    assert.are.equal(2, #errors)
    assert.matches("yield", tostring(errors[1].err))
    assert.matches("yield", tostring(errors[2].err))
  end)

  it("lets joiners know although the handler fails", function()
    local joined
    uncaught(function()
      local co = task.spawn(guarding(error, task.wait), 1)
      task.spawn(function()
        joined = { pcall(task.join, co) }
      end)
      task.cancel(co)
      scheduler.poll()
    end)
    assert.is_false(joined[1])
    assert.are.equal("cancelled", joined[2].kind)
  end)
end)

describe("an error while a variable is closed", function()
  virtual.setup(before_each, after_each)

  it("after another one in the task is not lost", function()
    local closed_with
    local errors = uncaught(function()
      task.spawn(guarding(function(err)
        closed_with = err
        error("in the handler", 0)
      end, error), "in the task", 0)
    end)
    assert.are.equal("in the task", closed_with)
    local is_told = false
    for _, each in ipairs(errors) do
      is_told = is_told or tostring(each.err):find("in the handler", 1, true) ~= nil
    end
    assert.is_true(is_told)
  end)

  it("at the end of a task is the task's", function()
    local errors = uncaught(function()
      local co = task.spawn(guarding(function()
        error("in the handler", 0)
      end, ignore))
      assert.are.equal("failed", task.status(co))
    end)
    assert.are.equal(1, #errors)
    assert.are.equal("in the handler", errors[1].err)
  end)
end)
