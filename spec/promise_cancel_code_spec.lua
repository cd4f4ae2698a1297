-- The code that a cancellation calls or interrupts: hooks, what works for a promise, coroutines that await it.

local scheduler = require("scheduler")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, open = promised.counted, promised.outcome, promised.open
local resolved, pending = promised.resolved, promised.pending
local statuses, assert_cancelled = promised.statuses, promised.assert_cancelled

local function ignore() end

describe("hooks for the cancellation", function()
  local reported = promised.setup(before_each, after_each)

  it("are called with the reason, in their order, and none otherwise", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    for i = 1, 3 do
      assert.is_false(on_cancel(function(...)
        record(i)
        record(counted(...))
      end))
    end
    promise:cancel("reason")
    promise:cancel("other")
    assert.are.same({ 1, counted("reason"), 2, counted("reason"), 3, counted("reason") }, list)
    for _, settle in ipairs({ 1, 2 }) do
      local other, resolve, reject, on_cancel_other = open()
      other:catch(ignore)
      on_cancel_other(record);
      ({ resolve, reject })[settle]()
      other:cancel()
      on_cancel_other(record)
      scheduler.poll()
      assert.is_false(on_cancel_other())
    end
    assert.are.equal(6, #list)
  end)

  it("are called by a cancellation from below and from above", function()
    local list, record = recorder()
    local function with_hook(name)
      local promise, resolve, _, on_cancel = open()
      on_cancel(function(reason)
        record(name .. reason)
      end)
      return promise, resolve
    end
    with_hook("up "):andThen(ignore):catch(ignore):cancel(1)
    local inner = with_hook("inner ")
    local outer, resolve_outer = with_hook("outer ")
    resolve_outer(inner)
    inner:cancel(2)
    local inner_two = with_hook("inner two ")
    local outer_two, resolve_outer_two = with_hook("outer two ")
    resolve_outer_two(inner_two)
    outer_two:cancel(3)
    scheduler.poll()
    assert.are.equal("Cancelled", outer:getStatus())
    assert.are.same({ "up 1", "inner 2", "outer 2", "outer two 3", "inner two 3" }, list)
  end)

  it("that are added afterwards are called at once, and the state is told", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    assert.is_false(on_cancel())
    promise:cancel("reason")
    assert.is_true(on_cancel())
    assert.is_true(on_cancel(function(...)
      record(counted(...))
    end))
    assert.are.same({ counted("reason") }, list)
  end)

  it("may be callable tables, and are refused else", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    on_cancel(setmetatable({}, {
      __call = function(_, reason)
        record(reason)
      end,
    }))
    for _, value in ipairs({ 1, "text", {}, false }) do
      promised.refuses("bad argument #1 to 'onCancel' (function expected, got " .. type(value) .. ")", on_cancel, value)
    end
    promise:cancel("reason")
    assert.are.same({ "reason" }, list)
  end)

  it("may wait, and hold nobody up", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    on_cancel(function()
      record("waits")
      task.wait(1)
      record("waited")
    end)
    on_cancel(function()
      record("second")
    end)
    promise:cancel()
    assert_cancelled(promise)
    assert.are.same({ "waits", "second" }, list)
    advance(1000)
    assert.are.same({ "waits", "second", "waited" }, list)
  end)

  it("that fail are reported, and the others are called", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    local child = promise:andThen(ignore)
    on_cancel(function()
      error("hook", 0)
    end)
    on_cancel(function()
      task.wait(1)
      error("late hook", 0)
    end)
    on_cancel(record)
    promise:cancel("reason")
    assert_cancelled(child, "reason")
    advance(1000)
    assert.are.same({ "reason" }, list)
    local errors = reported()
    assert.are.equal(2, #errors)
    assert.are.equal("hook", errors[1].err)
    assert.are.equal("late hook", errors[2].err)
  end)

  it("see the promise cancelled, and may cancel and settle what they like", function()
    local list, record = recorder()
    local promise, resolve, reject, on_cancel = open()
    local other, resolve_other = open()
    on_cancel(function()
      record(promise:getStatus())
      promise:cancel("again")
      resolve(1)
      reject(2)
      resolve_other("from a hook")
      record(on_cancel())
    end)
    promise:cancel("reason")
    assert_cancelled(promise, "reason")
    assert.are.same(resolved("from a hook"), outcome(other))
    assert.are.same({ "Cancelled", true }, list)
  end)

  it("may cancel the other end of the chain", function()
    local list, record = recorder()
    local promise, _, _, on_cancel = open()
    local child = promise:andThen(ignore)
    local last = child:andThen(ignore):finally(record)
    on_cancel(function()
      last:cancel("hook")
      child:cancel("hook")
    end)
    child:cancel("reason")
    scheduler.poll()
    assert.are.same({ "Cancelled" }, list)
    assert.are.same({ promise = "Cancelled", child = "Cancelled", last = "Cancelled" },
      statuses({ promise = promise, child = child, last = last }))
  end)
end)

describe("the code that works for a promise that is cancelled", function()
  local reported = promised.setup(before_each, after_each)

  --- Ways to make a promise whose code is `fn`.
  local MAKERS = {
    ["an executor"] = Promise.new,
    ["a deferred executor"] = Promise.defer,
    ["an async function"] = function(fn)
      return scheduler.async(fn)()
    end,
    ["Promise.try"] = Promise["try"],
    ["Promise.promisify"] = function(fn)
      return Promise.promisify(fn)()
    end,
    ["a handler"] = function(fn)
      return Promise.resolve():andThen(fn)
    end,
    ["a handler of rejections"] = function(fn)
      return Promise.reject():catch(fn)
    end,
    ["a handler of finally"] = function(fn)
      return Promise.resolve():finally(fn)
    end,
    ["tap"] = function(fn)
      return Promise.resolve():tap(fn)
    end,
    ["a retry"] = function(fn)
      return Promise.retry(fn, 3)
    end,
    ["each"] = function(fn)
      return Promise.each({ 1, 2 }, fn)
    end,
    ["map"] = function(fn)
      return Promise.map({ 1 }, fn)
    end,
    ["fold"] = function(fn)
      return Promise.fold({ 1, 2 }, fn, 0)
    end,
  }

  for name, make in pairs(MAKERS) do
    it("is interrupted in its wait, and may clean up: " .. name, function()
      local list, record = recorder()
      local promise = make(function()
        record("begun")
        local _, err = scheduler.pcall(task.wait, 10)
        record(err)
        error(err, 0)
      end)
      scheduler.poll()
      assert.are.same({ "begun" }, list)
      promise:cancel("reason")
      assert_cancelled(promise, "reason")
      assert.are.equal(2, #list)
      assert.are.equal("cancelled", list[2].kind)
      assert.are.equal("reason", list[2].reason)
      assert.are.equal(0, scheduler.stats().timers_pending)
    end)
  end

  it("does not go on without a protected call", function()
    local list, record = recorder()
    for _, wait in ipairs({ task.wait, coroutine.yield, function() open():expect() end,
      function() Promise.delay(1):await() end, function() task.join(task.delay(0.001, ignore)) end,
      function() task.wait(0) end, function() task.yield() end }) do
      local promise = Promise.new(function(resolve)
        wait(1)
        record("goes on")
        resolve()
      end)
      promise:cancel("reason")
      assert_cancelled(promise, "reason")
    end
    advance(2000)
    assert.are.same({}, list)
  end)

  it("may wait no more while it cleans up", function()
    local list, record = recorder()
    local promise = Promise.new(function()
      scheduler.pcall(task.wait, 1)
      local ok, err = scheduler.pcall(task.wait, 1)
      record(ok)
      record(err.kind)
    end)
    promise:cancel()
    scheduler.poll()
    assert.are.same({ false, "cancelled" }, list)
  end)

  it("tells the error handler what goes wrong while it cleans up", function()
    local promise = Promise.new(function()
      scheduler.pcall(task.wait, 1)
      error("clean-up", 0)
    end)
    promise:cancel()
    local errors = reported()
    assert.are.equal(1, #errors)
    assert.are.equal("clean-up", errors[1].err)
    assert.matches("^the rest of a promise made at .*promise_cancel_code_spec%.lua:%d+$", errors[1].source)
    assert_cancelled(promise)
  end)

  it("fails unnoticed if it fails before it was told: nobody wants its outcome", function()
    local rejects = {}
    local function code()
      scheduler.await(Promise.new(function(_, reject)
        rejects[#rejects + 1] = reject
      end))
    end
    local async = scheduler.async(code)
    for _, group in ipairs({ Promise.all({ async(), async() }), Promise.map({ 1, 2 }, code) }) do
      for i = 1, 2 do
        table.remove(rejects, 1)("failure " .. i)
      end
      assert.are.same({ false, "failure 1" }, { group:await() })
      assert.are.same({}, reported())
    end
  end)

  it("of a map is told of by the place of that", function()
    local map = Promise.map({ 1 }, function()
      scheduler.pcall(task.wait, 1)
      error("clean-up", 0)
    end)
    map:cancel()
    assert.matches("^the rest of a promise made at .*promise_cancel_code_spec%.lua:%d+$", reported()[1].source)
  end)

  it("is told where it waits next, and is heard then if it fails", function()
    local resolve
    local promise = Promise.new(function()
      scheduler.await(Promise.new(function(give)
        resolve = give
      end))
      scheduler.pcall(task.wait, 1)
      error("clean-up", 0)
    end)
    resolve()
    promise:cancel()
    assert.are.equal("clean-up", reported()[1].err)
  end)

  it("may cancel its own promise, and goes on until it waits", function()
    for _, is_late in ipairs({ false, true }) do
      local list, record = recorder()
      local promise
      promise = scheduler.async(function()
        task.wait(is_late and 1 or 0)
        promise:cancel("by itself")
        record("goes on")
        local _, err = scheduler.pcall(task.wait, 1)
        record(err.reason)
        return "dropped"
      end)()
      advance(1000)
      assert.are.same({ "goes on", "by itself" }, list)
      assert_cancelled(promise, "by itself")
    end
  end)

  it("may be cancelled by its executor's caller before it waits", function()
    local list, record = recorder()
    local promise
    promise = Promise.resolve():andThen(function()
      promise:cancel("in the handler")
      record("goes on")
      local _, err = scheduler.pcall(task.wait, 1)
      record(err.reason)
      return "dropped"
    end)
    local child = promise:andThen(record)
    scheduler.poll()
    assert_cancelled(promise, "in the handler")
    assert_cancelled(child, "in the handler")
    assert.are.same({ "goes on", "in the handler" }, list)
  end)

  it("that ends in the same moment has lost", function()
    local promise = Promise["try"](function()
      task.wait()
      return "late"
    end)
    scheduler.setTimeout(ignore)
    promise:cancel("reason")
    advance(0)
    assert_cancelled(promise, "reason")
  end)

  it("is not asked for again by retry", function()
    local calls = 0
    local promise = Promise.retry(function()
      calls = calls + 1
      error("failure", 0)
    end, { times = 10, delay = 1 })
    advance(2000)
    assert.are.equal(3, calls)
    promise:cancel("reason")
    assert.are.equal(0, scheduler.stats().timers_pending)
    advance(10000)
    assert.are.equal(3, calls)
    assert_cancelled(promise, "reason")
  end)

  it("by retry, is cancelled with it", function()
    local inner = open()
    local promise = Promise.retry(function()
      return inner
    end, 3)
    promise:cancel("reason")
    assert_cancelled(inner, "reason")
    assert_cancelled(promise, "reason")
  end)

  it("that is cancelled while retry waits for it is not called again", function()
    local inner, calls = nil, 0
    local promise = Promise.retry(function()
      calls = calls + 1
      inner = open()
      return inner
    end, 3)
    inner:cancel("inner")
    assert_cancelled(promise, "inner")
    assert.are.equal(1, calls)
  end)
end)

-- Lua 5.4's variables that are closed.
local compile = loadstring or load -- luacheck: ignore 113
local make_with_guard = compile([[
  return function(on_close, fn)
    local guard <close> = setmetatable({}, { __close = on_close })
    fn()
  end
]])

if make_with_guard then
  local with_guard = make_with_guard()

  describe("variables to be closed", function()
    local reported = promised.setup(before_each, after_each)

    it("are, when the promise is cancelled", function()
      for _, wait in ipairs({ function() task.wait(1) end, coroutine.yield }) do
        local closed = 0
        local promise = scheduler.async(with_guard)(function()
          closed = closed + 1
        end, wait)
        promise:cancel("reason")
        scheduler.poll()
        assert.are.equal(1, closed)
        assert_cancelled(promise, "reason")
      end
    end)

    it("are, when the code fails, and what fails then is reported", function()
      for _, wait in ipairs({ ignore, task.wait }) do
        local promise = scheduler.async(with_guard)(function()
          error("closing", 0)
        end, function()
          wait()
          error("failed", 0)
        end)
        promise:catch(ignore)
        advance(0)
        local result, errors = outcome(promise), reported()
        assert.are.equal("Rejected", result.status)
        assert.are.equal(1, #errors)
        assert.are.equal("failed", result[1])
        assert.are.equal("closing", errors[1].err)
      end
    end)
  end)
end

--- A task that awaits a promise and notes what it sees: in `record`, the error if it is interrupted.
local function waiter(promise, record)
  return task.spawn(function()
    local ok, err = scheduler.pcall(promise.expect, promise)
    record(ok and "resumed" or err)
  end)
end

describe("a coroutine that awaits a promise", function()
  promised.setup(before_each, after_each)

  --- What interrupts a wait or ends it: functions that start `fn` and return one that cancels it.
  local CANCELS = {
    ["task.cancel"] = function(fn)
      local co = task.spawn(fn)
      return function()
        task.cancel(co)
      end
    end,
    ["a scope"] = function(fn)
      local scope
      task.spawn(scheduler.scope, function(given)
        scope = given
        scope:spawn(fn)
      end)
      return function()
        scope:cancel("reason")
      end
    end,
    ["scheduler.timeout"] = function(fn)
      task.spawn(scheduler.pcall, scheduler.timeout, 1, fn)
      return function()
        advance(1000)
      end
    end,
    ["the cancellation of its async function"] = function(fn)
      local promise = scheduler.async(fn)()
      return function()
        promise:cancel("reason")
      end
    end,
    ["the cancellation of its executor"] = function(fn)
      local promise = Promise.new(fn)
      return function()
        promise:cancel("reason")
      end
    end,
    ["the cancellation of its handler"] = function(fn)
      local promise = Promise.resolve():andThen(fn)
      scheduler.poll()
      return function()
        promise:cancel("reason")
      end
    end,
    ["a failing sibling"] = function(fn)
      local scope
      task.spawn(scheduler.pcall, scheduler.scope, function(given)
        scope = given
        scope:spawn(fn)
        coroutine.yield()
      end)
      return function()
        scope:spawn(error, "failed", 0)
      end
    end,
  }

  for name, start in pairs(CANCELS) do
    it("and is cancelled cancels that, unless others want it: " .. name, function()
      for _, method in ipairs({ "await", "awaitStatus", "expect" }) do
        local promise = open()
        local cancel = start(function()
          promise[method](promise)
          error("goes on")
        end)
        assert.are.equal("Started", promise:getStatus())
        cancel()
        scheduler.poll()
        assert.are.equal("Cancelled", promise:getStatus())
      end
      local wanted, resolve = open()
      local child = wanted:andThen()
      local cancel = start(function()
        wanted:expect()
      end)
      cancel()
      assert.are.same(pending, outcome(wanted))
      resolve(1)
      assert.are.same(resolved(1), outcome(child))
    end)
  end

  it("wants it: neither its child nor another coroutine that leaves ends it", function()
    local list, record = recorder()
    local promise, resolve = open()
    local one, two = waiter(promise, record), waiter(promise, record)
    promise:andThen(ignore):cancel()
    promise:timeout(1):cancel()
    task.cancel(one)
    assert.are.same(pending, outcome(promise))
    resolve(1)
    scheduler.poll()
    assert.are.same({ "resumed" }, list)
    assert.are.equal("done", task.status(two))
  end)

  it("and is the last to be cancelled takes its reason along", function()
    local promise = open()
    local child = promise:andThen(ignore)
    local function wait()
      promise:await()
    end
    local one, two = scheduler.async(wait)(), scheduler.async(wait)()
    child:cancel("child")
    one:cancel("one")
    assert.are.equal("Started", promise:getStatus())
    two:cancel("two")
    assert_cancelled(promise, "two")
  end)

  it("and is resumed by hand leaves it alone", function()
    local promise, resolve = open()
    for _, resume in ipairs({ coroutine.resume, task.spawn, function(co)
      task.defer(co)
      scheduler.poll()
    end }) do
      local co = task.spawn(function()
        promise:await()
      end)
      resume(co)
      assert.are.equal("done", task.status(co))
      assert.are.same(pending, outcome(promise))
    end
    resolve(1)
    assert.are.same(resolved(1), outcome(promise))
  end)

  it("through scheduler.await, or several at once, is the same", function()
    local one, two = open(), open()
    local co = task.spawn(scheduler.await, one)
    task.cancel(co)
    assert.are.equal("Cancelled", one:getStatus())
    one = open()
    local wanted = open()
    wanted:andThen()
    co = task.spawn(scheduler.await, one, two, wanted)
    task.cancel(co)
    assert.are.same({ one = "Cancelled", two = "Cancelled", wanted = "Started" },
      statuses({ one = one, two = two, wanted = wanted }))
  end)

  it("in the inside of a protected call is the same", function()
    local promise = open()
    local list, record = recorder()
    local outer = scheduler.async(function()
      local ok, err = scheduler.pcall(function()
        local _, inner = scheduler.pcall(promise.expect, promise)
        record(inner.reason)
        error(inner, 0)
      end)
      record(ok)
      error(err, 0)
    end)()
    outer:cancel("reason")
    scheduler.poll()
    assert.are.equal("Cancelled", promise:getStatus())
    assert.are.same({ "reason", false }, list)
  end)

  it("that is shielded keeps it alive", function()
    local promise, resolve = open()
    local list, record = recorder()
    local outer = scheduler.async(function()
      scheduler.shield(function()
        record(promise:expect())
      end)
    end)()
    outer:cancel()
    assert.are.same(pending, outcome(promise))
    resolve("shielded")
    scheduler.poll()
    assert.are.same({ "shielded" }, list)
  end)

  it("and was woken already takes the value, and is interrupted later", function()
    local promise, resolve = open()
    local list, record = recorder()
    local outer = scheduler.async(function()
      record(promise:expect())
      record(select(2, scheduler.pcall(task.wait)).kind)
    end)()
    resolve("in time")
    outer:cancel()
    scheduler.poll()
    assert.are.same({ "in time", "cancelled" }, list)
    assert.are.same(resolved("in time"), outcome(promise))
  end)
end)
