-- What queues do that channels do not; `handover_spec` has the rest.

local scheduler = require("scheduler")
local virtual = require("spec.support.virtual")

local task = scheduler.task
local advance, recorder = virtual.advance, virtual.recorder

local function ignore() end

--- Takes out all that is there.
local function drain(queue)
  local list, record = recorder()
  local value = queue:try_pop()
  while value ~= nil do
    record(value)
    value = queue:try_pop()
  end
  return list
end

describe("a queue", function()
  virtual.setup(before_each, after_each)

  it("takes values of every type but nil, false as well", function()
    local queue = scheduler.queue()
    local values = { false, true, 0, "", {}, ignore, coroutine.create(ignore), io.stdout }
    for i = 1, #values do
      queue:push(values[i])
    end
    for i = 1, #values do
      assert.are.equal(values[i], queue:pop())
    end
    local got, record = recorder()
    task.spawn(function()
      record(queue:pop())
    end)
    queue:push(false)
    advance(0)
    assert.are.same({ false }, got)
    local small = scheduler.queue(1)
    for _, value in ipairs({ 1, false, 3 }) do
      task.spawn(small.push, small, value)
    end
    assert.are.same({ 1, false, 3 }, drain(small))
    advance(0)
    for _, name in ipairs({ "push", "try_push" }) do
      local _, message = pcall(function()
        queue[name](queue, nil)
      end)
      assert.matches("^[^\n]*queue_spec%.lua:%d+: bad argument #1 to '" .. name .. "'", message)
      assert.matches("%(value expected, got nil%)", message)
    end
    assert.are.equal(0, queue:len())
  end)

  it("without a capacity takes any number of values, and keeps none of them afterwards", function()
    local queue = scheduler.queue()
    local kept = setmetatable({}, { __mode = "k" })
    for _ = 1, 100000 do
      local value = {}
      kept[value] = true
      queue:push(value)
    end
    for _ = 1, 100000 do
      queue:pop()
    end
    collectgarbage()
    collectgarbage()
    local left = 0
    for _ in pairs(kept) do
      left = left + 1
    end
    assert.is_true(left < 10, left)
  end)

  it("refuses a timeout that is no number, and changes nothing", function()
    local queue = scheduler.queue()
    queue:push("kept")
    for _, case in ipairs({ { "string", "1" }, { "table", {} }, { "NaN", 0 / 0 } }) do
      local ok, message = pcall(queue.pop, queue, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'pop' %(number expected, got " .. case[1] .. "%)", message)
      ok, message = pcall(queue.push, queue, 1, case[2])
      assert.is_false(ok)
      assert.matches("bad argument #2 to 'push' %(number expected, got " .. case[1] .. "%)", message)
    end
    assert.are.same({ "kept" }, drain(queue))
  end)
end)
