local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local advance = virtual.advance
local open = promised.open
local unhurried = promised.unhurried

local function ignore() end

--- `memory.is_released` for promises: the coroutine that executors share refers to the last one that it ran.
local function is_released(make)
  local function and_another(...)
    Promise.new(ignore)
    return ...
  end
  return memory.is_released(function()
    return and_another(make())
  end)
end

describe("the memory of promises", function()
  promised.setup(before_each, after_each)

  it("that are settled, with their values and handlers, is freed", function()
    assert.is_true(is_released(function()
      local value, promise, resolve = {}, open()
      local function handler(...)
        return ...
      end
      local function on_end()
        return handler
      end
      local child = promise:andThen(handler, on_end)
      local last = child:finally(on_end)
      resolve(value)
      scheduler.poll()
      return value, promise, handler, child, last, on_end, resolve
    end))
  end)

  it("is not kept by promises that are settled: of their handlers, hooks and sources", function()
    local kept
    assert.is_true(is_released(function()
      local promise, resolve = open()
      local inner, resolve_inner = open()
      local cancelled, _, _, on_cancel = open()
      local function handler()
        return not kept
      end
      local function on_end()
        return kept == nil
      end
      local function hook()
        return kept
      end
      on_cancel(hook)
      local child = promise:andThen(handler, handler)
      local final = promise:finally(on_end)
      local adopter = Promise.resolve():andThenReturn(inner)
      kept = { child, final, adopter, cancelled }
      cancelled:cancel()
      scheduler.poll()
      resolve()
      resolve_inner()
      scheduler.poll()
      return handler, on_end, hook, promise, inner
    end))
    for i, status in ipairs({ "Resolved", "Resolved", "Resolved", "Cancelled" }) do
      assert.are.equal(status, kept[i]:getStatus())
    end
  end)

  it("that are pending and nobody knows any more is freed", function()
    assert.is_true(is_released(function()
      local promise = open()
      local function handler() end
      local child = promise:andThen(handler)
      local all = Promise.all({ child, promise })
      return promise, child, handler, all
    end))
  end)

  it("of those that were rejected and reported, or cancelled, is freed", function()
    assert.is_true(is_released(function()
      local failed, value = Promise.reject({}), {}
      failed:catch(ignore)
      local promise, _, _, on_cancel = open()
      local function hook() end
      on_cancel(hook)
      local child = promise:finally(hook)
      promise:cancel(value)
      scheduler.poll()
      return failed, promise, hook, child, value
    end))
  end)

  it("is not kept by a long-lived promise: of children that are cancelled or have lost a race", function()
    local forever = open()
    assert.is_true(is_released(function()
      local function handler() end
      local keeper = forever:andThen()
      local child = forever:andThen(handler)
      child:cancel()
      local adopter, resolve = open()
      resolve(forever)
      adopter:cancel()
      local race = Promise.race({ forever, Promise.resolve(1) })
      scheduler.poll()
      local any = Promise.any({ forever, Promise.resolve(1) })
      scheduler.poll()
      local all = Promise.all({ forever, Promise.reject(1) })
      all:catch(ignore)
      scheduler.poll()
      assert.are.equal("Started", forever:getStatus())
      keeper:finally(ignore)
      return handler, child, adopter, race, any, all
    end))
    forever:cancel()
  end)

  it("is flat where a long-lived promise takes part in 10,000 races", unhurried(function()
    local forever = open()
    local keeper = forever:andThen()
    local function races(count)
      for i = 1, count do
        local winner, resolve = open()
        local race = Promise.race({ forever, winner })
        resolve(i)
        if i % 100 == 0 then scheduler.poll() end
        assert(race)
      end
      scheduler.poll()
      memory.collect()
      return collectgarbage("count")
    end
    local before = races(1000)
    local after = races(10000)
    assert.is_true(after - before < 200, after - before .. " KB more")
    assert.are.equal("Started", keeper:getStatus())
  end))

  it("is flat where a promise of each turn is awaited, and another handled, 10,000 times", unhurried(function()
    local stop = false
    local co = task.spawn(function()
      while not stop do
        Promise.delay(0.001):expect()
        Promise.resolve():andThen(ignore)
      end
    end)
    local function rounds(count)
      for _ = 1, count do
        advance(1)
      end
      memory.collect()
      return collectgarbage("count")
    end
    local before = rounds(1000)
    local after = rounds(10000)
    stop = true
    advance(1)
    assert.are.equal("done", task.status(co))
    assert.is_true(after - before < 200, after - before .. " KB more")
  end))
end)

-- Those that were collected are counted still, so that no test of virtual time may look at what is left behind.
describe("the memory of coroutines", function()
  it("that wait for a promise which nobody knows any more is freed", function()
    assert.is_true(is_released(function()
      local promise = open()
      local co = coroutine.create(function()
        promise:await()
      end)
      coroutine.resume(co)
      return promise, co
    end))
  end)
end)
