-- Nothing is lost, and nothing is there twice, however tasks leave in the midst of it: what was sent is received, what
-- was taken is given back. Random tasks, at random moments. BALANCE_SEED=n repeats a run, as far as threads allow.

local scheduler = require("scheduler")
local attempt = require("spec.support.attempt")
local inside = require("spec.support.inside")
local memory = require("spec.support.memory")
local virtual = require("spec.support.virtual")

local async = scheduler.async
local shared, task = scheduler.shared, scheduler.task
local random = math.random
local unpack = table.unpack or unpack -- luacheck: ignore 143

local seed = tonumber(os.getenv("BALANCE_SEED")) or os.time()
local ROUNDS = 1000

local function one_of(list)
  return list[random(#list)]
end

--- Seconds that a wait may take, or nil.
local function patience()
  return random(2) == 1 and 0.001 * random(3) or nil
end

-- Ways to leave of tasks that take something: all. One that gives has to know whether it has given, so it may be told
-- by an error only.
local takers_leave, names = {}, {}
for name in pairs(attempt.leavings) do
  names[#names + 1] = name
end
table.sort(names)
for i, name in ipairs(names) do
  takers_leave[i] = attempt.leavings[name]
end
local givers_leave = {
  attempt.leavings["the cancellation of its scope"],
  function(fn)
    local promise = async(fn)()
    return function()
      promise:cancel()
    end
  end,
  function(fn)
    task.spawn(fn)
    return function() end
  end,
}

--- It raises if the task has ended, or cannot be resumed where it is.
local function try_to_leave(leave)
  pcall(leave)
end

--- Starts some of the tasks, lets them run for a moment, and lets some leave, the others in the end: so many times.
--- `tasks` are pairs of a body and its ways to leave.
local function stir(rounds, tasks, pause)
  local late = {}
  for _ = 1, rounds do
    local leaves = {}
    for i = 1, random(4) do
      local body, ways = unpack(one_of(tasks))
      local place, outer_place = one_of(inside), one_of(inside)
      leaves[i] = one_of(ways)(function()
        outer_place(function()
          place(body)
        end)
      end)
    end
    for _ = 1, random(3) do
      task.yield()
    end
    if random(4) == 1 then pause() end
    for i = 1, #leaves do
      if random(3) > 1 then try_to_leave(leaves[i]) else late[#late + 1] = leaves[i] end
    end
    if random(2) == 1 then task.yield() end
  end
  for _, leave in ipairs(late) do
    try_to_leave(leave)
  end
end

--- Runs `fn()` with random numbers that can be had again; nothing may go wrong but what resuming by hand does.
local function at_random(fn)
  math.randomseed(seed)
  local errors
  memory.relaxed(function()
    errors = attempt.reported(fn)
  end)
  for _, err in ipairs(errors) do
    assert.matches("resumed by hand", tostring(err), "BALANCE_SEED=" .. seed)
  end
end

local function assert_same(expected, got)
  assert.are.same(expected, got, "BALANCE_SEED=" .. seed)
end

describe("however tasks leave", function()
  virtual.setup(before_each, after_each)

  it("each permit and lock comes back, and no two hold one", function()
    local semaphore, mutex, other = scheduler.semaphore(2), scheduler.mutex(), shared.mutex()
    local held = { semaphore = 0, mutex = 0, other = 0 }
    local function hold(name, most)
      held[name] = held[name] + 1
      if held[name] > most then error(name .. " is held too often") end
      held[name] = held[name] - 1
    end
    local function hold_on(name, most)
      hold(name, most)
      task.wait(0.001 * random(2))
    end
    local function locked(lock, name)
      return function()
        if lock:lock(patience()) ~= true then return end
        hold(name, 1)
        lock:unlock()
      end
    end
    local bodies = {
      locked(mutex, "mutex"),
      locked(other, "other"),
      function()
        if semaphore:acquire(patience()) ~= true then return end
        hold("semaphore", 2)
        semaphore:release()
      end,
      function()
        semaphore:with(hold_on, "semaphore", 2)
      end,
      function()
        mutex:with(hold_on, "mutex", 1)
      end,
      function()
        other:with(hold_on, "other", 1)
      end,
    }
    local tasks = {}
    for i, body in ipairs(bodies) do
      tasks[i] = { body, takers_leave }
    end
    at_random(function()
      stir(ROUNDS, tasks, function()
        virtual.advance(1)
      end)
      virtual.advance(1000000)
    end)
    assert_same({ 2, false, false }, { semaphore:available(), mutex:is_locked(), other:is_locked() })
  end)

  for name, new in pairs({ queue = scheduler.queue, channel = scheduler.channel }) do
    it("what was put into a " .. name .. " comes out of it once", function()
      for capacity = 0, 2 do
        local pipe = new(capacity)
        local put, take, try_take = pipe.push or pipe.send, pipe.pop or pipe.recv, pipe.try_pop or pipe.try_recv
        local given, taken = 0, 0
        local tasks = {
          {
            function()
              if put(pipe, true) == true then given = given + 1 end
            end,
            givers_leave,
          },
          {
            function()
              if take(pipe, patience()) == true then taken = taken + 1 end
            end,
            takers_leave,
          },
        }
        at_random(function()
          stir(ROUNDS, tasks, function()
            virtual.advance(1)
          end)
          repeat
            local is_taken = try_take(pipe)
            if is_taken then taken = taken + 1 end
            virtual.advance(1)
          until not is_taken and pipe:len() == 0
          pipe:close()
          virtual.advance(1000000)
        end)
        assert_same(given, taken)
      end
    end)
  end
end)

describe("however tasks leave, between VMs", function()
  it("each message is received once", function()
    local channels = { scheduler.channel(), scheduler.channel(1), scheduler.channel(3) }
    local is_over, received = shared.atomic(0), 0
    local job = scheduler.parallel.run(function()
      local select, sent = require("scheduler").select, 0
      while is_over:get() == 0 do
        local a, b, c = channels[1], channels[2], channels[3]
        if select({ { a, "send", true }, { b, "send", true }, { c, "send", true }, timeout = 0.001 }) then
          sent = sent + 1
        end
        if channels[sent % 3 + 1]:send_timeout(0.001, true) then sent = sent + 1 end
      end
      for i = 1, 3 do
        channels[i]:close()
      end
      return sent
    end)
    local function receive()
      if channels[random(3)]:recv(patience()) == true then received = received + 1 end
    end
    local function receive_somewhere()
      local cases = { { channels[1], "recv" }, { channels[2], "recv" }, { channels[3], "recv" }, timeout = patience() }
      local _, value = scheduler.select(cases)
      if value == true then received = received + 1 end
    end
    at_random(function()
      stir(ROUNDS, { { receive, takers_leave }, { receive_somewhere, takers_leave } }, function()
        task.wait(0.0005)
      end)
      is_over:set(1)
      for i = 1, 3 do
        while channels[i]:recv() do
          received = received + 1
        end
      end
    end)
    assert_same(job:expect(), received)
  end)

  it("a mutex lets one in at a time, and is free in the end", function()
    local mutex, entered = shared.mutex(), shared.buffer("f64", 1)
    local count = 0
    local function enter(seconds)
      if mutex:lock(seconds) ~= true then return false end
      entered:set(1, entered:get(1) + 1)
      mutex:unlock()
      return true
    end
    local job = scheduler.parallel.run(function()
      local entries = 0
      for i = 1, 3000 do
        if enter(i % 3 == 0 and 0.0001 or nil) then entries = entries + 1 end
      end
      return entries
    end)
    local function enter_here()
      if enter(patience()) then count = count + 1 end
    end
    at_random(function()
      stir(ROUNDS, { { enter_here, takers_leave } }, function()
        task.wait(0.0005)
      end)
      scheduler.run()
    end)
    assert_same(entered:get(1), count + job:expect())
    assert.is_false(mutex:is_locked())
  end)
end)
