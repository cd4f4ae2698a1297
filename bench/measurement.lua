-- What the workloads have in common: which peer is measured, how a time is taken, the form of a result.

local clock = require("bench.clock")

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

return measurement
