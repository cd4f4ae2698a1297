-- Timers, create: one-shot timers with delays of 0 to 999 ms are set; none of them fires.
--   lua bench/timers_create.lua PEER [COUNT]

local measurement = require("bench.measurement")
local timers = require("bench.timers")

local peer, count = timers.open(...)
local handles = timers.handles(count)

local seconds = measurement.time(timers.set_all, peer, handles, count, function() end)
measurement.report("create", count / seconds, "ops/s")
measurement.finish()
