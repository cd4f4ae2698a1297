-- Plans a build: reads the rules, follows what the targets are made from, and finds out what is not up to date.

local command = require("build.command")

local plan = {}

local function fail(message, ...)
  error(message:format(...), 0)
end

local function check_rule(rule, number, path)
  local target = type(rule) == "table" and rule.target
  if type(target) ~= "string" then fail("%s: rule %d has no target", path, number) end
  for _, field in ipairs({ "from", "also" }) do
    if type(rule[field] or {}) ~= "table" then fail("%s: '%s' of %s must be a list", path, field, target) end
  end
  if type(rule.run or "") ~= "string" then fail("%s: 'run' of %s must be a command", path, target) end
end

--- Reads the rules of a description: a Lua file that returns a list of
---
---   { target = "a file", from = { "files" }, also = { "files" }, run = "a command" }
---
--- The command runs in the folder of the targets. In it, `$in` stands for the files of `from`, `$out` for the target.
--- What is in `also` is needed too. A rule without a command gives a name to what it is made from. What no rule makes
--- lies in the folder of the description.
function plan.read(path)
  local rules, by_target = assert(loadfile(path))(), {}
  if type(rules) ~= "table" or not rules[1] then fail("%s: no rules", path) end
  for number, rule in ipairs(rules) do
    check_rule(rule, number, path)
    if by_target[rule.target] then fail("%s: two rules make %s", path, rule.target) end
    by_target[rule.target] = rule
  end
  return { by_target = by_target, default = rules[1].target, folder = path:match("^(.*)/") or "." }
end

-- Steps

-- What a build does for one target; a source has a step as well, with nothing to do:
--   name, path   what is made, and where it is
--   files        what `$in` stands for in a command that needs it: the path, or what a mere name stands for
--   command      what makes it; nil for a source or a mere name
--   folder, log  where the command runs, and the file for its output
--   needs        the steps that come before

local function new_step(name, folder)
  local path = folder .. "/" .. name
  return { name = name, path = path, folder = folder, files = { command.quote(path) }, needs = {} }
end

--- The command of a rule, with the paths filled in.
local function expand(rule, inputs, out)
  local values = { ["$in"] = table.concat(inputs, " "), ["$out"] = command.quote(out) }
  return (rule.run:gsub("%$%l+", values))
end

local add_step

--- Adds steps that another one needs; returns their files.
local function add_needs(steps, step, names, open)
  local files = {}
  for _, name in ipairs(names or {}) do
    local needed = add_step(steps, name, open .. " -> " .. name)
    table.insert(step.needs, needed)
    for _, file in ipairs(needed.files) do
      table.insert(files, file)
    end
  end
  return files
end

--- Makes a step what a rule says.
local function follow_rule(steps, step, rule, open)
  local inputs = add_needs(steps, step, rule.from, open)
  add_needs(steps, step, rule.also, open)
  step.log = step.path .. ".log"
  if rule.run then step.command = expand(rule, inputs, step.path) else step.files = inputs end
end

--- Adds the step for a target and, before it, those for all that it needs. `open` names what led here.
function add_step(steps, name, open)
  local step, rule = steps.by_name[name], steps.rules.by_target[name]
  if step and not step.is_complete then fail("a target needs itself: %s", open) end
  if step then return step end

  step = new_step(name, rule and steps.folder or steps.rules.folder)
  steps.by_name[name] = step
  if rule then follow_rule(steps, step, rule, open) end
  step.is_source, step.is_complete = not rule, true
  table.insert(steps, step)
  return step
end

-- File times

--- When the files of the steps were changed, by path; nil for those that are missing.
local function file_times(steps)
  local words, times = {}, {}
  for i, step in ipairs(steps) do
    words[i] = command.quote(step.path)
  end
  local find = "LC_ALL=C find %s -maxdepth 0 -printf '%%T@ %%p\\n' 2>/dev/null"
  for line in command.output(find:format(table.concat(words, " "))):gmatch("[^\n]+") do
    local time, path = line:match("^(%S+) (.*)$")
    times[path] = tonumber(time)
  end
  return times
end

--- Whether a step has to be done: its file is missing, or something that it needs is newer or will be made anew.
local function is_outdated(step, times)
  local time = times[step.path]
  if step.command and not time then return true end
  for _, needed in ipairs(step.needs) do
    if needed.is_outdated then return true end
    if step.command and (times[needed.path] or 0) > time then return true end
  end
  return false
end

--- The steps for these targets, each after what it needs, with `is_outdated` set where something is to be done, and the
--- number of `commands` to run. What is made goes to `folder`.
function plan.make(rules, targets, folder)
  local steps = { by_name = {}, rules = rules, folder = folder, commands = 0 }
  for _, target in ipairs(#targets > 0 and targets or { rules.default }) do
    if not rules.by_target[target] then fail("no rule makes %s", target) end
    add_step(steps, target, target)
  end
  local times = file_times(steps)
  for _, step in ipairs(steps) do
    if step.is_source and not times[step.path] then fail("%s is missing, and no rule makes it", step.path) end
    step.is_outdated = is_outdated(step, times)
    if step.is_outdated and step.command then steps.commands = steps.commands + 1 end
  end
  return steps
end

return plan
