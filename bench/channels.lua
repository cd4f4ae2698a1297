-- Channels: messages between the main VM and a job.
--   lua bench/channels.lua PEER
--
--   round_trip  microseconds that an integer takes there and back
--   integer, string_1k, table, records, string_1m
--               messages a second from the main VM to the job, for each kind of payload; a round begins with the first
--               message sent and ends when the job has received the last
--   resident    MiB of the process at the end
--   grown       the most MiB that the process gained from the first to the last round of a kind

local measurement = require("bench.measurement")

local ROUNDS = 9
local ROUND_TRIPS = 20000
local MIB = 1024 * 1024

local name = ...

--- Ten tables of ten numbers.
local function numbers()
  local rows = {}
  for i = 1, 10 do
    rows[i] = {}
    for j = 1, 10 do
      rows[i][j] = i * 10 + j
    end
  end
  return rows
end

--- The same with ten fields each.
local function records()
  local rows = numbers()
  for i, row in ipairs(rows) do
    rows[i] = {}
    for j, number in ipairs(row) do
      rows[i]["field" .. j] = number
    end
  end
  return rows
end

--- What is sent, how many times in a round, and how many messages may be under way.
local kinds = {
  { name = "integer", value = 42, count = 300000, capacity = 1024 },
  { name = "string_1k", value = ("x"):rep(1024), count = 100000, capacity = 1024 },
  { name = "table", value = numbers(), count = 20000, capacity = 1024 },
  { name = "records", value = records(), count = 20000, capacity = 1024 },
  { name = "string_1m", value = ("x"):rep(MIB), count = 400, capacity = 16 },
}

--- For each peer
---
---   round_trips(count)            sends an integer to the job so many times, and waits each time until it comes back
---   one_way(value, count, capacity)
---                                 starts a job that receives; returns a function that does one round, and one that
---                                 ends the job
local peers = {}

function peers.scheduler()
  local scheduler = require("scheduler")

  local function round_trips(count)
    local there, back = scheduler.channel(1), scheduler.channel(1)
    local job = scheduler.parallel.run(function()
      for _ = 1, count do
        back:send(there:recv())
      end
    end)
    for i = 1, count do
      there:send(i)
      assert(back:recv() == i, "wrong message")
    end
    job:expect()
  end

  local function one_way(value, count, capacity)
    local messages, received = scheduler.channel(capacity), scheduler.channel(1)
    local job = scheduler.parallel.run(function()
      local last = messages:recv()
      while last ~= "end" do
        for _ = 2, count do
          last = messages:recv()
        end
        received:send(type(last))
        last = messages:recv()
      end
    end)

    local function round()
      for _ = 1, count do
        messages:send(value)
      end
      assert(received:recv() == type(value), "wrong message")
    end

    local function finish()
      messages:send("end")
      job:expect()
    end

    return round, finish
  end

  return { round_trips = round_trips, one_way = one_way }
end

local peer = measurement.choose(peers, name)()

local function measure_round_trips()
  local seconds = measurement.median_time(ROUNDS, function()
    peer.round_trips(ROUND_TRIPS)
  end)
  measurement.report("round_trip", seconds / ROUND_TRIPS * 1e6, "us")
end

--- Returns by how many bytes the process grew; nil where that cannot be told.
local function measure_one_way(kind)
  local round, finish = peer.one_way(kind.value, kind.count, kind.capacity)
  local first
  local seconds = measurement.median_time(ROUNDS, function()
    round()
    first = first or measurement.resident()
  end)
  local last = measurement.resident()
  finish()
  measurement.report(kind.name, kind.count / seconds, "messages/s")
  return first and last - first
end

measure_round_trips()
local grown = -math.huge
for _, kind in ipairs(kinds) do
  grown = math.max(grown, measure_one_way(kind) or grown)
end
if measurement.resident() then
  measurement.report("resident", measurement.resident() / MIB, "MiB")
  measurement.report("grown", grown / MIB, "MiB")
end
measurement.finish()
