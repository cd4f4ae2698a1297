-- Runs one job in a worker VM.

local compat, errors, outcome, loop = ...

local pack, unpack = compat.pack, compat.unpack

--- Runs a call, a list of the function and its arguments, as a task until that has ended. Returns the list of its
--- results; or a list with its error, that in words, and the traceback.
return function(call)
  local co = loop.start(call[1], "a job", unpack(call, 2, call.n))
  loop.run_until_ended(co)
  local result = outcome.of(co)
  loop.discard()
  errors.on_error(nil)
  if not result then return pack(), "the job waits, and nothing is left that could wake it", "" end
  if result.failed or result.cancelled then
    return pack(result.err), errors.describe(result.err), result.traceback or ""
  end
  return result.n and result or pack(), nil, ""
end
