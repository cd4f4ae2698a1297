-- Runs the workloads for every peer and interpreter, and writes bench/RESULTS.md.
--   lua5.4 bench/run.lua [--rounds N] [--only WORKLOAD]...
--
-- Every measurement is a process of its own. The peers take turns, round by round, so that a machine that slows down
-- slows all of them. With `--only` the results are printed, and the file stays as it is.

package.path = "./?.lua;" .. package.path

local chart = require("bench.chart")
local machine = require("bench.machine")
local report = require("bench.report")
local shell = require("bench.shell")
local suite = require("bench.workloads")

local RESULTS = "bench/RESULTS.md"

local function progress(form, ...)
  io.stderr:write(form:format(...), "\n")
end

local function fail(message)
  io.stderr:write("bench: ", message, "\n")
  os.exit(2)
end

local function workload_named(name)
  for _, workload in ipairs(suite.workloads) do
    if workload.name == name then return workload end
  end
  fail(("there is no workload '%s'"):format(tostring(name)))
end

local function parse_options(arguments)
  local options = { rounds = 5, workloads = {} }
  for i = 1, #arguments, 2 do
    local option, value = arguments[i], arguments[i + 1]
    if option == "--rounds" and (math.tointeger(tonumber(value)) or 0) > 0 then
      options.rounds = math.tointeger(tonumber(value))
    elseif option == "--only" then
      table.insert(options.workloads, workload_named(value))
    else
      fail("usage: lua5.4 bench/run.lua [--rounds N] [--only WORKLOAD]...")
    end
  end
  options.partial = #options.workloads > 0
  if not options.partial then options.workloads = suite.workloads end
  return options
end

--- Which peer is measured in which interpreter: one round of a workload.
local function runs_of(workload)
  local runs = {}
  for _, peer in ipairs(workload.peers) do
    local interpreters = suite.peers[peer].script and { peer } or suite.interpreters
    for _, interpreter in ipairs(interpreters) do
      table.insert(runs, { interpreter = interpreter, peer = peer })
    end
  end
  for _, interpreter in ipairs(suite.further_interpreters) do
    table.insert(runs, { interpreter = interpreter, peer = "scheduler" })
  end
  return runs
end

local found_versions = {}

--- The version of the run's peer in its interpreter; false if it is not installed.
local function version_for(run)
  local key = report.name_of(run)
  if found_versions[key] == nil then
    found_versions[key] = machine.version(suite.peers[run.peer], run.interpreter) or false
    if not found_versions[key] then progress("%s: not installed, skipped", key) end
  end
  return found_versions[key]
end

--- Empty outcomes for all runs of a workload, by interpreter and peer.
local function new_results(runs)
  local results = {}
  for _, run in ipairs(runs) do
    local reason = not version_for(run) and "not installed" or nil
    results[run.interpreter] = results[run.interpreter] or {}
    results[run.interpreter][run.peer] = { samples = {}, units = {}, reason = reason }
  end
  return results
end

local function command_of(workload, run)
  local script = suite.peers[run.peer].script
  if script then return script:format(workload.name) end
  return shell.interpreter(run.interpreter, ("bench/%s.lua %s"):format(workload.name, run.peer))
end

--- Adds the measurement in a line of a workload's output to its outcome; returns it in words.
local function take(outcome, line)
  local name, value, unit = line:match("^([^\t]+)\t([^\t]+)\t([^\t]+)$")
  if not name then
    outcome.reason = line:match("^skip\t(.+)$") or ("unexpected output: " .. line)
    return outcome.reason
  end
  outcome.samples[name] = outcome.samples[name] or {}
  table.insert(outcome.samples[name], tonumber(value))
  outcome.units[name] = unit
  return ("%s %.4g %s"):format(name, tonumber(value), unit)
end

--- Measures one peer once. One that was skipped or has failed is not started again.
local function measure(workload, run, outcome)
  if outcome.reason then return end
  local lines, succeeded = shell.lines(command_of(workload, run))
  local words = {}
  for i, line in ipairs(lines) do
    words[i] = take(outcome, line)
  end
  if not succeeded then outcome.reason = "failed" end
  progress("  %-8s %-10s %s", run.interpreter, run.peer, outcome.reason or table.concat(words, ", "))
end

local function run_workload(workload, rounds)
  local runs = runs_of(workload)
  local results = new_results(runs)
  for round = 1, rounds do
    progress("%s, round %d of %d", workload.name, round, rounds)
    for _, run in ipairs(runs) do
      measure(workload, run, results[run.interpreter][run.peer])
    end
  end
  return runs, results
end

--- The versions of all peers, as facts for the head of the report.
local function version_facts()
  local facts = {}
  for key, version in pairs(found_versions) do
    table.insert(facts, { key, version or "not installed" })
  end
  table.sort(facts, function(a, b)
    return a[1] < b[1]
  end)
  return facts
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  assert(file:write(text))
  file:close()
  progress("written: %s", path)
end

local function main()
  if not io.open("bench/run.lua") then fail("start it in the project's root") end
  local options = parse_options(arg)
  local facts = machine.facts(suite)
  local counts, sections = { met = 0, missed = 0, open = 0 }, {}
  for _, workload in ipairs(options.workloads) do
    local runs, results = run_workload(workload, options.rounds)
    local section = report.section(suite, workload, runs, results, counts)
    table.insert(sections, table.concat(section, "\n"))
  end
  local head = report.head(facts, version_facts(), options.rounds, counts)
  local text = table.concat(head, "\n") .. "\n" .. table.concat(sections, "\n")
  if options.partial then return io.write(text) end
  write(RESULTS, text)
  progress("drawn: %d pictures", chart.draw_all())
end

main()
