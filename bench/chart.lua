-- Draws the results as pictures: one SVG for each measurement that is worth one, from bench/RESULTS.md.
--
--   lua5.4 bench/chart.lua     draws all into bench/charts/
--
-- The colours follow the reader's choice of light or dark, and every picture has a background of its own, so that it
-- can be read on any page.

local RESULTS, FOLDER = "bench/RESULTS.md", "bench/charts/"

local chart = {}

--- What is drawn, in the order in which pages show it. `title` says what is measured.
chart.pictures = {
  { workload = "timers_create", measurement = "create", title = "Timers: set a million" },
  { workload = "timers_cancel", measurement = "cancel", title = "Timers: take a million back" },
  { workload = "timers_fire", measurement = "fire", title = "Timers: set and fire a million" },
  { workload = "intervals", measurement = "late_p99", title = "100 intervals of 1 ms: lateness, p99" },
  { workload = "switch", measurement = "switch", title = "Tasks: give way to each other" },
  { workload = "spawn", measurement = "spawn", title = "Tasks: create and run a million" },
  { workload = "sleepers", measurement = "wall", title = "A million sleeping tasks: time" },
  { workload = "sleepers", measurement = "bytes", title = "A million sleeping tasks: memory of each" },
  { workload = "promises", measurement = "settle", title = "Promises: resolve, and run a handler" },
  { workload = "promises", measurement = "all", title = "Promises: gather 10,000 by all" },
  { workload = "parallel", measurement = "speedup", title = "Parallel: speed-up on two cores" },
  { workload = "jobs", measurement = "map", title = "Parallel: an item of a map" },
  { workload = "jobs", measurement = "run", title = "Parallel: a job of its own" },
  { workload = "workers", measurement = "start", title = "Parallel: start and end a worker" },
  { workload = "channels", measurement = "round_trip", title = "Channels: a number there and back" },
  { workload = "channels", measurement = "integer", title = "Channels: numbers, one way" },
  { workload = "channels", measurement = "string_1k", title = "Channels: strings of 1 KiB" },
  { workload = "channels", measurement = "table", title = "Channels: tables of 100 numbers" },
  { workload = "start", measurement = "require", title = "What require takes" },
}

local GROUPS = { ["lua5.4"] = "Lua 5.4", luajit = "LuaJIT" }
local GROUP_ORDER = { "Lua 5.4", "LuaJIT", "other languages" }
--- Peers that stand in a group of their own, since they are no Lua; and names that say more than those of the tables.
local NAMES = { node = "Node", python = "Python", crossbeam = "Rust", raw = "bare" }
local OTHERS = { node = true, python = true, crossbeam = true }

--- Units of which more is better; of all others less is.
local MORE_IS_BETTER = { ["M ops/s"] = true, ["k/s"] = true, ["×"] = true }

-- Reading -----------------------------------------------------------------------------------------------------------

