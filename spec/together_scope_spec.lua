-- Scopes, time limits and shields around tasks, promises and jobs.

local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local support = require("spec.support.waiters")

local Promise, task = scheduler.Promise, scheduler.task
local async, await, scope_of = scheduler.async, scheduler.await, scheduler.scope
local protected = scheduler.pcall
local advance, recorder = virtual.advance, virtual.recorder
local deferred, waiters = support.deferred, support.waiters

local function ignore() end

describe("a scope", function()
  virtual.setup(before_each, after_each)

  it("cancels the promise that a child awaits, but not one that is wanted elsewhere", function()
    local unwanted, wanted = deferred(), deferred()
    local handled = wanted:andThen(ignore)
    local given
    task.spawn(scope_of, function(scope)
      given = scope
      scope:spawn(await, unwanted)
      scope:spawn(await, wanted)
    end)
    given:cancel()
    advance(0)
    assert.are.equal("Cancelled", unwanted:getStatus())
    assert.are.equal("Started", wanted:getStatus())
    handled:cancel()
    assert.are.equal("Cancelled", wanted:getStatus())
  end)

  it("passes its reason on to the promise", function()
    local reason
    local promise = Promise.new(function(_, _, on_cancel)
      on_cancel(function(given)
        reason = given
      end)
    end)
    local given
    task.spawn(scope_of, function(scope)
      given = scope
      scope:spawn(await, promise)
    end)
    given:cancel("enough")
    advance(0)
    assert.are.equal("enough", reason)
  end)

  it("cancels a promise when its last waiter is gone", function()
    local promise = deferred()
    local given
    task.spawn(scope_of, function(scope)
      given = scope
      for _ = 1, 3 do
        scope:spawn(await, promise)
      end
    end)
    given:cancel()
    assert.are.equal("Cancelled", promise:getStatus())
    advance(0)
  end)

  it("does not own the promises that are made in it", function()
    local promise
    attempt.start(scope_of, function()
      promise = async(function()
        task.wait(0.001)
        return "value"
      end)()
    end)
    advance(2)
    assert.are.equal("value", promise:expect())
  end)

  it("in an asynchronous function that is cancelled interrupts the children, who clean up before it ends", function()
    local list, record = recorder()
    local promise = async(function()
      local ok, err = protected(scope_of, function(scope)
        for i = 1, 2 do
          scope:spawn(function()
            local _, err = protected(task.wait, 10)
            record(i .. err.kind .. tostring(err.reason))
            scheduler.shield(task.wait, 0.001)
            record(i .. " has cleaned up")
          end)
        end
      end)
      record(tostring(ok) .. err.kind .. tostring(err.reason))
    end)()
    promise:cancel("enough")
    promise:finally(record)
    advance(5)
    assert.are.same({
      "Cancelled", "1cancelledenough", "2cancelledenough", "1 has cleaned up", "2 has cleaned up",
      "falsecancelledenough",
    }, list)
  end)

  it("cancels a promise with what that contains, all the way down", function()
    local list, record = recorder()
    local inner = deferred()
    local given
    task.spawn(scope_of, function(scope)
      given = scope
      scope:spawn(function()
        await(async(scope_of)(function(nested)
          nested:spawn(function()
            local _, err = protected(await, inner)
            record(err.kind)
            error(err, 0)
          end)
        end))
      end)
    end)
    given:cancel()
    advance(2)
    assert.are.same({ "cancelled" }, list)
    assert.are.equal("Cancelled", inner:getStatus())
  end)
end)

