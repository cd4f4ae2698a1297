-- The rules of tasks, as a model: small, slow, and without coroutines. It runs a program (program.lua) and tells what
-- happens, which the module is then compared with.
--
-- An actor is a body that runs or may run. `state` says where it is:
--
--   absent             nobody has started it
--   fresh, primed      made, but not begun: a coroutine of the program's own; a task that waits for its start
--   yield              parked in a yield of its own
--   wait, pass, join   in `task.wait`, `task.yield`, `task.join`
--   running, normal    running; it has resumed another one
--   dead
--
-- A registration is a promise to resume an actor. It holds as long as it is the actor's `wake` (made for what the actor
-- waits for) or its `schedule` (made by defer or delay for a ready-made coroutine), so that nothing has to be taken out
-- of the queues.

local program = require("spec.support.program")

local show = program.show
local NOTHING = { n = 0 }
local PENDING = { n = 1, "pending" }

local IS_SUSPENDED = { fresh = true, primed = true, yield = true, wait = true, pass = true, join = true }

local Model = {}
Model.__index = Model

local function concatenated(a, b)
  local all = { n = a.n + b.n }
  for i = 1, a.n do
    all[i] = a[i]
  end
  for i = 1, b.n do
    all[a.n + i] = b[i]
  end
  return all
end

