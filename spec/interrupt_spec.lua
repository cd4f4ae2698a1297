local scheduler = require("scheduler")
local child = require("spec.support.child")

local await = scheduler.await
local pool = scheduler.parallel.pool({ size = 2 })

local function run(...)
  return pool:run(...)
end

local has_posix = pcall(require, "posix.signal")
local has_close = rawget(coroutine, "close") ~= nil

-- Compiled loops of LuaJIT cannot be interrupted, so what computes here is not compiled.
local function interpreted()
  if jit then
    jit.off()
    jit.flush()
  end
end

--- Waits, without the loop, until `condition` holds.
local function wait_for(condition)
  local deadline = os.time() + 20
  while not condition() do
    assert.is_true(os.time() < deadline, "it has not happened")
  end
end

-- What jobs tell: a job adds 1 when it begins.
local begun = scheduler.shared.atomic(0)

--- Starts so many jobs of `work`, lets them begin, cancels them, and looks whether the pool is still of use.
local function cancel_running(count, work)
  local before = begun:get()
  local jobs = {}
  for i = 1, count do
    jobs[i] = run(function(prepare, ...)
      prepare()
      return (...)(select(2, ...))
    end, interpreted, work, begun)
  end
  wait_for(function()
    return begun:get() == before + count
  end)
  for _, job in ipairs(jobs) do
    job:cancel()
    assert.are.equal("Cancelled", job:getStatus())
  end
end

--- Whether no worker goes on with a job that was cancelled. The pool would be of use all the same: others take the
--- places of such workers.
local function all_workers_are_free()
  local stats = pool:stats()
  return stats.workers == stats.idle
end

local function is_stopped(work)
  cancel_running(2, work)
  wait_for(all_workers_are_free)
  assert.are.equal("of use", await(run(function()
    return "of use"
  end)))
end

