-- What queues and channels have in common: values go from those who put them in to those who take them out, in order,
-- each of them once. `queue_spec` and `channel_spec` have what is theirs alone.

local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")

local task, scope, timeout = scheduler.task, scheduler.scope, scheduler.timeout
local advance, recorder = virtual.advance, virtual.recorder
local protected = scheduler.pcall

--- Whether `for value in pipe do` works in tasks: in PUC Lua 5.1 an iterator cannot yield.
local can_yield_in_iterator = pcall == scheduler.pcall

--- A queue or channel under names of its own. `new` takes a capacity, `put` and `take` seconds; `try_take` returns nil
--- if there is nothing.
local kinds = {
  queue = {
    new = scheduler.queue,
    put = function(queue, value, seconds)
      return queue:push(value, seconds)
    end,
    try_put = function(queue, value)
      return queue:try_push(value)
    end,
    take = function(queue, seconds)
      return queue:pop(seconds)
    end,
    try_take = function(queue)
      return queue:try_pop()
    end,
  },
  channel = {
    new = scheduler.channel,
    put = function(channel, value, seconds)
      if not seconds then return channel:send(value) end
      return channel:send_timeout(seconds, value)
    end,
    try_put = function(channel, value)
      return channel:try_send(value)
    end,
    take = function(channel, seconds)
      return channel:recv(seconds)
    end,
    try_take = function(channel)
      local ok, value = channel:try_recv()
      if ok then return value end
    end,
  },
}

