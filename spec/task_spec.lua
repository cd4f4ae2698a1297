local scheduler = require("scheduler")
local child = require("spec.support.child")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task = scheduler.task
local unpack = table.unpack or unpack
local advance, recorder = virtual.advance, virtual.recorder

local function ignore() end

local function line_here()
  return debug.getinfo(2, "l").currentline
end

--- A function that keeps the lists of its arguments, with their count.
local function keeper()
  local list, record = recorder()
  return list, function(...)
    record({ n = select("#", ...), ... })
  end
end

--- Starts tasks in each of the three ways; all of them have run after `scheduler.poll()`.
local ways = {
  spawn = task.spawn,
  defer = task.defer,
  delay = function(...)
    return task.delay(0, ...)
  end,
}

local function callables(record)
  local metatable = { __call = record }
  local list = { setmetatable({}, metatable) }
  if newproxy then -- luacheck: ignore 113
    list[2] = newproxy(true) -- luacheck: ignore 113
    getmetatable(list[2]).__call = record
  end
  return list
end

describe("spawn", function()
  virtual.setup(before_each, after_each)

  it("runs the function at once, up to its first wait", function()
    local list, record = recorder()
    task.spawn(function()
      record("one")
      task.wait(1)
      record("three")
    end)
    record("two")
    advance(1000)
    assert.are.same({ "one", "two", "three" }, list)
  end)

  it("goes depth first", function()
    local list, record = recorder()
    task.spawn(function()
      record("a")
      task.spawn(function()
        record("b")
        task.spawn(record, "c")
        record("d")
        task.wait()
        record("g")
      end)
      record("e")
    end)
    record("f")
    scheduler.poll()
    assert.are.same({ "a", "b", "c", "d", "e", "f", "g" }, list)
  end)

  it("returns the coroutine that runs the function, whether it waits, has ended or failed", function()
    local inside
    local function note()
      inside = coroutine.running()
    end
    assert.are.equal(task.spawn(note), inside)
    local co = task.spawn(function()
      note()
      task.wait()
    end)
    assert.are.equal(co, inside)
    uncaught(function()
      co = task.spawn(function()
        note()
        error("x")
      end)
    end)
    assert.are.equal(co, inside)
    assert.are.equal("dead", coroutine.status(co))
    scheduler.poll()
  end)

  it("within a task that another one has resumed tells where each was spawned", function()
    local line
    local errors = uncaught(function()
      local parked = task.spawn(coroutine.yield)
      line = line_here() + 1
      task.spawn(function()
        coroutine.resume(parked)
        task.wait()
        error("x")
      end)
      scheduler.poll()
    end)
    assert.matches("^a task spawned at .*task_spec%.lua:" .. line .. "$", errors[1].source)
  end)

  it("deeper than Lua can nest coroutines fails with an error that is reported, and the program goes on", function()
    local result = child.script([[
      local reported = 0
      scheduler.on_error(function(err)
        reported = reported + 1
        assert(tostring(err):find("overflow"), err)
      end)
      local depth = 0
      local function deeper()
        depth = depth + 1
        if depth < 10000 then scheduler.task.spawn(deeper) end
      end
      scheduler.task.spawn(deeper)
      scheduler.setTimeout(print, 1, "goes on")
      scheduler.run()
      print(reported >= 1 or depth == 10000, depth > 100)
    ]])
    assert.are.equal("goes on\ntrue\ttrue\n", result.out)
    assert.are.equal(0, result.code, result.err)
  end)
end)

