local scheduler = require("scheduler")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local Promise, task = scheduler.Promise, scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local counted, outcome, open = promised.counted, promised.outcome, promised.open
local resolved, pending = promised.resolved, promised.pending
local VALUES, ERRORS = promised.VALUES, promised.ERRORS
local PLACES, in_each_place = promised.PLACES, promised.in_each_place

local unpack = table.unpack or unpack

local function ignore() end

describe("await, awaitStatus and expect", function()
  promised.setup(before_each, after_each)

  it("return at once where the promise is settled, anywhere", function()
    in_each_place(function()
      local good, bad = Promise.resolve(1, nil), Promise.reject(2, nil)
      assert.are.same(counted(true, 1, nil), counted(good:await()))
      assert.are.same(counted("Resolved", 1, nil), counted(good:awaitStatus()))
      assert.are.same(counted(1, nil), counted(good:expect()))
      assert.are.same(counted(false, 2, nil), counted(bad:await()))
      assert.are.same(counted("Rejected", 2, nil), counted(bad:awaitStatus()))
      assert.are.same(counted(false, 2), counted(pcall(bad.expect, bad)))
    end, ignore)
  end)

  it("wait until it is, in all that may wait", function()
    for place, run in pairs(PLACES) do
      if place ~= "the main thread" then
        for _, values in ipairs(VALUES) do
          local list = {}
          local good, resolve = open()
          local bad, _, reject = open()
          for _, case in ipairs({ { good, "await" }, { good, "awaitStatus" }, { good, "expect" }, { bad, "await" },
            { bad, "awaitStatus" } }) do
            run(function()
              local promise, name = unpack(case)
              local given = counted(promise[name](promise))
              list[#list + 1] = given
            end)
          end
          advance(0)
          assert.are.same({}, list)
          resolve(unpack(values, 1, values.n))
          reject(unpack(values, 1, values.n))
          scheduler.poll()
          assert.are.same({
            counted(true, unpack(values, 1, values.n)), counted("Resolved", unpack(values, 1, values.n)), values,
            counted(false, unpack(values, 1, values.n)), counted("Rejected", unpack(values, 1, values.n)),
          }, list, place)
        end
      end
    end
  end)

  it("expect raises the very value, before and after, and awaitValue is the same", function()
    assert.are.equal(Promise.prototype.expect, Promise.prototype.awaitValue)
    for _, err in ipairs(ERRORS) do
      local promise, _, reject = open()
      local failure
      task.spawn(function()
        failure = counted(scheduler.pcall(promise.expect, promise))
      end)
      reject(err)
      scheduler.poll()
      assert.are.equal(2, failure.n)
      assert.is_false(failure[1])
      assert.are.equal(err, failure[2])
      assert.are.equal(err, select(2, pcall(promise.expect, promise)))
    end
    local promise = Promise.reject()
    assert.are.same(counted(false, raised.none), counted(pcall(promise.expect, promise)))
  end)

  it("wake those that wait in their order, and handlers as microtasks", function()
    local list, record = recorder()
    local promise, resolve = open()
    for i = 1, 100 do
      task.spawn(function()
        promise:await()
        record(i)
      end)
    end
    promise:andThenCall(record, "handler")
    resolve()
    assert.are.same({}, list)
    scheduler.poll()
    assert.are.equal("handler", list[1])
    for i = 1, 100 do
      assert.are.equal(i, list[i + 1])
    end
  end)

  it("turn the loop on the main thread", function()
    scheduler.clock.resume()
    assert.are.same(counted(true, "late", nil), counted(Promise.delay(0.001):andThenReturn("late", nil):await()))
    assert.are.same(counted("Resolved"), counted(Promise.delay(0.001):andThenReturn():awaitStatus()))
    assert.are.same(counted("late", nil), counted(Promise.delay(0.001):andThenReturn("late", nil):expect()))
    local promise = Promise.delay(0.001):andThenCall(error, "failed", 0)
    assert.are.same(counted(false, "failed"), counted(pcall(promise.expect, promise)))
  end)

  it("raise on the main thread when nothing is left that could settle the promise", function()
    scheduler.clock.resume()
    local promise = open()
    for _, name in ipairs({ "await", "awaitStatus", "expect" }) do
      local ok, message = pcall(promise[name], promise)
      assert.is_false(ok)
      assert.matches("nothing is left that could end this wait", message)
    end
    assert.are.equal("Started", promise:getStatus())
  end)

  it("return what a coroutine was given that is resumed by hand, and let the promise be", function()
    local promise, resolve = open()
    local list, record = recorder()
    for _, name in ipairs({ "await", "awaitStatus", "expect" }) do
      local co = task.spawn(function()
        record(counted(promise[name](promise)))
      end)
      coroutine.resume(co, "by hand", nil)
    end
    assert.are.same({ counted("by hand", nil), counted("by hand", nil), counted("by hand", nil) }, list)
    assert.are.same(pending, outcome(promise))
    resolve(1)
    assert.are.same(resolved(1), outcome(promise))
    assert.are.equal(3, #list)
  end)
end)
