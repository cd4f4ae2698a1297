-- What is reported of promises.

local assert = require("luassert")
local promised = require("spec.support.promised")
local uncaught = require("spec.support.uncaught")
local virtual = require("spec.support.virtual")

local advance = virtual.advance

--- What is reported if `fn()` is called and time passes.
local function reported(fn, ms)
  return uncaught(function()
    fn()
    advance(ms or 10)
  end)
end

--- The errors among what was reported.
local function errors_of(list)
  local errors = {}
  for i, report in ipairs(list) do
    errors[i] = report.err
  end
  return errors
end

local function assert_silent(fn)
  assert.are.same({}, errors_of(reported(fn)))
end

return {
  deferred = promised.open,
  reported = reported,
  errors_of = errors_of,
  assert_silent = assert_silent,
}
