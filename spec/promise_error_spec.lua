local scheduler = require("scheduler")
local promised = require("spec.support.promised")

local Error = scheduler.Promise.Error
local line_here = promised.line_here

local function ignore() end

describe("Promise.Error", function()
  it("has kinds, and raises on other names and on changes", function()
    local names = {}
    for key, value in pairs(Error.Kind) do
      assert.are.equal(key, value)
      names[key] = true
    end
    local expected = { ExecutionError = true, AlreadyCancelled = true, NotResolvedInTime = true, TimedOut = true }
    assert.are.same(expected, names)
    local ok, message = pcall(function()
      return Error.Kind.Unknown
    end)
    assert.is_false(ok)
    assert.matches("promise_error_spec%.lua:%d+: Unknown is not a valid member of Promise%.Error%.Kind$", message)
    assert.is_false(pcall(function()
      Error.Kind.Unknown = 1
    end))
  end)

  it("is made with what it is told, and knows its place", function()
    local parent = Error.new()
    local line = line_here() + 1
    local err = Error.new({ error = 42, trace = "trace", context = "context", kind = Error.Kind.TimedOut }, parent)
    assert.are.same({ "42", "trace", "context", "TimedOut" }, { err.error, err.trace, err.context, err.kind })
    assert.are.equal(parent, err.parent)
    assert.matches("promise_error_spec%.lua:" .. line .. "$", err.createdAt)
    assert.are.equal("string", type(parent.error))
    assert.is_nil(parent.kind)
    assert.is_nil(parent.parent)
    assert.are.equal("false", Error.new({ error = false }).error)
  end)

  it("is told from other values", function()
    assert.is_true(Error.is(Error.new()))
    local foreign = setmetatable({ error = "x" }, { extend = ignore })
    assert.is_true(Error.is(foreign))
    for _, value in ipairs({ 1, "text", true, ignore, {}, { error = "x" }, Error, setmetatable({}, { extend = ignore }),
      setmetatable({ error = "x" }, { __index = { extend = ignore } }), setmetatable({ error = 1 }, { extend = 1 }),
      setmetatable({ error = 1 }, { __metatable = "hidden" }), io.stdout }) do
      assert.is_false(Error.is(value))
    end
    assert.is_false(Error.is(nil))
  end)

  it("is told by its kind", function()
    local err = Error.new({ kind = Error.Kind.TimedOut })
    assert.is_true(Error.isKind(err, Error.Kind.TimedOut))
    assert.is_false(Error.isKind(err, Error.Kind.ExecutionError))
    assert.is_false(Error.isKind(Error.new(), Error.Kind.TimedOut))
    for _, value in ipairs({ "TimedOut", 1, {}, { kind = "TimedOut" } }) do
      assert.is_false(Error.isKind(value, "TimedOut"))
    end
    local line = line_here() + 1
    local ok, message = pcall(function() Error.isKind(err, nil) end)
    assert.is_false(ok)
    assert.matches("promise_error_spec%.lua:" .. line .. ": bad argument #2 to 'isKind'", message)
  end)

  it("is extended into chains, of the same kind unless told otherwise", function()
    local first = Error.new({ error = "first", kind = "TimedOut" })
    local options = { error = "second" }
    local second = first:extend(options)
    local third = second:extend({ kind = "ExecutionError" })
    assert.are.same({ error = "second" }, options)
    assert.are.same({ "second", "TimedOut" }, { second.error, second.kind })
    assert.are.equal("ExecutionError", third.kind)
    assert.are.equal(second, third.parent)
    assert.are.equal("TimedOut", second:extend().kind)
    local chain = third:getErrorChain()
    assert.are.equal(3, #chain)
    for i, err in ipairs({ third, second, first }) do
      assert.are.equal(err, chain[i])
    end
    assert.are.equal(first, first:getErrorChain()[1])
    assert.is_nil(first:getErrorChain()[2])
  end)

  it("becomes a text with all that the chain tells", function()
    local first = Error.new({ error = "first error", context = "first context", kind = "TimedOut" })
    local second = first:extend({ error = "hidden by the trace", trace = "second trace" })
    local text = tostring(second)
    for _, part in ipairs({ "TimedOut", "second trace", "first error", "first context" }) do
      assert.is_truthy(text:find(part, 1, true), part)
    end
    assert.is_nil(text:find("hidden", 1, true))
    assert.is_true(text:find("second trace", 1, true) < text:find("first error", 1, true))
    assert.is_truthy(tostring(Error.new({ error = "x" })):find("?", 1, true))
  end)
end)
