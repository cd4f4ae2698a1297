-- How each peer sets, cancels and runs one-shot timers, in the plainest way that it offers.
--
--   count            how many are set by default; fewer where a million would take minutes
--   set(fn, ms)      sets a timer whose handle the program keeps
--   once(fn, ms)     sets a timer that the program forgets: it must live until it fires, and leave nothing behind
--   settle()         brings what was set into the peer's queue, where setting alone does not
--   cancel(handle)   takes back what `set` returned
--   run()            turns the loop until no timer is left

local measurement = require("bench.measurement")

local timers, peers = {}, {}

local function nothing_to_settle() end

function peers.scheduler()
  local scheduler = require("scheduler")
  return {
    count = 1000000,
    set = scheduler.setTimeout,
    once = scheduler.setTimeout,
    settle = nothing_to_settle,
    cancel = scheduler.clearTimeout,
    run = scheduler.run,
  }
end

function peers.luv()
  local luv = require("luv")
  local new_timer, start, close = luv.new_timer, luv.timer_start, luv.close
  local peer = { count = 1000000, settle = nothing_to_settle, cancel = close, run = luv.run }

  function peer.set(fn, ms)
    local timer = new_timer()
    start(timer, ms, 0, fn)
    return timer
  end

  function peer.once(fn, ms)
    local timer = new_timer()
    start(timer, ms, 0, function()
      close(timer)
      fn()
    end)
  end

  return peer
end

--- cqueues and copas have no timers, but coroutines that sleep; they are in the queue once they have run up to that.
function peers.cqueues()
  local cqueues = require("cqueues")
  local controller, sleep = cqueues.new(), cqueues.sleep

  local function set(fn, ms)
    controller:wrap(function()
      sleep(ms / 1000)
      fn()
    end)
  end

  return {
    count = 100000,
    set = set,
    once = set,
    settle = function()
      assert(controller:step(0))
    end,
    run = function()
      assert(controller:loop())
    end,
  }
end

function peers.copas()
  local copas = require("copas")
  local sleep = copas.pause or copas.sleep
  if not sleep then measurement.skip(copas._VERSION .. " has no timers") end

  local function set(fn, ms)
    return copas.addthread(function()
      sleep(ms / 1000)
      fn()
    end)
  end

  return {
    count = 100000,
    set = set,
    once = set,
    settle = function()
      copas.step(0)
    end,
    cancel = copas.removethread,
    run = copas.loop,
  }
end

--- The peer on the command line and how many timers it sets.
function timers.open(name, count)
  local peer = measurement.choose(peers, name)()
  return peer, tonumber(count) or peer.count
end

--- A list to keep handles in. It is filled beforehand, so that no peer is charged for its growth.
function timers.handles(count)
  local handles = {}
  for i = 1, count do
    handles[i] = false
  end
  return handles
end

--- Sets `count` timers of 0 to 999 ms, scattered rather than in the order of their deadlines.
function timers.set_all(peer, handles, count, fn)
  local set = peer.set
  for i = 1, count do
    handles[i] = set(fn, i % 1000 * 7919 % 1000)
  end
  peer.settle()
end

return timers
