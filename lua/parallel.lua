-- Jobs: functions that run in worker VMs, on all cores.

local native, compat, check, errors, loop, promise = ...

local ipairs, match, pairs, pcall, type = ipairs, string.match, pairs, pcall, type
local unpack = compat.unpack

local parallel = {}
local jobs = {} -- the promises of those in flight, by number

function parallel.run(fn, ...)
  if type(fn) ~= "function" then check.bad_argument(1, "run", "function", fn) end
  local number, failure = native.submit(compat.pack(fn, ...))
  if not number then check.raise(failure) end
  local job = promise.new("a job started at " .. (compat.caller() or "?"))
  jobs[number] = job
  return job
end

--- Fulfils the promise of a job with its results; `fit` says whether there is room for so many on the stack.
local function fulfil(job, fit, ...)
  if fit then return promise.fulfil(job, ...) end
  local message = "the outcome of the job cannot be taken: " .. (...)
  return promise.reject(job, errors.new("error", message, { traceback = "", origin = match(job.origin, " at (.+)$") }))
end

--- Takes the outcome of a job: the list of its results, or kind, message, traceback and value of its error.
function parallel.settle(number, ok, ...)
  local job = jobs[number]
  jobs[number] = nil
  if not job then return end
  if ok then
    local results = ...
    return fulfil(job, pcall(unpack, results, 1, results.n))
  end
  local kind, message, traceback, value = ...
  local origin = match(job.origin, " at (.+)$")
  job.traceback = traceback
  return promise.reject(job, errors.new(kind, message, { traceback = traceback, value = value, origin = origin }))
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

loop.settle, loop.forked = parallel.settle, parallel.forked

return parallel
