-- Shared mutexes, as far as they are not as other mutexes are: `mutex_spec` has that.

local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local virtual = require("spec.support.virtual")
local workers = require("spec.support.workers")
local refuses = require("spec.support.refuses")

local await, run, shared, task = scheduler.await, scheduler.parallel.run, scheduler.shared, scheduler.task
local advance, recorder = virtual.advance, virtual.recorder

--- Starts a task that locks a mutex, notes its name, and unlocks it.
local function start_waiter(mutex, name, record)
  return task.spawn(function()
    if mutex:lock() ~= true then return end
    record(name)
    mutex:unlock()
  end)
end

--- Turns the loop until `condition()`; false if that takes too long.
local function eventually(condition)
  local limit = os.time() + 20
  while not condition() and os.time() < limit do
    task.wait(0.001)
  end
  return condition()
end

describe("a shared mutex in one VM", function()
  virtual.setup(before_each, after_each)

  it("tells in words whether it is locked", function()
    local mutex = shared.mutex()
    assert.are.equal("mutex", tostring(mutex))
    mutex:lock()
    assert.are.equal("mutex, locked", tostring(mutex))
    mutex:unlock()
  end)

  it("is waited for in vain no longer than the timeout", function()
    local mutex, list, record = shared.mutex(), recorder()
    mutex:lock()
    for _, seconds in ipairs({ 0.01, 0, -1 }) do
      task.spawn(function()
        local start = scheduler.now()
        local ok, why = mutex:lock(seconds)
        record({ ok, why, virtual.since(start) })
      end)
    end
    start_waiter(mutex, "in the end", record)
    advance(20)
    table.sort(list, function(a, b)
      return a[3] > b[3]
    end)
    assert.are.same({ false, "timeout", 10 }, list[1])
    assert.are.same({ false, "timeout", 0 }, list[2])
    mutex:unlock()
    advance(0)
    assert.are.equal("in the end", list[4])
    assert.is_false(mutex:is_locked())
  end)

  it("refuses timeouts that are none, calls on something else, and functions that are none", function()
    local mutex = shared.mutex()
    refuses("bad argument #1 to 'lock' %(number expected, got string%)", mutex.lock, mutex, "1")
    refuses("bad argument #1 to 'lock' %(number expected, got NaN%)", mutex.lock, mutex, 0 / 0)
    refuses("bad argument #1 to 'with' %(function expected, got nil%)", mutex.with, mutex)
    for _, name in ipairs({ "lock", "try_lock", "unlock", "is_locked" }) do
      refuses("calling '" .. name .. "' on bad self %(mutex expected, got number%)", mutex[name], 1)
      refuses("calling '" .. name .. "' on bad self %(mutex expected, got userdata%)", mutex[name], shared.atomic())
    end
    refuses("calling 'with' on bad self %(mutex expected, got number%)", mutex.with, 1, print)
    assert.is_false(mutex:is_locked())
  end)

  it("is let go by a task that ends, or is cancelled, while it holds it", function()
    local mutex, list, record = shared.mutex(), recorder()
    local ended = {
      task.spawn(function()
        mutex:lock()
        task.wait(0.01)
      end),
      task.spawn(function()
        mutex:lock()
        task.wait(0.01)
        error("failed")
      end),
      task.spawn(function()
        mutex:lock()
        task.wait(60)
      end),
    }
    start_waiter(mutex, "next", record)
    attempt.reported(function()
      advance(30)
    end)
    assert.are.same({}, list)
    task.cancel(ended[3])
    advance(0)
    assert.are.same({ "next" }, list)
    assert.is_false(mutex:is_locked())
  end)

  it("is not let go by a task that waits, or has others run meanwhile", function()
    local mutex = shared.mutex()
    local inner
    local holder = task.spawn(function()
      inner = scheduler.coroutine.wrap(function()
        mutex:lock()
        task.wait(0.02)
      end)
      inner()
      task.wait(0.02)
      mutex:unlock()
    end)
    advance(30)
    assert.are.equal("suspended", coroutine.status(holder))
    assert.is_true(mutex:is_locked())
    advance(30)
    assert.is_false(mutex:is_locked())
  end)

  for name, start in pairs(attempt.leavings) do
    for moment, when in pairs({
      ["before it hears of it"] = function(leave)
        leave()
      end,
      ["before it was resumed"] = function(leave)
        -- In a turn, timers come after what other threads have posted, and before tasks.
        scheduler.setTimeout(leave, 0)
      end,
    }) do
      it("is handed on by a task that has become its holder, and goes on by " .. name .. " " .. moment, function()
        local list, record = recorder()
        local mutex = shared.mutex()
        mutex:lock()
        local leave = start(function()
          if mutex:lock() == true then mutex:unlock() end
        end)
        start_waiter(mutex, "second", record)
        mutex:unlock()
        attempt.reported(function()
          when(leave)
          advance(0)
        end)
        assert.are.same({ "second" }, list)
        assert.is_false(mutex:is_locked())
      end)
    end
  end

  it("can be collected", function()
    assert.is_true(memory.is_released(function()
      local mutex = shared.mutex()
      mutex:lock()
      mutex:unlock()
      return mutex
    end))
  end)
end)