local function split_row(line)
  local cells = {}
  for cell in line:gmatch("|([^|]*)") do
    cells[#cells + 1] = cell:match("^%s*(.-)%s*$")
  end
  return cells
end

--- A figure as it is shown: of a long one the fraction says nothing, and commas help.
local function shorten(figure)
  local value = tonumber(figure)
  if value < 1000 then return figure end
  local digits = ("%d"):format(math.floor(value + 0.5))
  return (digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

--- A row of a table of results; nil for other lines.
local function read_row(line)
  local cells = split_row(line)
  local value, unit = (cells[4] or ""):match("^([%d.]+) ?(.*)$")
  if not value then return end
  local lowest, highest = cells[5]:match("^([%d.]+) – ([%d.]+)$")
  return {
    interpreter = cells[1],
    measurement = cells[2],
    peer = cells[3],
    value = tonumber(value),
    shown = shorten(value),
    unit = unit,
    lowest = tonumber(lowest or value),
    highest = tonumber(highest or value),
  }
end

--- The rows of each workload, by its name.
function chart.read(text)
  local workloads, rows = {}, nil
  for line in text:gmatch("[^\n]+") do
    local name = line:match("^`([%w_]+)`: ")
    if name then
      rows = {}
      workloads[name] = rows
    end
    local row = rows and read_row(line)
    if row then rows[#rows + 1] = row end
  end
  return workloads
end

--- The rows of a picture in groups: those of each interpreter, then those of other languages, once each.
local function groups_of(rows, measurement)
  local groups, seen = {}, {}
  for _, row in ipairs(rows) do
    local is_other = OTHERS[row.peer]
    local group = is_other and "other languages" or GROUPS[row.interpreter]
    local key = group and (group .. row.peer)
    if row.measurement == measurement and key and not seen[key] then
      seen[key] = true
      groups[group] = groups[group] or {}
      table.insert(groups[group], row)
    end
  end
  return groups
end

-- Drawing -----------------------------------------------------------------------------------------------------------

local WIDTH, LEFT, RIGHT, TOP = 400, 92, 84, 58 -- of the picture; where bars begin, and room for figures behind them
local BAR, ROW, GAP = 14, 20, 24

local STYLE = [[
  .paper { fill: #ffffff; stroke: #d8dee4 }
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .quiet { fill: #59636e; font-size: 12px }
  .ours { font-weight: 600 }
  .bar { fill: #afb8c1 }
  .bar.ours { fill: #2f6fdb }
  .range { stroke: #1f2328; stroke-opacity: .55 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #161b22; stroke: #30363d }
    text { fill: #e6edf3 }
    .quiet { fill: #9198a1 }
    .bar { fill: #545d68 }
    .bar.ours { fill: #4c8dff }
    .range { stroke: #e6edf3 }
  }]]

local function escape(text)
  return (text:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

local Drawing = {}
Drawing.__index = Drawing

function Drawing:add(form, ...)
  self.lines[#self.lines + 1] = form:format(...)
end

function Drawing:text(x, y, class, text)
  self:add('<text x="%d" y="%d" class="%s">%s</text>', x, y, class, escape(text))
end

--- A bar with its name before it and its figure behind it; a line shows how far the rounds lie apart. Positions are
--- whole: of a fraction the interpreters write different digits.
function Drawing:bar(row)
  local room = WIDTH - LEFT - RIGHT
  local function x_of(value)
    return LEFT + math.floor(value / self.longest * room + 0.5)
  end
  local ours = row.peer == "scheduler" and " ours" or ""
  local middle = self.y + math.floor(BAR / 2)
  self:add('<text x="%d" y="%d" class="name%s" text-anchor="end">%s</text>', LEFT - 8, self.y + 12, ours,
    escape(NAMES[row.peer] or row.peer))
  self:add('<rect x="%d" y="%d" width="%d" height="%d" rx="2" class="bar%s"/>', LEFT, self.y,
    math.max(x_of(row.value) - LEFT, 1), BAR, ours)
  self:add('<line x1="%d" x2="%d" y1="%d" y2="%d" class="range"/>', x_of(row.lowest), x_of(row.highest), middle, middle)
  self:text(x_of(math.max(row.highest, row.value)) + 6, self.y + 12, "figure" .. ours, row.shown)
  self.y = self.y + ROW
end

function Drawing:group(name, rows)
  if not rows then return end
  self:text(LEFT, self.y + 11, "quiet", name)
  self.y = self.y + GAP - 6
  for _, row in ipairs(rows) do
    self:bar(row)
  end
  self.y = self.y + 6
end

--- All figures in words, for who cannot see the picture.
local function in_words(groups, unit)
  local parts = {}
  for _, name in ipairs(GROUP_ORDER) do
    for _, row in ipairs(groups[name] or {}) do
      parts[#parts + 1] = ("%s, %s: %s"):format(name, NAMES[row.peer] or row.peer, row.shown)
    end
  end
  return table.concat(parts, "; ") .. " (" .. unit .. ")"
end

--- A picture as SVG; nil if nothing of it was measured.
function chart.draw(picture, rows)
  local groups = groups_of(rows or {}, picture.measurement)
  local _, first = next(groups)
  if not first then return end
  local unit, longest = first[1].unit, 0
  for _, group in pairs(groups) do
    for _, row in ipairs(group) do
      longest = math.max(longest, row.highest)
    end
  end
  local self = setmetatable({ lines = {}, y = TOP, longest = longest }, Drawing)
  self:text(16, 26, "title", picture.title)
  self:text(16, 44, "quiet", unit .. (MORE_IS_BETTER[unit] and ", longer is better" or ", shorter is better"))
  for _, name in ipairs(GROUP_ORDER) do
    self:group(name, groups[name])
  end
  local head = {
    ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">'):format(
      WIDTH, self.y + 8, WIDTH, self.y + 8),
    ("<title>%s</title>"):format(escape(picture.title)),
    ("<desc>%s</desc>"):format(escape(in_words(groups, unit))),
    ("<style>\n%s\n</style>"):format(STYLE),
    ('<rect x=".5" y=".5" width="%d" height="%d" rx="8" class="paper"/>'):format(WIDTH - 1, self.y + 7),
  }
  return table.concat(head, "\n") .. "\n" .. table.concat(self.lines, "\n") .. "\n</svg>\n"
end

function chart.name_of(picture)
  return picture.workload .. "_" .. picture.measurement .. ".svg"
end

--- Draws all pictures from the results that were written last; returns how many.
function chart.draw_all()
  local file = assert(io.open(RESULTS, "rb"))
  local workloads, count = chart.read(file:read("*a")), 0
  file:close()
  os.execute("mkdir -p " .. FOLDER)
  for _, picture in ipairs(chart.pictures) do
    local svg = chart.draw(picture, workloads[picture.workload])
    if svg then
      local out = assert(io.open(FOLDER .. chart.name_of(picture), "wb"))
      out:write(svg)
      out:close()
      count = count + 1
    end
  end
  return count
end

if arg and arg[0] and arg[0]:find("chart%.lua$") then
  print(("%d pictures in %s"):format(chart.draw_all(), FOLDER))
end

return chart
