-- Forked processes, with all that may be alive at that moment.

local child = require("spec.support.child")

local function succeeds(result)
  assert.are.equal("", result.err)
  assert.are.equal(0, result.code)
end

local function works(source)
  succeeds(child.host("local scheduler = require('scheduler') local task = scheduler.task " .. source))
end

describe("a fork", function()
  it("with pools alive leaves both processes theirs", function()
    works([[
      local pool = scheduler.parallel.pool({ size = 2 })
      assert(scheduler.await(pool:run(function() return 1 end)) == 1)
      local long = pool:run(function() require("scheduler").task.wait(0.05) return "long" end)
      local pid = host.fork()
      if pid == 0 then
        assert(not pcall(scheduler.await, long))
        for i = 1, 5 do assert(scheduler.await(pool:run(function(n) return n end, i)) == i) end
        pool:close()
        os.exit(7, true)
      end
      assert(scheduler.await(long) == "long")
      assert(host.wait(pid) == 7)
      assert(scheduler.await(pool:run(function() return 2 end)) == 2)
    ]])
  end)

  it("in the midst of a map fails the map in the child, and not in the parent", function()
    works([[
      local list = {}
      for i = 1, 200 do list[i] = i end
      local map = scheduler.parallel.map(list, function(n)
        local x = 0
        for _ = 1, 1e4 do x = x + 1 end
        return n
      end)
      task.wait(0.001)
      local pid = host.fork()
      if pid == 0 then
        local ok, err = pcall(map.expect, map)
        assert(not ok and err.kind == "lost", tostring(err))
        os.exit(7, true)
      end
      assert(#map:expect() == 200)
      assert(host.wait(pid) == 7)
    ]])
  end)

  it("with tasks that wait gives each process its own", function()
    works([[
      local event, queue, mutex = scheduler.event(), scheduler.queue(1), scheduler.mutex()
      local woken = 0
      task.spawn(function() event:wait() woken = woken + 1 end)
      task.spawn(function() queue:pop() woken = woken + 1 end)
      task.spawn(function() task.wait(0.01) woken = woken + 1 end)
      task.spawn(function() mutex:lock() task.wait(0.005) mutex:unlock() end)
      task.spawn(function() mutex:with(function() woken = woken + 1 end) end)
      local promise = scheduler.Promise.delay(0.01):andThen(function() woken = woken + 1 end)
      local pid = host.fork()
      event:set()
      queue:push(1)
      scheduler.await(promise)
      scheduler.run()
      assert(woken == 5, woken)
      if pid == 0 then os.exit(7, true) end
      assert(host.wait(pid) == 7)
    ]])
  end)

  it("with a task of another VM in a channel leaves the child a channel of its own", function()
    works([[
      local channel = scheduler.channel(10)
      local job = scheduler.parallel.run(function(ch) return ch:recv() end, channel)
      task.wait(0.01)
      local pid = host.fork()
      if pid == 0 then
        channel:send("child")
        channel:close()
        os.exit(7)
      end
      assert(host.wait(pid) == 7)
      channel:send("parent")
      assert(scheduler.await(job) == "parent")
    ]])
  end)

  it("while worker threads allocate, send and lock, again and again, stops neither process", function()
    works([[
      scheduler.on_error(function() end) -- the jobs are lost to each child
      local channel, mutex, shared = scheduler.channel(10), scheduler.shared.mutex(), scheduler.shared.table()
      for i = 1, 2 do
        scheduler.parallel.run(function(ch, m, t, i)
          for n = 1, 1e7 do
            t:set(n % 10, { n, tostring(n) })
            m:with(function() end)
            if not ch:try_send(n) then ch:try_recv() end
          end
        end, channel, mutex, shared, i)
      end
      for i = 1, 10 do
        task.wait(0.002)
        local pid = host.fork()
        if pid == 0 then
          local fired = false
          scheduler.setTimeout(function() fired = true end, 1)
          scheduler.run(function() task.wait(0.002) end)
          assert(fired)
          assert(scheduler.await(scheduler.parallel.run(function() return 7 end)) == 7)
          os.exit(i, i % 2 == 0)
        end
        assert(host.wait(pid) == i)
      end
      os.exit(0)
    ]])
  end)

  it("with a descriptor that a host watches leaves the child one of its own", function()
    works([[
      local before = scheduler.fd()
      scheduler.setTimeout(function() end, 5)
      scheduler.poll()
      local pid = host.fork()
      if pid == 0 then
        assert(scheduler.fd() ~= nil)
        local fired = false
        scheduler.setTimeout(function() fired = true end, 1)
        scheduler.run()
        assert(fired)
        os.exit(7, true)
      end
      assert(host.wait(pid) == 7)
      assert(scheduler.fd() == before)
      scheduler.run()
    ]])
  end)

  it("of a fork of a fork goes on as well, with the clock paused", function()
    works([[
      scheduler.clock.pause()
      local fired = 0
      scheduler.setTimeout(function() fired = fired + 1 end, 1000)
      local function descend(depth)
        local pid = host.fork()
        if pid == 0 then
          if depth < 4 then descend(depth + 1) end
          scheduler.clock.advance(1)
          os.exit(fired == 1 and depth or 99, true)
        end
        assert(host.wait(pid) == depth)
      end
      descend(1)
      scheduler.clock.advance(1)
      assert(fired == 1)
    ]])
  end)

  it("of a child that ends without closing its state leaves the parent's work alone", function()
    works([[
      local job = scheduler.parallel.run(function() require("scheduler").task.wait(0.03) return "done" end)
      local fired = 0
      local id = scheduler.setInterval(function() fired = fired + 1 end, 5)
      for _ = 1, 5 do
        local pid = host.fork()
        if pid == 0 then os.exit(7) end
        assert(host.wait(pid) == 7)
      end
      assert(scheduler.await(job) == "done")
      scheduler.clearInterval(id)
      assert(fired > 0)
    ]])
  end)
end)

describe("a fork with a job in flight", function()
  local body = [[
    local scheduler = require("scheduler")
    local function check(who)
      local fired = 0
      for i = 1, 50 do scheduler.setTimeout(function() fired = fired + 1 end, i % 5) end
      scheduler.run()
      assert(fired == 50, who)
      local jobs = {}
      for i = 1, 10 do jobs[i] = scheduler.parallel.run(function(n) return n * n end, i) end
      for i = 1, 10 do assert(scheduler.await(jobs[i]) == i * i, who) end
      scheduler.fd()
      scheduler.setTimeout(function() fired = fired + 1 end, 1)
      scheduler.run()
      assert(fired == 51, who)
    end
    check("before")
    local pending = scheduler.parallel.run(function()
      local n = 0
      for i = 1, 2e7 do n = n + i end
      return "done"
    end)
    local pid = host.fork()
    if pid == 0 then
      local ok, err = pcall(scheduler.await, pending)
      assert(not ok and err.kind == "lost", "the parent's job must be lost to the child")
      check("child")
      local grandchild = host.fork()
      if grandchild == 0 then check("grandchild") os.exit(7) end
      assert(host.wait(grandchild) == 7)
      check("child again")
      os.exit(5, true)
    end
    check("parent")
    assert(scheduler.await(pending) == "done")
    assert(host.wait(pid) == 5)
    check("parent again")
  ]]

  it("lets parent and child both go on", function()
    succeeds(child.host(body))
  end)

  it("by luaposix lets parent and child both go on", function()
    if not pcall(require, "posix") then return end -- Debian has none for Lua 5.4
    succeeds(child.run({ "-e", [[
      local posix = require("posix")
      host = { fork = posix.fork, wait = function(pid) return (select(3, posix.wait(pid))) end }
    ]] .. body }))
  end)

  it("in a callback, with the loop going on in both", function()
    succeeds(child.host([[
      local scheduler = require("scheduler")
      local pid, ticks = nil, 0
      local job = scheduler.parallel.run(function() local n = 0 for i = 1, 1e7 do n = n + i end return 1 end)
      local id
      id = scheduler.setInterval(function()
        ticks = ticks + 1
        if ticks == 10 then scheduler.clearInterval(id) end
      end, 1)
      scheduler.setTimeout(function() pid = host.fork() end, 2)
      local ok, err = pcall(scheduler.run, function()
        return scheduler.await(job)
      end)
      assert(ticks == 10)
      if pid == 0 then
        assert(not ok and err.kind == "lost")
        os.exit(6, true)
      end
      assert(ok and err == 1, tostring(err))
      assert(host.wait(pid) == 6)
    ]]))
  end)
end)
