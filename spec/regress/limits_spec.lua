-- What the system refuses: threads, descriptors, memory. And what it changes: clocks.

local child = require("spec.support.child")

local function works(source)
  local result = child.host("local scheduler = require('scheduler') local task = scheduler.task " .. source)
  assert.are.equal("", result.err)
  assert.are.equal("works", result.out)
  assert.are.equal(0, result.code)
end

-- What needs neither threads nor descriptors of its own.
local GOES_ON = [[
  local function goes_on()
    local fired = 0
    scheduler.setTimeout(function() fired = fired + 1 end, 1)
    task.spawn(function() task.wait(0.001) fired = fired + 1 end)
    scheduler.run()
    assert(fired == 2)
    assert(scheduler.await(scheduler.Promise.delay(0.001):andThen(function() return 3 end)) == 3)
  end
]]

-- Root is exempt from the limit of threads, and becomes nobody for it, who may not read the module any more.
local function without_threads(source)
  works(GOES_ON .. [[
    goes_on()
    for _, name in ipairs({ "parallel", "channel", "shared", "select", "Promise" }) do local _ = scheduler[name] end
    local pool_of_two = scheduler.parallel.pool({ size = 2 })
  ]] .. source:gsub("NO_MORE_THREADS", "assert(host.limit('threads', 1))"))
end

describe("without threads to be had", function()
  it("a job is refused where it is sent, and the rest goes on", function()
    without_threads([[
      NO_MORE_THREADS
      local ok, err = pcall(scheduler.parallel.run, function() end)
      assert(not ok and tostring(err):find("thread", 1, true), tostring(err))
      goes_on()
      ok, err = pcall(pool_of_two.run, pool_of_two, function() end)
      assert(not ok)
      assert(pool_of_two:stats().queued == 0 and pool_of_two:stats().workers == 0)
      goes_on()
      io.write("works")
    ]])
  end)

  it("a pool that has one worker of two goes on with that one", function()
    without_threads([[
      assert(scheduler.await(pool_of_two:run(function() return 1 end)) == 1)
      NO_MORE_THREADS
      local jobs = {}
      for i = 1, 10 do jobs[i] = pool_of_two:run(function(n) return n * n end, i) end
      for i = 1, 10 do assert(scheduler.await(jobs[i]) == i * i) end
      goes_on()
      io.write("works")
    ]])
  end)

  it("a job that waits for a job of the same pool fails or ends, and does not hang", function()
    without_threads([[
      local pool = scheduler.parallel.pool({ size = 1, concurrency = 1 })
      pool:run(function() require("scheduler") end):expect()
      NO_MORE_THREADS
      local job = pool:run(function()
        local inner = require("scheduler")
        local ok, result = inner.pcall(function()
          return inner.parallel.run(function() return 7 end):expect()
        end)
        return ok, ok and result or tostring(result)
      end)
      local ok, result = job:expect()
      assert(ok and result == 7 or not ok and result:find("thread"), result)
      goes_on()
      io.write("works")
    ]])
  end)

  it("a map fails with an error", function()
    without_threads([[
      NO_MORE_THREADS
      local function map() return scheduler.parallel.map({ 1, 2, 3 }, function(n) return n end):expect() end
      local ok, err = pcall(map)
      assert(not ok and tostring(err):find("thread", 1, true), tostring(err))
      goes_on()
      io.write("works")
    ]])
  end)

  it("fd says why there is no descriptor", function()
    without_threads([[
      NO_MORE_THREADS
      local ok, err = pcall(scheduler.fd)
      assert(not ok and tostring(err):find("scheduler has no descriptor", 1, true), tostring(err))
      goes_on()
      io.write("works")
    ]])
  end)

  it("a job that computes is cancelled all the same", function()
    without_threads([[
      local pool = scheduler.parallel.pool({ size = 1 })
      pool:run(function() end):expect()
      NO_MORE_THREADS
      local job = pool:run(function() if jit then jit.off() jit.flush() end while true do end end)
      task.wait(0.02)
      job:cancel()
      assert(pool:run(function() return 7 end):expect() == 7)
      io.write("works")
    ]])
  end)
end)

