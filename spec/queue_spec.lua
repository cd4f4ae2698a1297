local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")

local task, scope, timeout = scheduler.task, scheduler.scope, scheduler.timeout
local advance, recorder = virtual.advance, virtual.recorder
local protected = scheduler.pcall

--- Whether `for value in queue do` works in tasks: in PUC Lua 5.1 an iterator cannot yield.
local can_yield_in_iterator = pcall == scheduler.pcall

local function ignore() end

--- Starts a task that takes a value out and notes it.
local function start_popper(queue, record, seconds)
  return task.spawn(function()
    record((queue:pop(seconds)))
  end)
end

--- Takes out all that is there.
local function drain(queue)
  local list, record = recorder()
  local value = queue:try_pop()
  while value ~= nil do
    record(value)
    value = queue:try_pop()
  end
  return list
end

describe("a queue", function()
  virtual.setup(before_each, after_each)

  it("gives values in the order in which they were put in", function()
    local queue = scheduler.queue()
    for i = 1, 5 do
      assert.is_true(queue:push(i))
    end
    assert.are.equal(5, queue:len())
    assert.are.equal(1, queue:pop())
    assert.are.equal(2, queue:try_pop())
    queue:push(6)
    assert.are.same({ 3, 4, 5, 6 }, drain(queue))
    assert.are.equal(0, queue:len())
    assert.is_nil(queue:try_pop())
  end)

  it("takes values of every type but nil, false as well", function()
    local queue = scheduler.queue()
    local values = { false, true, 0, "", {}, ignore, coroutine.create(ignore), io.stdout }
    for i = 1, #values do
      queue:push(values[i])
    end
    for i = 1, #values do
      assert.are.equal(values[i], queue:pop())
    end
    local got = {}
    start_popper(queue, function(value)
      got[1] = value
    end)
    queue:push(false)
    advance(0)
    assert.is_false(got[1])
    local small = scheduler.queue(1)
    for _, value in ipairs({ 1, false, 3 }) do
      task.spawn(small.push, small, value)
    end
    assert.are.same({ 1, false, 3 }, drain(small))
    advance(0)
    for _, name in ipairs({ "push", "try_push" }) do
      local _, message = pcall(function()
        queue[name](queue, nil)
      end)
      assert.matches("^[^\n]*queue_spec%.lua:%d+: bad argument #1 to '" .. name .. "'", message)
      assert.matches("%(value expected, got nil%)", message)
    end
    assert.are.equal(0, queue:len())
  end)

  it("of a hundred thousand random pushes and pops gives each value once, in order", function()
    local queue, pushed, popped = scheduler.queue(), 0, 0
    for _ = 1, 100000 do
      if math.random(2) == 1 then
        pushed = pushed + 1
        queue:push(pushed)
      elseif popped < pushed then
        popped = popped + 1
        if queue:pop() ~= popped then error("out of order") end
      end
      if queue:len() ~= pushed - popped then error("wrong length") end
    end
  end)

  it("without a capacity takes any number of values, and keeps none of them afterwards", function()
    local queue = scheduler.queue()
    local kept = setmetatable({}, { __mode = "k" })
    for _ = 1, 100000 do
      local value = {}
      kept[value] = true
      queue:push(value)
    end
    for _ = 1, 100000 do
      queue:pop()
    end
    collectgarbage()
    collectgarbage()
    local left = 0
    for _ in pairs(kept) do
      left = left + 1
    end
    assert.is_true(left < 10, left)
  end)

  it("has a length for # where Lua asks for it", function()
    local queue = scheduler.queue()
    queue:push(1)
    queue:push(2)
    local asks = #setmetatable({}, {
      __len = function()
        return 7
      end,
    }) == 7
    if asks then assert.are.equal(2, #queue) end
    assert.are.equal(2, queue:len())
  end)

  it("gives values to those that wait, in the order in which they came", function()
    local list, record = recorder()
    local queue = scheduler.queue()
    for i = 1, 3 do
      task.spawn(function()
        record(i .. " " .. queue:pop())
      end)
    end
    for _, value in ipairs({ "a", "b", "c", "d" }) do
      queue:push(value)
    end
    assert.are.equal(1, queue:len())
    assert.are.same({}, list)
    advance(0)
    assert.are.same({ "1 a", "2 b", "3 c" }, list)
    assert.are.equal("d", queue:pop())
  end)

  it("does not let anybody take what was given to one that waits", function()
    local list, record = recorder()
    local queue = scheduler.queue()
    start_popper(queue, record)
    queue:push("value")
    assert.is_nil(queue:try_pop())
    assert.are.equal(0, queue:len())
    advance(0)
    assert.are.same({ "value" }, list)
  end)

  it("may be used on the main thread, and says so if nothing can come", function()
    scheduler.clock.resume()
    local queue = scheduler.queue(1)
    task.spawn(function()
      for i = 1, 5 do
        task.wait(0.0005)
        queue:push(i)
      end
    end)
    for i = 1, 5 do
      assert.are.equal(i, queue:pop())
    end
    local ok, message = pcall(queue.pop, queue)
    assert.is_false(ok)
    assert.matches("nothing is left that could end this wait", message)
    queue:push("full")
    ok, message = pcall(queue.push, queue, "too much")
    assert.is_false(ok)
    assert.matches("nothing is left that could end this wait", message)
    assert.are.same({ false, "timeout" }, { queue:push("too much", 0.001) })
    assert.are.same({ "full" }, drain(queue))
    assert.are.same({ "timeout", n = 2 }, { select(2, queue:pop(0.001)), n = select("#", queue:pop(0.001)) })
  end)

  it("works inside a generator, and in a callback", function()
    local list, record = recorder()
    local queue = scheduler.queue()
    task.spawn(function()
      record(scheduler.coroutine.wrap(queue.pop)(queue))
    end)
    scheduler.setTimeout(function()
      record(queue:pop())
    end)
    advance(0)
    queue:push("generator")
    queue:push("callback")
    advance(0)
    assert.are.same({ "generator", "callback" }, list)
  end)

  it("refuses a capacity that is no whole number of at least 0", function()
    for _, case in ipairs({
      { "string", "1" }, { "table", {} }, { "%-1", -1 }, { "1.5", 1.5 }, { "%-?[Nn]a[Nn]", 0 / 0 },
    }) do
      local ok, message = pcall(scheduler.queue, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'queue' %(whole number of at least 0 expected, got " .. case[1], message)
    end
    assert.is_true(scheduler.queue(math.huge):try_push(1))
  end)
end)

describe("a queue with a capacity", function()
  virtual.setup(before_each, after_each)

  it("lets a push wait for room, and keeps the order", function()
    local list, record = recorder()
    local queue = scheduler.queue(2)
    for i = 1, 5 do
      task.spawn(function()
        queue:push(i)
        record(i)
      end)
    end
    assert.are.same({ 1, 2 }, list)
    assert.are.equal(2, queue:len())
    assert.is_false(queue:try_push(6))
    assert.are.equal(1, queue:pop())
    assert.are.equal(2, queue:len())
    -- The room is that of the push that waits.
    assert.is_false(queue:try_push(6))
    advance(0)
    assert.are.same({ 1, 2, 3 }, list)
    for i = 2, 5 do
      assert.are.equal(i, queue:pop())
    end
    advance(0)
    assert.are.same({ 1, 2, 3, 4, 5 }, list)
    assert.is_nil(queue:try_pop())
  end)

  it("never holds more than that", function()
    local queue, most, popped, record = scheduler.queue(3), 0, recorder()
    for producer = 1, 10 do
      task.spawn(function()
        for i = 1, 20 do
          queue:push(producer * 100 + i)
          most = math.max(most, queue:len())
          if i % 5 == 0 then task.wait(0.001) end
        end
      end)
    end
    for _ = 1, 4 do
      task.spawn(function()
        for _ = 1, 50 do
          record(queue:pop())
          task.yield()
        end
      end)
    end
    advance(1000)
    assert.are.equal(200, #popped)
    assert.are.equal(3, most)
    -- The values of each producer come in its order.
    local last = {}
    for _, value in ipairs(popped) do
      local producer = math.floor(value / 100)
      assert.is_true(value > (last[producer] or 0))
      last[producer] = value
    end
  end)

  it("of 0 hands each value from a push to a pop", function()
    local list, record = recorder()
    local queue = scheduler.queue(0)
    assert.is_false(queue:try_push("nobody waits"))
    assert.is_nil(queue:try_pop())
    for i = 1, 2 do
      task.spawn(function()
        queue:push(i)
        record("pushed " .. i)
      end)
    end
    advance(0)
    assert.are.same({}, list)
    assert.are.equal(0, queue:len())
    assert.are.equal(1, queue:pop())
    advance(0)
    assert.are.same({ "pushed 1" }, list)
    assert.are.equal(2, queue:try_pop())
    advance(0)
    assert.are.same({ "pushed 1", "pushed 2" }, list)
    start_popper(queue, record)
    assert.is_true(queue:try_push("given"))
    assert.is_false(queue:try_push("refused"))
    advance(0)
    assert.are.equal("given", list[3])
  end)
end)

describe("pop and push with a timeout", function()
  virtual.setup(before_each, after_each)

  it("return nil or false, and 'timeout', at their time", function()
    local queue, start = scheduler.queue(1), scheduler.now()
    local list, record = recorder()
    task.spawn(function()
      local value, why = queue:pop(0.25)
      record({ tostring(value), why, virtual.since(start) })
      queue:push("full")
      value, why = queue:push("too much", 0.25)
      record({ tostring(value), why, virtual.since(start) })
    end)
    advance(1000)
    assert.are.same({ { "nil", "timeout", 250 }, { "false", "timeout", 500 } }, list)
    assert.are.same({ "full" }, drain(queue))
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("return in time, and leave no timer, when there is a value or room", function()
    local queue = scheduler.queue(1)
    assert.is_true(queue:push(1, 0))
    local pushed = attempt.start(queue.push, queue, 2, 10)
    assert.are.equal(1, queue:pop(0))
    advance(0)
    assert.is_true(pushed[1])
    assert.are.equal(2, queue:pop(0))
    local popped = attempt.start(queue.pop, queue, 10)
    queue:push(3)
    advance(0)
    assert.are.same({ 1, 3 }, { popped.n, popped[1] })
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("of 0 or less wait until the next turn", function()
    for _, seconds in ipairs({ 0, -1, -math.huge }) do
      local queue = scheduler.queue(0)
      local popped = attempt.start(queue.pop, queue, seconds)
      advance(0)
      local pushed = attempt.start(queue.push, queue, 1, seconds)
      advance(0)
      assert.are.same({ "timeout", "timeout" }, { popped[2], pushed[2] })
    end
  end)

  it("refuse one that is no number, and change nothing", function()
    local queue = scheduler.queue()
    queue:push("kept")
    for _, case in ipairs({ { "string", "1" }, { "table", {} }, { "NaN", 0 / 0 } }) do
      local ok, message = pcall(queue.pop, queue, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'pop' %(number expected, got " .. case[1] .. "%)", message)
      ok, message = pcall(queue.push, queue, 1, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #2 to 'push' %(number expected, got " .. case[1] .. "%)", message)
    end
    assert.are.same({ "kept" }, drain(queue))
  end)

  it("that strike at the moment of the value: what comes first counts, and the value is not lost", function()
    for _, push_first in ipairs({ true, false }) do
      local list, record = recorder()
      local queue = scheduler.queue()
      local function push_later()
        scheduler.setTimeout(queue.push, 1000, queue, "value")
      end
      if push_first then push_later() end
      local result = attempt.start(queue.pop, queue, 1)
      start_popper(queue, record, 5)
      if not push_first then push_later() end
      advance(1000)
      assert.are.equal(push_first and "value" or nil, result[1])
      if push_first then queue:push("second") end
      advance(0)
      assert.are.same({ push_first and "second" or "value" }, list)
    end
  end)

  it("that strike at the moment of the pop: what comes first counts, and no value is there twice", function()
    for _, pop_first in ipairs({ true, false }) do
      local list, record = recorder()
      local queue = scheduler.queue(0)
      local function pop_later()
        scheduler.setTimeout(function()
          record(queue:try_pop())
        end, 1000)
      end
      if pop_first then pop_later() end
      local first = attempt.start(queue.push, queue, "first", 1)
      local second = attempt.start(queue.push, queue, "second")
      if not pop_first then pop_later() end
      advance(1000)
      assert.are.equal(pop_first, first[1])
      assert.are.same({ pop_first and "first" or "second" }, list)
      assert.are.same(pop_first and { "second" } or {}, drain(queue))
      advance(0)
      assert.is_true(second[1])
    end
  end)
end)

describe("closing a queue", function()
  virtual.setup(before_each, after_each)

  it("lets what is in it be taken out, and then says that it is closed", function()
    local queue = scheduler.queue()
    queue:push(1)
    queue:push(2)
    assert.is_false(queue:is_closed())
    queue:close()
    queue:close()
    assert.is_true(queue:is_closed())
    assert.are.equal(1, queue:pop())
    assert.are.equal(2, queue:pop())
    for _, seconds in ipairs({ 1, false }) do
      local value, why = queue:pop(seconds or nil)
      assert.is_nil(value)
      assert.are.equal("closed", why)
    end
    assert.is_nil(queue:try_pop())
  end)

  it("makes push raise an error object of the kind closed, at the line of the call", function()
    local queue = scheduler.queue()
    queue:close()
    for _, name in ipairs({ "push", "try_push" }) do
      local ok, err = pcall(function()
        queue[name](queue, 1)
      end)
      assert.is_false(ok)
      assert.are.equal("closed", err.kind)
      assert.matches("^[^\n]*queue_spec%.lua:%d+: the queue is closed", err.message)
    end
    assert.are.equal(0, queue:len())
  end)

  it("wakes all that wait: a pop returns, a push raises, and its value is not in", function()
    local queue, full = scheduler.queue(), scheduler.queue(1)
    full:push("in")
    local results = {}
    for i = 1, 2 do
      results[i] = attempt.start(queue.pop, queue, 10)
      results[i + 2] = attempt.start(full.push, full, "out", 10)
    end
    queue:close()
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
    local queue, rendezvous = scheduler.queue(), scheduler.queue(0)
    local popped = attempt.start(queue.pop, queue)
    queue:push("value")
    queue:close()
    local pushed = attempt.start(rendezvous.push, rendezvous, "value")
    assert.are.equal("value", rendezvous:try_pop())
    rendezvous:close()
    advance(0)
    assert.are.equal("value", popped[1])
    assert.is_true(pushed[1])
  end)

  it("loses no value whose popper was cancelled, before or after", function()
    for _, close_first in ipairs({ true, false }) do
      local queue = scheduler.queue()
      local popper = task.spawn(queue.pop, queue)
      queue:push("value")
      if close_first then queue:close() end
      task.cancel(popper)
      if not close_first then queue:close() end
      assert.are.equal(1, queue:len())
      assert.are.equal("value", queue:pop())
      assert.are.equal("closed", select(2, queue:pop()))
    end
  end)

  it("leaves nothing behind in a popper that leaves when it was woken by it", function()
    local queue = scheduler.queue()
    local popper = task.spawn(queue.pop, queue)
    queue:close()
    task.cancel(popper)
    assert.are.equal(0, queue:len())
    assert.are.equal("closed", select(2, queue:pop()))
  end)
end)

describe("for value in queue", function()
  virtual.setup(before_each, after_each)

  it("takes out what is there, and ends when the queue is closed and empty", function()
    local list, record = recorder()
    local queue = scheduler.queue()
    queue:push(1)
    queue:push(false)
    queue:push(3)
    queue:close()
    for value in queue do
      record(value)
    end
    assert.are.same({ 1, false, 3 }, list)
  end)

  it("waits for what comes, in a task", function()
    if not can_yield_in_iterator then return end
    local list, record = recorder()
    local queue = scheduler.queue()
    task.spawn(function()
      for value in queue do
        record(value)
      end
      record("closed")
    end)
    for i = 1, 3 do
      queue:push(i)
      advance(0)
    end
    assert.are.same({ 1, 2, 3 }, list)
    queue:close()
    advance(0)
    assert.are.same({ 1, 2, 3, "closed" }, list)
  end)

  it("waits for what comes, on the main thread", function()
    scheduler.clock.resume()
    local list, record = recorder()
    local queue = scheduler.queue(1)
    task.spawn(function()
      for i = 1, 5 do
        task.wait(0.0005)
        queue:push(i)
      end
      queue:close()
    end)
    for value in queue do
      record(value)
    end
    assert.are.same({ 1, 2, 3, 4, 5 }, list)
  end)

  it("that cannot wait raises an error, and loses no value", function()
    if can_yield_in_iterator then return end
    local queue = scheduler.queue()
    local result = attempt.start(function()
      for value in queue do
        error(value, 0)
      end
    end)
    assert.is_false(result.ok)
    assert.is_string(result.err)
    queue:push("value")
    advance(0)
    assert.are.same({ "value" }, drain(queue))
  end)
end)

describe("a task that waits to pop and leaves", function()
  virtual.setup(before_each, after_each)

  for name, start in pairs(attempt.leavings) do
    it("by " .. name .. " leaves no hole: the next gets the value", function()
      local list, record = recorder()
      local queue = scheduler.queue()
      start_popper(queue, record)
      local leave = start(function()
        queue:pop()
      end)
      start_popper(queue, record)
      leave()
      advance(0)
      queue:push("a")
      queue:push("b")
      queue:push("c")
      advance(0)
      assert.are.same({ "a", "b" }, list)
      assert.are.same({ "c" }, drain(queue))
    end)

    for _, is_woken in ipairs({ false, true }) do
      it("by " .. name .. (is_woken and " after" or " before") .. " it was given a value loses none", function()
        local list, record = recorder()
        local queue = scheduler.queue()
        local leave = start(function()
          local value = queue:pop()
          -- In a scope that was cancelled, what was given already is there.
          if value == "a" then record(value) end
        end)
        start_popper(queue, record)
        if not is_woken then leave() end
        queue:push("a")
        if is_woken then leave() end
        advance(0)
        queue:push("b")
        advance(0)
        local all = drain(queue)
        for i = #list, 1, -1 do
          table.insert(all, 1, list[i])
        end
        assert.are.same({ "a", "b" }, all)
        assert.are.equal(0, queue:len())
      end)
    end
  end

  it("gives the value back to the front, in the order of the values, whatever the order of leaving", function()
    for _, order in ipairs({ { 1, 2, 3 }, { 3, 2, 1 }, { 2, 1, 3 }, { 2, 3, 1 }, { 1, 3, 2 }, { 3, 1, 2 } }) do
      local queue = scheduler.queue()
      local poppers = {}
      for i = 1, 3 do
        poppers[i] = task.spawn(queue.pop, queue)
      end
      for i = 1, 5 do
        queue:push(i)
      end
      for _, i in ipairs(order) do
        task.cancel(poppers[i])
      end
      assert.are.equal(5, queue:len())
      assert.are.same({ 1, 2, 3, 4, 5 }, drain(queue))
    end
  end)

  it("gives the value back to the front, not to those whose turn is later, when resumed by hand", function()
    local list, record = recorder()
    local queue = scheduler.queue()
    local first = start_popper(queue, record)
    local second = start_popper(queue, record)
    queue:push("a")
    queue:push("b")
    queue:push("c")
    coroutine.resume(first, "by hand")
    coroutine.resume(second, "by hand")
    assert.are.same({ "by hand", "by hand" }, list)
    assert.are.same({ "a", "b", "c" }, drain(queue))
  end)

  it("hands a value on to one that waits, through several that leave", function()
    local list, record = recorder()
    local queue = scheduler.queue(0)
    local poppers = {}
    for i = 1, 5 do
      poppers[i] = start_popper(queue, record)
    end
    queue:push("value")
    for i = 1, 4 do
      task.cancel(poppers[i])
    end
    advance(0)
    assert.are.same({ "value" }, list)
    assert.are.equal(0, queue:len())
  end)

  it("by a timeout around it loses no value, whichever comes first", function()
    for _, push_first in ipairs({ true, false }) do
      local list, record = recorder()
      local queue = scheduler.queue()
      local function push_later()
        scheduler.setTimeout(queue.push, 1000, queue, "value")
      end
      if push_first then push_later() end
      local result = attempt.start(timeout, 1, queue.pop, queue)
      if not push_first then push_later() end
      start_popper(queue, record, 5)
      advance(1000)
      assert.are.equal(push_first, result.ok)
      if push_first then queue:push("next") end
      advance(0)
      assert.are.same({ push_first and "next" or "value" }, list)
    end
  end)
end)

describe("a task that waits to push and leaves", function()
  virtual.setup(before_each, after_each)

  for name, start in pairs(attempt.leavings) do
    for _, capacity in ipairs({ 0, 1 }) do
      it("by " .. name .. " takes its value along, with a capacity of " .. capacity, function()
        local queue = scheduler.queue(capacity)
        if capacity == 1 then queue:push("first") end
        local leave = start(function()
          queue:push("gone")
        end)
        task.spawn(queue.push, queue, "next")
        leave()
        advance(0)
        assert.are.same(capacity == 1 and { "first", "next" } or { "next" }, drain(queue))
        advance(0)
      end)

      it("by " .. name .. " when its value was taken has given it once, with a capacity of " .. capacity, function()
        local queue = scheduler.queue(capacity)
        if capacity == 1 then queue:push("first") end
        local leave = start(function()
          queue:push("given")
        end)
        local pushed = attempt.start(queue.push, queue, "next")
        assert.are.equal(capacity == 1 and "first" or "given", queue:try_pop())
        leave()
        advance(0)
        assert.are.same(capacity == 1 and { "given", "next" } or { "next" }, drain(queue))
        advance(0)
        assert.is_true(pushed[1])
      end)
    end
  end

  it("by a cancellation while the value is in its hands is told at the next wait", function()
    local list, record = recorder()
    local queue = scheduler.queue(0)
    local result = attempt.start(scope, function(s)
      s:spawn(function()
        record(queue:push("value"))
        local ok, err = protected(queue.push, queue, "another")
        record(not ok and err.kind)
      end)
      record(queue:pop())
      s:cancel()
    end)
    advance(0)
    assert.is_true(result.ok)
    assert.are.same({ "value", true, "cancelled" }, list)
    assert.are.same({}, drain(queue))
  end)
end)
