local scheduler = require("scheduler")
local child = require("spec.support.child")
local memory = require("spec.support.memory")
local misuse = require("spec.support.misuse")
local raised = require("spec.support.raised")

local await, map, task, Promise = scheduler.await, scheduler.parallel.map, scheduler.task, scheduler.Promise

--- Waits until `is_so()`, for seconds at the most.
local function wait_until(is_so)
  for _ = 1, 5000 do
    if is_so() then return true end
    task.wait(0.001)
  end
  return false
end

local function new_pool(options)
  local pool = scheduler.parallel.pool(options or { size = 2 })
  return pool, function(values, fn, more)
    return pool:map(values, fn, more)
  end
end

local function double(n)
  return 2 * n
end

--- The numbers from 1 to `last`, as an iterator, and how many were read of it.
local function counter(last)
  local read = { count = 0 }
  return function()
    if read.count == last then return nil end
    read.count = read.count + 1
    return read.count
  end, read
end

local function range(last)
  local list = {}
  for i = 1, last do
    list[i] = i
  end
  return list
end

--- The error that a map is rejected with.
local function error_of(job)
  local ok, err = pcall(await, job)
  assert.is_false(ok)
  return err
end

--- Lists the first arguments of a function that raises at these.
local function failing_at(...)
  local bad = {}
  for i = 1, select("#", ...) do
    bad[select(i, ...)] = true
  end
  return function(n)
    if bad[n] then error("bad item " .. n) end
    return n
  end
end

