-- Start: what `require` adds to the life of an interpreter that does nothing else, in ms.
--   lua bench/start.lua PEER [BATCHES]
--
-- Batches of fresh interpreters with and without the module take turns; the result is the median of the differences.
-- One shell starts a whole batch, so that its own start weighs little, and on both sides the same.

local clock = require("bench.clock")
local measurement = require("bench.measurement")

local PER_BATCH = 20
-- The names of the modules, which are those of the peers.
local peers = { scheduler = "scheduler", luv = "luv", cqueues = "cqueues", copas = "copas" }

local name, batches = ...
local module = measurement.choose(peers, name)

--- The interpreter that runs this script, as it was called.
local function interpreter()
  local first = 0
  while arg[first - 1] do
    first = first - 1
  end
  return arg[first]
end

--- The milliseconds that one interpreter with `code` takes.
local function milliseconds(code)
  local loop = "i=0; while [ $i -lt %d ]; do '%s' -e '%s' || exit 1; i=$((i+1)); done"
  local command = loop:format(PER_BATCH, interpreter(), code)
  local start = clock.now()
  local status = os.execute(command)
  assert(status == true or status == 0, "the interpreter failed")
  return (clock.now() - start) / PER_BATCH * 1000
end

local differences = {}
for batch = 1, tonumber(batches) or 11 do
  local empty = milliseconds("")
  differences[batch] = milliseconds(('require "%s"'):format(module)) - empty
end

measurement.report("require", measurement.median(differences), "ms")
