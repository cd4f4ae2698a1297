-- Broken messages: the decoder gives some values or raises, and nothing worse. `make fuzz` builds the module in which
-- specs reach encoder and decoder; with others, there is nothing to do here.
--
-- None of the messages holds a function: whoever can change bytecode can do anything.

local scheduler = require("scheduler")
local memory = require("spec.support.memory")

local registry = debug.getregistry()
local encode, decode = registry["scheduler.encode"], registry["scheduler.decode"]
local SECONDS = tonumber(os.getenv("TRANSFER_SECONDS")) or 2 -- of processor time, for each test

--- Random bytes in a row that is the same in all interpreters.
local state = 1
local function random(n)
  state = (state * 16807) % 2147483647
  return state % n
end

local function message(...)
  return encode({ n = select("#", ...), ... })
end

local function messages()
  local cycle, list, mt = {}, {}, { name = "metatable" }
  cycle.self, cycle[cycle] = cycle, { cycle, "text", 0.5, true, false }
  for i = 1, 50 do
    list[i] = setmetatable({ i, "s" .. i, list[i - 1] }, mt)
  end
  return {
    message(),
    message(nil, 1, "text", 0.5, true, false),
    message(cycle, cycle, _G),
    message(list, { [list] = mt }),
    message(setmetatable({}, string), setmetatable({ 1 }, _G)),
    message(("x"):rep(1000), { ("y"):rep(300) }),
  }
end

local results = { ok = 0, raised = 0 }
local function try(bytes)
  local ok, values = pcall(decode, bytes)
  assert(type(values) == (ok and "table" or "userdata") or type(values) == "string", type(values))
  local result = ok and "ok" or "raised"
  results[result] = results[result] + 1
  return ok, values
end

if decode then
  describe("broken messages", function()
    it("are told from whole ones", function()
      for _, whole in ipairs(messages()) do
        assert.is_true(try(whole))
      end
      local _, values = try(message(1, nil, { x = { 2 } }, nil))
      assert.are.same({ n = 4, 1, nil, { x = { 2 } } }, values)
    end)

    it("that end too early raise", function()
      for _, whole in ipairs(messages()) do
        for length = 0, #whole - 1 do
          assert.is_false((try(whole:sub(1, length))))
        end
      end
    end)

    it("with bits and bytes changed, swapped, doubled and left out do no harm", function()
      memory.relaxed(function()
        local all, start = messages(), os.clock()
        while os.clock() - start < SECONDS do
          local bytes = all[random(#all) + 1]
          for _ = 0, random(4) do
            local at, kind = random(#bytes) + 1, random(5)
            local head, byte, tail = bytes:sub(1, at - 1), bytes:byte(at), bytes:sub(at + 1)
            if kind == 0 then byte = string.char((byte + 2 ^ random(8)) % 256) end
            if kind == 1 then byte = string.char(random(12)) end
            if kind == 2 then byte = "" end
            if kind == 3 then byte = bytes:sub(at, at + random(20)):rep(2) end
            if kind == 4 then byte = ("\255"):rep(random(9)) end
            bytes = head .. byte .. tail
          end
          try(bytes)
        end
      end)
      assert.is_true(results.ok > 10 and results.raised > 10)
      assert.are.equal("alive", scheduler.await(scheduler.parallel.run(type, nil)) and "alive")
    end)

    it("of random bytes do no harm", function()
      memory.relaxed(function()
        local start = os.clock()
        while os.clock() - start < SECONDS do
          local bytes = {}
          for i = 1, random(60) do
            bytes[i] = string.char(random(3) == 0 and random(256) or random(6))
          end
          -- With the lengths that a message begins with, or few come any further.
          local start_of_message = string.char(random(4), 0, 0, 0, random(#bytes + 1), 0, 0, 0, 0, 0, 0, 0)
          try((random(4) == 0 and "" or start_of_message) .. table.concat(bytes))
        end
      end)
    end)
  end)
end

if decode then
  describe("a worker that runs out of memory", function()
    it("takes values apart and makes them anew, or says so", function()
      local crossed, failed = scheduler.await(scheduler.parallel.run(function()
        require("scheduler") -- a worker has not loaded it by itself
        local cross = debug.getregistry()["scheduler.cross_within"]
        local upvalue, list, crossed, failed = {}, {}, 0, 0
        for i = 1, 40 do
          list[i] = { i, "text " .. i, x = { list[i - 1] } }
        end
        for bytes = 0, 60000, 61 do
          -- A new one each time, of which there is no bytecode yet.
          local fresh = (loadstring or load)("return " .. bytes) -- luacheck: ignore 113
          collectgarbage() -- else there is enough to free
          local values, reason = cross({ n = 4, list, fresh, function()
            return upvalue
          end, setmetatable({}, { __index = string }) }, bytes)
          if values then
            assert(values[1][40][1] == 40 and values[2]() == bytes and values[4].rep == string.rep)
            crossed = crossed + 1
          else
            assert(reason:find("memory", 1, true), reason)
            failed = failed + 1
          end
        end
        return crossed, failed
      end))
      assert.is_true(crossed > 10 and failed > 10, crossed .. " " .. failed)
    end)
  end)
end

describe("modules that are made for users", function()
  it("do not let go of the decoder", function()
    local is_for_fuzzing = os.getenv("TRANSFER_FUZZ") ~= nil
    assert.are.equal(is_for_fuzzing, decode ~= nil)
    assert.are.equal(is_for_fuzzing, encode ~= nil)
  end)
end)
