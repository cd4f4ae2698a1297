-- Shows how a build goes on: in one line that is rewritten if stdout is a terminal, else in a line for each step that
-- is done.

local scheduler = require("scheduler")
local command = require("build.command")

local REDRAW_MS = 50
local COLUMNS = 79
local ERASE_LINE = "\r\27[K"

local is_terminal = command.succeeds("test -t 1")

local Progress = {}
Progress.__index = Progress

local progress = {}

function progress.start(total)
  local self = setmetatable({ total = total, done = 0, active = {}, since = scheduler.now() }, Progress)
  self.redraw = is_terminal and scheduler.setInterval(self.draw, REDRAW_MS, self) or nil
  return self
end

function Progress:seconds()
  return (scheduler.now() - self.since) / 1000
end

function Progress:draw()
  local line = ("[%d/%d] %.1f s: %s"):format(self.done, self.total, self:seconds(), table.concat(self.active, ", "))
  io.write(ERASE_LINE, line:sub(1, COLUMNS))
  io.flush()
end

function Progress:begun(name)
  table.insert(self.active, name)
end

--- Notes that a step has ended; `seconds` is what it took if it is done, nil if it failed or was cancelled.
function Progress:ended(name, seconds)
  for i, active in ipairs(self.active) do
    if active == name then table.remove(self.active, i) break end
  end
  if not seconds then return end
  self.done = self.done + 1
  if not is_terminal then print(("[%d/%d] %s, %.2f s"):format(self.done, self.total, name, seconds)) end
end

--- Ends the line, so that other things can be written.
function Progress:close()
  scheduler.clearInterval(self.redraw)
  if is_terminal then io.write(ERASE_LINE) end
end

return progress
