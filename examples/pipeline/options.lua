-- The command line of the pipeline.

local USAGE = [[
usage: lua examples/pipeline.lua [options] [FOLDER or FILE...]

Fetches the documents, all files in the folders (default: the examples), from a server that is slow and unreliable, and
counts their words.

  --at-once N    fetch at most N at a time (default: 8)
  --retries N    try again up to N times (default: 8)
  --timeout S    give up an attempt after S seconds, and try again (default: 0.2)
  --deadline S   give up all of it after S seconds (default: 30)
  --latency S    how long the server takes, on average (default: 0.05)
  --failures P   the share of the requests that fail, from 0 to 1 (default: 0.3)
  --seed N       other failures for another N (default: 1)
  --help         this text
]]

local options = {}

local function is_limit(number)
  return number > 0 and number < math.huge
end

local function is_count(number)
  return number >= 1 and number % 1 == 0
end

local function is_whole(number)
  return number >= 0 and number % 1 == 0
end

local function is_share(number)
  return number >= 0 and number <= 1
end

local LIMIT = { is_valid = is_limit, expected = "a number of seconds above 0" }

local OPTIONS = {
  ["--at-once"] = { field = "at_once", is_valid = is_count, expected = "a whole number above 0" },
  ["--retries"] = { field = "retries", is_valid = is_whole, expected = "a whole number" },
  ["--timeout"] = { field = "timeout", is_valid = LIMIT.is_valid, expected = LIMIT.expected },
  ["--deadline"] = { field = "deadline", is_valid = LIMIT.is_valid, expected = LIMIT.expected },
  ["--latency"] = { field = "latency", is_valid = LIMIT.is_valid, expected = LIMIT.expected },
  ["--failures"] = { field = "failures", is_valid = is_share, expected = "a number from 0 to 1" },
  ["--seed"] = { field = "seed", is_valid = is_whole, expected = "a whole number" },
}

local function refuse(problem)
  io.stderr:write("pipeline: ", problem, "\n\n", USAGE)
  os.exit(2)
end

local function help()
  io.write(USAGE)
  os.exit(0)
end

local function number_for(name, word)
  local number = tonumber(word or "")
  if not number or not OPTIONS[name].is_valid(number) then refuse(name .. " needs " .. OPTIONS[name].expected) end
  return number
end

function options.parse(words)
  local parsed = {
    at_once = 8, retries = 8, timeout = 0.2, deadline = 30, latency = 0.05, failures = 0.3, seed = 1, paths = {},
  }
  local i = 1
  while words[i] do
    local word = words[i]
    if word == "--help" then help() end
    if OPTIONS[word] then
      parsed[OPTIONS[word].field], i = number_for(word, words[i + 1]), i + 1
    elseif word:find("^%-") then
      refuse(("there is no option '%s'"):format(word))
    else
      table.insert(parsed.paths, word)
    end
    i = i + 1
  end
  if #parsed.paths == 0 then parsed.paths[1] = words[0]:match("^(.*)/") or "." end
  return parsed
end

return options
