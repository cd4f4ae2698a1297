local scheduler = require("scheduler")
local child = require("spec.support.child")

local await, run = scheduler.await, scheduler.parallel.run

describe("a job", function()
  it("runs a function in another VM and gives its results", function()
    marker = "of the main VM" -- luacheck: ignore 111
    local results = {
      n = select("#", await(run(function(...)
        return ...
      end, 1, nil, 3, nil))),
      await(run(function(a, b)
        return a + b, marker, type(_G), nil -- luacheck: ignore 113
      end, 20, 22)),
    }
    marker = nil -- luacheck: ignore 111
    assert.are.equal(4, results.n)
    assert.are.equal(42, results[1])
    assert.is_nil(results[2])
    assert.are.equal("table", results[3])
  end)

  it("runs beside others, on all cores", function()
    local jobs = {}
    for i = 1, 100 do
      jobs[i] = run(function(n)
        return n * n
      end, i)
    end
    for i = 1, 100 do
      assert.are.equal(i * i, await(jobs[i]))
    end
    assert.is_true(scheduler.stats().workers >= 1)
    assert.are.equal(0, scheduler.stats().jobs_pending)
  end)

  it("may be awaited many times, from the main thread and from callbacks", function()
    local job = run(function()
      return "result"
    end)
    local seen = {}
    for i = 1, 3 do
      scheduler.setTimeout(function()
        seen[i] = await(job)
      end)
    end
    assert.are.equal("result", scheduler.run(function()
      return await(job)
    end))
    assert.are.same({ "result", "result", "result" }, seen)
    assert.are.equal("result", await(job))
    assert.are.equal("result", job:expect())
  end)

  it("lets timers fire while the main thread waits for it", function()
    local ticks = 0
    local id = scheduler.setInterval(function()
      ticks = ticks + 1
    end, 1)
    await(run(function()
      local start = os.clock()
      while os.clock() - start < 0.05 do
        math.random()
      end
    end))
    scheduler.clearInterval(id)
    assert.is_true(ticks >= 5, ticks)
  end)

  it("finds the modules that the main program finds", function()
    local path = package.path
    package.path = "spec/support/?.lua;" .. path
    local interpreter = await(run(function()
      return type(require("fixture").square) .. require("fixture").square(7)
    end))
    package.path = path
    assert.are.equal("function49", interpreter)
  end)

  it("may use the scheduler itself: timers, waits and jobs of its own", function()
    assert.are.equal("fired 3", await(run(function()
      local inner = require("scheduler")
      local fired = 0
      for i = 1, 3 do
        inner.setTimeout(function()
          fired = fired + 1
        end, i)
      end
      inner.setInterval(print, 1e6) -- is dropped when the job ends
      local job = { settled = false }
      function job:await()
        while fired < 3 do
          coroutine.yield()
        end
        return self
      end
      local me = coroutine.running()
      inner.setInterval(function()
        if fired == 3 then coroutine.resume(me) end
      end, 1)
      inner.await(job)
      return "fired " .. fired
    end)))
    assert.are.equal(0, await(run(function()
      return require("scheduler").stats().timers_pending
    end)))
  end)

  it("may wait for jobs of its own, also when all workers do", function()
    local function sum(depth)
      if depth == 0 then return 1 end
      local inner = require("scheduler")
      local jobs = {}
      for i = 1, 3 do
        jobs[i] = inner.parallel.run(sum, depth - 1)
      end
      local total = 0
      for i = 1, 3 do
        total = total + inner.await(jobs[i])
      end
      return total
    end
    local jobs = {}
    for i = 1, 4 do
      jobs[i] = run(sum, 3)
    end
    for i = 1, 4 do
      assert.are.equal(27, await(jobs[i]))
    end
  end)

  it("that waits for what will never come fails instead of hanging", function()
    local ok, err = pcall(await, run(coroutine.yield and function()
      coroutine.yield()
    end))
    assert.is_false(ok)
    assert.matches("nothing is left that could wake it", err.message)
  end)
end)

-- Since Lua 5.4.
if tonumber(_VERSION:match("%d$")) >= 4 then
  it("a job's warnings are shown once they are switched on, as those of its program", function()
    local source = [[
      local function warns()
        warn("@off")
        warn("before")
        warn("@on")
        warn("one", " of ", "three")
        warn("@here", "no control")
        warn("@other")
        warn("@off")
        warn("after")
      end
    ]]
    local own = child.script(source .. "warns()")
    local result = child.script(source .. "scheduler.parallel.run(warns):expect()")
    assert.are.equal("Lua warning: one of three\nLua warning: @hereno control\n", own.err)
    assert.are.equal(own.err, result.err)
  end)
end

