local scheduler = require("scheduler")
local memory = require("spec.support.memory")
local workers = require("spec.support.workers")
local refuses = require("spec.support.refuses")

local await, run, shared = scheduler.await, scheduler.parallel.run, scheduler.shared

local HAS_INTEGERS = math.type ~= nil
local MOST = HAS_INTEGERS and math.maxinteger or 2 ^ 53 - 1
local LEAST = HAS_INTEGERS and math.mininteger or -MOST

--- What the elements hold: the least and the greatest number, and the size in bytes.
local WHOLE = {
  i8 = { -128, 127, 1 }, u8 = { 0, 255, 1 }, i16 = { -32768, 32767, 2 }, u16 = { 0, 65535, 2 },
  i32 = { -2147483648, 2147483647, 4 }, u32 = { 0, 4294967295, 4 }, i64 = { LEAST, MOST, 8 }, u64 = { 0, MOST, 8 },
}

-- A literal would be taken for a 0 of the same function by Lua 5.1.
local NEGATIVE_ZERO = -1 / math.huge

--- A buffer with these elements.
local function of(element, ...)
  local buffer = shared.buffer(element, select("#", ...))
  for i = 1, select("#", ...) do
    buffer:set(i, (select(i, ...)))
  end
  return buffer
end

local function elements(buffer)
  local list = {}
  for i = 1, #buffer do
    list[i] = buffer:get(i)
  end
  return list
end

