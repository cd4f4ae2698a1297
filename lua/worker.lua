-- Runs one job in a worker VM.

local errors, loop, compat = ...

local unpack = compat.unpack

--- Runs `fn(...)` as a task, until it has ended. Returns true and its results, or false, the error in words, the
--- traceback and the error itself.
return function(fn, ...)
  local outcome = loop.start(fn, "a job", ...)
  loop.run_until_settled(outcome)
  loop.discard()
  errors.on_error(nil)
  if outcome.failed then return false, errors.describe(outcome.err), outcome.traceback, outcome.err end
  if not outcome.settled then return false, "the job " .. loop.why_unsettled(outcome), "", nil end
  return true, unpack(outcome.results, 1, outcome.results.n)
end
