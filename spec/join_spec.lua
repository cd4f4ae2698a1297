local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task = scheduler.task
local advance, recorder = virtual.advance, virtual.recorder

local function ignore() end

local function line_here()
  return debug.getinfo(2, "l").currentline
end

local function counted(...)
  return { n = select("#", ...), ... }
end

--- Spawns a task that joins `co` and keeps what that gives: the results, or `failed` and the error.
local function joiner(co)
  local results = {}
  local joining = task.spawn(function()
    local function keep(ok, ...)
      if ok then
        results.results = counted(...)
      else
        results.failed, results.err = true, ...
      end
    end
    keep(scheduler.pcall(task.join, co))
  end)
  return results, joining
end

describe("join", function()
  virtual.setup(before_each, after_each)

  it("returns the results with their count, before and after the end", function()
    local expected = counted(1, nil, 3, nil)
    local co = task.spawn(function()
      task.wait(1)
      return 1, nil, 3, nil
    end)
    local before = joiner(co)
    assert.is_nil(before.results)
    advance(1000)
    assert.are.same(expected, before.results)
    for _ = 1, 2 do
      assert.are.same(expected, joiner(co).results)
      assert.are.same(expected, counted(task.join(co)))
    end
  end)

  it("returns nothing, nil and false as they are", function()
    for _, results in ipairs({ counted(), counted(nil), counted(false), counted(nil, nil) }) do
      local function give()
        return (table.unpack or unpack)(results, 1, results.n)
      end
      assert.are.same(results, counted(task.join(task.spawn(give))))
      local co = task.defer(give)
      local before = joiner(co)
      scheduler.poll()
      assert.are.same(results, before.results)
      assert.are.same(results, joiner(co).results)
    end
  end)

  it("returns as many results of a ready-made coroutine as it has", function()
    for _, results in ipairs({ counted(), counted(nil), counted(nil, nil) }) do
      for _, start in ipairs({ task.spawn, task.defer }) do
        local co = start(coroutine.create(function()
          return (table.unpack or unpack)(results, 1, results.n)
        end))
        scheduler.poll()
        assert.are.same(results, counted(task.join(co)))
      end
    end
  end)

  it("works for tasks made in each way, and for ready-made coroutines", function()
    local function give(...)
      task.wait()
      return ...
    end
    for _, co in ipairs({ task.spawn(give, 1, nil), task.defer(give, 1, nil), task.delay(0, give, 1, nil),
      task.spawn(coroutine.create(give), 1, nil), task.defer(coroutine.create(give), 1, nil),
      task.delay(0, coroutine.create(give), 1, nil) }) do
      local before = joiner(co)
      for _ = 1, 3 do
        scheduler.poll()
      end
      assert.are.same(counted(1, nil), before.results)
      assert.are.same(counted(1, nil), joiner(co).results)
    end
  end)

  it("wakes many, first in first out, in the same turn", function()
    local list, record = recorder()
    local co = task.delay(0.001, ignore)
    for i = 1, 1000 do
      task.spawn(function()
        task.join(co)
        record(i)
      end)
    end
    local immediate
    scheduler.setTimeout(function()
      scheduler.setImmediate(function()
        immediate = #list
      end)
    end, 1)
    advance(1)
    assert.are.equal(1000, immediate)
    for i = 1, 1000 do
      assert.are.equal(i, list[i])
    end
    assert.are.equal(0, scheduler.stats().tasks_waiting)
  end)

  it("goes along a chain of tasks", function()
    local co = task.delay(0.001, function()
      return 1
    end)
    for _ = 1, 100 do
      local before = co
      co = task.spawn(function()
        return task.join(before) + 1
      end)
    end
    advance(1)
    assert.are.equal(101, task.join(co))
  end)

  it("is not ended by what happens to another joiner", function()
    local co = task.delay(1, function()
      return "result"
    end)
    local first = joiner(co)
    local second = joiner(co)
    local _, cancelled = joiner(co)
    local early, resumed = joiner(co)
    local last = joiner(co)
    task.cancel(cancelled)
    coroutine.resume(resumed, "by hand")
    assert.are.same(counted("by hand"), early.results)
    advance(1000)
    for _, results in ipairs({ first, second, last }) do
      assert.are.same(counted("result"), results.results)
    end
    assert.are.same(counted("by hand"), early.results)
    assert.are.equal(0, scheduler.stats().tasks_waiting)
  end)

  it("is woken when the task that it waits for waits in a join of its own", function()
    local inner = task.delay(1, function()
      return "inner"
    end)
    local outer = task.spawn(function()
      return task.join(inner), "outer"
    end)
    local results = joiner(outer)
    advance(1000)
    assert.are.same(counted("inner", "outer"), results.results)
  end)

  it("by scheduler.await is the same", function()
    local co = task.spawn(function()
      return 1, nil
    end)
    assert.are.same(counted(1, nil), counted(scheduler.await(co)))
  end)

  it("refuses what is no coroutine", function()
    for _, value in ipairs({ 1, "co", {}, ignore, true }) do
      local line = line_here() + 1
      local ok, message = pcall(function() task.join(value) end)
      assert.is_false(ok)
      local expected = ("join_spec.lua:%d: bad argument #1 to 'join' (coroutine expected, got %s)")
      assert.is_truthy(message:find(expected:format(line, type(value)), 1, true), message)
    end
    assert.is_false(pcall(task.join))
  end)
end)

