local scheduler = require("scheduler")
local child = require("spec.support.child")
local raised = require("spec.support.raised")

--- Runs `fn`, then the loop, and returns what reached `on_error`.
local function errors_of(fn)
  local errors = {}
  local former = scheduler.on_error(function(...)
    errors[#errors + 1] = { n = select("#", ...), ... }
  end)
  fn()
  scheduler.run()
  scheduler.on_error(former)
  return errors
end

describe("an uncaught error", function()
  it("reaches the handler with its traceback and the place where the timer was set", function()
    local line
    local errors = errors_of(function()
      local function fail()
        error("boom")
      end
      line = debug.getinfo(1, "l").currentline + 1
      scheduler.setTimeout(fail, 1)
    end)
    assert.are.equal(1, #errors)
    local err, traceback, source = errors[1][1], errors[1][2], errors[1][3]
    assert.matches("error_spec%.lua:%d+: boom$", err)
    assert.matches("^stack traceback:", traceback)
    assert.matches("error_spec%.lua:%d+:", traceback)
    assert.matches("^a timer set at .*error_spec%.lua:" .. line .. "$", source)
  end)

  it("names the place also where the timer was set through pcall, with arguments, or by a coroutine", function()
    local lines = {}
    local errors = errors_of(function()
      lines[1] = debug.getinfo(1, "l").currentline + 1
      pcall(scheduler.setTimeout, error, 1)
      lines[2] = debug.getinfo(1, "l").currentline + 1
      scheduler.setTimeout(error, 2, "with arguments")
      lines[3] = debug.getinfo(1, "l").currentline + 1
      scheduler.setImmediate(error)
      coroutine.wrap(function()
        lines[4] = debug.getinfo(1, "l").currentline + 1
        scheduler.setTimeout(error, 3)
      end)()
      local id
      lines[5] = debug.getinfo(1, "l").currentline + 1
      id = scheduler.setInterval(function()
        scheduler.clearInterval(id)
        error("in an interval")
      end, 4)
    end)
    local sources = {}
    for i, err in ipairs(errors) do
      sources[i] = tonumber(err[3]:match(":(%d+)$"))
    end
    table.sort(sources)
    assert.are.same(lines, sources)
  end)

  it("names the place of a callback that had waited", function()
    local co
    local line = debug.getinfo(1, "l").currentline + 1
    scheduler.setTimeout(function()
      co = coroutine.running()
      scheduler.await(scheduler.parallel.run(function() end))
      error("after the wait")
    end, 1)
    local errors = errors_of(function() end)
    assert.is_truthy(co)
    assert.are.equal(1, #errors)
    assert.matches("after the wait", errors[1][1])
    assert.matches(":" .. line .. "$", errors[1][3])
  end)

  it("keeps its value, whatever it is", function()
    local values = { "text", 42, false, { code = 1 }, print, io.stdout, coroutine.create(function() end) }
    local errors = errors_of(function()
      for _, value in ipairs(values) do
        scheduler.setTimeout(error, 0, value, 0)
      end
      scheduler.setTimeout(error, 0, nil)
    end)
    assert.are.equal(#values + 1, #errors)
    for i, value in ipairs(values) do
      assert.are.equal(value, errors[i][1])
    end
    assert.are.equal(raised.none, errors[#errors][1])
    assert.are.equal(3, errors[#errors].n)
  end)

  it("does not keep the others from running", function()
    local fired = 0
    local errors = errors_of(function()
      for _ = 1, 5 do
        scheduler.setTimeout(error)
        scheduler.setTimeout(function()
          fired = fired + 1
        end)
      end
    end)
    assert.are.equal(5, #errors)
    assert.are.equal(5, fired)
  end)

  it("closes pending <close> variables", function()
    local load = loadstring or load -- luacheck: ignore 113
    local make = load([[
      local set = ...
      return function()
        local guard <close> = setmetatable({}, { __close = function() set() end })
        error("x")
      end
    ]])
    if not make then return end -- not in this Lua
    local closed = false
    errors_of(function()
      scheduler.setTimeout(make(function()
        closed = true
      end))
    end)
    assert.is_true(closed)
  end)
end)

describe("on_error", function()
  it("returns the former handler", function()
    local function one() end
    local function two() end
    assert.is_nil(scheduler.on_error(one))
    assert.are.equal(one, scheduler.on_error(two))
    assert.are.equal(two, scheduler.on_error(nil))
    assert.is_nil(scheduler.on_error(nil))
  end)

  it("refuses what cannot be called", function()
    for _, value in ipairs({ 1, "x", {}, true }) do
      local ok, message = pcall(scheduler.on_error, value)
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'on_error'", message)
    end
  end)

  it("may set timers and microtasks", function()
    local fired = 0
    scheduler.on_error(function()
      scheduler.setTimeout(function()
        fired = fired + 1
      end)
      scheduler.queueMicrotask(function()
        fired = fired + 1
      end)
    end)
    scheduler.setTimeout(error)
    scheduler.run()
    scheduler.on_error(nil)
    assert.are.equal(2, fired)
  end)
end)

describe("the default handler", function()
  it("writes a line with the place and the traceback to stderr, and the loop goes on", function()
    local result = child.script([[
      scheduler.setTimeout(function()
        error("boom")
      end, 1)
      scheduler.setTimeout(function() print("goes on") end, 2)
      scheduler.run()
    ]])
    assert.are.equal(0, result.code)
    assert.are.equal("goes on\n", result.out)
    local first, second = result.err:match("^([^\n]*)\n([^\n]*)\n")
    assert.matches("^scheduler: uncaught error in a timer set at %S+:2: %S+:3: boom$", first)
    assert.are.equal("stack traceback:", second)
  end)

  it("copes with every error value", function()
    local result = child.script([[
      local function failing() error("in __tostring") end
      for _, value in ipairs({ {}, setmetatable({}, { __tostring = function() return "an object" end }), 42, false,
        setmetatable({}, { __tostring = failing }), setmetatable({}, { __tostring = function() return {} end }) }) do
        scheduler.setTimeout(error, 0, value)
      end
      scheduler.setTimeout(error, 0, nil)
      scheduler.run()
    ]])
    assert.are.equal(0, result.code)
    local lines = {}
    for line in result.err:gmatch("scheduler: uncaught error in [^\n]*: ([^\n]*)") do
      lines[#lines + 1] = line
    end
    assert.are.equal(7, #lines)
    assert.are.equal("an object", lines[2])
    assert.are.equal("42", lines[3])
    assert.are.equal("false", lines[4])
    assert.are.equal("(error object is a table value)", lines[5])
    assert.are.equal("(error object is a table value)", lines[6])
    assert.are.equal(tostring(raised.none), lines[7])
  end)

  it("takes over when the program's handler fails", function()
    local result = child.script([[
      scheduler.on_error(function() error("handler failed") end)
      scheduler.setTimeout(error, 1, "original")
      scheduler.run()
      print("ended")
    ]])
    assert.are.equal(0, result.code)
    assert.are.equal("ended\n", result.out)
    assert.matches("uncaught error in the error handler: [^\n]*handler failed", result.err)
    assert.matches("uncaught error in a timer set at [^\n]*: original", result.err)
  end)

  it("needs no globals of the program", function()
    local result = child.script([[
      local run, setTimeout, out = scheduler.run, scheduler.setTimeout, io.stdout
      for _, name in ipairs({ "coroutine", "debug", "io", "string", "table", "tostring", "error", "select", "type",
        "setmetatable", "ipairs" }) do
        _G[name] = nil
      end
      pcall = error
      setTimeout(function() local x = nil; return x.y end, 1)
      setTimeout(function() out:write("goes on\n") end, 2)
      run()
    ]])
    assert.are.equal(0, result.code, result.err)
    assert.are.equal("goes on\n", result.out)
    assert.matches("attempt to index", result.err)
  end)
end)
