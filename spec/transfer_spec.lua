-- What crosses between VMs and what does not: as arguments, results, upvalues and errors of jobs.

-- luacheck: read globals setfenv loadstring newproxy

local scheduler = require("scheduler")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local crossing = require("spec.support.crossing")

local await, run = scheduler.await, scheduler.parallel.run
local pack = table.pack or function(...)
  return { n = select("#", ...), ... }
end
local unpack = table.unpack or unpack
local HAS_INTEGERS = math.type ~= nil
local HAS_ENV = _VERSION ~= "Lua 5.1"
local there, id, echo, failure = crossing.there, crossing.id, crossing.echo, crossing.failure
local refused, assert_refused = crossing.refused, crossing.assert_refused

describe("plain values cross", function()
  it("with nil, at the end and in between", function()
    assert.are.equal(0, select("#", echo()))
    assert.are.equal(1, select("#", echo(nil)))
    assert.are.same({ n = 5, nil, 1, nil, false, nil }, pack(echo(nil, 1, nil, false, nil)))
    assert.are.same({ 1, nil, 3, nil, nil, 6 }, (echo({ 1, nil, 3, nil, nil, 6 })))
  end)

  it("booleans", function()
    assert.is_true(echo(true))
    assert.is_false(echo(false))
  end)

  it("numbers, the largest and the smallest too", function()
    local numbers = {
      0, 1, -1, 0.5, -0.5, 0.1, math.pi, 255, 256, 2 ^ 31, -2 ^ 31, 2 ^ 32, 2 ^ 53, 2 ^ 53 - 1, -2 ^ 53, 2 ^ 63,
      -2 ^ 63, 2 ^ 64, 1e300, -1e300, 2 ^ -1074, 2 ^ 1023, math.huge, -math.huge,
    }
    for _, number in ipairs(numbers) do
      assert.are.equal(number, (echo(number)))
      assert.are.equal(number, (echo({ number }))[1])
    end
    assert.are.same(numbers, (echo(numbers)))
  end)

  it("NaN", function()
    local nan, list = echo(0 / 0, { 0 / 0 })
    assert.is_true(nan ~= nan)
    assert.is_true(list[1] ~= list[1])
  end)

  it("0 and -0, wherever they stand", function()
    local minus, plus = tonumber("-0.0"), tonumber("0.0")
    local function signs(first, second, list)
      return 1 / first, 1 / second, 1 / list[1], 1 / list.plus, 1 / minus, 1 / plus
    end
    local expected = { -math.huge, math.huge, -math.huge, math.huge, -math.huge, math.huge }
    assert.are.same(expected, { there(signs, minus, plus, { minus, plus = plus }) })
    local back = pack(echo(minus, plus, { minus, plus = plus }))
    assert.are.same(expected, { signs(unpack(back, 1, 3)) })
  end)

  if HAS_INTEGERS then
    it("integers and floats, kept apart", function()
      local large = math.tointeger(2 ^ 53) -- luacheck: ignore 143
      local integers = { 0, 1, -1, math.maxinteger, math.mininteger, large + 1, large - 1, -large - 1 }
      local floats = { 0.0, 1.0, -1.0, 2.0 ^ 53, 2.0 ^ 63 }
      for _, number in ipairs({ unpack(integers) }) do
        local back, list = echo(number, { number, [number] = number })
        for _, copy in ipairs({ back, list[1], list[number] }) do
          assert.are.equal(number, copy)
          assert.are.equal(math.type(number), math.type(copy))
        end
      end
      for _, number in ipairs(floats) do
        local back, list = echo(number, { number })
        assert.are.same({ "float", "float" }, { math.type(back), math.type(list[1]) })
        assert.are.equal(number, back)
      end
    end)
  end

  it("strings: any bytes, none, and those that look like something else", function()
    local bytes = {}
    for i = 0, 255 do
      bytes[#bytes + 1] = string.char(i)
    end
    local all = table.concat(bytes)
    for _, text in ipairs({ "", "\0", "a\0b", all, all:reverse(), "nil", "0", ("x"):rep(40), ("y"):rep(41) }) do
      assert.are.equal(text, (echo(text)))
      assert.are.equal(text, next((echo({ [text] = true }))))
    end
  end)

  it("strings of 64 MiB", function()
    memory.relaxed(function()
      local long = ("0123456789abcde\0"):rep(2 ^ 22)
      assert.are.equal(2 ^ 26, #long)
      assert.is_true(long == echo(long))
    end)
  end)

  it("thousands of them", function()
    local values, tables = {}, {}
    for i = 1, 5000 do
      values[i], tables[i] = i, { i }
    end
    assert.are.same(values, { echo(unpack(values)) })
    local back = { echo(unpack(tables)) }
    assert.are.equal(5000, #back)
    assert.are.same({ 4321 }, back[4321])
  end)
end)

describe("tables cross", function()
  it("with all that is in them, as copies", function()
    local value = { 1, 2, nil, 4, name = "x", [0.5] = true, [-1] = "negative", nested = { { {} } }, [2 ^ 53] = false }
    local back = echo(value)
    assert.are.same(value, back)
    assert.are_not.equal(value, back)
    assert.is_nil(next((echo({}))))
  end)

  it("with any keys", function()
    local key = { "a key" }
    local function named()
      return "a function"
    end
    local value = { [key] = 1, [named] = 2, [false] = 3, [true] = 4, [1.5] = 5, [math.huge] = 6, [""] = 7 }
    local back, key_back, named_back = echo(value, key, named)
    assert.are.equal(1, back[key_back])
    assert.are.same({ "a key" }, key_back)
    assert.are.equal(2, back[named_back])
    assert.are.equal("a function", named_back())
    assert.are.same({ 3, 4, 5, 6, 7 }, { back[false], back[true], back[1.5], back[math.huge], back[""] })
  end)

  it("with cycles and shared references", function()
    local cycle = { shared = {} }
    cycle.self, cycle.again = cycle, cycle.shared
    cycle[cycle] = cycle
    local back, other = echo(cycle, cycle.shared)
    assert.are.equal(back, back.self)
    assert.are.equal(back, back[back])
    assert.are.equal(back.shared, back.again)
    assert.are.equal(back.shared, other)
    assert.are_not.equal(back, other)
  end)

  it("that share references, dozens of them", function()
    local list = {}
    for i = 1, 100 do
      list[i] = { i, before = list[i - 1], first = list[1] }
    end
    local back = echo(list)
    for i = 2, 100 do
      assert.are.equal(i, back[i][1])
      assert.are.equal(back[i - 1], back[i].before)
      assert.are.equal(back[1], back[i].first)
    end
  end)

  it("nested a million deep", function()
    memory.relaxed(function()
      local deep
      for i = 1, 1e6 do
        deep = { i, deep }
      end
      local node, count = echo(deep), 0
      while node do
        assert(node[1] == 1e6 - count)
        node, count = node[2], count + 1
      end
      assert.are.equal(1e6, count)
    end)
  end)

  it("with a million entries", function()
    memory.relaxed(function()
      local list = {}
      for i = 1, 1e6 do
        list[i] = i
      end
      local back = echo(list)
      assert.are.equal(1e6, #back)
      for i = 1, 1e6 do
        assert(back[i] == i)
      end
    end)
  end)
end)

describe("metatables cross", function()
  it("with their functions", function()
    local mt = {
      __add = function(a, b)
        return a.n + b.n
      end,
      __call = function(self, n)
        return self.n * n
      end,
    }
    local object = setmetatable({ n = 20 }, mt)
    assert.are.same({ 40, 60 }, { there(function(o)
      return o + o, o(3)
    end, object) })
    local back = echo(object)
    assert.are.same({ 40, 60 }, { back + back, back(3) })
    assert.are_not.equal(mt, getmetatable(back))
  end)

  it("once for all that share them", function()
    local mt, objects = { name = "shared" }, {}
    for i = 1, 1000 do
      objects[i] = setmetatable({}, mt)
    end
    assert.is_true(there(function(list, alone)
      for i = 1, #list do
        if getmetatable(list[i]) ~= alone then return i end
      end
      return true
    end, objects, mt))
    local back = echo(objects)
    assert.are.equal("shared", getmetatable(back[1]).name)
    for i = 2, 1000 do
      assert.are.equal(getmetatable(back[1]), getmetatable(back[i]))
    end
  end)

  it("in chains of __index, and with themselves", function()
    local Animal = {}
    Animal.__index = Animal
    function Animal:speak()
      return self.name .. " says " .. self:sound()
    end
    local Dog = setmetatable({}, Animal)
    Dog.__index = Dog
    function Dog.sound()
      return "woof"
    end
    local rex = setmetatable({ name = "Rex" }, Dog)
    assert.are.equal("Rex says woof", (there(function(dog)
      return dog:speak()
    end, rex)))
    local back = echo(rex)
    assert.are.equal("Rex says woof", back:speak())
    assert.are.equal(getmetatable(back), getmetatable(back).__index)
    local own = {}
    setmetatable(own, own)
    back = echo(own)
    assert.are.equal(back, getmetatable(back))
  end)

  it("that are the table of globals, which is the worker's there", function()
    assert.is_true(there(function(object)
      return getmetatable(object) == _G
    end, setmetatable({}, _G)))
    assert.are.equal(_G, getmetatable((echo(setmetatable({}, _G)))))
  end)

  it("that are protected, and stay so", function()
    local back = echo(setmetatable({}, {
      __metatable = "hands off",
      __index = function()
        return "found"
      end,
    }))
    assert.are.equal("hands off", getmetatable(back))
    assert.are.equal("found", back.anything)
    assert.is_false(pcall(setmetatable, back, {}))
  end)

  it("without being asked: no metamethod is called on the way", function()
    local touched = 0
    local function touch()
      touched = touched + 1
    end
    local object = setmetatable({ 1 }, {
      __index = touch, __newindex = touch, __pairs = touch, __len = touch, __eq = touch, __name = "Object",
    })
    assert.are.same({ 0, 1 }, { there(function(o)
      return touched, rawget(o, 1)
    end, object) })
    assert.are.equal(0, touched)
  end)

  it("with __mode", function()
    assert.are.equal("kv", getmetatable((echo(setmetatable({}, { __mode = "kv" })))).__mode)
    local held = {}
    assert.are.same({ true, true }, { there(function(weak, strong)
      for _ = 1, 2 do
        collectgarbage()
      end
      return weak[1] == strong, weak[2] == nil
    end, setmetatable({ held, {} }, { __mode = "v" }), held) })
  end)

  if _VERSION ~= "Lua 5.1" then
    it("with __gc, which is called for each copy", function()
      local count = { n = 0 }
      local back = echo(setmetatable({}, {
        __gc = function(self)
          if self.count then self.count.n = self.count.n + 1 end
        end,
      }))
      back.count = count
      back = nil -- luacheck: ignore 311
      memory.collect()
      assert.are.equal(1, count.n)
    end)
  end
end)

describe("userdata cross", function()
  --- Calls `fn` with a userdata with this `__transfer`.
  local function with_userdata(transfer, fn)
    local value = newproxy and newproxy(true) or io.tmpfile()
    local mt = debug.getmetatable(value)
    mt.__transfer = transfer
    local ok, err = pcall(fn, value)
    mt.__transfer = nil
    if not ok then error(err, 0) end
  end

  it("where __transfer says how they are made anew: by a function and its arguments", function()
    with_userdata(function(self)
      return function(...)
        return { made = true, ... }
      end, type(self), nil, { "a table" }
    end, function(value)
      assert.are.same({ made = true, "userdata", nil, { "a table" } }, (echo(value)))
      assert.is_true(there(function(object, list)
        return object.made and list[1] == object and list[object] == "as a key"
      end, value, { value, [value] = "as a key" }))
    end)
  end)

  it("with -0 and nil among the arguments", function()
    with_userdata(function()
      return function(...)
        return { select("#", ...), 1 / (...) }
      end, tonumber("-0.0"), nil, nil
    end, function(value)
      assert.are.same({ 3, -math.huge }, (echo(value)))
    end)
  end)

  it("once in a message, and may turn into anything", function()
    local calls = 0
    with_userdata(function()
      calls = calls + 1
      return function()
        return "just a string"
      end
    end, function(value)
      local function f()
        return value
      end
      local text, other, fn = echo(value, { value, value }, f)
      assert.are.same({ "just a string", "just a string", "just a string" }, { text, other[1], other[2] })
      assert.are.equal("just a string", fn())
      assert.are.equal(1, calls)
    end)
  end)

  it("as userdata of the worker", function()
    with_userdata(function()
      return io.tmpfile
    end, function(value)
      assert.are.equal("userdata file", (there(function(file)
        local kind = type(file) .. " " .. io.type(file)
        file:close()
        return kind
      end, value)))
    end)
  end)

  it("made from other userdata", function()
    local left = 5
    with_userdata(function(self)
      left = left - 1
      if left == 0 then return function()
        return "bottom"
      end end
      return function(inner)
        return { inner }
      end, self
    end, function(value)
      assert.are.same({ { { { "bottom" } } } }, (echo(value)))
    end)
  end)

  it("but not made from themselves without end", function()
    with_userdata(function(self)
      return id, { self }
    end, function(value)
      assert_refused("argument #2[1]: userdata whose __transfer gives further ones without end", id, { value })
    end)
  end)

  it("but not where __transfer fails, waits, or returns no function", function()
    with_userdata(function()
      error("not now", 0)
    end, function(value)
      assert.matches("cannot transfer argument #2: its __transfer failed: not now$", refused(id, value))
    end)
    with_userdata(function()
      coroutine.yield()
    end, function(value)
      local message
      coroutine.wrap(function()
        message = refused(id, value)
      end)()
      assert.matches("cannot transfer argument #2: its __transfer failed: .*attempt to yield", message)
    end)
    for _, wrong in ipairs({ 1, "f", {} }) do
      with_userdata(function()
        return wrong
      end, function(value)
        assert_refused("argument #2: its __transfer returned no function", id, value)
      end)
    end
    with_userdata(function() end, function(value)
      assert_refused("argument #2.x: its __transfer returned no function", id, { x = value })
    end)
  end)

  it("but not where what __transfer returns cannot cross", function()
    with_userdata(function()
      return id, { list = { coroutine.create(id) } }
    end, function(value)
      assert_refused("argument #2.u: result #2.list[1] of its __transfer: thread", id, { u = value })
    end)
  end)

  it("and fail the job where they cannot be made anew", function()
    with_userdata(function()
      return error, "cannot be opened here", 0
    end, function(value)
      local err = failure(id, value)
      assert.are.equal("error", err.kind)
      assert.are.equal("the job cannot be taken: cannot be opened here", err.message)
    end)
  end)
end)

describe("errors of jobs cross", function()
  it("of all types", function()
    local function raise(value)
      error(value, 0)
    end
    for _, value in ipairs({ "text", 42, 0.5, true, false, { code = 7, list = { 1, { 2 } } } }) do
      assert.are.same(value, failure(raise, value).value)
    end
  end)

  it("with their metatables and the functions in these", function()
    local err = failure(function()
      error(setmetatable({ code = 7 }, {
        __tostring = function(self)
          return "code " .. self.code
        end,
      }))
    end)
    assert.are.equal("code 7", err.message)
    assert.are.equal(7, err.value.code)
    assert.are.equal("code 7", tostring(err.value))
  end)

  it("but for those that cannot: their words come", function()
    local err = failure(function()
      error(setmetatable({ coroutine.create(function() end) }, {
        __tostring = function()
          return "an object of the worker"
        end,
      }))
    end)
    assert.are.equal("an object of the worker", err.message)
    assert.is_nil(err.value)
  end)
end)

describe("what cannot cross is refused with its path and the reason", function()
  local co = coroutine.create(id)
  local cases = {
    { "userdata", "argument #2: userdata", io.stdout },
    { "coroutines", "argument #2: thread", co },
    { "in tables", "argument #2.handlers[3]: userdata", { handlers = { 1, 2, io.stdout } } },
    {
      "behind odd keys", 'argument #2["a b"][true][0.5][""]: thread',
      { ["a b"] = { [true] = { [0.5] = { [""] = co } } } },
    },
    { "behind keys that are tables", "argument #2[a table].x: thread", { [{}] = { x = co } } },
    { "as keys", "argument #2, a key: userdata", { [io.stdout] = 1 } },
    { "in keys", "argument #2.t, a key[1]: thread", { t = { [{ co }] = 1 } } },
    {
      "as metatables' fields", "argument #2.o, its metatable.__index: thread",
      { o = setmetatable({}, { __index = co }) },
    },
    { "behind long keys", 'argument #2["1' .. ("k"):rep(39) .. '..."]: thread', { ["1" .. ("k"):rep(1e5)] = co } },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      local message = refused(id, case[3])
      assert.are.equal("cannot transfer " .. case[2], message:match("cannot transfer.*"))
      assert.matches("transfer_spec%.lua:%d+: cannot", select(2, pcall(function()
        run(id, case[3])
      end)))
    end)
  end

  it("in upvalues", function()
    local sock = { file = io.stdout }
    local function inner()
      return sock
    end
    assert_refused("argument #2[1], upvalue 'sock'.file: userdata", id, { inner })
    assert_refused("argument #1, upvalue 'inner', upvalue 'sock'.file: userdata", function()
      return inner()
    end)
    local shared = { handlers = { 1, 2, function()
      return sock.file, inner
    end } }
    assert_refused("argument #2.handlers[3], upvalue 'sock'.file: userdata", id, shared)
  end)

  it("far inside: the path is shortened", function()
    local deep = { co }
    for _ = 1, 1e5 do
      deep = { next = deep }
    end
    assert.are.equal("cannot transfer argument #3" .. (".next"):rep(12) .. "...: thread",
      refused(id, 1, deep):match("cannot transfer.*"))
  end)

  it("in results, which fails the job", function()
    local err = failure(function()
      return 1, { out = io.stdout }
    end)
    assert.are.equal("error", err.kind)
    assert.are.equal("cannot transfer result #2.out: userdata", err.message)
  end)

  it("and what is no function is a bad argument", function()
    for _, value in ipairs({ 1, "print", {} }) do
      assert.matches("bad argument #1 to 'run' %(function expected, got " .. type(value), refused(value))
    end
    assert.matches("transfer_spec%.lua:%d+: bad argument", select(2, pcall(function()
      run(nil)
    end)))
  end)

  it("and the next job finds all as it was", function()
    for _ = 1, 100 do
      refused(id, { {}, co })
      assert.are.same({ { 1 }, n = 1 }, pack(echo({ 1 })))
    end
  end)
end)

describe("in a sandbox", function()
  it("without debug library plain data and C functions cross, and Lua functions and userdata do not", function()
    local result = child.run({ "-e", [[
      debug = nil
      local scheduler = require("scheduler")
      local run, await = scheduler.parallel.run, scheduler.await
      print(await(run(string.format, "%s", "c")))
      print(await(run(select, 2, 1, setmetatable({ x = 1 }, { y = 2 }))).x)
      print((select(2, pcall(run, function() end)):match("cannot.*")))
      print((select(2, pcall(run, print, io.stdout)):match("cannot.*")))
      if not _ENV then return end -- here chunks have no upvalues
      print((select(2, pcall(await, run(load, "return x"))).message))
    ]] })
    assert.are.equal(0, result.code, result.err)
    assert.are.equal(table.concat({
      "c", "1",
      "cannot transfer argument #1: a function, and the debug library, which functions are taken apart with, "
        .. "is not there",
      "cannot transfer argument #2: userdata",
      HAS_ENV and "the outcome of the job cannot be taken: the debug library is not there\n" or "",
    }, "\n"), result.out)
  end)

  it("without package library functions cross, and modules as tables of functions do not", function()
    local result = child.run({ "-e", [[
      local scheduler = require("scheduler")
      local run, await = scheduler.parallel.run, scheduler.await
      package, require = nil, nil
      local floor = math.floor
      print(await(run(function() return floor(1.5) end)))
    ]] })
    assert.are.equal("1\n", result.out, result.err)
    result = child.run({ "-e", [[
      local open = require
      local scheduler
      do
        local kept = package
        package, require = nil, nil
        scheduler = open("scheduler")
        package = kept
      end
      local run, await = scheduler.parallel.run, scheduler.await
      local math = math
      print(await(run(function(x) return x.y end, { y = "crossed" })))
      print((select(2, pcall(run, function() return math.floor end)):match("a C function.*")))
    ]] })
    assert.are.equal("crossed\na C function that no loaded module has\n", result.out, result.err)
  end)
end)

describe("what the module itself gives", function()
  it("crosses by its name, there and back", function()
    local task, wait, Promise, clear = scheduler.task, scheduler.task.wait, scheduler.Promise, scheduler.clearTimeout
    local same, results = await(run(function(list)
      local inner = require("scheduler")
      local same = task == inner.task and wait == inner.task.wait and Promise == inner.Promise
      return same and clear == inner.clearTimeout and list[1] == inner.await, { inner.task.spawn, inner.run }
    end, { await }))
    assert.is_true(same)
    assert.are.equal(task.spawn, results[1])
    assert.are.equal(scheduler.run, results[2])
  end)

  it("works in a job as an upvalue", function()
    local wait, Promise = scheduler.task.wait, scheduler.Promise
    local sum = await(run(function(n)
      wait()
      return n + await(Promise.resolve(1))
    end, 1))
    assert.are.equal(2, sum)
  end)
end)
