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

--- A node. It has all fields from the beginning that are needed when it is linked, and when it is woken: there may be
--- no memory then. One more makes eight, which is what fits before Lua doubles the table.
function waiters.node()
  return {
    co = false,
    list = false,
    before = false,
    after = false,
    woken = false,
    value = false,
    number = false,
  }
end

--- Takes a node out of its list.
local function remove(node)
  local list, before, after = node.list, node.before, node.after
  node.list, node.before, node.after = false, false, false
  waiters.waiting = waiters.waiting - 1
  if before then before.after = after else list.first = after end
  if after then after.before = before else list.last = before end
  if not before and not after and not list.what then lists[list], list.is_noted = nil, false end
end

function waiters.new(give_back, what, of)
  return {
    give_back = give_back,
    what = what,
    of = of,
    remove = remove,
    first = false,
    last = false,
    woken = 0,
    is_noted = false,
    is_finished = false,
  }
end

--- Notes a list in which somebody is to wait for the first time.
local function note(list)
  lists[list] = true
  list.is_noted = true
end

local function push(list, node)
  local last = list.last
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

--- Puts the node of a coroutine that is about to be suspended into a list, for so many seconds at the most.
local function enter(list, seconds, node, co)
  node.co = co
  if list.give_back then node.give_back = list.give_back end
  if not list.is_noted then note(list) end
  if seconds then
    node.timer = false -- to have a field for it is to take memory
    node.timer = set_timer(node, seconds)
  end
  -- Nothing from here on takes memory: it is in the list, or nothing is done.
  if node.goes_first then push_front(list, node) else push(list, node) end
end

waiters.enter = enter

--- Waits in a list, for so many seconds at the most. Returns WAKE, or what somebody passed to `resume`. After WAKE,
--- `node.woken` tells whether it was woken, with `node.value`, or has timed out. With `node.goes_first` it comes before
--- those that wait there by now.
function waiters.wait(list, seconds, node)
  local co = current()
  node = node or waiters.node()
  enter(list, seconds, node, co)
  return suspend(node, co)
end

--- Waits in a list until that is finished, whatever else happens. Returns the error that the wait would have been
--- interrupted with; `on_interruption` is called with it at once.
function waiters.wait_through(list, on_interruption)
  local node = waiters.node()
  node.co, node.is_firm = current("shielded"), true
  if not list.is_noted then note(list) end
  push(list, node)
  return wait.suspend_through(node, node.co, function(co, interruption)
    -- It may have been finished between the interruption and now.
    if list.is_finished then
      node.woken = true
      return
    end
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
  return node ~= false
end

--- Wakes the first of a list with a value, and returns true; false if nobody waits. `number` tells when the value was
--- given first, if it was given back.
function waiters.wake_first(list, value, number)
  local node = list.first
  if not node then return false end
  make_ready(node) -- this alone can fail
  leave(node)
  if not number then
    number = list.woken + 1
    list.woken = number
  end
  node.woken, node.value, node.number = true, value, number
  return true
end

function waiters.wake_all(list, value)
  while waiters.wake_first(list, value) do
  end
end

--- Wakes all, and lets nobody wait again who was in the list: what it is for has happened.
function waiters.finish(list)
  list.is_finished = true
  waiters.wake_all(list)
end

return waiters
