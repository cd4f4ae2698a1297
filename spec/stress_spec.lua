-- Random programs that mix all that tasks can do: nothing of ours may fail inside, and what was taken is given back.
--
-- What each call does is specified elsewhere; here the calls meet in orders that nobody thinks of. SEED=n repeats one
-- program.

local scheduler = require("scheduler")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local task = scheduler.task
local random = math.random

local PROGRAMS = 60
local MOST_COROUTINES, MOST_OPERATIONS = 200, 2000

--- A program: what it has made so far, and what it does next.
local function new_program()
  local program = {
    coroutines = {},
    operations = 0,
    semaphore = scheduler.semaphore(2),
    mutex = scheduler.mutex(),
    event = scheduler.event(),
    queue = scheduler.queue(2),
  }
  local coroutines, semaphore, mutex = program.coroutines, program.semaphore, program.mutex
  local event, queue = program.event, program.queue
  local operate

  local function moment()
    return random(0, 3) / 1000
  end

  --- What holds a lock does not park, or the lock would rightly stay taken.
  local function holder()
    for _ = 1, random(3) do
      task.wait(moment())
      if random(6) == 1 then error("from a holder", 0) end
      task.yield()
    end
  end

  local function body()
    for _ = 1, random(5) do
      operate()
    end
    return random(5)
  end

  local function keep(co)
    coroutines[#coroutines + 1] = co
  end

  --- An operation on one of the coroutines, which may refuse it.
  local function on_any(fn)
    return function()
      local co = coroutines[random(#coroutines)]
      if co then program.note(scheduler.pcall(fn, co)) end
    end
  end

  --- An operation that makes a coroutine, unless there are enough.
  local function making(fn)
    return function()
      if #coroutines < MOST_COROUTINES then keep(fn()) end
    end
  end

  local function protected(fn, ...)
    local arguments, count = { ... }, select("#", ...)
    return function()
      program.note(scheduler.pcall(fn, (table.unpack or unpack)(arguments, 1, count)))
    end
  end

  local operations = {
    function() task.wait(moment()) end,
    function() task.wait() end,
    function() task.yield() end,
    function() coroutine.yield("mine") end,
    function() error("from a task", 0) end,
    making(function() return task.spawn(body) end),
    making(function() return task.defer(body, nil, 1) end),
    making(function() return task.delay(moment(), body) end),
    on_any(function(co) if coroutine.status(co) == "suspended" then coroutine.resume(co, "by hand") end end),
    on_any(function(co) task.spawn(co, "spawned") end),
    on_any(function(co) task.defer(co, "deferred") end),
    on_any(function(co) task.delay(moment(), co, "delayed") end),
    on_any(task.cancel),
    on_any(task.join),
    on_any(task.status),
    protected(scheduler.scope, function(scope)
      for _ = 1, random(3) do keep(scope:spawn(body)) end
      body()
      if random(4) == 1 then scope:cancel("at random") end
    end),
    protected(scheduler.scope, body, { timeout = 0.002 }),
    protected(scheduler.timeout, 0.001, body),
    protected(scheduler.shield, body),
    protected(scheduler.execute_tasks, { body, body, body }, 2),
    protected(semaphore.with, semaphore, holder),
    protected(mutex.with, mutex, holder),
    protected(event.wait, event, 0.001),
    function() event:set() end,
    function() event:clear() end,
    protected(queue.push, queue, "value", 0.001),
    protected(queue.pop, queue, 0.002),
    function()
      local next_value = scheduler.coroutine.wrap(function()
        task.wait(moment())
        coroutine.yield("value")
        task.yield()
      end)
      program.note(scheduler.pcall(next_value))
      program.note(scheduler.pcall(next_value))
    end,
    function() scheduler.setTimeout(body, random(0, 3)) end,
    function() scheduler.setImmediate(body) end,
    function() scheduler.queueMicrotask(body) end,
  }

  function operate()
    program.operations = program.operations + 1
    if program.operations < MOST_OPERATIONS then operations[random(#operations)]() end
  end

  function program.start()
    for _ = 1, 6 do keep(task.spawn(body)) end
  end

  return program
end

--- Ends what a program has left: tasks that wait for ever, and those that are parked.
local function finish(program)
  for _, co in ipairs(program.coroutines) do pcall(task.cancel, co) end
  program.event:set()
  virtual.advance(1000)
end

--- The first error that comes from within the module, if any does.
local function run(seed)
  math.randomseed(seed)
  local found
  local program = new_program()
  function program.note(ok, err)
    if ok == false and type(err) == "string" and (err:find("^%[scheduler%]/") or err:find("attempt to", 1, true)) then
      found = found or err
    end
  end
  local former = scheduler.on_error(function(err)
    program.note(false, err)
  end)
  program.start()
  virtual.advance(60)
  finish(program)
  scheduler.on_error(former)
  return found, program
end

describe("random programs", function()
  -- Scopes stay whose children are parked. They are told of here, and not when other specs run the loop.
  teardown(function()
    uncaught(scheduler.run)
  end)

  local only = tonumber(os.getenv("SEED"))
  local first = only or os.time() % 1000000 * 100

  before_each(function()
    scheduler.clock.pause()
  end)

  after_each(function()
    scheduler.clock.resume()
  end)

  it("fail in nothing of ours, and give back what they took", function()
    for seed = first, only or first + PROGRAMS - 1 do
      local fault, program = run(seed)
      local name = "SEED=" .. seed
      assert.is_nil(fault, name)
      assert.are.equal(2, program.semaphore:available(), name)
      assert.is_false(program.mutex:is_locked(), name)
    end
  end)
end)
