-- Random jobs in random pools, with cancels, timeouts, closes and exits: nothing may crash, hang, get lost or pile up.
--
-- PARALLEL_SEED=n begins with that seed, and PARALLEL_SECONDS=n goes on for so long.

local scheduler = require("scheduler")
local activity = require("spec.support.activity")
local child = require("spec.support.child")
local memory = require("spec.support.memory")

local task = scheduler.task

local first_seed = tonumber(os.getenv("PARALLEL_SEED")) or os.time() % 1000000 * 100
local SECONDS = tonumber(os.getenv("PARALLEL_SECONDS")) or 2
local IS_LONG = SECONDS >= 60
local EXITS = tonumber(os.getenv("PARALLEL_EXITS")) or 1

local LIMIT = 30 -- seconds; generous, as machines may be busy

--- Waits until `is_so()`.
local function wait_until(is_so)
  local deadline = os.time() + LIMIT
  while not is_so() do
    if os.time() > deadline then return false end
    task.wait(0.001)
  end
  return true
end

local function show(figures)
  local words = {}
  for name, value in pairs(figures) do
    if type(value) == "number" then words[#words + 1] = name .. " " .. value end
  end
  table.sort(words)
  return table.concat(words, ", ")
end

--- Checks what is left of a pool that was closed.
local function check_pool(entry, name)
  local pool = entry.pool
  local is_empty = wait_until(function()
    local figures = pool:stats()
    return figures.workers == 0 and figures.queued + figures.running == 0
  end)
  local figures = pool:stats()
  assert.is_true(is_empty, name .. ": " .. show(figures))
  local ended = figures.done + figures.failed + figures.cancelled
  -- Some jobs send others.
  local adds_up = ended == entry.sent or entry.nests and ended > entry.sent
  assert.is_true(adds_up, ("%s: %d were sent; %s"):format(name, entry.sent, show(figures)))
end

local function run(seed)
  local name = "PARALLEL_SEED=" .. seed
  local program = activity.new(seed)
  local former = scheduler.on_error(function(err)
    program:note(err)
  end)
  program:start(6)
  task.wait(0.08)
  local entries = program:finish()
  for i, job in ipairs(program.jobs) do
    local is_settled = wait_until(function()
      return job:getStatus() ~= "Started"
    end)
    assert.is_true(is_settled, name .. ": job " .. i .. " is pending")
  end
  for _, entry in ipairs(entries) do
    check_pool(entry, name)
  end
  scheduler.poll()
  scheduler.on_error(former)
  assert.are.same({}, program.faults, name)
end

--- KiB of memory that the process has; nil where that cannot be told.
local function resident()
  local file = io.open("/proc/self/status")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return tonumber(text:match("VmRSS:%s*(%d+)"))
end

local IDLE = 13 -- seconds; longer than workers are idle before they end

local function used()
  memory.collect()
  -- A worker holds a megabyte, and after minutes there are tens of idle ones.
  if IS_LONG then task.wait(IDLE) end
  return collectgarbage("count"), resident()
end

describe("random jobs in random pools", function()
  it("all end, are all counted, and leave nothing behind", function()
    local deadline, seed = os.time() + SECONDS, first_seed
    local lua_before, all_before
    repeat
      run(seed)
      seed = seed + 1
      -- Caches have been filled by then.
      if seed == first_seed + 8 then lua_before, all_before = used() end
    until os.time() >= deadline
    if not lua_before then return end
    assert.is_true(wait_until(function()
      return scheduler.stats().jobs_pending == 0
    end), "PARALLEL_SEED=" .. first_seed .. ": jobs are pending")
    local lua_after, all_after = used()
    if os.getenv("PARALLEL_SECONDS") then
      print(("%d rounds, KiB: %.0f to %.0f of Lua, %s to %s in all"):format(
        seed - first_seed, lua_before, lua_after, all_before, all_after))
    end
    assert.is_true(lua_after < lua_before + 1024, ("%.0f KiB, then %.0f"):format(lua_before, lua_after))
    if all_before then
      -- The allocator keeps a heap for each thread.
      assert.is_true(all_after < all_before + 2 ^ 16, ("%d KiB, then %d"):format(all_before, all_after))
    end
  end)
end)

describe("a program that ends in the midst of random jobs", function()
  local ENDS = {
    ["by its last line"] = { "", 0 },
    ["by os.exit"] = { "os.exit(0)", 0 },
    ["by os.exit that closes the state"] = { "os.exit(0, true)", 0 },
    ["by an error"] = { "error('the end')", 1 },
    ["by os.exit in a task"] = { "scheduler.task.spawn(function() os.exit(0, true) end)", 0 },
  }
  for how, ending in pairs(ENDS) do
    it("ends " .. how, function()
      for i = 1, EXITS do
        local seed = first_seed + i
        local result = child.script([[
          scheduler.on_error(function() end)
          local program = require("spec.support.activity").new(tonumber(arg[1]))
          program:start(6)
          scheduler.task.wait(math.random(0, 40) / 1000)
        ]] .. ending[1], seed)
        assert.are.equal(ending[2], result.code, "PARALLEL_SEED=" .. seed .. ": " .. result.err)
        if ending[2] == 0 then assert.are.equal("", result.err, "PARALLEL_SEED=" .. seed) end
      end
    end)
  end
end)
