-- Whether something can be collected.

local scheduler = require("scheduler")

local memory = {}

--- Collects all that can be; what a finished function left on a stack, or compiled code holds, is no reason to stay.
function memory.collect()
  if jit then jit.flush() end
  for _ = 1, 3 do
    scheduler.queueMicrotask(function() end)
    scheduler.poll()
    collectgarbage()
  end
end

--- Whether what `make` returns is collected, once that has returned.
function memory.is_released(make)
  local weak = setmetatable({}, { __mode = "k" })
  local function keep(...)
    for i = 1, select("#", ...) do
      weak[select(i, ...)] = true
    end
    assert(next(weak), "there is nothing to collect")
  end
  -- In a task of its own, whose stack goes with it, and which may wait.
  scheduler.task.join(scheduler.task.spawn(function()
    keep(make())
  end))
  memory.collect()
  return next(weak) == nil
end

--- Sets by how many percent memory has to grow until a cycle of the collector begins; returns what was set before.
function memory.set_pause(percent)
  if _VERSION == "Lua 5.5" then return collectgarbage("param", "pause", percent) end
  return collectgarbage("setpause", percent)
end

--- Calls `fn` with the collector at its default pace: where so much is alive that an aggressive one takes minutes.
function memory.relaxed(fn)
  local pause = memory.set_pause(200)
  fn()
  collectgarbage()
  memory.set_pause(pause)
end

return memory
