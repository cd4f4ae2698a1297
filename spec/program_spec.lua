-- Random programs that know no rules (`spec/support/random_program.lua`): none crashes, hangs, or is told of a mistake
-- in the library.
--
-- PROGRAM_SEED=n begins with that seed, and PROGRAM_SECONDS=n goes on for so long.

local child = require("spec.support.child")

local SEED = tonumber(os.getenv("PROGRAM_SEED")) or os.time() % 1000000
local SECONDS = tonumber(os.getenv("PROGRAM_SECONDS")) or 2
local ROUNDS = 10

describe("programs that call anything with anything", function()
  it("get results or errors", function()
    local deadline, seed = os.time() + SECONDS, SEED
    repeat
      local result = child.run({ "spec/support/random_program.lua", seed, ROUNDS })
      local told = ("PROGRAM_SEED=%d: %s%s"):format(seed, result.out, result.err)
      assert.are.equal(0, result.code, told)
      assert.is_nil(result.err:find("panicked", 1, true), told)
      seed = seed + 1
    until os.time() >= deadline
    if os.getenv("PROGRAM_SECONDS") then print(("%d programs of %d rounds"):format(seed - SEED, ROUNDS)) end
  end)
end)
