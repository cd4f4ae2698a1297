local scheduler = require("scheduler")
local child = require("spec.support.child")
local memory = require("spec.support.memory")

local parallel, task = scheduler.parallel, scheduler.task

--- Waits until `is_so()`, for seconds at the most.
local function wait_until(is_so)
  for _ = 1, 5000 do
    if is_so() then return true end
    task.wait(0.001)
  end
  return false
end

local function sleep(seconds)
  require("scheduler").task.wait(seconds)
end

--- Holds its worker until a shared number is as great. To wait for a channel, or for another job, would not: other
--- workers take the place of one that does.
local function wait_for(number, gate)
  while gate:get() < number do
    require("scheduler").task.wait(0.001)
  end
  return number
end

local function nap(n)
  require("scheduler").task.wait(0.02)
  return n
end

describe("a pool", function()
  it("runs functions in workers of its own, as many as its size", function()
    local pool = parallel.pool({ size = 3 })
    local jobs = {}
    for i = 1, 30 do
      jobs[i] = pool:run(nap, i)
    end
    for i = 1, 30 do
      assert.are.equal(i, jobs[i]:expect())
    end
    local stats = pool:stats()
    assert.are.equal(3, stats.size)
    assert.is_true(stats.workers >= 1 and stats.workers <= 3)
    assert.are.equal(30, stats.done)
    assert.are.equal(0, stats.failed + stats.cancelled + stats.queued + stats.running)
    assert.is_true(pool:close())
  end)

  it("starts no worker before there is a job", function()
    assert.are.equal(0, parallel.pool({ size = 2 }):stats().workers)
  end)

  it("refuses options that are not what they should be, at the line of the call", function()
    local wrong = {
      { { size = 0 }, "option 'size': whole number of at least 1 expected, got 0" },
      { { size = 1.5 }, "option 'size': whole number of at least 1 expected, got 1.5" },
      { { size = "two" }, "option 'size': number expected, got string" },
      { { queue = -1 }, "option 'queue': whole number of at least 0 expected, got %-1" },
      { { concurrency = 0 }, "option 'concurrency': whole number of at least 1 expected, got 0" },
      { { memory_limit = 0 }, "option 'memory_limit': whole number of at least 1 expected, got 0" },
      { { idle = 0 / 0 }, "option 'idle': number expected, got NaN" },
      { { name = 7 }, "option 'name': string expected, got number" },
      { { init = true }, "option 'init': function expected, got boolean" },
      { { threads = 2 }, "unknown option 'threads'" },
      { 7, "table expected, got number" },
    }
    for _, case in ipairs(wrong) do
      local ok, err = pcall(parallel.pool, case[1])
      assert.is_false(ok)
      assert.matches("^spec/pool_spec.lua:%d+: bad argument #1 to 'pool' %(" .. case[2] .. "%)$", err)
    end
    local file = io.stdout
    local ok, err = pcall(parallel.pool, { init = function()
      return file
    end })
    assert.is_false(ok)
    assert.matches("^spec/pool_spec.lua:%d+: cannot transfer option 'init', upvalue 'file': userdata$", err)
  end)

  it("refuses a self that is no pool", function()
    local pool = parallel.pool()
    for _, name in ipairs({ "run", "map", "close", "stats" }) do
      local ok, err = pcall(pool[name], 7)
      assert.is_false(ok)
      assert.matches("calling '" .. name .. "' on bad self %(pool expected, got number%)", err)
    end
  end)

  it("says in words what it is", function()
    assert.are.equal("pool of 2 workers, 0 jobs", tostring(parallel.pool({ size = 2 })))
  end)

  it("calls init once in each worker, before the first job", function()
    local pool = parallel.pool({ size = 1, init = function()
      require("scheduler").task.wait(0.001)
      package.loaded.state = { calls = ((package.loaded.state or {}).calls or 0) + 1 }
    end })
    for _ = 1, 3 do
      assert.are.equal(1, pool:run(function()
        return require("state").calls
      end):expect())
    end
  end)

  it("fails its jobs if init fails, with the reason", function()
    for _, init in ipairs({
      function()
        error("no state")
      end,
      function()
        require("scheduler").task.wait(0.001)
        error("no state")
      end,
    }) do
      local pool = parallel.pool({ size = 1, init = init })
      for _ = 1, 2 do
        local ok, err = pcall(function()
          return pool:run(function() end):expect()
        end)
        assert.is_false(ok)
        assert.matches("the pool's init failed: .*no state", err.message)
      end
      pool:close()
    end
  end)

  it("makes the caller wait while its queue is full", function()
    local gate = scheduler.shared.atomic(0)
    local pool = parallel.pool({ size = 1, queue = 2 })
    local sent, order = 0, {}
    for i = 1, 5 do
      task.spawn(function()
        local job = pool:run(wait_for, i, gate)
        sent = sent + 1
        order[#order + 1] = i
        job:expect()
      end)
    end
    -- One runs, two are queued.
    assert.is_true(wait_until(function()
      return sent == 3 and pool:stats().running == 1
    end))
    task.wait(0.005)
    assert.are.equal(3, sent)
    gate:set(5)
    assert.is_true(wait_until(function()
      return pool:stats().done == 5
    end))
    assert.are.same({ 1, 2, 3, 4, 5 }, order)
  end)

  it("lets the main thread wait for room", function()
    local pool = parallel.pool({ size = 1, queue = 0 })
    local jobs = {}
    for i = 1, 10 do
      jobs[i] = pool:run(nap, i)
      assert.is_true(pool:stats().queued <= 1)
    end
    for i = 1, 10 do
      assert.are.equal(i, jobs[i]:expect())
    end
  end)

  it("lets others have the room if one that waits for it is cancelled", function()
    local gate = scheduler.shared.atomic(0)
    local pool = parallel.pool({ size = 1, queue = 0 })
    local first = pool:run(wait_for, 1, gate)
    local second_sent
    local cancelled = task.spawn(function()
      pool:run(wait_for, 2, gate)
    end)
    task.spawn(function()
      pool:run(wait_for, 2, gate):expect()
      second_sent = true
    end)
    task.cancel(cancelled)
    gate:set(1)
    assert.are.equal(1, first:expect())
    gate:set(2)
    assert.is_true(wait_until(function()
      return second_sent
    end))
    assert.are.equal(2, pool:stats().done)
  end)

  it("runs several jobs in one worker, while they wait, if told to", function()
    local pool = parallel.pool({ size = 1, concurrency = 20 })
    local begun, gate = scheduler.shared.atomic(0), scheduler.shared.atomic(0)
    local jobs = {}
    for i = 1, 20 do
      jobs[i] = pool:run(function(n, started, go)
        started:add(1)
        while go:get() == 0 do
          require("scheduler").task.wait(0.001)
        end
        return 100 + n
      end, i, begun, gate)
    end
    -- All have begun before one can end.
    assert.is_true(wait_until(function()
      return begun:get() == 20
    end))
    assert.are.equal(1, pool:stats().workers)
    gate:set(1)
    for i = 1, 20 do
      assert.are.equal(100 + i, jobs[i]:expect())
    end
  end)

  it("keeps what the jobs of one worker schedule apart by their ends", function()
    local pool = parallel.pool({ size = 1, concurrency = 2 })
    local long = pool:run(function()
      local inner = require("scheduler")
      inner.task.wait(0.05)
      return "long"
    end)
    for i = 1, 5 do
      assert.are.equal(i, pool:run(nap, i):expect())
    end
    local failing = pool:run(function()
      require("scheduler").task.wait(0.001)
      error("only this one")
    end)
    assert.is_false((pcall(failing.expect, failing)))
    assert.are.equal("long", long:expect())
  end)

  it("keeps jobs that wait when one that computes in their worker is cancelled", function()
    local pool = parallel.pool({ size = 1, concurrency = 2 })
    local is_started, is_over = scheduler.shared.atomic(0), scheduler.shared.atomic(0)
    local waiting = pool:run(function()
      require("scheduler").task.wait(0.05)
      return "waited"
    end)
    local computing = pool:run(function()
      is_started:set(1)
      while is_over:get() == 0 do
      end
    end)
    assert.is_true(wait_until(function()
      return is_started:get() == 1
    end))
    computing:cancel()
    task.wait(0.02)
    is_over:set(1)
    assert.are.equal("waited", waiting:expect())
  end)

  it("loses none of several jobs in a worker while others are cancelled at any moment", function()
    local pool = parallel.pool({ size = 1, concurrency = 4 })
    local function job(i)
      if i % 3 == 0 then return i end
      if i % 3 == 1 then require("scheduler").task.wait(0.0003) end
      for _ = 1, 20000 do
      end
      return i
    end
    for _ = 1, 400 do
      local jobs = {}
      for i = 1, math.random(6) do
        jobs[i] = pool:run(job, i)
      end
      task.wait(math.random() * 0.001)
      for i = 1, #jobs, 2 do
        jobs[i]:cancel()
      end
      for i = 2, #jobs, 2 do
        assert.are.equal(i, jobs[i]:expect())
      end
    end
  end)

  it("ends workers that are idle, and starts others later", function()
    local pool = parallel.pool({ size = 2, idle = 0.01 })
    pool:run(nap, 1):expect()
    assert.is_true(wait_until(function()
      return pool:stats().workers == 0
    end))
    assert.are.equal(2, pool:run(nap, 2):expect())
  end)

  it("names its threads", function()
    local pool = parallel.pool({ size = 1, name = "a name that is long" })
    local name = pool:run(function()
      local file = io.open("/proc/thread-self/comm")
      return file and file:read("*l")
    end):expect()
    if name then assert.are.equal("a name that i-1", name) end
  end)

  it("lets jobs use the pool that they run in, also when all its workers wait for them", function()
    local pool = parallel.pool({ size = 1, queue = 1 })
    local function sum(depth, same)
      if depth == 0 then return 1 end
      local a, b = same:run(sum, depth - 1, same), same:run(sum, depth - 1, same)
      return a:expect() + b:expect()
    end
    assert.are.equal(16, pool:run(sum, 4, pool):expect())
    assert.is_true(pool:close())
  end)

  it("works in the child of a fork", function()
    local result = child.run({ "-e", [[
      local ok, unistd = pcall(require, "posix.unistd")
      if not ok then io.write("no fork here"); return end
      local scheduler = require("scheduler")
      local pool = scheduler.parallel.pool({ size = 2 })
      assert(pool:run(function() return 1 end):expect() == 1)
      local pid = unistd.fork()
      local n = pool:run(function() return 2 end):expect()
      if pid == 0 then
        io.write("child ", n, " ", tostring(pool:close()), "\n")
        io.stdout:flush()
        unistd._exit(0)
      end
      require("posix.sys.wait").wait(pid)
      io.write("parent ", n, "\n")
    ]] })
    assert.are.equal(0, result.code, result.err)
    if result.out ~= "no fork here" then assert.are.equal("child 2 true\nparent 2\n", result.out) end
  end)
end)

describe("closing a pool", function()
  it("waits for what is queued and runs, and takes no more", function()
    local pool = parallel.pool({ size = 1 })
    local jobs = {}
    for i = 1, 5 do
      jobs[i] = pool:run(nap, i)
    end
    assert.is_true(pool:close())
    for i = 1, 5 do
      assert.are.equal(i, jobs[i]:expect())
    end
    local ok, err = pcall(pool.run, pool, nap, 6)
    assert.is_false(ok)
    assert.are.equal("closed", err.kind)
    assert.matches("^spec/pool_spec.lua:%d+: the pool is closed$", err.message)
    assert.is_true(pool:close())
    assert.is_true(wait_until(function()
      return pool:stats().workers == 0
    end))
  end)

  it("cancels all with 0, and the promises are cancelled", function()
    local pool = parallel.pool({ size = 1 })
    local jobs = {}
    for i = 1, 5 do
      jobs[i] = pool:run(sleep, 100)
    end
    assert.is_false(pool:close(0))
    for i = 1, 5 do
      assert.are.equal("Cancelled", (jobs[i]:awaitStatus()))
    end
    assert.is_true(wait_until(function()
      return pool:stats().workers == 0
    end))
    assert.are.equal(5, pool:stats().cancelled)
  end)

  it("cancels the rest after a time", function()
    local pool = parallel.pool({ size = 1 })
    local short, long = pool:run(nap, 1), pool:run(sleep, 100)
    assert.are.equal(1, short:expect())
    assert.is_false(pool:close(0.02))
    assert.are.equal("Cancelled", (long:awaitStatus()))
  end)

  it("raises in a job of the pool itself, which would wait for its own end", function()
    local pool = parallel.pool({ size = 1 })
    local message = pool:run(function(own)
      return select(2, pcall(own.close, own))
    end, pool):expect()
    assert.matches("a job cannot wait for the end of the pool that it runs in$", message)
  end)

  it("wakes those that wait for room, who are told", function()
    local pool = parallel.pool({ size = 1, queue = 0 })
    pool:run(sleep, 100)
    local message
    task.spawn(function()
      message = select(2, scheduler.pcall(pool.run, pool, nap, 1))
    end)
    pool:close(0)
    assert.is_true(wait_until(function()
      return message
    end))
    assert.matches("the pool is closed$", message.message)
  end)

  it("does not keep the pool, though tasks have waited for room in it and for its end", function()
    assert.is_true(memory.is_released(function()
      local pool = parallel.pool({ size = 1, queue = 0 })
      local first, second = pool:run(nap, 1), pool:run(nap, 2)
      assert.are.equal(3, first:expect() + second:expect())
      pool:close()
      return pool
    end))
  end)

  it("is not needed: a pool that is collected ends its workers, and its jobs before", function()
    local pool = parallel.pool({ size = 1, idle = math.huge })
    local jobs = { pool:run(nap, 1), pool:run(nap, 2) }
    local probe = setmetatable({ pool }, { __mode = "v" })
    pool = nil -- luacheck: no unused
    memory.collect()
    assert.are.equal(1, jobs[1]:expect())
    assert.are.equal(2, jobs[2]:expect())
    assert.is_true(wait_until(function()
      memory.collect()
      return probe[1] == nil
    end))
  end)

  it("is not needed at the end of a program, whatever its jobs do", function()
    local result = child.run({ "-e", [[
      local scheduler = require("scheduler")
      local pools = {}
      for i = 1, 3 do
        pools[i] = scheduler.parallel.pool({ size = 2 })
        pools[i]:run(function() while true do end end)
        pools[i]:run(function() require("scheduler").task.wait(100) end)
        pools[i]:run(print, "never")
      end
      pools[1]:run(print, "never")
    ]] })
    assert.are.equal(0, result.code, result.err)
    assert.are.equal("", result.out .. result.err)
  end)
end)

describe("memory_limit", function()
  it("fails the job that needs more, with the kind 'memory', and the pool lives", function()
    local pool = parallel.pool({ size = 1, memory_limit = 8 * 2 ^ 20 })
    for _, hungry in ipairs({
      function()
        local list = {}
        for i = 1, 1e9 do
          list[i] = { i }
        end
        return #list
      end,
      function()
        return #("x"):rep(2 ^ 26)
      end,
      function()
        require("scheduler").task.wait(0.001)
        local text = {}
        for i = 1, 1e9 do
          text[i] = ("%d"):format(i):rep(1000)
        end
        return #text
      end,
    }) do
      local job = pool:run(hungry)
      local ok, err = pcall(job.expect, job)
      assert.is_false(ok)
      assert.are.equal("memory", err.kind)
      assert.matches("not enough memory", err.message)
      assert.are.equal("lives", pool:run(function()
        return "lives"
      end):expect())
    end
  end)

  it("fails jobs whose arguments alone are too large", function()
    local pool = parallel.pool({ size = 1, memory_limit = 4 * 2 ^ 20 })
    local job = pool:run(function(text)
      return #text
    end, ("x"):rep(2 ^ 24))
    local ok, err = pcall(job.expect, job)
    assert.is_false(ok)
    assert.are.equal("memory", err.kind)
    assert.are.equal(1, pool:run(function()
      return 1
    end):expect())
  end)

  it("fails all jobs if not even a worker fits", function()
    local pool = parallel.pool({ size = 1, memory_limit = 1000 })
    local job = pool:run(function() end)
    local ok, err = pcall(job.expect, job)
    assert.is_false(ok)
    assert.are.equal("memory", err.kind)
  end)
end)
