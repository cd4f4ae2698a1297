local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")

local task = scheduler.task
local advance, recorder = virtual.advance, virtual.recorder

--- Starts a task that waits for an event and notes its name.
local function start_waiter(event, name, record)
  return task.spawn(function()
    if event:wait() == true then record(name) end
  end)
end

describe("an event", function()
  virtual.setup(before_each, after_each)

  it("is set, and cleared, any number of times", function()
    local event = scheduler.event()
    assert.is_false(event:is_set())
    for _ = 1, 2 do
      event:set()
      event:set()
      assert.is_true(event:is_set())
      assert.is_true(event:wait())
      assert.is_true(event:wait(0))
      event:clear()
      event:clear()
      assert.is_false(event:is_set())
    end
  end)

  it("does not let a task wait that comes after it was set", function()
    local list, record = recorder()
    local event = scheduler.event()
    event:set()
    start_waiter(event, "waiter", record)
    record("after")
    assert.are.same({ "waiter", "after" }, list)
  end)

  it("wakes all that wait, in the order in which they came", function()
    local expected, list, record = {}, recorder()
    local event = scheduler.event()
    for i = 1, 100 do
      expected[i] = i
      start_waiter(event, i, record)
    end
    event:set()
    assert.are.same({}, list)
    advance(0)
    assert.are.same(expected, list)
  end)

  it("has happened for those that wait, also if it is cleared at once", function()
    local list, record = recorder()
    local event = scheduler.event()
    start_waiter(event, "waited", record)
    event:set()
    event:clear()
    local late = start_waiter(event, "late", record)
    advance(0)
    assert.are.same({ "waited" }, list)
    assert.are.equal("waiting", task.status(late))
    event:set()
    advance(0)
    assert.are.same({ "waited", "late" }, list)
  end)

  it("is waited for again by one that was woken, if it is cleared in between", function()
    local event, rounds = scheduler.event(), 0
    local co = task.spawn(function()
      while true do
        event:wait()
        event:clear()
        rounds = rounds + 1
      end
    end)
    for i = 1, 3 do
      event:set()
      advance(0)
      assert.are.equal(i, rounds)
    end
    task.cancel(co)
  end)

  it("may be waited for on the main thread, in a generator, and in a callback", function()
    scheduler.clock.resume()
    local list, record = recorder()
    local event = scheduler.event()
    task.spawn(function()
      record(scheduler.coroutine.wrap(event.wait)(event))
    end)
    scheduler.setTimeout(function()
      record(event:wait())
    end)
    scheduler.setTimeout(function()
      event:set()
    end, 1)
    assert.is_true(event:wait())
    scheduler.run()
    assert.are.same({ true, true }, list)
    event:clear()
    local ok, message = pcall(event.wait, event)
    assert.is_false(ok)
    assert.matches("nothing is left that could end this wait", message)
    assert.are.same({ false, "timeout" }, { event:wait(0.001) })
  end)
end)

describe("event:wait with a timeout", function()
  virtual.setup(before_each, after_each)

  it("returns false and 'timeout' at its time, or true before", function()
    local event, start, ended = scheduler.event(), scheduler.now(), nil
    local late = attempt.start(function()
      local ok, why = event:wait(0.25)
      ended = virtual.since(start)
      return ok, why
    end)
    local patient = attempt.start(event.wait, event, 10)
    advance(1000)
    assert.are.equal(250, ended)
    assert.are.same({ false, "timeout" }, { late[1], late[2] })
    event:set()
    advance(0)
    assert.are.same({ 1, true }, { patient.n, patient[1] })
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("of 0 or less waits until the next turn, of math.huge for ever", function()
    local event = scheduler.event()
    local results = {}
    for i, seconds in ipairs({ 0, -1, -math.huge, math.huge }) do
      results[i] = attempt.start(event.wait, event, seconds)
    end
    advance(1e8)
    assert.are.same({ false, false, false }, { results[1][1], results[2][1], results[3][1] })
    assert.is_nil(results[4].ended)
    event:set()
    advance(0)
    assert.is_true(results[4][1])
  end)

  it("that strikes at the moment of the event: what comes first counts", function()
    for _, set_first in ipairs({ true, false }) do
      local event = scheduler.event()
      local function set_later()
        scheduler.setTimeout(event.set, 1000, event)
      end
      if set_first then set_later() end
      local result = attempt.start(event.wait, event, 1)
      if not set_first then set_later() end
      advance(1000)
      assert.are.equal(set_first, result[1])
    end
  end)

  it("refuses one that is no number", function()
    local event = scheduler.event()
    event:set()
    for _, case in ipairs({ { "string", "1" }, { "table", {} }, { "NaN", 0 / 0 } }) do
      local ok, message = pcall(event.wait, event, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'wait' %(number expected, got " .. case[1] .. "%)", message)
    end
  end)
end)

describe("a task that waits for an event and leaves", function()
  virtual.setup(before_each, after_each)

  for name, start in pairs(attempt.leavings) do
    for _, is_woken in ipairs({ false, true }) do
      it("by " .. name .. (is_woken and " after" or " before") .. " it was woken leaves the others alone", function()
        local list, record = recorder()
        local event = scheduler.event()
        start_waiter(event, "first", record)
        local leave = start(function()
          event:wait()
        end)
        start_waiter(event, "third", record)
        if not is_woken then leave() end
        event:set()
        if is_woken then leave() end
        advance(0)
        assert.are.same({ "first", "third" }, list)
      end)
    end
  end

  it("resumed by hand goes on with what it was given, and its timer is gone", function()
    local event, given = scheduler.event(), nil
    local co = task.spawn(function()
      given = { event:wait(10) }
    end)
    coroutine.resume(co, "by hand", 2)
    assert.are.same({ "by hand", 2 }, given)
    assert.are.equal(0, scheduler.stats().timers_pending)
    event:set()
    advance(0)
  end)
end)
