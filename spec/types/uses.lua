-- Uses of the types, for a checker of types: `make types`. Nothing here runs.
-- Each assignment names the type that must come out.

local scheduler = require("scheduler")
local task, Promise, parallel = scheduler.task, scheduler.Promise, scheduler.parallel

---@type integer
local id = scheduler.setTimeout(print, 1.5, "a", nil)
scheduler.clearTimeout(id)
scheduler.setInterval(print, { ms = 1, missed = "burst" })

local co = task.spawn(function(seconds) return task.wait(seconds) end, 1)
---@type number
local elapsed = task.join(co)
task.cancel(co)
task.cancel(coroutine.create(print))

---@type scheduler.TaskStatus
local status = task.status(co)

local fetch = scheduler.async(function(name) return "text of " .. name, 1 end)
---@type string
local text = fetch("a"):expect()
---@type number
local waited = Promise.delay(1):expect()

---@type string[]
local texts = parallel.map({ 1, 2 }, function(n) return tostring(n) end):expect()
for index, result in parallel.map({ 1 }, tostring, { as_completed = true }) do print(index, result) end

local pool = parallel.pool({ size = 2, init = function() end })
---@type boolean
local closed = pool:close(1)

---@type string|nil
local answer = scheduler.scope(function(scope)
  scope:spawn(task.wait, 1)
  return "all"
end, { timeout = 1 })

local done = scheduler.shared.atomic(1)
---@type integer
local count = done:add(1)
---@type boolean
local sent = scheduler.channel(1):send(1)

return { elapsed, status, text, waited, texts, closed, answer, count, sent }
