local scheduler = require("scheduler")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local task = scheduler.task
local advance, recorder = virtual.advance, virtual.recorder

local function ignore() end

local function keeper()
  local list, record = recorder()
  return list, function(...)
    record({ n = select("#", ...), ... })
  end
end

--- A coroutine that keeps what it is resumed with, again and again.
local function listener(keep)
  return coroutine.create(function(...)
    keep(...)
    while true do
      keep(coroutine.yield())
    end
  end)
end

describe("a task that is resumed before its time", function()
  virtual.setup(before_each, after_each)

  local function starts(keep, ...)
    return { task.delay(1, keep, ...), task.defer(keep, ...) }
  end

  it("runs its function with the arguments it was given and those it is resumed with", function()
    for _, resume in ipairs({ coroutine.resume, task.spawn }) do
      for i = 1, 2 do
        local got, keep = keeper()
        resume(starts(keep, "b")[i], "d")
        resume(starts(keep, "b")[i])
        resume(starts(keep, "b")[i], nil)
        resume(starts(keep)[i], "d", nil)
        resume(starts(keep)[i])
        resume(starts(keep, 1, nil)[i], "x")
        resume(starts(keep, 1, nil)[i])
        resume(starts(keep, nil, nil, 3)[i], nil, nil)
        assert.are.same({
          { n = 2, "b", "d" },
          { n = 1, "b" },
          { n = 2, "b" },
          { n = 2, "d" },
          { n = 0 },
          { n = 3, 1, nil, "x" },
          { n = 2, 1 },
          { n = 5, nil, nil, 3 },
        }, got)
        advance(2000)
      end
    end
  end)

  it("is not run again at its time, and the timer is gone", function()
    local got, keep = keeper()
    local delayed, deferred = task.delay(1, keep, "delayed"), task.defer(keep, "deferred")
    coroutine.resume(delayed)
    task.spawn(deferred)
    assert.are.equal(0, scheduler.stats().timers_pending)
    advance(2000)
    assert.are.same({ { n = 1, "delayed" }, { n = 1, "deferred" } }, got)
  end)

  it("is not woken from a later yield or wait at its time", function()
    local got, keep = keeper()
    local start = scheduler.now()
    local function body()
      keep(coroutine.yield())
      task.wait(3)
      keep(virtual.since(start))
    end
    local cos = { task.delay(1, body), task.defer(body) }
    for _, co in ipairs(cos) do
      coroutine.resume(co)
    end
    advance(2000)
    assert.are.same({}, got)
    for _, co in ipairs(cos) do
      coroutine.resume(co, "by hand")
    end
    advance(3000)
    assert.are.same({ { n = 1, "by hand" }, { n = 1, "by hand" }, { n = 1, 5000 }, { n = 1, 5000 } }, got)
  end)

  it("gives coroutine.resume what the function returns or yields, or its error", function()
    local function body(...)
      coroutine.yield(1, nil)
      return ...
    end
    local co = task.delay(1, body, "a")
    assert.are.equal(3, select("#", coroutine.resume(co, "b")))
    assert.are.same({ true, "a", "b" }, { coroutine.resume(co) })
    co = task.delay(1, error, "boom", 0)
    assert.are.same({ false, "boom" }, { coroutine.resume(co) })
  end)

  it("runs in the coroutine that was returned", function()
    local inside
    local co = task.delay(1, function()
      inside = coroutine.running()
    end)
    coroutine.resume(co)
    assert.are.equal(co, inside)
  end)

  it("may be deferred or delayed anew", function()
    local got, keep = keeper()
    local co = task.delay(1, keep, "b")
    task.delay(2, co, "d")
    advance(1000)
    assert.are.same({}, got)
    advance(1000)
    assert.are.same({ { n = 2, "b", "d" } }, got)
    co = task.defer(keep, "b")
    task.defer(co, "e")
    scheduler.poll()
    assert.are.same({ n = 2, "b", "e" }, got[2])
    advance(5000)
    assert.are.equal(2, #got)
  end)
end)

describe("a wait that is resumed by hand", function()
  virtual.setup(before_each, after_each)

  local function waits()
    return {
      wait = function() return task.wait(1) end,
      next_turn = function() return task.wait() end,
      yield = function() return task.yield() end,
      join = function() return task.join(task.delay(1, ignore)) end,
    }
  end

  it("returns what was passed, with its count", function()
    for _, resume in ipairs({ coroutine.resume, task.spawn }) do
      for name, wait in pairs(waits()) do
        local got, keep = keeper()
        local function body()
          keep(wait())
        end
        resume(task.spawn(body))
        resume(task.spawn(body), nil)
        resume(task.spawn(body), "x")
        resume(task.spawn(body), 1, nil, 3, nil)
        resume(task.spawn(body), false)
        assert.are.same({ { n = 0 }, { n = 1 }, { n = 1, "x" }, { n = 4, 1, nil, 3 }, { n = 1, false } }, got, name)
        advance(2000)
        assert.are.equal(5, #got)
      end
    end
  end)

  it("does not wake the coroutine later, whatever it does then", function()
    for _, resume in ipairs({ coroutine.resume, task.spawn }) do
      for name, wait in pairs(waits()) do
        local got, keep = keeper()
        local co = task.spawn(function()
          keep(wait())
          keep(coroutine.yield())
        end)
        resume(co, "early")
        advance(5000)
        assert.are.same({ { n = 1, "early" } }, got, name)
        assert.are.equal("parked", task.status(co))
        resume(co, "again")
        assert.are.same({ n = 1, "again" }, got[2])
      end
    end
  end)

  it("takes nothing from the waits that follow", function()
    for _, resume in ipairs({ coroutine.resume, task.spawn }) do
      for name, wait in pairs(waits()) do
        local got, keep = keeper()
        local start = scheduler.now()
        resume(task.spawn(function()
          keep(wait())
          task.wait(3)
          keep(virtual.since(start))
          keep(task.yield())
          keep(task.yield())
          task.wait()
          task.wait()
          keep("end")
        end), "early")
        advance(5000)
        assert.are.same({ { n = 1, "early" }, { n = 1, 3000 }, { n = 0 }, { n = 0 }, { n = 1, "end" } }, got, name)
      end
    end
  end)

  it("lets the very next yield or wait for a turn go on", function()
    for _, first in ipairs({ task.wait, task.yield }) do
      for _, second in ipairs({ task.wait, task.yield }) do
        for _, resume in ipairs({ coroutine.resume, task.spawn }) do
          local list, record = recorder()
          local co = task.spawn(function()
            record(first())
            second()
            record("second")
            second()
            record("third")
          end)
          resume(co, "first")
          for _ = 1, 4 do
            scheduler.poll()
          end
          assert.are.same({ "first", "second", "third" }, list)
        end
      end
    end
  end)

  it("over and over leaves nothing behind", function()
    local count = 0
    local co = task.spawn(function()
      while true do
        task.wait(10)
        count = count + 1
      end
    end)
    for _ = 1, 1000 do
      coroutine.resume(co)
    end
    assert.are.equal(1000, count)
    assert.are.equal(1, scheduler.stats().timers_pending)
    task.cancel(co)
  end)

  it("may be passed any value, also one that claims to equal all others", function()
    local equal_to_all = setmetatable({}, { __eq = function() return true end })
    local failing = setmetatable({}, { __eq = function() error("in __eq") end })
    for _, value in ipairs({ equal_to_all, failing }) do
      for name, wait in pairs(waits()) do
        local got, is_second_over
        local co = task.spawn(function()
          got = wait()
          task.wait(3)
          is_second_over = true
        end)
        local ok, failure = coroutine.resume(co, value)
        assert.is_true(ok, failure)
        assert.is_true(rawequal(value, got), name)
        advance(2900)
        assert.is_nil(is_second_over)
        advance(100)
        assert.is_true(is_second_over)
      end
    end
  end)

  it("before its time gives its error to whoever resumed it", function()
    local errors = uncaught(function()
      local co = task.spawn(function()
        error(task.wait(1), 0)
      end)
      assert.are.same({ false, "boom" }, { coroutine.resume(co, "boom") })
      advance(2000)
    end)
    assert.are.same({}, errors)
  end)
end)

describe("a yield of the program's own", function()
  virtual.setup(before_each, after_each)

  it("parks the task until the program resumes it", function()
    local got, keep = keeper()
    local co = task.spawn(function()
      keep(coroutine.yield("to nobody"))
      keep(coroutine.yield())
      return "ended"
    end)
    assert.is_false(scheduler.poll())
    advance(1000)
    assert.are.equal("parked", task.status(co))
    assert.are.same({}, got)
    assert.are.equal(co, task.spawn(co, 1, nil))
    local ok, result = coroutine.resume(co, "x")
    assert.is_true(ok)
    assert.are.equal("ended", result)
    assert.are.same({ { n = 2, 1 }, { n = 1, "x" } }, got)
  end)

  it("gives its values to whoever resumed the task", function()
    local co = task.spawn(function()
      coroutine.yield()
      coroutine.yield(1, nil, 3)
      task.wait()
      coroutine.yield("after the wait")
    end)
    assert.are.same({ true, 1, nil, 3 }, { coroutine.resume(co) })
    assert.are.same({ true, scheduler.pending }, { coroutine.resume(co) })
    scheduler.poll()
    assert.are.equal("parked", task.status(co))
  end)

  it("may yield any value, also one that fails to be compared, or our mark", function()
    local failing = setmetatable({}, { __eq = function() error("in __eq") end })
    for _, value in ipairs({ false, 1, "x", failing, scheduler.pending, ignore }) do
      local list, record = recorder()
      local co = task.spawn(coroutine.yield, value)
      local other = task.spawn(function()
        task.wait()
        coroutine.yield(value)
      end)
      task.defer(record, "goes on")
      local ok, failure = pcall(scheduler.poll)
      assert.is_true(ok, failure)
      assert.are.same({ "goes on" }, list)
      assert.are.equal("parked", task.status(co))
      assert.are.equal("parked", task.status(other))
    end
  end)
end)

describe("a ready-made coroutine", function()
  virtual.setup(before_each, after_each)

  local ways = {
    spawn = task.spawn,
    defer = task.defer,
    delay = function(...)
      return task.delay(0, ...)
    end,
  }

  it("is given the arguments, as parameters or as the results of its yield, and returned", function()
    for name, start in pairs(ways) do
      local got, keep = keeper()
      local co = listener(keep)
      for _ = 1, 2 do
        assert.are.equal(co, start(co, 1, nil, 3, nil))
        scheduler.poll()
        assert.are.equal(co, start(co))
        scheduler.poll()
        start(co, nil)
        scheduler.poll()
      end
      local expected = { { n = 4, 1, nil, 3 }, { n = 0 }, { n = 1 } }
      for i = 1, 3 do
        expected[i + 3] = expected[i]
      end
      assert.are.same(expected, got, name)
    end
  end)

  it("gets its arguments at its time, and when it is resumed before what it is resumed with", function()
    local got, keep = keeper()
    local co = task.delay(1, listener(keep), "kept")
    assert.are.same({}, got)
    advance(1000)
    assert.are.same({ { n = 1, "kept" } }, got)
    task.delay(1, co, "dropped")
    coroutine.resume(co, "by hand")
    advance(2000)
    task.defer(co, "dropped")
    task.spawn(co, "by hand")
    advance(2000)
    assert.are.same({ { n = 1, "kept" }, { n = 1, "by hand" }, { n = 1, "by hand" } }, got)
  end)

  it("may wait, and may be one that waits", function()
    local got, keep = keeper()
    local co = coroutine.create(function(...)
      keep(...)
      keep(task.wait(1))
      keep(task.wait(1) > 0.9)
    end)
    task.spawn(co, "x")
    task.defer(co, "instead")
    scheduler.poll()
    advance(1000)
    assert.are.same({ { n = 1, "x" }, { n = 1, "instead" }, { n = 1, true } }, got)
  end)

  it("that waits and is scheduled goes on at that time only", function()
    for _, seconds in ipairs({ 0.5, 2 }) do
      local list, record = recorder()
      local start = scheduler.now()
      local co = task.spawn(function()
        record(task.wait(1))
        record(virtual.since(start))
        coroutine.yield()
        record("never")
      end)
      task.delay(seconds, co, "scheduled")
      advance(5000)
      assert.are.same({ "scheduled", seconds * 1000 }, list)
    end
  end)

  it("that gave way and is scheduled goes on at that time only, and later waits go on", function()
    for _, wait in ipairs({ task.wait, task.yield }) do
      local list, record = recorder()
      local start = scheduler.now()
      local co = task.spawn(function()
        record(wait())
        record(virtual.since(start))
        wait()
        wait()
        record("end")
      end)
      task.delay(1, co, "scheduled")
      advance(5000)
      assert.are.same({ "scheduled", 1000, "end" }, list)
    end
  end)

  it("is scheduled once: the last time counts", function()
    local got, keep = keeper()
    local co = listener(keep)
    task.delay(1, co, "first")
    task.delay(2, co, "second")
    advance(3000)
    task.delay(1, co, "third")
    task.defer(co, "fourth")
    task.defer(co, "fifth")
    advance(3000)
    task.defer(co, "sixth")
    task.spawn(co, "seventh")
    advance(3000)
    assert.are.same({ { n = 1, "second" }, { n = 1, "fifth" }, { n = 1, "seventh" } }, got)
  end)

  it("that was resumed by hand meanwhile, and waits, is not disturbed by its schedule", function()
    local list, record = recorder()
    local start = scheduler.now()
    local co = coroutine.create(function(...)
      record(...)
      task.wait(5)
      record(virtual.since(start))
    end)
    task.delay(1, co, "scheduled")
    coroutine.resume(co, "by hand")
    advance(10000)
    assert.are.same({ "by hand", 5000 }, list)
  end)

  it("that has ended or was closed meanwhile is left alone", function()
    local errors = uncaught(function()
      for _, start in pairs(ways) do
        local co = coroutine.create(function() end)
        if start ~= task.spawn then start(co) end
        coroutine.resume(co)
        scheduler.poll()
      end
      if coroutine.close then -- luacheck: ignore 143
        local cos = { task.spawn(task.wait, 1), task.spawn(task.wait), task.spawn(task.yield), task.delay(1, ignore),
          task.defer(ignore), task.spawn(task.join, task.spawn(task.wait, 1)) }
        for _, co in ipairs(cos) do
          coroutine.close(co) -- luacheck: ignore 143
        end
        advance(2000)
      end
    end)
    assert.are.same({}, errors)
  end)

  it("may defer or delay itself, and then yields", function()
    for name, start in pairs({ defer = ways.defer, delay = ways.delay }) do
      local got, keep = keeper()
      task.spawn(function()
        for i = 1, 3 do
          start(coroutine.running(), i, nil)
          keep(coroutine.yield())
        end
      end)
      for _ = 1, 3 do
        scheduler.poll()
      end
      assert.are.same({ { n = 2, 1 }, { n = 2, 2 }, { n = 2, 3 } }, got, name)
    end
  end)

  it("that is dead, running or waiting for one that it resumed is refused", function()
    local dead = coroutine.create(function() end)
    coroutine.resume(dead)
    local function refused(name, co, what)
      local position = name == "delay" and 2 or 1
      local function call()
        if name == "delay" then return task.delay(1, co) end
        task[name](co)
      end
      local ok, message = pcall(call)
      assert.is_false(ok)
      local expected = ("bad argument #%d to '%s' (the coroutine is %s)"):format(position, name, what)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    for name in pairs(ways) do
      refused(name, dead, "dead")
      refused(name, task.spawn(ignore), "dead")
    end
    local went_on = 0
    task.spawn(function()
      local outer = coroutine.running()
      refused("spawn", outer, "running")
      task.spawn(function()
        refused("spawn", outer, "waiting for one that it resumed")
        went_on = went_on + 1
      end)
      went_on = went_on + 1
    end)
    assert.are.equal(2, went_on)
    assert.are.equal(0, scheduler.stats().timers_pending)
    assert.is_false(scheduler.poll())
  end)

  it("that fails is reported, with where it was made a task", function()
    for name, start in pairs({ spawn = ways.spawn, defer = ways.defer }) do
      local line
      local errors = uncaught(function()
        local co = coroutine.create(function()
          error("boom")
        end)
        line = debug.getinfo(1, "l").currentline + 1
        start(co)
        scheduler.poll()
      end)
      assert.are.equal(1, #errors, name)
      assert.matches("resumption_spec%.lua:%d+: boom$", errors[1].err)
      assert.matches("^a task spawned at .*resumption_spec%.lua:" .. line .. "$", errors[1].source)
    end
  end)
end)