describe("without descriptors to be had", function()
  it("a loop that has not slept yet says so, and runs when there are some again", function()
    works(GOES_ON .. [[
      assert(host.limit("files", 3))
      local fired = false
      scheduler.setTimeout(function() fired = true end, 20)
      local ok, err = pcall(scheduler.run)
      assert(not ok and tostring(err):find("scheduler cannot park", 1, true), tostring(err))
      assert(host.limit("files", 100))
      scheduler.run()
      assert(fired)
      goes_on()
      io.write("works")
    ]])
  end)

  it("a loop that has slept goes on", function()
    works(GOES_ON .. [[
      goes_on()
      assert(host.limit("files", 3))
      goes_on()
      io.write("works")
    ]])
  end)

  it("jobs that need none run", function()
    works(GOES_ON .. [[
      goes_on()
      for _, name in ipairs({ "parallel", "channel" }) do local _ = scheduler[name] end
      assert(host.limit("files", 3))
      assert(scheduler.parallel.run(function(n) return n + 1 end, 6):expect() == 7)
      io.write("works")
    ]])
  end)

  it("a job that waits fails or ends, and does not hang", function()
    works(GOES_ON .. [[
      goes_on()
      scheduler.parallel.run(function() require("scheduler").task.wait(0) end):expect()
      local pool = scheduler.parallel.pool({ size = 1 })
      assert(pool:run(function() return 1 end):expect() == 1)
      assert(host.limit("files", 3))
      local ok, err = pool:run(function() require("scheduler").task.wait(0.02) return "waited" end):await()
      assert(ok or tostring(err):find("park", 1, true) or tostring(err):find("scheduler", 1, true), tostring(err))
      assert(host.limit("files", 100))
      assert(pool:run(function() require("scheduler").task.wait(0.001) return 8 end):expect() == 8)
      goes_on()
      io.write("works")
    ]])
  end)

  it("fd says why there is none, and gives one later", function()
    works(GOES_ON .. [[
      goes_on()
      assert(host.limit("files", 3))
      for _ = 1, 3 do
        local ok, err = pcall(scheduler.fd)
        assert(not ok and tostring(err):find("scheduler has no descriptor", 1, true), tostring(err))
      end
      assert(host.limit("files", 100))
      assert(type(scheduler.fd()) == "number")
      goes_on()
      io.write("works")
    ]])
  end)

  it("require works", function()
    local result = child.host([[
      local open = assert(package.loadlib(package.searchpath and package.searchpath("scheduler", package.cpath)
        or package.cpath:match("[^;?]+%?[^;]*"):gsub("%?", "scheduler"), "luaopen_scheduler"))
      assert(host.limit("files", 3))
      local scheduler = open("scheduler")
      local fired
      scheduler.setTimeout(function() fired = true end, 0)
      scheduler.poll() scheduler.poll()
      assert(fired)
      io.write("works")
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("works", result.out)
  end)
end)

-- So many more bytes than the process has by now.
local function within(bytes, source)
  works(GOES_ON .. ([[
    local parallel = scheduler.parallel
    local function error_of(promise)
      local ok, err = promise:await()
      assert(not ok, err)
      return err
    end
    goes_on()
    assert(parallel.run(function() return 1 end):expect() == 1)
    local function size()
      local file = assert(io.open("/proc/self/statm"))
      local pages = file:read("*n")
      file:close()
      return pages * 4096
    end
    assert(host.limit("memory", size() + %.0f))
  ]]):format(bytes) .. source .. [[
    assert(parallel.run(function() return 7 end):expect() == 7)
    goes_on()
    io.write("works")
  ]])
end

describe("without memory to be had", function()
  it("a job that asks for more than there is fails", function()
    within(500e6, [[
      for _ = 1, 5 do
        local err = error_of(parallel.run(function() return #("x"):rep(2 ^ 30) end))
        assert(err.kind == "memory" and tostring(err):find("not enough memory", 1, true), tostring(err))
      end
    ]])
  end)

  it("a job that takes all there is fails, and so does one beside it", function()
    within(500e6, [[
      local function hoard()
        local held, text = {}, ("x"):rep(2 ^ 20)
        for i = 1, 1e9 do held[i] = text .. i end
      end
      for _ = 1, 3 do
        local first, second = parallel.run(hoard), parallel.run(hoard)
        local failed = second:catch(function(err) return err.kind end)
        assert(error_of(first).kind == "memory" and failed:expect() == "memory")
      end
    ]])
  end)

  it("a message for which there is none is refused", function()
    within(500e6, [[
      local text = ("x"):rep(1e8)
      local ok, err = pcall(parallel.run, function() end, text, text, text, text, text)
      assert(not ok and tostring(err):find("cannot transfer argument.-: not enough memory"), tostring(err))
      text = nil
      collectgarbage()
      local many = parallel.run(function()
        local text = ("x"):rep(1e8)
        return text, text, text, text, text
      end)
      assert(tostring(error_of(many)):find("not enough memory", 1, true))
    ]])
  end)
end)

describe("when the wall clock is set", function()
  for name, seconds in pairs({ ["a day forward"] = 86400, ["a day back"] = -86400, ["to 1970"] = -1.7e9 }) do
    it(name .. ", timers, waits and time limits keep to theirs", function()
      works(([[
        local before = os.time()
        local fired = {}
        scheduler.setTimeout(function() fired[#fired + 1] = 1 end, 5)
        scheduler.setTimeout(function() fired[#fired + 1] = 2 end, 30)
        task.spawn(function() local waited = task.wait(0.02) assert(waited >= 0.02 and waited < 10, waited) end)
        local now = scheduler.now()
        host.shift_clock("wall", %g)
        assert(math.abs(os.time() - before) > 3600)
        scheduler.run()
        assert(#fired == 2 and fired[1] == 1)
        assert(scheduler.now() >= now + 25 and scheduler.now() < now + 10000)
        assert(not pcall(scheduler.timeout, 0.005, task.wait, 100))
        assert(scheduler.parallel.run(function() return require("scheduler").task.wait(0.005) end):expect() < 10)
        local channel = scheduler.channel()
        local ok, why = channel:recv(0.005)
        assert(ok == nil or ok == false, why)
        io.write("works")
      ]]):format(seconds))
    end)
  end
end)

describe("when the machine was suspended, or the process held up,", function()
  it("what is due meanwhile fires in order, an interval once", function()
    works([[
      local order = {}
      local ticks, first = 0, nil
      local id = scheduler.setInterval(function() ticks = ticks + 1 end, 10)
      scheduler.setTimeout(function() order[#order + 1] = "second" end, 5000)
      scheduler.setTimeout(function() order[#order + 1] = "first" end, 1000)
      scheduler.setTimeout(function() order[#order + 1] = "third" scheduler.clearInterval(id) end, 3600 * 1000)
      scheduler.poll()
      host.shift_clock("monotonic", 3600)
      scheduler.poll()
      assert(ticks == 1, ticks)
      assert(table.concat(order, " ") == "first second third", table.concat(order, " "))
      scheduler.run()
      io.write("works")
    ]])
  end)
end)
