-- What the workloads have in common: which peer is measured, how a time is taken, the form of a result.

local clock = require("bench.clock")

local PAGE = 4096 -- bytes

local measurement = {}

--- One line for the runner.
function measurement.report(name, value, unit)
  io.write(("%s\t%.9g\t%s\n"):format(name, value, unit))
end

--- Ends the process at once: what is still pending must neither fire nor be torn down, which can take longer than the
--- measurement did.
function measurement.finish()
  io.stdout:flush()
  os.exit(0)
end

--- Ends the process where the installed version of a peer lacks what the workload needs.
function measurement.skip(reason)
  io.write("skip\t", reason, "\n")
  measurement.finish()
end

--- The entry of `peers` under the name on the command line.
function measurement.choose(peers, name)
  if peers[name] then return peers[name] end
  local names = {}
  for known in pairs(peers) do
    names[#names + 1] = known
  end
  table.sort(names)
  error(("no peer '%s' in this workload; there are: %s"):format(tostring(name), table.concat(names, ", ")), 0)
end

--- The seconds that `fn(...)` takes. The collector begins with a clean slate, and its work in between counts.
function measurement.time(fn, ...)
  collectgarbage()
  collectgarbage()
  local start = clock.now()
  fn(...)
  return clock.now() - start
end

--- The bytes that the process has in memory, those of libraries included; nil where there is no /proc.
function measurement.resident()
  local file = io.open("/proc/self/statm")
  if not file then return nil end
  local pages = file:read("*l"):match("^%d+ (%d+)")
  file:close()
  return tonumber(pages) * PAGE
end

--- The value below which the share `p` of `sorted` lies.
function measurement.percentile(sorted, p)
  return sorted[math.max(1, math.ceil(p * #sorted))]
end

function measurement.median(values)
  local sorted = { (table.unpack or unpack)(values) }
  table.sort(sorted)
  local middle = #sorted / 2
  return (sorted[math.floor(middle + 0.5)] + sorted[math.floor(middle + 1)]) / 2
end

--- The median of the seconds that each of so many calls takes, after one that is not measured: it starts what is
--- started at first use.
function measurement.median_time(rounds, fn)
  fn()
  local times = {}
  for round = 1, rounds do
    times[round] = measurement.time(fn)
  end
  return measurement.median(times)
end

return measurement
