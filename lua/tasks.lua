-- The tasks that are alive, and what each of them waits for.
--
-- There is no list of them: to keep one would cost more than all else that a short task takes, and memory for each that
-- sleeps. But what is to go on is kept where it will be found when its time has come: by a timer, in a queue, in a list
-- of waiters. So tasks are looked for there. Those that nothing of ours keeps, as they are parked in a yield of their
-- own, are noted when they yield; and those that run lie on the stacks of those that have resumed them.

local native, looking, compat, wait, outcome, waiters, loop, task = ...

local getinfo, traceback = compat.getinfo, compat.traceback
local floor, huge, max = math.floor, math.huge, math.max
local getmetatable, ipairs, pairs, type = getmetatable, ipairs, pairs, type
local status = coroutine.status
local concat, sort = table.concat, table.sort
local find_in, format, gmatch, gsub = string.find, string.format, string.gmatch, string.gsub
local MAIN, token_of = wait.MAIN, wait.token_of
local describe, origin_of = outcome.describe, outcome.origin_of

local NANOS_PER_SECOND = 1e9

local tasks = {}

-- Finding them ------------------------------------------------------------------------------------------------------

--- The coroutine that is to go on by an entry of a queue or a timer; nil if it is something else, a callback say, which
--- may be a table that can be called.
local function coroutine_of(entry)
  if type(entry) == "table" and getmetatable(entry) == nil then entry = entry.co end
  return type(entry) == "thread" and entry or nil
end

--- Calls `visit(co)` for the coroutines that run: the one that the loop has resumed, then the one that this has.
local function each_running(visit)
  local running, co = native.thread(), loop.thread
  while co and co ~= running do
    co = looking.resumed_by(co)
    if co and not wait.protected_in[co] and (outcome.origins[co] ~= nil or outcome.is_task(co)) then visit(co) end
  end
end

local function each_listed(visit)
  for list in pairs(waiters.lists) do
    local node = list.first
    while node do
      visit(node)
      node = node.after
    end
  end
  for _, node in pairs(loop.places) do
    visit(node)
  end
end

--- Calls `visit(co)` for each task that is alive; for some more than once.
local function each(visit)
  local function visit_entry(entry)
    local co = coroutine_of(entry)
    if co then visit(co) end
  end
  each_running(visit)
  wait.each_queued(visit_entry)
  loop.each_deferred(visit_entry)
  for _, entry in pairs(loop.callbacks) do
    visit_entry(entry)
  end
  each_listed(visit_entry)
  for _, known in ipairs({ outcome.parked, outcome.watches }) do
    for co in pairs(known) do
      visit(co)
    end
  end
end

local function is_alive(co)
  if status(co) == "dead" then return false end
  local result = outcome.of(co)
  return not (result and result.cancelled)
end

