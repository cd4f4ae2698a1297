-- Calls during which a lock or permit is held: it is let go however they end.

local task, protected_call = ...

local error = error

local function finish(owner, let_go, ok, ...)
  if task.pop_clean_up(owner, let_go) then let_go() end
  if not ok then error((...), 0) end
  return ...
end

--- Runs `fn(...)`, and calls `let_go` when it has ended: it has returned or raised, or its task was cancelled for good.
return function(let_go, fn, ...)
  local owner = task.current()
  task.push_clean_up(owner, let_go)
  return finish(owner, let_go, protected_call(fn, ...))
end
