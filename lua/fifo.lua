-- Queues: first in, first out.
--
-- What is pushed is appended to the list `coming`. What is taken out comes from the list `batch`, which is the former
-- `coming`, and begins at `first`. So no list is ever shifted, and none slides along its indices, which Lua would move
-- to a hash table: with a few entries that push each other for ever, the same two short lists are used in turn.

local fifo = {}

function fifo.new()
  return { coming = { last = 0 }, batch = nil, first = 1, spare = { last = 0 } }
end

function fifo.push(queue, entry)
  local coming = queue.coming
  local last = coming.last + 1
  coming.last, coming[last] = last, entry
end

function fifo.is_empty(queue)
  return queue.batch == nil and queue.coming.last == 0
end

function fifo.length(queue)
  local batch = queue.batch
  return queue.coming.last + (batch and batch.last - queue.first + 1 or 0)
end

--- The list to take from, and the index of its first entry; nil if the queue is empty.
function fifo.batch(queue)
  local batch = queue.batch
  if batch then return batch, queue.first end
  local coming = queue.coming
  if coming.last == 0 then return nil end
  queue.batch, queue.first, queue.coming = coming, 1, queue.spare
  return coming, 1
end

--- Notes that the entries of the batch before `first` were taken and set to nil.
function fifo.took(queue, first)
  local batch = queue.batch
  if first <= batch.last then
    queue.first = first
  else
    batch.last = 0
    queue.batch, queue.spare = nil, batch
  end
end

--- Calls `visit` for each entry.
function fifo.each(queue, visit)
  local batch, coming = queue.batch, queue.coming
  for i = queue.first, batch and batch.last or 0 do
    visit(batch[i])
  end
  for i = 1, coming.last do
    visit(coming[i])
  end
end

function fifo.clear(queue)
  queue.coming, queue.spare, queue.batch, queue.first = { last = 0 }, { last = 0 }, nil, 1
end

return fifo
