local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local attempt = require("spec.support.attempt")
local virtual = require("spec.support.virtual")
local raised = require("spec.support.raised")

local task, execute_tasks = scheduler.task, scheduler.execute_tasks
local advance, recorder = virtual.advance, virtual.recorder
local protected = scheduler.pcall

local function ignore() end

--- A function that waits and then returns the values that follow.
local function after(ms, ...)
  local values = { n = select("#", ...), ... }
  return function()
    task.wait(ms / 1000)
    return values[1], values[2]
  end
end

--- A function that waits and then raises a value.
local function failing_after(ms, value)
  return function()
    task.wait(ms / 1000)
    error(value, 0)
  end
end

--- So many tasks that each count those that run, and the highest count.
local function counting_tasks(count)
  local counter, tasks = { running = 0, most = 0 }, {}
  for i = 1, count do
    tasks[i] = function()
      counter.running = counter.running + 1
      counter.most = math.max(counter.most, counter.running)
      task.wait(i % 5 / 1000)
      counter.running = counter.running - 1
      return i
    end
  end
  return tasks, counter
end

describe("execute_tasks", function()
  virtual.setup(before_each, after_each)

  it("returns the first result of each task under its key", function()
    local table_key = {}
    local result = attempt.start(execute_tasks, {
      after(30, "one", "ignored"),
      after(10, "two"),
      name = after(20, false),
      [10.5] = after(0, 0),
      [-3] = ignore,
      [true] = after(5, "true"),
      [table_key] = after(1, "table"),
    }, 2)
    advance(100)
    assert.is_true(result.ok)
    assert.are.equal(1, result.n)
    assert.are.same({
      "one", "two", name = false, [10.5] = 0, [true] = "true", [table_key] = "table",
    }, result[1])
  end)

  it("passes no arguments to the tasks", function()
    local count
    attempt.start(execute_tasks, {
      function(...)
        count = select("#", ...)
      end,
    }, 1)
    assert.are.equal(0, count)
  end)

  it("never runs more than so many at a time, and as many as that", function()
    for _, limit in ipairs({ 1, 2, 7, 64 }) do
      local tasks, counter = counting_tasks(100)
      local result = attempt.start(execute_tasks, tasks, limit)
      advance(1000)
      assert.is_true(result.ok)
      assert.are.equal(limit, counter.most)
      assert.are.equal(0, counter.running)
      for i = 1, 100 do
        assert.are.equal(i, result[1][i])
      end
    end
  end)

  it("runs all at once when there is no limit, or one that is not reached", function()
    for _, limit in ipairs({ false, 100, 1000, math.huge }) do
      local tasks, counter = counting_tasks(100)
      local result = attempt.start(execute_tasks, tasks, limit or nil)
      advance(1000)
      assert.is_true(result.ok)
      assert.are.equal(100, counter.most)
    end
  end)

  it("starts a task as soon as there is room", function()
    local list, record = recorder()
    local start = scheduler.now()
    local tasks = {}
    for i, ms in ipairs({ 30, 10, 10, 10, 10 }) do
      tasks[i] = function()
        record({ i, virtual.since(start) })
        task.wait(ms / 1000)
      end
    end
    attempt.start(execute_tasks, tasks, 2)
    advance(100)
    assert.are.same({ { 1, 0 }, { 2, 0 }, { 3, 10 }, { 4, 20 }, { 5, 30 } }, list)
  end)

  it("starts the tasks in the order of their keys: numbers, then strings", function()
    for _, limit in ipairs({ 1, 3, false }) do
      local list, record = recorder()
      local tasks = {}
      for _, key in ipairs({ "b", 10, 3, "a", -1, 2.5, "10", "B", 1e10, 0, -math.huge }) do
        tasks[key] = function()
          record(key)
          task.wait(0.001)
        end
      end
      tasks[true] = function()
        record(true)
      end
      attempt.start(execute_tasks, tasks, limit or nil)
      advance(100)
      assert.are.same({ -math.huge, -1, 0, 2.5, 3, 10, 1e10, "10", "B", "a", "b", true }, list)
    end
  end)

  it("takes sparse tables", function()
    local result = attempt.start(execute_tasks, { [3] = after(1, "c"), [1] = after(1, "a"), [100] = after(1, "z") }, 2)
    advance(10)
    assert.are.same({ [1] = "a", [3] = "c", [100] = "z" }, result[1])
  end)

  it("of no tasks returns an empty table, at once", function()
    local result = attempt.start(execute_tasks, {}, 1)
    assert.are.same({}, result[1])
    result = attempt.start(execute_tasks, {}, 1, { errors = "collect", timeout = 1, progress = error })
    assert.are.same({ {}, {} }, { result[1], result[2] })
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)

  it("leaves the table of tasks as it was, and gives another one", function()
    local one = after(1, 1)
    local tasks = { one }
    local result = attempt.start(execute_tasks, tasks, 1)
    advance(1)
    assert.are.equal(one, tasks[1])
    assert.are_not.equal(tasks, result[1])
  end)

  it("takes callable tables", function()
    local result = attempt.start(execute_tasks, {
      setmetatable({}, {
        __call = function()
          return "called"
        end,
      }),
    }, 1)
    assert.are.same({ "called" }, result[1])
  end)

  it("works on the main thread", function()
    scheduler.clock.resume()
    local tasks, counter = counting_tasks(20)
    local results = execute_tasks(tasks, 4)
    assert.are.equal(20, #results)
    assert.are.equal(4, counter.most)
    local ok, err = pcall(execute_tasks, { a = failing_after(1, "failed") }, 1)
    assert.is_false(ok)
    assert.are.equal("a", err.key)
  end)

  it("works in a timer's callback", function()
    local results
    scheduler.setTimeout(function()
      results = execute_tasks({ after(1, "a"), after(1, "b") }, 1)
    end)
    advance(10)
    assert.are.same({ "a", "b" }, results)
  end)

  it("works in itself, each with its limit", function()
    local outer, inner, most_outer, most_inner = 0, 0, 0, 0
    local tasks = {}
    for i = 1, 6 do
      tasks[i] = function()
        outer = outer + 1
        most_outer = math.max(most_outer, outer)
        local nested = {}
        for j = 1, 9 do
          nested[j] = function()
            inner = inner + 1
            most_inner = math.max(most_inner, inner)
            task.wait(0.001)
            inner = inner - 1
            return i * j
          end
        end
        local results = execute_tasks(nested, 3)
        outer = outer - 1
        return results
      end
    end
    local result = attempt.start(execute_tasks, tasks, 2)
    advance(1000)
    assert.is_true(result.ok)
    assert.are.equal(2, most_outer)
    assert.are.equal(6, most_inner)
    assert.are.equal(54, result[1][6][9])
  end)

  it("waits on when the task that runs it is resumed by hand", function()
    local result = attempt.start(execute_tasks, { after(10, "a"), after(10, "b") }, 1)
    coroutine.resume(result.co, "by hand")
    advance(20)
    assert.are.same({ "a", "b" }, result[1])
  end)

  it("cancelled from outside cancels its tasks, and starts no more", function()
    for _, cancel in ipairs({ "task.cancel", "scope" }) do
      local list, record = recorder()
      local tasks = {}
      for i = 1, 5 do
        tasks[i] = function()
          local ok, err = protected(task.wait, 10)
          record(i .. " " .. (ok and "waited" or err.kind))
        end
      end
      if cancel == "scope" then
        attempt.start(scheduler.scope, function(scope)
          scope:spawn(execute_tasks, tasks, 2)
          scope:cancel()
        end)
      else
        task.cancel(task.spawn(execute_tasks, tasks, 2))
      end
      advance(20000)
      assert.are.same({ "1 cancelled", "2 cancelled" }, list)
    end
  end)

  it("runs a hundred thousand tasks with a limit of 64 in flat memory", function()
    local running, most, heaviest = 0, 0, 0
    local function work()
      running = running + 1
      if running > most then most = running end
      task.yield()
      running = running - 1
    end
    local tasks = {}
    for i = 1, 100000 do
      tasks[i] = work
    end
    local done = 0
    tasks[50000] = function()
      collectgarbage()
      collectgarbage()
      heaviest = math.max(heaviest, collectgarbage("count"))
      done = done + 1
    end
    tasks[99000] = tasks[50000]
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    local result
    memory.relaxed(function()
      result = attempt.start(execute_tasks, tasks, 64)
      advance(0)
    end)
    assert.is_true(result.ok)
    assert.are.equal(64, most)
    assert.are.equal(2, done)
    -- The list of keys takes 16 bytes a task, up to twice that while it grows; a coroutine would take a thousand.
    assert.is_true(heaviest - before < 8000, heaviest - before)
  end)
end)

describe("an error in execute_tasks", function()
  virtual.setup(before_each, after_each)

  it("cancels the rest, starts no more, and is raised with the key of the task", function()
    local list, record = recorder()
    local errors = attempt.reported(function()
      local tasks = { failing_after(5, "failed") }
      for i = 2, 5 do
        tasks[i] = function()
          local ok, err = protected(task.wait, 10)
          record(i .. " " .. (ok and "waited" or err.kind))
        end
      end
      local result = attempt.start(execute_tasks, tasks, 3)
      advance(5)
      assert.is_false(result.ok)
      assert.are.equal("task", result.err.kind)
      assert.are.equal(1, result.err.key)
      assert.are.equal("failed", result.err.value)
      assert.are.equal("task 1 failed: failed", result.err.message)
      assert.matches("task 1 failed: failed", tostring(result.err))
    end)
    assert.are.same({ "2 cancelled", "3 cancelled" }, list)
    assert.are.same({}, errors)
  end)

  it("is the same if that is asked for by its name", function()
    local result = attempt.start(execute_tasks, { failing_after(0, "failed") }, nil, { errors = "first" })
    advance(1)
    assert.is_false(result.ok)
    assert.are.equal("failed", result.err.value)
  end)

  it("names string keys in quotes, and keeps values of all types as they are", function()
    local result = attempt.start(execute_tasks, { compile = failing_after(1, "no such file") }, 1)
    advance(1)
    assert.are.equal("compile", result.err.key)
    assert.are.equal("task 'compile' failed: no such file", result.err.message)
    for _, value in ipairs({ 42, true, ignore, {}, io.stdout }) do
      result = attempt.start(execute_tasks, { failing_after(1, value) }, 1)
      advance(1)
      assert.are.equal(value, result.err.value)
    end
    result = attempt.start(execute_tasks, { error }, 1)
    assert.are.equal("task", result.err.kind)
    assert.are.equal(raised.none, result.err.value)
  end)

  it("has the traceback of the task", function()
    local result = attempt.start(execute_tasks, {
      function()
        local function culprit()
          error("failed")
        end
        culprit()
      end,
    }, 1)
    assert.matches("execute_tasks_spec%.lua", result.err.traceback)
    assert.matches("culprit", result.err.traceback)
  end)

  it("waits for the clean-up of the others before it is raised, and has later errors attached", function()
    local start, ended = scheduler.now(), nil
    local result = attempt.start(function()
      local _, err = protected(execute_tasks, {
        first = failing_after(5, "failed"),
        second = function()
          protected(task.wait, 10)
          scheduler.shield(task.wait, 0.1)
          error("clean-up failed", 0)
        end,
      }, 2)
      ended = virtual.since(start)
      return err
    end)
    advance(1000)
    assert.are.equal(105, ended)
    local err = result[1]
    assert.are.equal("first", err.key)
    assert.are.equal(1, #err.later)
    assert.are.equal("second", err.later[1].key)
    assert.are.equal("clean-up failed", err.later[1].value)
  end)

  it("at once, before the others have started, keeps them from starting", function()
    local started, record = recorder()
    local result = attempt.start(execute_tasks, {
      function()
        record(1)
        error("failed", 0)
      end,
      function()
        record(2)
        task.wait(1)
      end,
      function()
        record(3)
      end,
    }, 1)
    advance(1000)
    assert.are.equal(1, result.err.key)
    assert.are.equal(1, started[1])
    assert.is_nil(started[3])
  end)

  it("is raised for a task that somebody cancels", function()
    local first
    local result = attempt.start(execute_tasks, {
      function()
        first = coroutine.running()
        task.wait(10)
      end,
      after(20, "x"),
    }, 2)
    task.cancel(first)
    advance(0)
    assert.is_false(result.ok)
    assert.are.equal(1, result.err.key)
    assert.are.equal("cancelled", result.err.value.kind)
  end)

  it("inside of another is raised with both keys", function()
    local result = attempt.start(execute_tasks, {
      outer = function()
        return execute_tasks({ inner = failing_after(1, "failed") }, 1)
      end,
      sibling = after(1000, 1),
    }, 2)
    advance(1)
    assert.are.equal("outer", result.err.key)
    assert.are.equal("inner", result.err.value.key)
    assert.are.equal("failed", result.err.value.value)
  end)
end)

describe("execute_tasks that collects errors", function()
  virtual.setup(before_each, after_each)

  it("runs all, and returns the results and the errors under their keys", function()
    local errors = attempt.reported(function()
      local value = {}
      local result = attempt.start(execute_tasks, {
        after(10, "one"),
        failing_after(5, "failed"),
        after(1, "three"),
        name = failing_after(1, value),
        late = after(50, "late"),
      }, 2, { errors = "collect" })
      advance(100)
      assert.is_true(result.ok)
      assert.are.equal(2, result.n)
      assert.are.same({ "one", [3] = "three", late = "late" }, result[1])
      assert.are.equal("failed", result[2][2])
      assert.are.equal(value, result[2].name)
    end)
    assert.are.same({}, errors)
  end)

  it("gives the cancellation of a task that somebody cancels", function()
    local first
    local result = attempt.start(execute_tasks, {
      function()
        first = coroutine.running()
        task.wait(10)
      end,
      after(20, "x"),
    }, 2, { errors = "collect" })
    task.cancel(first)
    advance(20)
    assert.are.equal("cancelled", result[2][1].kind)
    assert.are.same({ [2] = "x" }, result[1])
  end)

  it("keeps its limit when tasks fail", function()
    local running, most = 0, 0
    local tasks = {}
    for i = 1, 50 do
      tasks[i] = function()
        running = running + 1
        most = math.max(most, running)
        if i % 3 > 0 then task.wait(0.001) end
        running = running - 1
        if i % 2 == 0 then error(i, 0) end
        return i
      end
    end
    local result = attempt.start(execute_tasks, tasks, 4, { errors = "collect" })
    advance(1000)
    assert.are.equal(4, most)
    for i = 1, 50 do
      assert.are.equal(i, result[i % 2 == 0 and 2 or 1][i])
    end
  end)
end)

describe("the timeout of execute_tasks", function()
  virtual.setup(before_each, after_each)

  it("cancels the tasks, waits for their clean-up, and raises an error object", function()
    for _, errors in ipairs({ "collect", false }) do
      local list, record = recorder()
      local tasks = {}
      for i = 1, 5 do
        tasks[i] = function()
          local _, err = protected(task.wait, 10)
          record(i .. " " .. err.reason)
          scheduler.shield(task.wait, 0.1)
          error(err, 0)
        end
      end
      local start, ended = scheduler.now(), nil
      local result = attempt.start(function()
        local ok, err = protected(execute_tasks, tasks, 2, { timeout = 0.5, errors = errors or nil })
        ended = virtual.since(start)
        return ok, err
      end)
      advance(1000)
      assert.are.same({ "1 timeout", "2 timeout" }, list)
      assert.is_false(result[1])
      assert.are.equal("timeout", result[2].kind)
      assert.matches("execute_tasks timed out after 0.5 s", result[2].message)
      assert.are.equal(600, ended)
    end
  end)

  it("is forgotten when all end in time", function()
    local result = attempt.start(execute_tasks, { after(10, "x") }, 1, { timeout = 0.5 })
    advance(10)
    assert.are.same({ "x" }, result[1])
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)
end)

describe("the progress of execute_tasks", function()
  virtual.setup(before_each, after_each)

  it("is told once for each task that has ended, up to the total", function()
    local expected, list, record = {}, recorder()
    local tasks = counting_tasks(20)
    local result = attempt.start(execute_tasks, tasks, 3, {
      progress = function(...)
        record({ ... })
      end,
    })
    advance(1000)
    assert.is_true(result.ok)
    for i = 1, 20 do
      expected[i] = { i, 20 }
    end
    assert.are.same(expected, list)
  end)

  it("is told while the others run", function()
    local list, record = recorder()
    local start = scheduler.now()
    attempt.start(execute_tasks, { after(10), after(20), after(30) }, nil, {
      progress = function(done)
        record({ done, virtual.since(start) })
      end,
    })
    advance(20)
    assert.are.same({ { 1, 10 }, { 2, 20 } }, list)
    advance(10)
    assert.are.same({ { 1, 10 }, { 2, 20 }, { 3, 30 } }, list)
  end)

  it("counts tasks that fail, when errors are collected", function()
    local list, record = recorder()
    local tasks = { after(1), failing_after(2, "x"), error }
    attempt.start(execute_tasks, tasks, 1, { errors = "collect", progress = record })
    advance(100)
    assert.are.same({ 1, 2, 3 }, list)
  end)

  it("that raises cancels the tasks, and is raised as it is", function()
    local failure, kind = {}, nil
    local result = attempt.start(execute_tasks, {
      after(1),
      function()
        local ok, err = protected(task.wait, 10)
        kind = not ok and err.kind
      end,
    }, nil, {
      progress = function()
        error(failure, 0)
      end,
    })
    advance(1)
    assert.are.equal("cancelled", kind)
    assert.are.equal(failure, result.err)
  end)

  it("may wait, and holds nothing up but what it tells, and the next starts", function()
    local list, record = recorder()
    local result = attempt.start(execute_tasks, { after(1), after(2), after(3) }, nil, {
      progress = function(done)
        task.wait(0.01)
        record(done)
      end,
    })
    advance(100)
    assert.are.same({ 1, 2, 3 }, list)
    assert.is_true(result.ok)
  end)
end)

describe("bad input to execute_tasks", function()
  virtual.setup(before_each, after_each)

  it("is refused with a message, and starts nothing", function()
    local started = false
    local function start()
      started = true
    end
    local tasks = { start }
    for _, case in ipairs({
      { "#1 to 'execute_tasks' (table expected, got nil)", nil, 1 },
      { "#1 to 'execute_tasks' (table expected, got number)", 5, 1 },
      { "#1 to 'execute_tasks' (table expected, got function)", start, 1 },
      { "#1 to 'execute_tasks' (function expected at key 2, got number)", { start, 5 }, 1 },
      { "#1 to 'execute_tasks' (function expected at key 'name', got string)", { start, name = "x" }, 1 },
      { "#1 to 'execute_tasks' (function expected at key 'name', got boolean)", { name = false }, 1 },
      { "#1 to 'execute_tasks' (function expected at key true, got table)", { start, [true] = {} }, 1 },
      { "#1 to 'execute_tasks' (function expected at key 1, got thread)", { coroutine.create(start) }, 1 },
      { "#2 to 'execute_tasks' (whole number of at least 1 expected, got 0)", tasks, 0 },
      { "#2 to 'execute_tasks' (whole number of at least 1 expected, got -2)", tasks, -2 },
      { "#2 to 'execute_tasks' (whole number of at least 1 expected, got 1.5)", tasks, 1.5 },
      { "#2 to 'execute_tasks' (whole number of at least 1 expected, got NaN)", tasks, 0 / 0 },
      { "#2 to 'execute_tasks' (whole number of at least 1 expected, got -inf)", tasks, -math.huge },
      { "#2 to 'execute_tasks' (whole number of at least 1 expected, got string)", tasks, "2" },
      { "#2 to 'execute_tasks' (whole number of at least 1 expected, got boolean)", tasks, false },
      { "#3 to 'execute_tasks' (table expected, got number)", tasks, 1, 5 },
      { "#3 to 'execute_tasks' (unknown option 'limit')", tasks, 1, { limit = 2 } },
      { "#3 to 'execute_tasks' (option 'errors': string expected, got boolean)", tasks, 1, { errors = true } },
      { "#3 to 'execute_tasks' (option 'errors' must be \"first\" or \"collect\")", tasks, 1, { errors = "ignore" } },
      { "#3 to 'execute_tasks' (option 'timeout': number expected, got string)", tasks, 1, { timeout = "1" } },
      { "#3 to 'execute_tasks' (option 'timeout': number expected, got NaN)", tasks, 1, { timeout = 0 / 0 } },
      { "#3 to 'execute_tasks' (option 'progress': function expected, got boolean)", tasks, 1, { progress = true } },
    }) do
      local ok, message = pcall(function()
        execute_tasks(case[2], case[3], case[4])
      end)
      assert.is_false(ok, case[1])
      assert.is_truthy(message:find("bad argument " .. case[1], 1, true), message)
      assert.matches("^[^\n]*execute_tasks_spec%.lua:%d+: ", message)
    end
    assert.is_false(started)
    assert.are.equal(0, scheduler.stats().timers_pending)
  end)
end)
