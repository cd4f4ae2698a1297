local scheduler = require("scheduler")
local virtual = require("spec.support.virtual")

local unpack = table.unpack or unpack
local advance, recorder = virtual.advance, virtual.recorder
local setTimeout, setInterval, setImmediate = scheduler.setTimeout, scheduler.setInterval, scheduler.setImmediate
local clearTimeout, queueMicrotask = scheduler.clearTimeout, scheduler.queueMicrotask

local function ignore() end

--- Runs `fn` with the errors that reach `on_error` kept in a list.
local function collecting_errors(fn)
  local errors, record = recorder()
  local former = scheduler.on_error(function(err, traceback, source)
    record({ err = err, traceback = traceback, source = source })
  end)
  fn()
  scheduler.on_error(former)
  return errors
end

describe("timer ids", function()
  virtual.setup(before_each, after_each)

  it("are whole numbers above 0 and below 2^53, and never used again", function()
    local seen = {}
    for i = 1, 3000 do
      local id = (i % 3 == 0 and setImmediate or setTimeout)(ignore)
      assert.is_number(id)
      assert.is_true(id > 0 and id < 2 ^ 53 and id % 1 == 0)
      assert.is_nil(seen[id])
      seen[id] = true
      clearTimeout(id)
    end
  end)

  it("may be cleared when nil, unknown, fired or cleared already", function()
    local fired, cleared = setTimeout(ignore, 1), setTimeout(ignore, 1)
    clearTimeout(cleared)
    advance(1)
    for _, clear in ipairs({ clearTimeout, scheduler.clearInterval, scheduler.clearImmediate }) do
      clear()
      clear(nil)
      for _, id in ipairs({ 0, -1, 0.5, 2 ^ 52, 2 ^ 60, math.huge, -math.huge, 0 / 0, fired, cleared }) do
        clear(id)
      end
    end
  end)

  it("that are no numbers are refused", function()
    for _, id in ipairs({ "1", true, {}, print }) do
      assert.has_error(function()
        clearTimeout(id)
      end)
    end
    local _, message = pcall(clearTimeout, "1")
    assert.matches("bad argument #1 to 'clearTimeout' %(number expected, got string%)", message)
  end)

  it("are the same for clearTimeout, clearInterval and clearImmediate", function()
    local list, record = recorder()
    scheduler.clearImmediate(setTimeout(record, 1, "timeout"))
    clearTimeout(setInterval(record, 1, "interval"))
    scheduler.clearInterval(setImmediate(record, "immediate"))
    advance(5)
    assert.are.same({}, list)
  end)
end)

