-- Counts the words of files in three stages, which are joined by channels: some workers read files, some count words,
-- and here the counts are merged. Each channel has room for a few messages only, so that no stage runs ahead. A stage
-- that has nothing to receive any more closes what it sends to: so the end goes from stage to stage.
--
-- usage: lua examples/stages.lua [FOLDER...]     (without any: the text and the sources of this project)

local scheduler = require("scheduler")
local channel, parallel = scheduler.channel, scheduler.parallel

local READERS, COUNTERS = 2, 3
local ROOM = 8

local here = arg[0]:match("^.*/") or "./"
local root = here:match("^(.-)[^/.]+/$") or here .. "../"

local function fail(message)
  io.stderr:write("stages: ", message, "\n")
  os.exit(1)
end

local function find_files(folders)
  local words, paths = {}, {}
  for i, folder in ipairs(folders) do
    words[i] = "'" .. folder:gsub("'", "'\\''") .. "'"
  end
  local output = assert(io.popen("find " .. table.concat(words, " ") .. " -type f | sort"))
  for path in output:lines() do
    paths[#paths + 1] = path
  end
  output:close()
  return paths
end

-- The stages, sent to workers as they are

local function read(path)
  local file, reason = io.open(path, "rb")
  local text = file and file:read("*a")
  if file then file:close() end
  return text, reason or "it cannot be read"
end

local function is_text(text)
  return text ~= nil and not text:find("\0", 1, true)
end

local function count(text, counts)
  for word in text:lower():gmatch("%a+") do
    counts[word] = (counts[word] or 0) + 1
  end
end

--- Reads the files whose paths it receives. What cannot be read goes another way.
local function read_all(paths, texts, skipped)
  local path = paths:recv()
  while path do
    local text, reason = read(path)
    if is_text(text) then
      texts:send(text)
    else
      skipped:send(path, text and "it is no text" or reason)
    end
    path = paths:recv()
  end
end

--- Counts until there are no more texts, and sends how many there were, and the counts.
local function count_all(texts, counted)
  local files, counts, text = 0, {}, texts:recv()
  while text do
    count(text, counts)
    files, text = files + 1, texts:recv()
  end
  counted:send(files, counts)
end

-- Putting them together

--- Starts a stage: so many workers that run `work(...)`. When all have ended, the channels are closed.
local function start_stage(scope, workers, closed, work, ...)
  local jobs = {}
  for i = 1, workers do
    jobs[i] = parallel.run(work, ...)
  end
  scope:spawn(function()
    scheduler.await(scheduler.Promise.all(jobs))
    for _, one in ipairs(closed) do
      one:close()
    end
  end)
end

--- Takes what comes from either channel, until both are closed.
local function merge(counted, skipped)
  local totals, files, not_read = {}, 0, 0
  local cases = { { counted, "recv" }, { skipped, "recv" } }
  while cases[1] do
    local case, what, more = scheduler.select(cases)
    if what == nil then
      table.remove(cases, case) -- it is closed
    elseif cases[case][1] == counted then
      files = files + what
      for word, n in pairs(more) do
        totals[word] = (totals[word] or 0) + n
      end
    else
      print(("skipped %s: %s"):format(what, more))
      not_read = not_read + 1
    end
  end
  return totals, files, not_read
end

local function count_in_stages(list)
  local paths, texts, counted, skipped = channel(ROOM), channel(ROOM), channel(ROOM), channel(ROOM)
  return scheduler.scope(function(scope)
    start_stage(scope, READERS, { texts, skipped }, read_all, paths, texts, skipped)
    start_stage(scope, COUNTERS, { counted }, count_all, texts, counted)
    scope:spawn(function()
      for _, path in ipairs(list) do
        paths:send(path)
      end
      paths:close()
    end)
    return merge(counted, skipped)
  end)
end

local function count_one_by_one(list)
  local counts = {}
  for _, path in ipairs(list) do
    local text = read(path)
    if is_text(text) then count(text, counts) end
  end
  return counts
end

-- What is shown

local function sorted_words(totals)
  local words = {}
  for word in pairs(totals) do
    words[#words + 1] = word
  end
  table.sort(words, function(a, b)
    if totals[a] ~= totals[b] then return totals[a] > totals[b] end
    return a < b
  end)
  return words
end

local function check_equal(totals, expected)
  for word, n in pairs(expected) do
    if totals[word] ~= n then fail(("'%s' was counted %s times instead of %d"):format(word, totals[word], n)) end
  end
  for word in pairs(totals) do
    if not expected[word] then fail(("'%s' is nowhere"):format(word)) end
  end
end

local function main(folders)
  local list, start = find_files(folders), scheduler.now()
  local totals, files, not_read = count_in_stages(list)
  local seconds = (scheduler.now() - start) / 1000
  if files + not_read ~= #list then fail(("%d files of %d"):format(files + not_read, #list)) end
  start = scheduler.now()
  check_equal(totals, count_one_by_one(list))
  local seconds_alone = (scheduler.now() - start) / 1000

  local words = sorted_words(totals)
  print(("%d files, %d more skipped; %d different words"):format(files, not_read, #words))
  for i = 1, math.min(#words, 5) do
    print(("%8d  %s"):format(totals[words[i]], words[i]))
  end
  local line = "%.2f s with %d readers and %d counters, %.2f s one by one: equal counts"
  print(line:format(seconds, READERS, COUNTERS, seconds_alone))
end

local roots = { "README.md", "CHANGELOG.md", "src", "lua", "spec", "types" }
for i, name in ipairs(roots) do
  roots[i] = root .. name
end
local ok, err = pcall(main, #arg > 0 and arg or roots)
if not ok then fail(tostring(err)) end
