local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task, scope, timeout = scheduler.task, scheduler.scope, scheduler.timeout
local advance, recorder = virtual.advance, virtual.recorder
local protected = scheduler.pcall

local function ignore() end

--- A semaphore of which no permit is left.
local function taken(size)
  local semaphore = scheduler.semaphore(size or 1)
  for _ = 1, size or 1 do
    semaphore:acquire()
  end
  return semaphore
end

--- Starts a task that takes a permit, notes its name, and gives the permit back.
local function start_waiter(semaphore, name, record)
  return task.spawn(function()
    if semaphore:acquire() ~= true then return end
    record(name)
    semaphore:release()
  end)
end

describe("a semaphore", function()
  virtual.setup(before_each, after_each)

  it("has as many permits as it was made with", function()
    local semaphore = scheduler.semaphore(2)
    assert.are.equal(2, semaphore:available())
    assert.is_true(semaphore:acquire())
    assert.are.equal(1, semaphore:available())
    assert.is_true(semaphore:try_acquire())
    assert.are.equal(0, semaphore:available())
    assert.is_false(semaphore:try_acquire())
    semaphore:release()
    assert.are.equal(1, semaphore:available())
    semaphore:release()
    assert.are.equal(2, semaphore:available())
  end)

  it("refuses a size that is no whole number of at least 1", function()
    for _, case in ipairs({
      { "nil" }, { "string", "1" }, { "table", {} },
      { "0", 0 }, { "%-1", -1 }, { "1.5", 1.5 }, { "%-?[Nn]a[Nn]", 0 / 0 },
    }) do
      local ok, message = pcall(scheduler.semaphore, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'semaphore' %(whole number of at least 1 expected, got " .. case[1], message)
    end
    assert.are.equal(math.huge, scheduler.semaphore(math.huge):available())
  end)

  it("refuses to be released more often than it was acquired, and has no more permits then", function()
    local semaphore = scheduler.semaphore(1)
    local _, message = pcall(function()
      semaphore:release()
    end)
    assert.matches("^[^\n]*semaphore_spec%.lua:%d+: the semaphore is released more often than it was acquired", message)
    assert.are.equal(1, semaphore:available())
    semaphore:acquire()
    semaphore:release()
    assert.is_false(pcall(semaphore.release, semaphore))
    assert.are.equal(1, semaphore:available())
  end)

  it("lets no more tasks than permits run at a time", function()
    local semaphore, running, most, ended = scheduler.semaphore(3), 0, 0, 0
    for i = 1, 100 do
      task.spawn(function()
        semaphore:acquire()
        running = running + 1
        most = math.max(most, running)
        task.wait(i % 7 / 1000)
        running = running - 1
        ended = ended + 1
        semaphore:release()
      end)
    end
    advance(1000)
    assert.are.equal(3, most)
    assert.are.equal(100, ended)
    assert.are.equal(3, semaphore:available())
  end)

  it("gives permits in the order in which they were asked for", function()
    local list, record = recorder()
    local semaphore = taken()
    for i = 1, 5 do
      start_waiter(semaphore, i, record)
    end
    semaphore:release()
    advance(0)
    assert.are.same({ 1, 2, 3, 4, 5 }, list)
    assert.are.equal(1, semaphore:available())
  end)

  it("does not let anybody push in front of one that waits", function()
    local list, record = recorder()
    local semaphore = taken()
    start_waiter(semaphore, "waits", record)
    semaphore:release()
    assert.is_false(semaphore:try_acquire())
    assert.are.equal(0, semaphore:available())
    start_waiter(semaphore, "comes later", record)
    advance(0)
    assert.are.same({ "waits", "comes later" }, list)
  end)

  it("gives several permits that are released at once to as many", function()
    local list, record = recorder()
    local semaphore = taken(3)
    for i = 1, 4 do
      task.spawn(function()
        semaphore:acquire()
        record(i)
      end)
    end
    semaphore:release()
    semaphore:release()
    advance(0)
    assert.are.same({ 1, 2 }, list)
    semaphore:release()
    semaphore:release()
    advance(0)
    assert.are.same({ 1, 2, 3, 4 }, list)
  end)

  it("may be waited for on the main thread, which says so if nobody can release it", function()
    scheduler.clock.resume()
    local semaphore = taken()
    scheduler.setTimeout(function()
      semaphore:release()
    end, 1)
    assert.is_true(semaphore:acquire())
    local ok, message = pcall(semaphore.acquire, semaphore)
    assert.is_false(ok)
    assert.matches("nothing is left that could end this wait", message)
    assert.are.equal(2, select("#", semaphore:acquire(0.001)))
    semaphore:release()
    assert.are.equal(1, semaphore:available())
  end)

  it("may be waited for in a generator", function()
    local list, record = recorder()
    local semaphore = taken()
    task.spawn(function()
      scheduler.coroutine.wrap(function()
        record(semaphore:acquire(1))
      end)()
      record(semaphore:acquire(1))
    end)
    semaphore:release()
    advance(1000)
    assert.are.same({ true, false }, list)
  end)
end)

describe("acquire with a timeout", function()
  virtual.setup(before_each, after_each)

  it("returns false and 'timeout' at its time", function()
    local semaphore, start, ended = taken(), scheduler.now(), nil
    local result = attempt.start(function()
      local ok, why = semaphore:acquire(0.25)
      ended = virtual.since(start)
      return ok, why
    end)
    advance(1000)
    assert.are.equal(250, ended)
    assert.is_false(result[1])
    assert.are.equal("timeout", result[2])
  end)

  it("returns true, and leaves no timer, when a permit is there or comes in time", function()
    local semaphore = scheduler.semaphore(1)
    assert.is_true(semaphore:acquire(0))
    local result = attempt.start(semaphore.acquire, semaphore, 10)
    semaphore:release()
    advance(0)
    assert.are.same({ 1, true }, { result.n, result[1] })
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("of 0 or less waits until the next turn, of math.huge for ever", function()
    for _, seconds in ipairs({ 0, -1, -math.huge }) do
      local semaphore = taken()
      local result = attempt.start(semaphore.acquire, semaphore, seconds)
      advance(0)
      assert.is_false(result[1])
    end
    local semaphore = taken()
    local result = attempt.start(semaphore.acquire, semaphore, math.huge)
    advance(1e8)
    assert.is_nil(result.ended)
    semaphore:release()
    advance(0)
    assert.is_true(result[1])
  end)

  it("refuses one that is no number, and takes no permit", function()
    local semaphore = scheduler.semaphore(1)
    for _, case in ipairs({ { "string", "1" }, { "table", {} }, { "boolean", true }, { "NaN", 0 / 0 } }) do
      local ok, message = pcall(semaphore.acquire, semaphore, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'acquire' %(number expected, got " .. case[1] .. "%)", message)
    end
    assert.are.equal(1, semaphore:available())
  end)

  it("that strikes at the moment of the release: what comes first counts, and the permit is not lost", function()
    local list, record = recorder()
    local semaphore = taken()
    local function release()
      semaphore:release()
    end
    scheduler.setTimeout(release, 1000)
    local before = attempt.start(semaphore.acquire, semaphore, 1)
    start_waiter(semaphore, "second", record)
    advance(1000)
    assert.is_true(before[1])
    assert.are.same({}, list)
    semaphore:release()
    advance(0)
    assert.are.same({ "second" }, list)

    semaphore:acquire()
    local after = attempt.start(semaphore.acquire, semaphore, 1)
    start_waiter(semaphore, "next", record)
    scheduler.setTimeout(release, 1000)
    advance(1000)
    assert.is_false(after[1])
    assert.are.same({ "second", "next" }, list)
    assert.are.equal(1, semaphore:available())
  end)

  it("that has struck does not take the permit that comes later", function()
    local list, record = recorder()
    local semaphore = taken()
    local results = {}
    for i = 1, 3 do
      results[i] = attempt.start(semaphore.acquire, semaphore, 0.01)
    end
    start_waiter(semaphore, "patient", record)
    advance(10)
    for i = 1, 3 do
      assert.are.equal("timeout", results[i][2])
    end
    semaphore:release()
    advance(0)
    assert.are.same({ "patient" }, list)
    assert.are.equal(1, semaphore:available())
  end)
end)

describe("a task that waits for a permit and leaves", function()
  virtual.setup(before_each, after_each)

  for name, start in pairs(attempt.leavings) do
    it("by " .. name .. " leaves no hole: the next gets the permit", function()
      local list, record = recorder()
      local semaphore = taken()
      start_waiter(semaphore, "first", record)
      local leave = start(function()
        semaphore:acquire()
      end)
      start_waiter(semaphore, "third", record)
      leave()
      advance(0)
      semaphore:release()
      advance(0)
      assert.are.same({ "first", "third" }, list)
      assert.are.equal(1, semaphore:available())
    end)

    it("by " .. name .. " in the turn of the release, before it, swallows no wake-up", function()
      local list, record = recorder()
      local semaphore = taken()
      local leave = start(function()
        if semaphore:acquire() == true then semaphore:release() end
      end)
      start_waiter(semaphore, "second", record)
      leave()
      semaphore:release()
      advance(0)
      assert.are.same({ "second" }, list)
      assert.are.equal(1, semaphore:available())
    end)

    it("by " .. name .. " when it was woken already swallows no wake-up", function()
      local list, record = recorder()
      local semaphore = taken()
      local leave = start(function()
        if semaphore:acquire() == true then semaphore:release() end
      end)
      start_waiter(semaphore, "second", record)
      start_waiter(semaphore, "third", record)
      semaphore:release()
      leave()
      advance(0)
      assert.are.same({ "second", "third" }, list)
      assert.are.equal(1, semaphore:available())
    end)

    it("by " .. name .. " when it was woken already, alone, gives the permit back", function()
      local semaphore = taken()
      local leave = start(function()
        if semaphore:acquire() == true then semaphore:release() end
      end)
      semaphore:release()
      leave()
      advance(0)
      assert.are.equal(1, semaphore:available())
    end)
  end

  it("by a timeout around it swallows no wake-up, whichever comes first", function()
    for _, release_first in ipairs({ true, false }) do
      local list, record = recorder()
      local semaphore = taken()
      local function release_later()
        scheduler.setTimeout(function()
          semaphore:release()
        end, 1000)
      end
      if release_first then release_later() end
      local result = attempt.start(timeout, 1, function()
        local ok = semaphore:acquire()
        semaphore:release()
        return ok
      end)
      start_waiter(semaphore, "second", record)
      if not release_first then release_later() end
      advance(1000)
      assert.are.equal(release_first, result.ok)
      assert.are.same({ "second" }, list)
      assert.are.equal(1, semaphore:available())
    end
  end)

  it("resumed by hand goes on with what it was given, and its timer is gone", function()
    local semaphore = taken()
    local given
    local co = task.spawn(function()
      given = { semaphore:acquire(10) }
    end)
    coroutine.resume(co, "by hand", 2)
    assert.are.same({ "by hand", 2 }, given)
    assert.are.equal(0, scheduler.stats().timers_pending)
    semaphore:release()
    assert.are.equal(1, semaphore:available())
  end)

  it("one after the other, each woken before, hand the permit on", function()
    local list, record = recorder()
    local semaphore = taken()
    local waiters = {}
    for i = 1, 5 do
      waiters[i] = start_waiter(semaphore, i, record)
    end
    semaphore:release()
    for i = 1, 4 do
      task.cancel(waiters[i])
    end
    advance(0)
    assert.are.same({ 5 }, list)
    assert.are.equal(1, semaphore:available())
  end)
end)

describe("semaphore:with", function()
  virtual.setup(before_each, after_each)

  it("runs a function with a permit, passes arguments and results, and gives the permit back", function()
    local semaphore, available = scheduler.semaphore(1), nil
    local result = attempt.start(semaphore.with, semaphore, function(...)
      available = semaphore:available()
      task.wait(0.01)
      return select("#", ...), ...
    end, 1, nil, 3, nil)
    advance(10)
    assert.are.equal(0, available)
    assert.are.same({ 5, 4, 1, nil, 3, nil }, { result.n, result[1], result[2], result[3], result[4], result[5] })
    assert.are.equal(1, semaphore:available())
  end)

  it("gives the permit back after an error, which it raises as it is", function()
    local semaphore = scheduler.semaphore(1)
    for _, value in ipairs({ "text", 42, true, {} }) do
      local result = attempt.start(semaphore.with, semaphore, function()
        task.wait(0.01)
        error(value, 0)
      end)
      advance(10)
      assert.are.equal(value, result.err)
      assert.are.equal(1, semaphore:available())
      assert.are.equal(value, select(2, pcall(semaphore.with, semaphore, error, value, 0)))
    end
    assert.are.equal(raised.none, attempt.start(semaphore.with, semaphore, error).err)
    assert.are.equal(1, semaphore:available())
  end)

  for name, start in pairs(attempt.leavings) do
    it("gives the permit back once, after " .. name, function()
      local list, record = recorder()
      local semaphore = scheduler.semaphore(1)
      local leave = start(function()
        semaphore:with(task.wait, 10)
      end)
      start_waiter(semaphore, "next", record)
      leave()
      advance(0)
      assert.are.same({ "next" }, list)
      assert.are.equal(1, semaphore:available())
    end)
  end

  it("gives the permits of calls inside of calls back when the task is cancelled", function()
    local one, two = scheduler.semaphore(1), scheduler.semaphore(2)
    local co = task.spawn(function()
      one:with(function()
        two:with(function()
          two:with(task.wait, 10)
        end)
      end)
    end)
    assert.are.same({ 0, 0 }, { one:available(), two:available() })
    task.cancel(co)
    assert.are.same({ 1, 2 }, { one:available(), two:available() })
  end)

  it("gives the permit back when a task is cancelled that waits inside a generator", function()
    local semaphore = scheduler.semaphore(1)
    local co = task.spawn(function()
      scheduler.coroutine.wrap(function()
        semaphore:with(task.wait, 10)
      end)()
    end)
    task.cancel(co)
    assert.are.equal(1, semaphore:available())
  end)

  it("runs nothing and takes nothing when it is resumed by hand while it waits, whatever it is given", function()
    for _, value in ipairs({ "by hand", true }) do
      local semaphore = taken()
      local ran = false
      local co = coroutine.create(function()
        semaphore:with(function()
          ran = true
        end)
      end)
      coroutine.resume(co)
      local ok, message = coroutine.resume(co, value)
      assert.is_false(ok)
      assert.matches("resumed by hand while it waited for a permit", message)
      assert.is_false(ran)
      assert.are.equal(0, semaphore:available())
    end
  end)

  it("ends a cancelled task that is resumed by hand with the cancellation, where Lua lets that run", function()
    local semaphore = scheduler.semaphore(1)
    local co = task.spawn(semaphore.with, semaphore, task.wait, 10)
    task.cancel(co)
    local ok, err = coroutine.resume(co)
    assert.is_false(ok)
    assert.is_true(type(err) == "table" and err.kind == "cancelled" or err == "cannot resume dead coroutine", err)
    assert.are.equal(1, semaphore:available())
  end)

  it("works on the main thread", function()
    scheduler.clock.resume()
    local semaphore = scheduler.semaphore(1)
    assert.are.equal("result", semaphore:with(function()
      task.wait(0.001)
      return "result"
    end))
    assert.are.equal(1, semaphore:available())
  end)

  it("takes no permit in a task that is cancelled, if it has to wait", function()
    local semaphore = taken()
    local ran, kind = false, nil
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        protected(task.wait, 10)
        local ok, err = protected(semaphore.with, semaphore, function()
          ran = true
        end)
        kind = not ok and err.kind
      end)
      s:cancel()
    end)
    advance(0)
    assert.is_true(result.ok)
    assert.is_false(ran)
    assert.are.equal("cancelled", kind)
    semaphore:release()
    assert.are.equal(1, semaphore:available())
  end)

  it("refuses what cannot be called, and takes no permit", function()
    local semaphore = scheduler.semaphore(1)
    for _, value in ipairs({ 1, "print", {} }) do
      local _, message = pcall(semaphore.with, semaphore, value)
      assert.matches("bad argument #1 to 'with' %(function expected, got " .. type(value) .. "%)", message)
    end
    assert.are.equal(1, semaphore:available())
    semaphore:with(setmetatable({}, { __call = ignore }))
  end)
end)