describe("parallel.map", function()
  it("gives the results in the order of the items", function()
    local results = await(map(range(2000), function(n)
      if n % 500 == 1 then require("scheduler").task.wait(0.01) end
      return 2 * n
    end))
    assert.are.equal(2000, #results)
    for i = 1, 2000 do
      assert.are.equal(2 * i, results[i])
    end
  end)

  it("takes an empty list, and an iterator that is at its end", function()
    assert.are.same({}, await(map({}, double)))
    assert.are.same({}, await(map(counter(0), double)))
    assert.are.same({ n = 2, {}, {} }, { n = 2, await(map({}, double, { errors = "collect" })) })
  end)

  it("takes one item", function()
    assert.are.same({ 14 }, await(map({ 7 }, double)))
  end)

  it("passes the item and its place", function()
    local function place(item, index, ...)
      return item .. index .. select("#", ...)
    end
    assert.are.same({ "a10", "b20", "c30" }, await(map({ "a", "b", "c" }, place)))
    for _, chunk in ipairs({ 1, 2, 7 }) do
      local results = await(map(range(50), function(item, index)
        return item == index
      end, { chunk = chunk }))
      for i = 1, 50 do
        assert.is_true(results[i])
      end
    end
  end)

  it("takes holes and false as items, as far as # tells", function()
    local list = { 1, nil, 3, false, 5 }
    local types = { "number", "nil", "number", "boolean", "number" }
    -- Which of its ends that is, is up to Lua.
    assert.are.same({ (table.unpack or unpack)(types, 1, #list) }, await(map(list, type)))
  end)

  it("leaves holes where the function returns nothing", function()
    local results = await(map(range(100), function(n)
      if n % 2 == 0 then return n end
    end))
    for i = 1, 100 do
      assert.are.equal(i % 2 == 0 and i or nil, results[i])
    end
  end)

  it("takes the first result of many", function()
    assert.are.same({ 1, false, 3 }, await(map({ 1, 2, 3 }, function(n)
      return n ~= 2 and n, "more", "and more"
    end)))
  end)

  it("keeps state in modules, in each worker", function()
    local _, pool_map = new_pool({ size = 1 })
    local results = await(pool_map(range(20), function()
      local fixture = require("spec.support.fixture")
      fixture.calls = (fixture.calls or 0) + 1
      return fixture.calls
    end))
    assert.are.same(range(20), results)
    assert.is_nil(require("spec.support.fixture").calls)
  end)

  it("sends the function, with what it refers to, once to each worker", function()
    local _, pool_map = new_pool({ size = 2 })
    local big = { text = ("x"):rep(2 ^ 20), calls = 0 }
    local results = await(pool_map(range(200), function()
      big.calls = big.calls + 1
      return big.calls
    end, { chunk = 1 }))
    -- Each worker counts for itself; a table that was sent anew would begin at 1.
    local ones = 0
    for _, calls in ipairs(results) do
      if calls == 1 then ones = ones + 1 end
    end
    assert.is_true(ones >= 1 and ones <= 2)
    assert.are.equal(0, big.calls)
  end)

  it("lets the function wait, and return promises", function()
    local function waiting(n)
      require("scheduler").task.wait(0.001)
      return n + 1
    end
    local function promising(n)
      local inner = require("scheduler").Promise
      return inner.delay(0.001):andThenReturn(n + 1)
    end
    assert.are.same({ 2, 3, 4 }, await(map({ 1, 2, 3 }, waiting)))
    assert.are.same({ 2, 3, 4 }, await(map({ 1, 2, 3 }, promising)))
    assert.matches("on purpose", error_of(map({ 1 }, function()
      return require("scheduler").Promise.reject("on purpose")
    end)).message)
  end)

  it("works in a job, also where all workers run such jobs", function()
    local pool, pool_map = new_pool({ size = 1, queue = 1 })
    local results = await(pool_map({ 3, 4, 5 }, function(n)
      local inner = require("scheduler")
      local list = {}
      for i = 1, n do
        list[i] = i
      end
      local sum = 0
      for _, square in ipairs(inner.await(pool:map(list, function(i)
        return i * i
      end))) do
        sum = sum + square
      end
      return sum
    end))
    assert.are.same({ 14, 30, 55 }, results)
  end)

  it("works where nothing may wait in the queue", function()
    for _, queue in ipairs({ 0, 1 }) do
      local _, pool_map = new_pool({ size = 2, queue = queue })
      assert.are.same({ 2, 4, 6, 8, 10 }, await(pool_map({ 1, 2, 3, 4, 5 }, double, { chunk = 1 })))
    end
  end)

  it("keeps all jobs busy that a worker may run at a time", function()
    local _, pool_map = new_pool({ size = 1, concurrency = 10 })
    local begun = scheduler.shared.atomic(0)
    -- Each waits for all others.
    await(pool_map(range(10), function()
      begun:add(1)
      while begun:get() < 10 do
        require("scheduler").task.wait(0.001)
      end
    end))
    assert.are.equal(10, begun:get())
  end)

  it("is refused by a pool that is closed", function()
    local pool, pool_map = new_pool()
    pool:close()
    local err = error_of(pool_map({ 1 }, double))
    assert.are.same({ "closed", "the pool is closed" }, { err.kind, err.message })
  end)

  it("is cancelled with its pool", function()
    local pool, pool_map = new_pool()
    local job = pool_map(range(10), function()
      require("scheduler").task.wait(100)
    end)
    pool:close(0)
    assert.are.equal("Cancelled", (job:awaitStatus()))
  end)

  it("refuses bad arguments, at the line of the call", function()
    local wrong = "bad argument #%d to 'map' (%s)"
    misuse(function() map(7, double) end, wrong:format(1, "table or iterator expected, got number"))
    misuse(function() map(nil, double) end, wrong:format(1, "table or iterator expected, got nil"))
    misuse(function() map({}, "double") end, wrong:format(2, "function expected, got string"))
    misuse(function() map({}, double, 7) end, wrong:format(3, "table expected, got number"))
    misuse(function() map({}, double, { size = 7 }) end, wrong:format(3, "unknown option 'size'"))
    misuse(function() map({}, double, { chunk = 0 }) end,
      wrong:format(3, "option 'chunk': whole number of at least 1 expected, got 0"))
    misuse(function() map({}, double, { chunk = 1.5 }) end,
      wrong:format(3, "option 'chunk': whole number of at least 1 expected, got 1.5"))
    misuse(function() map({}, double, { chunk = "1" }) end,
      wrong:format(3, "option 'chunk': number expected, got string"))
    misuse(function() map({}, double, { chunk = 0 / 0 }) end,
      wrong:format(3, "option 'chunk': number expected, got NaN"))
    misuse(function() map({}, double, { errors = "all" }) end,
      wrong:format(3, "option 'errors': \"first\" or \"collect\" expected, got \"all\""))
    misuse(function() map({}, double, { as_completed = 1 }) end,
      wrong:format(3, "option 'as_completed': boolean expected, got number"))
    misuse(function() map({}, double, { progress = 1 }) end,
      wrong:format(3, "option 'progress': boolean or function expected, got number"))
  end)

  it("refuses a function that cannot cross, at the line of the call", function()
    local file = io.stdout
    local function with_file() return file end
    misuse(function() map({}, with_file) end, "cannot transfer argument #2, upvalue 'file': userdata")
  end)
end)

describe("the items of a map", function()
  it("come from iterators", function()
    assert.are.same({ 2, 4, 6 }, await(map(counter(3), double)))
    assert.are.same({ "A", "B" }, await(map(("a b"):gmatch("%a"), string.upper)))
    local callable = setmetatable({}, { __call = (counter(3)) })
    assert.are.same({ 2, 4, 6 }, await(map(callable, double)))
  end)

  it("may be false, from iterators too", function()
    local list, i = { false, 1, false }, 0
    assert.are.same({ "boolean", "number", "boolean" }, await(map(function()
      i = i + 1
      return list[i]
    end, type)))
  end)

  it("come from channels", function()
    local channel = scheduler.channel(5)
    task.spawn(function()
      for i = 1, 50 do
        channel:send(i)
        if i % 10 == 0 then task.wait(0.001) end
      end
      channel:close()
    end)
    local results = await(map(channel, double))
    assert.are.equal(50, #results)
    assert.are.equal(100, results[50])
  end)

  it("come from generators that wait", function()
    local generator = scheduler.coroutine.wrap(function()
      for i = 1, 10 do
        task.wait(0.001)
        coroutine.yield(i)
      end
    end)
    assert.are.same({ 2, 4, 6, 8, 10, 12, 14, 16, 18, 20 }, await(map(generator, double)))
  end)

  it("are not read further ahead than there is to do", function()
    local iterator, read = counter(1e6)
    local ahead, done = 0, 0
    local _, pool_map = new_pool()
    memory.relaxed(function()
      local next_result = pool_map(iterator, double, { as_completed = true })
      while next_result() do
        done = done + 1
        ahead = math.max(ahead, read.count - done)
      end
    end)
    assert.are.equal(1e6, done)
    assert.is_true(ahead < 4e5, "read ahead by " .. ahead)
  end)

  it("are not read further ahead than the parts in flight, if they are dear", function()
    local iterator, read = counter(40)
    local _, pool_map = new_pool()
    local job = pool_map(iterator, function()
      require("scheduler").task.wait(100)
    end)
    task.wait(0.01)
    assert.are.equal(4, read.count)
    job:cancel()
  end)

  it("take no more memory, the more there are, if the results are used as they come", function()
    local _, pool_map = new_pool()
    local function use(count)
      local most = 0
      local next_result = pool_map(counter(count), tostring, { as_completed = true })
      local index = next_result()
      while index do
        if index % 20000 == 0 then
          collectgarbage()
          most = math.max(most, collectgarbage("count"))
        end
        index = next_result()
      end
      return most
    end
    memory.relaxed(function()
      use(1e5)
      local few = use(1e5)
      assert.is_true(use(4e5) < 1.5 * few + 4096)
    end)
  end)

  it("are sent in parts that grow for cheap items", function()
    local pool, pool_map = new_pool()
    assert.are.equal(20000, #await(pool_map(range(20000), double)))
    assert.is_true(pool:stats().done < 2000, pool:stats().done .. " parts")
  end)

  it("are sent one by one if they are dear", function()
    local pool, pool_map = new_pool()
    await(pool_map(range(10), function()
      require("scheduler").task.wait(0.01)
    end))
    assert.are.equal(10, pool:stats().done)
  end)

  it("are sent in parts of the length that is asked for", function()
    for chunk, parts in pairs({ [1] = 21, [5] = 5, [100] = 1 }) do
      local pool, pool_map = new_pool()
      await(pool_map(range(21), double, { chunk = chunk }))
      assert.are.equal(parts, pool:stats().done)
      pool, pool_map = new_pool()
      await(pool_map(counter(21), double, { chunk = chunk }))
      assert.are.equal(parts, pool:stats().done)
    end
  end)

  it("do not pile up if they are large, whatever came before", function()
    local small, most, read, done = 2000, 0, 0, 0
    local large = ("x"):rep(2 ^ 20)
    local _, pool_map = new_pool()
    local next_result = pool_map(function()
      read = read + 1
      if read > small + 60 then return nil end
      return read <= small and "" or large
    end, string.len, { as_completed = true })
    local index = next_result()
    while index do
      done = done + 1
      if index > small then most = math.max(most, read - done) end
      index = next_result()
    end
    assert.are.equal(small + 60, done)
    -- Some of the small ones may come late.
    assert.is_true(most <= small)
    local ahead = 0
    read, done = 0, 0
    next_result = pool_map(function()
      read = read + 1
      return read <= 60 and large or nil
    end, string.len, { as_completed = true })
    index = next_result()
    while index do
      done = done + 1
      ahead = math.max(ahead, read - done)
      index = next_result()
    end
    assert.are.equal(60, done)
    assert.is_true(ahead <= 5, "read ahead by " .. ahead)
  end)

  it("of a slow iterator are not held back until a part is full", function()
    local _, pool_map = new_pool()
    local stalled
    local next_result = pool_map(function()
      stalled = (stalled or 0) + 1
      if stalled > 5000 and stalled < 5020 then task.wait(0.006) end
      return stalled < 5020 and stalled or nil
    end, double, { as_completed = true })
    local last, most = next_result(), 0
    while last do
      if last > 5000 then most = math.max(most, stalled - last) end
      last = next_result()
    end
    assert.is_true(most <= 6, "held back " .. most)
  end)

  it("that cannot cross reject the map, with their place", function()
    local list = range(30)
    list[17] = io.stdout
    local err = error_of(map(list, type))
    assert.are.equal("cannot transfer item #17: userdata", err.message)
    assert.are.equal(17, err.index)
    assert.matches("^spec/map_spec.lua:%d+$", err.origin)
    list[17] = { deep = { io.stdout } }
    assert.are.equal("cannot transfer item #17.deep[1]: userdata", error_of(map(list, type, { chunk = 30 })).message)
  end)

  it("that cannot cross fail by themselves, if errors are collected", function()
    for _, chunk in ipairs({ 1, 4, 30, false }) do
      local list = range(30)
      list[1], list[17], list[18], list[30] = io.stdout, io.stdout, { io.stdout }, io.stdout
      local results, failures = await(map(list, double, { errors = "collect", chunk = chunk or nil }))
      for i = 1, 30 do
        local is_bad = type(list[i]) ~= "number"
        assert.are.equal(not is_bad and 2 * i or nil, results[i])
        assert.are.equal(is_bad and i or nil, failures[i] and failures[i].index)
      end
      assert.are.equal("cannot transfer item #18[1]: userdata", failures[18].message)
    end
  end)
end)

describe("an iterator that raises", function()
  local function raising_after(count, err)
    local iterator, read = counter(1e9)
    return function()
      if read.count == count then error(err, 0) end
      return iterator()
    end
  end

  it("rejects the map with its error", function()
    assert.are.equal("no more", error_of(map(raising_after(0, "no more"), double)))
    assert.are.equal("no more", error_of(map(raising_after(100, "no more"), double)))
    local err = {}
    assert.are.equal(err, error_of(map(raising_after(100, err), double)))
  end)

  it("cancels what is in flight", function()
    local pool, pool_map = new_pool()
    local err = error_of(pool_map(raising_after(3, "no more"), function()
      require("scheduler").task.wait(100)
    end))
    assert.are.equal("no more", err)
    assert.are.equal(3, pool:stats().cancelled)
  end)

  it("raises where results are taken as they come, now and later", function()
    local pool, pool_map = new_pool()
    local next_result = pool_map(raising_after(3, "no more"), function()
      require("scheduler").task.wait(100)
    end, { as_completed = true })
    for _ = 1, 2 do
      local ok, err = pcall(next_result)
      assert.are.same({ false, "no more" }, { ok, err })
    end
    assert.are.equal(3, pool:stats().cancelled)
  end)
end)

describe("the first error of a map", function()
  it("rejects it with an error object that tells what went wrong where", function()
    local err = error_of(map(range(100), failing_at(42)))
    assert.are.equal("error", err.kind)
    assert.matches("^spec/map_spec.lua:%d+: bad item 42$", err.message)
    assert.are.equal(err.message, err.value)
    assert.matches("stack traceback:.*map_spec.lua:%d+", err.traceback)
    assert.are.equal(42, err.index)
    assert.matches("^spec/map_spec.lua:%d+$", err.origin)
    assert.are.equal(err.message .. "\n" .. err.traceback, tostring(err))
  end)

  it("lets no more items begin, and interrupts those that run", function()
    local pool, pool_map = new_pool({ size = 2 })
    local begun = scheduler.shared.atomic(0)
    local err = error_of(pool_map(range(1000), function(n)
      begun:add(1)
      if n == 1 then
        while begun:get() < 2 do
          require("scheduler").task.wait(0.001)
        end
        error("first")
      end
      require("scheduler").task.wait(100)
    end, { chunk = 1 }))
    assert.are.equal(1, err.index)
    assert.is_true(wait_until(function()
      local stats = pool:stats()
      return stats.workers == stats.idle
    end))
    -- The next one may have begun before we heard of the error.
    assert.is_true(begun:get() <= 4, begun:get() .. " have begun")
    assert.are.equal(0, pool:stats().running + pool:stats().queued)
  end)

  it("keeps values of all types, as far as they can cross", function()
    local function raise(value)
      if value == "nil" then error(nil) end
      if value == "coroutine" then error(coroutine.create(function() end)) end
      error(value, 0)
    end
    assert.are.equal(raised.none, error_of(map({ "nil" }, raise)).value)
    assert.are.equal(false, error_of(map({ false }, raise)).value)
    assert.are.equal(7, error_of(map({ 7 }, raise)).value)
    assert.are.same({ code = { 7 } }, error_of(map({ { code = { 7 } } }, raise)).value)
    assert.are.equal(14, error_of(map({ double }, raise)).value(7))
    local err = error_of(map({ "coroutine" }, raise))
    assert.is_nil(err.value)
    assert.matches("^thread", err.message)
    local _, failures = await(map({ false, 7, { 7 }, double, "nil", "coroutine" }, raise, { errors = "collect" }))
    assert.are.equal(false, failures[1].value)
    assert.are.equal(7, failures[2].value)
    assert.are.same({ 7 }, failures[3].value)
    assert.are.equal(14, failures[4].value(7))
    assert.are.equal(raised.none, failures[5].value)
    assert.is_nil(failures[6].value)
    assert.matches("^thread", failures[6].message)
  end)

  it("may be a result that cannot cross", function()
    local err = error_of(map(range(20), function(n)
      return n == 13 and { field = io.stdout } or n
    end))
    assert.matches("cannot transfer the result of item #13.field: userdata", err.message)
    assert.are.equal(13, err.index)
  end)
end)

describe("errors = 'collect'", function()
  it("gives the results, and the errors by their places", function()
    for _, chunk in ipairs({ 1, 7, 100, false }) do
      local results, failures = await(map(range(100), failing_at(1, 42, 43, 100), {
        errors = "collect",
        chunk = chunk or nil,
      }))
      for i = 1, 100 do
        local is_bad = i == 1 or i == 42 or i == 43 or i == 100
        assert.are.equal(not is_bad and i or nil, results[i])
        assert.are.equal(is_bad, failures[i] ~= nil)
      end
      assert.matches("^spec/map_spec.lua:%d+: bad item 42$", failures[42].message)
      assert.are.same({ "error", 42 }, { failures[42].kind, failures[42].index })
      assert.matches("stack traceback:.*map_spec.lua", failures[42].traceback)
    end
  end)

  it("collects results that cannot cross", function()
    local results, failures = await(map(range(20), function(n)
      return n % 10 == 3 and io.stdout or n
    end, { errors = "collect", chunk = 20 }))
    assert.are.same({ 12, nil, 14 }, { results[12], results[13], results[14] })
    assert.matches("cannot transfer the result of item #3: userdata", failures[3].message)
    assert.matches("cannot transfer the result of item #13: userdata", failures[13].message)
  end)

  it("fails the guilty items alone if a worker runs out of memory", function()
    local _, pool_map = new_pool({ size = 2, memory_limit = 16 * 2 ^ 20 })
    local results, failures = await(pool_map(range(40), function(n)
      if n == 7 or n == 8 or n == 33 then
        local text = "x"
        while true do
          text = text .. text
        end
      end
      return n
    end, { errors = "collect", chunk = 10 }))
    for i = 1, 40 do
      local is_bad = i == 7 or i == 8 or i == 33
      assert.are.equal(not is_bad and i or nil, results[i])
      assert.are.equal(is_bad and "memory" or nil, failures[i] and failures[i].kind)
      assert.are.equal(is_bad and i or nil, failures[i] and failures[i].index)
    end
  end)

  it("fails all items of a pool whose workers cannot begin", function()
    local _, pool_map = new_pool({ size = 1, init = function()
      error("no state")
    end })
    local results, failures = await(pool_map({ 1, 2, 3 }, double, { errors = "collect", chunk = 2 }))
    assert.are.same({}, results)
    for i = 1, 3 do
      assert.matches("no state", failures[i].message)
    end
  end)
end)

describe("the progress of a map", function()
  it("is told after each part, up to the total", function()
    local told = {}
    await(map(range(10), double, { chunk = 3, progress = function(done, total, ...)
      told[#told + 1] = { done, total, select("#", ...) }
    end }))
    assert.are.equal(4, #told)
    for i = 1, 4 do
      assert.are.same({ 10, 0 }, { told[i][2], told[i][3] })
      assert.is_true(told[i][1] > (i > 1 and told[i - 1][1] or 0))
    end
    assert.are.equal(10, told[4][1])
  end)

  it("has no total for iterators", function()
    local last, count
    await(map(counter(10), double, { progress = function(...)
      last, count = { ... }, select("#", ...)
    end }))
    assert.are.same({ 10, nil, 2 }, { last[1], last[2], count })
  end)

  it("may wait, and may be a callable table", function()
    local calls = 0
    await(map(range(4), double, { chunk = 1, progress = setmetatable({}, { __call = function()
      task.wait(0.001)
      calls = calls + 1
    end }) }))
    assert.are.equal(4, calls)
  end)

  it("rejects the map if it raises, and cancels the rest", function()
    local pool, pool_map = new_pool()
    assert.are.equal("told", error_of(pool_map(range(10), function(n)
      if n > 1 then require("scheduler").task.wait(100) end
    end, { chunk = 1, progress = function()
      error("told", 0)
    end })))
    assert.is_true(wait_until(function()
      return pool:stats().cancelled >= 1 and pool:stats().running == 0
    end))
  end)
end)

describe("cancelling a map", function()
  --- A map whose items wait for ever, how many have begun, and its pool.
  local function endless(options, values)
    local pool, pool_map = new_pool()
    local begun = scheduler.shared.atomic(0)
    local job = pool_map(values or range(100), function()
      begun:add(1)
      require("scheduler").task.wait(100)
    end, options)
    return job, begun, pool
  end

  local function is_at_rest(pool)
    return wait_until(function()
      local stats = pool:stats()
      return stats.workers == stats.idle and stats.running + stats.queued == 0
    end)
  end

  for name, options in pairs({
    ["with first errors"] = { chunk = 10 },
    ["with errors collected"] = { chunk = 10, errors = "collect" },
  }) do
    it("ends its items, " .. name, function()
      local job, begun, pool = endless(options)
      assert.is_true(wait_until(function()
        return begun:get() == 2
      end))
      job:cancel()
      assert.are.equal("Cancelled", job:getStatus())
      assert.is_true(is_at_rest(pool))
      assert.are.equal(2, begun:get())
    end)

    it("ends items that compute, " .. name, function()
      local pool, pool_map = new_pool()
      local begun = scheduler.shared.atomic(0)
      local job = pool_map(range(100), function()
        if jit then
          jit.off()
          jit.flush()
        end
        begun:add(1)
        while true do
        end
      end, options)
      assert.is_true(wait_until(function()
        return begun:get() == 2
      end))
      job:cancel()
      assert.is_true(is_at_rest(pool))
      assert.are.equal(2, begun:get())
    end)
  end

  it("at once lets nothing begin", function()
    local job, begun, pool = endless()
    job:cancel()
    assert.is_true(is_at_rest(pool))
    assert.is_true(begun:get() <= 2)
    assert.are.same({ 0, 0 }, { pool:stats().done, pool:stats().failed })
  end)

  it("reads no more of an iterator", function()
    local iterator, read = counter(1e6)
    local job, _, pool = endless(nil, iterator)
    job:cancel()
    local count = read.count
    assert.is_true(is_at_rest(pool))
    assert.are.equal(count, read.count)
  end)

  it("ends the wait of its iterator", function()
    local job = map(function()
      task.wait(100)
    end, double)
    job:cancel()
    assert.are.equal("Cancelled", (job:awaitStatus()))
  end)

  it("ends its wait for room in the queue", function()
    local pool, pool_map = new_pool({ size = 1, queue = 0 })
    local blocker = pool:run(function()
      require("scheduler").task.wait(100)
    end)
    local job = pool_map(range(10), double)
    task.wait(0.005)
    job:cancel()
    blocker:cancel()
    assert.are.equal(7, await(pool:run(function()
      return 7
    end)))
    assert.is_true(is_at_rest(pool))
  end)

  it("may be done by its own iterator, and its own progress", function()
    local job
    job = map(scheduler.coroutine.wrap(function()
      for i = 1, 10 do
        task.wait(0.001)
        if i == 5 then job:cancel() end
        coroutine.yield(i)
      end
    end), double)
    assert.are.equal("Cancelled", (job:awaitStatus()))
    job = map(range(10), double, { chunk = 1, progress = function()
      job:cancel()
    end })
    assert.are.equal("Cancelled", (job:awaitStatus()))
  end)

  it("may come at any moment", function()
    local pool, pool_map = new_pool()
    for i = 1, 60 do
      local job = pool_map(i % 2 == 0 and range(300) or (counter(300)), function(n)
        if n % 50 == 0 then require("scheduler").task.wait(0.001) end
        return n
      end, { errors = i % 3 == 0 and "collect" or nil })
      if i % 5 > 0 then task.wait(i / 20000) end
      job:cancel()
      local status = job:getStatus()
      assert.is_true(status == "Cancelled" or status == "Resolved", status)
    end
    assert.is_true(is_at_rest(pool))
    assert.are.same({ 2, 4, 6 }, await(pool_map({ 1, 2, 3 }, double)))
  end)

  it("comes with a timeout", function()
    local job, _, pool = endless()
    local ok, err = pcall(await, job:timeout(0.01))
    assert.is_false(ok)
    assert.is_true(Promise.Error.isKind(err, "TimedOut"))
    assert.is_true(is_at_rest(pool))
  end)

  it("comes with the scope in which it is awaited", function()
    local job, pool
    local ok = pcall(scheduler.scope, function(scope)
      scope:spawn(function()
        local _
        job, _, pool = endless()
        await(job)
      end)
      task.wait(0.005)
      error("the scope ends")
    end)
    assert.is_false(ok)
    assert.are.equal("Cancelled", job:getStatus())
    assert.is_true(is_at_rest(pool))
  end)
end)

describe("as_completed", function()
  --- All that an iterator gives: by their places results, errors, and how many came.
  local function drain(next_result)
    local results, failures, count = {}, {}, 0
    local index, result, err = next_result()
    while index do
      results[index], failures[index], count = result, err, count + 1
      index, result, err = next_result()
    end
    return results, failures, count
  end

  it("gives each result once, with its place", function()
    local results, failures, count = drain(map(range(1000), double, { as_completed = true }))
    assert.are.same({ 1000, 1000 }, { count, #results })
    assert.is_nil(next(failures))
    for i = 1, 1000 do
      assert.are.equal(2 * i, results[i])
    end
  end)

  it("works in a for loop", function()
    local sum = 0
    for index, result in map({ 1, 2, 3 }, double, { as_completed = true }) do
      assert.are.equal(2 * index, result)
      sum = sum + result
    end
    assert.are.equal(12, sum)
  end)

  it("gives those first that end first", function()
    local _, pool_map = new_pool()
    local next_result = pool_map({ 0.1, 0 }, function(seconds)
      require("scheduler").task.wait(seconds)
      return seconds
    end, { as_completed = true })
    assert.are.equal(2, (next_result()))
    assert.are.equal(1, (next_result()))
    assert.is_nil(next_result())
    assert.is_nil(next_result())
  end)

  it("raises the first error, now and later", function()
    local next_result = map(range(10), failing_at(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), { as_completed = true })
    local _, first = pcall(next_result)
    assert.matches("bad item", first.message)
    assert.are.equal(first, select(2, pcall(next_result)))
  end)

  it("gives errors in the place of results, if they are collected", function()
    local results, failures, count = drain(map(range(20), failing_at(3, 17), {
      as_completed = true,
      errors = "collect",
    }))
    assert.are.equal(20, count)
    assert.are.same({ nil, 4 }, { results[3], results[4] })
    assert.are.same({ 3, 17 }, { failures[3].index, failures[17].index })
    assert.is_nil(failures[4])
  end)

  it("may be shared by tasks", function()
    for _, values in ipairs({ range(500), (counter(500)) }) do
      local next_result = map(values, double, { as_completed = true })
      local results, count, tasks = {}, 0, {}
      for i = 1, 5 do
        tasks[i] = task.spawn(function()
          local index, result = next_result()
          while index do
            results[index], count = result, count + 1
            task.wait()
            index, result = next_result()
          end
        end)
      end
      for _, co in ipairs(tasks) do
        task.join(co)
      end
      assert.are.same({ 500, 500, 1000 }, { count, #results, results[500] })
    end
  end)

  it("may be left by a break", function()
    local pool, pool_map = new_pool()
    local function slow(n)
      require("scheduler").task.wait(n == 1 and 0 or 100)
    end
    for _ in pool_map(range(100), slow, { as_completed = true, chunk = 1 }) do -- luacheck: ignore 512
      break
    end
    if _VERSION == "Lua 5.4" then
      assert.is_true(wait_until(function()
        return pool:stats().running + pool:stats().queued == 0
      end))
    end
    local cancelled = pool:stats().cancelled
    pool:close(0)
    assert.is_true(pool:stats().cancelled <= 4 and pool:stats().cancelled >= cancelled)
  end)

  it("reads no more than what is in flight after that", function()
    local _, pool_map = new_pool()
    local iterator, read = counter(1e6)
    for _ in pool_map(iterator, double, { as_completed = true, chunk = 1 }) do -- luacheck: ignore 512
      break
    end
    local count = read.count
    task.wait(0.01)
    assert.are.equal(count, read.count)
    assert.is_true(count <= 8)
  end)

  it("can go on when a wait for it has timed out", function()
    local gate = scheduler.shared.atomic(0)
    local next_result = map({ 1 }, function(n)
      while gate:get() == 0 do
        require("scheduler").task.wait(0.001)
      end
      return n
    end, { as_completed = true })
    assert.is_false((pcall(scheduler.timeout, 0.005, next_result)))
    gate:set(1)
    assert.are.same({ 1, 1 }, { next_result() })
  end)
end)

describe("the bar of a map", function()
  local PROGRAM = [[
    local how = ...
    local job = scheduler.parallel.map({ 1, 2, 3, 4 }, function(n)
      if n == 3 and not how then error("on purpose") end
      require("scheduler").task.wait(0.02)
      return n
    end, { progress = true, chunk = 1 })
    if how == "cancelled" then
      scheduler.task.wait(0.03)
      job:cancel()
    end
    print(job:awaitStatus())
    print("after")
  ]]

  it("is silent where stderr is no terminal", function()
    for _, how in ipairs({ "ended", "cancelled" }) do
      local result = child.script(PROGRAM, how)
      assert.are.same({ 0, "" }, { result.code, result.err })
      assert.matches("after\n$", result.out)
    end
  end)

  -- `script` runs a command on a terminal of its own.
  local has_script = os.execute("command -v script >/dev/null 2>&1")
  if has_script == true or has_script == 0 then
    --- What a terminal shows.
    local function on_terminal(how)
      local path = child.write("local scheduler = require('scheduler')\n" .. PROGRAM)
      local words = { child.quote(child.interpreter), child.quote(path), how }
      local line = "stty cols 80; " .. table.concat(words, " ") .. "; stty -a | grep -c ' echo '"
      local result = child.command({ "env", "TERM=xterm", "script", "-qec", line, "/dev/null" })
      os.remove(path)
      return result
    end

    for name, how in pairs({ ended = "ended", cancelled = "cancelled", failed = "" }) do
      it("is drawn on a terminal, and leaves it whole when the map is " .. name, function()
        local result = on_terminal(how)
        assert.are.equal(0, result.code, result.err)
        if how == "ended" then assert.matches("4/4", result.out) end
        assert.matches("/4 ", result.out)
        -- What is written next stands on a line of its own, and the cursor is shown.
        assert.matches("\r?\n%s*[%a]*[^\n]*\r\nafter\r\n", result.out)
        local hidden = select(2, result.out:gsub("\27%[%?25l", ""))
        local shown = select(2, result.out:gsub("\27%[%?25h", ""))
        assert.is_true(shown >= hidden)
        assert.matches("1%s*$", result.out)
      end)
    end
  end
end)