describe("a job that fails", function()
  it("raises an error object with the message, the worker's traceback and the place of the call", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local job = run(function()
      local function fail()
        error("boom")
      end
      fail()
    end)
    local ok, err = pcall(await, job)
    assert.is_false(ok)
    assert.are.equal("error", err.kind)
    assert.matches("parallel_spec%.lua:%d+: boom$", err.message)
    assert.matches("stack traceback:.*parallel_spec%.lua:%d+", err.traceback)
    assert.matches("parallel_spec%.lua:" .. line .. "$", err.origin)
    assert.matches("boom\nstack traceback:", tostring(err))
    assert.are.equal(err, select(2, pcall(await, job)))
  end)

  it("and is awaited by nobody is reported when run ends", function()
    local result = child.script([[
      scheduler.parallel.run(function() error("nobody listens") end)
      scheduler.run()
      print("ended")
    ]])
    assert.are.equal(0, result.code)
    assert.are.equal("ended\n", result.out)
    assert.matches("^scheduler: uncaught error in a job started at %S+:2: [^\n]*nobody listens\n", result.err)
    assert.are.equal(1, select(2, result.err:gsub("stack traceback", "")))
  end)

  it("and is awaited by nobody is reported while the loop goes on", function()
    local result = child.script([[
      scheduler.on_error(function(err) print(err.message) os.exit(0) end)
      local job = scheduler.parallel.run(function() error("alone", 0) end)
      scheduler.setInterval(function() return job end, 1000)
      scheduler.run()
    ]])
    assert.are.equal(0, result.code, result.err)
    assert.are.equal("alone\n", result.out)
  end)

  it("and is awaited is not reported", function()
    local result = child.script([[
      local jobs = {}
      for i = 1, 5 do jobs[i] = scheduler.parallel.run(function() error("x") end) end
      scheduler.Promise.allSettled(jobs):expect()
      for i = 1, 5 do assert(not pcall(scheduler.await, jobs[i])) end
      scheduler.run()
    ]])
    assert.are.equal("", result.err)
  end)

  it("leaves nothing to the next one in its worker", function()
    for _ = 1, 8 do
      pcall(await, run(function()
        local inner = require("scheduler")
        inner.on_error(function() end)
        inner.clock.pause()
        inner.setTimeout(print, 1)
        error("x")
      end))
    end
    for _ = 1, 8 do
      local pending, handler, is_paused = await(run(function()
        local inner = require("scheduler")
        return inner.stats().timers_pending, inner.on_error(nil), (pcall(inner.clock.advance, 0))
      end))
      assert.are.equal(0, pending)
      assert.is_nil(handler)
      assert.is_false(is_paused)
    end
  end)
end)

describe("awaiting", function()
  it("in a coroutine of the user's yields scheduler.pending to whoever resumed it", function()
    local result
    local co = coroutine.create(function()
      result = await(run(function()
        return "done"
      end))
    end)
    local ok, yielded = coroutine.resume(co)
    assert.is_true(ok)
    assert.are.equal(scheduler.pending, yielded)
    scheduler.run()
    assert.are.equal("done", result)
    assert.are.equal("dead", coroutine.status(co))
  end)

  it("and resumed by hand gives what was passed, and is not woken later", function()
    local results = {}
    local co = coroutine.create(function()
      results[1] = await(run(function()
        return "job"
      end))
      results[2] = coroutine.yield("mine")
    end)
    coroutine.resume(co)
    local _, yielded = coroutine.resume(co, "by hand")
    assert.are.equal("mine", yielded)
    scheduler.run()
    assert.are.same({ "by hand" }, results)
    assert.are.equal("suspended", coroutine.status(co))
  end)

  it("where the coroutine cannot yield raises, and nothing is lost", function()
    local job = run(function()
      return "kept"
    end)
    local seen = {}
    local co = coroutine.create(function()
      -- No Lua can yield across table.sort.
      table.sort({ 3, 2, 1 }, function(a, b)
        seen.ok, seen.message = pcall(await, job)
        return a < b
      end)
      seen.yielded = coroutine.yield("mine")
      seen.result = await(job)
    end)
    assert.is_true(coroutine.resume(co))
    assert.is_false(seen.ok)
    assert.matches("yield", seen.message)
    scheduler.run()
    assert.is_nil(seen.yielded)
    assert.is_true(coroutine.resume(co, "yielded"))
    assert.are.equal("yielded", seen.yielded)
    scheduler.run()
    assert.are.equal("kept", seen.result)
  end)

  it("on the main thread while the loop runs is refused", function()
    local message
    scheduler.on_error(function()
      message = select(2, pcall(await, run(function() end)))
    end)
    scheduler.setTimeout(error)
    scheduler.run()
    scheduler.on_error(nil)
    assert.matches("cannot wait on the main thread while the scheduler is running", message)
  end)

  it("through pcall works wherever Lua can yield across it", function()
    if _VERSION == "Lua 5.1" and not jit then return end
    local ok, result
    scheduler.run(function()
      ok, result = pcall(await, run(function()
        return "through pcall"
      end))
    end)
    assert.is_true(ok)
    assert.are.equal("through pcall", result)
  end)
end)

describe("a job whose program has not asked for promises", function()
  it("has their methods", function()
    local result = child.script([[
      scheduler.parallel.run(function() error("x", 0) end):catch(function(err) print(err.message) end)
      scheduler.async(function() return "y" end)():andThen(print)
      scheduler.promisify(function(callback) callback(nil, "z") end)():andThen(print)
      scheduler.run()
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("y\nz\nx\n", result.out)
  end)
end)
