-- Runs one job in a worker VM.

local compat, errors, outcome, loop = ...

local unpack = compat.unpack

--- Runs `fn(...)` as a task, until it has ended. Returns true and its results, or false, the error in words, the
--- traceback and the error itself.
return function(fn, ...)
  local co = loop.start(fn, "a job", ...)
  loop.run_until_ended(co)
  local result = outcome.of(co)
  loop.discard()
  errors.on_error(nil)
  if not result then return false, "the job waits, and nothing is left that could wake it", "", nil end
  if result.failed or result.cancelled then
    return false, errors.describe(result.err), result.traceback or "", result.err
  end
  return true, unpack(result, 1, result.n)
end