describe("a shared buffer", function()
  it("begins with zeroes, and knows its length", function()
    local buffer = shared.buffer("u8", 3)
    assert.are.equal(3, #buffer)
    assert.are.same({ 0, 0, 0 }, elements(buffer))
    assert.are.equal("buffer(u8, 3)", tostring(buffer))
    assert.are.equal(0, #shared.buffer("f64", 0))
  end)

  it("holds the whole numbers of its type, and no others", function()
    for element, range in pairs(WHOLE) do
      local least, greatest, size = range[1], range[2], range[3]
      local buffer = of(element, least, greatest, 1)
      assert.are.same({ least, greatest, 1 }, elements(buffer))
      assert.are.equal(3 * size, #buffer:tostring())
      if HAS_INTEGERS then assert.are.equal("integer", math.type(buffer:get(2))) end
      local expected = "bad argument #2 to 'set' %(whole number from %-?[%d.e+]+ to [%d.e+]+ expected, got "
      for _, wrong in ipairs({ least - 1.0, greatest + 1.0, 0.5, 0 / 0, math.huge, -math.huge }) do
        if wrong < least or wrong > greatest or wrong ~= math.floor(wrong) then
          refuses(expected .. ".*%)", buffer.set, buffer, 3, wrong)
        end
      end
      refuses(expected .. "string%)", buffer.set, buffer, 3, "1")
      refuses(expected .. "nil%)", buffer.set, buffer, 3, nil)
      assert.are.equal(1, buffer:get(3))
    end
    refuses("bad argument #2 to 'set' %(whole number from 0 to 255 expected, got 256%)", function()
      of("u8", 256)
    end)
  end)

  it("holds floats, rounded to the size of its type", function()
    local buffer = of("f64", 0.1, -1e300, math.huge, 3)
    assert.are.same({ 0.1, -1e300, math.huge, 3 }, elements(buffer))
    assert.are.equal(-math.huge, 1 / of("f64", NEGATIVE_ZERO):get(1))
    local nan = of("f64", 0 / 0):get(1)
    assert.is_true(nan ~= nan)
    local small = of("f32", 0.1, 0.5, 1e300)
    assert.is_true(small:get(1) ~= 0.1 and math.abs(small:get(1) - 0.1) < 1e-8)
    assert.are.equal(0.5, small:get(2))
    assert.are.equal(math.huge, small:get(3))
    refuses("bad argument #2 to 'set' %(number expected, got string%)", buffer.set, buffer, 1, "1")
    refuses("bad argument #2 to 'set' %(number expected, got nil%)", buffer.set, buffer, 1, nil)
  end)

  it("gives the nearest float for what is greater than any integer", function()
    local buffer = shared.buffer("u64", 1)
    buffer:copy(("\255"):rep(8))
    assert.are.equal(2 ^ 64, buffer:get(1))
  end)

  it("refuses positions outside of it, at the line of the call", function()
    local buffer = of("i32", 1, 2, 3)
    for _, case in ipairs({ { 0, "0" }, { 4, "4" }, { -1, "%-1" }, { 1.5, "1%.5" }, { 0 / 0, "NaN" },
      { math.huge, "inf" }, { "1", "string" }, { nil, "nil" } }) do
      local message = " %(position from 1 to 3 expected, got " .. case[2] .. "%)"
      refuses("bad argument #1 to 'get'" .. message, buffer.get, buffer, case[1])
      refuses("bad argument #1 to 'set'" .. message, buffer.set, buffer, case[1], 1)
    end
    assert.are.equal(2, buffer:get(2.0))
  end)

  it("is filled as a whole, from a position, and up to one", function()
    local buffer = shared.buffer("i16", 5)
    buffer:fill(1)
    buffer:fill(2, 2)
    buffer:fill(-3, 3, 4)
    buffer:fill(9, 3, 2)
    assert.are.same({ 1, 2, -3, -3, 2 }, elements(buffer))
    refuses("bad argument #1 to 'fill' %(whole number from %-32768 to 32767 expected, got 40000%)",
      buffer.fill, buffer, 40000)
    refuses("bad argument #1 to 'fill' %(whole number .* got nil%)", buffer.fill, buffer)
    refuses("bad argument #2 to 'fill' %(position from 1 to 6 expected, got 0%)", buffer.fill, buffer, 1, 0)
    refuses("bad argument #2 to 'fill' %(position from 1 to 6 expected, got 7%)", buffer.fill, buffer, 1, 7)
    refuses("bad argument #3 to 'fill' %(position from 1 to 5 expected, got 6%)", buffer.fill, buffer, 1, 2, 6)
    refuses("bad argument #3 to 'fill' %(position from 2 to 5 expected, got 1%)", buffer.fill, buffer, 1, 3, 1)
    local float = shared.buffer("f64", 1)
    float:fill(NEGATIVE_ZERO)
    assert.are.equal(-math.huge, 1 / float:get(1))
  end)

  it("copies another one, or part of it, also onto itself", function()
    local source, target = of("u16", 1, 2, 3, 4, 5), shared.buffer("u16", 6)
    target:copy(source)
    assert.are.same({ 1, 2, 3, 4, 5, 0 }, elements(target))
    target:copy(source, 5, 4, 5)
    assert.are.same({ 1, 2, 3, 4, 4, 5 }, elements(target))
    target:copy(target, 2, 1, 5)
    assert.are.same({ 1, 1, 2, 3, 4, 4 }, elements(target))
    target:copy(target, 1, 2)
    assert.are.same({ 1, 2, 3, 4, 4, 4 }, elements(target))
    target:copy(source, 7, 6)
    assert.are.same({ 1, 2, 3, 4, 4, 4 }, elements(target))
  end)

  it("copies the bytes of a string, which tostring gives", function()
    local buffer = shared.buffer("u8", 4)
    buffer:copy("abc", 2)
    assert.are.equal("\0abc", buffer:tostring())
    buffer:copy("wxyz", 1, 2, 3)
    assert.are.equal("xybc", buffer:tostring())
    assert.are.equal("yb", buffer:tostring(2, 3))
    assert.are.equal("", buffer:tostring(5))
    local wide = of("i32", -1, 256, 3)
    local copy = shared.buffer("i32", 3)
    copy:copy(wide:tostring())
    assert.are.same({ -1, 256, 3 }, elements(copy))
    refuses("bad argument #1 to 'tostring' %(position from 1 to 5 expected, got 0%)", buffer.tostring, buffer, 0)
    refuses("bad argument #2 to 'tostring' %(position from 0 to 4 expected, got 5%)", buffer.tostring, buffer, 1, 5)
  end)

  it("refuses copies that do not fit", function()
    local buffer, three = shared.buffer("u16", 2), of("u16", 1, 2, 3)
    refuses("bad argument #1 to 'copy' %(3 elements do not fit into 2%)", buffer.copy, buffer, three)
    refuses("bad argument #1 to 'copy' %(2 elements do not fit into 1%)", buffer.copy, buffer, three, 2, 2)
    refuses("bad argument #2 to 'copy' %(position from 1 to 3 expected, got 4%)", buffer.copy, buffer, three, 4, 1, 1)
    refuses("bad argument #3 to 'copy' %(position from 1 to 4 expected, got 0%)", buffer.copy, buffer, three, 1, 0)
    refuses("bad argument #4 to 'copy' %(position from 0 to 3 expected, got 4%)", buffer.copy, buffer, three, 1, 1, 4)
    refuses("bad argument #1 to 'copy' %(buffer of u16 expected, got one of i16%)",
      buffer.copy, buffer, shared.buffer("i16", 1))
    refuses("bad argument #1 to 'copy' %(elements of 2 bytes do not make up a string of 3%)",
      buffer.copy, buffer, "abc")
    refuses("bad argument #1 to 'copy' %(3 elements do not fit into 2%)", buffer.copy, buffer, "abcdef")
    refuses("bad argument #1 to 'copy' %(buffer or string expected, got nil%)", buffer.copy, buffer)
    assert.are.same({ 0, 0 }, elements(buffer))
  end)

  it("has parts in the same memory", function()
    local buffer = of("f32", 1, 2, 3, 4, 5)
    local part = buffer:slice(2, 4)
    assert.are.equal(3, #part)
    part:set(1, 20)
    buffer:set(4, 40)
    assert.are.same({ 20, 3, 40 }, elements(part))
    assert.are.same({ 3, 40 }, elements(part:slice(2)))
    assert.are.equal(0, #buffer:slice(6))
    refuses("bad argument #1 to 'get' %(position from 1 to 3 expected, got 4%)", part.get, part, 4)
    refuses("bad argument #1 to 'slice' %(position from 1 to 4 expected, got 5%)", part.slice, part, 5)
    refuses("bad argument #2 to 'slice' %(position from 0 to 3 expected, got 4%)", part.slice, part, 1, 4)
    part:fill(0)
    assert.are.same({ 1, 0, 0, 0, 5 }, elements(buffer))
  end)

  it("is written by several workers at once, each its own part", function()
    local buffer = shared.buffer("u32", 4000)
    local jobs = {}
    for i = 1, 4 do
      jobs[i] = run(function(part, first)
        for k = 1, #part do
          part:set(k, first + k)
        end
        return part
      end, buffer:slice((i - 1) * 1000 + 1, i * 1000), (i - 1) * 1000)
    end
    for i = 1, 4 do
      assert.is_true(rawequal(buffer:slice((i - 1) * 1000 + 1, i * 1000), await(jobs[i])))
    end
    for k = 1, 4000 do
      assert.are.equal(k, buffer:get(k))
    end
  end)

  it("shows whole elements while others write them", function()
    local buffer = shared.buffer("f64", 1)
    local writer = run(function()
      for i = 1, 50000 do
        buffer:set(1, i % 2 == 0 and 1.25e100 or -7.5e-200)
      end
    end)
    for _ = 1, 50000 do
      local seen = buffer:get(1)
      assert(seen == 0 or seen == 1.25e100 or seen == -7.5e-200, seen)
    end
    await(writer)
  end)

  it("is the same one wherever it arrives", function()
    local buffer = shared.buffer("u8", 2)
    local back, other = await(run(function(argument)
      assert(rawequal(argument, buffer))
      return { argument }, argument:slice(1, 1)
    end, buffer))
    assert.is_true(rawequal(buffer, back[1]))
    assert.is_false(rawequal(buffer, other))
    assert.is_true(rawequal(buffer, buffer:slice()))
  end)

  it("has a pointer that LuaJIT's ffi takes, and that stays", function()
    local buffer = of("i32", 1, 2, 3)
    assert.are.equal("userdata", type(buffer:pointer()))
    assert.are.equal(buffer:pointer(), await(run(function()
      return tostring(buffer:pointer()) == tostring(buffer:pointer()) and buffer
    end)):pointer())
    if not jit then return end
    local ffi = require("ffi")
    local pointer = ffi.cast("int32_t *", buffer:slice(2):pointer())
    assert.are.equal(3, pointer[1])
    pointer[0] = 77
    assert.are.equal(77, buffer:get(2))
  end)

  it("refuses types that it does not know, and lengths that are none", function()
    for _, case in ipairs({ { "u9", "'u9'" }, { 8, "8" }, { nil, "nil" } }) do
      refuses("bad argument #1 to 'buffer' %(.*'f64' expected, got " .. case[2] .. "%)", shared.buffer, case[1], 1)
    end
    for _, case in ipairs({ { -1, "%-1" }, { 1.5, "1%.5" }, { 0 / 0, "NaN" }, { nil, "nil" }, { "1", "string" } }) do
      refuses("bad argument #2 to 'buffer' %(whole number of at least 0 expected, got " .. case[2] .. "%)",
        shared.buffer, "u8", case[1])
    end
    refuses("not enough memory for a buffer of .* elements of 8 bytes", shared.buffer, "f64", 2 ^ 60)
    refuses("not enough memory for a buffer of .* elements of 1 bytes", shared.buffer, "u8", math.huge)
    -- More than any machine has, but not more than there are addresses.
    refuses("not enough memory for a buffer of .* elements of 1 bytes", shared.buffer, "u8", 2 ^ 45)
  end)

  it("refuses to be called with a dot, or on something else", function()
    local buffer = shared.buffer("u8", 1)
    for _, name in ipairs({ "get", "set", "fill", "copy", "slice", "tostring", "pointer" }) do
      refuses("calling '" .. name .. "' on bad self %(buffer expected, got number%)", buffer[name], 1, 1)
      refuses("calling '" .. name .. "' on bad self %(buffer expected, got userdata%)",
        buffer[name], shared.atomic(), 1)
    end
  end)

  it("is freed with the last part that has its memory", function()
    workers.collect()
    memory.collect()
    local before = scheduler.stats().shared
    local part = coroutine.wrap(function()
      return shared.buffer("u8", 10):slice(2, 3)
    end)()
    memory.collect()
    assert.are.equal(before + 1, scheduler.stats().shared)
    assert.are.equal(0, part:get(1))
    part = nil -- luacheck: ignore 311
    memory.collect()
    -- What an earlier test has left on a stack may go meanwhile.
    assert.is_true(scheduler.stats().shared <= before)
  end)

  it("is collected in time although Lua does not see its size", function()
    memory.collect()
    local before, most = scheduler.stats().shared, 0
    for _ = 1, 30 do
      shared.buffer("u8", 8 * 1024 * 1024)
      most = math.max(most, scheduler.stats().shared - before)
    end
    assert.is_true(most <= 12, most)
  end)
end)
