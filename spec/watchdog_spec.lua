-- In processes of their own: a watchdog sets hooks on all that runs.

local scheduler = require("scheduler")
local child = require("spec.support.child")

-- `hold(until_reported)` computes until something was reported, or for seconds by the clock if that cannot be.
local PRELUDE = [[
  if jit then jit.off() end
  local task = scheduler.task
  local reports = {}
  local function note(seconds, traceback, source)
    reports[#reports + 1] = { seconds = seconds, traceback = traceback, source = source }
  end
  local function hold()
    local count = #reports
    repeat until #reports > count
  end
  local function compute(seconds)
    local from = os.clock()
    repeat until os.clock() - from > seconds
  end
  local function last()
    return reports[#reports]
  end
]]

--- What a script prints, in which the watchdog is set.
local function run(source)
  local result = child.script(PRELUDE .. source)
  assert.are.equal("", result.err)
  assert.are.equal(0, result.code)
  return result.out
end

describe("the watchdog", function()
  it("reports a callback that holds the loop, while it still does", function()
    local out = run([[
      scheduler.watchdog(0.02, note)
      scheduler.setTimeout(function()
        hold()
        print(last().seconds >= 0.02, last().source, last().traceback:match("in [^\n]*'hold'") ~= nil)
      end, 1)
      scheduler.run()
    ]])
    assert.matches("^true\ta timer set at .*:%d+\ttrue\n$", out)
  end)

  it("reports whatever runs: tasks, microtasks, handlers, generators, those that were there before", function()
    local out = run([[
      local function try(name)
        return function()
          hold()
          print(name, (last().source:gsub("/.*", "")))
        end
      end
      local before = task.spawn(function()
        task.wait(0.001)
        try("before")()
      end)
      scheduler.watchdog(0.01, note)
      scheduler.run()
      task.spawn(function()
        task.wait(0.001)
        try("woken")()
      end)
      scheduler.run()
      task.defer(try("deferred"))
      scheduler.run()
      task.spawn(function()
        task.yield()
        try("ready")()
      end)
      scheduler.run()
      scheduler.queueMicrotask(try("microtask"))
      scheduler.run()
      scheduler.Promise.resolve():andThen(try("handler"))
      scheduler.run()
      scheduler.setImmediate(function() coroutine.wrap(try("generator"))() end)
      scheduler.run()
      scheduler.run(function() try("main")() end)
    ]])
    assert.are.equal(table.concat({
      "before\ta task spawned at ", "woken\ta task spawned at ", "deferred\ta task spawned at ",
      "ready\ta task spawned at ", "microtask\ta microtask defined at ", "handler\ta promise made at ",
      "generator\ta timer set at ", "main\tthe main task\n",
    }, "\n"), out)
  end)

  it("reports once for each that holds the loop, and not for many short ones in a turn", function()
    local out = run([[
      scheduler.watchdog(1, note)
      for _ = 1, 200 do
        task.defer(compute, 0.003)
        scheduler.setTimeout(function() compute(0.003) end)
        task.spawn(function() task.yield() compute(0.003) end)
      end
      scheduler.run()
      print(#reports)
      scheduler.watchdog(0.01, note)
      scheduler.setTimeout(function() hold() compute(0.05) end)
      scheduler.run()
      print(#reports)
    ]])
    assert.are.equal("0\n1\n", out)
  end)

  it("reports afterwards what it could not see: a C function, say", function()
    local out = run([[
      scheduler.watchdog(0.05, note)
      task.spawn(function()
        task.wait(0.001)
        os.execute("sleep 0.1")
      end)
      scheduler.run()
      print(#reports, last().seconds >= 0.05, last().source)
    ]])
    assert.matches("^1\ttrue\ta task spawned at .*:%d+\n$", out)
  end)

  it("gives an error to the error handler if there is no function for it", function()
    local out = run([[
      scheduler.on_error(function(err, traceback, source)
        reports[#reports + 1] = true
        print(err.kind, err.message:match("^the loop is held for"), traceback:match("^stack traceback:"), source)
      end)
      scheduler.watchdog(0.02)
      scheduler.setTimeout(hold, 1)
      scheduler.run()
    ]])
    assert.matches("^watchdog\tthe loop is held for\tstack traceback:\ta timer set at", out)
  end)

  it("survives a function for it that raises, and does not disturb what it interrupts", function()
    local out = run([[
      scheduler.on_error(function(err, _, source)
        print(tostring(err):match("broken"), source)
      end)
      scheduler.watchdog(0.02, function()
        reports[1] = true
        error("broken")
      end)
      scheduler.setTimeout(function()
        hold()
        print("goes on")
      end, 1)
      scheduler.run()
    ]])
    assert.are.equal("broken\tthe function given to 'watchdog'\ngoes on\n", out)
  end)

  it("can be taken off, and leaves no hooks then", function()
    local out = run([[
      scheduler.watchdog(0.01, note)
      scheduler.setTimeout(hold)
      scheduler.run()
      scheduler.watchdog(nil)
      scheduler.setTimeout(function()
        compute(0.05)
        print((debug.gethook()))
      end)
      scheduler.run()
      compute(0.01)
      print(#reports, (debug.gethook()))
    ]])
    assert.are.equal("nil\n1\tnil\n", out)
  end)

  it("leaves a hook of the program's alone", function()
    local out = run([[
      local calls = 0
      local function mine() calls = calls + 1 end
      debug.sethook(mine, "", 1000)
      scheduler.watchdog(0.01, note)
      compute(0.02)
      print(debug.gethook() == mine, calls > 0)
    ]])
    assert.are.equal("true\ttrue\n", out)
  end)

  it("does not report a loop that sleeps, a program outside of it, or virtual hours", function()
    local out = run([[
      scheduler.watchdog(0.03, note)
      scheduler.setTimeout(function() end, 100)
      scheduler.run()
      compute(0.1)
      scheduler.clock.pause()
      scheduler.setTimeout(function() end, 3600000)
      scheduler.clock.advance(7200)
      print(#reports)
    ]])
    assert.are.equal("0\n", out)
  end)

  it("works in a worker", function()
    local out = run([[
      print(scheduler.await(scheduler.parallel.run(function()
        if jit then jit.off() jit.flush() end
        local inner = require("scheduler")
        local seen
        inner.watchdog(0.02, function(_, _, source) seen = source end)
        inner.task.wait(0.001)
        inner.task.join(inner.task.defer(function()
          repeat until seen
        end))
        inner.watchdog()
        return seen
      end)))
    ]])
    assert.matches("^a task spawned at", out)
  end)

  it("ends with the job that has set it", function()
    local out = run([[
      local pool = scheduler.parallel.pool({ size = 1 })
      scheduler.await(pool:run(function()
        require("scheduler").watchdog(0.01)
        require("scheduler").task.wait(0.001)
      end))
      print(scheduler.await(pool:run(function()
        local reported = 0
        require("scheduler").on_error(function() reported = reported + 1 end)
        require("scheduler").task.wait(0.001)
        local from = os.clock()
        repeat until os.clock() - from > 0.05
        require("scheduler").task.wait(0.001)
        return reported, (debug.gethook())
      end)))
    ]])
    assert.are.equal("0\tnil\n", out)
  end)

  it("refuses bad arguments", function()
    for _, value in ipairs({ "1", {}, 0 / 0, 0, -1, true }) do
      assert.has_error(function()
        scheduler.watchdog(value)
      end)
    end
    assert.has_error(function()
      scheduler.watchdog(1, 1)
    end)
  end)
end)
