-- Functions that call back as ones that return promises: `scheduler.promisify`.

local scheduler = require("scheduler")
local misuse = require("spec.support.misuse")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local awaited = require("spec.support.awaited")

local task, promisify = scheduler.task, scheduler.promisify
local advance, recorder = virtual.advance, virtual.recorder
local counted, deferred, attempt, settled, callable, places =
  awaited.counted, awaited.deferred, awaited.attempt, awaited.settled, awaited.callable, awaited.places

local function ignore() end

describe("scheduler.promisify", function()
  virtual.setup(before_each, after_each)

  it("settles by the rule that the first argument of the callback is an error or nil", function()
    local read = promisify(function(a, b, callback)
      scheduler.setTimeout(callback, 1, a, b, nil)
    end)
    assert.are.same(counted("b", nil), counted(settled(read(nil, "b"))))
    assert.are.same(counted("b", nil), counted(settled(read(false, "b"))))
    for _, err in ipairs({ "text", 0, {}, true }) do
      local promise = read(err, "b")
      assert.are.same(counted(false, err), counted(attempt(promise)))
    end
  end)

  it("resolves with all that the callback is given, if told so", function()
    local read = promisify(function(a, b, callback)
      scheduler.setTimeout(callback, 1, a, b, nil)
    end, { error_first = false })
    assert.are.same(counted("a", "b", nil), counted(settled(read("a", "b"))))
    assert.are.same(counted(nil, nil, nil), counted(settled(read(nil, nil))))
  end)

  it("takes a callback without values", function()
    for _, options in ipairs({ { error_first = true }, { error_first = false }, {} }) do
      assert.are.same(counted(), counted(promisify(function(callback)
        callback()
      end, options)():expect()))
    end
  end)

  it("passes the callback after all arguments, nils included", function()
    local given
    promisify(function(...)
      given = counted(...)
      given[given.n]()
    end)(nil, 2, nil):expect()
    assert.are.equal(4, given.n)
    assert.are.equal(2, given[2])
    assert.is_nil(given[3])
    assert.is_function(given[4])
  end)

  it("calls the function at once, and settles at once if that calls back", function()
    local promise = promisify(function(callback)
      callback(nil, "value")
    end)()
    assert.are.equal("Resolved", promise:getStatus())
    local list, record = recorder()
    promise:andThen(record)
    assert.are.same({}, list)
    advance(0)
    assert.are.same({ "value" }, list)
  end)

  it("looks at the first call of the callback only", function()
    for _, first in ipairs({ { nil, "value" }, { "failed" } }) do
      local promise = promisify(function(callback)
        callback(first[1], first[2])
        callback("second")
        callback(nil, "third")
        scheduler.setTimeout(callback, 1, "fourth")
      end)()
      local results = counted(attempt(promise))
      assert.are.same(counted(first[1] == nil, first[1] or first[2]), results)
      advance(1)
      assert.are.same(results, counted(attempt(promise)))
    end
  end)

  it("looks at the first call only, also if that was given a promise", function()
    local inner, resolve = deferred()
    local promise = promisify(function(callback)
      callback(nil, inner)
      callback(nil, "second")
      callback("third")
    end)()
    assert.are.equal("Started", promise:getStatus())
    resolve("value")
    assert.are.equal("value", promise:expect())
  end)

  it("rejects with what the function raises before it has called back", function()
    local err = {}
    for _, wait in ipairs({ ignore, task.wait }) do
      local ok, same = promisify(function(callback)
        wait()
        if callback then error(err) end
      end)():await()
      assert.is_false(ok)
      assert.are.equal(err, same)
    end
  end)

  it("reports what the function raises after it has called back", function()
    local promise
    local errors = uncaught(function()
      promise = promisify(function(callback)
        callback(nil, "value")
        error("too late", 0)
      end)()
    end)
    assert.are.equal("value", promise:expect())
    assert.are.equal(1, #errors)
    assert.are.equal("too late", errors[1].err)
    assert.matches("^the rest of a promise made at .*promisify_spec", errors[1].source)
  end)

  it("ignores what the function returns, also if it calls back after that", function()
    local call
    local promise = promisify(function(callback)
      call = callback
      return "returned"
    end)()
    advance(0)
    assert.are.equal("Started", promise:getStatus())
    call(nil, "called back")
    assert.are.equal("called back", promise:expect())
  end)

  it("takes a function that waits before it calls back", function()
    local promise = promisify(function(a, callback)
      task.wait(1)
      callback(nil, a)
    end)("value")
    advance(1000)
    assert.are.equal("value", promise:expect())
  end)

  it("ignores the callback once the promise is cancelled, and interrupts the function", function()
    local call, err
    local promise = promisify(function(callback)
      call = callback
      err = select(2, scheduler.pcall(task.wait, 1))
    end)()
    promise:cancel("enough")
    advance(0)
    assert.are.equal("enough", err.reason)
    call(nil, "value")
    call("failed")
    assert.are.equal("Cancelled", promise:getStatus())
    advance(0)
  end)

  it("lets the callback be called in a coroutine of any kind", function()
    for _, run in pairs(places) do
      local promise = promisify(function(callback)
        run(function()
          callback(nil, "value")
        end)
      end)()
      advance(5)
      assert.are.equal("value", promise:expect())
    end
  end)

  it("takes what can be called", function()
    assert.are.equal(2, promisify(callable(function(a, callback)
      callback(nil, a + 1)
    end))(1):expect())
  end)

  it("refuses bad arguments, at the caller's line", function()
    misuse(function() promisify(nil) end, "bad argument #1 to 'promisify' (function expected, got nil)")
    misuse(function() promisify({}) end, "bad argument #1 to 'promisify' (function expected, got table)")
    misuse(function() promisify(ignore, 1) end, "bad argument #2 to 'promisify' (table expected, got number)")
    misuse(function() promisify(ignore, { first = true }) end,
      "bad argument #2 to 'promisify' (unknown option 'first')")
    misuse(function() promisify(ignore, { error_first = 1 }) end,
      "bad argument #2 to 'promisify' (option 'error_first': boolean expected, got number)")
  end)
end)
