-- Channels: messages between tasks, in this VM and in others.
--
-- What a task waits for has a place, a number (see src/vm/channels.rs), by which the others end the wait. Its node is
-- anchored in the channels that it waits for, so that a task is collected with a channel that nobody can use any more.
-- As long as others can, the channel is pinned.

local native, compat, check, errors, wait, loop = ...

local format = string.format
local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local pack, unpack = compat.pack, compat.unpack
local current, leave, make_ready = wait.current, wait.leave, wait.make_ready
local set_timer, suspend, WAKE = wait.set_timer, wait.suspend, wait.WAKE

local send, send_list, drop_cases = native.channel_send, native.channel_send_list, native.channel_drop_cases
local receive, received_list = native.channel_receive, native.channel_received
local begin_wait, take = native.channel_wait, native.channel_take
local withdraw, give_up, anchors_of = native.channel_withdraw, native.channel_give_up, native.channel_anchors
local has_others, is_waited_for = native.channel_has_others, native.channel_is_waited_for

-- What natives return first (see src/binding/shared/channel.rs).
local NOT_NOW, DONE, DONE_LIST, CLOSED, NOT_PLAIN, FAILED = 0, 1, 2, 3, 4, 5

local channel = {}

local pins, places = native.channel_pins, loop.places

-- Waiting -----------------------------------------------------------------------------------------------------------

local function unanchor(node)
  local place = node.place
  node.list = false
  -- Even what is set to nil may take memory, if it is not there.
  if places[place] then places[place] = nil end
  for _, anchors in ipairs(node.anchors) do
    if anchors[place] then anchors[place] = nil end
  end
end

--- After what a wait has ended with was taken or given back: its channels need not be kept if nobody waits for them.
local function unpin(node)
  for i = 1, #node do
    local object = node[i]
    if pins[object] and not is_waited_for(object) then pins[object] = nil end
  end
end

local function anchor(node)
  local anchors = {}
  node.anchors = anchors -- those that there are, should memory run out
  for i = 1, #node do
    local object = node[i]
    anchors[i] = anchors_of(object)
    anchors[i][node.place] = node
    if not pins[object] and has_others(object) then pins[object] = true end
  end
end

-- The anchors of a node that has none yet.
local NONE = {}

-- What the nodes of all that wait have in the place of a list of waiters.
local list = {}

--- Takes a node out of its channels. What it has been given by then is taken, or given back.
function list.remove(node)
  node.woken = withdraw(node.place)
  unanchor(node)
  if not node.woken then unpin(node) end
end

--- Ends a wait, unless a message was sent or received by it: then the news is on its way. Returns whether one was.
function list.settle(node)
  return withdraw(node.place)
end

--- Wakes a task whose wait was ended.
function list.woken(node)
  make_ready(node)
  unanchor(node)
  leave(node)
  node.woken = true
end

local function give_back(node)
  give_up(node.place)
  unpin(node)
end

--- Nobody else can use some channel any more.
function loop.others_left()
  for object in pairs(pins) do
    if not has_others(object) then pins[object] = nil end
  end
end

--- When a job has ended, whose waits were ended.
function loop.discard_channels()
  for _, node in pairs(places) do
    if node.list == list then unanchor(node) end
  end
  for object in pairs(pins) do
    pins[object] = nil
  end
end

--- The node of one who waits for one channel. It has all fields from the beginning, so that it need not grow.
local function new_node(object)
  return {
    object,
    place = false,
    anchors = NONE,
    co = false,
    list = list,
    give_back = give_back,
    value = false,
    woken = false,
  }
end

local function sender_node(object)
  local node = new_node(object)
  node.sends = true
  return node
end

--- Begins to wait for the cases that were tried in vain in the channels of the list `node`, or to receive from
--- `object`. Returns what the native does: NOT_NOW if somebody waits from now on.
local function begin(node, co, seconds, object)
  local status, case, value = begin_wait(not loop.has_work(), object)
  if status ~= NOT_NOW then return status, case, value end
  node.place = case -- before all that takes memory
  node.co, node.list, node.give_back, node.value = co, list, give_back, node
  places[case] = node
  anchor(node)
  if seconds then
    node.timer = false -- to have a field for it is to take memory
    node.timer = set_timer(node, seconds)
  end
  return NOT_NOW
end

--- Leaves the place of one who cannot wait, as memory has run out: what it has been given goes back.
local function leave_half_way(node, err)
  node.co = false
  if node.place then
    give_up(node.place)
    unanchor(node)
  end
  error(err, 0)
end

-- What natives return -----------------------------------------------------------------------------------------------

local function refuse_closed()
  errors.raise_closed("the channel")
end

channel.refuse_closed = refuse_closed

local function refuse_self(self, name)
  check.bad_self(self, name, "channel")
end

--- The values of a message that was received.
local function values(status, value)
  if status == DONE then return value end
  return unpack(value, 1, value.n)
