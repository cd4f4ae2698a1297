-- Fetches documents from a server that is slow and fails now and then, so many at a time, and counts their words on all
-- cores. What fails is tried again, unless that is useless: the first such error ends the rest, and so does a deadline.
-- There is no network: the server, in `pipeline/`, only behaves as if there were one.

local scheduler = require("scheduler")
local Promise, await = scheduler.Promise, scheduler.await

local FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5 -- seconds before another attempt

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local options = require("pipeline.options").parse(arg)
local server = require("pipeline.server").open(options)

local progress = { done = 0, total = 0, words = 0, retries = 0 }

local function in_words(err)
  return type(err) == "table" and err.error or tostring(err)
end

-- One document

local function is_transient(err)
  return Promise.Error.isKind(err, "Busy") or Promise.Error.isKind(err, "TimedOut")
end

--- Fetches a document, in as many attempts as it takes. One that takes too long is cancelled by its `timeout`.
local function download(path)
  local function attempt()
    return server.fetch(path):timeout(options.timeout)
  end
  local function is_worthwhile(err, retry)
    if not is_transient(err) then return false end
    progress.retries = progress.retries + 1
    print(("        %s: %s; retry %d"):format(path, in_words(err), retry))
    return true
  end
  return Promise.retry(attempt, {
    times = options.retries,
    delay = FIRST_PAUSE,
    backoff = 2,
    max_delay = LONGEST_PAUSE,
    jitter = 0.5, -- or else all that failed together would come back together
    when = is_worthwhile,
  })
end

--- The job, sent to a worker VM as it is.
local function count_words(text)
  local _, count = text:gsub("[%w_]+", "")
  return count
end

local function process(path)
  local text = await(download(path))
  local words = await(scheduler.parallel.run(count_words, text))
  progress.done, progress.words = progress.done + 1, progress.words + words
  print(("[%d/%d] %s: %d words"):format(progress.done, progress.total, path, words))
end

-- All of them

local function print_summary(seconds)
  local line = "%d of %d documents, %d words, %d retries, %.2f s"
  print(line:format(progress.done, progress.total, progress.words, progress.retries, seconds))
end

local function main()
  local start, paths = scheduler.now(), server.list(options.paths)
  progress.total = #paths
  -- An error or the deadline cancels what is still under way, down to the requests.
  local ok, failure = Promise.map(paths, process, { concurrency = options.at_once })
    :timeout(options.deadline, ("not done within %g s"):format(options.deadline))
    :await()
  print_summary((scheduler.now() - start) / 1000)
  if ok then return true end
  io.stdout:flush() -- so that the two are in order, wherever they go
  io.stderr:write(("pipeline: %s; the rest was cancelled\n"):format(in_words(failure)))
  return false
end

if not main() then os.exit(1) end
