-- Functions cross between VMs with their upvalues, modules and C functions by their names.

-- luacheck: read globals setfenv loadstring newproxy

local scheduler = require("scheduler")
local with_modules = require("spec.support.modules")
local crossing = require("spec.support.crossing")

local pack = table.pack or function(...)
  return { n = select("#", ...), ... }
end
local SHARES_UPVALUES = debug.upvalueid ~= nil -- luacheck: ignore 143
local there, id, echo, failure = crossing.there, crossing.id, crossing.echo, crossing.failure
local refused, assert_refused = crossing.refused, crossing.assert_refused

describe("functions cross", function()
  it("with their upvalues", function()
    local base, offset, nothing = 10, { by = 5 }, nil
    local results = pack(there(function(fn, n)
      return base + offset.by, fn(n), nothing, type(string.format)
    end, function(n)
      return n * base
    end, 4))
    assert.are.same({ n = 4, 15, 40, nil, "function" }, results)
  end)

  it("back, and keep their state from then on", function()
    local counter = there(function()
      local count = 0
      return function()
        count = count + 1
        return count
      end
    end)
    assert.are.equal(1, counter())
    assert.are.equal(2, counter())
  end)

  it("recursive, one and several", function()
    local is_even
    local function factorial(n)
      return n <= 1 and 1 or n * factorial(n - 1)
    end
    local function is_odd(n)
      return n ~= 0 and is_even(n - 1)
    end
    function is_even(n)
      return n == 0 or is_odd(n - 1)
    end
    assert.are.equal(120, (there(factorial, 5)))
    assert.are.same({ true, false }, { there(is_odd, 7), (there(is_even, 7)) })
    local back, other = echo(is_even, is_odd)
    assert.is_true(back(10))
    assert.is_true(other(9))
  end)

  it("as the same function wherever they stand", function()
    local function f() end
    local a, b, list = echo(f, f, { f, [f] = f })
    assert.are.equal(a, b)
    assert.are.equal(a, list[1])
    assert.are.equal(a, list[a])
  end)

  it("with varargs, methods, long constants and strings in their bytecode", function()
    local function f(...)
      local list = { ... }
      return #list .. ("\0\255 long " .. ("text"):rep(3)), 2 ^ 53, select("#", ...), ("x"):upper()
    end
    assert.are.same({ f(1, nil, 3) }, { there(f, 1, nil, 3) })
  end)

  it("without their environment: globals are the worker's own", function()
    marker = "of the main program" -- luacheck: ignore 111
    local function global()
      return marker, _G.marker -- luacheck: ignore 113 143
    end
    assert.are.same({ n = 2 }, pack(there(global)))
    marker = nil -- luacheck: ignore 111
    assert.is_true(there(function(env)
      return env == _G
    end, _G))
    assert.are.equal(_G, (echo(_G)))
    assert.are.equal(_G, (echo({ { _G } }))[1][1])
    if setfenv then
      global = setfenv(function()
        return marker -- luacheck: ignore 113
      end, { marker = "of an environment" })
    else
      global = load("return marker", "chunk", "t", { marker = "of an environment" })
    end
    assert.is_nil((there(global)))
  end)

  it("out of a debugger's reach: those without debug information", function()
    local source = "local a, b = ... return function(c) return a .. b .. c .. type(print) end"
    local make = assert((loadstring or load)(string.dump((loadstring or load)(source), true)))
    assert.are.equal("123function", (there(make("1", "2"), "3")))
  end)

  if SHARES_UPVALUES then
    it("and share the upvalues that they shared", function()
      local count, other = 0, 100
      local function up()
        count = count + 1
      end
      local function get()
        return count, other
      end
      local function up_other()
        other = other + 1
      end
      assert.are.same({ 2, 101 }, { there(function(u, list)
        u()
        u()
        list.up_other()
        return list.get()
      end, up, { get = get, up_other = up_other }) })
      assert.are.equal(0, count)
      local back = echo({ up, get, up_other })
      back[1]()
      back[3]()
      assert.are.same({ 1, 101 }, { back[2]() })
    end)

    it("and share no others, though they be equal", function()
      local function counter()
        local count = 0
        return function()
          count = count + 1
          return count
        end
      end
      local a, b = echo(counter(), counter())
      assert.are.same({ 1, 2, 1 }, { a(), a(), b() })
    end)

    it("and share upvalues that lead back to themselves", function()
      local object, get, set = {}
      function get()
        return object, set
      end
      function set(value)
        object = value
        return get
      end
      local back_get, back_set = echo(get, set)
      assert.are.equal(back_set, select(2, back_get()))
      assert.are.equal(back_get, back_set("new"))
      assert.are.equal("new", (back_get()))
    end)
  else
    it("each with upvalues of its own, where Lua does not tell which are shared", function()
      local count = 0
      local function up()
        count = count + 1
        return count
      end
      local function get()
        return count
      end
      local back_up, back_get = echo(up, get)
      assert.are.same({ 1, 0 }, { back_up(), back_get() })
    end)
  end
end)

