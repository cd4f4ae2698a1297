-- An iterator over the ticks of a clock.

local native, check, task = ...

local floor = math.floor
local NANOS_PER_SECOND = 1e9
local ROUNDING = 1e-4

--- `scheduler.interval`: `for n in scheduler.interval(0.5) do`. The schedule is fixed; missed ticks are skipped.
return function(seconds)
  check.number(seconds, 1, "interval")
  if seconds <= 0 then check.raise("bad argument #1 to 'interval' (seconds above 0 expected)") end
  local begun, tick = native.time(), 0
  return function()
    local passed = (native.time() - begun) / NANOS_PER_SECOND
    -- The quotient at a tick may be a little less than its number, all the more after months.
    local due = floor(passed / seconds + ROUNDING)
    tick = due > tick and due or tick + 1
    task.wait(tick * seconds - passed)
    return tick
  end
end
