local scheduler = require("scheduler")
local promised = require("spec.support.promised")
local virtual = require("spec.support.virtual")

local Promise, task = scheduler.Promise, scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local counted, line_here = promised.counted, promised.line_here
local refuses = promised.refuses
local NOT_CALLABLE, callable = promised.NOT_CALLABLE, promised.callable

local function ignore() end

describe("unhandled rejections", function()
  local reported = promised.setup(before_each, after_each)

  it("are reported once, of the last promise of a chain", function()
    local line = line_here() + 1
    local promise = Promise.reject("lost"):andThen(ignore):finally(ignore)
    scheduler.poll()
    local errors = reported()
    assert.are.equal(1, #errors)
    assert.are.equal("lost", errors[1].err)
    assert.matches("^a promise made at .*promise_rejection_spec%.lua:" .. line .. "$", errors[1].source)
    assert.are.equal("Rejected", promise:getStatus())
    assert.are.equal(0, #reported())
  end)

  it("of a handler are told with the place where the first promise was made", function()
    for _, method in ipairs({ "andThen", "finally" }) do
      for _, wait in ipairs({ ignore, task.wait }) do
        local resolve
        local line = line_here() + 1
        local first = Promise.new(function(...) resolve = ... end)
        first[method](first:andThen():catch():finally(), function()
          wait()
          error("boom", 0)
        end)
        resolve()
        advance(0)
        local errors = reported()
        assert.are.equal(1, #errors)
        assert.matches("^a promise made at .*promise_rejection_spec%.lua:" .. line .. "$", errors[1].source)
      end
    end
  end)

  it("of a retry are told with the place of that", function()
    for _, seconds in ipairs({ 0, 0.001 }) do
      local line = line_here() + 1
      Promise.retry(error, { times = 1, delay = seconds }, "boom", 0)
      advance(1)
      local errors = reported()
      assert.are.equal(1, #errors)
      assert.matches("^a promise made at .*promise_rejection_spec%.lua:" .. line .. "$", errors[1].source)
    end
  end)

  it("are not, if they are handled by the end of that turn", function()
    local handlers = {
      function(p) p:catch(ignore) end,
      function(p) p:andThen(nil, ignore) end,
      function(p) p:await() end,
      function(p) p:awaitStatus() end,
      function(p) pcall(p.expect, p) end,
      function(p) Promise.all({ p }):catch(ignore) end,
      function(p) Promise.allSettled({ p }) end,
      function(p) Promise.race({ p }):catch(ignore) end,
      function(p) Promise.resolve():andThenReturn(p):catch(ignore) end,
    }
    for _, handle in ipairs(handlers) do
      local promise = Promise.reject("lost")
      scheduler.poll()
      handle(promise)
    end
    assert.are.equal(0, #reported())
  end)

  it("are told to hooks, with the promise and all values, until they are taken out", function()
    local list, record = recorder()
    local function note(...)
      record(counted(...))
    end
    local stop, stop_other = Promise.onUnhandledRejection(note), Promise.onUnhandledRejection(callable(note))
    local promise = Promise.reject("lost", nil)
    assert.are.equal(1, #reported())
    stop_other()
    local other = Promise.reject()
    assert.are.equal(1, #reported())
    stop()
    stop()
    Promise.reject("unseen")
    assert.are.equal(1, #reported())
    assert.are.equal(3, #list)
    for i, case in ipairs({ counted(promise, "lost", nil), counted(promise, "lost", nil), counted(other) }) do
      assert.are.equal(case.n, list[i].n)
      assert.are.equal(case[1], list[i][1])
      assert.are.equal(case[2], list[i][2])
    end
  end)

  it("tell the error handler what a hook raises, and that one may wait", function()
    local list, record = recorder()
    local stops = {
      Promise.onUnhandledRejection(function()
        error("hook", 0)
      end),
      Promise.onUnhandledRejection(function()
        task.wait(1)
        record("waited")
      end),
    }
    Promise.reject("lost")
    local errors = reported()
    advance(1000)
    for _, stop in ipairs(stops) do
      stop()
    end
    assert.are.equal(2, #errors)
    assert.are.equal("hook", errors[1].err)
    assert.are.equal("lost", errors[2].err)
    assert.are.same({ "waited" }, list)
  end)

  it("onUnhandledRejection refuses what cannot be called", function()
    for _, value in ipairs(NOT_CALLABLE) do
      refuses("bad argument #1 to 'onUnhandledRejection' (function expected, got " .. type(value) .. ")",
        Promise.onUnhandledRejection, value)
    end
  end)
end)
