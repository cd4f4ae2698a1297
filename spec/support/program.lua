-- Random programs of tasks, for `spec/model_spec.lua`: what the module and its model (model.lua) both run.
--
-- A program is a list of bodies, and `program[0]`, the operations of the main thread. A body is a list of operations,
-- `returns`, and its kind: "function" and "coroutine" are bodies of tasks, made from a function or as a coroutine of
-- the program's own; "callback" are those of timers, immediates and microtasks. Each body runs once at the most, so
-- that its number is the name of its task, and each operation runs once at the most. An operation has a `kind`, and as
-- it needs them
--
--   target     the number of a body; a body that no task runs yet is started by spawn, defer and delay
--   ms         a time
--   values     what is passed on
--   protected  whether the wait is made inside of a protected call
--   skip       set by the model: it has no rule for this, the module is not to be asked

local program = {}

-- Random numbers -----------------------------------------------------------------------------------------------------

--- A generator of random numbers (Park and Miller's) that is the same in every Lua. `random(n)` is from 1 to n.
local function generator(seed)
  local state = seed % 2147483646 + 1
  return function(n)
    state = state * 16807 % 2147483647
    return state % n + 1
  end
end

--- A function that picks from a table of weights by name, of which some are left out: rare ones meet more often then.
local function picker(random, weights)
  local names, sum = {}, 0
  for name in pairs(weights) do
    names[#names + 1] = name
  end
  table.sort(names)
  local picked = {}
  for _, name in ipairs(names) do
    local weight = random(4) == 1 and 0 or weights[name]
    sum = sum + weight
    picked[#picked + 1] = { name = name, upto = sum }
  end
  return function()
    local at = sum > 0 and random(sum)
    for _, choice in ipairs(picked) do
      if at and at <= choice.upto then return choice.name end
    end
    return names[random(#names)]
  end
end

-- Making -------------------------------------------------------------------------------------------------------------

local ANYWHERE = {
  spawn = 6, defer = 4, delay = 4, resume = 10, cancel = 2, status = 2, timeout = 1, immediate = 1, microtask = 1,
  clear = 1,
}
local IN_TASK = { wait = 8, pass = 6, yield = 8, join = 12, park = 2, fail = 1 }
local ON_MAIN = { advance = 3, poll = 6 }

local FOR_CALLBACK = { timeout = true, immediate = true, microtask = true, clear = true }
local WAITS = { "wait", "wait", "pass", "yield", "join" }
local TIMES = { 0, 1, 1, 1, 2, 2, 3, 5 }

local function union(a, b)
  local all = {}
  for _, weights in ipairs({ a, b }) do
    for name, weight in pairs(weights) do
      all[name] = weight
    end
  end
  return all
end

IN_TASK, ON_MAIN = union(ANYWHERE, IN_TASK), union(ANYWHERE, ON_MAIN)

--- Makes lists of values with their count; the strings in them are never the same.
local function values_maker(random)
  local number = 0
  return function()
    number = number + 1
    local name, form = "v" .. number, random(6)
    if form <= 2 then return { n = 0 } end
    if form == 3 then return { n = 1 } end
    if form == 4 then return { n = 1, name } end
    if form == 5 then return { n = 2, nil, name } end
    return { n = 3, name, false, nil }
  end
end

local function wait_time(random)
  local form = random(12)
  if form <= 3 then return nil end
  if form == 4 then return -1 end
  if form == 5 and random(3) == 1 then return math.huge end
  return TIMES[random(#TIMES)]
end

--- A random program. The same seed makes the same one.
function program.make(seed)
  local random = generator(seed)
  -- The first numbers of neighbouring seeds are alike.
  for _ = 1, 3 do
    random(2)
  end
  local values = values_maker(random)
  local tasks, callbacks = random(6) + 1, random(4) - 1
  local in_task, on_main = picker(random, IN_TASK), picker(random, ON_MAIN)

  local function operation(kind, in_callback)
    local op = { kind = kind, values = values() }
    op.target = FOR_CALLBACK[kind] and tasks + random(math.max(callbacks, 1)) or random(tasks)
    op.ms = kind == "wait" and wait_time(random) or kind ~= "wait" and TIMES[random(#TIMES)] or nil
    op.protected = random(4) == 1
    -- There is nobody who would go on with a callback that is parked.
    if in_callback and (kind == "yield" or kind == "park") then op.kind = "wait" end
    return op
  end

  local function body(kind, most)
    local list = { kind = kind, returns = values() }
    for i = 1, random(most) do
      list[i] = operation(in_task(), kind == "callback")
    end
    -- Otherwise most tasks would have ended when the others come to them.
    if random(2) == 1 then table.insert(list, 1, operation(WAITS[random(#WAITS)], kind == "callback")) end
    return list
  end

  local made = { seed = seed }
  for i = 1, tasks do
    made[i] = body(random(3) == 1 and "coroutine" or "function", 8)
  end
  for i = tasks + 1, tasks + callbacks do
    made[i] = body("callback", 4)
  end
  made[0] = {}
  for i = 1, 8 + random(16) do
    made[0][i] = operation(on_main())
  end
  table.insert(made[0], { kind = "advance", ms = 50 })
  return made
end

-- Printing -----------------------------------------------------------------------------------------------------------

--- Values in words.
function program.show(values)
  local words = {}
  for i = 1, values.n do
    words[i] = tostring(values[i])
  end
  return "(" .. table.concat(words, ", ") .. ")"
end

local PARTS = {
  spawn = { "target", "values" }, defer = { "target", "values" }, delay = { "ms", "target", "values" },
  resume = { "target", "values" }, cancel = { "target" }, status = { "target" }, join = { "target", "protected" },
  timeout = { "ms", "target", "values" }, immediate = { "target", "values" }, microtask = { "target", "values" },
  clear = { "target" }, wait = { "ms", "protected" }, pass = { "protected" }, yield = { "values", "protected" },
  park = { "ms", "values" }, fail = {}, advance = { "ms" }, poll = {},
}

local function describe(op)
  local words = { op.kind }
  for _, part in ipairs(PARTS[op.kind]) do
    local value = op[part]
    if part == "values" then
      value = program.show(value)
    elseif part == "ms" then
      value = value and value .. "ms"
    elseif part == "protected" then
      value = value and "protected"
    end
    if value then words[#words + 1] = tostring(value) end
  end
  return table.concat(words, " ") .. (op.skip and " [skipped]" or "")
end

--- The numbers of the bodies that a program may run.
local function used(made)
  local is_used = { [0] = true }
  for i = 0, #made do
    for _, op in ipairs(made[i]) do
      if op.target then is_used[op.target] = true end
    end
  end
  return is_used
end

--- A program in words.
function program.describe(made)
  local lines, is_used = {}, used(made)
  for i = 0, #made do
    local body, words = made[i], {}
    for _, op in ipairs(body) do
      words[#words + 1] = describe(op)
    end
    if i > 0 then words[#words + 1] = "return " .. program.show(body.returns) end
    if is_used[i] then
      lines[#lines + 1] = (i == 0 and "main" or body.kind .. " " .. i) .. ": " .. table.concat(words, "; ")
    end
  end
  return table.concat(lines, "\n")
end

-- Shrinking ----------------------------------------------------------------------------------------------------------

--- Takes out of a program all operations without which `fails(program)` is still true.
function program.shrink(made, fails)
  local has_shrunk
  repeat
    has_shrunk = false
    for i = 0, #made do
      local body = made[i]
      for at = #body, 1, -1 do
        local op = table.remove(body, at)
        if fails(made) then
          has_shrunk = true
        else
          table.insert(body, at, op)
        end
      end
    end
  until not has_shrunk
  return made
end

return program
