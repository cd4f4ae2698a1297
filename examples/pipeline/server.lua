-- Stands for a server: it has the files of this machine for documents, sends each after a while, and fails at times.
--
-- What it does to a request depends on the seed, the document, and how often that was asked for before, and on nothing
-- else. So a run fails where the last one did, although the requests may come in another order.

local scheduler = require("scheduler")

local Error = scheduler.Promise.Error
local MODULUS, MULTIPLIER = 2147483647, 16807 -- of the generator by Park and Miller; exact in doubles as well
local UNUSED = 5 -- its first numbers, which are alike if the states that it begins with are
local HANGS = 3600 -- seconds: longer than anybody waits

local server = {}

--- A function that returns numbers from 0 to 1, always the same ones for these words.
local function generator(...)
  local state = 1
  for byte in table.concat({ ... }, "\0"):gmatch(".") do
    state = (state * 257 + byte:byte()) % (MODULUS - 1) + 1
  end
  local function next_number()
    state = state * MULTIPLIER % MODULUS
    return state / MODULUS
  end
  for _ = 1, UNUSED do
    next_number()
  end
  return next_number
end

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a") -- nil for a folder
  if file then file:close() end
  return text or error(Error.new({ kind = "Missing", error = "there is no document " .. path }), 0)
end

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- The documents in these folders, sorted, and those that were named themselves, whether there are any such or not.
function server.list(paths)
  local words, documents = {}, {}
  for i, path in ipairs(paths) do
    words[i] = quote(path)
  end
  local script = [[for path in %s; do if [ -d "$path" ]; then find -L "$path" -type f; else echo "$path"; fi; done]]
  local output = assert(io.popen(script:format(table.concat(words, " "))))
  for path in output:lines() do
    documents[#documents + 1] = path
  end
  output:close()
  table.sort(documents)
  return documents
end

--- Begins to serve. Options: `seed`; `latency`, the seconds that an answer takes on average; `failures`, the share of
--- the requests that fail: half of them with an error, and half are never answered.
function server.open(options)
  local asked = {} -- how often, by document

  local function fetch(path)
    local text = read(path) -- what is missing is refused at once
    asked[path] = (asked[path] or 0) + 1
    local random = generator(options.seed, path, asked[path])
    local luck = random()
    if luck < options.failures / 2 then scheduler.task.wait(HANGS) end
    scheduler.task.wait(options.latency * (0.5 + random()))
    if luck < options.failures then error(Error.new({ kind = "Busy", error = "the server is busy" }), 0) end
    return text
  end

  return { list = server.list, fetch = scheduler.async(fetch) }
end

return server
