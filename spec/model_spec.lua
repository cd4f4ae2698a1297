-- Random programs of tasks, run by the module and by a model of its rules: the same must happen, in the same order and
-- at the same time.
--
-- Each run takes other programs. When one fails, its seed is printed; MODEL_SEED=<seed> runs that program alone, and
-- MODEL_SECONDS=<n> as many programs as there is time for.

local scheduler = require("scheduler")
local model = require("spec.support.model")
local program = require("spec.support.program")
local virtual = require("spec.support.virtual")

local task, show = scheduler.task, program.show
local pack = table.pack or function(...)
  return { n = select("#", ...), ... }
end
local unpack = table.unpack or unpack

local SECONDS = tonumber(os.getenv("MODEL_SECONDS"))
local PROGRAMS_PER_SECOND = 5000 -- at the most: so no two runs take the same seeds
local PROGRAMS = SECONDS and math.huge or 5000
SECONDS = SECONDS or 4 -- of processor time, whether all programs have run or not

-- Seeds that have found a fault once.
local FOUND = {
  8976329857841, 8976329930477, 8976330010837, -- joiners of a task that other code resumed to its end waited for ever
  8976330120018, -- a task that was queued and then scheduled anew lost its next wake-up
  8976330235039, -- a task that was resumed while it waited for the next turn gave way for a whole turn
  8976330335657, -- what the last microtask made ready came after what was deferred
  8976330440083, -- a join that was given up was taken for part of a cycle
}

-- The module's side ---------------------------------------------------------------------------------------------------

local Player = {}
Player.__index = Player

