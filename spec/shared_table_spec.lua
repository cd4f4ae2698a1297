local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local workers = require("spec.support.workers")
local refuses = require("spec.support.refuses")

local await, run, shared, task = scheduler.await, scheduler.parallel.run, scheduler.shared, scheduler.task

-- A literal would be taken for a 0 of the same function by Lua 5.1.
local NEGATIVE_ZERO = -1 / math.huge

local CHANGED_INSIDE = "cannot change a shared table in the function of an 'update': .*"

local function increment(n)
  return (n or 0) + 1
end

describe("a shared table", function()
  it("has what was set, under strings, numbers and booleans", function()
    local shared_table = shared.table()
    local keys = { "a", "", "with \0 in it", 1, -1, 0.5, 2 ^ 70, math.huge, -math.huge, true, false }
    for i, key in ipairs(keys) do
      assert.is_nil(shared_table:get(key))
      shared_table:set(key, i)
    end
    for i, key in ipairs(keys) do
      assert.are.equal(i, shared_table:get(key))
    end
    assert.are.equal(#keys, #shared_table)
    assert.is_nil(shared_table:get("1"))
    assert.is_nil(shared_table:get(0))
    assert.are.equal("table of 11 shared values", tostring(shared_table))
  end)

  it("takes keys for the same that are the same to Lua", function()
    local shared_table = shared.table()
    shared_table:set(1.0, "one")
    shared_table:set(NEGATIVE_ZERO, "zero")
    assert.are.equal("one", shared_table:get(1))
    assert.are.equal("zero", shared_table:get(0))
    shared_table:set(1, "uno")
    assert.are.equal("uno", shared_table:get(1.0))
    assert.are.equal(2, #shared_table)
  end)

  it("gives values as they were set", function()
    local shared_table = shared.table()
    local nan = 0 / 0
    for _, value in ipairs({ true, false, 0, 1, -1.5, 2 ^ 53, math.huge, "", "text\0", nan }) do
      shared_table:set("key", value)
      local back = shared_table:get("key")
      assert.is_true(rawequal(back, value) or value ~= value and back ~= back)
      if math.type then assert.are.equal(math.type(value), math.type(back)) end
    end
    shared_table:set("key", NEGATIVE_ZERO)
    assert.are.equal(-math.huge, 1 / shared_table:get("key"))
    assert.are.equal(-math.huge, 1 / shared_table:update("key", function(zero)
      return zero
    end))
    assert.are.equal(-math.huge, 1 / shared_table:get("key"))
  end)

  it("gives a copy of a table each time, and functions with their upvalues", function()
    local shared_table, list = shared.table(), { 1, { 2 } }
    list.me = list
    shared_table:set("list", list)
    list[1] = "changed later"
    local one, other = shared_table:get("list"), shared_table:get("list")
    assert.are.equal(1, one[1])
    assert.are.equal(2, one[2][1])
    assert.is_true(one.me == one and one ~= other)
    local factor = 6
    shared_table:set("fn", function(n)
      return n * factor
    end)
    assert.are.equal(42, await(run(function()
      return shared_table:get("fn")(7)
    end)))
  end)

  it("deletes", function()
    local shared_table = shared.table()
    shared_table:set("a", 1)
    shared_table:set("b", {})
    shared_table:set("c", false)
    assert.is_true(shared_table:delete("a"))
    assert.is_false(shared_table:delete("a"))
    assert.is_nil(shared_table:set("b", nil))
    assert.is_nil(shared_table:get("b"))
    assert.is_false(shared_table:delete("b"))
    assert.is_true(shared_table:delete("c"))
    assert.are.equal(0, #shared_table)
  end)

  it("lists its keys", function()
    local shared_table = shared.table()
    assert.are.same({}, shared_table:keys())
    for _, key in ipairs({ "a", 2, 1.5, true }) do
      shared_table:set(key, "x")
    end
    local found = {}
    for _, key in ipairs(shared_table:keys()) do
      found[key] = true
    end
    assert.are.same({ a = true, [2] = true, [1.5] = true, [true] = true }, found)
    assert.are.equal(4, #shared_table:keys())
  end)

  it("refuses keys that are none, and what cannot cross, at the line of the call", function()
    local shared_table = shared.table()
    shared_table:set("a", 1)
    for _, case in ipairs({ { nil, "nil" }, { 0 / 0, "NaN" }, { {}, "table" }, { print, "function" } }) do
      for _, name in ipairs({ "get", "set", "delete", "update" }) do
        refuses("bad argument #1 to '" .. name .. "' %(string, number or boolean expected, got " .. case[2] .. "%)",
          shared_table[name], shared_table, case[1], increment)
      end
    end
    refuses("cannot transfer the value: userdata", shared_table.set, shared_table, "a", io.stdout)
    refuses("cannot transfer the value%.deep%[2%]: thread", shared_table.set, shared_table, "a",
      { deep = { 1, coroutine.create(function() end) } })
    refuses("cannot transfer the value: userdata", shared_table.update, shared_table, "a", function()
      return io.stdout
    end)
    refuses("bad argument #2 to 'update' %(function expected, got nil%)", shared_table.update, shared_table, "a")
    refuses("bad argument #2 to 'update' %(function expected, got number%)", shared_table.update, shared_table, "a", 5)
    assert.are.equal(1, shared_table:get("a"))
  end)

  it("refuses to be called with a dot, or on something else", function()
    local shared_table = shared.table()
    for _, name in ipairs({ "get", "set", "delete", "update", "keys" }) do
      refuses("calling '" .. name .. "' on bad self %(table expected, got string%)", shared_table[name], "a", 1)
      refuses("calling '" .. name .. "' on bad self %(table expected, got userdata%)",
        shared_table[name], shared.atomic(), 1)
    end
  end)

  it("is the same one wherever it arrives, in itself too", function()
    local shared_table = shared.table()
    shared_table:set("me", shared_table)
    assert.is_true(rawequal(shared_table, shared_table:get("me")))
    assert.is_true(rawequal(shared_table, await(run(function(argument)
      assert(rawequal(argument, shared_table) and rawequal(argument:get("me"), argument))
      argument:set("from", "a worker")
      return argument
    end, shared_table))))
    assert.are.equal("a worker", shared_table:get("from"))
    -- What refers to itself is freed when it does so no more.
    shared_table:delete("me")
  end)

  it("holds other shared things", function()
    local shared_table = shared.table()
    shared_table:set("atomic", shared.atomic(1))
    shared_table:set("list", { shared.buffer("u8", 2), shared.mutex() })
    assert.are.equal(2, await(run(function()
      shared_table:get("list")[1]:set(2, 9)
      return shared_table:get("list")[2]:with(function()
        return shared_table:get("atomic"):add(1)
      end)
    end)))
    assert.are.equal(9, shared_table:get("list")[1]:get(2))
    assert.is_true(rawequal(shared_table:get("atomic"), shared_table:get("atomic")))
  end)

  it("takes what many workers set at once", function()
    local shared_table = shared.table()
    for i, job in ipairs(workers.start(4, function()
      local inner = require("scheduler")
      local me = shared_table:update("workers", function(n)
        return (n or 0) + 1
      end)
      inner.task.wait(0.01)
      for i = 1, 500 do
        shared_table:set(me .. "/" .. i, { i, me })
        if i % 2 == 0 then shared_table:delete(me .. "/" .. i) end
      end
    end)) do
      assert.is_true(i <= 4 and job:expect() == nil)
    end
    assert.are.equal(4 * 250 + 1, #shared_table)
    assert.are.same({ 499, 3 }, shared_table:get("3/499"))
  end)
end)

describe("update", function()
  it("sets what its function returns for the value, and returns that", function()
    local shared_table = shared.table()
    assert.are.equal(1, shared_table:update("n", increment))
    assert.are.equal(2, shared_table:update("n", increment))
    assert.are.equal(2, shared_table:get("n"))
    local list = shared_table:update("list", function(none)
      assert(none == nil)
      return { 1 }
    end)
    shared_table:update("list", function(own)
      assert(own ~= list)
      own[2] = 2
      return own
    end)
    assert.are.same({ 1, 2 }, shared_table:get("list"))
    assert.is_nil(shared_table:update("n", function() end))
    assert.is_nil(shared_table:get("n"))
    assert.is_nil(shared_table:update("none", function() end))
    assert.are.equal(1, #shared_table)
    assert.are.equal(7, shared_table:update("called", setmetatable({}, { __call = function()
      return 7
    end })))
  end)

  it("counts exactly in four workers at once", function()
    local shared_table = shared.table()
    workers.run(4, function()
      local function add(n)
        return (n or 0) + 1
      end
      for i = 1, 5000 do
        shared_table:update("n", add)
        shared_table:update(i % 7, add)
      end
    end)
    assert.are.equal(20000, shared_table:get("n"))
    local sum = 0
    for i = 0, 6 do
      sum = sum + shared_table:get(i)
    end
    assert.are.equal(20000, sum)
  end)

  it("keeps others from changing the entry, but not from reading it, nor from changing others", function()
    local shared_table, step = shared.table(), shared.atomic(0)
    shared_table:set("n", "old")
    local job = run(function()
      shared_table:update("n", function()
        step:set(1)
        local limit = os.clock() + 10
        while step:get() < 2 and os.clock() < limit do
          math.random()
        end
        return "new"
      end)
    end)
    while step:get() < 1 do
      task.wait(0.001)
    end
    assert.are.equal("old", shared_table:get("n"))
    shared_table:set("other", 1)
    assert.are.equal(2, shared_table:update("other", increment))
    assert.are.equal(2, #shared_table)
    local setting = run(function()
      step:set(2)
      shared_table:set("n", shared_table:get("n") .. ", set later")
    end)
    await(job, setting)
    -- Set before the update began to end, it would have been overwritten.
    assert.matches("set later$", shared_table:get("n"))
  end)

  it("leaves the value if its function raises, with that error", function()
    local shared_table, err = shared.table(), {}
    shared_table:set("n", 1)
    for _ = 1, 3 do
      local ok, raised = pcall(shared_table.update, shared_table, "n", function()
        error(err)
      end)
      assert.is_true(not ok and raised == err)
      assert.is_false(pcall(shared_table.update, shared_table, "none", error))
    end
    local _, message = pcall(shared_table.update, shared_table, "n", function(n)
      return n.field.deeper
    end)
    assert.matches("^[^\n]*shared_table_spec%.lua:%d+: attempt to index", message)
    assert.are.equal(1, shared_table:get("n"))
    assert.are.equal(1, #shared_table)
    assert.are.equal(2, shared_table:update("n", increment))
    shared_table:set("none", 3)
  end)

  it("refuses changes of any shared table in its function", function()
    local shared_table, other = shared.table(), shared.table()
    shared_table:set("n", 1)
    for _, target in ipairs({ shared_table, other }) do
      for _, key in ipairs({ "n", "m" }) do
        refuses(CHANGED_INSIDE, shared_table.update, shared_table, "n", function()
          target:set(key, 5)
        end)
        refuses(CHANGED_INSIDE, shared_table.update, shared_table, "n", function()
          target:delete(key)
        end)
        refuses(CHANGED_INSIDE, shared_table.update, shared_table, "n", function()
          target:update(key, increment)
        end)
      end
    end
    assert.are.equal(8, shared_table:update("n", function(n)
      assert(not pcall(other.set, other, "m", 1))
      return shared_table:get("n") + n + #shared_table + #shared_table:keys() + #other + 4
    end))
    other:set("m", 1)
    assert.are.equal(1, other:get("m"))
  end)

  it("refuses a function that waits, on the main thread and in tasks, and leaves no timer behind", function()
    local shared_table = shared.table()
    shared_table:set("n", 1)
    local before = scheduler.stats()
    local semaphore = scheduler.semaphore(1)
    semaphore:acquire()
    local waits = {
      function() task.wait(10) end,
      function() task.wait() end,
      function() task.yield() end,
      function() coroutine.yield() end,
      function() semaphore:acquire() end,
      function() scheduler.await(scheduler.Promise.new(function() end)) end,
    }
    local function check()
      for _, fn in ipairs(waits) do
        refuses("the function given to 'update' must not wait, or yield", shared_table.update, shared_table, "n", fn)
        assert.are.equal(2, shared_table:update("n", increment))
        shared_table:set("n", 1)
      end
    end
    check()
    local result = attempt.start(check)
    assert.is_true(result.ok, result.err)
    scheduler.poll()
    scheduler.poll()
    assert.are.equal(before.timers_pending, scheduler.stats().timers_pending)
    assert.are.equal(before.tasks_waiting, scheduler.stats().tasks_waiting)
    semaphore:release()
    assert.is_true(semaphore:try_acquire())
  end)

  it("may be called in a task, and know which it is", function()
    local shared_table, mutex = shared.table(), scheduler.mutex()
    local result = attempt.start(function()
      mutex:lock()
      shared_table:update("n", function()
        mutex:unlock()
        return 1
      end)
      return mutex:is_locked()
    end)
    assert.is_true(result.ok, result.err)
    assert.is_false(result[1])
  end)

  it("frees the entry when its worker ends in an error", function()
    local shared_table = shared.table()
    local ok = pcall(await, run(function()
      shared_table:update("n", function()
        error("failed")
      end)
    end))
    assert.is_false(ok)
    assert.are.equal(1, shared_table:update("n", increment))
  end)
end)

describe("the memory of a shared table", function()
  it("is freed with the last handle, and the values with their keys", function()
    assert.is_true(memory.is_released(function()
      return shared.table()
    end))
    workers.collect()
    memory.collect()
    local before = scheduler.stats().shared
    local shared_table = shared.table()
    coroutine.wrap(function()
      shared_table:set("a", { shared.atomic(1) })
      shared_table:set("b", shared.buffer("u8", 1))
      shared_table:set("c", shared.mutex())
      shared_table:set("d", shared.table())
    end)()
    memory.collect()
    assert.are.equal(before + 5, scheduler.stats().shared)
    shared_table:delete("a")
    shared_table:set("b", 1)
    shared_table:update("c", function() end)
    memory.collect()
    assert.are.equal(before + 2, scheduler.stats().shared)
    shared_table = nil -- luacheck: ignore 311
    memory.collect()
    -- What an earlier test has left on a stack may go meanwhile.
    assert.is_true(scheduler.stats().shared <= before)
  end)

  it("is freed however deep tables lie in tables", function()
    local result = child.script([[
      local outer = scheduler.shared.table()
      for _ = 1, 50000 do
        local next_one = scheduler.shared.table()
        next_one:set("inner", outer)
        outer = next_one
      end
      outer = nil
      collectgarbage()
      collectgarbage()
      io.write(scheduler.stats().shared)
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("0", result.out)
  end)

  it("is left when the Lua state closes, while others use it", function()
    local result = child.script([[
      local shared_table = scheduler.shared.table()
      shared_table:set("me", shared_table)
      for _ = 1, 2 do
        scheduler.parallel.run(function()
          for i = 1, 1e7 do shared_table:update(i % 10, function(n) return (n or 0) + 1 end) end
        end)
      end
      scheduler.setTimeout(function() os.exit(3, true) end, 20)
      scheduler.run()
    ]])
    assert.are.equal("", result.err)
    assert.are.equal(3, result.code)
  end)
end)
