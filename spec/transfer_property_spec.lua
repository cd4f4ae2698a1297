-- Random values, which go to a worker and back: what returns must be the same, cycles, shared references and shared
-- upvalues included.
--
-- Each run takes other values. When one fails, its seed is printed; TRANSFER_SEED=<seed> sends that value alone, and
-- TRANSFER_SECONDS=<n> as many as there is time for.

local scheduler = require("scheduler")

local SECONDS = tonumber(os.getenv("TRANSFER_SECONDS"))
local VALUES_PER_SECOND = 5000 -- at the most: so no two runs take the same seeds
local VALUES = SECONDS and math.huge or 4000
SECONDS = SECONDS or 3 -- of processor time, whether all values were sent or not
local BATCH = 50

local getmetatable, upvalueid = debug.getmetatable, debug.upvalueid -- luacheck: ignore 143
local random = math.random

-- Values --------------------------------------------------------------------------------------------------------------

local SCALARS = {
  0, 1, -1, 0.5, 2 ^ 31, 2 ^ 53, -2 ^ 53, 2 ^ 63, -2 ^ 63, 1e300, math.huge, -math.huge, tonumber("-0.0"), 0 / 0,
  math.maxinteger or 5, math.mininteger or 6, true, false, "", "text", "\0\255", ("long "):rep(100),
}
local SAME_THERE = { _G, print, string.format, math.floor, coroutine.wrap, select }
local MODULES = { string, table, math, scheduler }

local Maker = {}
Maker.__index = Maker

