-- Calls during which a lock or permit is held: it is let go however they end.

local task, protected_call = ...

local error, pcall = error, pcall

local function finish(owner, let_go, ok, ...)
  if task.pop_clean_up(owner, let_go) then let_go() end
  if not ok then error((...), 0) end
  return ...
end

--- Runs `fn(...)`, and calls `let_go` when it has ended: it has returned or raised, or its task was cancelled for good.
--- `let_go` has to be made before what it lets go is held: if there is no memory for it, nothing is.
return function(let_go, fn, ...)
  local owner = task.current()
  local ok, err = pcall(task.push_clean_up, owner, let_go)
  if not ok then
    let_go()
    error(err, 0)
  end
  return finish(owner, let_go, protected_call(fn, ...))
end