describe("cancelling a job that computes", function()
  it("ends an empty loop", function()
    is_stopped(function(started)
      started:add(1)
      while true do
      end
    end)
  end)

  it("ends a loop that catches every error", function()
    is_stopped(function(started)
      started:add(1)
      while true do
        pcall(function()
          while true do
          end
        end)
      end
    end)
  end)

  it("ends a loop that catches every error at each of many levels", function()
    is_stopped(function(started)
      started:add(1)
      local function level(n)
        while true do
          if n > 0 then pcall(level, n - 1) end
        end
      end
      level(50)
    end)
  end)

  it("ends a loop in coroutines that were resumed", function()
    is_stopped(function(started)
      local function inside(depth)
        if depth == 0 then
          started:add(1)
          while true do
          end
        end
        while true do
          coroutine.resume(coroutine.create(inside), depth - 1)
        end
      end
      inside(5)
    end)
  end)

  it("ends a loop in coroutines that were wrapped", function()
    is_stopped(function(started)
      local function inside(depth)
        if depth == 0 then
          started:add(1)
          while true do
          end
        end
        while true do
          pcall(coroutine.wrap(inside), depth - 1)
        end
      end
      inside(5)
    end)
  end)

  it("ends a loop over a generator without an end", function()
    is_stopped(function(started)
      started:add(1)
      local generator = coroutine.wrap(function()
        while true do
          coroutine.yield(1)
        end
      end)
      for _ in generator do
      end
    end)
  end)

  it("ends a loop that goes on after its coroutine has failed", function()
    is_stopped(function(started)
      pcall(coroutine.wrap(function()
        error("on purpose")
      end))
      coroutine.resume(coroutine.create(function()
        error("on purpose")
      end))
      started:add(1)
      while true do
      end
    end)
  end)

  it("ends the building of strings", function()
    is_stopped(function(started)
      started:add(1)
      local text = ""
      while true do
        text = (text .. "x"):sub(-1000)
      end
    end)
  end)

  it("ends a deep recursion", function()
    is_stopped(function(started)
      started:add(1)
      local function deep(n)
        return n == 0 and 0 or 1 + deep(n - 1)
      end
      while true do
        deep(150)
      end
    end)
  end)

  it("ends a metamethod", function()
    is_stopped(function(started)
      local endless = setmetatable({}, {
        __index = function()
          started:add(1)
          while true do
          end
        end,
      })
      return endless.field
    end)
  end)

  it("ends a comparison in table.sort", function()
    is_stopped(function(started)
      started:add(1)
      while true do
        table.sort({ 1, 2, 3 }, function()
          while true do
          end
        end)
      end
    end)
  end)

  it("ends a replacement in string.gsub", function()
    is_stopped(function(started)
      started:add(1)
      while true do
        string.gsub("text", ".", function()
          while true do
          end
        end)
      end
    end)
  end)

  if has_close then
    it("ends the closing of a coroutine's variables", function()
      -- `<close>` is no syntax in the other versions.
      is_stopped(load([[
        local started = ...
        local co = coroutine.create(function()
          local variable <close> = setmetatable({}, { __close = function()
            started:add(1)
            while true do
            end
          end })
          coroutine.yield()
        end)
        coroutine.resume(co)
        coroutine.close(co)
      ]]))
    end)
  end

  it("ends a callback of a timer", function()
    is_stopped(function(started)
      local inner = require("scheduler")
      inner.on_error(function() end)
      inner.setTimeout(function()
        started:add(1)
        while true do
        end
      end, 0)
      inner.task.wait(0.001)
      while true do
      end
    end)
  end)

  it("does not wait for the end of the loop", function()
    for _ = 1, 5 do
      cancel_running(1, function(started)
        started:add(1)
        while true do
        end
      end)
      assert.are.equal("done", await(run(function()
        return "done"
      end)))
    end
  end)

  it("ends one that has not begun yet, whoever else of its worker is cancelled after it", function()
    local shared_pool = scheduler.parallel.pool({ size = 1, concurrency = 2 })
    local large = {}
    for i = 1, 200000 do
      large[i] = i
    end
    local before = begun:get()
    local waiting = shared_pool:run(function(started)
      started:add(1)
      require("scheduler").task.wait(1000)
    end, begun)
    wait_for(function()
      return begun:get() == before + 1
    end)
    -- It takes its worker a while to make these arguments.
    local computing = shared_pool:run(function(prepare)
      prepare()
      while true do
      end
    end, interpreted, large)
    wait_for(function()
      return shared_pool:stats().running == 2
    end)
    computing:cancel()
    waiting:cancel()
    shared_pool:close(0)
    wait_for(function()
      return shared_pool:stats().workers == 0
    end)
  end)

  it("leaves the next jobs alone", function()
    for _ = 1, 50 do
      local jobs = {}
      for i = 1, 4 do
        jobs[i] = run(function(prepare, n)
          prepare()
          local sum = 0
          for j = 1, n do
            sum = sum + j
          end
          return sum
        end, interpreted, 2000)
      end
      jobs[1]:cancel()
      jobs[3]:cancel()
      assert.are.equal(2001000, await(jobs[2]))
      assert.are.equal(2001000, await(jobs[4]))
      -- It has ended, just now or before.
      jobs[2]:cancel()
      assert.are.equal("Resolved", jobs[2]:getStatus())
    end
  end)

  it("leaves what a job has gone on with in a coroutine of its own to a later job", function()
    cancel_running(1, function(started)
      kept = coroutine.wrap(function() -- luacheck: ignore 111
        while true do
          coroutine.yield("of the job")
        end
      end)
      kept() -- luacheck: ignore 113
      started:add(1)
      while true do
      end
    end)
    for _ = 1, 20 do
      local result = await(run(function()
        for _ = 1, 5000 do
          if kept then kept() end -- luacheck: ignore 113
        end
        return kept and kept() or "of the job" -- luacheck: ignore 113
      end))
      assert.are.equal("of the job", result)
    end
  end)
end)

