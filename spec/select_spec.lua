local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")

local task, run, await, select_of = scheduler.task, scheduler.parallel.run, scheduler.await, scheduler.select
local advance, recorder = virtual.advance, virtual.recorder

describe("select", function()
  virtual.setup(before_each, after_each)

  it("does the case that is ready, and gives its index and what it received", function()
    local empty, full = scheduler.channel(1), scheduler.channel(2)
    full:send("message", nil, 3)
    assert.are.same({ n = 4, 2, "message", nil, 3 }, {
      n = select("#", select_of({ { empty, "recv" }, { full, "recv" } })), 2, "message", nil, 3 })
    full:send("again")
    local index, value = select_of({ { empty, "recv" }, { full, "recv" } })
    assert.are.same({ 2, "again" }, { index, value })
    assert.are.same({ 1 }, { select_of({ { empty, "send", "x", false } }) })
    assert.are.same({ "x", false }, { empty:recv() })
    select_of({ { empty, "send", nil, "y", nil, n = 3 } })
    assert.are.same({ 3, nil, "y" }, { select("#", empty:recv()), nil, "y" })
  end)

  it("waits for the first that can be done, and leaves no trace in the others", function()
    local a, b, list, record = scheduler.channel(), scheduler.channel(), recorder()
    for _ = 1, 2 do
      task.spawn(function()
        local index, value = select_of({ { a, "recv" }, { b, "recv" } })
        record(index .. value)
      end)
    end
    advance(0)
    assert.are.same({}, list)
    b:send("x")
    a:send("y")
    assert.is_false(a:try_send("z"))
    assert.is_false(b:try_send("z"))
    advance(0)
    assert.are.same({ "2x", "1y" }, list)
  end)

  it("sends to the first that receives, and its message once", function()
    local a, b = scheduler.channel(), scheduler.channel()
    local result = attempt.start(select_of, { { a, "send", "to a" }, { b, "send", "to b" } })
    assert.are.equal("to b", b:recv())
    assert.is_false((a:try_recv()))
    assert.is_false((b:try_recv()))
    advance(0)
    assert.are.same({ 1, 2 }, { result.n, result[1] })
  end)

  it("meets another select, and each does one case", function()
    local a, b = scheduler.channel(), scheduler.channel()
    local cases = { { a, "send", "a" }, { b, "send", "b" }, { a, "recv" }, { b, "recv" } }
    local first, second = attempt.start(select_of, cases), attempt.start(select_of, cases)
    advance(0)
    assert.is_true(first.ended and second.ended)
    local sender, receiver = first, second
    if first[1] > 2 then sender, receiver = second, first end
    assert.are.equal(sender[1] + 2, receiver[1])
    assert.are.equal(sender[1] == 1 and "a" or "b", receiver[2])
    assert.is_false((a:try_recv()))
    assert.is_false((b:try_recv()))
  end)

  it("does not receive what it sends itself", function()
    local channel = scheduler.channel()
    local result = attempt.start(select_of, { { channel, "send", 1 }, { channel, "recv" }, timeout = 1 })
    advance(500)
    assert.is_nil(result.ended)
    advance(1000)
    assert.are.same({ nil, "timeout" }, { result[1], result[2] })
  end)

  it("gives each ready case its turn", function()
    local channels, counts = {}, { 0, 0, 0, 0 }
    for i = 1, 4 do
      channels[i] = scheduler.channel(4000)
      if i < 4 then
        for n = 1, 3000 do
          channels[i]:send(n)
        end
      end
    end
    for _ = 1, 3000 do
      local index = select_of({ { channels[1], "recv" }, { channels[2], "recv" }, { channels[3], "recv" },
        { channels[4], "recv" } })
      counts[index] = counts[index] + 1
    end
    for i = 1, 3 do
      assert.is_true(counts[i] > 800 and counts[i] < 1200, counts[i])
    end
    assert.are.equal(0, counts[4])
  end)

  it("with a default never waits", function()
    local channel = scheduler.channel()
    assert.are.same({ n = 2, nil, "default" }, {
      n = select("#", select_of({ { channel, "recv" }, default = true })), nil, "default" })
    assert.are.equal("default", select(2, select_of({ { channel, "send", 1 }, default = true })))
    assert.are.equal("default", select(2, select_of({ default = true })))
    attempt.start(channel.send, channel, "here")
    assert.are.equal("here", select(2, select_of({ { channel, "recv" }, default = true })))
    advance(0)
  end)

  it("with a timeout gives up at its time, and takes no message afterwards", function()
    local channel, start = scheduler.channel(), scheduler.now()
    local list, record = recorder()
    task.spawn(function()
      local index, why = select_of({ { channel, "recv" }, timeout = 0.25 })
      record({ tostring(index), why, virtual.since(start) })
    end)
    advance(1000)
    assert.are.same({ { "nil", "timeout", 250 } }, list)
    assert.is_false(channel:try_send("nobody"))
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("takes a closed channel for ready: a recv gives nil and closed, a send raises", function()
    local open, closed = scheduler.channel(), scheduler.channel()
    local received = attempt.start(select_of, { { open, "recv" }, { closed, "recv" } })
    local full = scheduler.channel()
    local sent = attempt.start(select_of, { { full, "send", 1 }, { open, "recv" } })
    closed:close()
    full:close()
    advance(0)
    assert.are.same({ 3, 2, nil, "closed" }, { received.n, received[1], received[2], received[3] })
    assert.are.equal("closed", sent.err.kind)
    local index, value, why = select_of({ { open, "recv" }, { closed, "recv" } })
    assert.are.same({ 2, nil, "closed" }, { index, value, why })
    local ok, err = pcall(function()
      select_of({ { closed, "send", 1 } })
    end)
    assert.is_false(ok)
    assert.matches("select_spec%.lua:%d+: the channel is closed", err.message)
  end)

  for name, start in pairs(attempt.leavings) do
    it("left by " .. name .. " loses no message and leaves no hole", function()
      for _, is_woken in ipairs({ false, true }) do
        local a, b, list, record = scheduler.channel(5), scheduler.channel(), recorder()
        local leave = start(function()
          local index, value = select_of({ { a, "recv" }, { b, "recv" } })
          if index == 1 and value == "message" then record(value) end
        end)
        if not is_woken then leave() end
        a:send("message")
        if is_woken then leave() end
        advance(0)
        local ok, value = a:try_recv()
        if ok then record(value) end
        assert.are.same({ "message" }, list)
        assert.is_false(b:try_send("hole"))
      end
    end)
  end

  it("refuses what is no case, at the caller's line", function()
    local channel = scheduler.channel()
    for message, cases in pairs({
      ["table expected, got nil"] = false,
      ["a case expected"] = {},
      ["case 1: table expected, got number"] = { 1 },
      ["case 2: channel expected, got string"] = { { channel, "recv" }, { "x", "recv" } },
      ["case 1: \"recv\" or \"send\" expected"] = { { channel, "receive" } },
      ["field 'n': whole number expected"] = { { channel, "send", 1, n = -1 } },
      ["field 'timeout': number expected, got string"] = { { channel, "recv" }, timeout = "1" },
      ["cannot transfer argument #1: userdata"] = { { channel, "send", io.stdout } },
    }) do
      local ok, err = pcall(function()
        select_of(cases or nil)
      end)
      assert.is_false(ok)
      assert.matches("^[^\n]*select_spec%.lua:%d+: ", err)
      assert.is_truthy(err:find(message, 1, true), err)
    end
  end)
end)

describe("select between VMs", function()
  it("takes each message once, whatever channel it comes through", function()
    local channels, producers, consumers = {}, {}, {}
    for i = 1, 3 do
      channels[i] = scheduler.channel(i - 1)
    end
    for i = 1, 3 do
      producers[i] = run(function(a, b, c, count)
        local select_one = require("scheduler").select
        for n = 1, count do
          select_one({ { a, "send", n }, { b, "send", n }, { c, "send", n } })
        end
      end, channels[1], channels[2], channels[3], 3000)
      consumers[i] = run(function(a, b, c)
        local select_one, sum, count = require("scheduler").select, 0, 0
        local _, n = select_one({ { a, "recv" }, { b, "recv" }, { c, "recv" } })
        while n do
          sum, count = sum + n, count + 1
          _, n = select_one({ { a, "recv" }, { b, "recv" }, { c, "recv" } })
        end
        return sum, count
      end, channels[1], channels[2], channels[3])
    end
    await(producers[1], producers[2], producers[3])
    local total, seen = 0, 0
    for i = 1, 3 do
      local ok, n = channels[i]:try_recv()
      while ok do
        total, seen = total + n, seen + 1
        ok, n = channels[i]:try_recv()
      end
    end
    for i = 1, 3 do
      channels[i]:close()
    end
    for i = 1, 3 do
      local sum, count = await(consumers[i])
      total, seen = total + sum, seen + count
    end
    assert.are.equal(9000, seen)
    assert.are.equal(3 * 3000 * 3001 / 2, total)
  end)
end)
