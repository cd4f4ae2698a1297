-- Coroutines inside of tasks: generators that wait, and protected calls that can be waited in.
--
-- A coroutine that waits yields `scheduler.pending` to whoever resumed it. Here the resumer takes over what it waits
-- for and waits in its place, up to the task, which the loop wakes; on the way back each resumes the one inside.

local compat, check, wait = ...

local error, select, type = error, select, type
local create, resume, status, yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local running = compat.running
local MAIN, RAISE = wait.MAIN, wait.RAISE
local doomed, protected_in, carried_in = wait.doomed, wait.protected_in, wait.carried_in

local nested = {}
local carry

--- Resumes a coroutine, and waits in its place as long as it waits.
local function resume_carrying(inner, ...)
  carried_in[inner] = running() or MAIN
  return carry(inner, resume(inner, ...))
end

function carry(inner, ok, ...)
  if not ok or (...) ~= wait.pending then return ok, ... end
  local outer = running() or MAIN
  local token = wait.take_over(inner, outer)
  if token == nil then return ok, ... end
  local cycle = type(token) == "table" and token.joins and wait.find_cycle(wait.runner_of(outer), token.joins)
  if cycle then
    wait.release(token, outer)
    return resume_carrying(inner, RAISE, cycle)
  end
  local is_firm = type(token) == "table" and token.is_firm
  if doomed[outer] ~= nil and not is_firm then
    -- Nothing must be left of the wait: if the task has swallowed too many cancellations, it is not told any more.
    wait.release(token, outer)
    wait.tell_awaited(token, doomed[outer])
    return resume_carrying(inner, RAISE, wait.tell_doom(outer))
  end
  return resume_carrying(inner, wait.carry(token, outer))
end

local function check_coroutine(co, name)
  if type(co) ~= "thread" then check.bad_argument(1, name, "coroutine", co) end
end

--- `coroutine.resume` for a coroutine that may wait.
function nested.resume(co, ...)
  check_coroutine(co, "resume")
  return resume_carrying(co, ...)
end

local function unwrap(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

--- `coroutine.wrap` for a function that may wait.
function nested.wrap(fn)
  check.callable(fn, 1, "wrap")
  local co = create(type(fn) == "function" and fn or function(...)
    return fn(...)
  end)
  return function(...)
    return unwrap(resume_carrying(co, ...))
  end
end

-- Protected calls ---------------------------------------------------------------------------------------------------

--- Whether a coroutine can yield inside of `pcall`: it cannot in PUC Lua 5.1.
local can_yield_in_pcall = select(2, resume(create(function()
  pcall(yield, true)
end))) == true

if can_yield_in_pcall then
  nested.pcall, nested.xpcall = pcall, xpcall
  return nested
end

local pcall, xpcall, traceback = pcall, xpcall, debug and debug.traceback
local unpack = compat.unpack

local function handle(inner, handler, err)
  if handler == nil then return false, err end
  -- The stock handler runs where the error was raised; here that stack is the coroutine's.
  if handler == traceback then
    if type(err) ~= "string" and type(err) ~= "number" then return false, err end
    return false, traceback(inner, err)
  end
  -- An error in the handler has the same result as with the stock one.
  local _, result = xpcall(function()
    error(err, 0)
  end, handler)
  return false, result
end

local finish

--- Goes on with the inside of a protected call. It yields to our caller what it yields of its own accord.
local function continue(inner, handler, ...)
  return finish(inner, handler, resume_carrying(inner, ...))
end

function finish(inner, handler, ok, ...)
  if not ok then return handle(inner, handler, (...)) end
  if status(inner) == "dead" then return true, ... end
  return continue(inner, handler, yield(...))
end

local function new_inside(outer, fn, ...)
  local arguments = compat.pack(...)
  local inner = create(function()
    return fn(unpack(arguments, 1, arguments.n))
  end)
  protected_in[inner] = outer
  return inner
end

local function call_inside(outer, handler, fn, ...)
  local ok, inner = pcall(new_inside, outer, fn, ...)
  if not ok then return false, inner end
  return continue(inner, handler)
end

--- `pcall`. On the main thread nothing yields, so that the stock one will do.
function nested.pcall(...)
  local outer = running()
  if not outer or not check.is_callable((...)) then return pcall(...) end
  return call_inside(outer, nil, ...)
end

--- `xpcall`, with arguments for the function as in later versions.
function nested.xpcall(fn, handler, ...)
  local outer, arguments = running(), compat.pack(...)
  if not check.is_callable(fn) then return xpcall(fn, handler) end
  if outer then return call_inside(outer, handler, fn, ...) end
  return xpcall(function()
    return fn(unpack(arguments, 1, arguments.n))
  end, handler)
end

return nested
