local scheduler = require("scheduler")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task = scheduler.task
local advance, recorder = virtual.advance, virtual.recorder
local stock_pcall, stock_xpcall = pcall, xpcall

local function ignore() end

local function counted(...)
  return { n = select("#", ...), ... }
end

--- What `fn(...)` returns in a task, run until it has ended.
local function in_task(fn, ...)
  local results
  task.spawn(function(...)
    results = counted(fn(...))
  end, ...)
  advance(10000)
  assert(results, "the task has not ended")
  return results
end

--- A function that waits before it calls `fn(...)`.
local function waiting(fn)
  return function(...)
    task.wait(0.001)
    return fn(...)
  end
end

local values = { "text", "", 42, 0.5, true, false, { code = 1 }, ignore, io.stdout, coroutine.create(ignore) }

describe("scheduler.pcall", function()
  virtual.setup(before_each, after_each)

  it("is Lua's own where a coroutine can yield in that", function()
    local can_yield = in_task(function()
      local co = coroutine.create(function()
        stock_pcall(coroutine.yield, "yielded")
      end)
      return select(2, coroutine.resume(co)) == "yielded"
    end)[1]
    assert.are.equal(can_yield, scheduler.pcall == stock_pcall)
    assert.are.equal(can_yield, scheduler.xpcall == stock_xpcall)
  end)

  it("returns what the function returns, with the count, whether it waits or not", function()
    local function give(...)
      return ...
    end
    for _, fn in ipairs({ give, waiting(give) }) do
      assert.are.same(counted(true), in_task(scheduler.pcall, fn))
      assert.are.same(counted(true, nil), in_task(scheduler.pcall, fn, nil))
      assert.are.same(counted(true, nil, 2, nil), in_task(scheduler.pcall, fn, nil, 2, nil))
    end
    local many = {}
    for i = 1, 200 do
      many[i] = i
    end
    assert.are.equal(201, in_task(scheduler.pcall, waiting(give), (table.unpack or unpack)(many)).n)
  end)

  it("returns the error as it is, whether the function waits or not", function()
    for _, err in ipairs(values) do
      local function fail()
        error(err, 0)
      end
      for _, fn in ipairs({ fail, waiting(fail) }) do
        local results = in_task(scheduler.pcall, fn)
        assert.are.equal(2, results.n)
        assert.is_false(results[1])
        assert.are.equal(err, results[2])
      end
    end
    assert.are.same(counted(false, raised.none), in_task(scheduler.pcall, waiting(error)))
    assert.are.same(counted(false, raised.none), in_task(scheduler.pcall, error))
  end)

  it("returns the message that the stock one gives, with the same place", function()
    local function at_level_two()
      error("boom", 2)
    end
    for _, fn in ipairs({
      function() error("boom") end,
      function() error("boom", 2) end,
      function() at_level_two() end,
      function() local x = nil; return x.y end, -- luacheck: ignore
      function() return 1 + {} end,
      function() string.rep() end,
      error,
      setmetatable({}, { __call = function() error("boom") end }),
    }) do
      assert.are.same(counted(stock_pcall(fn)), in_task(scheduler.pcall, fn))
    end
  end)

  it("of what cannot be called fails as the stock one does", function()
    for _, value in ipairs({ 1, "f", {}, true }) do
      assert.are.same(counted(stock_pcall(value)), in_task(scheduler.pcall, value))
    end
    assert.are.same(counted(stock_pcall(nil)), in_task(scheduler.pcall, nil))
    local ok, message = stock_pcall(scheduler.pcall)
    assert.is_false(ok)
    assert.matches("value expected", message)
    assert.is_false(in_task(stock_pcall, scheduler.pcall)[1])
  end)

  it("of C functions and callable tables works", function()
    local callable = setmetatable({}, {
      __call = function(self, ...)
        task.wait()
        return self, ...
      end,
    })
    assert.are.same(counted(true, callable, nil), in_task(scheduler.pcall, callable, nil))
    assert.are.same(counted(true, 3), in_task(scheduler.pcall, math.max, 1, 3, 2))
    assert.are.same(counted(true, true), in_task(scheduler.pcall, scheduler.pcall, waiting(ignore)))
    local results = in_task(scheduler.pcall, task.wait, 0.25)
    assert.is_true(results[1])
    assert.is_true(math.abs(results[2] - 0.25) < 1e-6)
  end)

  it("nests, and each level has its own error", function()
    local results = in_task(function()
      return scheduler.pcall(function()
        task.wait()
        local ok, err = scheduler.pcall(function()
          task.wait()
          local innermost = counted(scheduler.pcall(waiting(error), "innermost", 0))
          task.wait()
          error(innermost[2] .. ", inner", 0)
        end)
        task.wait()
        assert(not ok)
        error(err .. ", outer", 0)
      end)
    end)
    assert.are.same(counted(false, "innermost, inner, outer"), results)
  end)

  it("nests fifty deep", function()
    local function nest(depth)
      task.wait()
      if depth == 0 then error("deep", 0) end
      local ok, err = scheduler.pcall(nest, depth - 1)
      task.wait()
      assert(not ok)
      error(err, 0)
    end
    assert.are.same(counted(false, "deep"), in_task(scheduler.pcall, nest, 50))
  end)

  it("lets the task go on to wait and to fail", function()
    local errors = uncaught(function()
      task.spawn(function()
        scheduler.pcall(waiting(error))
        task.wait(0.001)
        error("uncaught", 0)
      end)
      advance(10)
    end)
    assert.are.equal(1, #errors)
    assert.are.equal("uncaught", errors[1].err)
    assert.matches("a task spawned at .*pcall_spec%.lua:%d+", errors[1].source)
  end)

  it("lets each kind of wait go on, and what is resumed by hand", function()
    local list, record = recorder()
    local other = task.delay(0.001, error, "joined", 0)
    local co
    co = task.spawn(function()
      record(counted(scheduler.pcall(task.yield)))
      record(scheduler.pcall(task.wait))
      record(counted(scheduler.pcall(task.join, other)))
      record(counted(scheduler.pcall(task.wait, 1)))
      record(counted(scheduler.pcall(task.wait, math.huge)))
    end)
    advance(5000)
    task.spawn(co, "by hand", nil)
    assert.are.same(counted(true), list[1])
    assert.is_true(list[2])
    assert.are.same(counted(false, "joined"), list[3])
    assert.is_true(list[4][1])
    assert.are.same(counted(true, "by hand", nil), list[5])
    assert.are.equal("done", task.status(co))
  end)

  it("lets a yield of the program's own through, with its values both ways", function()
    local co = coroutine.create(function()
      return scheduler.pcall(function(...)
        local back = counted(coroutine.yield(...))
        local again = counted(scheduler.pcall(coroutine.yield, "inner"))
        return back.n, again.n, again[2]
      end, 1, nil)
    end)
    assert.are.same(counted(true, 1, nil), counted(coroutine.resume(co)))
    assert.are.same(counted(true, "inner"), counted(coroutine.resume(co, nil, nil, nil)))
    assert.are.same(counted(true, true, 3, 2, "back"), counted(coroutine.resume(co, "back")))
  end)

  it("parks the task where the program yields inside, until it is resumed", function()
    local got
    local co = task.spawn(function()
      got = counted(scheduler.pcall(function()
        task.wait()
        return coroutine.yield()
      end))
    end)
    advance(10)
    assert.is_nil(got)
    assert.are.equal("parked", task.status(co))
    task.spawn(co, 1, nil)
    assert.are.same(counted(true, 1, nil), got)
  end)

  it("has the task that is running spawned, named, joined and cancelled from within", function()
    local co, status, message
    co = task.spawn(function()
      scheduler.pcall(function()
        task.wait()
        task.name((coroutine.running()), "named within")
        status = task.status((coroutine.running()))
        message = select(2, scheduler.pcall(task.cancel, (coroutine.running())))
        task.wait(1)
      end)
    end)
    scheduler.poll()
    assert.are.equal("named within", task.name(co))
    assert.is_truthy(status == "running" or status == "normal")
    assert.matches("bad argument #1 to 'cancel'", message)
    task.cancel(co)
    assert.are.equal("cancelled", task.status(co))
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("scheduled from within by its own coroutine is the task", function()
    local got
    task.spawn(function()
      scheduler.pcall(function()
        task.defer(coroutine.running(), "x", nil)
        got = counted(coroutine.yield())
      end)
    end)
    scheduler.poll()
    assert.are.same(counted("x", nil), got)
  end)

  it("on the main thread waits as well", function()
    scheduler.clock.resume()
    local function wait_and_give(...)
      task.wait(0.001)
      return ...
    end
    assert.are.same(counted(true, 1, nil), counted(scheduler.pcall(wait_and_give, 1, nil)))
    assert.are.same(counted(false, "boom"), counted(scheduler.pcall(function()
      task.wait(0.001)
      error("boom", 0)
    end)))
    assert.are.same(counted(true, 1, nil), counted(scheduler.xpcall(wait_and_give, ignore, 1, nil)))
  end)

  it("leaves nothing behind, ten thousand times", function()
    local co = task.spawn(function()
      for _ = 1, 10000 do
        scheduler.pcall(task.yield)
      end
      return "ended"
    end)
    advance(1)
    assert.are.equal("ended", task.join(co))
  end)
end)

describe("scheduler.xpcall", function()
  virtual.setup(before_each, after_each)

  local function same_as_stock(fn, handler)
    local expected = counted(stock_xpcall(fn, handler))
    assert.are.same(expected, in_task(scheduler.xpcall, fn, handler))
    assert.are.same(expected, in_task(scheduler.xpcall, waiting(fn), handler))
  end

  it("returns what the function returns, which gets the further arguments", function()
    local function give(...)
      return ...
    end
    for _, fn in ipairs({ give, waiting(give) }) do
      assert.are.same(counted(true), in_task(scheduler.xpcall, fn, ignore))
      assert.are.same(counted(true, nil, 2, nil), in_task(scheduler.xpcall, fn, ignore, nil, 2, nil))
    end
  end)

  it("gives the error to the handler, and returns what that returns first", function()
    for _, err in ipairs(values) do
      local function fail()
        error(err, 0)
      end
      for _, fn in ipairs({ fail, waiting(fail) }) do
        local got
        local results = in_task(scheduler.xpcall, fn, function(...)
          got = counted(...)
          return "handled", "dropped"
        end)
        assert.are.same(counted(false, "handled"), results)
        assert.are.equal(1, got.n)
        assert.are.equal(err, got[1])
      end
    end
    for _, handler in ipairs({ function() end, function() return nil end, function() return false end,
      function(err) return err end }) do
      same_as_stock(function() error("boom", 0) end, handler)
      same_as_stock(function() error() end, handler)
    end
  end)

  it("does not call the handler where there is no error", function()
    local called = false
    in_task(scheduler.xpcall, waiting(ignore), function()
      called = true
    end)
    assert.is_false(called)
  end)

  it("with an error in the handler gives what the stock one gives", function()
    same_as_stock(function() error("boom", 0) end, function() error("in the handler", 0) end)
    same_as_stock(function() error("boom", 0) end, function() error({}, 0) end)
    same_as_stock(function() error("boom", 0) end, function(err)
      if err == "boom" then error("once", 0) end
      return err .. ", handled"
    end)
  end)

  it("of what cannot be called gives the handler what the stock one gives it", function()
    local function handler(err)
      return { err }
    end
    for _, value in ipairs({ 1, "f", {}, true }) do
      assert.are.same(counted(stock_xpcall(value, handler)), in_task(scheduler.xpcall, value, handler))
    end
  end)

  it("with debug.traceback as its handler has the traceback of the error", function()
    local function fails_in_here()
      error("boom")
    end
    local function calls()
      fails_in_here()
      return 1
    end
    for _, fn in ipairs({ calls, waiting(calls) }) do
      local results = in_task(scheduler.xpcall, function()
        fn()
        return 1
      end, debug.traceback)
      assert.is_false(results[1])
      assert.matches("pcall_spec%.lua:%d+: boom\nstack traceback:.*fails_in_here", results[2])
    end
    for _, err in ipairs({ false, { code = 1 } }) do
      same_as_stock(function() error(err, 0) end, debug.traceback)
    end
  end)

  it("nests, with a handler at each level", function()
    local function handler(name)
      return function(err)
        return err .. ", " .. name
      end
    end
    local results = in_task(function()
      return scheduler.xpcall(function()
        task.wait()
        local _, err = scheduler.xpcall(waiting(error), handler("inner"), "boom", 0)
        task.wait()
        error(err, 0)
      end, handler("outer"))
    end)
    assert.are.same(counted(false, "boom, inner, outer"), results)
  end)

  it("on the main thread is the stock one, with arguments", function()
    assert.are.same(counted(true, 1, nil), counted(scheduler.xpcall(function(...)
      return ...
    end, ignore, 1, nil)))
    assert.are.same(counted(false, "boom, handled"), counted(scheduler.xpcall(error, function(err)
      return err .. ", handled"
    end, "boom", 0)))
  end)
end)

describe("stock pcall around waits", function()
  virtual.setup(before_each, after_each)

  it("waits where it can, and raises elsewhere; the task goes on", function()
    local results = in_task(function()
      local first = counted(stock_pcall(task.wait, 0.001))
      task.wait(0.001)
      return first[1], first[2]
    end)
    if scheduler.pcall == stock_pcall then
      assert.is_true(results[1])
    else
      assert.is_false(results[1])
      assert.matches("yield across", results[2])
    end
  end)
end)
