-- `os.exit` from wherever the library calls a program: the process ends at once, with that code and nothing on stderr,
-- whether the state is closed first or not. (From timers, microtasks and the like: spec/close_spec.lua.)

local child = require("spec.support.child")

-- What is under way meanwhile.
local PENDING = [[
  for i = 1, 50 do scheduler.setTimeout(print, 1e6) end
  for i = 1, 3 do scheduler.task.spawn(scheduler.task.wait, 1e3) end
  scheduler.parallel.run(function() local n = 0 for i = 1, 1e9 do n = n + i end return n end)
]]

local PLACES = {
  ["a task"] = "scheduler.task.spawn(leave)",
  ["a deferred task"] = "scheduler.task.defer(leave) scheduler.run()",
  ["a delayed task"] = "scheduler.task.delay(0.001, leave) scheduler.run()",
  ["a task that has waited"] = "scheduler.run(function() scheduler.task.wait(0.001) leave() end)",
  ["a task in a task in a task"] = [[
    local spawn = scheduler.task.spawn
    scheduler.run(function() spawn(function() spawn(function() spawn(leave) end) end) end)
  ]],
  ["the executor of a promise"] = "scheduler.Promise.new(leave)",
  ["a handler of a promise"] = "scheduler.Promise.resolve(1):andThen(leave) scheduler.run()",
  ["a handler of a rejection"] = "scheduler.Promise.reject(1):catch(leave) scheduler.run()",
  ["a finally handler"] = "scheduler.Promise.resolve(1):finally(leave) scheduler.run()",
  ["the hook of a cancelled promise"] = [[
    scheduler.Promise.new(function(_, _, on_cancel) on_cancel(leave) end):cancel()
  ]],
  ["a thenable"] = "scheduler.Promise.resolve({ andThen = leave }) scheduler.run()",
  ["an async function"] = "scheduler.async(function() scheduler.await(scheduler.Promise.delay(0)) leave() end)() "
    .. "scheduler.run()",
  ["the handler of unhandled rejections"] = [[
    scheduler.Promise.onUnhandledRejection(leave)
    scheduler.Promise.reject("unhandled")
    scheduler.run()
  ]],
  ["a scope"] = "scheduler.run(scheduler.scope, function(scope) scope:spawn(leave) end)",
  ["the clean-up of a cancelled task"] = [[
    scheduler.run(scheduler.scope, function(scope)
      scope:spawn(function()
        scheduler.pcall(scheduler.task.wait, 100)
        leave()
      end)
      scheduler.task.wait(0.001)
      scope:cancel()
    end)
  ]],
  ["a generator that waits"] = [[
    scheduler.run(function()
      scheduler.coroutine.wrap(function() scheduler.task.wait(0.001) leave() end)()
    end)
  ]],
  ["a protected call"] = "scheduler.run(function() scheduler.pcall(leave) end)",
  ["a mutex that is held"] = "scheduler.run(function() scheduler.mutex():with(leave) end)",
  ["the iterator of a map"] = [[
    scheduler.await(scheduler.parallel.map(function() leave() end, function(n) return n end))
  ]],
  ["the progress of a map"] = [[
    scheduler.await(scheduler.parallel.map({ 1, 2, 3 }, function(n) return n end, { progress = leave }))
  ]],
  ["a generator of execute_tasks"] = "scheduler.execute_tasks({ leave, leave }, 1)",
  ["__tostring of an uncaught error"] = [[
    scheduler.setTimeout(error, 0, setmetatable({}, { __tostring = leave }))
    scheduler.run()
  ]],
  ["a finalizer"] = [[
    local function finalizer()
      if newproxy then getmetatable(newproxy(true)).__gc = leave else setmetatable({}, { __gc = leave }) end
    end
    scheduler.setInterval(function() finalizer() collectgarbage() end, 1)
    scheduler.run()
  ]],
}

local function names_of(places)
  local names = {}
  for name in pairs(places) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function leaves(source)
  for _, call in ipairs({ "os.exit(3)", "os.exit(3, true)" }) do
    local result = child.script(PENDING .. "local function leave() " .. call .. " end " .. source)
    assert.are.equal("", result.err)
    assert.are.equal(3, result.code, call)
  end
end

describe("os.exit", function()
  for _, name in ipairs(names_of(PLACES)) do
    it("in " .. name .. " ends the process", function()
      leaves(PLACES[name])
    end)
  end

  it("in a worker ends the process", function()
    leaves([[
      scheduler.await(scheduler.parallel.run(function() os.exit(3) end))
    ]])
  end)

  it("in a worker, which closes its state, ends the process", function()
    leaves([[
      scheduler.await(scheduler.parallel.run(function() os.exit(3, true) end))
    ]])
  end)

  it("in a task of a worker ends the process", function()
    leaves([[
      scheduler.await(scheduler.parallel.run(function()
        require("scheduler").task.wait(0.001)
        os.exit(3, true)
      end))
    ]])
  end)

  it("in a worker and in the program at once ends the process", function()
    for _ = 1, 5 do
      leaves([[
        for i = 1, 4 do scheduler.parallel.run(function() os.exit(3, true) end) end
        scheduler.task.wait(math.random(0, 3) / 1000)
        leave()
      ]])
    end
  end)
end)

