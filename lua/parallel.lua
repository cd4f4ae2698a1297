-- Jobs: functions that run in worker VMs, on all cores.

local native, compat, check, errors, wait, waiters, loop = ...

local error, ipairs, next, pairs, setmetatable, type = error, ipairs, next, pairs, setmetatable, type
local pack, unpack = compat.pack, compat.unpack
local WAKE = wait.WAKE

local parallel = {}
local jobs = {} -- those in flight, by number
local unobserved = {} -- failed ones that nobody has awaited yet: the source and the error, by number
local handles = setmetatable({}, { __mode = "v" }) -- their jobs; one that was collected can be awaited no more

local Job = { __name = "scheduler.job" }
Job.__index = Job

function Job:__tostring()
  return ("job %d (%s)"):format(self.number, not self.settled and "pending" or self.err and "failed" or "done")
end

local function result(job)
  if job.err then
    unobserved[job.number] = nil
    error(job.err, 0)
  end
  return unpack(job.results, 1, job.results.n)
end

local function finish(job, first, ...)
  if first == WAKE then return result(job) end
  return first, ...
end

--- `await` for a job.
function Job:await()
  if self.settled then return result(self) end
  return finish(self, waiters.wait(self.waiters, nil, {}))
end

function parallel.run(fn, ...)
  if type(fn) ~= "function" then check.bad_argument(1, "run", "function", fn) end
  local number, failure = native.submit(fn, ...)
  if not number then check.raise(failure) end
  local job = setmetatable({ number = number, waiters = waiters.new(), origin = compat.caller() or "?" }, Job)
  jobs[number] = job
  return job
end

local function fail(job, kind, message, traceback, value)
  local err = errors.new(kind, message, { traceback = traceback, value = value, origin = job.origin })
  job.err = err
  if not job.waiters.first then
    unobserved[job.number], handles[job.number] = err, job
  end
end

--- Takes the outcome of a job: its results, or kind, message, traceback and value of its error.
function parallel.settle(number, ok, ...)
  local job = jobs[number]
  jobs[number] = nil
  if not job then return end
  if ok then job.results = pack(...) else fail(job, ...) end
  job.settled = true
  waiters.wake_all(job.waiters)
end

--- Reports failed jobs that were never awaited: those that were collected, or, when the loop ends, all.
function parallel.report_unobserved(all)
  if next(unobserved) == nil then return end
  for number, err in pairs(unobserved) do
    if all or handles[number] == nil then
      unobserved[number] = nil
      errors.report(err, err.traceback, "a job started at " .. err.origin)
    end
  end
end

--- After a fork the parent's workers are out of reach: its jobs, up to number `last`, are lost to this process.
function parallel.forked(last)
  local lost = {}
  for number in pairs(jobs) do
    if number <= last then lost[#lost + 1] = number end
  end
  for _, number in ipairs(lost) do
    parallel.settle(number, false, "lost", "the job was lost: this process was forked while it was in flight", "")
  end
end

loop.settle, loop.forked, loop.report_unobserved = parallel.settle, parallel.forked, parallel.report_unobserved

return parallel
