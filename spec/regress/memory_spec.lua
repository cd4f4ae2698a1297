-- Memory that runs out. In a state whose allocator fails once, at the first allocation, then at the second, and so on
-- to the last: what is done then works or raises an error, and when there is memory again the library works.
--
-- MEMORY_STEP=1 lets each of them fail; else it is every so many, not the same ones in each run.

local child = require("spec.support.child")

local STEP = tonumber(os.getenv("MEMORY_STEP")) or 293

--- What a program does that has no errors of its own: it raises what reached the error handler. An error that is not
--- about memory must follow from one that is: a wrong result or a mistake of ours is none.
local function program(work)
  return [[
    local function raise(err)
      local text = type(err) == "string" and err or tostring(err)
      for _, mistake in ipairs({ "wrong: ", "attempt to ", "out of bounds", "internal error" }) do
        if text:find(mistake, 1, true) then error(text, 0) end
      end
      error(text:find("not enough memory", 1, true) and text or "not enough memory: " .. text, 0)
    end
    local function work()
      local scheduler = require("scheduler")
      local failure
      scheduler.on_error(function(err) failure = failure or err or "an error that is nil" end)
      local function same(wanted, value)
        if value ~= wanted and not failure then error("wrong: " .. tostring(value) .. " for " .. tostring(wanted)) end
      end
      local ok, err = pcall(function() ]] .. work .. [[ end)
      if failure then raise(failure) end
      if not ok then raise(err) end
    end
    -- With memory again: what was left may end as it likes, then all works.
    function after()
      if type(package.loaded.scheduler) ~= "table" then package.loaded.scheduler = nil end
      local scheduler = require("scheduler")
      scheduler.on_error(function() end)
      for _ = 1, 5 do scheduler.poll() end
      pcall(scheduler.run) -- a task that is left in a wait is told of here, and not below
      work()
    end
    work()
  ]]
end