describe("a shared mutex between VMs", function()
  it("lets one worker at a time in", function()
    local mutex, buffer = shared.mutex(), shared.buffer("f64", 1)
    workers.run(4, function()
      for _ = 1, 1000 do
        mutex:lock()
        buffer:set(1, buffer:get(1) + 1)
        mutex:unlock()
        mutex:with(function()
          buffer:set(1, buffer:get(1) + 1)
        end)
      end
    end)
    assert.are.equal(8000, buffer:get(1))
    assert.is_false(mutex:is_locked())
  end)

  it("is the same one wherever it arrives, and tells who holds it", function()
    local mutex = shared.mutex()
    mutex:lock()
    local back, message = await(run(function(argument)
      assert(rawequal(argument, mutex) and argument:is_locked() and not argument:try_lock())
      return { argument }, select(2, pcall(argument.unlock, argument))
    end, mutex))
    assert.is_true(rawequal(mutex, back[1]))
    assert.matches("the mutex is locked by another VM or task$", message)
    assert.is_true(mutex:is_locked())
    mutex:unlock()
  end)

  it("suspends the task that waits, not its thread", function()
    local mutex, step = shared.mutex(), shared.atomic(0)
    mutex:lock()
    local job = run(function()
      local inner = require("scheduler")
      local ticks = 0
      inner.setInterval(function()
        ticks = ticks + 1
        if ticks == 3 then step:set(1) end
      end, 1)
      mutex:lock()
      mutex:unlock()
      return ticks
    end)
    assert.is_true(eventually(function()
      return step:get() == 1
    end))
    mutex:unlock()
    assert.is_true(await(job) >= 3)
  end)

  it("wakes a main thread that has nothing else to do", function()
    local mutex, step = shared.mutex(), shared.atomic(0)
    local job = run(function()
      mutex:lock()
      step:set(1)
      require("scheduler").task.wait(0.02)
      mutex:unlock()
    end)
    assert.is_true(eventually(function()
      return step:get() == 1
    end))
    assert.is_true(mutex:lock())
    mutex:unlock()
    await(job)
    assert.are.equal(0, scheduler.stats().jobs_pending)
  end)

  it("is unlocked when a job ends that holds it, by its end or by an error", function()
    local mutex = shared.mutex()
    for _, fails in ipairs({ true, false }) do
      pcall(await, run(function()
        mutex:lock()
        if fails then error("failed") end
      end))
      assert.is_false(mutex:is_locked())
      assert.is_true(mutex:lock(5))
      mutex:unlock()
    end
  end)

  for name, finish in pairs({
    ["by its end"] = function() end,
    ["by an error"] = function()
      error("failed")
    end,
    ["by an error after it has waited"] = function()
      require("scheduler").task.wait(0.001)
      error("failed")
    end,
    ["as it is cancelled while it waits"] = function()
      require("scheduler").task.wait(60)
    end,
    ["as it is cancelled while it computes"] = function()
      -- A compiled loop is not interrupted.
      if jit then jit.off() jit.flush() end
      repeat until not tostring(nil)
    end,
  }) do
    it("is unlocked when a job ends that holds it while another waits in its worker: " .. name, function()
      local pool = scheduler.parallel.pool({ size = 1, concurrency = 2 })
      local mutex, go = shared.mutex(), scheduler.channel()
      local waiting = pool:run(function()
        return go:recv()
      end)
      local job = pool:run(function()
        mutex:lock()
        finish()
      end)
      job:catch(function() end)
      assert.is_true(eventually(function()
        return mutex:is_locked() or job:getStatus() ~= "Started"
      end))
      if name:find("cancelled") then job:cancel() end
      assert.is_true(mutex:lock(20))
      mutex:unlock()
      go:send("went on")
      assert.are.equal("went on", await(waiting))
      pool:close()
    end)
  end

  it("stays locked when another job ends in its holder's worker", function()
    local pool = scheduler.parallel.pool({ size = 1, concurrency = 2 })
    local mutex, go = shared.mutex(), scheduler.channel()
    local holding = pool:run(function()
      return mutex:with(go.recv, go)
    end)
    await(pool:run(function() end))
    pcall(await, pool:run(error))
    assert.is_true(mutex:is_locked())
    go:send("went on")
    assert.are.equal("went on", await(holding))
    pool:close()
  end)

  it("is handed on when a job ends that waits for it in another task", function()
    local mutex = shared.mutex()
    mutex:lock()
    await(run(function()
      require("scheduler").task.spawn(mutex.lock, mutex)
    end))
    mutex:unlock()
    assert.is_false(mutex:is_locked())
    -- The worker has left nothing behind that would confuse its next jobs.
    assert.are.same({ true, true }, workers.run(2, function()
      return mutex:with(function()
        return true
      end)
    end))
  end)

  it("does not keep tasks that waited for it when their job ended", function()
    local pool, mutex = scheduler.parallel.pool({ size = 1 }), shared.mutex()
    mutex:lock()
    await(pool:run(function()
      left_behind = setmetatable({}, { __mode = "k" }) -- luacheck: ignore 111
      local co = require("scheduler").task.spawn(mutex.lock, mutex)
      left_behind[co] = true -- luacheck: ignore 112
    end))
    assert.is_true(await(pool:run(function()
      -- A second job, as what the first has on its stack is garbage only now.
      for _ = 1, 3 do
        collectgarbage()
      end
      return next(left_behind) == nil -- luacheck: ignore 113
    end)))
    mutex:unlock()
    pool:close()
  end)

  it("loses no turn to waits that time out while it is handed to them", function()
    local mutex = shared.mutex()
    local counts = workers.run(4, function()
      local count = 0
      for i = 1, 400 do
        if mutex:lock(i % 3 == 0 and 0.0002 or nil) then
          count = count + 1
          mutex:unlock()
        end
      end
      return count
    end)
    for i = 1, 4 do
      assert.is_true(counts[i] >= 267, counts[i])
    end
    assert.is_false(mutex:is_locked())
  end)

  it("does not block the pool: jobs that wait for it are stood in for", function()
    local mutex = shared.mutex()
    mutex:lock()
    local waiting = workers.start(8, function()
      mutex:lock()
      mutex:unlock()
      return true
    end)
    assert.are.equal("run", await(run(function()
      return "run"
    end)))
    mutex:unlock()
    for i = 1, 8 do
      assert.is_true(await(waiting[i]))
    end
  end)

  it("is freed when neither a VM nor one that waits has it", function()
    workers.collect()
    memory.collect()
    local before = scheduler.stats().shared
    coroutine.wrap(function()
      scheduler.run(function()
        local mutex = shared.mutex()
        workers.run(2, function()
          mutex:lock()
        end)
      end)
    end)()
    workers.collect()
    memory.collect()
    -- What an earlier test has left on a stack may go meanwhile.
    assert.is_true(scheduler.stats().shared <= before)
  end)

  it("is let go by a Lua state that closes, whether it holds it or waits", function()
    -- The states of the host share a mutex by way of a worker, whose globals stay.
    local result = child.host([[
      local scheduler = require("scheduler")
      local function get()
        return scheduler.await(scheduler.parallel.run(function()
          kept = kept or require("scheduler").shared.table()
          return kept
        end))
      end
      local mutex = get():update("mutex", function(mutex) return mutex or scheduler.shared.mutex() end)
      assert(mutex:lock(5), "it is not let go")
      scheduler.task.spawn(mutex.lock, mutex)
      scheduler.poll()
    ]], 5)
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
  end)

  it("does not hold up a program that ends", function()
    for _, close in ipairs({ "true", "false" }) do
      local result = child.script([[
        local mutex = scheduler.shared.mutex()
        mutex:lock()
        for _ = 1, 3 do
          scheduler.parallel.run(function() mutex:lock() end)
          scheduler.parallel.run(function() mutex:with(print) end)
        end
        scheduler.task.spawn(mutex.lock, mutex)
        scheduler.setTimeout(function() os.exit(4, ]] .. close .. [[) end, 20)
        scheduler.run()
      ]])
      assert.are.equal("", result.err)
      assert.are.equal(4, result.code)
    end
  end)

  it("is not waited for for ever in the child of a fork", function()
    local result = child.host([[
      local scheduler = require("scheduler")
      local mutex = scheduler.shared.mutex()
      local job = scheduler.parallel.run(function()
        mutex:lock()
        require("scheduler").task.wait(0.3)
        mutex:unlock()
      end)
      scheduler.Promise.resolve(job):catch(function() end)
      while not mutex:is_locked() do scheduler.task.wait(0.001) end
      local pid
      scheduler.setTimeout(function() pid = host.fork() end, 1)
      local ok, message = pcall(mutex.lock, mutex)
      if pid == 0 then
        assert(not ok and message:find("nothing is left that could end this wait"), tostring(message))
        os.exit(7, true)
      end
      assert(ok, message)
      mutex:unlock()
      scheduler.await(job)
      assert(host.wait(pid) == 7)
    ]])
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
  end)
end)
