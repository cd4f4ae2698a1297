-- Inside another loop: `fd` and `poll`.

local scheduler = require("scheduler")

local function ignore() end

--- Sets work of every kind that ends in `record`.
local function set_work(record)
  scheduler.setTimeout(record, 5, "timeout")
  scheduler.queueMicrotask(record, "microtask")
  scheduler.setImmediate(record, "immediate")
  scheduler.setTimeout(function()
    scheduler.setTimeout(record, 5, "nested")
  end, 1)
  local co = coroutine.wrap(function()
    record(scheduler.await(scheduler.parallel.run(function()
      return "job"
    end)))
  end)
  co()
end

local expected = { immediate = true, job = true, microtask = true, nested = true, timeout = true }

-- Debian has no luv and no luasocket for Lua 5.5.
local it_with_module = _VERSION == "Lua 5.5" and pending or it

describe("the descriptor", function()
  it("is a number, and always the same", function()
    local fd = scheduler.fd()
    assert.is_number(fd)
    assert.are.equal(fd, scheduler.fd())
  end)

  it_with_module("drives us from luv's uv.new_poll", function()
    local has_luv, uv = pcall(require, "luv")
    assert.is_true(has_luv, "luv is not installed")
    local seen, count, polls = {}, 0, 0
    local handle = uv.new_poll(scheduler.fd())
    local guard = uv.new_timer()
    local function finish()
      handle:stop()
      handle:close()
      guard:stop()
      guard:close()
    end
    handle:start("r", function()
      polls = polls + 1
      scheduler.poll()
      if count == 5 then finish() end
    end)
    guard:start(20000, 0, finish)
    local function record(what)
      seen[what], count = true, count + 1
    end
    set_work(record)
    uv.run()
    assert.are.same(expected, seen)
    assert.is_true(polls < 50, polls)
  end)

  it_with_module("drives us from luv also when timers are set by luv's callbacks", function()
    local _, uv = pcall(require, "luv")
    local fired, handle, timer = false, uv.new_poll(scheduler.fd()), uv.new_timer()
    handle:start("r", function()
      scheduler.poll()
      if fired then handle:close() end
    end)
    timer:start(5, 0, function()
      timer:close()
      scheduler.setTimeout(function()
        fired = true
      end, 2)
    end)
    uv.run()
    assert.is_true(fired)
  end)

  it_with_module("drives us from luasocket's select", function()
    local has_socket, socket = pcall(require, "socket")
    assert.is_true(has_socket, "luasocket is not installed")
    local fd = scheduler.fd()
    local readable = {
      getfd = function()
        return fd
      end,
    }
    local seen, count, rounds = {}, 0, 0
    set_work(function(what)
      seen[what], count = true, count + 1
    end)
    while count < 5 and rounds < 1000 do
      local ready = socket.select({ readable }, nil, 20)
      assert.are.equal(1, #ready, "the descriptor did not become readable")
      scheduler.poll()
      rounds = rounds + 1
    end
    assert.are.same(expected, seen)
    assert.is_true(rounds < 50, rounds)
  end)

  it_with_module("is not readable when there is nothing to do", function()
    local _, socket = pcall(require, "socket")
    local fd = scheduler.fd()
    local readable = {
      getfd = function()
        return fd
      end,
    }
    local function is_readable()
      return #socket.select({ readable }, nil, 0) == 1
    end
    while scheduler.poll() do
      ignore()
    end
    scheduler.poll()
    assert.is_false(is_readable())
    local id = scheduler.setTimeout(ignore, 3600000)
    assert.is_false(is_readable())
    scheduler.clearTimeout(id)
    scheduler.queueMicrotask(ignore)
    assert.is_true(is_readable())
    scheduler.poll()
    assert.is_false(is_readable())
    scheduler.setImmediate(ignore)
    assert.is_true(is_readable())
    scheduler.poll()
    assert.is_false(is_readable())
  end)
end)
