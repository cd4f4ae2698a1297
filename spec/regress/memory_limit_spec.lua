-- The memory limit of workers: no job that passes it takes the process along, whatever it was at; the next job runs.
--
-- LuaJIT crashes where memory is refused in the midst of an instruction, or while it compiles. There a job is stopped
-- between two instructions instead; see `src/vm/brake.rs`.

local child = require("spec.support.child")

local function works(source)
  local result = child.script(source .. "io.write('works')")
  assert.are.equal("works", result.out, result.err)
  assert.are.equal("", result.err)
  assert.are.equal(0, result.code)
end

-- In what LuaJIT has compiled the error may come late, after the `pcall` that was to catch it; and in 5.1 there is one
-- until the collector comes round, which is not asked before an allocation fails.
local POOL = [[
  local pool = scheduler.parallel.pool({ size = 1, memory_limit = 8 * 2 ^ 20 })
  local function goes_on(expected, ...)
    local ok, result = pool:run(...):await()
    local is_late = _VERSION == "Lua 5.1" and not ok and result.kind == "memory"
    assert(ok and result == expected or is_late, tostring(result))
    assert(pool:run(function() return 7 end):expect() == 7)
  end
]]

describe("a job that has used up its memory", function()
  it("may catch that, and call what is compiled only then", function()
    works(POOL .. [[
      local function job(seed)
        local load = loadstring or load
        if jit then jit.opt.start("hotloop=2", "hotexit=2") end
        local functions = {}
        for i = 1, 400 do
          local lines = { "local out = ... local a = 0 for i = 1, 12 do" }
          for j = 1, (i * 7 + seed) % 30 do
            lines[#lines + 1] = ("local v%d = i %% %d if v%d > %d then a = a + v%d * %d.5 end")
              :format(j, j % 9 + 2, j, j % 4, j, i + j)
          end
          lines[#lines + 1] = "out() end return a"
          functions[i] = assert(load(table.concat(lines, "\n")))
        end
        local full, n, i, failed = {}, 0, 0, 0
        for k = 1, 2 ^ 17 do full[k] = false end
        local function fill()
          while true do
            full[n + 1] = ("x"):rep(20) .. n
            n = n + 1
          end
        end
        local function step()
          i = i + 1
          if i % 3 == 0 then
            for _ = 1, i do full[n] = nil n = n - 1 end
          end
          functions[i](os.clock)
          if i % 50 == 0 then fill() end
        end
        local _, err = pcall(fill)
        if err ~= "not enough memory" then return err end
        while i < #functions do
          if not pcall(step) then failed = failed + 1 end
        end
        full = nil
        return n > 1000 and failed >= 8
      end
      for seed = 1, 4 do goes_on(true, job, seed) end
    ]])
  end)

  it("may have called functions in functions to that point, and had anything grow", function()
    works(POOL .. [[
      local function job(which)
        local hungry = ({
          function() local s = "xxx" while true do s = s .. s end end,
          function() local s = "" for i = 1, 1e8 do s = s .. i .. s end end,
          function() local t = {} for i = 1, 1e8 do t[i] = i end end,
          function() local t = {} for i = 1, 1e8 do t[i .. ""] = i end end,
          function() local t = {} for i = 1, 1e8 do t[i * 1000] = i end end,
          function() local t = {} for i = 1, 1e8 do t[#t + 1] = { 1, 2, i } end end,
          function() local t = {} for i = 1, 1e8 do t = { t, ("x"):rep(2 ^ 16) .. i } end end,
        })[which]
        local function deep(n, a, b, c)
          if n == 0 then return (hungry()) end
          local x, y, z = a, b, c
          return (deep(n - 1, x, y, z))
        end
        local failed = 0
        for n = 1, 4 do
          if not pcall(deep, n, 1, 2, 3) then failed = failed + 1 end
          if not pcall(coroutine.wrap(deep), n, 1, 2, 3) then failed = failed + 1 end
        end
        return failed
      end
      for which = 1, 7 do goes_on(8, job, which) end
    ]])
  end)

  it("has failed, also where all was taken by a function in C", function()
    works(POOL .. [[
      local function fails(...)
        local ok, err = pool:run(...):await()
        assert(not ok and err.kind == "memory", tostring(err))
        assert(pool:run(function() return 7 end):expect() == 7)
      end
      fails(string.rep, "x", 2 ^ 24)
      fails(string.rep, "x", 2 ^ 28)
      fails(function() return ("x"):rep(2 ^ 24) end)
      fails(function(s) return s .. s end, ("x"):rep(5 * 2 ^ 20))
      local ok, err = pool:map({ 1, 2 ^ 24, 3 }, function(n) return ("x"):rep(n) end):await()
      assert(not ok and err.kind == "memory", tostring(err))
      ok, err = pool:map({ 2 ^ 24 }, math.abs):await()
      assert(ok and err[1] == 2 ^ 24, tostring(err))
    ]])
  end)
end)

describe("a job that passes its limit", function()
  it("is not saved by finalizers that raise", function()
    works(POOL .. [[
      local function job()
        local proxy = newproxy
        for i = 1, 50 do
          local function finalize() error("finalizer " .. i) end
          if proxy then getmetatable(proxy(true)).__gc = finalize else setmetatable({}, { __gc = finalize }) end
        end
        local t = {}
        for i = 1, 1e8 do t[i] = { i } end
      end
      for _ = 1, 3 do
        local ok, err = pool:run(job):await()
        -- Before 5.4 an error of a finalizer is one of the code that it interrupts.
        local is_finalizers = _VERSION < "Lua 5.4" and tostring(err):find("finalizer %d")
        assert(not ok and (err.kind == "memory" or is_finalizers), tostring(err))
      end
      assert(pool:run(function() return 7 end):expect() == 7)
    ]])
  end)

  it("fails with the same kind in the pool's init", function()
    works([[
      local pool = scheduler.parallel.pool({ memory_limit = 4 * 2 ^ 20, init = function()
        local t = {}
        for i = 1, 1e8 do t[i] = { i } end
      end })
      local ok, err = pool:run(function() end):await()
      assert(not ok and err.kind == "memory", tostring(err))
    ]])
  end)
end)

describe("a job that makes garbage beyond the limit", function()
  it("ends well, and keeps its hook", function()
    works(POOL .. [[
      local count = pool:run(function()
        if jit then jit.off() end
        local count = 0
        debug.sethook(function() count = count + 1 end, "", 1000)
        for i = 1, 400 do local _ = ("x"):rep(2 ^ 20 + i) end
        local before = count
        for i = 1, 1e5 do end
        debug.sethook()
        return count - before
      end):expect()
      assert(count >= 90, count)
      assert(pool:run(function() local n = 0 for i = 1, 1e6 do n = n + #{ i } end return n end):expect() == 1e6)
    ]])
  end)
end)

describe("LuaJIT's compiler", function()
  local jit = rawget(_G, "jit")
  if not jit then return end
  local is_new = not jit.version:find("beta", 1, true)

  it("is on in a worker, but with a memory limit in versions that do not survive the refusal of memory", function()
    works([[
      local function is_on() return (jit.status()) end
      assert(scheduler.parallel.run(is_on):expect())
      assert(scheduler.parallel.pool({ memory_limit = 2 ^ 24 }):run(is_on):expect() == ]] .. tostring(is_new) .. [[)
      assert(scheduler.parallel.pool({ memory_limit = 2 ^ 24, init = jit.on }):run(is_on):expect())
    ]])
  end)
end)