end

local function ended(finish, context, node, ...)
  if (...) ~= WAKE then return ... end
  if not node.woken then return finish(context, nil) end
  local ok, status, case, value = pcall(take, node.place)
  if not ok then give_up(node.place) end
  unpin(node)
  if not ok then error(status, 0) end
  if status == FAILED then check.raise(value) end
  return finish(context, status, case, value)
end

--- Waits for one of the cases that `begin` is given. Returns `finish(context, status, case, value)`, without a status
--- after so many seconds; or what somebody passed to `resume`.
function channel.wait(finish, context, node, seconds, object)
  local co = current()
  node.place, node.anchors = false, NONE
  local ok, status, case, value = pcall(begin, node, co, seconds, object)
  if not ok then leave_half_way(node, status) end
  if status == FAILED then check.raise(value) end
  if status ~= NOT_NOW then return finish(context, status, case, value) end
  return ended(finish, context, node, suspend(node, co))
end

channel.NOT_NOW, channel.CLOSED, channel.FAILED, channel.values = NOT_NOW, CLOSED, FAILED, values

-- Sending -----------------------------------------------------------------------------------------------------------

local Channel = { __name = "scheduler.channel" }
Channel.__index = Channel

--- What a status means to a sender: true if it has sent, false if it has to wait.
local function has_sent(status, reason)
  if status == DONE then return true end
  if status == CLOSED then refuse_closed() end
  if status == FAILED then check.raise(reason) end
  return false
end

--- Sends; false if it has to wait.
local function try_send(self, name, ...)
  local status = send(self, ...)
  if status == DONE then return true end
  if status == NOT_PLAIN then return has_sent(send_list(self, pack(...))) end
  if status == nil then refuse_self(self, name) end
  return has_sent(status)
end

local function sent(_, status)
  if status == nil then return false, "timeout" end
  return has_sent(status)
end

--- Sends all values as one message; waits for a receiver or for room.
function Channel:send(...)
  return try_send(self, "send", ...) or channel.wait(sent, nil, sender_node(self))
end

--- As `send`. False and "timeout" if that takes longer than `seconds`: the message is not sent then.
function Channel:send_timeout(seconds, ...)
  check.number(seconds, 1, "send_timeout")
  if try_send(self, "send_timeout", ...) then return true end
  return channel.wait(sent, nil, sender_node(self), seconds)
end

--- Sends if somebody waits for a message or there is room. Returns whether it has.
function Channel:try_send(...)
  local is_sent = try_send(self, "try_send", ...)
  if not is_sent then drop_cases() end
  return is_sent
end

-- Receiving ---------------------------------------------------------------------------------------------------------

local function received(_, status, _, value)
  if status == nil then return nil, "timeout" end
  if status == CLOSED then return nil, "closed" end
  return values(status, value)
end

--- Takes the first message, and waits for one if there is none. Nil and "timeout" if that takes longer than `seconds`;
--- nil and "closed" when the channel is closed and empty.
function Channel:recv(seconds)
  if seconds ~= nil then check.timeout(seconds, 1, "recv") end
  local status, value = receive(self)
  if status == DONE then return value end
  if status == NOT_NOW then return channel.wait(received, nil, new_node(self), seconds, self) end
  if status == nil then refuse_self(self, "recv") end
  if status == DONE_LIST then status, value = received_list() end
  if status == FAILED then check.raise(value) end
  return received(nil, status, nil, value)
end

--- Takes the first message: true and its values; false if there is none, and "closed" if none will come.
function Channel:try_recv()
  local status, value = receive(self)
  if status == NOT_NOW then return false end
  if status == CLOSED then return false, "closed" end
  if status == nil then refuse_self(self, "try_recv") end
  if status == DONE_LIST then status, value = received_list() end
  if status == FAILED then check.raise(value) end
  return true, values(status, value)
end

--- `for value in channel do`: receives until the channel is closed and empty.
function Channel:__call()
  return Channel.recv(self)
end

-- The rest ----------------------------------------------------------------------------------------------------------

--- Closes the channel: what is in it can still be received; sending raises, also a send that waits.
function Channel:close()
  if not native.channel_close(self) then refuse_self(self, "close") end
end

--- Whether the channel was closed. There may be messages in it.
function Channel:is_closed()
  local is_closed = native.channel_is_closed(self)
  if is_closed == nil then refuse_self(self, "is_closed") end
  return is_closed
end

--- How many messages are in it, those of senders that wait left out.
function Channel:len()
  return native.channel_length(self) or refuse_self(self, "len")
end

Channel.__len = Channel.len

function Channel:__tostring()
  return format("channel %d", native.channel_number(self) or 0)
end

channel.class = Channel

function channel.new(capacity)
  if capacity ~= nil then check.count(capacity, 0, 1, "channel") end
  return native.new_channel(capacity or 0)
end

return channel
