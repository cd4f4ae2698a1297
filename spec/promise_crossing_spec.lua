local scheduler = require("scheduler")

local run, Promise = scheduler.parallel.run, scheduler.Promise

--- What another VM sees of a promise.
local function look(promise)
  return promise:awaitStatus()
end

local function nap(...)
  require("scheduler").task.wait(0.01)
  return ...
end

local function fail(value)
  require("scheduler").task.wait(0.01)
  error(value, 0)
end

describe("a promise that crosses to another VM", function()
  it("waits for the same job there, if it is that of a job", function()
    local job = run(nap, 1, nil, 3)
    local first, second = run(look, job), run(look, job)
    assert.are.same({ "Resolved", 1, nil, 3, n = 4 }, { n = select("#", first:expect()), first:expect() })
    assert.are.same({ "Resolved", 1, nil, 3 }, { second:expect() })
    assert.are.equal(1, (job:expect()))
  end)

  it("is rejected with the same error", function()
    local job = run(fail, "no luck")
    local status, err = run(look, job):expect()
    assert.are.equal("Rejected", status)
    assert.are.equal("error", err.kind)
    assert.are.equal("no luck", err.message)
    assert.is_false((job:await()))
  end)

  it("is settled as it is, if it is", function()
    assert.are.same({ "Resolved", 1, 2 }, { run(look, Promise.resolve(1, 2)):expect() })
    local rejected = Promise.reject("why")
    rejected:catch(function() end)
    assert.are.same({ "Rejected", "why" }, { run(look, rejected):expect() })
    local cancelled = Promise.new(function() end)
    cancelled:cancel("reason")
    assert.are.equal("Cancelled", (run(look, cancelled):expect()))
  end)

  it("is found in tables, and in upvalues", function()
    local job = run(nap, "deep")
    assert.are.equal("deep deep", run(function(list)
      return list[1].job:expect() .. " " .. job:expect()
    end, { { job = job } }):expect())
  end)

  it("can be the result of a job, whose outcome it is then", function()
    assert.are.equal(7, run(function()
      local inner = require("scheduler")
      return inner.parallel.run(function()
        return 7
      end)
    end):expect())
  end)

  it("is cancelled there when the job is cancelled here", function()
    local job = run(nap, 1)
    local other = run(look, job)
    job:cancel()
    assert.are.equal("Cancelled", (other:expect()))
  end)

  it("may be cancelled there: the job goes on", function()
    local job = run(nap, "goes on")
    run(function(promise)
      promise:cancel()
    end, job):expect()
    assert.are.equal("goes on", job:expect())
  end)

  it("reaches those that come late, at whatever moment the job ends", function()
    for _ = 1, 100 do
      local job = run(function()
        return "result"
      end)
      for _ = 1, math.random(0, 300) do
        type(job)
      end
      local other = run(look, job)
      assert.are.same({ "Resolved", "result" }, { other:expect() })
      assert.are.equal("result", job:expect())
    end
  end)

  it("is refused if it is pending and not that of a job", function()
    local ok, err = pcall(run, look, Promise.new(function() end))
    assert.is_false(ok)
    assert.matches(
      "^spec/promise_crossing_spec.lua:%d+: cannot transfer argument #2: its __transfer failed: "
        .. "a promise that is pending, and not that of a job$", err)
  end)

  it("is not reported there when it is rejected", function()
    local rejected = Promise.reject("why")
    rejected:catch(function() end)
    assert.are.equal(0, run(function()
      local inner = require("scheduler")
      inner.task.wait()
      inner.task.wait()
      return inner.stats().errors
    end, rejected):expect())
  end)
end)

describe("a table with __transfer", function()
  it("is made anew by the function that it gives", function()
    local Point = {}
    Point.__transfer = function(self)
      return function(x, y)
        return setmetatable({ x = x, y = y, is_new = true }, { __index = { sum = function(p) return p.x + p.y end } })
      end, self.x, self.y
    end
    local point = setmetatable({ x = 1, y = 2, socket = io.stdout }, Point)
    assert.are.same({ 3, true }, { run(function(p)
      return p:sum(), p.is_new
    end, point):expect() })
  end)

  it("is refused with the reason, if that fails", function()
    local wrong = setmetatable({}, { __transfer = function()
      error("not this one", 0)
    end })
    local ok, err = pcall(run, look, { wrong })
    assert.is_false(ok)
    assert.matches("cannot transfer argument #2%[1%]: its __transfer failed: not this one$", err)
  end)

  it("is refused as what that says, if it is a string", function()
    local ok, err = pcall(run, look, setmetatable({}, { __transfer = "a handle" }))
    assert.is_false(ok)
    assert.matches("cannot transfer argument #2: a handle$", err)
    for what, value in pairs({
      ["a queue of this VM"] = scheduler.queue(),
      ["an event of this VM"] = scheduler.event(),
      ["a semaphore of this VM"] = scheduler.semaphore(1),
      ["a mutex of this VM"] = scheduler.mutex(),
      ["a scope"] = scheduler.scope(function(scope)
        return scope
      end),
    }) do
      ok, err = pcall(run, look, { value })
      assert.is_false(ok)
      assert.matches("cannot transfer argument #2%[1%]: " .. what .. "$", err)
    end
  end)
end)
