-- Jobs: functions that run in worker VMs, on all cores. Sending them, and taking what they came to.

local native, compat, check, errors, wait, waiters, loop, promise = ...

local ipairs, match, pairs, pcall = ipairs, string.match, pairs, pcall
local setmetatable, type = setmetatable, type
local pack, unpack = compat.pack, compat.unpack
local WAKE = wait.WAKE

local parallel = {}
-- What takes the outcomes of the jobs in flight, by their numbers: promises, or parts of maps with a method `settle`.
local jobs = {}

-- Waiting for a pool ------------------------------------------------------------------------------------------------

local DEFAULT = {} -- stands for the default pool
local lines = setmetatable({}, { __mode = "k" }) -- those that wait for a change in a pool, by the pool

local wake_next = waiters.wake_first

--- A list of coroutines that wait for a pool. Who was woken and goes on otherwise lets the next one look.
local function new_line()
  local line
  line = waiters.new(function()
    wake_next(line)
  end)
  local take_out = line.remove
  function line.remove(node)
    take_out(node)
    native.pool_waits(-1)
  end
  return line
end

--- Something has changed in a pool.
function loop.pool_changed()
  for _, line in pairs(lines) do
    wake_next(line)
  end
end

--- Waits until something has changed in a pool, for so many seconds at the most. False if it was resumed by hand.
local function wait_in_line(pool, seconds)
  local line = lines[pool or DEFAULT]
  native.pool_waits(1)
  return waiters.wait(line, seconds, {}) == WAKE
end

--- Waits until `is_so(pool)`; false if that takes longer than `seconds`.
function parallel.wait_until(pool, is_so, seconds)
  local line = lines[pool or DEFAULT] or new_line()
  lines[pool or DEFAULT] = line
  local deadline = seconds and native.time() + seconds * 1e9
  while true do
    native.pool_watch(pool)
    -- Whoever came first looks first.
    if not line.first and is_so(pool) then break end
    local left = deadline and (deadline - native.time()) / 1e9
    if left and left <= 0 then return false end
    -- The first of the line looks again at once: what it waits for may have come before it was watched for.
    if is_so(pool) then wake_next(line) end
    if not wait_in_line(pool, left) then check.raise("resumed by hand while it waited for the pool") end
    if is_so(pool) then break end
  end
  -- There may be room for another one.
  wake_next(line)
  return true
end

local function has_room(pool)
  return not native.pool_is_full(pool)
end

-- Sending -----------------------------------------------------------------------------------------------------------

--- Sends a job by one of the natives for that, once there is room in the queue. Returns its number and how many bytes it
--- took; or nil, nil and why it cannot be sent.
function parallel.send(pool, submit, ...)
  local number, size, refused = submit(pool, ...)
  while not number and not refused do
    parallel.wait_until(pool, has_room)
    number, size, refused = submit(pool, ...)
  end
  return number, size, refused
end

local send = parallel.send

--- Lets `taker` have the outcome of a job.
function parallel.expect(number, taker)
  jobs[number] = taker
end

--- Cancels a job: nothing comes of it any more.
function parallel.cancel(number)
  if not jobs[number] then return end
  jobs[number] = nil
  native.cancel_job(number)
end

loop.cancel_job = parallel.cancel

--- `parallel.run` and `pool:run`.
function parallel.run_in(pool, fn, ...)
  if type(fn) ~= "function" then check.bad_argument(1, "run", "function", fn) end
  local number, _, refused = send(pool, native.submit, pack(fn, ...))
  if not number then check.raise(refused) end
  local job = promise.new("a job started at " .. (compat.caller() or "?"), number)
  jobs[number] = job
  return job
end

function parallel.run(fn, ...)
  return parallel.run_in(false, fn, ...)
end

-- Taking ------------------------------------------------------------------------------------------------------------

--- Fulfils the promise of a job with its results; `fit` says whether there is room for so many on the stack.
local function fulfil(job, fit, ...)
  if fit then return promise.fulfil(job, ...) end
  local message = "the outcome of the job cannot be taken: " .. (...)
  return promise.reject(job, errors.new("error", message, { traceback = "", origin = match(job.origin, " at (.+)$") }))
end

--- Takes the outcome of a job: the list of its results, or kind, message, traceback and value of its error, and of a
--- part of a map the position that it is about.
function loop.settle(number, ok, ...)
  local job = jobs[number]
  jobs[number] = nil
  if not job then return end
  if job.settle then return job:settle(ok, ...) end
  if ok then
    local results = ...
    return fulfil(job, pcall(unpack, results, 1, results.n))
  end
  local kind, message, traceback, value = ...
  if kind == "cancelled" then return promise.cancel(job, message) end
  local origin = match(job.origin, " at (.+)$")
  job.traceback = traceback
  return promise.reject(job, errors.new(kind, message, { traceback = traceback, value = value, origin = origin }))
end

--- After a fork the parent's workers are out of reach: its jobs, up to number `last`, are lost to this process.
function loop.forked(last)
  local lost = {}
  for number in pairs(jobs) do
    if number <= last then lost[#lost + 1] = number end
  end
  for _, number in ipairs(lost) do
    loop.settle(number, false, "lost", "the job was lost: this process was forked while it was in flight", "")
  end
end

--- Of a worker, whose jobs have all ended: nobody waits any more.
function loop.discard_lines()
  for pool in pairs(lines) do
    lines[pool] = nil
  end
  native.pool_waits(0)
end

return parallel
