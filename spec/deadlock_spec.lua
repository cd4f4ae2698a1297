local scheduler = require("scheduler")
local child = require("spec.support.child")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local task = scheduler.task

--- The errors that a `run` reports; `prepare` returns the tasks that are to be cancelled afterwards.
local function reports(prepare)
  local left = {}
  local errors = uncaught(function()
    left = { prepare() }
    scheduler.run()
  end)
  for _, co in ipairs(left) do
    task.cancel(co)
  end
  return errors
end

local function nothing_reported(prepare)
  local errors = reports(prepare)
  assert.are.equal(0, #errors, errors[1] and tostring(errors[1].err))
end

describe("a run that ends while tasks wait for what nothing can bring", function()
  it("says which tasks, where they are from, and what each waits for and where", function()
    local mutex, event = scheduler.mutex(), scheduler.event()
    local holder, waiter, joiner
    local errors = reports(function()
      holder = task.spawn(function()
        mutex:lock()
        event:wait()
      end)
      task.name(holder, "holder")
      waiter = task.spawn(function()
        mutex:lock()
      end)
      joiner = task.spawn(function()
        task.join(waiter)
      end)
      return joiner, waiter, holder
    end)
    assert.are.equal(1, #errors)
    local err = errors[1].err
    assert.are.equal("deadlock", err.kind)
    assert.are.equal("run", errors[1].source)
    assert.matches("^deadlock: 3 tasks wait for what nothing can bring any more\n", err.message)
    assert.matches("\n  task 'holder' spawned at [^\n]* waits for an event, at [^\n]*deadlock_spec%.lua", err.message)
    assert.matches("\n  a task spawned at [^\n]* waits for a mutex, which task 'holder' [^\n]*holds, at ", err.message)
    assert.matches("\n  a task spawned at [^\n]* waits for a task spawned at ", err.message)
    local named = {}
    for _, co in ipairs(err.tasks) do
      named[co] = true
    end
    assert.are.same({ [holder] = true, [waiter] = true, [joiner] = true }, named)
  end)

  it("says so of a scope whose children all wait in vain", function()
    local event = scheduler.event()
    local errors = reports(function()
      return task.spawn(scheduler.scope, function(scope)
        scope:spawn(event.wait, event)
      end)
    end)
    assert.matches("^deadlock: 2 tasks wait", errors[1].err.message)
  end)

  it("says so once for each wait", function()
    local event = scheduler.event()
    local co = task.spawn(function()
      event:wait()
      event:clear()
      event:wait()
    end)
    local function count()
      return #uncaught(scheduler.run)
    end
    assert.are.same({ 1, 0, 0 }, { count(), count(), count() })
    event:set()
    assert.are.same({ 1, 0 }, { count(), count() })
    local other = task.spawn(event.wait, event)
    local errors = uncaught(scheduler.run)
    assert.matches("^deadlock: a task waits", errors[1].err.message)
    task.cancel(co)
    task.cancel(other)
  end)

  it("names twenty of many", function()
    local event = scheduler.event()
    local errors = uncaught(function()
      for _ = 1, 30 do
        task.spawn(event.wait, event)
      end
      scheduler.run()
    end)
    assert.are.equal(22, #errors[1].err.message:gsub("[^\n]", "") + 1)
    assert.matches("\n  and 10 more$", errors[1].err.message)
    event:set()
    scheduler.run()
  end)

  it("goes for promises and channels as well", function()
    local errors = reports(function()
      local promise, channel = scheduler.Promise.new(function() end), scheduler.channel()
      return task.spawn(promise.expect, promise), task.spawn(channel.recv, channel)
    end)
    assert.matches("waits for a promise made at ", errors[1].err.message)
    assert.matches("waits for a message from channel ", errors[1].err.message)
  end)

  it("tells of the main task in the error that it raises, and of the others before", function()
    local mutex, event, message = scheduler.mutex(), scheduler.event(), nil
    local co
    local errors = uncaught(function()
      local _
      _, message = pcall(scheduler.run, function()
        mutex:lock()
        co = task.spawn(mutex.lock, mutex)
        event:wait()
      end)
    end)
    assert.matches("nothing is left that could wake it: it waits for an event, at .*deadlock_spec", message)
    assert.are.equal(1, #errors)
    assert.matches("^deadlock: a task waits .*which the main task holds", errors[1].err.message)
    task.cancel(co)
    event:set()
    scheduler.run()
  end)

  it("is told of by the main thread, which waits itself, and by a worker", function()
    local _, message = pcall(function()
      scheduler.event():wait()
    end)
    assert.matches("nothing is left that could end this wait: it waits for an event", message)
    local job = scheduler.parallel.run(function()
      require("scheduler").event():wait()
    end)
    _, message = pcall(scheduler.await, job)
    assert.matches("nothing is left that could wake it: it waits for an event", tostring(message))
  end)

  it("goes on if the error handler ends it", function()
    local event, ended = scheduler.event(), false
    task.spawn(function()
      event:wait()
      task.wait(0.001)
      ended = true
    end)
    local former = scheduler.on_error(function()
      event:set()
    end)
    scheduler.run()
    scheduler.on_error(former)
    assert.is_true(ended)
  end)

  it("writes it to stderr by default", function()
    local result = child.script([[
      local queue = scheduler.queue()
      scheduler.task.spawn(function() queue:pop() end)
      scheduler.run()
      print(queue:len())
    ]])
    assert.are.equal(0, result.code)
    assert.matches("^scheduler: uncaught error in run: deadlock: a task waits for what nothing can bring any more\n"
      .. "  a task spawned at [^\n]* waits for a value of a queue, at [^\n]*\n$", result.err)
  end)
end)

describe("no deadlock is reported", function()
  it("where all tasks have ended", function()
    nothing_reported(function()
      local event = scheduler.event()
      task.spawn(event.wait, event)
      task.delay(0.001, event.set, event)
    end)
  end)

  it("for tasks that are parked by coroutine.yield, or sleep for ever, and those that wait for them", function()
    nothing_reported(function()
      local parked, sleeper = task.spawn(coroutine.yield), task.spawn(task.wait, math.huge)
      local promised = scheduler.async(coroutine.yield)()
      return task.spawn(task.join, parked), task.spawn(task.join, sleeper), task.spawn(promised.expect, promised),
        parked, sleeper
    end)
  end)

  it("for those that wait for such a task in a scope, as a promise's outcome, or in execute_tasks", function()
    nothing_reported(function()
      local function park()
        coroutine.yield()
      end
      local chained, started = scheduler.async(park)():andThen(print), {}
      local function in_scope()
        scheduler.scope(function(scope)
          scope:spawn(park)
          scope:spawn(task.wait)
        end)
      end
      for _, fn in ipairs({
        in_scope,
        function() scheduler.scope(in_scope) end,
        function() scheduler.timeout(math.huge, park) end,
        function() scheduler.shield(park) end,
        function() scheduler.execute_tasks({ park, task.wait }, 1) end,
        function() chained:expect() end,
      }) do
        started[#started + 1] = task.spawn(fn)
      end
      return (unpack or table.unpack)(started)
    end)
  end)

  it("for those that wait with a limit that never comes", function()
    nothing_reported(function()
      local queue, channel, event = scheduler.queue(), scheduler.channel(), scheduler.event()
      local consumer = task.spawn(queue.pop, queue, math.huge)
      return task.spawn(task.join, consumer), task.spawn(channel.recv, channel, math.huge),
        task.spawn(event.wait, event, math.huge), consumer
    end)
  end)

  it("where a timer is set that does not keep the loop, or the clock is paused", function()
    nothing_reported(function()
      local event = scheduler.event()
      local id = scheduler.unref(scheduler.setTimeout(function() end, 100000))
      task.delay(0, scheduler.clearTimeout, nil)
      local co = task.spawn(event.wait, event)
      scheduler.run()
      scheduler.clearTimeout(id)
      scheduler.clock.pause()
      id = scheduler.setTimeout(event.set, 1000, event)
      scheduler.run()
      scheduler.clock.resume()
      scheduler.clearTimeout(id)
      event:set()
      return co
    end)
  end)

  it("where the loop was stopped, or a host polls", function()
    local event = scheduler.event()
    local co
    assert.are.equal(0, #uncaught(function()
      co = task.spawn(event.wait, event)
      scheduler.setTimeout(scheduler.stop)
      scheduler.run()
      scheduler.poll()
    end))
    task.cancel(co)
  end)

  it("for tasks that were cancelled, or resumed by hand", function()
    nothing_reported(function()
      local event = scheduler.event()
      local function wait()
        event:wait()
      end
      task.cancel(task.spawn(wait))
      coroutine.resume((task.spawn(wait)))
      return task.spawn(event.wait, event, 0.001)
    end)
  end)

  it("for a consumer whose queue is closed", function()
    nothing_reported(function()
      local queue = scheduler.queue()
      task.spawn(function()
        repeat until queue:pop() == nil
      end)
      queue:push(1)
      queue:close()
    end)
  end)

  it("on a clock that is moved by a test", function()
    scheduler.clock.pause()
    local event = scheduler.event()
    local co = task.spawn(event.wait, event)
    assert.are.equal(0, #uncaught(virtual.advance, 1000))
    task.cancel(co)
    scheduler.clock.resume()
  end)
end)
