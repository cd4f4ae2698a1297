-- A program that knows no rules: it calls all functions that the library has, and all methods of what those give, with
-- arguments of all kinds, in any order, also from callbacks and in jobs. What it must get are results, or Lua errors.
--
--   lua spec/support/random_program.lua SEED ROUNDS
--
-- It writes what is wrong to stdout and ends with 1 then.

local seed, rounds = tonumber(arg[1]), tonumber(arg[2])
local scheduler = require("scheduler")
local unpack = table.unpack or unpack -- luacheck: ignore 113
local memory_limit = 2 ^ 22 -- of a worker

local CALLS = 40 -- in a round
local CALLS_IN_CALLBACK = 2
local SECONDS = 0.02 -- of a round, before it is left

-- Chance: the same in all interpreters.
local chance = seed
local function random(n)
  chance = (chance * 16807) % 2147483647
  return chance % n + 1
end
for _ = 1, 5 do
  random(2)
end

local function pick(list)
  return list[random(#list)]
end

-- What is wrong -----------------------------------------------------------------------------------------------------

local POISON = "an error of the program's own"
local faults = {}
local known = setmetatable({ [io.stdout] = true }, { __mode = "k" }) -- userdata that the program could raise itself

local function fault(text)
  faults[#faults + 1] = text
end

--- Errors are strings or tables, and tell of a mistake of the caller, not of one in the library.
local function look_at_error(err, what)
  if type(err) == "userdata" and not known[err] then fault(what .. ": raised a userdata: " .. tostring(err)) end
  if type(err) ~= "string" or err:find(POISON, 1, true) then return end
  local is_inside = err:find("%[scheduler%]/") and err:find("attempt to", 1, true)
  if is_inside or err:find("panic", 1, true) or err:find("not implemented", 1, true) then fault(what .. ": " .. err) end
end

scheduler.on_error(function(err)
  look_at_error(err, "uncaught")
end)

-- Arguments ---------------------------------------------------------------------------------------------------------

local things -- what earlier calls have given
local call_any

local NUMBERS = {
  0, -0.0, 1, 2, 3, 7, 0.5, 0.001, 0.002, -1, -0.5, 255, 1000, 2 ^ 31, 2 ^ 53, -2 ^ 63, 1e300, 1 / 0, -1 / 0, 0 / 0,
}
local STRINGS = {
  "", "a", "recv", "send", "f64", "i32", "u8", "keep", "skip", "burst", "allow", "collect", "first", "\0", "1",
  ("x"):rep(300), "%s%n", "\255\254", "Resolved", "n",
}
local OPTIONS = {
  "size", "queue", "timeout", "errors", "progress", "name", "init", "concurrency", "idle", "ordered", "chunk", "missed",
  "overlap", "immediate", "limit", "n", "on_progress", "signal", "memory_limit",
}

local make = {}

local function value(nesting)
  return pick(make)(nesting or 0)
end

local depth = 0 -- of calls in callbacks
local MOST_DEPTH = 20 -- LuaJIT crashes by itself when coroutines resume each other without end

local function callback()
  local kind, calls = random(8), random(CALLS_IN_CALLBACK)
  return function(...)
    if kind == 1 then error(POISON) end
    if kind == 2 then error({ POISON }) end
    if kind == 3 then return ... end
    if kind == 4 then return (...) end
    if kind == 5 then scheduler.task.wait(0.001) return 1 end
    if kind == 6 then return coroutine.yield(...) end
    for _ = 1, depth < MOST_DEPTH and calls or 0 do
      call_any()
    end
    return pick(NUMBERS)
  end
end

--- Runs in workers too: it has nothing of this program.
local JOBS = {
  function(...) return ... end,
  function() return nil end,
  function() error("raised in a job") end,
  function() error({ "raised in a job" }) end,
  function() require("scheduler").task.wait(0.002) return 1 end,
  function(...) return require("scheduler").parallel.run(function(...) return ... end, ...) end,
  function(channel) return channel:try_recv() end,
  function(channel) return channel:recv(0.01) end,
  function(channel, v) return channel:send(v, 0.01) end,
  function(t, k, v) t:set(k, v) return t:get(k) end,
  function(m) return m:with(function() return 1 end) end,
  function(...) return select("#", ...), collectgarbage("count") end,
}

local function raiser()
  error(POISON, 0)
end

local METATABLES = {
  { __index = raiser },
  { __newindex = raiser },
  { __tostring = raiser },
  { __tostring = function() return 7 end },
  { __call = function(_, ...) return ... end },
  { __call = raiser },
  { __eq = raiser, __lt = raiser, __len = raiser },
  { __metatable = "locked" },
  { __transfer = raiser },
  { __transfer = function() return 1 end },
  { __transfer = 7 },
  { __mode = "kv" },
  { andThen = function(_, resolve) if type(resolve) == "function" then resolve(1) end end },
}
METATABLES[#METATABLES].__index = METATABLES[#METATABLES]

make = {
  function() return nil end,
  function() return random(2) == 1 end,
  function() return pick(NUMBERS) end,
  function() return pick(NUMBERS) end,
  function() return random(6) end,
  function() return random(5) / 1000 end,
  function() return pick(STRINGS) end,
  function() return pick(STRINGS) end,
  callback,
  callback,
  callback,
  function() return pick(JOBS) end,
  function() return pick(JOBS) end,
  function() return coroutine.create(callback()) end,
  function() return io.stdout end,
  function() return scheduler end,
  function(nesting)
    local list = {}
    for i = 1, nesting < 3 and random(4) or 0 do
      list[i] = value(nesting + 1)
    end
    return list
  end,
  function(nesting)
    local options = {}
    for _ = 1, nesting < 3 and random(3) or 0 do
      options[pick(OPTIONS)] = value(nesting + 1)
    end
    return options
  end,
  function(nesting)
    local loop = { value(nesting + 1) }
    loop.loop = loop
    return setmetatable(loop, random(3) == 1 and pick(METATABLES) or nil)
  end,
}
-- Mostly what is right for methods and lists of them.
for _ = 1, 12 do
  make[#make + 1] = function()
    return #things > 0 and pick(things) or nil
  end
end

-- Calls -------------------------------------------------------------------------------------------------------------

local METHODS = {
  "acquire", "add", "andThen", "andThenCall", "andThenReturn", "await", "awaitStatus", "awaitValue", "available",
  "cancel", "catch", "clear", "close", "compare_exchange", "copy", "exchange", "expect", "fill", "finally",
  "finallyCall", "finallyReturn", "get", "getStatus", "is_closed", "is_locked", "is_set", "keys", "len", "load", "lock",
  "map", "now", "pairs", "pop", "push", "recv", "release", "run", "send", "set", "slice", "spawn", "stats", "store",
  "sub", "tap", "timeout", "tostring", "totable", "try_acquire", "try_lock", "try_pop", "try_push", "try_recv",
  "try_send", "unlock", "update", "wait", "with", "iter", "size", "child_ended", "fail", "hold", "prepare", "stop",
}

-- These are called by the rounds alone: they end or hold what tells of faults, write, or last as long as they are told.
-- Methods are reached through what they belong to.
local CLASSES = { ["Promise.prototype."] = true, ["Promise.Error."] = true }
local LEFT_OUT = { run = true, on_error = true, dump = true, ["clock.advance"] = true, watchdog = true }

-- These could end or hold up the timer that ends a round.
local COULD_END_TIMER = {
  clearTimeout = true, clearInterval = true, clearImmediate = true, unref = true, refresh = true,
  ["clock.pause"] = true,
}
local is_parking = false -- whether the loop of this round parks, and so needs that timer

local functions = {}
local function collect(from, prefix, seen)
  if seen[from] or CLASSES[prefix] then return end
  seen[from] = true
  for name, field in pairs(from) do
    local path = prefix .. tostring(name)
    if type(field) == "function" and not LEFT_OUT[path] then functions[#functions + 1] = { path, field } end
    if type(field) == "table" then collect(field, path .. ".", seen) end
  end
end

-- Some are made when they are asked for.
for _, name in ipairs({
  "clock", "parallel", "Promise", "await", "async", "promisify", "interval", "task", "coroutine", "pcall", "xpcall",
  "scope", "timeout", "shield", "execute_tasks", "semaphore", "mutex", "event", "shared", "channel", "select", "queue",
}) do
  assert(scheduler[name], name)
end
collect(scheduler, "", {})
-- In an order that is the same in all interpreters.
table.sort(functions, function(a, b)
  return a[1] < b[1]
end)
assert(#functions > 70)

local KEPT = { table = true, userdata = true, thread = true, number = true }

local function keep(...)
  for i = 1, select("#", ...) do
    local thing = select(i, ...)
    if KEPT[type(thing)] then things[#things % 40 + 1] = thing end
    if type(thing) == "userdata" then known[thing] = true end
  end
end

local function after_call(what, ok, ...)
  if ok then return keep(...) end
  look_at_error((...), what)
end

local function arguments()
  local list = { n = random(5) - 1 }
  for i = 1, list.n do
    list[i] = value()
  end
  return list
end



local function method_of(thing)
  local ok, method = pcall(function()
    return thing[pick(METHODS)]
  end)
  return ok and method
end

--- Calls something in a task of its own, in which it may wait.
function call_any()
  local what, fn, list
  if #things > 0 and random(2) == 1 then
    local thing = pick(things)
    fn, list, what = method_of(thing), arguments(), "a method of a " .. type(thing)
    if not fn then return end
    -- Methods in Lua take it that they are called as such.
    table.insert(list, 1, (type(thing) == "table" or random(20) > 1) and thing or value())
    list.n = list.n + 1
  else
    local entry = pick(functions)
    what, fn, list = entry[1], entry[2], arguments()
    if is_parking and COULD_END_TIMER[what] then return end
  end
  if os.getenv("PROGRAM_SHOW") then io.stderr:write(what, " ", list.n, "\n") end
  depth = depth + 1
  scheduler.task.spawn(function()
    after_call(what, scheduler.pcall(fn, unpack(list, 1, list.n)))
  end)
  depth = depth - 1
end

--- Things that many functions are about, to begin with.
local function beginnings()
  local shared = scheduler.shared
  return {
    scheduler.channel(), scheduler.channel(2),
    shared.atomic(1), shared.buffer("f64", 8), shared.table(), shared.mutex(),
    scheduler.mutex(), scheduler.event(), scheduler.queue(2), scheduler.semaphore(2), scheduler.Promise.delay(0.001),
    scheduler.parallel.pool({ size = 1, queue = random(3), memory_limit = memory_limit }), scheduler.Promise.reject(1),
    scheduler.task.spawn(function() scheduler.task.wait(0.001) end), scheduler.parallel.run(JOBS[1], 1),
  }
end

local function round()
  things = {}
  is_parking = random(2) == 1
  keep(unpack(beginnings()))
  for _ = 1, CALLS do
    call_any()
  end
  local ok, err = true, nil
  if is_parking then
    scheduler.setTimeout(scheduler.stop, SECONDS * 1000)
    ok, err = pcall(scheduler.run)
  else
    local deadline = os.clock() + SECONDS
    while ok and os.clock() < deadline do
      ok, err = pcall(scheduler.poll)
    end
  end
  if not ok then look_at_error(err, "the loop") end
  scheduler.clock.resume()
  scheduler.on_error(function(uncaught)
    look_at_error(uncaught, "uncaught")
  end)
  if random(4) == 1 then collectgarbage() end
end

for _ = 1, rounds do
  round()
end
for _, text in ipairs(faults) do
  print(text)
end
if #faults > 0 then os.exit(1) end
local endings = {
  function() end,
  function() os.exit(0) end,
  function() os.exit(0, true) end,
}
pick(endings)()
