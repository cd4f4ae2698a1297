local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local virtual = require("spec.support.virtual")

local task = scheduler.task
local advance = virtual.advance

local HERE = "tasks_spec%.lua:%d+$"

-- Tasks that other specs have left behind, which nothing has collected yet.
local others

local function note_others()
  memory.collect()
  others = setmetatable({}, { __mode = "k" })
  for _, entry in ipairs(scheduler.tasks()) do
    others[entry.task] = true
  end
end

--- The entries of those that came since.
local function own_tasks()
  local list = {}
  for _, entry in ipairs(scheduler.tasks()) do
    if not others[entry.task] then list[#list + 1] = entry end
  end
  return list
end

--- The entry of a task in `scheduler.tasks()`; fails if it has several.
local function entry_of(co)
  local found
  for _, entry in ipairs(scheduler.tasks()) do
    if entry.task == co then
      assert(not found, "the task is listed twice")
      found = entry
    end
  end
  return found
end

--- What a task that runs `fn` waits for, in words, and that thing; the task is cancelled then.
local function waited_for(fn, ...)
  local co = task.spawn(fn, ...)
  local entry = assert(entry_of(co), "the task is not listed")
  assert.are.equal("waiting", entry.state)
  task.cancel(co)
  assert.is_nil(entry_of(co))
  return entry.waits_for, entry.object
end

local function dumped()
  local text
  scheduler.dump(function(written)
    text = written
  end)
  return text
end

describe("tasks()", function()
  virtual.setup(before_each, after_each)

  before_each(note_others)

  it("lists a task that waits, with its name, age, origin and place", function()
    local co = task.spawn(function()
      task.wait(10)
    end)
    task.name(co, "sleeper")
    advance(2500)
    local entry = entry_of(co)
    assert.are.equal(co, entry.task)
    assert.are.equal("sleeper", entry.name)
    assert.are.equal("waiting", entry.state)
    assert.is_true(entry.age >= 2.49 and entry.age <= 2.51, entry.age)
    assert.matches(HERE, entry.origin)
    assert.matches("^task 'sleeper' spawned at .*" .. HERE, entry.description)
    assert.matches(HERE, entry.at)
    assert.matches("tasks_spec", entry.traceback)
    assert.are.equal("a timer that is due in 7.5 s", entry.waits_for)
    advance(7500)
    assert.is_nil(entry_of(co))
  end)

  it("lists the oldest first", function()
    local list = {}
    for i = 1, 5 do
      list[i] = task.spawn(task.wait, 100)
      advance(100)
    end
    local found = own_tasks()
    for i = 1, 5 do
      assert.are.equal(list[i], found[i].task)
      task.cancel(list[i])
    end
    assert.are.equal(5, #found)
  end)

  it("tells which lock a task waits for, and who holds it", function()
    local mutex = scheduler.mutex()
    local holder = task.spawn(function()
      mutex:lock()
      task.wait(1)
      mutex:unlock()
    end)
    task.name(holder, "holder")
    local words, object = waited_for(mutex.with, mutex, print)
    assert.matches("^a mutex, which task 'holder' spawned at .*:%d+ holds$", words)
    assert.are.equal(mutex, object)
    advance(1000)
  end)

  it("tells which task, promise or thing else of ours a task waits for", function()
    local other = task.spawn(task.wait, 100)
    local words, object = waited_for(task.join, other)
    assert.matches("^a task spawned at .*" .. HERE, words)
    assert.are.equal(other, object)
    task.cancel(other)

    local promise = scheduler.Promise.delay(100)
    words, object = waited_for(scheduler.await, promise:andThen(print))
    assert.matches("^a promise made at", words)
    assert.is_true(scheduler.Promise.is(object))
    promise:cancel()

    local event, queue, full = scheduler.event(), scheduler.queue(), scheduler.queue(0)
    local semaphore = scheduler.semaphore(1)
    semaphore:acquire()
    for expected, given in pairs({
      ["an event"] = { event, event.wait },
      ["a value of a queue"] = { queue, queue.pop },
      ["room in a queue"] = { full, full.push, 1 },
      ["a permit of a semaphore"] = { semaphore, semaphore.acquire },
    }) do
      words, object = waited_for(given[2], given[1], given[3])
      assert.are.equal(expected, words)
      assert.are.equal(given[1], object)
    end
    assert.are.equal("the tasks of scope 'all'", (waited_for(scheduler.scope, function()
      task.wait(1)
    end, { name = "all" })))
    assert.are.equal("the tasks of execute_tasks", (waited_for(scheduler.execute_tasks, {
      function()
        task.wait(1)
      end,
    })))
    advance(0)
  end)

  it("tells which channel a task waits for, and to do what", function()
    local channel, other = scheduler.channel(), scheduler.channel()
    local words, object = waited_for(function()
      channel:recv()
    end)
    assert.are.equal("a message from " .. tostring(channel), words)
    assert.are.equal(channel, object)
    words = waited_for(function()
      channel:send(1)
    end)
    assert.are.equal("a receiver or room in " .. tostring(channel), words)
    words = waited_for(function()
      scheduler.select({ { channel, "recv" }, { other, "recv" } })
    end)
    assert.are.equal("one of 2 channels", words)
  end)

  it("tells for how long at the most, and when it is never", function()
    local event = scheduler.event()
    assert.are.equal("an event, for 2.5 s at the most", (waited_for(event.wait, event, 2.5)))
    assert.are.equal("an event", (waited_for(event.wait, event, math.huge)))
    assert.are.equal("a timer that never fires", (waited_for(task.wait, math.huge)))
    local co = task.delay(4, print)
    assert.are.equal("its start: a timer that is due in 4 s", entry_of(co).waits_for)
    task.cancel(co)
  end)

  it("lists those that are ready, deferred, or parked in a yield of their own", function()
    local event = scheduler.event()
    local woken = task.spawn(event.wait, event)
    event:set()
    local next_turn, gave_way = task.spawn(task.wait), task.spawn(task.yield)
    local deferred, parked = task.defer(math.abs, 1), task.spawn(coroutine.yield)
    local late = task.spawn(function()
      task.wait()
      coroutine.yield()
    end)
    for _, co in ipairs({ woken, next_turn, gave_way, deferred, late }) do
      assert.are.equal("ready", entry_of(co).state)
    end
    assert.are.equal("parked", entry_of(parked).state)
    scheduler.poll()
    for _, co in ipairs({ woken, next_turn, gave_way, deferred }) do
      assert.is_nil(entry_of(co))
    end
    assert.are.equal("parked", entry_of(late).state)
    coroutine.resume(late)
    assert.is_nil(entry_of(late))
    task.cancel(parked)
    assert.is_nil(entry_of(parked))
  end)

  it("lists those that run, and those that have resumed them", function()
    local states = {}
    local function look(name)
      for _, entry in ipairs(own_tasks()) do
        states[#states + 1] = name .. " sees " .. tostring(entry.name or "itself") .. " " .. entry.state
      end
      table.sort(states)
    end
    local outer
    outer = task.defer(function()
      task.name(outer, "outer")
      coroutine.wrap(function()
        local middle
        middle = task.spawn(function()
          task.wait()
          task.name(middle, "middle")
          task.spawn(look, "inner")
        end)
        task.name(middle, "middle")
        coroutine.resume(middle)
      end)()
    end)
    advance(0)
    assert.are.same({ "inner sees itself running", "inner sees middle normal", "inner sees outer normal" }, states)
  end)

  it("lists callbacks and handlers that wait, by where they were set", function()
    scheduler.setTimeout(function()
      task.wait(1)
    end, 50) -- later than ages are rounded to
    scheduler.async(function()
      task.wait(1)
    end)()
    advance(50)
    local list = own_tasks()
    assert.are.equal(2, #list)
    assert.matches("^a promise made at .*" .. HERE, list[1].description)
    assert.matches("^a timer set at .*" .. HERE, list[2].description)
    assert.matches(HERE, list[2].origin)
    advance(1000)
    assert.are.equal(0, #own_tasks())
  end)

  it("lists a task once that waits inside of a protected call or a generator", function()
    local protected = task.spawn(function()
      scheduler.pcall(task.wait, 1)
    end)
    local generating = task.spawn(function()
      scheduler.coroutine.wrap(function()
        task.wait(1)
      end)()
    end)
    local waiting = task.spawn(function()
      scheduler.pcall(function()
        scheduler.event():wait(1)
      end)
    end)
    assert.are.equal(3, #own_tasks())
    for _, co in ipairs({ protected, generating, waiting }) do
      assert.are.equal("waiting", entry_of(co).state)
    end
    advance(1000)
    assert.are.equal(0, #own_tasks())
  end)

  it("does not take callbacks for tasks, whatever they are", function()
    local callable = setmetatable({ co = coroutine.create(function() end) }, { __call = function() end })
    scheduler.setTimeout(callable, 1)
    scheduler.setTimeout(function() end, 1)
    scheduler.queueMicrotask(function() end)
    assert.are.equal(0, #own_tasks())
    advance(1)
  end)

  it("finds each of many tasks", function()
    local events, count = {}, 0
    for i = 1, 50 do
      events[i] = scheduler.event()
      for _ = 1, 20 do
        task.spawn(events[i].wait, events[i])
        task.spawn(task.wait, i)
        count = count + 2
      end
    end
    assert.are.equal(count, #own_tasks())
    assert.are.equal(#scheduler.tasks(), scheduler.stats().tasks_alive)
    for i = 1, 50 do
      events[i]:set()
    end
    advance(50000)
    assert.are.equal(0, #own_tasks())
  end)

  it("goes on without the debug library, with what it can tell then", function()
    local result = child.script([[
      local co = scheduler.task.spawn(scheduler.task.wait, 1)
      scheduler.task.name(co, "sleeper")
      local event = scheduler.event()
      local waiter = scheduler.task.spawn(event.wait, event)
      local list = scheduler.tasks()
      table.sort(list, function(a, b) return (a.name or "") < (b.name or "") end)
      print(#list, list[1].waits_for, list[2].name, list[2].state, list[2].at, list[2].traceback == "")
      scheduler.dump(function() end)
    ]])
    assert.are.equal("", result.err)
    result = child.command({ child.interpreter, "-e", "debug = nil package.loaded.debug = nil", "-e", [[
      local scheduler = require("scheduler")
      local co = scheduler.task.spawn(scheduler.task.wait, 1)
      scheduler.task.name(co, "sleeper")
      local event = scheduler.event()
      local waiter = scheduler.task.spawn(event.wait, event)
      local list = scheduler.tasks()
      table.sort(list, function(a, b) return (a.name or "") < (b.name or "") end)
      print(#list, list[1].waits_for, list[2].name, list[2].state, list[2].at, list[2].traceback == "")
      scheduler.dump(function() end)
    ]] })
    assert.are.equal("", result.err)
    assert.are.equal("2\tan event\tsleeper\twaiting\tnil\ttrue\n", result.out)
  end)

  it("tells of those that wait for a pool", function()
    local pool = scheduler.parallel.pool({ size = 1 })
    local job = pool:run(function()
      require("scheduler").task.wait(0.02)
    end)
    local co = task.spawn(function()
      pool:close()
    end)
    local entry = entry_of(co)
    assert.are.equal("the end of a pool", entry.waits_for)
    assert.are.equal(pool, entry.object)
    local waits_for_job = task.spawn(scheduler.await, job)
    assert.matches("^a job started at .*" .. HERE, entry_of(waits_for_job).waits_for)
    task.join(co)
    task.join(waits_for_job)
  end)
end)

describe("tasks(), where tasks are dropped,", function()
  it("keeps none from being collected that is parked", function()
    assert.is_true(memory.is_released(function()
      local co = task.spawn(coroutine.yield)
      assert(entry_of(co))
      return co
    end))
  end)

  -- In a process of its own: such a task is counted as one that waits for ever.
  it("keeps none from being collected with what it waits for", function()
    local result = child.script([[
      local memory = require("spec.support.memory")
      print(memory.is_released(function()
        local event = scheduler.event()
        local co = scheduler.task.spawn(event.wait, event)
        assert(scheduler.tasks()[1].task == co)
        return co
      end), #scheduler.tasks())
      print(memory.is_released(function()
        local promise = scheduler.Promise.new(function() end)
        local co = scheduler.task.spawn(promise.expect, promise)
        assert(scheduler.tasks()[1].task == co)
        return co
      end), #scheduler.tasks())
    ]])
    assert.are.equal("", result.err)
    assert.are.equal("true\t0\ntrue\t0\n", result.out)
  end)
end)

describe("dump", function()
  virtual.setup(before_each, after_each)

  before_each(memory.collect)

  it("prints the tasks, what they wait for and where, alike ones together", function()
    local event = scheduler.event()
    -- A number of its own: tasks of other specs may not have been collected yet.
    for _ = 1, 137 do
      task.spawn(function()
        event:wait()
      end)
    end
    local co = task.spawn(function()
      task.wait(60)
    end)
    task.name(co, "sleeper")
    local text = dumped()
    assert.matches("^scheduler: %d+ tasks %(.*%d+ waiting.*%); 1 timers and sleepers, 0 jobs", text)
    local alike = "\na task spawned at [^\n]*, up to 0 s ago: waiting, for an event %(137 alike%)\n    [^\n]*tasks_spec"
    assert.matches(alike, text)
    assert.matches("\ntask 'sleeper' spawned at [^\n]*, 0 s ago: waiting, for a timer that is due in 60 s\n", text)
    assert.is_nil(text:find("[scheduler]/", 1, true))
    assert.are.equal(1, select(2, text:gsub("%(137 alike%)", "")))
    event:set()
    task.cancel(co)
    advance(0)
  end)

  it("writes to a file, and to stderr by default", function()
    local written = {}
    scheduler.dump({
      write = function(_, text)
        written[1] = text
      end,
    })
    assert.matches("^scheduler: %d+ tasks?[ ;]", written[1])
    local result = child.script([[
      scheduler.task.spawn(scheduler.task.wait, 1)
      scheduler.dump()
      scheduler.dump(io.stdout)
    ]])
    assert.matches("^scheduler: 1 task %(1 waiting%)", result.err)
    assert.matches("^scheduler: 1 task %(1 waiting%)", result.out)
  end)

  it("tells what the main thread waits for", function()
    local event, text = scheduler.event(), nil
    task.spawn(function()
      task.wait()
      text = dumped()
      event:set()
    end)
    event:wait()
    assert.matches("\nthe main thread: waiting, for an event\n", text)
  end)

  it("refuses what it cannot write to", function()
    for _, value in ipairs({ 1, "name", true }) do
      assert.has_error(function()
        scheduler.dump(value)
      end)
    end
  end)

  it("is of use in an error handler", function()
    local texts = {}
    local former = scheduler.on_error(function()
      texts[#texts + 1] = dumped()
    end)
    local result = attempt.start(function()
      task.spawn(error, "failed")
    end)
    scheduler.on_error(former)
    assert.is_true(result.ok)
    assert.are.equal(1, #texts)
  end)
end)
