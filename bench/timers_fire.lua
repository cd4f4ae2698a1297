-- Timers, fire: one-shot timers with delays of 0 to 10 ms are set, and the loop runs until all have fired. Setting
-- counts as well; it takes longer than the delays.
--   lua bench/timers_fire.lua PEER [COUNT]

local measurement = require("bench.measurement")
local timers = require("bench.timers")

local peer, count = timers.open(...)

local fired = 0
local function fire()
  fired = fired + 1
end

local function set_and_run()
  local once = peer.once
  for i = 1, count do
    once(fire, i % 11)
  end
  peer.run()
end

local seconds = measurement.time(set_and_run)
assert(fired == count, ("only %d of %d timers have fired"):format(fired, count))
measurement.report("fire", count / seconds, "ops/s")
measurement.finish()
