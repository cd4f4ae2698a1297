-- Uses the module that was installed into a tree: `lua try.lua TREE VERSION`, with the tree in the paths.

local tree, version = ...
local path = package.searchpath and package.searchpath("scheduler", package.cpath)
assert(not path or path:sub(1, #tree) == tree, "another module is found first")

local scheduler = require("scheduler")
assert(scheduler._VERSION == version, "it says that it is " .. scheduler._VERSION)

local heard = {}
scheduler.setTimeout(function() heard[#heard + 1] = "timer" end, 2)
scheduler.task.spawn(function()
  scheduler.task.wait(0.004)
  heard[#heard + 1] = "task"
end)
scheduler.run()
assert(table.concat(heard, " ") == "timer task", table.concat(heard, " "))

--- Loads the module in its worker as well.
local function wait_there(n)
  require("scheduler").task.wait(0.001)
  return n + 1
end
assert(scheduler.await(scheduler.parallel.run(wait_there, 41)) == 42)