describe("defer", function()
  virtual.setup(before_each, after_each)

  it("runs the function later, first in first out", function()
    local list, record = recorder()
    task.defer(record, "B")
    task.defer(record, "C")
    record("A")
    scheduler.poll()
    assert.are.same({ "A", "B", "C" }, list)
  end)

  it("runs after what was spawned and woken in the turn", function()
    local list, record = recorder()
    task.defer(record, "deferred")
    for i = 1, 3 do
      task.spawn(function()
        task.wait()
        record(i)
        task.yield()
        record(i + 3)
      end)
    end
    scheduler.poll()
    assert.are.same({ 1, 2, 3, 4, 5, 6, "deferred" }, list)
  end)

  it("runs the deferrals of a deferral in the same drain, in order, before an immediate", function()
    local list, record = recorder()
    scheduler.setImmediate(record, "immediate")
    task.defer(function()
      record(1)
      task.defer(function()
        record(3)
        task.defer(record, 5)
      end)
      task.defer(record, 4)
    end)
    task.defer(record, 2)
    scheduler.poll()
    assert.are.same({ 1, 2, 3, 4, 5, "immediate" }, list)
  end)

  it("runs what was woken by a deferral before the next but one", function()
    local list, record = recorder()
    task.defer(function()
      task.yield()
      record("woken")
    end)
    task.defer(function()
      record("deferred")
      task.defer(record, "deferred by it")
    end)
    scheduler.poll()
    assert.are.same({ "deferred", "deferred by it", "woken" }, list)
  end)

  it("runs ten thousand in a turn at the most, and the rest first in the next", function()
    local count = 0
    for _ = 1, 25000 do
      task.defer(function()
        count = count + 1
      end)
    end
    for _, expected in ipairs({ 10000, 20000, 25000 }) do
      local alive, wait = scheduler.poll()
      assert.are.equal(expected, count)
      assert.are.equal(expected < 25000, alive)
      if alive then assert.are.equal(0, wait) end
    end
  end)

  it("that goes on for ever lets timers, immediates and sleepers through", function()
    scheduler.clock.resume()
    local last
    local list, record = recorder()
    local function again()
      last = task.defer(again)
    end
    again()
    scheduler.setTimeout(record, 2, "timer")
    scheduler.setImmediate(record, "immediate")
    task.spawn(function()
      task.wait(0.003)
      record("sleeper")
      task.wait(0.001)
      task.cancel(last)
    end)
    scheduler.run()
    table.sort(list)
    assert.are.same({ "immediate", "sleeper", "timer" }, list)
  end)
end)

