local scheduler = require("scheduler")
local child = require("spec.support.child")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local function ignore() end

describe("run", function()
  it("returns at once when there is nothing to do", function()
    scheduler.run()
  end)

  it("runs until nothing is left", function()
    local list, record = virtual.recorder()
    scheduler.setTimeout(function()
      record("one")
      scheduler.setTimeout(record, 1, "two")
    end, 1)
    scheduler.run()
    assert.are.same({ "one", "two" }, list)
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("runs its function as a task and returns its results, once nothing is left", function()
    local list, record = virtual.recorder()
    local results = {
      n = select("#", scheduler.run(function(...)
        scheduler.setTimeout(record, 2, "timer")
        record("main")
        return ...
      end, 1, nil, 3, nil)),
      scheduler.run(function(...)
        return ...
      end, 1, nil, 3, nil),
    }
    assert.are.same({ n = 4, 1, nil, 3, nil }, results)
    assert.are.same({ "main", "timer" }, list)
  end)

  it("raises its function's error as it is, once nothing is left", function()
    for _, err in ipairs({ "text", { code = 7 }, 42, true, io.stdout }) do
      local fired = false
      local ok, caught = pcall(scheduler.run, function()
        scheduler.setTimeout(function()
          fired = true
        end, 1)
        error(err, 0)
      end)
      assert.is_false(ok)
      assert.are.equal(err, caught)
      assert.is_true(fired)
    end
    local ok, err = pcall(scheduler.run, function()
      error()
    end)
    assert.is_false(ok)
    assert.are.equal(raised.none, err)
  end)

  it("says so when its function waits for what will never come", function()
    local ok, message = pcall(scheduler.run, coroutine.yield)
    assert.is_false(ok)
    assert.matches("nothing is left that could wake it", message)
  end)

  it("refuses what is no function", function()
    for _, main in ipairs({ 1, "main", {} }) do
      local _, message = pcall(scheduler.run, main)
      assert.matches("bad argument #1 to 'run' %(function expected, got " .. type(main), message)
    end
  end)

  it("and poll are refused in a callback, and the loop goes on", function()
    local messages, record = virtual.recorder()
    scheduler.setTimeout(function()
      for _, name in ipairs({ "run", "poll" }) do
        record(select(2, pcall(scheduler[name])))
      end
    end)
    scheduler.setTimeout(record, 1, "goes on")
    scheduler.run()
    assert.matches("scheduler is already running", messages[1])
    assert.matches("scheduler is already running", messages[2])
    assert.are.equal("goes on", messages[3])
  end)

  it("may be called from a coroutine", function()
    local fired = false
    local co = coroutine.create(function()
      scheduler.setTimeout(function()
        fired = true
      end, 1)
      scheduler.run()
      return "ended"
    end)
    local ok, result = coroutine.resume(co)
    assert.is_true(ok, result)
    assert.are.equal("ended", result)
    assert.is_true(fired)
  end)
end)

describe("stop", function()
  it("makes run return after the current callback; a later run goes on", function()
    local list, record = virtual.recorder()
    scheduler.setTimeout(function()
      scheduler.queueMicrotask(record, "microtask")
      scheduler.stop()
      record("rest of the callback")
    end)
    scheduler.setTimeout(record, 0, "next")
    scheduler.run()
    assert.are.same({ "rest of the callback", "microtask" }, list)
    scheduler.run()
    assert.are.same({ "rest of the callback", "microtask", "next" }, list)
  end)

  it("outside of run does nothing", function()
    local list, record = virtual.recorder()
    scheduler.setTimeout(record, 0, "fired")
    scheduler.stop()
    scheduler.run()
    assert.are.same({ "fired" }, list)
  end)
end)

describe("poll", function()
  virtual.setup(before_each, after_each)

  it("runs one turn and says whether anything is left and when the next is needed", function()
    scheduler.clock.resume()
    local alive, wait = scheduler.poll()
    assert.is_false(alive)
    assert.is_nil(wait)
    local id = scheduler.setTimeout(ignore, 5000)
    alive, wait = scheduler.poll()
    assert.is_true(alive)
    assert.is_true(wait > 0 and wait <= 5000, wait)
    scheduler.unref(id)
    alive, wait = scheduler.poll()
    assert.is_false(alive)
    assert.is_true(wait > 0)
    scheduler.clearTimeout(id)
    id = scheduler.setImmediate(ignore)
    scheduler.setImmediate(function()
      scheduler.setImmediate(ignore)
    end)
    alive, wait = scheduler.poll()
    assert.is_true(alive)
    assert.are.equal(0, wait)
    assert.is_false(scheduler.poll())
    scheduler.clearImmediate(id)
  end)

  it("ends a turn that takes longer than its budget", function()
    scheduler.clock.resume()
    local fired = 0
    for _ = 1, 1000 do
      scheduler.setTimeout(function()
        fired = fired + 1
        local start = os.clock()
        while os.clock() - start < 0.0005 do
          ignore()
        end
      end)
    end
    scheduler.poll(1)
    assert.is_true(fired >= 1 and fired < 500, fired)
    scheduler.run()
    assert.are.equal(1000, fired)
  end)

  it("refuses a bad budget", function()
    for _, budget in ipairs({ "1", {}, 0 / 0 }) do
      assert.is_false(pcall(scheduler.poll, budget))
    end
    scheduler.poll(-1)
    scheduler.poll(math.huge)
  end)
end)

describe("now", function()
  it("is in milliseconds and goes on outside of the loop", function()
    local start = scheduler.now()
    local cpu = os.clock()
    while os.clock() - cpu < 0.02 do
      ignore()
    end
    local elapsed = scheduler.now() - start
    assert.is_true(elapsed >= 10 and elapsed < 60000, elapsed)
  end)
end)

describe("the clock", function()
  virtual.setup(before_each, after_each)

  it("fires what is due in order, with now showing each deadline", function()
    local times, record = virtual.recorder()
    local start = scheduler.now()
    for _, ms in ipairs({ 20, 5, 12.5 }) do
      scheduler.setTimeout(function()
        record(virtual.since(start))
      end, ms)
    end
    scheduler.clock.advance(0.03)
    assert.are.same({ 5, 12.5, 20 }, times)
    assert.are.equal(30, virtual.since(start))
  end)

  it("runs ten hours of intervals in no time", function()
    local fired = 0
    local id = scheduler.setInterval(function()
      fired = fired + 1
    end, 1000)
    scheduler.clock.advance(36000)
    scheduler.clearInterval(id)
    assert.are.equal(36000, fired)
  end)

  it("goes on from the virtual time when it is resumed", function()
    scheduler.clock.advance(1000)
    local virtual_now = scheduler.now()
    scheduler.clock.resume()
    assert.is_true(scheduler.now() >= virtual_now)
    assert.is_true(scheduler.now() < virtual_now + 60000)
  end)

  it("makes run return when only time could go on", function()
    local id = scheduler.setTimeout(ignore, 1)
    scheduler.run()
    assert.are.equal(1, scheduler.stats().timers_pending)
    scheduler.clearTimeout(id)
  end)

  it("refuses to be advanced by nonsense, when it runs, or in a callback", function()
    for _, seconds in ipairs({ -1, 0 / 0, math.huge, "1", {} }) do
      assert.is_false(pcall(scheduler.clock.advance, seconds))
    end
    local message
    scheduler.setTimeout(function()
      message = select(2, pcall(scheduler.clock.advance, 1))
    end)
    scheduler.clock.advance(0)
    assert.matches("scheduler is already running", message)
    scheduler.clock.resume()
    message = select(2, pcall(scheduler.clock.advance, 1))
    assert.matches("the clock is not paused", message)
  end)
end)

describe("an idle loop", function()
  local function cpu_and_switches(script)
    local result = child.script(script .. [[
      local file = io.open("/proc/self/status")
      if file then
        print(os.clock(), file:read("*a"):match("voluntary_ctxt_switches:%s*(%d+)"))
      end
    ]])
    assert.are.equal(0, result.code, result.err)
    local cpu, switches = result.out:match("(%S+)%s+(%d+)")
    return tonumber(cpu), tonumber(switches)
  end

  it("uses no CPU, and wakes as often as its timers ask for", function()
    local cpu, switches = cpu_and_switches([[
      local ticks = 0
      local id
      id = scheduler.setInterval(function()
        ticks = ticks + 1
        if ticks == 3 then scheduler.clearInterval(id) end
      end, 500)
      scheduler.run()
    ]])
    if not cpu then return end -- there is no /proc here
    assert.is_true(cpu < 0.3, cpu)
    assert.is_true(switches < 30, switches)
  end)
end)

describe("await", function()
  it("takes anything that has an await method", function()
    local awaitable = {
      await = function(self)
        return self, 2, nil
      end,
    }
    assert.are.equal(3, select("#", scheduler.await(awaitable)))
    assert.are.equal(awaitable, (scheduler.await(awaitable)))
  end)

  it("refuses what cannot be awaited", function()
    for _, value in ipairs({ 1, "x", {}, ignore, io.stdout }) do
      assert.is_false(pcall(scheduler.await, value))
    end
    local ok, message = pcall(scheduler.await, {})
    assert.is_false(ok)
    assert.matches("bad argument #1 to 'await'", message)
    assert.is_false(pcall(scheduler.await))
  end)
end)

describe("stats", function()
  it("counts what was done", function()
    local before = scheduler.stats()
    scheduler.setTimeout(ignore)
    scheduler.setImmediate(ignore)
    scheduler.queueMicrotask(ignore)
    scheduler.run()
    local after = scheduler.stats()
    for _, name in ipairs({ "timers_fired", "immediates_run", "microtasks_run" }) do
      assert.are.equal(before[name] + 1, after[name], name)
    end
    assert.is_true(after.turns > before.turns)
  end)
end)

describe("the module", function()
  it("is the same table after it was unloaded and required again", function()
    local fired = false
    scheduler.setTimeout(function()
      fired = true
    end, 1)
    package.loaded.scheduler = nil
    local again = require("scheduler")
    assert.are.equal(scheduler, again)
    again.run()
    assert.is_true(fired)
  end)

  it("does not leak anything into the globals", function()
    local result = child.run({
      "-e",
      [[
        local before = {}
        for name in pairs(_G) do before[name] = true end
        require("scheduler")
        for name in pairs(_G) do if not before[name] then print(name) end end
      ]],
    })
    assert.are.equal("", result.out)
  end)
end)
