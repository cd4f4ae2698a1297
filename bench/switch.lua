-- Switch: two tasks which do nothing but give way to each other, through the loop.
--   lua bench/switch.lua PEER [COUNT]
--
-- COUNT is how often each of them gives way.

local measurement = require("bench.measurement")

local TASKS = 2

local name, count = ...
count = tonumber(count) or 1000000

--- What a coroutine of the queue below returns when it has ended. One that gives way yields nothing.
local ENDED = true

--- The ready coroutines of a program that has no scheduler, but writes its own in Lua. There are two lists, so that
--- what gives way meanwhile has its turn in the next drain, and no list is ever shifted.
local function new_queue()
  local create, resume = coroutine.create, coroutine.resume
  local ready, spare, length = {}, {}, 0
  local queue = { give_way = coroutine.yield }

  function queue.spawn(fn)
    length = length + 1
    ready[length] = create(function()
      fn()
      return ENDED
    end)
  end

  --- Resumes every ready coroutine once; returns whether some are ready again.
  function queue.drain()
    local list, listed = ready, length
    ready, spare, length = spare, list, 0
    for i = 1, listed do
      local co = list[i]
      local succeeded, result = resume(co)
      if not succeeded then error(result, 0) end
      if result ~= ENDED then
        length = length + 1
        ready[length] = co
      end
    end
    return length > 0
  end

  return queue
end

--- For each peer `spawn(fn)`, which starts a task, `give_way()` for within, and `run()`, which returns when all ended.
--- `wait_for_turn()`, where there is one, goes on after the loop has looked for events.
local peers = {}

function peers.scheduler()
  local scheduler = require("scheduler")
  local task = scheduler.task
  return { spawn = task.spawn, give_way = task.yield, wait_for_turn = task.wait, run = scheduler.run }
end

--- luv has no tasks, so the queue is drained by an idle handle, once in each iteration: the loop looks for events in
--- between, and does not block as long as the handle is active. A check or prepare handle needs an idle handle besides,
--- for that reason. A timer of 0 ms that starts itself again is faster, but keeps libuv 1.44 in one iteration for ever.
function peers.luv()
  local luv = require("luv")
  local queue, idle = new_queue(), luv.new_idle()

  local function turn()
    if not queue.drain() then idle:stop() end
  end

  function queue.run()
    idle:start(turn)
    luv.run()
  end

  queue.wait_for_turn = queue.give_way
  return queue
end

function peers.cqueues()
  local cqueues = require("cqueues")
  local controller = cqueues.new()
  return {
    spawn = function(fn)
      controller:wrap(fn)
    end,
    give_way = cqueues.poll, -- with nothing to wait for; `sleep(0)` is slower
    wait_for_turn = cqueues.poll,
    run = function()
      assert(controller:loop())
    end,
  }
end

function peers.copas()
  local copas = require("copas")
  local pause = copas.pause or copas.sleep
  if not pause then measurement.skip(copas._VERSION .. " has nothing that gives way") end
  return {
    spawn = copas.addthread,
    give_way = function()
      pause(0)
    end,
    run = copas.loop,
  }
end

--- The limit: the same queue as luv's, without a loop around it.
function peers.raw()
  local queue = new_queue()

  function queue.run()
    repeat until not queue.drain()
  end

  return queue
end

local peer = measurement.choose(peers, name)()

--- Measures tasks that call `give_way` all the time.
local function measure(figure, give_way)
  local ended = 0

  local function task()
    for _ = 1, count do
      give_way()
    end
    ended = ended + 1
  end

  local function spawn_and_run()
    for _ = 1, TASKS do
      peer.spawn(task)
    end
    peer.run()
  end

  local seconds = measurement.time(spawn_and_run)
  assert(ended == TASKS, ("only %d of %d tasks have ended"):format(ended, TASKS))
  measurement.report(figure, TASKS * count / seconds, "ops/s")
end

measure("switch", peer.give_way)
if peer.wait_for_turn then measure("turn", peer.wait_for_turn) end
measurement.finish()