describe("scheduler.timeout", function()
  virtual.setup(before_each, after_each)

  --- What `scheduler.timeout` of so many milliseconds gives for a call of `fn`.
  local function limited(ms, fn, ...)
    local result = attempt.start(scheduler.timeout, ms / 1000, fn, ...)
    advance(100)
    assert.is_true(result.ended)
    return result
  end

  it("over a promise that is in time gives its values", function()
    local result = limited(5, await, Promise.delay(0.002):andThenReturn("value", nil))
    assert.are.equal(2, result.n)
    assert.are.equal("value", result[1])
  end)

  for name, make in pairs({
    ["a promise"] = function(inner)
      return inner
    end,
    ["an asynchronous function"] = function(inner)
      return async(await)(inner)
    end,
    all = function(inner)
      return Promise.all({ inner, Promise.resolve() })
    end,
    race = function(inner)
      return Promise.race({ inner })
    end,
    any = function(inner)
      return Promise.any({ inner })
    end,
    allSettled = function(inner)
      return Promise.allSettled({ inner })
    end,
    each = function(inner)
      return Promise.each({ inner }, ignore)
    end,
    map = function(inner)
      return Promise.map({ inner }, ignore)
    end,
    fold = function(inner)
      return Promise.fold({ inner }, ignore)
    end,
    retry = function(inner)
      return Promise.retry(await, 3, inner)
    end,
    ["a chain"] = function(inner)
      return inner:andThen(ignore):andThen(ignore)
    end,
    ["a chain with finally"] = function(inner)
      return inner:finally(ignore):andThen(ignore)
    end,
    ["a promise that was resolved with another"] = function(inner)
      return Promise.new(function(resolve)
        resolve(inner)
      end)
    end,
    ["a promise with a limit of its own"] = function(inner)
      return inner:timeout(10)
    end,
  }) do
    it("over " .. name .. " that is late raises, and cancels what nobody else wants", function()
      local list = uncaught(function()
        local inner, pending = deferred(), scheduler.stats().timers_pending
        local result = limited(5, await, make(inner))
        assert.is_false(result.ok)
        assert.are.equal("timeout", result.err.kind)
        assert.are.equal("Cancelled", inner:getStatus())
        assert.are.equal(pending, scheduler.stats().timers_pending)
      end)
      assert.are.same({}, list)
    end)

    it("over " .. name .. " that is late leaves alone what others want", function()
      local inner, resolve = deferred()
      local others
      inner:andThen(function(value)
        others = value
      end)
      assert.are.equal("timeout", limited(5, await, make(inner)).err.kind)
      assert.are.equal("Started", inner:getStatus())
      resolve("value")
      advance(0)
      assert.are.equal("value", others)
    end)
  end

  it("tells the promise why", function()
    local reason
    limited(5, function()
      Promise.new(function(_, _, on_cancel)
        on_cancel(function(given)
          reason = given
        end)
      end):expect()
    end)
    assert.are.equal("timeout", reason)
  end)

  it("over a job lets go of that", function()
    scheduler.clock.resume()
    local job = scheduler.parallel.run(function()
      local start = os.clock()
      while os.clock() - start < 0.05 do
        math.random()
      end
    end)
    local ok, err = pcall(scheduler.timeout, 0.001, await, job)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    assert.are.equal("Cancelled", job:getStatus())
    scheduler.run()
    scheduler.clock.pause()
  end)

  it("over a scope in a promise in a scope ends all", function()
    local list, record = recorder()
    local result = limited(5, function()
      scope_of(function(scope)
        scope:spawn(function()
          await(async(scope_of)(function(inner)
            inner:spawn(function()
              local _, err = protected(task.wait, 10)
              record(err.reason)
            end)
          end))
        end)
      end)
    end)
    assert.are.equal("timeout", result.err.kind)
    assert.are.same({ "timeout" }, list)
  end)
end)

describe("scheduler.shield", function()
  virtual.setup(before_each, after_each)

  it("keeps a promise from being cancelled with what waits for it", function()
    for who, run in pairs(waiters) do
      local promise, resolve = deferred()
      local value
      local cancel = run(function()
        scheduler.shield(function()
          value = await(promise)
        end)
      end)
      advance(2)
      cancel()
      advance(2)
      assert.are.equal("Started", promise:getStatus(), who)
      resolve("value")
      advance(2)
      assert.are.equal("value", value, who)
    end
  end)

  it("keeps an asynchronous function from being interrupted where it cleans up", function()
    local list, record = recorder()
    local promise = async(function()
      protected(task.wait, 10)
      scheduler.shield(function()
        record(await(Promise.delay(0.001):andThenReturn("cleaned up")))
      end)
    end)()
    promise:cancel()
    advance(5)
    assert.are.same({ "cleaned up" }, list)
  end)

  it("does not keep a promise from being cancelled by itself", function()
    local promise = deferred()
    local err
    task.spawn(function()
      err = select(2, protected(scheduler.shield, await, promise))
    end)
    promise:cancel("enough")
    advance(0)
    assert.are.equal("enough", err.reason)
  end)
end)
