-- Jobs: functions that run in worker VMs, on all cores. Sending them, and taking what they came to.

local native, compat, check, errors, wait, waiters, loop, promise = ...

local ipairs, pairs, pcall, select = ipairs, pairs, pcall, select
local setmetatable, type = setmetatable, type
local package = package or {} -- which a sandbox may lack
local pack, unpack = compat.pack, compat.unpack
local WAKE, origin_here, submit_plain = wait.WAKE, native.origin, native.submit_plain

-- Why a pool that is closed refuses a job (see src/binding/job.rs).
local CLOSED = "closed"
-- So many values always fit on the stack.
local SURELY_FIT = 100

local parallel = { CLOSED = CLOSED }
-- What takes the outcomes of the jobs in flight, by their numbers: promises, or parts of maps with a method `settle`.
local jobs = {}

-- Waiting for a pool ------------------------------------------------------------------------------------------------

-- Those that wait for room in a pool, and those that wait for its end: lists of waiters, by the pool.
local rooms, ends = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })
-- The pools of those lines in which somebody stands: who waits is not collected, even if only the pool knows of it.
local waited_for = {}

local function has_room(pool)
  return not native.pool_is_full(pool)
end

local function is_done(pool)
  return native.pool_is_done(pool)
end

--- Wakes the first of a line if there is what it waits for, and sees to it that we hear of it if there is not.
local function look(line, pool)
  if not line.first then return end
  native.pool_watch(pool)
  if not line.has_turn and line.is_so(pool) then
    line.has_turn = true
    waiters.wake_first(line)
  end
end

--- Lets the next of a line have its turn.
local function pass_on(line, pool)
  line.has_turn = nil
  look(line, pool)
end

local function new_line(pool, is_so)
  -- Held weakly: where a table has no ephemerons, what a value refers to keeps its key.
  local weak, line = setmetatable({ pool = pool }, { __mode = "v" }), nil
  line = waiters.new(function()
    if weak.pool ~= nil then pass_on(line, weak.pool) end
  end, is_so == has_room and "room in the queue of a pool" or "the end of a pool")
  line.is_so = is_so
  local take_out = line.remove
  function line.remove(node)
    take_out(node)
    if not line.first then waited_for[line] = nil end
    native.pool_waits(-1)
  end
  return line
end

--- Waits in one of `lines` until it has its turn, for so many seconds at the most; false if that is not enough. Who has
--- had its turn has to `pass_on`. With `goes_first` it comes before the others.
local function stand_in_line(lines, pool, is_so, seconds, goes_first)
  local line = lines[pool] or new_line(pool, is_so)
  lines[pool] = line
  native.pool_watch(pool)
  if is_so(pool) and (goes_first or not line.first and not line.has_turn) then
    line.has_turn = true
    return true
  end
  wait.current() -- before it is counted: this raises where one cannot wait
  native.pool_waits(1)
  waited_for[line] = pool
  local node = waiters.node()
  node.goes_first, node.of = goes_first, pool
  if goes_first then line.has_turn = nil end
  if waiters.wait(line, seconds, node) ~= WAKE then check.raise("resumed by hand while it waited for a pool") end
  return node.woken
end

--- Something has changed in a pool.
function loop.pool_changed()
  for line, pool in pairs(waited_for) do
    look(line, pool)
  end
end

--- Waits until a pool is closed and has nothing left to do, for so many seconds at the most; false if it has.
function parallel.wait_for_end(pool, seconds)
  if not stand_in_line(ends, pool, is_done, seconds) then return false end
  pass_on(ends[pool], pool)
  return true
end

--- Of a worker, whose jobs have all ended: nobody waits any more.
function loop.discard_lines()
  for _, known in ipairs({ rooms, ends, waited_for }) do
    for key in pairs(known) do
      known[key] = nil
    end
  end
  native.pool_waits(0)
end

-- Sending -----------------------------------------------------------------------------------------------------------

