-- What channels do that queues do not; `handover_spec` has what both do.

local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local task, run, await = scheduler.task, scheduler.parallel.run, scheduler.await
local recorder = virtual.recorder

--- Raises the error of a call in words, and that it names this file.
local function refusal(fn, ...)
  local args = { n = select("#", ...), ... }
  local ok, err = pcall(function()
    fn((table.unpack or unpack)(args, 1, args.n)) -- luacheck: ignore 143
  end)
  assert.is_false(ok)
  local message = type(err) == "table" and err.message or err
  assert.matches("^[^\n]*_spec%.lua:%d+: ", message)
  return message, err
end

describe("a channel", function()
  virtual.setup(before_each, after_each)

  it("gives messages in the order in which they were sent, with all their values", function()
    local channel = scheduler.channel(math.huge)
    assert.is_true(channel:send(1, nil, "x", nil))
    channel:send()
    channel:send({ 7 }, false)
    assert.are.same({ 4, 1, nil, "x" }, { select("#", channel:recv()), 1, nil, "x" })
    assert.are.equal(0, select("#", channel:recv()))
    local list, flag = channel:recv()
    assert.are.same({ { 7 }, false }, { list, flag })
    assert.are.equal(0, channel:len())
  end)

  it("keeps every plain value as it is", function()
    local channel = scheduler.channel(1)
    for _, value in ipairs({ 0, 1, -1, 2 ^ 53, 1.5, math.huge, "", "a\0b", true, false, ("x"):rep(1e5) }) do
      channel:send(value)
      local got = channel:recv()
      assert.are.equal(value, got)
      assert.are.equal(tostring(value), tostring(got))
    end
    local zero = 0.0
    channel:send(-zero)
    assert.are.equal(-math.huge, 1 / channel:recv())
    channel:send(0 / 0)
    local nan = channel:recv()
    assert.is_true(nan ~= nan)
  end)

  it("tells try_recv's nothing from a message of nothing", function()
    local channel = scheduler.channel(2)
    assert.are.equal(1, select("#", channel:try_recv()))
    assert.is_false((channel:try_recv()))
    channel:send(nil)
    assert.are.same({ 2, true }, { select("#", channel:try_recv()), true })
    channel:close()
    assert.are.same({ false, "closed" }, { channel:try_recv() })
  end)

  it("has a length, also for #, and tells its number", function()
    local channel = scheduler.channel(3)
    channel:send(1)
    channel:send(2)
    assert.are.equal(2, channel:len())
    assert.are.equal(2, #channel)
    assert.matches("^channel %d+$", tostring(channel))
    assert.is_false(channel:is_closed())
  end)

  it("is collected with the tasks that wait for it, and what they hold", function()
    assert.is_true(memory.is_released(function()
      local channel, held = scheduler.channel(), {}
      local co = task.spawn(function()
        channel:recv()
        return held
      end)
      return channel, held, co
    end))
  end)

  it("that holds itself is collected too, with what it holds besides", function()
    memory.collect()
    local before = scheduler.stats().shared
    assert.is_true(memory.is_released(function()
      local channel = scheduler.channel(2)
      channel:send({ channel, scheduler.channel() })
      return channel
    end))
    assert.are.equal(before, scheduler.stats().shared)
  end)

  it("in a channel in a channel is freed with these, however deep that goes", function()
    memory.collect()
    local before = scheduler.stats().shared
    memory.relaxed(function()
      local outer = scheduler.channel(1)
      for _ = 1, 100000 do
        local next_one = scheduler.channel(1)
        next_one:send(outer)
        outer = next_one
      end
    end)
    memory.collect()
    assert.are.equal(before, scheduler.stats().shared)
  end)

  it("refuses bad arguments at the caller's line", function()
    for _, value in ipairs({ -1, 1.5, "1", {}, 0 / 0 }) do
      assert.matches("bad argument #1 to 'channel' %(whole number of at least 0", (refusal(scheduler.channel, value)))
    end
    local channel = scheduler.channel(1)
    assert.matches("bad argument #1 to 'recv' %(number expected, got string", (refusal(channel.recv, channel, "1")))
    assert.matches("bad argument #1 to 'send_timeout' %(number expected, got nil",
      (refusal(channel.send_timeout, channel)))
    for _, name in ipairs({ "send", "try_send", "recv", "try_recv", "close", "len", "is_closed" }) do
      assert.matches("calling '" .. name .. "' on bad self %(channel expected, got table",
        (refusal(channel[name], {})))
    end
    for _, name in ipairs({ "send", "try_send" }) do
      local message = refusal(channel[name], channel, 1, { x = io.stdout })
      assert.matches("cannot transfer argument #2%.x: userdata", message)
    end
    assert.are.equal(0, channel:len())
  end)

  it("that is closed makes each send raise an error of the kind closed, at the line of the call", function()
    local channel = scheduler.channel(1)
    channel:close()
    for name, args in pairs({ send = { 1 }, try_send = { {} }, send_timeout = { 1, 1 } }) do
      local message, err = refusal(channel[name], channel, args[1], args[2])
      assert.are.equal("closed", err.kind)
      assert.matches("the channel is closed$", message)
    end
    assert.are.equal(0, channel:len())
  end)

  it("gives `for` all values of each message", function()
    local channel, list, record = scheduler.channel(5), recorder()
    channel:send(1, "one")
    channel:send(false, "two")
    channel:close()
    for value, word in channel do
      record({ value, word })
    end
    assert.are.same({ { 1, "one" }, { false, "two" } }, list)
  end)

  it("is named among what tasks wait for, if nothing can come", function()
    scheduler.clock.resume()
    local channel = scheduler.channel()
    task.spawn(channel.recv, channel)
    local reports = uncaught(function()
      assert.is_nil(scheduler.run())
    end)
    assert.are.equal("deadlock", reports[1].err.kind)
    assert.matches("waits for a message from channel %d+", reports[1].err.message)
    channel:close()
    scheduler.poll()
  end)

  it("that many tasks wait for and leave takes no memory", function()
    local channel, before, after = scheduler.channel(), nil, nil
    memory.relaxed(function()
      for _ = 1, 3 do
        for _ = 1, 50000 do
          task.cancel(task.spawn(channel.recv, channel))
        end
        memory.collect()
        after = collectgarbage("count")
        before = before or after
      end
    end)
    -- 20 bytes for each. Weak tables may be half full, or a quarter.
    assert.is_true(after < before + 2000, ("%.0f KiB, then %.0f"):format(before, after))
    assert.is_false(channel:try_send(1))
  end)
end)

describe("a channel between VMs", function()
  it("is the same one however often it arrives, also through itself", function()
    local channel = scheduler.channel(5)
    channel:send(channel, { channel })
    local a, b = channel:recv()
    assert.is_true(rawequal(channel, a) and rawequal(channel, b[1]))
    local answers = scheduler.channel()
    local job = run(function(first, second, to)
      to:send(first == second, first)
      local third = first:recv(10)
      return first == third, third
    end, channel, channel, answers)
    local is_same, again = answers:recv()
    assert.is_true(is_same and rawequal(channel, again))
    channel:send(channel)
    is_same, again = await(job)
    assert.is_true(is_same and rawequal(channel, again))
  end)

  it("tells a send of a cancellation only if its message was not received", function()
    local channel, sent = scheduler.channel(), 0
    local job = run(function(from)
      local received = 0
      while from:recv() do
        received = received + 1
      end
      return received
    end, channel)
    for _ = 1, 3000 do
      scheduler.scope(function(scope)
        scope:spawn(function()
          while true do
            channel:send(1)
            sent = sent + 1
          end
        end)
        for _ = 1, math.random(3) do
          task.yield()
        end
        scope:cancel()
      end)
    end
    channel:close()
    assert.are.equal(sent, await(job))
  end)

  it("carries the answer in a channel that came with the question", function()
    local questions = scheduler.channel()
    local server = run(function(channel)
      local question = channel:recv()
      while question do
        question.reply:send(question.number * 2)
        question = channel:recv()
      end
      return "closed"
    end, questions)
    for i = 1, 50 do
      local reply = scheduler.channel()
      questions:send({ number = i, reply = reply })
      assert.are.equal(2 * i, reply:recv())
    end
    questions:close()
    assert.are.equal("closed", await(server))
  end)

  it("gives 40,000 messages of 4 producers to 4 consumers once each, in the order of each producer", function()
    for _, capacity in ipairs({ 0, 7, math.huge }) do
      local channel, consumers, producers = scheduler.channel(capacity), {}, {}
      for i = 1, 4 do
        consumers[i] = run(function(from)
          local sums, counts, last = {}, {}, {}
          local producer, n = from:recv()
          while producer do
            if n <= (last[producer] or 0) then error("out of order") end
            last[producer] = n
            counts[producer], sums[producer] = (counts[producer] or 0) + 1, (sums[producer] or 0) + n
            producer, n = from:recv()
          end
          return counts, sums
        end, channel)
        producers[i] = run(function(to, me)
          for n = 1, 10000 do
            to:send(me, n)
          end
        end, channel, i)
      end
      await(producers[1], producers[2], producers[3], producers[4])
      channel:close()
      local counts, sums = { 0, 0, 0, 0 }, { 0, 0, 0, 0 }
      for i = 1, 4 do
        local count, sum = await(consumers[i])
        for producer = 1, 4 do
          counts[producer] = counts[producer] + (count[producer] or 0)
          sums[producer] = sums[producer] + (sum[producer] or 0)
        end
      end
      assert.are.same({ 10000, 10000, 10000, 10000 }, counts)
      assert.are.same({ 50005000, 50005000, 50005000, 50005000 }, sums)
    end
  end)

  it("that is closed wakes those that wait in all of them", function()
    local channel, ready, jobs = scheduler.channel(), scheduler.channel(9), {}
    for i = 1, 3 do
      jobs[i] = run(function(from, to)
        to:send(true)
        return from:recv()
      end, channel, ready)
    end
    local here = attempt.start(channel.recv, channel)
    for _ = 1, 3 do
      ready:recv()
    end
    task.wait(0.01)
    channel:close()
    for i = 1, 3 do
      assert.are.equal("closed", select(2, await(jobs[i])))
    end
    assert.are.equal("closed", here[2])
  end)

  it("loses no message to receivers that give up at the moment when it comes", function()
    local channel, count = scheduler.channel(), 2000
    local job = run(function(to, n)
      for i = 1, n do
        to:send(i)
      end
      to:close()
    end, channel, count)
    local seen = {}
    local function receive()
      local value = channel:recv()
      if value then seen[#seen + 1] = value end
    end
    while not (channel:is_closed() and #seen == count) do
      local co = task.spawn(receive)
      for _ = 1, math.random(0, 3) do
        task.wait()
      end
      task.cancel(co)
      receive()
    end
    await(job)
    for i = 1, count do
      assert.are.equal(i, seen[i])
    end
  end)

  it("keeps the loop while others can use it, and no longer", function()
    local channel = scheduler.channel()
    local job = run(function(to)
      require("scheduler").task.wait(0.02)
      to:send("late")
    end, channel)
    assert.are.equal("late", channel:recv())
    await(job)
    -- The worker may still have it, but no job runs there.
    assert.matches("nothing is left that could end this wait", (refusal(channel.recv, channel)))
    local list, record = recorder()
    run(function(to)
      require("scheduler").task.wait(0.02)
      to:send("again")
    end, channel)
    task.spawn(function()
      record(channel:recv())
    end)
    scheduler.run()
    assert.are.same({ "again" }, list)
  end)

  it("ends a wait when the job ends that could have ended it", function()
    local channel, started = scheduler.channel(), scheduler.channel(1)
    run(function(_, to)
      to:send(true)
      require("scheduler").task.wait(0.02)
    end, channel, started)
    assert.is_true(started:recv())
    assert.matches("nothing is left that could end this wait", (refusal(channel.recv, channel)))
  end)

  it("is kept for a task that waits, though the program has let go of it, as long as others can send", function()
    local list, record = recorder()
    local go = scheduler.channel(1)
    coroutine.wrap(function()
      local channel = scheduler.channel()
      run(function(to, from)
        from:recv()
        to:send("late")
      end, channel, go)
      task.spawn(function()
        record(channel:recv())
      end)
    end)()
    memory.collect()
    go:send(true)
    scheduler.run()
    assert.are.same({ "late" }, list)
  end)

  it("is collected when a wait for another VM has ended", function()
    local held = { scheduler.channel() }
    local job = run(function(to)
      require("scheduler").task.wait(0.02)
      to:send("message")
    end, held[1])
    assert.are.equal("message", (held[1]:recv()))
    await(job)
    assert.is_true(memory.is_released(function()
      local channel = held[1]
      held[1] = nil
      return channel
    end))
  end)

  it("ends a job's wait when the program has let go of the channel", function()
    local to, started = scheduler.channel(1), scheduler.channel(1)
    local job = run(function(from, told)
      local channel = from:recv()
      told:send(true)
      return channel:recv()
    end, to, started)
    -- It may fail as soon as nobody else has the channel.
    local awaiting = task.spawn(scheduler.pcall, await, job)
    to:send(scheduler.channel())
    assert.is_true(started:recv())
    task.wait(0.02)
    memory.collect()
    local ok, err = task.join(awaiting)
    assert.is_false(ok)
    assert.matches("nothing is left that could wake it", tostring(err))
  end)

  it("takes back the message of a job that ends without having taken it", function()
    local channel, computes, was_sent = scheduler.channel(), scheduler.shared.atomic(0), scheduler.shared.atomic(0)
    local job = run(function(from, here, there)
      local inner = require("scheduler")
      inner.task.spawn(from.recv, from)
      inner.task.wait(0.001)
      here:set(1)
      -- A turn after this it would have it.
      repeat until there:get() == 1
    end, channel, computes, was_sent)
    repeat
      task.wait(0.001)
    until computes:get() == 1
    channel:send("message")
    was_sent:set(1)
    await(job)
    local ok, value = channel:try_recv()
    assert.are.same({ true, "message" }, { ok, value })
  end)

  it("takes no memory for messages that were received", function()
    local channel = scheduler.channel(100)
    local job = run(function(from)
      local count = 0
      while from:recv() do
        count = count + 1
      end
      return count
    end, channel)
    local before
    for round = 1, 2 do
      for i = 1, 20000 do
        channel:send(i, "text", { i })
      end
      collectgarbage()
      collectgarbage()
      before = before or collectgarbage("count")
      if round == 2 then assert.is_true(collectgarbage("count") < before + 200) end
    end
    channel:close()
    assert.are.equal(40000, await(job))
  end)

  it("is left by a state that closes while it waits, and by a process that ends", function()
    local result = child.script([[
      local channel = scheduler.channel()
      for i = 1, 3 do
        scheduler.parallel.run(function(c) while c:recv() do end end, channel)
        scheduler.task.spawn(channel.recv, channel)
      end
      scheduler.task.spawn(function()
        for i = 1, 100 do channel:send({ channel }) end
        print("left")
        os.exit(0, true)
      end)
      scheduler.run()
    ]])
    assert.are.same({ 0, "left\n", "" }, { result.code, result.out, result.err })
  end)

  it("in the child of a fork is not waited for for ever, and serves the child alone", function()
    local result = child.host([[
      local scheduler = require("scheduler")
      local task, run = scheduler.task, scheduler.parallel.run
      local channel, full, ready = scheduler.channel(), scheduler.channel(1), scheduler.channel(9)
      -- Of another thread, in front of this one's in both lists.
      local job = run(function(from, to, told)
        local inner = require("scheduler")
        inner.task.spawn(to.send, to, "in")
        inner.task.spawn(to.send, to, "waits")
        told:send(true)
        return from:recv()
      end, channel, full, ready)
      scheduler.Promise.resolve(job):catch(function() end) -- in the child it is lost
      ready:recv()
      while full:len() == 0 do task.wait(0.001) end
      task.wait(0.02)
      local got
      task.spawn(function() got = channel:recv() end)
      local pid
      scheduler.setTimeout(function() pid = host.fork() end, 1)
      local ok, message = pcall(ready.recv, ready, 0.05)
      if pid == 0 then
        -- The main thread's wait had a timeout. One without would end as well.
        assert(ok and message == nil)
        ok, message = pcall(ready.recv, ready)
        assert(not ok and message:find("nothing is left that could end this wait"), tostring(message))
        -- The parent's worker is not there to take this.
        channel:send("child")
        assert(full:recv() == "in")
        assert(not full:try_recv(), "the sender is not there either")
        task.wait(0.001)
        assert(got == "child", "a task that waited before goes on")
        local again = run(function(c) return c:recv() .. "!" end, channel)
        channel:send("job")
        assert(scheduler.await(again) == "job!")
        os.exit(7, true)
      end
      channel:send("parent")
      assert(scheduler.await(job) == "parent")
      channel:send("parent too")
      task.wait(0.001)
      assert(got == "parent too")
      assert(full:recv() == "in")
      assert(host.wait(pid) == 7)
    ]])
    assert.are.equal("", result.err)
    assert.are.equal(0, result.code)
  end)

  it("that is idle takes next to no time of a processor", function()
    local result = child.host([[
      local scheduler = require("scheduler")
      local channel, back = scheduler.channel(), scheduler.channel(1)
      local job = scheduler.parallel.run(function(to, from)
        local task = require("scheduler").task
        for i = 1, 40 do
          task.wait(0.01)
          to:send(i)
          from:recv()
        end
      end, channel, back)
      local before = os.clock()
      for i = 1, 40 do
        assert(channel:recv() == i)
        back:send(i)
      end
      scheduler.await(job)
      print(os.clock() - before)
    ]])
    assert.are.equal("", result.err)
    assert.is_true(tonumber(result.out) < 0.1, result.out)
  end)
end)