--- All tasks that are alive: a list.
local function find()
  local found, seen = {}, {}
  each(function(co)
    if seen[co] then return end
    seen[co] = true
    if is_alive(co) then found[#found + 1] = co end
  end)
  return found
end

function tasks.count()
  return #find()
end

-- What they wait for ------------------------------------------------------------------------------------------------

local function seconds(number)
  return format(number < 100 and "%.3g s" or "%.0f s", number)
end

local function time_left(id)
  local left = looking.time_left(id)
  if left == huge then return "a timer that never fires" end
  return "a timer that is due in " .. seconds(left or 0)
end

local function channels(node)
  local count = #node
  if count > 1 then return format("one of %d channels", count) end
  local name = "channel " .. (native.channel_number(node[1]) or "?")
  return (node.sends and "a receiver or room in " or "a message from ") .. name
end

--- What a node waits for, in words, and that thing itself.
local function object_of(node)
  local list = node.list
  if node.joins then return describe(node.joins), node.joins end
  if node.awaits then return loop.describe_promise(node.awaits), node.awaits end
  if node.anchors then return channels(node), node[1] end
  local words, object = list.what or "what others do", list.of or node.of
  local owner = type(object) == "table" and object.owner
  if owner then words = words .. ", which " .. describe(owner) .. " holds" end
  return words, object
end

--- What a coroutine waits for by this token, in words, and that thing itself, if it is one of the program's.
local function waits_for(token)
  if type(token) == "number" and token > 0 then return time_left(token) end
  if type(token) ~= "table" or not token.co then return nil end
  if not token.list then return token.timer and "its start: " .. time_left(token.timer) or nil end
  local words, object = object_of(token)
  local left = token.timer and looking.time_left(token.timer)
  if left and left < huge then words = words .. ", for " .. seconds(left) .. " at the most" end
  return words, object
end

--- "file:line" where a coroutine is suspended in the program's code.
local function place(co)
  local level, info = 0, getinfo and getinfo(co, 0, "Sl")
  while info and (info.currentline <= 0 or compat.is_own(info.source)) do
    level = level + 1
    info = getinfo(co, level, "Sl")
  end
  return info and info.short_src .. ":" .. info.currentline
end

--- What is told of a task at a moment, in nanoseconds.
local function look(co, now)
  local origin, state = origin_of(co), task.status(co)
  local entry = {
    task = co,
    name = outcome.names[co],
    description = describe(co),
    state = state,
    at = place(co),
    traceback = traceback and traceback(co) or "",
  }
  if state == "waiting" then entry.waits_for, entry.object = waits_for(token_of(co) or wait.scheduled(co)) end
  if type(origin) == "number" then
    local began = looking.began(origin)
    -- To a hundredth of a second: an origin tells no more.
    entry.origin = looking.place(origin)
    entry.age = began and floor(max(now - began, 0) / NANOS_PER_SECOND * 100) / 100
  end
  return entry
end

--- `scheduler.tasks`: the oldest first, those whose age is not known last.
function tasks.list()
  local list, position, now = {}, {}, native.time()
  for i, co in ipairs(find()) do
    list[i] = look(co, now)
    position[list[i]] = i
  end
  sort(list, function(a, b)
    local age, other = a.age or -1, b.age or -1
    if age ~= other then return age > other end
    return position[a] < position[b]
  end)
  return list
end

tasks.find, tasks.each_listed, tasks.waits_for, tasks.place = find, each_listed, waits_for, place

-- Printing ----------------------------------------------------------------------------------------------------------

--- The lines of a traceback that are the program's.
local function own_lines(text)
  local lines = {}
  for line in gmatch(text, "[^\n]+") do
    local is_ours = find_in(line, "[scheduler]/", 1, true) or find_in(line, "^stack traceback")
    -- In front of the program's first line are the yield, and functions of ours that have called another in the end.
    local leads = #lines == 0 and (find_in(line, "[C]", 1, true) or find_in(line, "tail call", 1, true))
    if not is_ours and not leads then
      lines[#lines + 1] = "    " .. gsub(line, "^%s+", "")
    end
  end
  return lines
end

local function ms(span)
  return format("%.3g ms", span * 1e3)
end

local function headline(stats, list)
  local counts, states = {}, {}
  for _, entry in ipairs(list) do
    counts[entry.state] = (counts[entry.state] or 0) + 1
  end
  for _, state in ipairs({ "running", "normal", "ready", "waiting", "parked" }) do
    if counts[state] then states[#states + 1] = counts[state] .. " " .. state end
  end
  local how_many = #list == 1 and "1 task" or #list .. " tasks"
  if #states > 0 then how_many = how_many .. " (" .. concat(states, ", ") .. ")" end
  local form = "scheduler: %s; %d timers and sleepers, %d jobs; %d turns, the median of %s, the longest of %s"
  return format(
    form, how_many, stats.timers_pending, stats.jobs_pending, stats.turns, ms(stats.turn.p50), ms(stats.turn.max)
  )
end

--- A task in words; alike for those that were spawned at one place and wait at one place for the same.
local function describe_entry(entry)
  local text = entry.description .. ": " .. entry.state
  if entry.waits_for then text = text .. ", for " .. gsub(entry.waits_for, "%d[%d.e+-]* s", "some time") end
  return text, concat(own_lines(entry.traceback), "\n")
end

--- The entries in groups of those that are alike, in the order of the first of each.
local function group(list)
  local groups, by_text = {}, {}
  for _, entry in ipairs(list) do
    local words, lines = describe_entry(entry)
    local key = words .. "\n" .. lines
    local one = by_text[key]
    if not one then
      one = { first = entry, lines = lines, count = 0, oldest = 0 }
      by_text[key], groups[#groups + 1] = one, one
    end
    one.count, one.oldest = one.count + 1, max(one.oldest, entry.age or 0)
  end
  return groups
end

local function age_of(one)
  if not one.first.age then return "" end
  return format(one.count > 1 and ", up to %s ago" or ", %s ago", seconds(one.oldest))
end

--- All that is alive, in words.
function tasks.describe(stats)
  local list = tasks.list()
  local lines = { headline(stats, list) }
  if wait.is_main_waiting() then
    lines[#lines + 1] = "the main thread: waiting, for " .. (waits_for(token_of(MAIN)) or "its turn")
  end
  for _, one in ipairs(group(list)) do
    local entry = one.first
    local line = entry.description .. age_of(one) .. ": " .. entry.state
    if entry.waits_for then line = line .. ", for " .. entry.waits_for end
    if one.count > 1 then line = format("%s (%d alike)", line, one.count) end
    lines[#lines + 1] = line
    if one.lines ~= "" then lines[#lines + 1] = one.lines end
  end
  return concat(lines, "\n") .. "\n"
end

return tasks