--- Sends a job once there is room in the queue.
local function send_in_line(pool, submit, ...)
  local number, size, refused
  local has_waited
  repeat
    stand_in_line(rooms, pool, has_room, nil, has_waited)
    number, size, refused = submit(pool, ...)
    has_waited = true -- another VM may have been faster
  until number or refused
  pass_on(rooms[pool], pool)
  return number, size, refused
end

local path, cpath -- of the program, as workers were told last

--- Tells the paths by which workers find modules, if they have changed.
local function tell_paths()
  path, cpath = package.path, package.cpath
  local is_path, is_cpath = type(path) == "string", type(cpath) == "string"
  native.set_environment(is_path and path or nil, is_cpath and cpath or nil)
end

parallel.tell_paths = tell_paths

--- Whether tasks wait for room in a pool.
local function is_crowded(pool)
  local line = rooms[pool]
  return line and (line.first or line.has_turn)
end

--- Sends a job by one of the natives for that, once there is room in the queue. Returns its number and how many bytes
--- it took; or nil, nil and why it cannot be sent.
function parallel.send(pool, submit, ...)
  if package.path ~= path or package.cpath ~= cpath then tell_paths() end
  if is_crowded(pool) then return send_in_line(pool, submit, ...) end
  local number, size, refused = submit(pool, ...)
  if not number and not refused then return send_in_line(pool, submit, ...) end
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

--- Lets a promise wait for the job of another VM.
function parallel.join(self, job)
  local number = native.join_job(job)
  self.origin, self.co = "a job of another VM", number
  jobs[number] = self
end

--- As `send`, for a call. `pool_number` is that of the pool.
local function send_call(pool, pool_number, fn, ...)
  if package.path == path and package.cpath == cpath and not is_crowded(pool) then
    local number = submit_plain(pool_number, fn, ...)
    if number then return number end
  end
  local number, _, refused = send(pool, native.submit, pack(fn, ...), select("#", ...) + 1)
  if refused == CLOSED then errors.raise_closed("the pool") end
  if not number then check.raise(refused) end
  return number
end

--- `parallel.run` and `pool:run`; `pool` is false for the default one.
function parallel.run_in(pool, pool_number, fn, ...)
  if type(fn) ~= "function" then check.bad_argument(1, "run", "function", fn) end
  local number = send_call(pool, pool_number, fn, ...)
  local job = promise.new(origin_here(true), number)
  jobs[number] = job
  return job
end

function parallel.run(fn, ...)
  return parallel.run_in(false, 0, fn, ...)
end

-- Taking ------------------------------------------------------------------------------------------------------------

local function reject(job, kind, message, traceback, value)
  local fields = { traceback = traceback, value = value, origin = promise.place_of(job.origin) }
  return promise.reject(job, errors.new(kind, message, fields))
end

--- Fulfils the promise of a job with its results; `fit` says whether there is room for so many on the stack.
local function fulfil(job, fit, ...)
  if fit then return promise.fulfil(job, ...) end
  return reject(job, "error", "the outcome of the job cannot be taken: " .. (...), "")
end

--- Takes the outcome of a job: true and its results; nil and the list of its results; or false and kind, message,
--- traceback and value of its error, and of a part of a map the position that it is about.
function loop.settle(number, ok, ...)
  local job = jobs[number]
  jobs[number] = nil
  if not job then return end
  if job.settle then
    if ok then return job:settle(nil, pack(...)) end
    return job:settle(ok, ...)
  end
  if ok then return promise.fulfil(job, ...) end
  if ok == nil then
    local results = ...
    if results.n < SURELY_FIT then return promise.fulfil(job, unpack(results, 1, results.n)) end
    return fulfil(job, pcall(unpack, results, 1, results.n))
  end
  local kind, message, traceback, value = ...
  if kind == "cancelled" then return promise.cancel(job, message) end
  job.traceback = traceback
  return reject(job, kind, message, traceback, value)
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

return parallel