local PROGRAMS = {
  ["require"] = "",
  ["timers and microtasks"] = [[
    local fired = 0
    local function fire(n) fired = fired + (n or 1) end
    scheduler.setTimeout(fire, 0)
    scheduler.setTimeout(fire, 0, 10)
    scheduler.setImmediate(fire, 100)
    scheduler.queueMicrotask(fire, 1000)
    scheduler.run()
    same(1111, fired)
  ]],
  ["tasks"] = [[
    local task, order = scheduler.task, {}
    local event, queue = scheduler.event(), scheduler.queue()
    local co = task.spawn(function() task.wait(0) event:set() queue:push(1) return "slept" end)
    task.defer(function() event:wait() order[#order + 1] = queue:pop() end)
    scheduler.run(function()
      same("slept", task.join(co))
      scheduler.scope(function(scope) scope:spawn(task.wait, 0) end)
      task.wait(0)
    end)
    same(1, order[1])
  ]],
  ["promises"] = [[
    local Promise = scheduler.Promise
    local promise = Promise.new(function(resolve) scheduler.setTimeout(resolve, 0, 7) end)
    same(8, scheduler.await(promise:andThen(function(n) return n + 1 end)))
    same(2, #scheduler.await(Promise.all({ Promise.resolve(1), Promise.delay(0) })))
    same(9, scheduler.await(scheduler.async(function() return 9 end)()))
  ]],
  ["jobs"] = [[
    local function work_there(a, b) return a + b, { b, { "text" } } end
    local sum, list = scheduler.await(scheduler.parallel.run(work_there, 40, 2))
    same(42, sum)
    same("text", list and list[2][1])
    local ok, err = scheduler.parallel.run(function() error({ code = 7 }) end):await()
    same(false, ok)
    if type(err) == "table" and not err.value then error(err.message, 0) end -- its outcome could not be taken
    same(7, err.value and err.value.code)
  ]],
  ["channels"] = [[
    local channel, got = scheduler.channel(1), 0
    scheduler.task.spawn(function() for i = 1, 3 do channel:send({ i }) end channel:close() end)
    scheduler.run(function()
      local message = channel:recv()
      while message do got, message = got + message[1], channel:recv() end
    end)
    same(6, got)
  ]],
  -- Who has failed to wait takes no message with it.
  ["a message"] = [[
    local channel, got, failure_of_wait = scheduler.channel()
    local function receive()
      local ok, value = scheduler.pcall(channel.recv, channel)
      if ok then got = value else failure_of_wait = value end
    end
    local function start() scheduler.task.spawn(receive) end
    if not pcall(start) or failure_of_wait ~= nil then start() end
    local is_sent = channel:try_send("sent")
    for _ = 1, 3 do scheduler.poll() end
    -- One that has come and could not be taken is told of by an error, which says so.
    local is_told = failure_of_wait ~= nil and tostring(failure_of_wait):find("cannot be taken", 1, true)
    if failure_of_wait ~= nil and got == nil and is_sent and not is_told then error("wrong: the message is lost") end
    if failure_of_wait ~= nil then error(failure_of_wait, 0) end
    same("sent", got)
  ]],
  ["a lock"] = [[
    local mutex, task = scheduler.shared.mutex(), scheduler.task
    mutex:lock()
    local has_ended = false
    local ok, err = pcall(task.spawn, function()
      mutex:lock()
      mutex:unlock()
      has_ended = true
    end)
    mutex:unlock()
    scheduler.poll()
    scheduler.poll()
    -- Whoever has failed to wait for it does not hold it.
    if not mutex:try_lock() then error("wrong: the lock is lost") end
    if not ok then error(err, 0) end
    same(true, has_ended)
  ]],
  ["calls that hold a lock"] = [[
    local task, shared = scheduler.task, scheduler.shared.mutex()
    local semaphore, mutex = scheduler.semaphore(1), scheduler.mutex()
    local ok, err = pcall(function()
      for _ = 1, 2 do
        task.spawn(function() semaphore:with(task.wait, 0) end)
        task.spawn(function() mutex:with(task.wait, 0) end)
        task.spawn(function() shared:with(task.wait, 0) end)
      end
    end)
    local has_run, failure_of_run = pcall(scheduler.run)
    if not has_run then pcall(scheduler.run) end
    if semaphore:available() ~= 1 then error("wrong: a permit is lost") end
    if mutex:is_locked() or not shared:try_lock() then error("wrong: a lock is lost") end
    if not ok then error(err, 0) end
    if not has_run then error(failure_of_run, 0) end
  ]],
  ["a queue"] = [[
    local task, queue, pushed, popped = scheduler.task, scheduler.queue(1), 0, 0
    local function push(n) if queue:push(n) then pushed = pushed + n end end
    for n = 1, 3 do task.spawn(push, n) end
    for _ = 1, 3 do task.spawn(function() popped = popped + queue:pop() end) end
    pcall(scheduler.run)
    scheduler.poll()
    while queue:len() > 0 do popped = popped + queue:pop() end
    if pushed > popped then error("wrong: " .. pushed .. " pushed, " .. popped .. " popped") end
    same(6, popped)
  ]],
  ["timers with arguments"] = [[
    local count, id = 0, nil
    local function tick(n) count = count + n if count >= 3 then scheduler.clearInterval(id) end end
    id = scheduler.setInterval(tick, { ms = 0, missed = "delay", overlap = true }, 1)
    scheduler.setTimeout(scheduler.setTimeout, 0, function() end, 0)
    scheduler.setImmediate(tick, 0)
    scheduler.task.delay(0, tick, 0)
    scheduler.run()
    same(3, count)
  ]],
  ["select"] = [[
    local a, b, got = scheduler.channel(), scheduler.channel(1), nil
    scheduler.task.spawn(scheduler.select, { { a, "send", 1 }, timeout = 1 })
    scheduler.task.spawn(function()
      local _, value = scheduler.select({ { b, "recv" }, { a, "recv" }, timeout = 1 })
      got = value
    end)
    scheduler.run()
    same(1, got)
  ]],
  ["shared memory"] = [[
    local shared = scheduler.shared
    local atomic, dictionary, buffer = shared.atomic(1), shared.table(), shared.buffer("i32", 4)
    dictionary:set("key", { 1, "text" })
    buffer:set(1, atomic:add(6))
    local value = dictionary:get("key")
    same("text", value and value[2])
    local function add(a, b) return a:add(1) + b:get(1) end
    same(15, scheduler.await(scheduler.parallel.run(add, atomic, buffer)))
  ]],
}

-- Where one allocation that fails is one error, as the collector is not asked first, two of them are two errors in a
-- row: to let go of what is held may then fail as well.
local ONCE_ONLY = (_VERSION == "Lua 5.1") and { ["calls that hold a lock"] = true } or {}

local function names()
  local sorted = {}
  for name in pairs(PROGRAMS) do
    sorted[#sorted + 1] = name
  end
  table.sort(sorted)
  return sorted
end

describe("a state whose allocator fails", function()
  for _, failures in ipairs({ 1, 2 }) do
    for _, name in ipairs(names()) do
      local define = failures > 1 and ONCE_ONLY[name] and function() end or it
      define(("%s, at any moment: %s works or raises"):format(failures == 1 and "once" or "twice", name), function()
        local first = math.random(1, STEP)
        local result = child.host_without_memory(program(PROGRAMS[name]), failures, STEP, first)
        assert.are.equal("", result.err)
        assert.matches("^%d+ succeeded, %d+ failed, 0 went wrong\n$", result.out)
        assert.are.equal(0, result.code)
      end)
    end
  end
end)

describe("a host whose allocator has a limit", function()
  it("may use it up in Lua, and its loop goes on", function()
    -- Lua 5.1 and LuaJIT take so large a count for another one.
    if pcall(string.rep, "x", 2 ^ 40) then return end
    local result = child.script([[
      local errors, fired = 0, 0
      scheduler.on_error(function(err) errors = errors + 1 end)
      for i = 1, 5 do
        scheduler.setTimeout(function() return ("x"):rep(2 ^ 40) end, i)
        scheduler.task.spawn(function() scheduler.task.wait(i / 1000) return ("x"):rep(2 ^ 40) end)
        scheduler.setTimeout(function() fired = fired + 1 end, i)
      end
      scheduler.run()
      assert(errors == 10 and fired == 5, errors)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
  end)

  it("of a worker fails the job that exceeds it, and no other", function()
    local result = child.script([[
      local pool = scheduler.parallel.pool({ size = 1, memory_limit = 8 * 2 ^ 20 })
      for _ = 1, 3 do
        local ok, err = pool:run(function() local t = {} for i = 1, 1e8 do t[i] = { i } end end):await()
        assert(not ok and err.kind == "memory", tostring(err))
        assert(pool:run(function() return 7 end):expect() == 7)
      end
      local ok, err = pool:run(function(s) return s .. s .. s end, ("x"):rep(3 * 2 ^ 20)):await()
      assert(not ok and err.kind == "memory", tostring(err))
      ok, err = pool:run(function(s) return #s end, ("x"):rep(16 * 2 ^ 20)):await()
      assert(not ok, "more than there is room for")
      assert(pool:run(function() return 8 end):expect() == 8)
      io.write("works")
    ]])
    assert.are.equal("works", result.out, result.err)
  end)
end)