function Player:note(who, text)
  self.trace[#self.trace + 1] = ("%gms, %s: %s"):format(virtual.since(self.start), who, text)
end

--- An error in the words of the model.
local function in_words(err)
  if type(err) == "table" then return err.kind or "a table" end
  if type(err) ~= "string" then return tostring(err) end
  if err:find("would never end", 1, true) then return "cycle" end
  return err
end

local function is_refused(err)
  return type(err) == "string" and (err:find("bad argument #%d to") or err:find("cannot resume")) ~= nil
end

--- Values in words.
local function show_all(...)
  local values = pack(...)
  for i = 1, values.n do
    if values[i] == scheduler.pending then values[i] = "pending" end
  end
  return show(values)
end

--- The function of a body, to be run as a task or a callback.
function Player:body(number)
  local body = self.program[number]
  return function(...)
    local co = coroutine.running()
    if self.coroutines[number] and self.coroutines[number] ~= co then self:note(number, "runs elsewhere") end
    self.coroutines[number] = co
    self:note(number, "starts with " .. show_all(...))
    for _, op in ipairs(body) do
      self:perform(number, op)
    end
    self.has_ended[number] = true
    return unpack(body.returns, 1, body.returns.n)
  end
end

--- What spawn, defer and delay are to start.
function Player:startable(number)
  if not self.coroutines[number] and self.program[number].kind == "coroutine" then
    self.coroutines[number] = coroutine.create(self:body(number))
  end
  return self.coroutines[number] or self:body(number)
end

local operations = {}

function Player:perform(number, op)
  if op.skip then return end
  local operation = operations[op.kind]
  if operation then return operation(self, number, op) end
  return self:wait(number, op)
end

--- Calls spawn, defer or delay with what is to be started and its values.
function Player:start_with(number, op, fn, ...)
  local ok, co = pcall(fn, ...)
  if not ok then return self:note(number, op.kind .. " " .. op.target .. (is_refused(co) and " refused" or co)) end
  if self.coroutines[op.target] and self.coroutines[op.target] ~= co then self:note(number, "got another coroutine") end
  self.coroutines[op.target] = co
  if op.kind == "spawn" then self:note(number, "spawned " .. op.target) end
end

function operations.spawn(self, number, op)
  self:start_with(number, op, task.spawn, self:startable(op.target), unpack(op.values, 1, op.values.n))
end

function operations.defer(self, number, op)
  self:start_with(number, op, task.defer, self:startable(op.target), unpack(op.values, 1, op.values.n))
end

function operations.delay(self, number, op)
  self:start_with(number, op, task.delay, op.ms / 1000, self:startable(op.target), unpack(op.values, 1, op.values.n))
end

function operations.resume(self, number, op)
  local co = self.coroutines[op.target]
  local is_cancelled = task.status(co) == "cancelled"
  local results = pack(coroutine.resume(co, unpack(op.values, 1, op.values.n)))
  local text
  if results[1] then
    text = " gave " .. show_all(unpack(results, 2, results.n))
  elseif is_cancelled or is_refused(results[2]) then
    text = " refused"
  else
    text = " raised " .. in_words(results[2])
  end
  self:note(number, "resume " .. op.target .. text)
end

function operations.cancel(self, number, op)
  local ok, err = pcall(task.cancel, self.coroutines[op.target])
  if not ok then self:note(number, "cancel " .. op.target .. (is_refused(err) and " refused" or err)) end
end

function operations.status(self, number, op)
  self:note(number, op.target .. " is " .. task.status(self.coroutines[op.target]))
end

local waits = {}

function waits.wait(_, op)
  return task.wait, op.ms and op.ms / 1000
end

function waits.pass()
  return task.yield
end

function waits.yield(_, op)
  return coroutine.yield, unpack(op.values, 1, op.values.n)
end

function waits.join(self, op)
  return task.join, self.coroutines[op.target]
end

--- Notes what a wait gave: `task.wait` alone gives numbers, and only its own.
function Player:waited(number, op, ok, ...)
  if not ok then
    self:note(number, op.kind .. " raised " .. in_words((...)))
  elseif op.kind == "wait" and type((...)) == "number" then
    self:note(number, ("wait took %gms"):format(math.floor((...) * 1e6 + 0.5) / 1e3))
  else
    self:note(number, op.kind .. " gave " .. show_all(...))
  end
end

local function call(is_protected, fn, ...)
  if is_protected then return scheduler.pcall(fn, ...) end
  return true, fn(...)
end

function Player:wait(number, op)
  self:waited(number, op, call(op.protected, waits[op.kind](self, op)))
end

function operations.park(self, number, op)
  local co = coroutine.running()
  if op.ms == 0 then
    task.defer(co, unpack(op.values, 1, op.values.n))
  else
    task.delay(op.ms / 1000, co, unpack(op.values, 1, op.values.n))
  end
  self:note(number, "yield gave " .. show_all(coroutine.yield()))
end

function operations.fail(_, number)
  error("boom " .. number, 0)
end

function operations.timeout(self, _, op)
  self.ids[op.target] = scheduler.setTimeout(self:body(op.target), op.ms, unpack(op.values, 1, op.values.n))
end

function operations.immediate(self, _, op)
  self.ids[op.target] = scheduler.setImmediate(self:body(op.target), unpack(op.values, 1, op.values.n))
end

function operations.microtask(self, _, op)
  scheduler.queueMicrotask(self:body(op.target), unpack(op.values, 1, op.values.n))
end

function operations.clear(self, _, op)
  scheduler.clearTimeout(self.ids[op.target])
end

function operations.poll()
  scheduler.poll()
end

function operations.advance(_, _, op)
  virtual.advance(op.ms)
end

--- Drops what a program has left behind.
function Player:clean_up()
  for _ = 1, 2 do
    for number, co in pairs(self.coroutines) do
      if coroutine.status(co) == "suspended" and (self.program[number].kind ~= "callback" or not self.has_ended[number])
      then
        task.cancel(co)
      end
    end
    virtual.advance(50)
  end
end

local CLEAN = { timers_pending = 0, microtasks_pending = 0, tasks_waiting = 0 }

--- Runs the operations of the main thread, and tells what has become of the tasks.
function Player:run()
  for _, op in ipairs(self.program[0]) do
    self:perform(0, op)
  end
  for number, body in ipairs(self.program) do
    local co = self.coroutines[number]
    if co and body.kind ~= "callback" then self:note(0, number .. " is " .. task.status(co)) end
  end
end

--- Runs a program; returns the list of what happens.
local function play(made)
  local player = setmetatable({
    program = made, trace = {}, start = scheduler.now(), coroutines = {}, ids = {}, has_ended = {},
  }, Player)
  local former = scheduler.on_error(function(err)
    player:note("on_error", in_words(err))
  end)
  local ok, err = pcall(player.run, player)
  if not ok then player:note("main", "failed with " .. in_words(err)) end
  local trace = player.trace
  player.trace = {}
  player:clean_up()
  scheduler.on_error(former)
  local stats = scheduler.stats()
  for what, expected in pairs(CLEAN) do
    if stats[what] ~= expected then trace[#trace + 1] = what .. " is left at " .. stats[what] end
  end
  return trace
end

-- Comparing ----------------------------------------------------------------------------------------------------------

local can_close = coroutine.close ~= nil -- luacheck: ignore 143

--- Runs a program on both sides; returns where they differ first, nil if they do not, and both lists.
local function compare(made)
  local expected, decided = model.run(made, can_close)
  local actual = play(made)
  local is_decided = decided == #expected
  for i = 1, is_decided and math.max(decided, #actual) or decided do
    if expected[i] ~= actual[i] then return i, expected, actual end
  end
end

local function report(made)
  local seed = made.seed
  program.shrink(made, compare)
  local at, expected, actual = compare(made)
  local lines = { "the module and its model differ; seed " .. seed, program.describe(made), "both:" }
  for i = 1, at - 1 do
    lines[#lines + 1] = "  " .. expected[i]
  end
  for _, side in ipairs({ { "by the rules:", expected }, { "actually:", actual } }) do
    lines[#lines + 1] = side[1]
    for i = at, at + 2 do
      lines[#lines + 1] = side[2][i] and "  " .. side[2][i]
    end
  end
  return table.concat(lines, "\n")
end

local function check(seed)
  local made = program.make(seed)
  if compare(made) then error(report(made), 0) end
end

describe("random programs of tasks", function()
  virtual.setup(before_each, after_each)

  it("that found faults once run as the model says", function()
    for _, seed in ipairs(FOUND) do
      check(seed)
    end
  end)

  it("run as the model says", function()
    local given = tonumber(os.getenv("MODEL_SEED"))
    if given then return check(given) end
    local seed, start, count = os.time() * PROGRAMS_PER_SECOND, os.clock(), 0
    while count < PROGRAMS and os.clock() - start < SECONDS do
      count = count + 1
      check(seed + count)
    end
  end)
end)