-- `lua_close` at the end of a script, or by os.exit: what is under way is dropped.
local STATES = {
  ["tasks that sleep"] = "for i = 1, 1000 do scheduler.task.spawn(scheduler.task.wait, i) end",
  ["a task that waits for a lock"] = [[
    local mutex = scheduler.mutex()
    for _ = 1, 3 do scheduler.task.spawn(function() mutex:lock() scheduler.task.wait(1e3) end) end
  ]],
  ["a task that waits for a channel"] = [[
    local channel = scheduler.channel()
    for _ = 1, 3 do scheduler.task.spawn(function() channel:recv() end) end
    scheduler.poll()
  ]],
  ["workers that wait for a channel"] = [[
    local channel = scheduler.channel()
    for _ = 1, 3 do scheduler.parallel.run(function(ch) return ch:recv() end, channel) end
    scheduler.task.wait(0.02)
  ]],
  ["a worker that sends to a full channel"] = [[
    local channel = scheduler.channel(1)
    scheduler.parallel.run(function(ch) for i = 1, 100 do ch:send(i) end end, channel)
    channel:recv()
  ]],
  ["a select under way"] = [[
    local a, b = scheduler.channel(), scheduler.channel()
    scheduler.task.spawn(function() scheduler.select({ { a, "recv" }, { b, "recv" }, timeout = 100 }) end)
    scheduler.poll()
  ]],
  ["a mutex between VMs held by a worker"] = [[
    local mutex = scheduler.shared.mutex()
    scheduler.parallel.run(function(m) m:lock() require("scheduler").task.wait(1e3) end, mutex)
    scheduler.task.wait(0.02)
    scheduler.task.spawn(function() mutex:lock() end)
    scheduler.poll()
  ]],
  ["a map half-way, with a bar"] = [[
    scheduler.parallel.map(function(_, n) return (n or 0) + 1 end, function(n) return n end, { progress = true })
    scheduler.task.wait(0.02)
  ]],
  ["pools of its own, with all kinds of jobs"] = [[
    local pool = scheduler.parallel.pool({ size = 2, queue = 3, init = function() require("scheduler") end })
    for i = 1, 4 do pool:run(function(n) require("scheduler").task.wait(n) end, i) end
    scheduler.task.spawn(function() for i = 1, 10 do pool:run(function() end) end end)
    scheduler.task.wait(0.02)
  ]],
  ["a pool that is closing"] = [[
    local pool = scheduler.parallel.pool({ size = 1 })
    pool:run(function() require("scheduler").task.wait(1e3) end)
    scheduler.task.spawn(function() pool:close() end)
    scheduler.poll()
  ]],
  ["jobs that send jobs"] = [[
    scheduler.parallel.run(function()
      local inner = require("scheduler")
      inner.await(inner.parallel.run(function() require("scheduler").task.wait(1e3) end))
    end)
    scheduler.task.wait(0.02)
  ]],
  ["promises in all states"] = [[
    local Promise = scheduler.Promise
    Promise.new(function() end):andThen(print):catch(print):finally(print)
    Promise.all({ Promise.delay(1e3), Promise.resolve(1), Promise.new(function() end) })
    scheduler.async(function() scheduler.await(Promise.delay(1e3)) end)()
    Promise.resolve(1):andThen(print)
  ]],
  ["a scope and a shielded task"] = [[
    scheduler.task.spawn(scheduler.scope, function(scope)
      scope:spawn(scheduler.shield, scheduler.task.wait, 1e3)
      scope:spawn(scheduler.timeout, 1e3, scheduler.task.wait, 1e3)
      scheduler.task.wait(1e3)
    end)
  ]],
  ["the clock paused"] = "scheduler.clock.pause() scheduler.setTimeout(print, 5) scheduler.clock.advance(0.001)",
  ["a descriptor that is armed"] = "scheduler.fd() scheduler.setTimeout(print, 5) scheduler.poll() scheduler.poll()",
}

describe("a state that closes with", function()
  for _, name in ipairs(names_of(STATES)) do
    it(name .. " drops that", function()
      local by_exit = child.script(STATES[name] .. " os.exit(0, true)")
      assert.are.equal("", by_exit.err)
      assert.are.equal(0, by_exit.code)
      local by_host = child.host("local scheduler = require('scheduler') " .. STATES[name], 2)
      assert.are.equal("", by_host.err)
      assert.are.equal(0, by_host.code)
    end)
  end
end)
