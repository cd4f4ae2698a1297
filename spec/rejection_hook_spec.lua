-- Hooks that hear of rejections that nobody handles.

local scheduler = require("scheduler")
local child = require("spec.support.child")
local misuse = require("spec.support.misuse")
local virtual = require("spec.support.virtual")
local rejections = require("spec.support.rejections")

local Promise, task = scheduler.Promise, scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local deferred, reported, errors_of, assert_silent =
  rejections.deferred, rejections.reported, rejections.errors_of, rejections.assert_silent

local function ignore() end

describe("Promise.onUnhandledRejection", function()
  virtual.setup(before_each, after_each)

  local registered = {}

  --- Registers a hook until the end of the test.
  local function add(hook)
    local unregister = Promise.onUnhandledRejection(hook)
    registered[#registered + 1] = unregister
    return unregister
  end

  after_each(function()
    for _, unregister in ipairs(registered) do
      unregister()
    end
    registered = {}
  end)

  it("calls hooks in their order, with the promise and all values, and then the error handler", function()
    local calls, record = recorder()
    local former = scheduler.on_error(function(err)
      record({ "handler", err })
    end)
    add(function(...)
      record({ "first", ... })
    end)
    add(function(...)
      record({ "second", select("#", ...) })
    end)
    local promise = Promise.reject("failed", nil, 3, nil)
    advance(0)
    scheduler.on_error(former)
    assert.are.equal(3, #calls)
    assert.are.equal("first", calls[1][1])
    assert.is_true(rawequal(promise, calls[1][2]))
    assert.are.equal("failed", calls[1][3])
    assert.are.equal(3, calls[1][5])
    assert.are.same({ "second", 5 }, calls[2])
    assert.are.same({ "handler", "failed" }, calls[3])
  end)

  it("does not call them for what is handled", function()
    local called = false
    add(function()
      called = true
    end)
    assert_silent(function()
      Promise.reject("failed"):catch(ignore)
      deferred():cancel()
    end)
    assert.is_false(called)
  end)

  it("does not call them for errors of other kinds", function()
    local called = false
    add(function()
      called = true
    end)
    assert.are.same({ "failed" }, errors_of(reported(function()
      task.spawn(error, "failed", 0)
    end)))
    assert.is_false(called)
  end)

  it("returns a function that takes that hook out, once", function()
    local calls, record = recorder()
    local unregister = add(record)
    add(record)
    unregister()
    unregister()
    reported(function()
      Promise.reject("failed")
    end)
    assert.are.equal(1, #calls)
  end)

  it("goes on after a hook that fails, whose error is reported as well", function()
    local called = false
    add(function()
      error("in the hook", 0)
    end)
    add(function()
      called = true
    end)
    assert.are.same({ "in the hook", "failed" }, errors_of(reported(function()
      Promise.reject("failed")
    end)))
    assert.is_true(called)
  end)

  it("lets hooks wait", function()
    local status
    add(function(promise)
      task.wait(0.005)
      status = promise:getStatus()
    end)
    reported(function()
      Promise.reject("failed")
    end)
    assert.are.equal("Rejected", status)
  end)

  it("reports what a hook handles now all the same: it is too late", function()
    local given
    add(function(promise)
      promise:catch(function(err)
        given = err
      end)
    end)
    assert.are.same({ "failed" }, errors_of(reported(function()
      Promise.reject("failed")
    end)))
    assert.are.equal("failed", given)
  end)

  it("lets a hook handle another rejection in time", function()
    local second
    add(function()
      second:catch(ignore)
    end)
    assert.are.same({ "first" }, errors_of(reported(function()
      Promise.reject("first")
      second = Promise.reject("second")
    end)))
  end)

  it("does not call a hook that another has taken out", function()
    local called, unregister = false, nil
    add(function()
      unregister()
    end)
    unregister = add(function()
      called = true
    end)
    reported(function()
      Promise.reject("failed")
    end)
    assert.is_false(called)
  end)

  it("calls a hook that takes itself out once, and those after it", function()
    local calls, record = recorder()
    local unregister
    unregister = add(function()
      unregister()
      record("itself")
    end)
    add(function()
      record("after")
    end)
    reported(function()
      Promise.reject(1)
      Promise.reject(2)
    end)
    assert.are.same({ "itself", "after", "after" }, calls)
  end)

  it("calls a hook that another has added from the next rejection on", function()
    local calls, record = recorder()
    local unregister
    unregister = add(function()
      unregister()
      add(function(_, err)
        record(err)
      end)
    end)
    reported(function()
      Promise.reject(1)
      Promise.reject(2)
    end)
    assert.are.same({ 2 }, calls)
  end)

  it("takes what can be called, and refuses the rest at the caller's line", function()
    local given
    add(setmetatable({}, { __call = function(_, _, err)
      given = err
    end }))
    reported(function()
      Promise.reject("failed")
    end)
    assert.are.equal("failed", given)
    misuse(function() Promise.onUnhandledRejection() end,
      "bad argument #1 to 'onUnhandledRejection' (function expected, got nil)")
    misuse(function() Promise.onUnhandledRejection({}) end,
      "bad argument #1 to 'onUnhandledRejection' (function expected, got table)")
  end)
end)

describe("what hooks and the error handler reject themselves", function()
  --- Runs a script until nothing is left, with a limit; returns what it wrote.
  local function run(source)
    local result = child.script([[
      local Promise, task = scheduler.Promise, scheduler.task
      local calls = 0
      local function called()
        calls = calls + 1
        if calls > 100 then os.exit(1) end
      end
    ]] .. source .. [[

      scheduler.run()
      print(calls)
    ]])
    assert.are.equal(0, result.code, "it goes on for ever")
    return result.out, result.err
  end

  it("is written to stderr, and not told to them again", function()
    for _, reject in ipairs({
      "Promise.reject('again')",
      "Promise.try(error, 'again', 0)",
      "Promise.try(error, 'again', 0):andThen(print):finally(print)",
      "Promise.delay(0.001):andThen(function() error('again', 0) end)",
      "scheduler.async(function() task.wait(0.001) error('again', 0) end)()",
    }) do
      for _, install in ipairs({ "scheduler.on_error(", "scheduler.on_error(print) Promise.onUnhandledRejection(" }) do
        local out, err = run(install .. "function() called() " .. reject .. " end) Promise.reject('failed')")
        assert.matches("1\n$", out)
        assert.matches("uncaught error in a promise made at [^\n]*: again", err)
        assert.are.equal(1, select(2, err:gsub("uncaught", "")), err)
      end
    end
  end)

  it("is silent if it is handled", function()
    local out, err = run([[
      scheduler.on_error(function()
        called()
        Promise.reject("again"):catch(called)
        Promise.resolve():andThen(called)
      end)
      Promise.reject("failed")
    ]])
    assert.are.equal("3\n", out)
    assert.are.equal("", err)
  end)

  it("does not keep later rejections from them", function()
    local out, err = run([[
      scheduler.on_error(function()
        called()
        if calls == 1 then Promise.reject("again") end
      end)
      Promise.reject("failed")
      scheduler.setTimeout(Promise.reject, 5, "later")
    ]])
    assert.are.equal("2\n", out)
    assert.matches("again", err)
    assert.is_nil(err:find("later", 1, true))
  end)

  it("does not hide an error handler that raises", function()
    local out, err = run([[
      scheduler.on_error(function()
        called()
        error("in the handler", 0)
      end)
      Promise.reject("failed")
    ]])
    assert.are.equal("1\n", out)
    assert.matches("uncaught error in the error handler: in the handler\n", err)
    assert.matches("uncaught error in a promise made at [^\n]*: failed\n", err)
  end)
end)