describe("the coroutines of a worker", function()
  --- What the functions of the module `coroutine` do, as one text.
  local function behaviour()
    local lines = {}
    local function note(...)
      local words = {}
      for i = 1, select("#", ...) do
        words[i] = tostring((select(i, ...))):gsub("0x%x+", "address"):gsub("^%s+", "")
      end
      lines[#lines + 1] = table.concat(words, " ")
    end
    local resume, wrap, create, yield = coroutine.resume, coroutine.wrap, coroutine.create, coroutine.yield
    local close, isyieldable = rawget(coroutine, "close"), rawget(coroutine, "isyieldable")
    local unpack = table.unpack or unpack
    local co = create(function(...)
      note("begins", select("#", ...), ...)
      note("goes on", yield(1, nil, 3, nil))
      return "the end", nil
    end)
    note(resume(co, 1, nil, nil))
    note(resume(co))
    note(resume(co))
    note(pcall(resume))
    note(pcall(resume, {}))
    note(pcall(resume, nil, 1))
    note(pcall(wrap))
    note(pcall(wrap, 1))
    note(pcall(wrap, print))
    note(resume(create(function()
      error("text")
    end)))
    note(resume(create(function()
      error({})
    end)) == false)
    note(pcall(wrap(function()
      error("text")
    end)))
    note(pcall(wrap(function()
      error("text", 0)
    end)))
    note(pcall(wrap(function()
      error(5, 0)
    end)))
    note(pcall(wrap(function()
      error(nil)
    end)))
    local function outer()
      wrap(function()
        local text = nil
        return text .. ""
      end)()
    end
    note(pcall(outer))
    local finished = wrap(function() end)
    finished()
    note(pcall(finished))
    local itself
    itself = create(function()
      return resume(itself)
    end)
    note(resume(itself))
    local first
    first = create(function()
      return resume(create(function()
        return resume(first)
      end))
    end)
    note(resume(first))
    local main_or_task = coroutine.running()
    note(main_or_task and resume(main_or_task))
    note(select("#", resume(create(function()
      return unpack({}, 1, 200)
    end))))
    note(select("#", resume(create(function(...)
      return select("#", ...), ...
    end), unpack({}, 1, 200))))
    note(pcall(function()
      return select("#", resume(create(function()
        local many = create(function()
          yield(unpack({}, 1, 5000))
        end)
        return resume(many)
      end)))
    end))
    local function nest(depth)
      if depth == 0 then return "bottom" end
      return wrap(nest)(depth - 1)
    end
    note(nest(100))
    local ok, message = pcall(nest, 1e5)
    note(ok, #tostring(message) > 0)
    note(isyieldable and wrap(isyieldable)())
    note(wrap(function()
      return select(2, coroutine.running())
    end)())
    note(wrap(function()
      return (debug.traceback("trace"):gsub("\n.*", ""))
    end)())
    local traced = create(function()
      yield()
    end)
    resume(traced)
    note((debug.traceback(traced)))
    note(wrap(function()
      -- Level 1 is this function, 2 what has called `resume`.
      local text = debug.traceback()
      return select(2, text:gsub("\n", "\n"))
    end)())
    if close then
      -- In Lua 5.5 the running coroutine may be closed, and that is the end of it.
      local closes_itself = _VERSION == "Lua 5.5"
      if not closes_itself then note(pcall(close)) end
      note(pcall(close, 1))
      note(close(create(print)))
      note(close(create(print), 1, 2))
      note(close(traced))
      note(close(traced))
      if not closes_itself then note(pcall(function()
        return close(coroutine.running())
      end)) end
      local closing = load([[
        local note, err = ...
        return function()
          local variable <close> = setmetatable({}, { __close = function(_, e)
            note("closed", e)
            if err then error(err, 0) end
          end })
          coroutine.yield()
          error("after")
        end
      ]])
      for _, err in ipairs({ false, "in close" }) do
        local failing = wrap(closing(note, err))
        failing()
        note(pcall(failing))
        note(pcall(failing))
        local suspended = create(closing(note, err))
        resume(suspended)
        note(close(suspended))
        local failed = create(closing(note, err))
        resume(failed)
        note(resume(failed))
        note(close(failed))
        note(close(failed))
      end
    end
    return table.concat(lines, "\n")
  end

  it("behave as those of the interpreter", function()
    local here
    -- On the main thread it would be another `coroutine.running`.
    scheduler.task.spawn(function()
      here = behaviour()
    end)
    assert.are.equal(here, await(run(behaviour)))
  end)

  it("cross between VMs by their names", function()
    local resume, wrap = await(run(function(resume, wrap)
      assert(resume == coroutine.resume and wrap == coroutine.wrap)
      return coroutine.resume, coroutine.wrap
    end, coroutine.resume, coroutine.wrap))
    assert.are.equal(coroutine.resume, resume)
    assert.are.equal(coroutine.wrap, wrap)
  end)
end)

describe("cancelling a job that waits", function()
  it("lets it clean up, and compute for that", function()
    local cleaned, before = scheduler.shared.atomic(0), begun:get()
    local job = run(function(started, done)
      local inner = require("scheduler")
      -- It fires when the job waits.
      inner.setTimeout(function()
        started:add(1)
      end)
      local _, err = inner.pcall(inner.task.wait, 100)
      local sum = 0
      for i = 1, 1e5 do
        sum = sum + i
      end
      done:set(err.kind == "cancelled" and 1 or 2)
    end, begun, cleaned)
    wait_for(function()
      return begun:get() > before
    end)
    job:cancel()
    wait_for(all_workers_are_free)
    assert.are.equal(1, cleaned:get())
  end)

  it("ends one that catches that, and computes without an end", function()
    is_stopped(function(started)
      local inner = require("scheduler")
      started:add(1)
      inner.pcall(inner.task.wait, 100)
      while true do
      end
    end)
  end)

  it("ends one that catches that over and over", function()
    is_stopped(function(started)
      local inner = require("scheduler")
      started:add(1)
      while true do
        inner.pcall(inner.task.wait, 0.001)
      end
    end)
  end)

  it("ends one whose timers and microtasks compute, and reports nothing", function()
    local result = child.script([[
      local pool = scheduler.parallel.pool({ size = 1 })
      local begun = scheduler.shared.atomic(0)
      for _, queue in ipairs({ "setTimeout", "queueMicrotask" }) do
        local before = begun:get()
        local job = pool:run(function(started, name)
          local inner = require("scheduler")
          inner[name](function()
            if jit then jit.off() jit.flush() end
            started:add(1)
            while true do
            end
          end)
          inner.task.wait(1000)
        end, begun, queue)
        while begun:get() == before do end
        job:cancel()
        while pool:stats().workers > 0 do end
      end
      print("ended")
    ]])
    assert.are.same({ code = 0, out = "ended\n", err = "" }, result)
  end)
end)

describe("the signal that interrupts", function()
  --- Runs a script with a function `cancel_one`, which cancels a job that computes and returns when that has stopped.
  local function script(source, ...)
    return child.script([[
      local begun = scheduler.shared.atomic(0)
      local function cancel_one()
        local before, pool = begun:get(), scheduler.parallel.pool({ size = 1 })
        local job = pool:run(function(started)
          if jit then jit.off() jit.flush() end
          started:add(1)
          while true do
          end
        end, begun)
        while begun:get() == before do
        end
        job:cancel()
        while pool:stats().workers > 0 do
        end
      end
    ]] .. source, ...)
  end

  if has_posix then
    it("leaves a handler of the host's in place, and lets it have the host's signals alone", function()
      local result = script([[
        local signal, unistd = require("posix.signal"), require("posix.unistd")
        local urgent, interrupts = 0, 0
        signal.signal(signal.SIGURG, function() urgent = urgent + 1 end)
        signal.signal(signal.SIGINT, function() interrupts = interrupts + 1 end)
        local function raise(number)
          signal.kill(unistd.getpid(), number)
          for i = 1, 1000 do end
        end
        raise(signal.SIGURG)
        for i = 1, 20 do cancel_one() end
        print(urgent)
        raise(signal.SIGURG)
        raise(signal.SIGINT)
        print(urgent, interrupts)
        cancel_one()
        raise(signal.SIGURG)
        print(urgent)
      ]])
      assert.are.same({ code = 0, out = "1\n2\t1\n3\n", err = "" }, result)
    end)

    it("goes nowhere when the host has replaced our handler", function()
      local result = script([[
        local signal = require("posix.signal")
        cancel_one()
        local urgent = 0
        signal.signal(signal.SIGURG, function() urgent = urgent + 1 end)
        local job = scheduler.parallel.run(function(started)
          started:add(1)
          while true do
          end
        end, begun)
        while begun:get() < 2 do end
        job:cancel()
        for i = 1, 1e6 do end
        print(urgent)
        os.exit(0)
      ]])
      assert.are.same({ code = 0, out = "0\n", err = "" }, result)
    end)
  end

  it("does not end a program that leaves at once", function()
    local result = script([[
      cancel_one()
      for i = 1, 10 do
        scheduler.parallel.run(function(started)
          started:add(1)
          while true do
          end
        end, begun):cancel()
      end
    ]])
    assert.are.same({ code = 0, out = "", err = "" }, result)
  end)

  it("finds jobs at any point of what they do", function()
    local seed = tonumber(os.getenv("INTERRUPT_SEED")) or os.time()
    local count = tonumber(os.getenv("INTERRUPT_CANCELS")) or 1000
    local result = script([[
      local seed, count = tonumber(arg[1]), tonumber(arg[2])
      math.randomseed(seed)
      local ended = scheduler.shared.atomic(0)
      local function work(started, rounds, n)
        if jit then jit.off() end
        started:add(1)
        local tables, text = {}, ""
        local function deep(level)
          if level == 0 then return {} end
          return { deep(level - 1) }
        end
        for i = 1, rounds do
          local generator = coroutine.wrap(function()
            for j = 1, 10 do
              coroutine.yield(deep(j))
            end
            error("on purpose")
          end)
          pcall(function()
            for value in generator do
              tables[i % 100] = value
            end
          end)
          text = (text .. tostring(i)):sub(-200)
          table.sort({ 3, 1, 2 }, function(a, b) return a < b end)
          coroutine.resume(coroutine.create(function() return string.gsub(text, "%d", function() return "x" end) end))
          if i % 50 == 0 then collectgarbage("step") end
        end
        return n
      end
      local done = 0
      for i = 1, count do
        local before = begun:get()
        local job = scheduler.parallel.run(work, begun, math.random(0, 1) == 0 and 1e9 or math.random(30), i)
        -- Some before they begin, most where they are.
        while i % 10 > 0 and begun:get() == before do end
        for _ = 1, math.random(0, 5000) do end
        job:cancel()
        if i % 20 == 0 then
          assert(scheduler.await(scheduler.parallel.run(work, begun, 5, i)) == i)
          done = done + 1
        end
      end
      print(done)
    ]], tostring(seed), tostring(count))
    local wanted = { code = 0, out = math.floor(count / 20) .. "\n", err = "" }
    assert.are.same(wanted, result, "seed " .. seed)
  end)
end)