describe("modules cross by their names", function()
  it("as upvalues", function()
    local math, string = math, string
    assert.are.same({ true, true }, { there(function(m)
      return math == require("math") and math ~= m, string == require("string")
    end, math) })
    assert.are.equal(scheduler, there(function()
      return function()
        return scheduler
      end
    end)())
  end)

  it("once in a message, whoever has them", function()
    local table = table
    local fns = {}
    for i = 1, 100 do
      fns[i] = function()
        return table, i
      end
    end
    for i, fn in ipairs((echo(fns))) do
      assert.are.equal(table, (fn()))
      assert.are.equal(i, select(2, fn()))
    end
  end)

  it("with classes: objects have the class of the VM that they are in", function()
    with_modules({
      transfer_point = [[
        local Point = {}
        Point.__index = Point
        function Point.new(x, y) return setmetatable({ x = x, y = y }, Point) end
        function Point.__add(a, b) return Point.new(a.x + b.x, a.y + b.y) end
        function Point:length() return (self.x ^ 2 + self.y ^ 2) ^ 0.5 end
        return Point
      ]],
    }, function()
      local Point = require("transfer_point")
      local is_class, length, sum = there(function(a, b)
        return getmetatable(a) == require("transfer_point") and getmetatable(b) == Point, a:length(), a + b
      end, Point.new(3, 4), Point.new(1, 1))
      assert.is_true(is_class)
      assert.are.equal(5, length)
      assert.are.equal(Point, getmetatable(sum))
      assert.are.same({ 4, 5 }, { sum.x, sum.y })
      local list = {}
      for i = 1, 100 do
        list[i] = Point.new(i, 0)
      end
      list = echo(list)
      for i = 1, 100 do
        assert.are.equal(Point, getmetatable(list[i]))
        assert.are.equal(i, list[i]:length())
      end
    end)
  end)

  it("that are functions, and callable tables", function()
    with_modules({
      transfer_function = "local calls = 0 return function() calls = calls + 1 return calls end",
      transfer_callable = "return setmetatable({}, { __call = function(_, n) return n * 2 end })",
    }, function()
      local count, double = require("transfer_function"), require("transfer_callable")
      count()
      assert.are.same({ 1, 8, true }, { there(function()
        return count(), double(4), count == require("transfer_function")
      end) })
    end)
  end)

  it("with the state of the worker's own", function()
    with_modules({ transfer_state = "return { n = 0 }" }, function()
      local state = require("transfer_state")
      state.n = 7
      assert.are.equal(0, (there(function()
        return state.n
      end)))
      -- As an argument or in a table it is a table like any other.
      assert.are.same({ 7, false }, { there(function(s)
        return s.n, s == require("transfer_state")
      end, state) })
    end)
  end)

  it("into a worker that has not loaded them, and back from one that alone has", function()
    with_modules({ transfer_lazy = "local Class = { kind = 'lazy' } Class.__index = Class return Class" }, function()
      local object = there(function()
        return setmetatable({}, require("transfer_lazy"))
      end)
      assert.are.equal("lazy", object.kind)
      assert.are.equal(require("transfer_lazy"), getmetatable(object))
    end)
  end)

  it("unless the worker does not find them: the job fails and says so", function()
    package.preload.transfer_preloaded = function()
      return { only = "here" }
    end
    local module = require("transfer_preloaded")
    local err = failure(function()
      return module.only
    end)
    package.preload.transfer_preloaded, package.loaded.transfer_preloaded = nil, nil
    assert.are.equal("error", err.kind)
    assert.matches("^the job cannot be taken: module 'transfer_preloaded' not found:", err.message)
    assert.is_nil(err.message:find("traceback", 1, true))
    assert.are.equal("alive", (echo("alive")))
  end)

  it("unless they fail in the worker, or are something else there", function()
    with_modules({
      transfer_fails = "error('no luck', 0)",
      transfer_nothing = "return 'no table'",
    }, function()
      local fails, nothing = {}, setmetatable({}, { __index = {} })
      package.loaded.transfer_fails, package.loaded.transfer_nothing = fails, nothing
      assert.matches("^the job cannot be taken: .*no luck", failure(function()
        return fails
      end).message)
      assert.are.equal("the job cannot be taken: module 'transfer_nothing' is a string here, not a table",
        failure(function(object)
          return object
        end, setmetatable({}, nothing)).message)
    end)
  end)

  it("unless the main program does not find what comes back", function()
    local err = failure(function()
      package.loaded.transfer_of_worker = { "a class" }
      return setmetatable({}, package.loaded.transfer_of_worker)
    end)
    assert.matches("^the outcome of the job cannot be taken: module 'transfer_of_worker' not found", err.message)
    err = failure(function()
      error(setmetatable({}, package.loaded.transfer_of_worker or { __tostring = function() return "an object" end }))
    end)
    assert.are.equal("error", err.kind)
  end)
end)

