-- Promises: made, chained, awaited, gathered; and the memory of those that are pending.
--   lua bench/promises.lua PEER [COUNT]
--
--   settle  promises whose executor resolves them at once, with one handler each, in batches of 1000
--   chain   links of chains of 1000 `andThen`s that add one
--   await   waits for a promise that is settled, within a task
--   all     promises as above, gathered 10,000 at a time
--   bytes   Lua memory of each promise whose executor does nothing
--
-- Each includes the time until all handlers have run, and until the peer has done what it puts off.

local measurement = require("bench.measurement")
local timers = require("bench.timers")

local BATCH, LINKS, GATHERED, PENDING = 1000, 1000, 10000, 100000

local name, count = ...

--- For each peer its `Promise`, `await(promise)` for within `spawn(fn)`, `run()`, which returns when nothing is left to
--- be done, and how many are measured by default.
local peers = {}

function peers.scheduler()
  local scheduler = require("scheduler")
  return {
    count = 1000000,
    Promise = scheduler.Promise,
    await = scheduler.await,
    spawn = scheduler.task.spawn,
    run = scheduler.run,
  }
end

function peers.evaera()
  local evaera = require("bench.evaera")
  local Promise = evaera.Promise
  return { count = 100000, Promise = Promise, await = Promise.prototype.expect, spawn = evaera.spawn, run = evaera.run }
end

local peer = measurement.choose(peers, name)()
local Promise, run = peer.Promise, peer.run
count = tonumber(count) or peer.count

local function resolve_at_once(resolve)
  resolve(1)
end

local function do_nothing() end

local function expect(what, expected, got)
  if got ~= expected then error(("%s: expected %s, got %s"):format(what, expected, tostring(got)), 0) end
end

local function settle()
  local new, sum = Promise.new, 0
  local function add(value)
    sum = sum + value
  end
  for _ = 1, count / BATCH do
    for _ = 1, BATCH do
      new(resolve_at_once):andThen(add)
    end
    run()
  end
  expect("settle", count, sum)
end

local function chain()
  local sum = 0
  local function add_one(value)
    return value + 1
  end
  local function keep(value)
    sum = sum + value
  end
  for _ = 1, count / LINKS do
    local link = Promise.resolve(0)
    for _ = 1, LINKS do
      link = link:andThen(add_one)
    end
    link:andThen(keep)
    run()
  end
  expect("chain", count, sum)
end

local function await()
  local wait_for, sum = peer.await, 0
  peer.spawn(function()
    local settled = {}
    for i = 1, BATCH do
      settled[i] = Promise.resolve(1)
    end
    for i = 1, count do
      sum = sum + wait_for(settled[i % BATCH + 1])
    end
  end)
  run()
  expect("await", count, sum)
end

local function all()
  local new, sum = Promise.new, 0
  local function keep(values)
    sum = sum + #values
  end
  for _ = 1, count / GATHERED do
    local list = {}
    for i = 1, GATHERED do
      list[i] = new(resolve_at_once)
    end
    Promise.all(list):andThen(keep)
    run()
  end
  expect("all", count, sum)
end

--- The Lua memory of each of many promises that are pending.
local function bytes()
  local new, kept = Promise.new, timers.handles(PENDING)
  collectgarbage()
  collectgarbage()
  local before = collectgarbage("count")
  for i = 1, PENDING do
    kept[i] = new(do_nothing)
  end
  collectgarbage()
  collectgarbage()
  local after = collectgarbage("count")
  expect("bytes", "Started", kept[PENDING]:getStatus()) -- all have been kept until here
  return (after - before) * 1024 / PENDING
end

measurement.report("settle", count / measurement.time(settle), "ops/s")
measurement.report("chain", count / measurement.time(chain), "ops/s")
measurement.report("await", count / measurement.time(await), "ops/s")
measurement.report("all", count / measurement.time(all), "ops/s")
measurement.report("bytes", bytes(), "B")
measurement.finish()
