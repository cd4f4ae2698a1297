-- Lists of coroutines that wait for the same thing: first in, first out, and each may leave at any time.
--
-- A node is the place of one coroutine in one list, and its token (see wait.lua). A list may have `give_back(value)`:
-- it gets back what a coroutine was woken with, if that goes on without having taken it. `what` says in words what is
-- waited for, and `of` is that thing, if the program has it; lists without serve for one thing that happens once. If
-- that is the end of coroutines, these are the keys of `children`.

local compat, wait = ...

local setmetatable = setmetatable
local tells_yieldable = compat.tells_yieldable
local MAIN, token_of = wait.MAIN, wait.token_of
local current, suspend, leave = wait.current, wait.suspend, wait.leave
local set_timer, make_ready = wait.set_timer, wait.make_ready

local waiters = {
  --- How many coroutines wait in lists; those as well that were collected with their list.
  waiting = 0,
  --- The lists in which somebody waits, and those that will be used again in which somebody has waited.
  lists = setmetatable({}, { __mode = "k" }),
}

local lists = waiters.lists

--- Takes a node out of its list.
local function remove(node)
  local list, before, after = node.list, node.before, node.after
  node.list, node.before, node.after = nil, nil, nil
  waiters.waiting = waiters.waiting - 1
  if before then before.after = after else list.first = after end
  if after then after.before = before else list.last = before end
  if not before and not after and not list.what then lists[list] = nil end
end

function waiters.new(give_back, what, of)
  return { give_back = give_back, what = what, of = of, remove = remove, woken = 0 }
end

--- Notes a list in which somebody waits for the first time.
local function note(list)
  list.is_noted, lists[list] = true, true
end

local function push(list, node)
  local last = list.last
  if not last and not list.is_noted then note(list) end
  waiters.waiting = waiters.waiting + 1
  node.list, node.before, list.last = list, last, node
  if last then last.after = node else list.first = node end
end

local function push_front(list, node)
  local first = list.first
  if not first then return push(list, node) end
  waiters.waiting = waiters.waiting + 1
  node.list, node.after, list.first, first.before = list, first, node, node
end

--- Waits in a list, for so many seconds at the most. Returns WAKE, or what somebody passed to `resume`. After WAKE,
--- `node.woken` tells whether it was woken, with `node.value`, or has timed out. With `node.goes_first` it comes before
--- those that wait there by now.
function waiters.wait(list, seconds, node)
  local co = current()
  node.co, node.give_back = co, list.give_back
  if node.goes_first then push_front(list, node) else push(list, node) end
  if seconds then node.timer = set_timer(node, seconds) end
  return suspend(node, co)
end

--- Waits in a list until woken, whatever else happens. Returns the error that the wait would have been interrupted
--- with; `on_interruption` is called with it at once.
function waiters.wait_through(list, on_interruption)
  local node = { co = current("shielded"), is_firm = true }
  push(list, node)
  return wait.suspend_through(node, node.co, function(co, interruption)
    node.co = co
    push(list, node)
    if interruption ~= nil and on_interruption then on_interruption(interruption) end
  end)
end

--- Whether anybody waits in a list. A coroutine that could not yield is in it all the same where Lua does not tell that
--- beforehand.
function waiters.is_any(list)
  local node = list.first
  while node and not tells_yieldable and node.co ~= MAIN and token_of(node.co) ~= node do
    node = node.after
  end
  return node ~= nil
end

--- Wakes the first of a list with a value, and returns true; false if nobody waits. `number` tells when the value was
--- given first, if it was given back.
function waiters.wake_first(list, value, number)
  local node = list.first
  if not node then return false end
  leave(node)
  if not number then
    number = list.woken + 1
    list.woken = number
  end
  node.woken, node.value, node.number = true, value, number
  make_ready(node)
  return true
end

function waiters.wake_all(list, value)
  while waiters.wake_first(list, value) do
  end
end

return waiters