describe("C functions cross by their names", function()
  it("all those of the interpreter", function()
    local seen = 0
    for module, fields in pairs(package.loaded) do
      for _, name in ipairs({ "_G", "coroutine", "debug", "io", "math", "os", "package", "string", "table", "utf8",
        "bit", "jit" }) do
        if module == name then
          for field, value in pairs(fields) do
            if type(value) == "function" and debug.getinfo(value, "S").what == "C" then
              assert.are.equal(value, (echo(value)), module .. "." .. field)
              seen = seen + 1
            end
          end
        end
      end
    end
    assert.is_true(seen > 100, seen)
  end)

  it("and are the worker's own there", function()
    local format, floor, wrap, open, gc = string.format, math.floor, coroutine.wrap, io.open, collectgarbage
    assert.are.same({ "007", 3, "wrapped", true, true }, { there(function(f)
      local co = wrap(function()
        coroutine.yield("wrapped")
      end)
      return format("%03d", 7), floor(3.7), co(), open == io.open and gc("count") > 0, f == string.rep
    end, string.rep) })
  end)

  it("and can be the job itself", function()
    assert.are.equal("a-1", (there(string.format, "%s-%d", "a", 1)))
  end)

  it("under the interpreter's names, whatever other modules hold them", function()
    package.loaded["a_module_that_workers_lack"] = { format = string.format }
    refused(coroutine.wrap(id)) -- an unknown function: all names are looked up anew
    local ok, result = pcall(there, string.format, "%d", 5)
    package.loaded["a_module_that_workers_lack"] = nil
    assert.is_true(ok, result)
    assert.are.equal("5", result)
  end)

  it("those of the module too", function()
    local now = scheduler.setTimeout
    assert.are.same({ true, 1 }, { there(function()
      local inner, fired = require("scheduler"), 0
      now(function()
        fired = fired + 1
      end, 1)
      inner.task.wait(0.01)
      return now == inner.setTimeout, fired
    end) })
  end)

  it("but those of no module are refused", function()
    assert_refused("argument #2: a C function that no loaded module has", id, coroutine.wrap(id))
    local f = ("x"):gmatch("x")
    if debug.getinfo(f, "S").what == "C" then
      assert_refused("argument #1, upvalue 'f': a C function that no loaded module has", function()
        return f
      end)
    end
    package.loaded.transfer_held = { f = f }
    local err = failure(id, f)
    package.loaded.transfer_held = nil
    assert.matches("module 'transfer_held' not found", err.message)
    assert_refused("argument #2: a C function that no loaded module has", id, f)
  end)

  it("also where a module is a C function", function()
    package.loaded.transfer_c_module = coroutine.wrap(id)
    local err = failure(id, package.loaded.transfer_c_module)
    package.loaded.transfer_c_module = nil
    assert.matches("^the job cannot be taken: module 'transfer_c_module' not found", err.message)
  end)
end)
