local scheduler = require("scheduler")
local child = require("spec.support.child")

local await, run = scheduler.await, scheduler.parallel.run

--- The values, there and back.
local function echo(...)
  return await(run(function(...)
    return ...
  end, ...))
end

describe("a job", function()
  it("runs a function in another VM and gives its results", function()
    marker = "of the main VM" -- luacheck: ignore 111
    local results = {
      n = select("#", echo(1, nil, 3, nil)),
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

describe("what crosses", function()
  it("arrives as it was: plain values", function()
    for _, value in ipairs({ true, false, 0, 1, -1, 2 ^ 53, 0.5, -0.5, math.huge, -math.huge, 1e300, "", "text" }) do
      assert.are.equal(value, (echo(value)))
    end
    local nan = echo(0 / 0)
    assert.is_true(nan ~= nan)
    assert.are.equal(0, select("#", echo()))
    assert.are.equal(1, select("#", echo(nil)))
  end)

  it("arrives as it was: integers and floats kept apart", function()
    if not math.type then return end
    for _, value in ipairs({ 1, 1.0, math.maxinteger, math.mininteger, 2 ^ 53 + 1 }) do
      assert.are.equal(math.type(value), math.type((echo(value))))
      assert.are.equal(value, (echo(value)))
    end
  end)

  it("arrives as it was: strings with any bytes, of any length", function()
    local bytes = {}
    for i = 0, 255 do
      bytes[#bytes + 1] = string.char(i)
    end
    local all = table.concat(bytes)
    assert.are.equal(all, (echo(all)))
    local long = all:rep(20000)
    assert.is_true(long == echo(long))
  end)

  it("arrives as it was: tables, with cycles and shared references", function()
    local value = { 1, 2, nil, 4, name = "x", [0.5] = true, [false] = { { {} } }, [-1] = "negative" }
    assert.are.same(value, (echo(value)))
    local cycle = { shared = {} }
    cycle.self, cycle.again = cycle, cycle.shared
    cycle[cycle] = cycle
    local back, other = echo(cycle, cycle.shared)
    assert.are.equal(back, back.self)
    assert.are.equal(back, back[back])
    assert.are.equal(back.shared, back.again)
    assert.are.equal(back.shared, other)
    assert.are_not.equal(cycle, back)
  end)

  it("arrives as it was: many tables and many values", function()
    local rows = {}
    for i = 1, 20000 do
      rows[i] = { i, tostring(i) }
    end
    local back = echo(rows)
    assert.are.equal(20000, #back)
    assert.are.same({ 777, "777" }, back[777])
    local values = {}
    for i = 1, 200 do
      values[i] = i
    end
    assert.are.same(values, { echo((table.unpack or unpack)(values)) })
  end)

  it("may be functions, with upvalues, recursive, and the globals of the worker", function()
    local base, offset = 10, { by = 5 }
    local function factorial(n)
      return n <= 1 and 1 or n * factorial(n - 1)
    end
    local results = {
      await(run(function(fn, n)
        return base + offset.by, factorial(5), fn(n), type(string.format)
      end, function(n)
        return n * base
      end, 4)),
    }
    assert.are.same({ 15, 120, 40, "function" }, results)
    local returned = await(run(function()
      local count = 0
      return function()
        count = count + 1
        return count
      end
    end))
    assert.are.equal(1, returned())
    assert.are.equal(2, returned())
  end)
end)

describe("what cannot cross is refused with its path", function()
  local function refused(...)
    local before = scheduler.stats().jobs_sent
    local ok, message = pcall(run, ...)
    assert.is_false(ok)
    assert.are.equal(before, scheduler.stats().jobs_sent, "something was sent")
    return message
  end

  local function nothing() end

  for _, case in ipairs({
    { "userdata", "argument #2: userdata", { nothing, io.stdout } },
    { "coroutine", "argument #3: thread", { nothing, 1, coroutine.create(nothing) } },
    { "C function", "argument #2: a C function", { nothing, print } },
    { "C function to run", "argument #1: a C function", { print } },
    { "in tables", "argument #2.handlers[3]: userdata", { nothing, { handlers = { 1, 2, io.stdout } } } },
    { "odd keys", 'argument #2["a b"][true]: userdata', { nothing, { ["a b"] = { [true] = io.stdout } } } },
    { "as a key", "argument #2, a key: userdata", { nothing, { [io.stdout] = 1 } } },
    { "metatables", "argument #2.object: a table with a metatable", { nothing, { object = setmetatable({}, {}) } } },
  }) do
    it(case[1], function()
      assert.is_truthy(refused((table.unpack or unpack)(case[3])):find("cannot transfer " .. case[2], 1, true))
    end)
  end

  it("in upvalues", function()
    local sock = { file = io.stdout }
    local function inner()
      return sock
    end
    local message = refused(nothing, {
      inner,
    })
    assert.is_truthy(message:find("argument #2[1], upvalue 'sock'.file: userdata", 1, true), message)
    message = refused(function()
      return inner()
    end)
    assert.is_truthy(message:find("argument #1, upvalue 'inner', upvalue 'sock'.file: userdata", 1, true), message)
  end)

  it("too deep a nesting", function()
    local deep = {}
    local bottom = deep
    for _ = 1, 900 do
      bottom[1] = {}
      bottom = bottom[1]
    end
    assert.is_table(echo(deep))
    for _ = 1, 1000 do
      bottom[1] = {}
      bottom = bottom[1]
    end
    assert.is_truthy(refused(nothing, deep):find("nested deeper than 1000 levels", 1, true))
  end)

  it("in results, which fails the job", function()
    local ok, err = pcall(await, run(function()
      return 1, { out = io.stdout }
    end))
    assert.is_false(ok)
    assert.is_truthy(err.message:find("cannot transfer result #2.out: userdata", 1, true), err.message)
  end)

  it("and what is no function is a bad argument", function()
    for _, value in ipairs({ 1, "print", {} }) do
      assert.matches("bad argument #1 to 'run' %(function expected, got " .. type(value), refused(value))
    end
    assert.matches("parallel_spec%.lua:%d+: bad argument", select(2, pcall(function()
      run(nil)
    end)))
    assert.matches("parallel_spec%.lua:%d+: cannot transfer", select(2, pcall(function()
      run(print)
    end)))
  end)
end)

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

  it("keeps its error value where it can cross", function()
    local function fail(value)
      error(value, 0)
    end
    for _, value in ipairs({ "text", 42, true, { code = 7, list = { 1, 2 } } }) do
      local ok, err = pcall(await, run(fail, value))
      assert.is_false(ok)
      assert.are.same(value, err.value)
    end
    local ok, err = pcall(await, run(function()
      error(setmetatable({}, {
        __tostring = function()
          return "an object of the worker"
        end,
      }))
    end))
    assert.is_false(ok)
    assert.are.equal("an object of the worker", err.message)
    assert.is_nil(err.value)
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