describe("order", function()
  virtual.setup(before_each, after_each)

  it("is by deadline", function()
    local list, record = recorder()
    for _, ms in ipairs({ 30, 10, 20, 0, 10.5 }) do
      setTimeout(record, ms, ms)
    end
    advance(40)
    assert.are.same({ 0, 10, 10.5, 20, 30 }, list)
  end)

  it("is that of creation for equal deadlines, whatever the delays", function()
    local list, record = recorder()
    setTimeout(record, 20, "first")
    setTimeout(function()
      setTimeout(record, 10, "second")
    end, 10)
    setTimeout(function()
      setTimeout(record, 5, "third")
    end, 15)
    advance(20)
    assert.are.same({ "first", "second", "third" }, list)
  end)

  it("is kept when many are late at once", function()
    scheduler.clock.resume()
    local expected, fired, record = {}, recorder()
    local start = scheduler.now()
    for i = 1, 20 do
      expected[i] = i
      setTimeout(record, (21 - i) * 5, 21 - i)
    end
    local took = scheduler.now() - start
    while scheduler.now() - start < 120 do
      ignore()
    end
    scheduler.poll()
    assert.are.equal(20, #fired)
    -- On a machine so busy that setting them took as long as they lie apart, their deadlines are others.
    if took < 5 then assert.are.same(expected, fired) end
  end)

  it("of ten thousand random timers is that of a sorted list", function()
    local expected, fired, record = {}, recorder()
    for i = 1, 10000 do
      local ms = math.random(0, 500) / 4
      expected[i] = { ms = ms, i = i }
      setTimeout(record, ms, i)
    end
    table.sort(expected, function(a, b)
      if a.ms ~= b.ms then return a.ms < b.ms end
      return a.i < b.i
    end)
    for i = 1, #expected do
      expected[i] = expected[i].i
    end
    advance(200)
    assert.are.same(expected, fired)
  end)
end)

describe("a turn", function()
  virtual.setup(before_each, after_each)

  it("does not fire what its callbacks set, 0 ms included", function()
    local list, record = recorder()
    setTimeout(function()
      record("timer")
      setTimeout(record, 0, "set in it")
    end, 0)
    setImmediate(record, "immediate")
    scheduler.poll()
    assert.are.same({ "timer", "immediate" }, list)
    scheduler.poll()
    assert.are.same({ "timer", "immediate", "set in it" }, list)
  end)

  it("has a now that stands still, although delays count from the call", function()
    scheduler.clock.resume()
    local before, after, elapsed
    setTimeout(function()
      before = scheduler.now()
      local start = os.clock()
      while os.clock() - start < 0.02 do
        ignore()
      end
      after = scheduler.now()
      setTimeout(function()
        elapsed = scheduler.now() - after
      end, 10)
    end, 0)
    scheduler.run()
    assert.are.equal(before, after)
    -- Counted from the start of the turn it would have fired after 10 ms, half of which the callback took.
    assert.is_true(elapsed >= 25, elapsed)
  end)
end)

describe("a delay", function()
  virtual.setup(before_each, after_each)

  it("that is missing, nil or negative is 0", function()
    local list, record = recorder()
    setTimeout(function()
      record("missing")
    end)
    setTimeout(record, nil, "nil")
    setTimeout(record, -5, "negative")
    setTimeout(record, -math.huge, "negative infinite")
    scheduler.poll()
    assert.are.same({ "missing", "nil", "negative", "negative infinite" }, list)
  end)

  it("keeps its fraction", function()
    local list, record = recorder()
    setTimeout(record, 0.6, "later")
    setTimeout(record, 0.3, "sooner")
    advance(0.4)
    assert.are.same({ "sooner" }, list)
    advance(0.3)
    assert.are.same({ "sooner", "later" }, list)
  end)

  it("that is NaN or no number is refused, and leaves no trace", function()
    for _, set in ipairs({ setTimeout, setInterval }) do
      for _, ms in ipairs({ 0 / 0, "10", true, ignore }) do
        assert.is_false(pcall(set, ignore, ms))
      end
    end
    local _, message = pcall(setTimeout, ignore, "10")
    assert.matches("bad argument #2 to 'setTimeout' %(number expected, got string%)", message)
    _, message = pcall(setInterval, ignore, "10")
    assert.matches("bad argument #2 to 'setInterval' %(number expected, got string%)", message)
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("of math.huge never ends and does not keep the loop", function()
    local list, record = recorder()
    local id = setTimeout(record, math.huge, "never")
    local interval = setInterval(record, math.huge, "never")
    scheduler.clock.resume()
    scheduler.run()
    scheduler.clock.pause()
    advance(1e8)
    assert.are.same({}, list)
    assert.are.equal(2, scheduler.stats().timers_pending)
    clearTimeout(id)
    clearTimeout(interval)
  end)

  it("that is huge saturates, where 2^31 would wrap to 1 ms", function()
    local list, record = recorder()
    local ids = {}
    for i, ms in ipairs({ 2 ^ 31, 2 ^ 32 + 1, 2 ^ 53, 1e300 }) do
      ids[i] = setTimeout(record, ms, i)
    end
    advance(2 ^ 31 - 1)
    assert.are.same({}, list)
    advance(1)
    assert.are.same({ 1 }, list)
    for _, id in ipairs(ids) do
      clearTimeout(id)
    end
  end)
end)

describe("a callback", function()
  virtual.setup(before_each, after_each)

  it("is given its arguments with their count, nils intact", function()
    local results = {}
    local function keep(...)
      results[#results + 1] = { n = select("#", ...), ... }
    end
    for _, set in ipairs({
      function(...)
        setTimeout(keep, 0, ...)
      end,
      function(...)
        setImmediate(keep, ...)
      end,
      function(...)
        queueMicrotask(keep, ...)
      end,
    }) do
      results = {}
      set()
      set(nil)
      set(nil, nil)
      set(1, nil, 3, nil)
      scheduler.poll()
      assert.are.same({ { n = 0 }, { n = 1 }, { n = 2 }, { n = 4, 1, nil, 3, nil } }, results)
    end
  end)

  it("may have 200 arguments", function()
    local args, got = {}, nil
    for i = 1, 200 do
      args[i] = i
    end
    local id = setInterval(function(...)
      got = { ... }
    end, 1, unpack(args))
    advance(2)
    clearTimeout(id)
    assert.are.same(args, got)
  end)

  it("runs in a coroutine", function()
    local co, is_main
    setTimeout(function()
      co, is_main = coroutine.running()
    end)
    scheduler.poll()
    assert.are.equal("thread", type(co))
    assert.is_falsy(is_main)
  end)

  it("may be a callable table or userdata", function()
    local list, record = recorder()
    local callable = setmetatable({}, {
      __call = function(self, value)
        record({ self, value })
      end,
    })
    for _, set in ipairs({ setTimeout, setInterval }) do
      clearTimeout(set(callable, 1, "x"))
    end
    setTimeout(callable, 0, "timeout")
    setTimeout(callable)
    setImmediate(callable, "immediate")
    queueMicrotask(callable, "microtask")
    scheduler.poll()
    assert.are.same({ callable, "microtask" }, list[1])
    assert.are.same({ callable, "timeout" }, list[2])
    assert.are.same({ callable }, list[3])
    assert.are.same({ callable, "immediate" }, list[4])
  end)

  it("may be a userdata with __call", function()
    if not newproxy then return end -- luacheck: ignore 113
    local called
    local proxy = newproxy(true) -- luacheck: ignore 113
    getmetatable(proxy).__call = function(_, value)
      called = value
    end
    setTimeout(proxy, 0, "yes")
    scheduler.poll()
    assert.are.equal("yes", called)
  end)

  it("that cannot be called is refused at the call, and leaves no trace", function()
    for name, set in pairs({
      setTimeout = setTimeout,
      setInterval = setInterval,
      setImmediate = setImmediate,
      queueMicrotask = queueMicrotask,
    }) do
      for _, value in ipairs({ 1, "print", {}, true, io.stdout, setmetatable({}, {}) }) do
        local ok, message = pcall(set, value, 1)
        assert.is_false(ok)
        local expected = ("bad argument #1 to '%s' (function expected, got %s)"):format(name, type(value))
        assert.is_truthy(message:find(expected, 1, true), message)
      end
      assert.is_false(pcall(set))
      assert.is_false(pcall(set, nil, 1))
    end
    assert.are.equal(0, scheduler.stats().timers_pending)
    assert.are.equal(0, scheduler.stats().microtasks_pending)
  end)

  it("that has waited ends its coroutine, and one that has not cannot be resumed from outside", function()
    local waited, quick
    local list, record = recorder()
    setTimeout(function()
      quick = coroutine.running()
    end)
    setTimeout(function()
      waited = coroutine.running()
      record(coroutine.yield())
      queueMicrotask(record, "microtask")
    end)
    setTimeout(record, 0, "next")
    scheduler.poll()
    assert.are.same({ "next" }, list)
    assert.are.equal(1, select("#", coroutine.resume(waited, "by hand")))
    assert.are.equal("dead", coroutine.status(waited))
    scheduler.poll()
    assert.are.same({ "next", "by hand", "microtask" }, list)
    for _ = 1, 3 do
      coroutine.resume(quick, 1, 2)
    end
    setTimeout(record, 0, "last")
    scheduler.poll()
    assert.are.same({ "next", "by hand", "microtask", "last" }, list)
  end)

  it("that was given badly is reported at the line of the call", function()
    local _, message = pcall(function()
      setTimeout(nil, 5)
    end)
    assert.matches("^[^\n]*timer_spec%.lua:%d+: bad argument #1", message)
    _, message = pcall(function()
      setTimeout(ignore, {})
    end)
    assert.matches("^[^\n]*timer_spec%.lua:%d+: bad argument #2", message)
    _, message = pcall(function()
      setInterval(ignore, {})
    end)
    assert.matches("^[^\n]*timer_spec%.lua:%d+: bad argument #2", message)
    _, message = pcall(function()
      clearTimeout({})
    end)
    assert.matches("^[^\n]*timer_spec%.lua:%d+: bad argument #1", message)
  end)
end)

describe("an interval", function()
  virtual.setup(before_each, after_each)

  it("keeps to its schedule and fires once for what it has missed", function()
    local times, record = recorder()
    local start = scheduler.now()
    local id = setInterval(function()
      record(virtual.since(start))
    end, 10)
    advance(35)
    assert.are.same({ 10, 20, 30 }, times)
    clearTimeout(id)
  end)

  it("that is late fires once and goes on with the schedule", function()
    scheduler.clock.resume()
    local fired = 0
    local id = setInterval(function()
      fired = fired + 1
    end, 1)
    local start = os.clock()
    while os.clock() - start < 0.05 do
      ignore()
    end
    scheduler.poll()
    assert.are.equal(1, fired)
    clearTimeout(id)
  end)

  it("of 0 or less is one of 1 ms", function()
    for _, ms in ipairs({ 0, -5 }) do
      local fired = 0
      local id = setInterval(function()
        fired = fired + 1
      end, ms)
      advance(5)
      clearTimeout(id)
      assert.are.equal(5, fired)
    end
  end)

  it("may have a fraction of a millisecond", function()
    local fired = 0
    local id = setInterval(function()
      fired = fired + 1
    end, 0.25)
    advance(2)
    clearTimeout(id)
    assert.are.equal(8, fired)
  end)

  it("cleared in its own callback does not fire again", function()
    local fired, id = 0, nil
    id = setInterval(function()
      fired = fired + 1
      if fired == 3 then clearTimeout(id) end
    end, 1)
    advance(10)
    assert.are.equal(3, fired)
  end)

  it("goes on when its callback raises, every time", function()
    local errors = collecting_errors(function()
      local id = setInterval(function()
        error("again", 0)
      end, 1)
      advance(5)
      clearTimeout(id)
    end)
    assert.are.equal(5, #errors)
    assert.are.equal("again", errors[5].err)
  end)

  it("passes its arguments at each tick", function()
    local list, record = recorder()
    local id = setInterval(record, 1, "x")
    advance(3)
    clearTimeout(id)
    assert.are.same({ "x", "x", "x" }, list)
  end)

  it("skips ticks while its callback waits, or overlaps if it is told to", function()
    for _, overlap in ipairs({ false, true }) do
      local started, waiting = 0, {}
      local id = setInterval(function()
        started = started + 1
        waiting[#waiting + 1] = coroutine.running()
        coroutine.yield()
      end, { ms = 10, overlap = overlap })
      advance(35)
      assert.are.equal(overlap and 3 or 1, started)
      local first = waiting[1]
      coroutine.resume(first)
      advance(10)
      assert.are.equal(overlap and 4 or 2, started)
      clearTimeout(id)
    end
  end)

  it("goes on after a callback that waited has failed", function()
    local started, co = 0, nil
    local id = setInterval(function()
      started, co = started + 1, coroutine.running()
      coroutine.yield()
      error("after the wait")
    end, 10)
    advance(10)
    assert.is_false(coroutine.resume(co))
    advance(10)
    assert.are.equal(2, started)
    clearTimeout(id)
  end)

  it("goes on after the coroutine of a waiting callback was collected", function()
    local started = 0
    local id = setInterval(function()
      started = started + 1
      coroutine.yield()
    end, 10)
    advance(10)
    collectgarbage()
    collectgarbage()
    advance(10)
    assert.are.equal(2, started)
    clearTimeout(id)
  end)

  it("treats missed ticks as its option says", function()
    scheduler.clock.resume()
    for _, missed in ipairs({ "skip", "burst" }) do
      local fired = 0
      local id = setInterval(function()
        fired = fired + 1
      end, { ms = 10, missed = missed })
      local start = scheduler.now()
      while scheduler.now() - start < 55 do
        ignore()
      end
      local late = scheduler.now()
      -- On a busy machine that takes longer.
      local expected = missed == "skip" and 1 or math.floor((late - start) / 10)
      for _ = 1, 20 do
        scheduler.poll()
      end
      clearTimeout(id)
      -- The polls take next to no time; there, too, more ticks may come due meanwhile.
      local more = math.floor((scheduler.now() - late) / 10) + 1
      assert.is_true(fired >= expected and fired <= expected + more, missed .. " fired " .. fired)
    end
  end)

  it("refuses bad options", function()
    for _, options in ipairs({ {}, { ms = "1" }, { ms = 1, missed = "sometimes" }, { ms = 0 / 0 } }) do
      assert.is_false(pcall(setInterval, ignore, options))
    end
    local _, message = pcall(setInterval, ignore, { ms = 1, missed = "sometimes" })
    assert.matches("field 'missed' must be", message)
  end)
end)

describe("clearing", function()
  virtual.setup(before_each, after_each)

  it("stops another timer that is due in the same pass", function()
    local list, record = recorder()
    local second
    setTimeout(function()
      record("first")
      clearTimeout(second)
    end, 5)
    second = setTimeout(record, 5, "second")
    setTimeout(record, 5, "third")
    advance(5)
    assert.are.same({ "first", "third" }, list)
  end)

  it("stops an immediate of the same turn", function()
    local list, record = recorder()
    local second
    setImmediate(function()
      clearTimeout(second)
    end)
    second = setImmediate(record, "second")
    scheduler.poll()
    assert.are.same({}, list)
  end)

  it("lets go of the callback", function()
    local weak = setmetatable({}, { __mode = "k" })
    -- A function of its own, as a local that went out of scope may linger on the stack of the one that had it.
    local function set_and_clear()
      local big = {}
      weak[big] = true
      local function hold()
        return big
      end
      clearTimeout(setTimeout(hold, 1000))
      clearTimeout(setInterval(hold, 1000))
      clearTimeout(setTimeout(ignore, 1000, big))
      setTimeout(hold, 0)
      scheduler.poll()
    end
    set_and_clear()
    if jit then jit.flush() end -- compiled code holds the functions that it was compiled for
    for _ = 1, 3 do
      setTimeout(ignore)
      scheduler.poll()
      collectgarbage()
    end
    assert.is_nil(next(weak))
  end)
end)

describe("immediates", function()
  virtual.setup(before_each, after_each)

  it("run after due timers, first in first out; those queued inside one in the next turn", function()
    local list, record = recorder()
    setImmediate(function()
      record("one")
      setImmediate(record, "inner")
    end)
    setImmediate(record, "two")
    setTimeout(function()
      record("timer")
      setImmediate(record, "of the timer")
    end, 0)
    scheduler.poll()
    assert.are.same({ "timer", "one", "two", "of the timer" }, list)
    scheduler.poll()
    assert.are.equal("inner", list[5])
  end)

  it("that queue themselves for ever let timers through", function()
    local fired, id = false, nil
    local function again()
      id = setImmediate(again)
    end
    again()
    setTimeout(function()
      fired = true
      clearTimeout(id)
    end, 5)
    scheduler.clock.resume()
    scheduler.run()
    assert.is_true(fired)
  end)
end)

describe("microtasks", function()
  virtual.setup(before_each, after_each)

  it("are drained after every callback, before anything else", function()
    local list, record = recorder()
    for _, set in ipairs({ setTimeout, setImmediate }) do
      for i = 1, 2 do
        set(function()
          record("callback " .. i)
          queueMicrotask(function()
            record("microtask " .. i)
            queueMicrotask(record, "nested " .. i)
          end)
        end)
      end
    end
    scheduler.poll()
    local once = { "callback 1", "microtask 1", "nested 1", "callback 2", "microtask 2", "nested 2" }
    for i = 1, 6 do
      assert.are.equal(once[i], list[i])
      assert.are.equal(once[i], list[i + 6])
    end
  end)

  it("queued outside of the loop run in the next turn and keep it alive", function()
    local list, record = recorder()
    queueMicrotask(record, 1)
    queueMicrotask(record, 2)
    assert.are.same({}, list)
    scheduler.run()
    assert.are.same({ 1, 2 }, list)
  end)

  it("that fail do not stop those behind them", function()
    local list, record = recorder()
    local errors = collecting_errors(function()
      queueMicrotask(error, "first", 0)
      queueMicrotask(record, "second")
      queueMicrotask(function()
        error("third", 0)
      end)
      queueMicrotask(record, "fourth")
      scheduler.poll()
    end)
    assert.are.same({ "second", "fourth" }, list)
    assert.are.equal("first", errors[1].err)
    assert.are.equal("third", errors[2].err)
    assert.matches("a microtask defined at .*timer_spec%.lua:%d+", errors[2].source)
  end)

  it("may wait while those behind them go on", function()
    local list, record = recorder()
    local co
    queueMicrotask(function()
      co = coroutine.running()
      record("begins")
      record(coroutine.yield())
    end)
    queueMicrotask(record, "next")
    scheduler.poll()
    coroutine.resume(co, "goes on")
    assert.are.same({ "begins", "next", "goes on" }, list)
  end)
end)

describe("ref and unref", function()
  virtual.setup(before_each, after_each)

  it("decide whether run waits for the timer", function()
    scheduler.clock.resume()
    local list, record = recorder()
    local id = setTimeout(record, 100000, "unref'd")
    assert.is_true(scheduler.hasRef(id))
    assert.are.equal(id, scheduler.unref(id))
    assert.is_false(scheduler.hasRef(id))
    setTimeout(record, 1, "ref'd")
    scheduler.run()
    assert.are.same({ "ref'd" }, list)
    scheduler.ref(id)
    assert.is_true(scheduler.hasRef(id))
    clearTimeout(id)
    assert.is_false(scheduler.hasRef(id))
  end)

  it("an unref'd timer fires while the loop is alive", function()
    scheduler.clock.resume()
    local list, record = recorder()
    scheduler.unref(setTimeout(record, 1, "unref'd"))
    setTimeout(record, 3, "ref'd")
    scheduler.run()
    assert.are.same({ "unref'd", "ref'd" }, list)
  end)

  it("refuse what is no number and ignore dead ids", function()
    for _, name in ipairs({ "ref", "unref", "hasRef", "refresh" }) do
      local _, message = pcall(scheduler[name], "x")
      assert.matches("bad argument #1 to '" .. name .. "' %(number expected, got string%)", message)
      scheduler[name](123456789)
    end
  end)
end)

describe("refresh", function()
  virtual.setup(before_each, after_each)

  it("starts the delay anew", function()
    local list, record = recorder()
    local id = setTimeout(record, 10, "fired")
    advance(6)
    assert.is_true(scheduler.refresh(id))
    advance(6)
    assert.are.same({}, list)
    advance(4)
    assert.are.same({ "fired" }, list)
    assert.is_false(scheduler.refresh(id))
  end)

  it("starts the schedule of an interval anew", function()
    local times, record = recorder()
    local start = scheduler.now()
    local id = setInterval(function()
      record(virtual.since(start))
    end, 10)
    advance(15)
    scheduler.refresh(id)
    advance(20)
    clearTimeout(id)
    assert.are.same({ 10, 25, 35 }, times)
  end)
end)

describe("timers are set", function()
  virtual.setup(before_each, after_each)

  it("from coroutines and from callbacks", function()
    local list, record = recorder()
    local co = coroutine.create(function()
      setTimeout(record, 1, "from a coroutine")
    end)
    coroutine.resume(co)
    co = nil -- luacheck: ignore 311
    collectgarbage()
    setTimeout(function()
      setTimeout(record, 1, "from a callback")
    end, 1)
    advance(3)
    assert.are.same({ "from a coroutine", "from a callback" }, list)
  end)

  it("by the million, and cleared, and fired", function()
    local count, fired = 1000000, 0
    local ids = {}
    for i = 1, count do
      ids[i] = setTimeout(ignore, i % 1000)
    end
    assert.are.equal(count, scheduler.stats().timers_pending)
    for i = 1, count do
      clearTimeout(ids[i])
    end
    assert.are.equal(0, scheduler.stats().timers_pending)
    local function count_up()
      fired = fired + 1
    end
    for i = 1, count do
      setTimeout(count_up, i % 1000)
    end
    advance(1000)
    assert.are.equal(count, fired)
  end)
end)
