-- Coroutines and what they hold, collected at any moment: while they sleep, wait, hold something, or were left.

local scheduler = require("scheduler")
local child = require("spec.support.child")
local memory = require("spec.support.memory")

local task = scheduler.task

describe("a task that nobody else knows", function()
  it("and that sleeps is not collected, and wakes", function()
    local woken = 0
    for i = 1, 50 do
      task.spawn(function()
        task.wait(i / 10000)
        woken = woken + 1
      end)
    end
    memory.collect()
    scheduler.run()
    assert.are.equal(50, woken)
  end)

  for name, wait in pairs({
    ["an event"] = function() scheduler.event():wait() end,
    ["a queue"] = function() scheduler.queue():pop() end,
    ["a full queue"] = function()
      local queue = scheduler.queue(1)
      queue:push(1)
      queue:push(2)
    end,
    ["a semaphore"] = function()
      local semaphore = scheduler.semaphore(1)
      semaphore:acquire()
      semaphore:acquire()
    end,
    ["a promise"] = function() scheduler.await(scheduler.Promise.new(function() end)) end,
    ["a channel"] = function() scheduler.channel():recv() end,
    ["a select"] = function()
      scheduler.select({ { scheduler.channel(), "recv" }, { scheduler.channel(), "recv" } })
    end,
    ["a mutex that a lost task holds"] = function()
      local mutex = scheduler.mutex()
      task.spawn(function()
        mutex:lock()
        coroutine.yield()
      end)
      mutex:lock()
    end,
    ["itself, by a yield of its own"] = function() coroutine.yield() end,
  }) do
    it("and that waits for " .. name .. " is collected, with what it holds", function()
      assert.is_true(memory.is_released(function()
        local held = {}
        local co = task.spawn(function()
          wait()
          return held
        end)
        return co, held
      end))
      scheduler.run()
    end)
  end

  -- Who waits for a task is known by that task, which it refers to itself. Lua 5.1 has no tables that let go of such a
  -- ring.
  it("and that waits for a task which waits for ever is collected, or kept in Lua 5.1 and LuaJIT", function()
    local is_released = memory.is_released(function()
      return task.spawn(function()
        task.join(task.spawn(coroutine.yield))
      end)
    end)
    assert.are.equal(_VERSION ~= "Lua 5.1", is_released)
  end)

  it("and that ran to its end, or failed, is collected with its results", function()
    assert.is_true(memory.is_released(function()
      local result, err = {}, {}
      local former = scheduler.on_error(function() end)
      local ended = task.spawn(function()
        return result
      end)
      local failed = task.spawn(error, err)
      scheduler.on_error(former)
      return ended, failed, result, err
    end))
  end)
end)

describe("a mutex that is held by a task which was collected", function()
  it("stays locked for those that try, and keeps nobody's loop", function()
    local mutex = scheduler.mutex()
    coroutine.wrap(function()
      task.spawn(function()
        mutex:lock()
        coroutine.yield()
      end)
    end)()
    memory.collect()
    assert.is_true(mutex:is_locked())
    local got = "pending"
    task.spawn(function()
      got = mutex:lock(0.001)
    end)
    scheduler.run()
    assert.is_false(got)
  end)

  it("and that locked it by `with` and was cancelled is free", function()
    local mutex = scheduler.mutex()
    local co = task.spawn(function()
      mutex:with(function()
        coroutine.yield()
      end)
    end)
    task.cancel(co)
    assert.is_false(mutex:is_locked())
  end)
end)

describe("a pool and a task that waits for room in it, which nobody else knows", function()
  it("are kept until the task has gone on", function()
    local is_over, sent = scheduler.channel(), 0
    local function wait()
      is_over:recv()
    end
    -- In a coroutine, whose stack goes with it.
    coroutine.wrap(function()
      local pool = scheduler.parallel.pool({ size = 1, queue = 0 })
      pool:run(wait)
      task.spawn(function()
        pool:run(wait)
        sent = sent + 1
      end)
    end)()
    memory.collect()
    is_over:close()
    scheduler.run()
    assert.are.equal(1, sent)
  end)
end)

