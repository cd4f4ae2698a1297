-- What reaches the error handler: `uncaught(fn, ...)` calls `fn(...)` and returns a list of tables with `err`,
-- `traceback` and `source`.

local scheduler = require("scheduler")

return function(fn, ...)
  local errors = {}
  local former = scheduler.on_error(function(err, traceback, source)
    errors[#errors + 1] = { err = err, traceback = traceback, source = source }
  end)
  local ok, failure = pcall(fn, ...)
  scheduler.on_error(former)
  if not ok then error(failure, 0) end
  return errors
end
