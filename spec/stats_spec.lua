local scheduler = require("scheduler")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local task = scheduler.task

--- How much a counter grows while `fn` runs.
local function growth(name, fn, ...)
  local before = scheduler.stats()[name]
  fn(...)
  return scheduler.stats()[name] - before
end

local function check_distribution(given)
  assert.is_true(given.count > 0)
  assert.is_true(given.p50 <= given.p99 and given.p99 <= given.max and given.mean <= given.max)
  assert.is_true(given.p50 >= 0)
end

describe("stats()", function()
  virtual.setup(before_each, after_each)

  it("counts the tasks that have ended, however they did", function()
    local parked, waiting = task.spawn(coroutine.yield), task.spawn(task.wait, 1)
    assert.are.equal(1, growth("tasks_ended", task.spawn, function() end))
    assert.are.equal(1, growth("tasks_ended", task.spawn, function() return 1, 2 end))
    assert.are.equal(1, growth("tasks_ended", task.cancel, waiting))
    assert.are.equal(1, growth("tasks_ended", coroutine.resume, parked))
    assert.are.equal(2, growth("tasks_ended", uncaught, function()
      task.spawn(error, "at once")
      task.spawn(function()
        task.wait()
        error("later")
      end)
      scheduler.poll()
    end))
    local ready_made = coroutine.create(function()
      task.wait()
    end)
    assert.are.equal(1, growth("tasks_ended", function()
      task.spawn(ready_made)
      scheduler.poll()
    end))
    assert.are.equal(1, growth("tasks_ended", function()
      scheduler.setTimeout(function()
        task.wait()
      end)
      scheduler.setTimeout(function() end)
      virtual.advance(0)
    end))
  end)

  it("counts the tasks that are alive", function()
    memory.collect()
    local before = scheduler.stats().tasks_alive
    local event = scheduler.event()
    local kept = { task.spawn(event.wait, event), task.spawn(task.wait, 1), task.spawn(coroutine.yield) }
    kept[4] = task.defer(print)
    assert.are.equal(before + 4, scheduler.stats().tasks_alive)
    for _, co in ipairs(kept) do
      task.cancel(co)
    end
    assert.are.equal(before, scheduler.stats().tasks_alive)
  end)

  it("does not measure on a paused clock, which may be moved by hours", function()
    local before = scheduler.stats()
    scheduler.setTimeout(function() end, 3600000)
    virtual.advance(7200000)
    local after = scheduler.stats()
    assert.are.equal(before.turn.count, after.turn.count)
    assert.are.equal(before.lag.count, after.lag.count)
  end)
end)

describe("stats(), of what was measured,", function()
  it("tells how long turns took, without the time that was slept", function()
    local result = child.script([[
      local function compute(seconds)
        local from = os.clock()
        repeat until os.clock() - from > seconds
      end
      scheduler.setTimeout(compute, 1, 0.05)
      scheduler.setTimeout(function() end, 400)
      scheduler.run()
      local turn = scheduler.stats().turn
      print(turn.count >= 2, turn.max >= 0.05, turn.p50 < 0.2, turn.p99 == turn.max, turn.mean < 0.2)
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("true\ttrue\ttrue\ttrue\ttrue\n", result.out)
  end)

  it("tells how late timers were that something has held up", function()
    local result = child.script([[
      local function compute(seconds)
        local from = os.clock()
        repeat until os.clock() - from > seconds
      end
      scheduler.setTimeout(function()
        scheduler.setTimeout(function() end, 10)
        compute(0.05)
      end, 1)
      scheduler.run()
      local lag = scheduler.stats().lag
      print(lag.count, lag.max >= 0.035)
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("2\ttrue\n", result.out)
  end)

  it("has distributions that fit together", function()
    for i = 1, 200 do
      scheduler.setTimeout(function() end, i / 50)
    end
    scheduler.run()
    local stats = scheduler.stats()
    check_distribution(stats.turn)
    check_distribution(stats.lag)
    assert.is_true(stats.turn.count <= stats.turns)
  end)

  it("tells of a pool how long jobs were queued, and how long they ran", function()
    local pool = scheduler.parallel.pool({ size = 1 })
    local function wait()
      require("scheduler").task.wait(0.02)
    end
    local jobs = { pool:run(wait), pool:run(wait) }
    local cancelled = pool:run(wait)
    cancelled:cancel()
    scheduler.await(scheduler.Promise.all(jobs))
    local stats = pool:stats()
    check_distribution(stats.wait)
    check_distribution(stats.run)
    assert.are.same({ 2, 2, 2 }, { stats.done, stats.wait.count, stats.run.count })
    assert.is_true(stats.run.p50 >= 0.02 and stats.wait.max >= 0.02)
    pool:close()
    local before = scheduler.stats().pool.run.count
    scheduler.await(scheduler.parallel.run(math.abs, 1))
    assert.are.equal(before + 1, scheduler.stats().pool.run.count)
  end)

  it("counts what comes from other threads", function()
    assert.is_true(3 <= growth("completions", function()
      local jobs = {}
      for i = 1, 3 do
        jobs[i] = scheduler.parallel.run(math.abs, -i)
      end
      scheduler.await(scheduler.Promise.all(jobs))
    end))
  end)
end)
