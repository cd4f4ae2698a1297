-- Programs that change what the library lives in: globals, standard libraries, metatables. It took what it needs when
-- it was loaded.

local child = require("spec.support.child")

-- Everything that there is, parts included that are loaded late. What the program itself needs is local.
local USE = [[
  local assert, error, print, select, tostring, type, write = assert, error, print, select, tostring, type, io.write
  local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
  local find, pcall = string.find, pcall
  local function use_everything()
    local task, Promise = scheduler.task, scheduler.Promise
    local fired = 0
    local function fire() fired = fired + 1 end
    scheduler.setTimeout(fire, 1)
    scheduler.setTimeout(fire, 1, "argument")
    scheduler.setImmediate(fire)
    scheduler.queueMicrotask(fire)
    task.defer(fire)
    task.delay(0.001, fire)
    scheduler.run()
    assert(fired == 6)
    scheduler.run(function()
      local mutex, event = scheduler.mutex(), scheduler.event()
      local queue, semaphore = scheduler.queue(1), scheduler.semaphore(1)
      task.spawn(function() task.wait(0.001) event:set() queue:push(7) end)
      mutex:lock() event:wait() assert(queue:pop() == 7) semaphore:acquire() semaphore:release() mutex:unlock()
      scheduler.scope(function(scope) scope:spawn(task.wait, 0.001) end)
      assert(not pcall_of(scheduler.timeout, 0.001, task.wait, 10))
      assert(scheduler.coroutine.wrap(function() task.wait(0.001) yield(8) end)() == 8)
      assert(task.join(task.spawn(function() task.wait(0.001) return 9 end)) == 9)
      local results = scheduler.execute_tasks({ a = function() task.wait(0.001) return 10 end })
      assert(results.a == 10)
    end)
    assert(scheduler.await(Promise.delay(0.001):andThen(function() return 11 end)) == 11)
    assert(scheduler.await(scheduler.async(function() task.wait(0.001) return 12 end)()) == 12)
    assert(scheduler.await(Promise.all({ Promise.resolve(13), Promise.delay(0) }))[1] == 13)
    assert(scheduler.await(scheduler.promisify(function(n, done) done(nil, n) end)(14)) == 14)
    local parallel = scheduler.parallel
    assert(scheduler.await(parallel.run(function(n) return n + 1 end, 14)) == 15)
    assert(parallel.map({ 15, 16 }, function(n) return n + 1 end):expect()[1] == 16)
    local pool = parallel.pool({ size = 1 })
    assert(scheduler.await(pool:run(function() require("scheduler").task.wait(0.001) return 17 end)) == 17)
    pool:close()
    local channel = scheduler.channel(2)
    channel:send({ 18 })
    assert(channel:recv()[1] == 18)
    channel:send(19)
    assert(select(2, scheduler.select({ { channel, "recv" } })) == 19)
    local atomic = scheduler.shared.atomic(20)
    assert(atomic:get() == 20)
    assert(scheduler.shared.table():get("x") == nil)
    assert(scheduler.shared.buffer("u8", 2):get(1) == 0)
    scheduler.shared.mutex():with(function() end)
    scheduler.clock.pause() scheduler.clock.advance(1) scheduler.clock.resume()
    -- Mistakes are told as ever.
    local expected = "bad argument #1 to 'setTimeout' (function expected, got number)"
    local ok, message = pcall(scheduler.setTimeout, 1)
    assert(not ok and find(message, expected, 1, true), message)
    ok, message = pcall(task.wait, "x")
    assert(not ok and find(message, "bad argument #1 to 'wait'", 1, true), message)
    assert(not pcall(parallel.run, function() end, create(function() end)))
    assert(find(tostring(Promise.resolve(1)), "Promise", 1, true))
    write("used")
  end
]]

local function works_after(poison)
  local result = child.script("pcall_of = scheduler.pcall " .. USE .. poison .. " use_everything()")
  assert.are.equal("", result.err)
  assert.are.equal("used", result.out)
  assert.are.equal(0, result.code)
end