describe("join of a task that fails", function()
  virtual.setup(before_each, after_each)

  it("raises its error, whatever that is, before and after the end", function()
    for _, err in ipairs({ "text", 42, false, { code = 1 }, ignore, io.stdout, coroutine.create(ignore) }) do
      local errors = uncaught(function()
        local co = task.spawn(function()
          task.wait()
          error(err, 0)
        end)
        local one, two = joiner(co), joiner(co)
        scheduler.poll()
        local three = joiner(co)
        local four = joiner(co)
        for _, results in ipairs({ one, two, three, four }) do
          assert.is_true(results.failed)
          assert.are.equal(err, results.err)
        end
      end)
      assert.are.same({}, errors)
    end
  end)

  it("raises nil where the error is nil", function()
    local errors = uncaught(function()
      local co = task.defer(error, nil)
      local before = joiner(co)
      scheduler.poll()
      local after = joiner(co)
      for _, results in ipairs({ before, after }) do
        assert.is_true(results.failed)
        assert.are.equal(raised.none, results.err)
        assert.is_nil(results.results)
      end
    end)
    assert.are.same({}, errors)
  end)

  it("raises the error also where it was reported before anybody joined", function()
    local errors = uncaught(function()
      local co = task.spawn(error, "boom", 0)
      assert.are.equal("boom", joiner(co).err)
      assert.are.same({ false, "boom" }, { pcall(task.join, co) })
    end)
    assert.are.equal(1, #errors)
  end)

  it("reports it where every joiner has gone before", function()
    local errors = uncaught(function()
      local co = task.delay(1, error, "boom", 0)
      local _, first = joiner(co)
      local _, second = joiner(co)
      task.cancel(first)
      coroutine.resume(second)
      advance(1000)
    end)
    assert.are.equal(1, #errors)
    assert.are.equal("boom", errors[1].err)
  end)

  it("tells both places and tracebacks where the joiner fails of it", function()
    local line
    local failing_line = line_here() + 2
    local function fail()
      error("boom")
    end
    local errors = uncaught(function()
      local co = task.delay(0.001, fail)
      line = line_here() + 1
      task.spawn(function() task.join(co) end)
      advance(1)
    end)
    assert.are.equal(1, #errors)
    assert.matches("join_spec%.lua:%d+: boom$", errors[1].err)
    assert.matches("^a task spawned at .*join_spec%.lua:" .. line .. "$", errors[1].source)
    assert.matches("join_spec%.lua:" .. failing_line, errors[1].traceback)
    assert.matches("join_spec%.lua:" .. line, errors[1].traceback)
  end)
end)

describe("join of a cancelled task", function()
  virtual.setup(before_each, after_each)

  it("raises an error object that names it, before and after", function()
    local line = line_here() + 1
    local co = task.delay(1, ignore)
    task.name(co, "worker")
    local errors = uncaught(function()
      local before = joiner(co)
      task.cancel(co)
      scheduler.poll()
      local after = joiner(co)
      for _, results in ipairs({ before, after }) do
        assert.is_true(results.failed)
        assert.are.equal("cancelled", results.err.kind)
        assert.matches("task 'worker' spawned at .*join_spec%.lua:" .. line, results.err.message)
        assert.matches("was cancelled", tostring(results.err))
      end
    end)
    assert.are.same({}, errors)
  end)

  it("raises it as well where the coroutine was not of ours", function()
    local co = coroutine.create(ignore)
    local before = joiner(co)
    task.cancel(co)
    scheduler.poll()
    assert.are.equal("cancelled", before.err.kind)
    assert.are.equal("cancelled", joiner(co).err.kind)
  end)

  it("is reported for a joiner that does not handle it", function()
    local errors = uncaught(function()
      local co = task.delay(1, ignore)
      task.spawn(function() task.join(co) end)
      task.cancel(co)
      scheduler.poll()
    end)
    assert.are.equal(1, #errors)
    assert.are.equal("cancelled", errors[1].err.kind)
  end)
end)

describe("join of a task that other code resumes", function()
  virtual.setup(before_each, after_each)

  it("returns its results where it began as a task", function()
    local co = task.spawn(function()
      coroutine.yield()
      return "result"
    end)
    local results = joiner(co)
    coroutine.resume(co)
    scheduler.poll()
    assert.are.same(counted("result"), results.results)
    assert.are.same(counted("result"), joiner(co).results)
  end)

  it("to an error raises that it was lost", function()
    local errors = uncaught(function()
      for _, wait in ipairs({ coroutine.yield, task.wait, function() task.wait(1) end }) do
        local co = task.spawn(function()
          wait()
          error("boom", 0)
        end)
        local results = joiner(co)
        assert.are.same({ false, "boom" }, { coroutine.resume(co) })
        scheduler.poll()
        scheduler.poll()
        assert.is_true(results.failed)
        assert.are.equal("lost", results.err.kind)
        assert.matches("a task spawned at .*join_spec%.lua:%d+", tostring(results.err))
        assert.are.equal("lost", joiner(co).err.kind)
      end
    end)
    assert.are.same({}, errors)
  end)

  it("after that has failed unseen raises that it was lost", function()
    local co = task.spawn(function()
      coroutine.yield()
      error("boom", 0)
    end)
    coroutine.resume(co)
    assert.are.equal("lost", joiner(co).err.kind)
  end)

  it("by a timer only, later, still ends", function()
    local co = coroutine.create(function()
      coroutine.yield()
    end)
    local results = joiner(co)
    scheduler.setTimeout(coroutine.resume, 1, co)
    scheduler.setTimeout(coroutine.resume, 2, co)
    advance(5)
    assert.is_truthy(results.results or results.failed)
  end)
end)

describe("a join that could never end", function()
  virtual.setup(before_each, after_each)

  it("of oneself raises", function()
    local messages, record = recorder()
    local function join_oneself()
      record(select(2, scheduler.pcall(task.join, (coroutine.running()))))
    end
    task.spawn(join_oneself)
    local line = line_here() + 1
    local co = task.defer(join_oneself)
    task.name(task.defer(join_oneself), "lonely")
    scheduler.poll()
    assert.matches("would never end: a task.* waits for a task", messages[1])
    local place = "a task spawned at %S*join_spec%.lua:" .. line
    assert.matches("would never end: " .. place .. " waits for " .. place .. "$", messages[2])
    assert.matches("would never end: task 'lonely' spawned at .* waits for task 'lonely'", messages[3])
    assert.are.equal("done", task.status(co))
  end)

  it("of oneself raises inside of pcall and of a generator, too", function()
    local results, record = recorder()
    local co = task.spawn(function()
      local me = coroutine.running()
      task.wait()
      record(select(2, scheduler.pcall(task.join, me)))
      local generate = scheduler.coroutine.wrap(function()
        record(select(2, scheduler.pcall(task.join, me)))
      end)
      generate()
    end)
    scheduler.poll()
    task.cancel(co)
    assert.matches("would never end", results[1])
    assert.is_truthy(results[2], "the join in the generator hangs")
    assert.matches("would never end", results[2])
  end)

  it("of each other raises, with the names of all, and the others go on", function()
    for count = 2, 4 do
      local cos, message = {}, nil
      local errors = uncaught(function()
        for i = 1, count do
          cos[i] = task.defer(function()
            return task.join(cos[i % count + 1])
          end)
          task.name(cos[i], "task " .. i)
        end
        local results = joiner(cos[1])
        scheduler.poll()
        message = results.err
      end)
      assert.are.same({}, errors)
      assert.matches("would never end", message)
      for i = 1, count do
        assert.matches("task 'task " .. i .. "' spawned at .*join_spec%.lua:%d+", message)
      end
      assert.matches("'task " .. count .. "' .* waits for .*'task 1' .* waits for ", message)
    end
  end)

  it("is found through pcall and generators of the others", function()
    for _, through in ipairs({
      function(co)
        local ok, err = scheduler.pcall(task.join, co)
        if not ok then error(err, 0) end
      end,
      function(co)
        scheduler.coroutine.wrap(function() task.join(co) end)()
      end,
    }) do
      local one, two, results
      uncaught(function()
        one = task.defer(function()
          through(two)
        end)
        two = task.defer(function()
          task.join(one)
        end)
        results = joiner(two)
        scheduler.poll()
      end)
      assert.matches("would never end", results.err)
    end
  end)
end)

describe("join on the main thread", function()
  it("turns the loop until the task has ended", function()
    local co = task.delay(0.002, function()
      return 1, nil
    end)
    local later = scheduler.setTimeout(ignore, 100000)
    assert.are.same(counted(1, nil), counted(task.join(co)))
    scheduler.clearTimeout(later)
  end)

  it("raises the error of the task, which is not reported", function()
    local errors = uncaught(function()
      assert.are.same({ false, "boom" }, { pcall(task.join, task.delay(0.001, error, "boom", 0)) })
    end)
    assert.are.same({}, errors)
  end)

  it("raises when nothing is left that could end it", function()
    local co = task.spawn(coroutine.yield)
    local ok, message = pcall(task.join, co)
    assert.is_false(ok)
    assert.matches("nothing is left that could end this wait", message)
    assert.are.equal(0, scheduler.stats().tasks_waiting)
    task.cancel(co)
  end)
end)

describe("results", function()
  virtual.setup(before_each, after_each)

  --- Lets `make(i)` make coroutines that end, and drops them; then makes others until many have an address again that
  --- one of the former had. Calls `look(co)` for each of these.
  local function look_at_used_addresses(make, look)
    local count, used, reused = 2000, {}, 0
    local function fill()
      for i = 1, count do
        used[tostring(make(i))] = true
      end
    end
    fill()
    for _ = 1, 20 do
      memory.collect()
      local others = {}
      for i = 1, count do
        others[i] = coroutine.create(function() end)
      end
      for _, co in ipairs(others) do
        if used[tostring(co)] then
          reused = reused + 1
          look(co)
        end
      end
      if reused >= 100 then return end
      -- What is between two collections differs, and with it where memory is free.
      fill()
    end
    error("no address was used again")
  end

  --- The same, with the collector at its default pace: an aggressive one frees so soon that addresses differ.
  local function at_used_addresses(make, look)
    memory.relaxed(function()
      look_at_used_addresses(make, look)
    end)
  end

  it("are never those of a collected coroutine that had the same address", function()
    at_used_addresses(function(i)
      return task.spawn(function()
        return "result", i
      end)
    end, function(co)
      assert.are.equal("parked", task.status(co))
      task.spawn(co)
      assert.is_nil((task.join(co)))
    end)
  end)

  it("nor its failure, its cancellation or its name", function()
    local errors = uncaught(function()
      at_used_addresses(function(i)
        local co
        if i % 2 == 0 then
          co = task.spawn(error, "x")
        else
          co = task.spawn(coroutine.yield)
          task.cancel(co)
        end
        task.name(co, "former")
        return co
      end, function(co)
        assert.are.equal("parked", task.status(co))
        assert.is_nil(task.name(co))
        coroutine.resume(co)
        assert.are.equal("done", task.status(co))
        assert.are.equal(0, select("#", task.join(co)))
      end)
    end)
    assert.is_true(#errors > 0)
  end)

  it("nor who has waited for it", function()
    at_used_addresses(function()
      local co = task.spawn(coroutine.yield)
      local _, joining = joiner(co)
      task.cancel(joining)
      return co
    end, function(co)
      task.spawn(co)
      assert.are.equal("done", task.status(co))
    end)
  end)

  it("are kept no longer than the coroutine, also where they refer to it", function()
    assert.is_true(memory.is_released(function()
      local result = {}
      local co
      co = task.spawn(function()
        result.co = coroutine.running()
        return result
      end)
      return co, result
    end))
    local former = scheduler.on_error(ignore)
    local is_released = memory.is_released(function()
      local err = {}
      local co = task.spawn(function()
        err.co = coroutine.running()
        error(err)
      end)
      return co, err
    end)
    scheduler.on_error(former)
    assert.is_true(is_released)
  end)

  it("are there as long as the coroutine is", function()
    local co = task.spawn(function()
      return "result"
    end)
    memory.collect()
    assert.are.equal("result", task.join(co))
  end)
end)