describe("what a callback refers to", function()
  it("is released when it has fired, was cleared or has failed", function()
    assert.is_true(memory.is_released(function()
      local list = {}
      local former = scheduler.on_error(function() end)
      for i = 1, 4 do
        list[i] = {}
      end
      scheduler.setTimeout(function()
        return list[1]
      end)
      scheduler.clearTimeout(scheduler.setTimeout(function()
        return list[2]
      end, 1e6))
      scheduler.setTimeout(function()
        error(list[3])
      end)
      scheduler.setImmediate(function()
        return list[4]
      end)
      scheduler.run()
      scheduler.on_error(former)
      return list[1], list[2], list[3], list[4]
    end))
  end)

  it("is released with the coroutine of a callback that waits for ever", function()
    assert.is_true(memory.is_released(function()
      local held = {}
      scheduler.setTimeout(function()
        coroutine.yield()
        return held
      end)
      scheduler.run()
      return held
    end))
  end)
end)

describe("a generator that is left half-way", function()
  it("is collected with what waits in it", function()
    assert.is_true(memory.is_released(function()
      local held = {}
      local generator
      scheduler.run(function()
        generator = scheduler.coroutine.wrap(function()
          task.wait(0.0001)
          coroutine.yield(1)
          return held
        end)
        generator()
      end)
      return generator, held
    end))
  end)
end)

describe("a handle that is collected", function()
  it("of a job lets the job go on, and reports its failure", function()
    local result = child.script([[
      local channel = scheduler.channel(10)
      scheduler.parallel.run(function(ch) require("scheduler").task.wait(0.005) ch:send("done") end, channel)
      scheduler.parallel.run(function() error("failed alone") end)
      for _ = 1, 5 do collectgarbage() end
      assert(channel:recv() == "done")
      scheduler.run()
      for _ = 1, 5 do collectgarbage() end
      scheduler.run()
      io.write("works")
    ]])
    assert.are.equal("works", result.out)
    assert.matches("failed alone", result.err)
  end)

  it("of a pool with jobs in flight ends the process as ever", function()
    local result = child.script([[
      for i = 1, 10 do
        local pool = scheduler.parallel.pool({ size = 1 })
        pool:run(function() require("scheduler").task.wait(0.001) end)
        pool = nil
        collectgarbage()
      end
      scheduler.on_error(function() end)
      scheduler.run()
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
    assert.are.equal(0, result.code)
  end)

  it("at every step of a turn leaves the turn whole", function()
    local result = child.script([[
      require("spec.support.memory").set_pause(0)
      if _VERSION ~= "Lua 5.5" then collectgarbage("setstepmul", 10000) end
      local count = 0
      local function step() count = count + 1 collectgarbage() end
      for i = 1, 10 do
        scheduler.setTimeout(step, i % 3)
        scheduler.queueMicrotask(step)
        scheduler.setImmediate(step)
        scheduler.task.spawn(function() scheduler.task.wait(0.001) step() end)
        scheduler.task.defer(step)
        scheduler.Promise.delay(0.001):andThen(step)
        scheduler.parallel.run(function() collectgarbage() end):andThen(step)
      end
      scheduler.run()
      assert(count == 70, count)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
  end)
end)

describe("a coroutine that a finalizer brings back", function()
  it("can be resumed by hand, and goes on", function()
    local result = child.script([[
      local back
      local function finalizer(fn, co)
        if newproxy then
          local proxy = newproxy(true)
          getmetatable(proxy).__gc = function() fn(co) end
          return proxy
        end
        return setmetatable({}, { __gc = function() fn(co) end })
      end
      local went_on = false
      coroutine.wrap(function()
        local co
        co = scheduler.task.spawn(function()
          scheduler.event():wait()
          went_on = true
        end)
        local guard = finalizer(function(lost) back = lost end, co)
      end)()
      for _ = 1, 5 do collectgarbage() end
      assert(back)
      assert(coroutine.resume(back))
      scheduler.run()
      assert(went_on)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
    assert.are.equal("", result.err)
  end)
end)