describe("after require, a program may", function()
  it("change nothing, for comparison", function()
    works_after("")
  end)

  it("remove all globals", function()
    works_after([[
      local names = {}
      for name in pairs(_G) do names[#names + 1] = name end
      local G, ipairs, keep = _G, ipairs, { pcall_of = true, require = true }
      for _, name in ipairs(names) do if not keep[name] then G[name] = nil end end
    ]])
  end)

  it("let all global functions raise", function()
    works_after([[
      local raise = function() error("poisoned") end
      for _, name in ipairs({ "pcall", "xpcall", "error", "assert", "type", "select", "next", "pairs", "ipairs",
        "tostring", "tonumber",
        "setmetatable", "getmetatable", "rawget", "rawset", "rawequal", "load", "loadstring", "unpack" }) do
        if _G[name] then _G[name] = raise end
      end
    ]])
  end)

  it("empty the standard libraries", function()
    works_after([[
      local next, loaded, raise = next, package.loaded, function() error("poisoned") end
      for _, name in ipairs({ "coroutine", "string", "table", "math", "debug", "os", "io" }) do
        for field in pairs(_G[name]) do _G[name][field] = raise end
      end
    ]])
  end)

  it("take the methods from strings", function()
    works_after("getmetatable('').__index = nil")
  end)

  it("let strings be indexed by numbers", function()
    works_after("getmetatable('').__index = function(s, i) return string.sub(s, i, i) end")
  end)

  it("give nil, functions, booleans and numbers metatables", function()
    works_after([[
      local odd = { __index = function() return 1 end, __eq = function() return true end,
        __lt = function() return true end, __tostring = function() return "odd" end }
      for _, value in ipairs({ false, 1, print }) do debug.setmetatable(value, odd) end
      debug.setmetatable(nil, { __index = function() end })
      debug.setmetatable(create(function() end), { __index = function() end, __eq = function() return true end })
    ]])
  end)

  it("forget the module and require it again", function()
    works_after([[
      package.loaded.scheduler = nil
      assert(require("scheduler") == scheduler)
    ]])
  end)

  it("replace package.loaded and require", function()
    works_after("package.loaded, package.preload = {}, {} package = nil")
  end)

  it("empty the module's own table but for what it uses", function()
    local result = child.script([[
      local run, setTimeout, out = scheduler.run, scheduler.setTimeout, io.stdout
      local task, await, Promise = scheduler.task, scheduler.await, scheduler.Promise
      setmetatable(scheduler, nil)
      for name in pairs(scheduler) do scheduler[name] = nil end
      setTimeout(function() out:write("fired ") end, 1)
      task.spawn(function() task.wait(0.001) out:write("slept ") end)
      run()
      out:write(await(Promise.delay(0.001):andThen(function() return "awaited" end)))
    ]])
    assert.are.equal("", result.err)
    assert.matches("fired", result.out)
    assert.matches("slept", result.out)
    assert.matches("awaited", result.out)
  end)
end)

describe("before require, a program may", function()
  it("let unknown globals raise", function()
    local result = child.run({ "-e", [[
      setmetatable(_G, {
        __index = function(_, name) error("unknown global " .. tostring(name), 2) end,
        __newindex = function(_, name) error("new global " .. tostring(name), 2) end,
      })
      local scheduler = require("scheduler")
      local promise = scheduler.Promise.delay(0.001)
      local job = scheduler.parallel.run(function() return 7 end)
      assert(scheduler.await(job) == 7)
      scheduler.await(promise)
      io.write("works")
    ]] })
    assert.are.equal("", result.err)
    assert.are.equal("works", result.out)
  end)

  it("lack the debug library: errors then have no traceback and no place", function()
    local result = child.run({ "-e", [[
      debug = nil
      package.loaded.debug = nil
      local scheduler = require("scheduler")
      scheduler.setTimeout(error, 1, "failed")
      scheduler.run()
      scheduler.run(function() scheduler.task.wait(0.001) io.write("works") end)
    ]] })
    assert.matches("failed", result.err)
    assert.are.equal("works", result.out)
  end)
end)

describe("a job", function()
  it("that poisons its worker's globals spoils none of those after it", function()
    local result = child.script([[
      local pool = scheduler.parallel.pool({ size = 1 })
      local outcome = {}
      pool:run(function()
        require("scheduler").task.wait(0.001)
        local names = { "coroutine", "string", "table", "debug", "pcall", "error", "setmetatable", "select" }
        for _, name in ipairs(names) do
          _G[name] = nil
        end
      end):await()
      local job = pool:run(function() require("scheduler").task.wait(0.001) return "waited" end)
      assert(scheduler.await(job) == "waited")
      assert(scheduler.await(pool:run(function(n) return n * 2 end, 21)) == 42)
      local ok, err = pool:run(function() local x = nil return x.y end):await()
      assert(not ok and err.kind == "error" and err.message:find("attempt to index"), tostring(err))
      io.write("works")
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("works", result.out)
  end)
end)