describe("delay", function()
  virtual.setup(before_each, after_each)

  it("runs the function at its time", function()
    local list, record = recorder()
    task.delay(0.002, record, "later")
    task.delay(0.001, record, "sooner")
    advance(0.999)
    assert.are.same({}, list)
    advance(0.001)
    assert.are.same({ "sooner" }, list)
    advance(1)
    assert.are.same({ "sooner", "later" }, list)
  end)

  it("never runs in the same turn", function()
    local list, record = recorder()
    scheduler.setTimeout(function()
      task.delay(0, record, "of a timer")
      task.delay(-1, record, "negative")
    end)
    task.spawn(function()
      task.wait()
      task.delay(0, record, "of a task")
    end)
    task.defer(function()
      task.delay(nil, record, "of a deferral")
    end)
    scheduler.poll()
    assert.are.same({}, list)
    scheduler.poll()
    assert.are.same({ "of a timer", "negative", "of a task", "of a deferral" }, list)
  end)

  it("of math.huge never runs, does not keep the loop, and can be cancelled", function()
    local list, record = recorder()
    local co = task.delay(math.huge, record, "never")
    assert.is_false(scheduler.poll())
    advance(1e8)
    assert.are.same({}, list)
    task.cancel(co)
  end)

  it("that is huge saturates", function()
    local list, record = recorder()
    local cos = {}
    for i, seconds in ipairs({ 2 ^ 31 / 1000, 2 ^ 53, 1e300 }) do
      cos[i] = task.delay(seconds, record, i)
    end
    advance(2 ^ 31 - 1)
    assert.are.same({}, list)
    advance(1)
    assert.are.same({ 1 }, list)
    task.cancel(cos[2])
    task.cancel(cos[3])
  end)

  it("refuses a delay that is NaN or no number, and leaves no trace", function()
    for shown, seconds in pairs({ NaN = 0 / 0, string = "1", boolean = true, table = {}, ["function"] = ignore }) do
      local line = line_here() + 1
      local ok, message = pcall(function() task.delay(seconds, ignore) end)
      assert.is_false(ok)
      local expected = ("task_spec.lua:%d: bad argument #1 to 'delay' (number expected, got %s)"):format(line, shown)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("refuses what cannot be run, and leaves no trace", function()
    for _, value in ipairs({ 1, "f", {}, false, io.stdout }) do
      local ok, message = pcall(task.delay, 1, value)
      assert.is_false(ok)
      local expected = ("bad argument #2 to 'delay' (function or coroutine expected, got %s)"):format(type(value))
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    assert.is_false(pcall(task.delay, 1))
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)
end)

describe("a turn", function()
  virtual.setup(before_each, after_each)

  it("has what is due, then what is ready, then what is deferred, then immediates", function()
    local list, record = recorder()
    scheduler.setImmediate(record, "immediate")
    task.defer(record, "deferred")
    task.spawn(function()
      task.wait()
      record("ready")
    end)
    scheduler.setTimeout(record, 0, "timer")
    task.delay(0, record, "delayed")
    scheduler.queueMicrotask(record, "microtask")
    scheduler.poll()
    assert.are.same({ "microtask", "timer", "delayed", "ready", "deferred", "immediate" }, list)
  end)

  it("has timers, delays and sleepers by deadline, then by creation", function()
    local list, record = recorder()
    local function sleeper(seconds, value)
      task.spawn(function()
        task.wait(seconds)
        record(value)
      end)
    end
    task.delay(0.005, record, 1)
    scheduler.setTimeout(record, 5, 2)
    sleeper(0.005, 3)
    task.delay(0.006, record, 7)
    sleeper(0.005, 4)
    scheduler.setTimeout(record, 5, 5)
    task.delay(0.005, record, 6)
    advance(10)
    assert.are.same({ 1, 2, 3, 4, 5, 6, 7 }, list)
  end)

  it("drains the microtasks after every single resumption", function()
    local list, record = recorder()
    local function step(value)
      record(value)
      scheduler.queueMicrotask(record, value .. " micro")
    end
    local function waiting(value)
      task.wait()
      step(value)
    end
    task.spawn(waiting, "ready 1")
    task.spawn(waiting, "ready 2")
    task.defer(step, "deferred 1")
    task.defer(step, "deferred 2")
    task.delay(0, step, "delayed 1")
    task.delay(0, step, "delayed 2")
    scheduler.poll()
    local expected = {}
    for _, kind in ipairs({ "delayed", "ready", "deferred" }) do
      for i = 1, 2 do
        expected[#expected + 1] = kind .. " " .. i
        expected[#expected + 1] = kind .. " " .. i .. " micro"
      end
    end
    assert.are.same(expected, list)
  end)

  it("ends after its budget, and the next one goes on with what is left", function()
    scheduler.clock.resume()
    local list, record = recorder()
    local function slow(value)
      record(value)
      local start = os.clock()
      while os.clock() - start < 0.002 do
        ignore()
      end
    end
    local expected = {}
    for i = 1, 50 do
      expected[i], expected[50 + i] = i, 50 + i
      task.defer(slow, 50 + i)
      task.spawn(function()
        task.wait()
        slow(i)
      end)
    end
    assert.is_true(scheduler.poll(1))
    assert.is_true(#list >= 1 and #list < 50, #list)
    repeat
      local before = #list
      scheduler.poll(1)
    until before >= 50 or #list == before
    assert.is_true(#list < 100, #list)
    scheduler.run()
    assert.are.same(expected, list)
  end)

  it("that is stopped leaves what is ready and deferred for the next", function()
    local list, record = recorder()
    task.spawn(function()
      task.wait()
      scheduler.stop()
      record("stops")
    end)
    task.spawn(function()
      task.wait()
      record("ready")
    end)
    task.defer(function()
      scheduler.stop()
      record("stops again")
    end)
    task.defer(record, "deferred")
    scheduler.run()
    assert.are.same({ "stops" }, list)
    scheduler.run()
    assert.are.same({ "stops", "ready", "stops again" }, list)
    scheduler.run()
    assert.are.same({ "stops", "ready", "stops again", "deferred" }, list)
  end)
end)

describe("a task", function()
  virtual.setup(before_each, after_each)

  it("is given its arguments with their count, nils intact", function()
    for name, start in pairs(ways) do
      local got, keep = keeper()
      start(keep)
      start(keep, nil)
      start(keep, false)
      start(keep, nil, nil)
      start(keep, nil, 2)
      start(keep, 1, nil, 3, nil)
      scheduler.poll()
      local expected = {
        { n = 0 },
        { n = 1 },
        { n = 1, false },
        { n = 2 },
        { n = 2, nil, 2 },
        { n = 4, 1, nil, 3, nil },
      }
      assert.are.same(expected, got, name)
    end
  end)

  it("may have 200 arguments", function()
    local args = {}
    for i = 1, 200 do
      args[i] = i
    end
    for name, start in pairs(ways) do
      local got
      start(function(...)
        got = { ... }
      end, unpack(args))
      scheduler.poll()
      assert.are.same(args, got, name)
    end
  end)

  it("may be made of a callable table or userdata", function()
    for name, start in pairs(ways) do
      local list, record = recorder()
      for i, callable in ipairs(callables(function(self, ...) record({ self, ... }) end)) do
        start(callable, "x", "y")
        scheduler.poll()
        assert.are.equal(callable, list[i][1], name)
        assert.are.same({ "x", "y" }, { list[i][2], list[i][3] })
      end
    end
  end)

  it("runs in the coroutine that was returned", function()
    for name, start in pairs(ways) do
      local inside
      local co = start(function()
        inside = coroutine.running()
      end)
      assert.are.equal("thread", type(co))
      scheduler.poll()
      assert.are.equal(co, inside, name)
    end
  end)

  it("made of what cannot be run is refused at the line of the call", function()
    for _, name in ipairs({ "spawn", "defer" }) do
      for _, value in ipairs({ 1, "f", {}, true, io.stdout, setmetatable({}, {}) }) do
        local line = line_here() + 1
        local ok, message = pcall(function() task[name](value, 1) end)
        assert.is_false(ok)
        local text = "task_spec.lua:%d: bad argument #1 to '%s' (function or coroutine expected, got %s)"
        assert.is_truthy(message:find(text:format(line, name, type(value)), 1, true), message)
      end
      assert.is_false(pcall(task[name]))
      assert.is_false(pcall(task[name], nil, 1))
    end
    assert.is_false(scheduler.poll())
  end)
end)

describe("an error in a task", function()
  virtual.setup(before_each, after_each)

  it("goes to the handler once, and whoever started it goes on", function()
    for name, start in pairs(ways) do
      local went_on = false
      local errors = uncaught(function()
        task.spawn(function()
          start(error, "boom", 0)
          went_on = true
        end)
        scheduler.poll()
        scheduler.poll()
      end)
      assert.are.equal(1, #errors, name)
      assert.are.equal("boom", errors[1].err)
      assert.is_true(went_on)
    end
  end)

  it("has the traceback of its coroutine, and where it was spawned", function()
    local function fails_in_here(waits)
      if waits then task.wait() end
      error("boom")
    end
    for _, waits in ipairs({ false, true }) do
      for name, start in pairs(ways) do
        local line
        local errors = uncaught(function()
          line = line_here() + 1
          start(function() fails_in_here(waits) end)
          scheduler.poll()
          scheduler.poll()
        end)
        assert.are.equal(1, #errors)
        assert.matches("task_spec%.lua:%d+: boom$", errors[1].err)
        assert.matches("^stack traceback:.*fails_in_here", errors[1].traceback)
        -- `ways.delay` is a function of this file as well, in which the call is a tail call.
        if name ~= "delay" then
          assert.matches("^a task spawned at .*task_spec%.lua:" .. line .. "$", errors[1].source)
        end
      end
    end
  end)

  it("names the place of a delay, and of one started through pcall", function()
    local lines = {}
    local errors = uncaught(function()
      lines[1] = line_here() + 1
      task.delay(0.001, error, "x")
      lines[2] = line_here() + 1
      pcall(task.spawn, error, "x")
      lines[3] = line_here() + 1
      pcall(task.defer, error, "x")
      advance(1)
    end)
    local sources = {}
    for i, err in ipairs(errors) do
      sources[i] = tonumber(err.source:match("^a task spawned at .*task_spec%.lua:(%d+)$"))
    end
    table.sort(sources)
    assert.are.same(lines, sources)
  end)

  it("keeps its value, whatever it is", function()
    local values = { "text", 42, false, { code = 1 }, ignore, io.stdout, coroutine.create(ignore) }
    for name, start in pairs(ways) do
      local errors = uncaught(function()
        for _, value in ipairs(values) do
          start(error, value, 0)
        end
        start(error, nil)
        scheduler.poll()
      end)
      assert.are.equal(#values + 1, #errors, name)
      for i, value in ipairs(values) do
        assert.are.equal(value, errors[i].err)
      end
      assert.are.equal(raised.none, errors[#errors].err)
    end
  end)

  it("does not keep others from running, before or after", function()
    local list, record = recorder()
    local errors = uncaught(function()
      for i = 1, 3 do
        task.spawn(function()
          task.wait()
          record(i)
          error("x")
        end)
        task.defer(function()
          record("deferred " .. i)
          error("x")
        end)
      end
      scheduler.poll()
    end)
    assert.are.equal(6, #errors)
    assert.are.same({ 1, 2, 3, "deferred 1", "deferred 2", "deferred 3" }, list)
  end)

  it("that reaches whoever resumed it by hand is not reported as well", function()
    local errors = uncaught(function()
      local co = task.spawn(function()
        task.wait(1)
        error("boom", 0)
      end)
      local ok, err = coroutine.resume(co)
      assert.is_false(ok)
      assert.are.equal("boom", err)
      advance(2000)
    end)
    assert.are.same({}, errors)
  end)

  it("may spawn tasks in the handler", function()
    local list, record = recorder()
    local former = scheduler.on_error(function(err)
      task.spawn(record, err)
      task.defer(record, "deferred")
    end)
    task.spawn(error, "boom", 0)
    scheduler.poll()
    scheduler.on_error(former)
    assert.are.same({ "boom", "deferred" }, list)
  end)
end)
