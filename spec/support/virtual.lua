-- Virtual time for specs: `virtual.setup(before_each, after_each)` in a describe block makes its tests run on a paused
-- clock, and checks that each leaves nothing behind.

local scheduler = require("scheduler")

local virtual = {}

--- Milliseconds on the virtual clock. All that the specs advance together should stay below some 100 days: beyond 2^53
--- nanoseconds the clock, as Lua sees it, leaves some out.
function virtual.advance(ms)
  scheduler.clock.advance(ms / 1000)
end

--- Milliseconds since `start`, to the microsecond: the clock counts nanoseconds, which a float of milliseconds shows
--- with a rounding error.
function virtual.since(start)
  return math.floor((scheduler.now() - start) * 1000 + 0.5) / 1000
end

function virtual.setup(before_each, after_each)
  local before
  before_each(function()
    before = scheduler.stats()
    scheduler.clock.pause()
  end)
  after_each(function()
    scheduler.clock.resume()
    local after = scheduler.stats()
    for _, what in ipairs({ "timers_pending", "microtasks_pending", "tasks_waiting", "jobs_pending" }) do
      if after[what] > before[what] then
        error(("the test leaves behind: %s was %d and is %d"):format(what, before[what], after[what]))
      end
    end
  end)
end

--- A list and a function that appends to it.
function virtual.recorder()
  local list = {}
  return list, function(value)
    list[#list + 1] = value
  end
end

return virtual
