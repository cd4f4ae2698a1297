-- evaera's Promise library for Roblox, a peer in pure Lua. The npm package roblox-ts brings it, and `.ci/setup bench`
-- fetches that. Here is what it uses of Roblox, in the cheapest way there is in plain Lua.

local FOLDER = "build/bench/package/"

local create, resume = coroutine.create, coroutine.resume

--- What was deferred: functions, each followed by its argument.
local deferred, length = {}, 0

local task = {}

function task.spawn(fn, ...)
  local co = type(fn) == "thread" and fn or create(fn)
  local ok, err = resume(co, ...)
  if not ok then error(err, 0) end
  return co
end

--- The library defers nothing that waits, and passes one argument.
function task.defer(fn, argument)
  deferred[length + 1], deferred[length + 2] = fn, argument
  length = length + 2
end

--- Runs what was deferred, and what that defers.
local function run()
  local i = 1
  while i < length do
    deferred[i](deferred[i + 1])
    deferred[i], deferred[i + 1] = nil, nil
    i = i + 2
  end
  length = 0
end

local function find(list, wanted)
  for i, value in ipairs(list) do
    if value == wanted then return i end
  end
end

local function copy(source, further)
  local target = {}
  for _, fields in ipairs({ source, further }) do
    for key, value in pairs(fields) do
      target[key] = value
    end
  end
  return target
end

--- LuaJIT cannot close coroutines; one that is not needed any more is left to the collector.
local function leave() end

--- The library takes a traceback for each promise. That is slow in plain Lua, and not what is compared here.
local function no_traceback()
  return ""
end

--- Frames are for delays and for rejections that nobody handles; none are measured.
local run_service = { Heartbeat = {} }

local environment = copy(_G, {
  debug = copy(debug, { traceback = no_traceback }),
  task = task,
  unpack = table.unpack or unpack,
  coroutine = copy(coroutine, { close = coroutine.close or leave }),
  table = copy(table, { find = find }),
  warn = function(message)
    io.stderr:write(message, "\n")
  end,
  game = {
    GetService = function()
      return run_service
    end,
  },
})

local function version()
  local file = assert(io.open(FOLDER .. "package.json"))
  local text = file:read("*a")
  file:close()
  return "in roblox-ts " .. text:match('"version": *"([^"]+)"')
end

return {
  Promise = assert(loadfile(FOLDER .. "include/Promise.lua", "t", environment))(),
  spawn = task.spawn,
  run = run,
  version = version(),
}
