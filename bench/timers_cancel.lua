-- Timers, cancel: one-shot timers that are set beforehand are all taken back, in the order in which they were set.
--   lua bench/timers_cancel.lua PEER [COUNT]

local measurement = require("bench.measurement")
local timers = require("bench.timers")

local peer, count = timers.open(...)
if not peer.cancel then measurement.skip("its timers cannot be cancelled") end
local handles = timers.handles(count)
timers.set_all(peer, handles, count, function() end)

local function cancel_all()
  local cancel = peer.cancel
  for i = 1, count do
    cancel(handles[i])
  end
end

measurement.report("cancel", count / measurement.time(cancel_all), "ops/s")
measurement.finish()
