-- The results as Markdown.

local measurement = require("bench.measurement")

local report = {}

--- A peer in an interpreter, in words. One that is no Lua library is an interpreter of its own.
function report.name_of(run)
  return run.peer == run.interpreter and run.peer or run.peer .. " in " .. run.interpreter
end

local function show(suite, value, unit)
  local form = suite.units[unit]
  return (form.format:format(value * form.scale) .. " " .. form.label):gsub(" $", "")
end

--- The median of what a peer measured under this name; nil if it was not measured.
local function median(outcome, name)
  local samples = outcome and outcome.samples[name]
  return samples and measurement.median(samples)
end

--- How far the rounds lie apart, in the unit of the median beside it; empty if there was only one.
local function range(suite, samples, unit)
  if #samples < 2 then return "" end
  local form = suite.units[unit]
  local unpack = table.unpack or unpack
  local lowest, highest = math.min(unpack(samples)), math.max(unpack(samples))
  return form.format:format(lowest * form.scale) .. " – " .. form.format:format(highest * form.scale)
end

--- The outcome of a peer in an interpreter; one that is an interpreter itself stands beside each.
local function outcome_of(results, interpreter, peer)
  return (results[peer] or results[interpreter])[peer]
end

local function is_met(target, value)
  if target.at_least then return value >= target.at_least end
  return value <= target.at_most
end

local function describe(suite, target, unit)
  local sign = target.at_least and "≥" or "≤"
  local bound = target.at_least or target.at_most
  local plus = target.plus and " + " .. show(suite, target.plus, unit) or ""
  if target.peer then return ("%s %.3g × %s%s"):format(sign, bound, target.peer, plus) end
  local form = suite.units[unit]
  return (("%s %g %s"):format(sign, bound * form.scale, form.label):gsub(" $", ""))
end

--- The target that the row of this peer is about: a ratio stands beside the peer, an absolute one beside scheduler.
local function target_of(workload, interpreter, name, peer)
  for _, target in ipairs(workload.targets) do
    local here = (target.interpreter or interpreter) == interpreter
    if here and target.measurement == name and (target.peer or "scheduler") == peer then return target end
  end
end

--- What a target bounds: scheduler's figure, or how many times the peer's `value` it is, without what is granted.
local function judged(target, ours, value)
  if not target or not target.peer then return ours end
  return ours and value and (ours - (target.plus or 0)) / value
end

local Table = {}
Table.__index = Table

--- The cells "target" and "met" of a row; `value` is what the target bounds, nil if it was not measured.
function Table:judge(target, value, unit)
  if not target then return "", "" end
  local verdict = value == nil and "open" or is_met(target, value) and "met" or "missed"
  self.counts[verdict] = self.counts[verdict] + 1
  if verdict == "open" then return "", "" end
  return describe(self.suite, target, unit), verdict == "met" and "yes" or "**no**"
end

function Table:row(interpreter, name, peer)
  local outcome = outcome_of(self.results, interpreter, peer)
  local value, unit = median(outcome, name), outcome.units[name]
  local ours = median(self.results[interpreter].scheduler, name)
  local ratio = ours and value and peer ~= "scheduler" and ours / value or nil
  local target = self.targeted and target_of(self.workload, interpreter, name, peer)
  local bound, met = self:judge(target, judged(target, ours, value), unit)
  if not value then return end
  local shown_ratio = ratio and ("%.2f"):format(ratio) or ""
  local spread = range(self.suite, outcome.samples[name], unit)
  local cells = { interpreter, name, peer, show(self.suite, value, unit), spread, shown_ratio, bound, met }
  self.lines[#self.lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
end

function Table:interpreter(interpreter, peers)
  for _, name in ipairs(self.workload.measurements) do
    for _, peer in ipairs(peers) do
      self:row(interpreter, name, peer)
    end
  end
end

--- The table of a workload; `counts` is added to.
local function table_of(suite, workload, results, counts)
  local fields = { suite = suite, workload = workload, results = results, counts = counts, targeted = true }
  local self = setmetatable(fields, Table)
  self.lines = {
    "| interpreter | measurement | peer | median | range | scheduler / peer | target | met |",
    "|---|---|---|--:|--:|--:|---|---|",
  }
  for _, interpreter in ipairs(suite.interpreters) do
    self:interpreter(interpreter, workload.peers)
  end
  self.targeted = false
  for _, interpreter in ipairs(suite.further_interpreters) do
    self:interpreter(interpreter, { "scheduler" })
  end
  return self.lines
end

--- What was left out, in words; nil if nothing was.
local function skipped(runs, results)
  local reasons = {}
  for _, run in ipairs(runs) do
    local reason = results[run.interpreter][run.peer].reason
    if reason then reasons[#reasons + 1] = ("%s (%s)"):format(report.name_of(run), reason) end
  end
  return reasons[1] and "Left out: " .. table.concat(reasons, "; ") .. "."
end

--- The section of one workload, as a list of lines.
function report.section(suite, workload, runs, results, counts)
  local lines = { "## " .. workload.title, "", ("`%s`: %s"):format(workload.name, workload.what), "" }
  for _, line in ipairs(table_of(suite, workload, results, counts)) do
    lines[#lines + 1] = line
  end
  lines[#lines + 1] = ""
  local left_out = skipped(runs, results)
  if left_out then
    lines[#lines + 1] = left_out
    lines[#lines + 1] = ""
  end
  return lines
end

--- What stands above the workloads.
function report.head(facts, versions, rounds, counts)
  local lines = {
    "# Results",
    "",
    ("Written by `make bench`; `README.md` says how to read it. Rounds: %d."):format(rounds),
    ("Targets: %d met, %d missed, %d not judged."):format(counts.met, counts.missed, counts.open),
    "",
    "| | |",
    "|---|---|",
  }
  for _, list in ipairs({ facts, versions }) do
    for _, fact in ipairs(list) do
      lines[#lines + 1] = ("| %s | %s |"):format(fact[1], fact[2])
    end
  end
  lines[#lines + 1] = ""
  return lines
end

return report
