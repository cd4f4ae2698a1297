-- What the clauses of Promises/A+ are tried with.

local scheduler = require("scheduler")
local settled = require("spec.support.settled")

local task, later = scheduler.task, settled.later

-- Compared by identity: no other value can be taken for them.
local VALUE, OTHER = { "the value" }, { "the other value" }

local function append_to(list, name)
  return function()
    list[#list + 1] = name
  end
end

local function raise(value)
  return function()
    error(value, 0)
  end
end

local function give(value)
  return function()
    return value
  end
end

--- Defines a test for each way in which a promise comes to be settled; `it` is busted's, and calls `test(way)`.
local function each_way(it, name, test)
  for _, way in ipairs(settled.WAYS) do
    it(name .. ", " .. way.name, function()
      test(way)
    end)
  end
end

-- Much holds for both handlers alike.
local SIDES = {
  {
    clause = "2.2.2", order = "2.2.6.1", handler = "onResolved", status = "resolved", opposite = "rejected",
    values = settled.VALUES,
    on = function(promise, fn) return promise:andThen(fn) end,
    on_opposite = function(promise, fn) return promise:andThen(nil, fn) end,
  },
  {
    clause = "2.2.3", order = "2.2.6.2", handler = "onRejected", status = "rejected", opposite = "resolved",
    values = settled.REASONS,
    on = function(promise, fn) return promise:andThen(nil, fn) end,
    on_opposite = function(promise, fn) return promise:andThen(fn) end,
  },
}

--- Defines tests for both handlers, each with promises settled in each way; `test(side, way)`.
local function each_side_and_way(it, name, test)
  for _, side in ipairs(SIDES) do
    each_way(it, name:gsub("HANDLER", side.handler):gsub("CLAUSE", side.clause), function(way)
      test(side, way)
    end)
  end
end

--- When two things are done: a name, and a function that does them.
local TIMINGS = {
  { "both at once", function(first, second)
    first()
    second()
  end },
  { "the second later", function(first, second)
    first()
    later(second)
  end },
  { "both later", function(first, second)
    later(first)
    later(second)
  end },
  { "both later, in one callback", function(first, second)
    later(function()
      first()
      second()
    end)
  end },
  { "the second in a microtask", function(first, second)
    first()
    scheduler.queueMicrotask(second)
  end },
  { "by tasks", function(first, second)
    task.spawn(function()
      task.wait(0.01)
      first()
    end)
    task.spawn(function()
      task.wait(0.02)
      second()
    end)
  end },
}

return {
  append_to = append_to,
  raise = raise,
  give = give,
  each_way = each_way,
  SIDES = SIDES,
  each_side_and_way = each_side_and_way,
  TIMINGS = TIMINGS,
  VALUE = VALUE,
  OTHER = OTHER,
}
