-- Ticks to iterate over: `scheduler.interval`.

local scheduler = require("scheduler")
local misuse = require("spec.support.misuse")
local virtual = require("spec.support.virtual")
local awaited = require("spec.support.awaited")

local task = scheduler.task
local async, interval = scheduler.async, scheduler.interval
local advance, recorder, since = virtual.advance, virtual.recorder, virtual.since
local settled, crosses_calls = awaited.settled, awaited.crosses_calls

describe("scheduler.interval", function()
  virtual.setup(before_each, after_each)

  --- Counts ticks in a task, with a body that takes so many milliseconds after these ticks; returns the list of
  --- "tick@time", up to tick `last`. The iterator is called, since a `for` cannot wait in a coroutine of Lua 5.1.
  local function count(seconds, last, bodies)
    local list, start = {}, scheduler.now()
    local co = task.spawn(function()
      local tick = interval(seconds)
      repeat
        local n = tick()
        list[#list + 1] = ("%d@%g"):format(n, since(start))
        if bodies and bodies[n] then task.wait(bodies[n] / 1000) end
      until n >= last
    end)
    return list, co
  end

  it("gives the numbers of its ticks on a fixed schedule", function()
    local list = count(0.5, 4)
    advance(499)
    assert.are.same({}, list)
    advance(5000)
    assert.are.same({ "1@500", "2@1000", "3@1500", "4@2000" }, list)
  end)

  it("does not drift by what its body takes", function()
    local list = count(0.01, 4, { 3, 9, 1 })
    advance(100)
    assert.are.same({ "1@10", "2@20", "3@30", "4@40" }, list)
  end)

  it("skips the ticks that a slow body misses: the number jumps", function()
    local list = count(0.01, 9, { 25, [4] = 47 })
    advance(200)
    -- The body is over at 35, after tick 3 was due; then at 87, after tick 8 was.
    assert.are.same({ "1@10", "3@35", "4@40", "8@87", "9@90" }, list)
  end)

  it("skips them too where the period is no binary fraction", function()
    for _, seconds in ipairs({ 0.1, 0.3, 0.7, 0.001, 1 / 3 }) do
      local ms = seconds * 1000
      local list, start, numbers = {}, scheduler.now(), {}
      task.spawn(function()
        local tick = interval(seconds)
        for i = 1, 8 do
          local n = tick()
          numbers[i] = n
          list[i] = math.abs(since(start) - n * ms) < 0.01
          -- Sleeps until a later tick is due, exactly.
          task.wait((2 * n + 1) * seconds - (scheduler.now() - start) / 1000)
        end
      end)
      advance(ms * 600)
      assert.are.same({ 1, 3, 7, 15, 31, 63, 127, 255 }, numbers)
      assert.are.same({ true, true, true, true, true, true, true, true }, list)
    end
  end)

  it("counts whole numbers", function()
    local tick = interval(0.001)
    assert.are.equal("1", tostring(settled({ await = tick })))
    assert.are.equal("2000", tostring(settled({ await = tick })))
  end)

  it("begins its schedule when it is made", function()
    local list, start = {}, scheduler.now()
    local tick = interval(0.01)
    advance(4)
    task.spawn(function()
      for i = 1, 2 do
        list[i] = ("%d@%g"):format(tick(), since(start))
      end
    end)
    advance(100)
    assert.are.same({ "1@10", "2@20" }, list)
  end)

  it("is an iterator for a loop on the main thread, which can be left", function()
    local pending = scheduler.stats().timers_pending
    scheduler.clock.resume()
    local last = 0
    for n in interval(0.001) do
      assert.is_true(n > last)
      last = n
      if n >= 3 then break end
    end
    scheduler.clock.pause()
    assert.is_true(last >= 3)
    assert.are.equal(pending, scheduler.stats().timers_pending)
  end)

  it("is an iterator in a task too", function()
    if not crosses_calls() then return end
    local list, record = recorder()
    task.spawn(function()
      for n in interval(0.5) do
        record(n)
        if n == 3 then break end
      end
      record("left")
    end)
    advance(5000)
    assert.are.same({ 1, 2, 3, "left" }, list)
  end)

  it("goes beside others", function()
    local first, second = count(0.002, 3), count(0.003, 2)
    local third = count(0.002, 3)
    advance(10)
    assert.are.same({ "1@2", "2@4", "3@6" }, first)
    assert.are.same({ "1@3", "2@6" }, second)
    assert.are.same(first, third)
  end)

  it("ends with the task in which it ticks", function()
    local pending = scheduler.stats().timers_pending
    local list, co = count(0.01, 100)
    advance(20)
    task.cancel(co)
    assert.are.equal(pending, scheduler.stats().timers_pending)
    advance(100)
    assert.are.same({ "1@10", "2@20" }, list)
  end)

  it("raises in an asynchronous function that is cancelled", function()
    local ticks, err = 0, nil
    local promise = async(function()
      local tick = interval(0.01)
      local ok = true
      while ok do
        ok, err = scheduler.pcall(tick)
        if ok then ticks = ticks + 1 end
      end
    end)()
    advance(35)
    promise:cancel("enough")
    advance(35)
    assert.are.equal(3, ticks)
    assert.are.equal("enough", err.reason)
  end)

  it("refuses bad arguments, at the caller's line", function()
    misuse(function() interval() end, "bad argument #1 to 'interval' (number expected, got nil)")
    misuse(function() interval("1") end, "bad argument #1 to 'interval' (number expected, got string)")
    misuse(function() interval(0 / 0) end, "bad argument #1 to 'interval' (number expected, got NaN)")
    misuse(function() interval(0) end, "bad argument #1 to 'interval' (seconds above 0 expected)")
    misuse(function() interval(-1) end, "bad argument #1 to 'interval' (seconds above 0 expected)")
  end)
end)