function Model:note(who, text)
  self.trace[#self.trace + 1] = self.now .. "ms, " .. who .. ": " .. text
end

-- Registrations and queues -------------------------------------------------------------------------------------------

local function holds(registration)
  local actor = registration.actor
  return actor.wake == registration or actor.schedule == registration
end

local function enqueue(queue, registration)
  registration.is_ready = true
  queue[#queue + 1] = registration
end

--- The next registration of a queue that still holds.
local function take(queue)
  while queue[1] do
    local registration = table.remove(queue, 1)
    if holds(registration) then return registration end
  end
end

function Model:set_timer(registration, ms)
  self.timers_set = self.timers_set + 1
  registration.number, registration.deadline = self.timers_set, self.now + math.max(ms, 0)
  table.insert(self.timers, registration)
end

--- Takes out the timers that are due, in order.
function Model:take_due()
  local due, later = {}, {}
  for _, timer in ipairs(self.timers) do
    table.insert(timer.deadline <= self.now and due or later, timer)
  end
  self.timers = later
  table.sort(due, function(a, b)
    if a.deadline ~= b.deadline then return a.deadline < b.deadline end
    return a.number < b.number
  end)
  return due
end

--- The earliest deadline among the timers that still hold.
function Model:next_deadline()
  local earliest
  for _, timer in ipairs(self.timers) do
    if holds(timer) and not (earliest and earliest <= timer.deadline) then earliest = timer.deadline end
  end
  return earliest
end

-- Resuming -----------------------------------------------------------------------------------------------------------

--- Tells the outcome of a task to all who wait for it; returns whether there was one.
function Model:settle(actor, outcome)
  actor.outcome = outcome
  local is_observed = false
  for _, joiner in ipairs(actor.joiners) do
    if holds(joiner) then
      is_observed = true
      enqueue(self.ready, joiner)
    end
  end
  actor.joiners = {}
  return is_observed
end

--- What `join` does once there is an outcome.
function Model:joined(actor, op, outcome)
  if outcome.values then
    self:note(actor.number, "join gave " .. show(outcome.values))
  elseif op.protected then
    self:note(actor.number, "join raised " .. outcome.err)
  else
    return "failed", outcome.err
  end
end

--- What the call does that an actor was suspended in.
function Model:go_on(actor, state, is_woken, values)
  if state == "fresh" then
    self:note(actor.number, "starts with " .. show(values))
  elseif state == "primed" then
    self:note(actor.number, "starts with " .. show(concatenated(actor.args, values)))
  elseif not is_woken then
    self:note(actor.number, state .. " gave " .. show(values))
  elseif state == "wait" then
    self:note(actor.number, "wait took " .. self.now - actor.since .. "ms")
  elseif state == "pass" then
    self:note(actor.number, "pass gave ()")
  else
    return self:joined(actor, actor.body[actor.at - 1], actor.joins.outcome)
  end
end

function Model:run(actor)
  local body = actor.body
  while body[actor.at] do
    local op = body[actor.at]
    actor.at = actor.at + 1
    local result, values = self:perform(actor, op)
    if result then return result, values end
  end
  return "ended", body.returns
end

--- Resumes an actor; returns as `coroutine.resume` does, with the values in a list. `by` is "hand" for
--- `coroutine.resume` itself, "wake" for the end of what it waits for.
function Model:resume(actor, by, values)
  local state, outer = actor.state, self.running
  actor.wake = nil
  if by ~= "wake" then actor.schedule = nil end
  outer.state, actor.state, self.running = "normal", "running", actor
  local result, what = self:go_on(actor, state, by == "wake", values)
  if not result then
    result, what = self:run(actor)
  end
  outer.state, self.running = "running", outer
  if result == "suspended" then return true, what end
  actor.state, actor.schedule = "dead", nil
  local is_failed = result == "failed"
  if by == "hand" and (is_failed or actor.body.kind == "coroutine") then
    -- Who resumed it has the result. To others it is lost.
    actor.outcome, actor.is_lost = { err = "lost", is_lost = true, is_done = not is_failed }, true
  elseif not self:settle(actor, is_failed and { err = what } or { values = what }) and is_failed then
    self:note("on_error", what)
  end
  return not is_failed, what
end

--- Does what a registration promises.
function Model:fire(registration)
  local actor = registration.actor
  if registration == actor.wake then
    self:resume(actor, registration.by or "wake", registration.values or NOTHING)
  elseif registration.is_for_yield and actor.state ~= "yield" then
    actor.schedule = nil
  else
    self:resume(actor, "schedule", registration.values)
  end
  self:run_microtasks()
end

-- Operations ---------------------------------------------------------------------------------------------------------

local operations = {}

function Model:perform(actor, op)
  op.skip = nil
  return operations[op.kind](self, actor, op, self.actors[op.target])
end

local function skip(op)
  op.skip = true
end

--- Whether this is for a task, and whether it may be done to it.
function Model:may_start(actor, op, target)
  local is_over = target.state == "dead" or target.is_cancelled
  local is_active = op.kind == "spawn" and (target.state == "running" or target.state == "normal")
  if is_over or is_active then self:note(actor.number, op.kind .. " " .. op.target .. " refused") end
  return not (is_over or is_active)
end

function operations.spawn(self, actor, op, target)
  if not self:may_start(actor, op, target) then return end
  if target.state == "absent" then target.state = "fresh" end
  self:resume(target, "spawn", op.values)
  self:note(actor.number, "spawned " .. op.target)
end

--- The registration for a start that is put off.
local function schedule(target, values)
  local registration = { actor = target, values = values }
  target.wake = nil
  if target.state == "absent" and target.body.kind == "function" then
    target.state, target.args, target.wake = "primed", values, registration
    registration.values = nil
  else
    if target.state == "absent" then target.state = "fresh" end
    -- One that runs is to go on from the yield that it parks in.
    registration.is_for_yield = not IS_SUSPENDED[target.state]
    target.schedule = registration
  end
  return registration
end

function operations.defer(self, actor, op, target)
  if self:may_start(actor, op, target) then enqueue(self.deferred, schedule(target, op.values)) end
end

function operations.delay(self, actor, op, target)
  if self:may_start(actor, op, target) then self:set_timer(schedule(target, op.values), op.ms) end
end

--- Whether a coroutine can be resumed by hand so that there is a rule for what follows.
local function has_rule(target)
  local is_in_its_own = target.state == "fresh" or target.state == "yield"
  if target.state == "absent" then return false end
  -- Nothing tells of which yield the program meant.
  if target.schedule and target.schedule.is_for_yield then return false end
  -- What cannot be closed runs on where no call of ours refuses to.
  local may_catch = target.state ~= "primed" and target.body[target.at - 1] and target.body[target.at - 1].protected
  return not (target.is_cancelled and IS_SUSPENDED[target.state] and (is_in_its_own or may_catch))
end

function operations.resume(self, actor, op, target)
  if not has_rule(target) then return skip(op) end
  if not IS_SUSPENDED[target.state] or target.is_cancelled then
    target.state = target.is_cancelled and "dead" or target.state
    return self:note(actor.number, "resume " .. op.target .. " refused")
  end
  local ok, what = self:resume(target, "hand", op.values)
  self:note(actor.number, "resume " .. op.target .. (ok and " gave " .. show(what) or " raised " .. what))
end

function operations.cancel(self, actor, op, target)
  if target.state == "absent" then return skip(op) end
  if target.state == "running" or target.state == "normal" then
    return self:note(actor.number, "cancel " .. op.target .. " refused")
  end
  if target.state == "dead" or target.is_cancelled then return end
  target.wake, target.schedule, target.is_cancelled = nil, nil, true
  self:settle(target, { err = "cancelled" })
  if self.can_close then target.state = "dead" end
end

function Model.status(_, target)
  if target.is_cancelled then return "cancelled" end
  if target.state == "dead" then
    return target.outcome.err and not target.outcome.is_done and "failed" or "done"
  end
  local registration = target.wake or target.schedule
  if not IS_SUSPENDED[target.state] then return target.state end
  return not registration and "parked" or registration.is_ready and "ready" or "waiting"
end

function operations.status(self, actor, op, target)
  if target.state == "absent" then return skip(op) end
  self:note(actor.number, op.target .. " is " .. self:status(target))
end

--- Suspends the running actor.
local function suspend(actor, state, registration)
  registration.actor = actor
  actor.state, actor.wake = state, registration
  return "suspended", PENDING
end

function operations.wait(self, actor, op)
  local registration, ms = {}, op.ms or 0
  actor.since = self.now
  if ms <= 0 then
    enqueue(self.next_turn, registration)
  elseif ms < math.huge then
    self:set_timer(registration, ms)
  end
  return suspend(actor, "wait", registration)
end

function operations.pass(self, actor)
  local registration = {}
  enqueue(self.ready, registration)
  return suspend(actor, "pass", registration)
end

function operations.yield(_, actor, op)
  actor.state = "yield"
  return "suspended", op.values
end

--- Puts off its own resumption, and parks.
function operations.park(self, actor, op)
  local registration = schedule(actor, op.values)
  if op.ms == 0 then enqueue(self.deferred, registration) else self:set_timer(registration, op.ms) end
  actor.state = "yield"
  return "suspended", NOTHING
end

local function waits_for(actor, other)
  while actor and actor ~= other do
    actor = actor.state == "join" and actor.wake and actor.joins
  end
  return actor == other
end

function operations.join(self, actor, op, target)
  if target.state == "absent" then return skip(op) end
  local outcome = target.outcome
  if outcome then
    -- A coroutine of the program's own that ended well out of our sight has no results.
    if outcome.is_done then outcome = { values = NOTHING } end
    return self:joined(actor, op, outcome)
  end
  if waits_for(target, actor) then return self:joined(actor, op, { err = "cycle" }) end
  local registration = {}
  table.insert(target.joiners, registration)
  actor.joins = target
  return suspend(actor, "join", registration)
end

function operations.fail(_, actor)
  return "failed", "boom " .. actor.number
end

--- Makes an actor that a callback is to be; nil if it is one already.
local function callback(op, target)
  if not target or target.state ~= "absent" then return skip(op) end
  target.state, target.wake = "fresh", { actor = target, by = "loop", values = op.values }
  return target.wake
end

function operations.timeout(self, _, op, target)
  local registration = callback(op, target)
  if registration then self:set_timer(registration, op.ms) end
end

function operations.immediate(self, _, op, target)
  local registration = callback(op, target)
  if registration then enqueue(self.immediates, registration) end
end

function operations.microtask(self, _, op, target)
  local registration = callback(op, target)
  if not registration then return end
  target.is_microtask = true
  enqueue(self.microtasks, registration)
end

function operations.clear(_, _, op, target)
  if not target or target.state == "absent" or target.is_microtask then return skip(op) end
  if target.state == "fresh" then target.wake = nil end
end

-- The loop -----------------------------------------------------------------------------------------------------------

function Model:run_microtasks()
  local registration = take(self.microtasks)
  while registration do
    self:resume(registration.actor, "loop", registration.values)
    registration = take(self.microtasks)
  end
end

function Model:run_queue(queue)
  local registration = take(queue)
  while registration do
    self:fire(registration)
    registration = take(queue)
  end
end

--- Tells those that wait for tasks whose end was seen by others.
function Model:look_for_lost()
  local found = 0
  for _, actor in ipairs(self.actors) do
    if actor.is_lost and #actor.joiners > 0 then
      found = found + 1
      self:settle(actor, { err = "lost" })
      -- In which order several are told there is no rule.
      if found > 1 then self.decided = self.decided or #self.trace end
    end
  end
end

function Model:turn()
  local due = self:take_due()
  for _, registration in ipairs(self.next_turn) do
    enqueue(self.ready, registration)
  end
  self.next_turn = {}
  self:run_microtasks()
  self:run_queue(due)
  repeat
    self:run_queue(self.ready)
    self:run_queue(self.deferred)
  until #self.ready == 0
  local immediates = self.immediates
  self.immediates = {}
  self:run_queue(immediates)
  self:look_for_lost()
end

function operations.poll(self)
  self:turn()
end

function Model:has_work()
  local deadline = self:next_deadline()
  return #self.ready + #self.next_turn + #self.deferred + #self.microtasks + #self.immediates > 0
    or deadline and deadline <= self.now
end

function operations.advance(self, _, op)
  local target = self.now + op.ms
  repeat
    repeat
      self:turn()
    until not self:has_work()
    local deadline = self:next_deadline()
    local is_there = not deadline or deadline > target
    self.now = is_there and target or deadline
  until is_there
  self:turn()
end

--- Runs a program; returns the list of what happens, and how much of it the rules decide. `can_close` tells whether Lua
--- can close coroutines.
local function run(made, can_close)
  local self = setmetatable({
    can_close = can_close, trace = {}, now = 0, actors = {}, timers = {}, timers_set = 0,
    ready = {}, next_turn = {}, deferred = {}, immediates = {}, microtasks = {},
  }, Model)
  for i, body in ipairs(made) do
    self.actors[i] = { number = i, body = body, at = 1, state = "absent", joiners = {} }
  end
  self.running = { number = 0, body = made[0], state = "running" }
  for _, op in ipairs(made[0]) do
    self:perform(self.running, op)
  end
  for i, actor in ipairs(self.actors) do
    if actor.state ~= "absent" and actor.body.kind ~= "callback" then
      self:note(0, i .. " is " .. self:status(actor))
    end
  end
  return self.trace, self.decided or #self.trace
end

return { run = run }