for name, kind in pairs(kinds) do
  local put, try_put, take, try_take = kind.put, kind.try_put, kind.take, kind.try_take

  local function new(capacity)
    return kind.new(capacity or math.huge)
  end

  --- Starts a task that takes a value out and notes it.
  local function start_taker(pipe, record, seconds)
    return task.spawn(function()
      record((take(pipe, seconds)))
    end)
  end

  --- Takes out all that is there.
  local function drain(pipe)
    local list, record = recorder()
    local value = try_take(pipe)
    while value ~= nil do
      record(value)
      value = try_take(pipe)
    end
    return list
  end

  describe("a " .. name, function()
    virtual.setup(before_each, after_each)

    it("gives values in the order in which they were put in", function()
      local pipe = new()
      for i = 1, 5 do
        assert.is_true(put(pipe, i))
      end
      assert.are.equal(5, pipe:len())
      assert.are.equal(1, take(pipe))
      assert.are.equal(2, try_take(pipe))
      put(pipe, 6)
      assert.are.same({ 3, 4, 5, 6 }, drain(pipe))
      assert.are.equal(0, pipe:len())
      assert.is_nil(try_take(pipe))
    end)

    it("used a hundred thousand times at random gives each value once, in order", function()
      local pipe, given, taken = new(), 0, 0
      for _ = 1, 100000 do
        if math.random(2) == 1 then
          given = given + 1
          put(pipe, given)
        elseif taken < given then
          taken = taken + 1
          if take(pipe) ~= taken then error("out of order") end
        end
        if pipe:len() ~= given - taken then error("wrong length") end
      end
    end)

    it("has a length for # where Lua asks for it", function()
      local pipe = new()
      put(pipe, 1)
      put(pipe, 2)
      local asks = type(pipe) == "userdata" or #setmetatable({}, {
        __len = function()
          return 7
        end,
      }) == 7
      if asks then assert.are.equal(2, #pipe) end
      assert.are.equal(2, pipe:len())
    end)

    it("gives values to those that wait, in the order in which they came, and to nobody else", function()
      local pipe, list, record = new(), recorder()
      for i = 1, 3 do
        task.spawn(function()
          record(i .. " " .. take(pipe))
        end)
      end
      for _, value in ipairs({ "a", "b", "c", "d" }) do
        put(pipe, value)
      end
      assert.are.equal(1, pipe:len())
      assert.are.same({ "d" }, drain(pipe))
      assert.are.same({}, list)
      advance(0)
      assert.are.same({ "1 a", "2 b", "3 c" }, list)
    end)

    it("may be used on the main thread, and says so if nothing can come", function()
      scheduler.clock.resume()
      local pipe = new(1)
      task.spawn(function()
        for i = 1, 5 do
          task.wait(0.0005)
          put(pipe, i)
        end
      end)
      for i = 1, 5 do
        assert.are.equal(i, take(pipe))
      end
      local ok, message = pcall(take, pipe)
      assert.is_false(ok)
      assert.matches("nothing is left that could end this wait", message)
      put(pipe, "full")
      ok, message = pcall(put, pipe, "too much")
      assert.is_false(ok)
      assert.matches("nothing is left that could end this wait", message)
      assert.are.same({ false, "timeout" }, { put(pipe, "too much", 0.001) })
      assert.are.same({ "full" }, drain(pipe))
      assert.are.same({ "timeout", n = 2 }, { select(2, take(pipe, 0.001)), n = select("#", take(pipe, 0.001)) })
    end)

    it("works inside a generator, and in a callback", function()
      local pipe, list, record = new(), recorder()
      task.spawn(function()
        record(scheduler.coroutine.wrap(take)(pipe))
      end)
      scheduler.setTimeout(function()
        record(take(pipe))
      end)
      advance(0)
      put(pipe, "generator")
      put(pipe, "callback")
      advance(0)
      assert.are.same({ "generator", "callback" }, list)
    end)

    it("refuses a capacity that is no whole number of at least 0", function()
      for _, case in ipairs({
        { "string", "1" }, { "table", {} }, { "%-1", -1 }, { "1.5", 1.5 }, { "%-?[Nn]a[Nn]", 0 / 0 },
      }) do
        local expected = "bad argument #1 to '" .. name .. "' %(whole number of at least 0 expected, got " .. case[1]
        local ok, message = pcall(kind.new, case[2])
        assert.is_false(ok)
        assert.matches(expected, message)
      end
      assert.is_true(try_put(kind.new(math.huge), 1))
    end)
  end)

  describe("a " .. name .. " with a capacity", function()
    virtual.setup(before_each, after_each)

    it("lets who puts something in wait for room, and keeps the order", function()
      local pipe, list, record = new(2), recorder()
      for i = 1, 5 do
        task.spawn(function()
          put(pipe, i)
          record(i)
        end)
      end
      assert.are.same({ 1, 2 }, list)
      assert.are.equal(2, pipe:len())
      assert.is_false(try_put(pipe, 6))
      assert.are.equal(1, take(pipe))
      assert.are.equal(2, pipe:len())
      -- The room is that of the one that waits.
      assert.is_false(try_put(pipe, 6))
      advance(0)
      assert.are.same({ 1, 2, 3 }, list)
      assert.are.same({ 2, 3, 4, 5 }, drain(pipe))
      advance(0)
      assert.are.same({ 1, 2, 3, 4, 5 }, list)
    end)

    it("never holds more than that", function()
      local pipe, most, taken, record = new(3), 0, recorder()
      for producer = 1, 10 do
        task.spawn(function()
          for i = 1, 20 do
            put(pipe, producer * 100 + i)
            most = math.max(most, pipe:len())
            if i % 5 == 0 then task.wait(0.001) end
          end
        end)
      end
      for _ = 1, 4 do
        task.spawn(function()
          for _ = 1, 50 do
            record(take(pipe))
            task.yield()
          end
        end)
      end
      advance(1000)
      assert.are.equal(200, #taken)
      assert.are.equal(3, most)
      -- The values of each producer come in its order.
      local last = {}
      for _, value in ipairs(taken) do
        local producer = math.floor(value / 100)
        assert.is_true(value > (last[producer] or 0))
        last[producer] = value
      end
    end)

    it("of 0 hands each value from the one to the other", function()
      local pipe, list, record = new(0), recorder()
      assert.is_false(try_put(pipe, "nobody waits"))
      assert.is_nil(try_take(pipe))
      for i = 1, 2 do
        task.spawn(function()
          put(pipe, i)
          record("put " .. i)
        end)
      end
      advance(0)
      assert.are.same({}, list)
      assert.are.equal(0, pipe:len())
      assert.are.equal(1, take(pipe))
      advance(0)
      assert.are.same({ "put 1" }, list)
      assert.are.same({ 2 }, drain(pipe))
      advance(0)
      assert.are.same({ "put 1", "put 2" }, list)
      start_taker(pipe, record)
      assert.is_true(try_put(pipe, "given"))
      assert.is_false(try_put(pipe, "refused"))
      advance(0)
      assert.are.equal("given", list[3])
    end)
  end)

  describe("a timeout of a " .. name, function()
    virtual.setup(before_each, after_each)

    it("ends the wait at its time with nil or false, and leaves no timer and no value", function()
      local pipe, start = new(1), scheduler.now()
      local list, record = recorder()
      task.spawn(function()
        local value, why = take(pipe, 0.25)
        record({ tostring(value), why, virtual.since(start) })
        put(pipe, "full")
        value, why = put(pipe, "too much", 0.25)
        record({ tostring(value), why, virtual.since(start) })
      end)
      advance(1000)
      assert.are.same({ { "nil", "timeout", 250 }, { "false", "timeout", 500 } }, list)
      assert.are.same({ "full" }, drain(pipe))
      assert.are.equal(0, scheduler.stats().timers_pending)
    end)

    it("leaves no timer either when there is a value or room in time", function()
      local pipe = new(1)
      assert.is_true(put(pipe, 1, 0))
      local given = attempt.start(put, pipe, 2, 10)
      assert.are.equal(1, take(pipe, 0))
      advance(0)
      assert.is_true(given[1])
      assert.are.equal(2, take(pipe, 0))
      local taken = attempt.start(take, pipe, 10)
      put(pipe, 3)
      advance(0)
      assert.are.same({ 1, 3 }, { taken.n, taken[1] })
      assert.are.equal(0, scheduler.stats().timers_pending)
    end)

    it("of 0 or less waits until the next turn", function()
      for _, seconds in ipairs({ 0, -1, -math.huge }) do
        local pipe = new(0)
        local taken = attempt.start(take, pipe, seconds)
        advance(0)
        local given = attempt.start(put, pipe, 1, seconds)
        advance(0)
        assert.are.same({ "timeout", "timeout" }, { taken[2], given[2] })
      end
    end)

    it("that strikes at the moment of the value: what comes first counts, and nothing is lost", function()
      for _, put_first in ipairs({ true, false }) do
        local pipe, list, record = new(), recorder()
        local function put_later()
          scheduler.setTimeout(put, 1000, pipe, "value")
        end
        if put_first then put_later() end
        local result = attempt.start(take, pipe, 1)
        start_taker(pipe, record, 5)
        if not put_first then put_later() end
        advance(1000)
        assert.are.equal(put_first and "value" or nil, result[1])
        if put_first then put(pipe, "second") end
        advance(0)
        assert.are.same({ put_first and "second" or "value" }, list)
      end
    end)

    it("that strikes when somebody takes: what comes first counts, and no value is there twice", function()
      for _, take_first in ipairs({ true, false }) do
        local pipe, list, record = new(0), recorder()
        local function take_later()
          scheduler.setTimeout(function()
            record(try_take(pipe))
          end, 1000)
        end
        if take_first then take_later() end
        local first = attempt.start(put, pipe, "first", 1)
        local second = attempt.start(put, pipe, "second")
        if not take_first then take_later() end
        advance(1000)
        assert.are.equal(take_first, first[1])
        assert.are.same({ take_first and "first" or "second" }, list)
        assert.are.same(take_first and { "second" } or {}, drain(pipe))
        advance(0)
        assert.is_true(second[1])
      end
    end)
  end)

  describe("closing a " .. name, function()
    virtual.setup(before_each, after_each)

    it("lets what is in it be taken out, and then says that it is closed", function()
      local pipe = new()
      put(pipe, 1)
      put(pipe, 2)
      assert.is_false(pipe:is_closed())
      pipe:close()
      pipe:close()
      assert.is_true(pipe:is_closed())
      assert.are.equal(1, take(pipe))
      assert.are.equal(2, take(pipe, 1))
      for _, seconds in ipairs({ 1, false }) do
        assert.are.same({ n = 2, nil, "closed" }, { n = select("#", take(pipe)), take(pipe, seconds or nil) })
      end
      assert.is_nil(try_take(pipe))
    end)

    it("makes who puts something in hear of it by an error object of the kind closed", function()
      local pipe = new()
      pipe:close()
      for _, call in ipairs({ put, try_put }) do
        local ok, err = pcall(call, pipe, 1)
        assert.is_false(ok)
        assert.are.equal("closed", err.kind)
        assert.matches("^[^\n]*handover_spec%.lua:%d+: the " .. name .. " is closed$", err.message)
      end
      assert.are.equal(0, pipe:len())
    end)

    it("wakes all that wait; what could not be put in yet is not in", function()
      local empty, full = new(0), new(1)
      put(full, "in")
      local results = {}
      for i = 1, 2 do
        results[i] = attempt.start(take, empty, 10)
        results[i + 2] = attempt.start(put, full, "out", 10)
      end
      empty:close()
      full:close()
      advance(0)
      for i = 1, 2 do
        assert.are.same({ 2, nil, "closed" }, { results[i].n, results[i][1], results[i][2] })
        assert.are.equal("closed", results[i + 2].err.kind)
      end
      assert.are.same({ "in" }, drain(full))
      assert.are.equal(0, scheduler.stats().timers_pending)
    end)

    it("does not take back a value that was given, or taken, already", function()
      local pipe, rendezvous = new(), new(0)
      local taken = attempt.start(take, pipe)
      put(pipe, "value")
      pipe:close()
      local given = attempt.start(put, rendezvous, "value")
      assert.are.equal("value", try_take(rendezvous))
      rendezvous:close()
      advance(0)
      assert.are.equal("value", taken[1])
      assert.is_true(given[1])
    end)

    it("loses no value whose taker was cancelled, before or after", function()
      for _, close_first in ipairs({ true, false }) do
        local pipe = new()
        local taker = task.spawn(take, pipe)
        put(pipe, "value")
        if close_first then pipe:close() end
        task.cancel(taker)
        if not close_first then pipe:close() end
        assert.are.equal(1, pipe:len())
        assert.are.equal("value", take(pipe))
        assert.are.equal("closed", select(2, take(pipe)))
      end
    end)

    it("leaves nothing behind of a taker that leaves when it was woken by it", function()
      local pipe = new()
      local taker = task.spawn(take, pipe)
      pipe:close()
      task.cancel(taker)
      assert.are.equal(0, pipe:len())
      assert.are.equal("closed", select(2, take(pipe)))
    end)
  end)

  describe("for value in " .. name, function()
    virtual.setup(before_each, after_each)

    it("takes out what is there, and ends when it is closed and empty", function()
      local pipe, list, record = new(), recorder()
      put(pipe, 1)
      put(pipe, false)
      put(pipe, 3)
      pipe:close()
      for value in pipe do
        record(value)
      end
      assert.are.same({ 1, false, 3 }, list)
    end)

    it("waits for what comes, in a task, where Lua can", function()
      if not can_yield_in_iterator then return end
      local pipe, list, record = new(), recorder()
      task.spawn(function()
        for value in pipe do
          record(value)
        end
        record("closed")
      end)
      for i = 1, 3 do
        put(pipe, i)
        advance(0)
      end
      assert.are.same({ 1, 2, 3 }, list)
      pipe:close()
      advance(0)
      assert.are.same({ 1, 2, 3, "closed" }, list)
    end)

    it("waits for what comes, on the main thread", function()
      scheduler.clock.resume()
      local pipe, list, record = new(1), recorder()
      task.spawn(function()
        for i = 1, 5 do
          task.wait(0.0005)
          put(pipe, i)
        end
        pipe:close()
      end)
      for value in pipe do
        record(value)
      end
      assert.are.same({ 1, 2, 3, 4, 5 }, list)
    end)

    it("raises an error where it cannot wait, and loses no value", function()
      if can_yield_in_iterator then return end
      local pipe = new()
      local result = attempt.start(function()
        for value in pipe do
          error(value, 0)
        end
      end)
      assert.is_false(result.ok)
      assert.is_string(result.err)
      put(pipe, "value")
      advance(0)
      assert.are.same({ "value" }, drain(pipe))
    end)
  end)

  describe("a task that waits to take something out of a " .. name .. ", and leaves", function()
    virtual.setup(before_each, after_each)

    for way, start in pairs(attempt.leavings) do
      it("by " .. way .. ", leaves no hole: the next gets the value", function()
        local pipe, list, record = new(), recorder()
        start_taker(pipe, record)
        local leave = start(function()
          take(pipe)
        end)
        start_taker(pipe, record)
        leave()
        advance(0)
        put(pipe, "a")
        put(pipe, "b")
        put(pipe, "c")
        advance(0)
        assert.are.same({ "a", "b" }, list)
        assert.are.same({ "c" }, drain(pipe))
      end)

      for _, is_woken in ipairs({ false, true }) do
        it("by " .. way .. (is_woken and ", after" or ", before") .. " it was given a value, loses none", function()
          local pipe, list, record = new(), recorder()
          local leave = start(function()
            local value = take(pipe)
            -- In a scope that was cancelled, what was given already is there.
            if value == "a" then record(value) end
          end)
          start_taker(pipe, record)
          if not is_woken then leave() end
          put(pipe, "a")
          if is_woken then leave() end
          advance(0)
          put(pipe, "b")
          advance(0)
          local all = drain(pipe)
          for i = #list, 1, -1 do
            table.insert(all, 1, list[i])
          end
          assert.are.same({ "a", "b" }, all)
          assert.are.equal(0, pipe:len())
        end)
      end
    end

    it("gives the value back to the front, in the order of the values, whatever the order of leaving", function()
      for _, order in ipairs({ { 1, 2, 3 }, { 3, 2, 1 }, { 2, 1, 3 }, { 2, 3, 1 }, { 1, 3, 2 }, { 3, 1, 2 } }) do
        local pipe, takers = new(), {}
        for i = 1, 3 do
          takers[i] = task.spawn(take, pipe)
        end
        for i = 1, 5 do
          put(pipe, i)
        end
        for _, i in ipairs(order) do
          task.cancel(takers[i])
        end
        assert.are.equal(5, pipe:len())
        assert.are.same({ 1, 2, 3, 4, 5 }, drain(pipe))
      end
    end)

    it("gives the value back to the front, not to those whose turn is later, when resumed by hand", function()
      local pipe, list, record = new(), recorder()
      local first = start_taker(pipe, record)
      local second = start_taker(pipe, record)
      put(pipe, "a")
      put(pipe, "b")
      put(pipe, "c")
      coroutine.resume(first, "by hand")
      coroutine.resume(second, "by hand")
      assert.are.same({ "by hand", "by hand" }, list)
      assert.are.same({ "a", "b", "c" }, drain(pipe))
    end)

    it("hands a value on to one that waits, through several that leave", function()
      local pipe, list, record = new(0), recorder()
      local takers = {}
      for i = 1, 5 do
        takers[i] = start_taker(pipe, record)
      end
      put(pipe, "value")
      for i = 1, 4 do
        task.cancel(takers[i])
      end
      advance(0)
      assert.are.same({ "value" }, list)
      assert.are.equal(0, pipe:len())
    end)

    it("by a timeout around it, loses no value, whichever comes first", function()
      for _, put_first in ipairs({ true, false }) do
        local pipe, list, record = new(), recorder()
        local function put_later()
          scheduler.setTimeout(put, 1000, pipe, "value")
        end
        if put_first then put_later() end
        local result = attempt.start(timeout, 1, take, pipe)
        if not put_first then put_later() end
        start_taker(pipe, record, 5)
        advance(1000)
        assert.are.equal(put_first, result.ok)
        if put_first then put(pipe, "next") end
        advance(0)
        assert.are.same({ put_first and "next" or "value" }, list)
      end
    end)
  end)

  describe("a task that waits to put something into a " .. name .. ", and leaves", function()
    virtual.setup(before_each, after_each)

    for way, start in pairs(attempt.leavings) do
      for _, capacity in ipairs({ 0, 1 }) do
        it("by " .. way .. ", takes its value along, with a capacity of " .. capacity, function()
          local pipe = new(capacity)
          if capacity == 1 then put(pipe, "first") end
          local leave = start(function()
            put(pipe, "gone")
          end)
          task.spawn(put, pipe, "next")
          leave()
          advance(0)
          assert.are.same(capacity == 1 and { "first", "next" } or { "next" }, drain(pipe))
          advance(0)
        end)

        it("by " .. way .. " when its value was taken, has given it once, with a capacity of " .. capacity, function()
          local pipe = new(capacity)
          if capacity == 1 then put(pipe, "first") end
          local leave = start(function()
            put(pipe, "given")
          end)
          local given = attempt.start(put, pipe, "next")
          assert.are.equal(capacity == 1 and "first" or "given", try_take(pipe))
          leave()
          advance(0)
          assert.are.same(capacity == 1 and { "given", "next" } or { "next" }, drain(pipe))
          advance(0)
          assert.is_true(given[1])
        end)
      end
    end

    it("by a cancellation while the value is in its hands, is told at the next wait", function()
      local pipe, list, record = new(0), recorder()
      local result = attempt.start(scope, function(s)
        s:spawn(function()
          record(put(pipe, "value"))
          local ok, err = protected(put, pipe, "another")
          record(not ok and err.kind)
        end)
        record(take(pipe))
        s:cancel()
      end)
      advance(0)
      assert.is_true(result.ok)
      assert.are.same({ "value", true, "cancelled" }, list)
      assert.are.same({}, drain(pipe))
    end)
  end)
end