local function scalar()
  local kind = random(4)
  if kind == 1 then return SCALARS[random(#SCALARS)] end
  if kind == 2 then return random(-1000, 1000) end
  if kind == 3 then return random() * 10 ^ random(-20, 20) end
  local bytes = {}
  for i = 1, random(0, 12) do
    bytes[i] = string.char(random(0, 255))
  end
  return table.concat(bytes)
end

function Maker:table()
  self.count = self.count + 1
  local new = { id = self.count }
  self.objects[#self.objects + 1] = new
  self.tables[#self.tables + 1] = new
  for i = 1, random(0, 4) do
    new[i] = self:value()
  end
  for _ = 1, random(0, 3) do
    local key = self:key()
    if key == key and key ~= nil and key ~= "id" then rawset(new, key, self:value()) end
  end
  if random(4) == 1 then setmetatable(new, random(2) == 1 and self.tables[random(#self.tables)] or self:table()) end
  return new
end

--- A key: a table is told from others by its `id`, so no two functions are keys of one table.
function Maker:key()
  if random(4) == 1 then return self.tables[random(#self.tables)] end
  return scalar()
end

--- Functions that share some of their upvalues, and lead back to each other. One of them.
function Maker:functions()
  local a, b, c
  local library = MODULES[random(#MODULES)]
  local fns = {
    function()
      return a, b
    end,
    function(value)
      b = value
      return c, library
    end,
    function(...)
      return a, ...
    end,
  }
  for i = 1, 3 do
    self.objects[#self.objects + 1] = fns[i]
  end
  a, b, c = self:value(), self:value(), fns[random(3)]
  return fns[random(3)]
end

function Maker:value()
  self.left = self.left - 1
  local kind = self.left > 0 and random(10) or 1
  if kind <= 3 then return scalar() end
  if kind == 4 then return nil end
  if kind == 5 then return SAME_THERE[random(#SAME_THERE)] end
  if kind <= 7 and #self.objects > 0 then return self.objects[random(#self.objects)] end
  if kind == 8 then return self:functions() end
  return self:table()
end

local function make(seed)
  math.randomseed(seed)
  local maker = setmetatable({ count = 0, left = random(5, 60), objects = {}, tables = {} }, Maker)
  return maker:table()
end

-- Comparison ----------------------------------------------------------------------------------------------------------

local is_same_there = {}
for _, list in ipairs({ SAME_THERE, MODULES }) do
  for _, value in ipairs(list) do
    is_same_there[value] = true
  end
end

local Comparison = {}
Comparison.__index = Comparison

local function differ(path, what)
  error({ difference = path .. ": " .. what }, 0)
end

local function compare_numbers(path, a, b)
  local is_same = a == b and 1 / a == 1 / b or a ~= a and b ~= b
  if math.type and math.type(a) ~= math.type(b) then is_same = false end
  if not is_same then differ(path, ("%.17g became %.17g"):format(a, b)) end
end

--- Notes that two things correspond; true if that is known, an error if one of them has another counterpart.
function Comparison:are_paired(path, a, b)
  if self.forth[a] == nil and self.back[b] == nil then
    self.forth[a], self.back[b] = b, a
    return false
  end
  if self.forth[a] ~= b or self.back[b] ~= a then differ(path, "another identity") end
  return true
end

function Comparison:values(path, a, b)
  if type(a) ~= type(b) then differ(path, type(a) .. " became " .. type(b)) end
  if type(a) == "number" then return compare_numbers(path, a, b) end
  if type(a) ~= "table" and type(a) ~= "function" or is_same_there[a] then
    if a ~= b then differ(path, tostring(a) .. " became " .. tostring(b)) end
    return
  end
  if rawequal(a, b) then differ(path, "is no copy") end
  if self:are_paired(path, a, b) then return end
  if type(a) == "table" then return self:tables(path, a, b) end
  return self:functions(path, a, b)
end

function Comparison:tables(path, a, b)
  local by_id, count = {}, 0
  for key in next, b do
    count = count + 1
    if type(key) == "table" then by_id[rawget(key, "id")] = key end
  end
  for key, value in next, a do
    count = count - 1
    local key_path = ("%s[%s]"):format(path, tostring(key))
    if type(key) == "table" then
      local other = by_id[rawget(key, "id")]
      self:values(key_path .. " as a key", key, other)
      self:values(key_path, value, rawget(b, other))
    else
      self:values(key_path, value, rawget(b, key))
    end
  end
  if count ~= 0 then differ(path, "fewer or more entries") end
  self:values(path .. "'s metatable", getmetatable(a), getmetatable(b))
end

function Comparison:functions(path, a, b)
  for i = 1, 255 do
    local name, value = debug.getupvalue(a, i)
    local other_name, other = debug.getupvalue(b, i)
    if name ~= other_name then differ(path, "other upvalues") end
    if not name then return end
    -- Globals are the worker's.
    if name ~= "_ENV" then
      if upvalueid then self:are_paired(path .. " upvalue " .. name, upvalueid(a, i), upvalueid(b, i)) end
      self:values(path .. " upvalue " .. name, value, other)
    end
  end
end

--- In what way two values differ; nil if they are the same.
local function difference(a, b)
  local comparison = setmetatable({ forth = {}, back = {} }, Comparison)
  local ok, err = pcall(comparison.values, comparison, "value", a, b)
  if not ok then return type(err) == "table" and err.difference or err end
end

-- Sending -------------------------------------------------------------------------------------------------------------

local function id(value)
  return value
end

--- Sends the values of so many seeds at once.
local function check(first, count)
  local values, jobs = {}, {}
  for i = 1, count do
    values[i] = make(first + i - 1)
    jobs[i] = scheduler.parallel.run(id, values[i])
  end
  for i = 1, count do
    local found = difference(values[i], (scheduler.await(jobs[i])))
    if found then error(("TRANSFER_SEED=%.0f: %s"):format(first + i - 1, found), 0) end
  end
end

describe("random values", function()
  it("that are compared here: what differs is seen", function()
    local function make_twice(change)
      local shared = { id = 1 }
      local value = { id = 2, shared, shared, x = tonumber("-0.0"), [shared] = 1, f = function()
        return shared
      end }
      setmetatable(value, { id = 3 })
      if change then change(value) end
      return value
    end
    assert.is_nil(difference(make_twice(), make_twice()))
    for i, change in ipairs({
      function(value) value[2] = { id = 1 } end,
      function(value) value.x = 0 end,
      function(value) value[value[1]] = 2 end,
      function(value) value.f = function() return value end end,
      function(value) value.y = 1 end,
      function(value) value.x = nil end,
      function(value) setmetatable(value, nil) end,
      function(value) getmetatable(value).id = 4 end,
      function(value) value[1].x = 1 end,
    }) do
      assert.is_truthy(difference(make_twice(), make_twice(change)), i)
      assert.is_truthy(difference(make_twice(change), make_twice()), i)
    end
    assert.is_truthy(difference(make(1), make(2)))
    local one = make(3)
    assert.is_truthy(difference(one, one))
  end)

  it("return from a worker as they were", function()
    local given = tonumber(os.getenv("TRANSFER_SEED"))
    if given then return check(given, 1) end
    local seed, start, count = os.time() * VALUES_PER_SECOND, os.clock(), 0
    while count < VALUES and os.clock() - start < SECONDS do
      check(seed + count, BATCH)
      count = count + BATCH
    end
    assert.is_true(count >= BATCH)
  end)
end)
