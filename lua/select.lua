-- Select: one of several sends and receives, whichever can be done first; one at random if several can.

local native, check, channel = ...

local format = string.format
local next, type = next, type
local try_cases = native.channel_try_cases
local NOT_NOW, CLOSED, FAILED = channel.NOT_NOW, channel.CLOSED, channel.FAILED

local function refuse(i, reason)
  check.raise(format("bad argument #1 to 'select' (case %d: %s)", i, reason))
end

--- The values of a case that sends: a list with its length `n`.
local function values_of(case)
  local count = case.n or #case - 2
  local values = { n = count }
  for i = 1, count do
    values[i] = case[i + 2]
  end
  return values
end

--- The cases as natives take them: channels, and the values to send, or false, in turn.
local function flatten(cases)
  local list = {}
  for i = 1, #cases do
    local case = cases[i]
    if type(case) ~= "table" then refuse(i, "table expected, got " .. type(case)) end
    if not native.channel_number(case[1]) then refuse(i, "channel expected, got " .. type(case[1])) end
    local what, count = case[2], case.n
    if what ~= "recv" and what ~= "send" then refuse(i, "\"recv\" or \"send\" expected") end
    if count ~= nil and (type(count) ~= "number" or count < 0 or count % 1 ~= 0) then
      refuse(i, "field 'n': whole number expected")
    end
    list[2 * i - 1], list[2 * i] = case[1], what == "send" and values_of(case)
  end
  return list
end

local function check_options(cases)
  if type(cases) ~= "table" then check.bad_argument(1, "select", "table", cases) end
  local seconds = cases.timeout
  if seconds ~= nil and (type(seconds) ~= "number" or seconds ~= seconds) then
    check.raise(format("bad argument #1 to 'select' (field 'timeout': number expected, got %s)",
      seconds ~= seconds and "NaN" or type(seconds)))
  end
  if next(cases) == nil then check.raise("bad argument #1 to 'select' (a case expected)") end
end

--- What `select` returns, given what a case has come to.
local function done(cases, status, case, value)
  if status == nil then return nil, "timeout" end
  local is_send = cases[case][2] == "send"
  if status ~= CLOSED then
    if is_send then return case end
    return case, channel.values(status, value)
  end
  if is_send then channel.refuse_closed() end
  return case, nil, "closed"
end

--- The channels of a list of cases.
local function channels_of(list)
  local channels = {}
  for i = 1, #list, 2 do
    channels[#channels + 1] = list[i]
  end
  return channels
end

--- `scheduler.select`.
return function(cases)
  check_options(cases)
  local list = flatten(cases)
  local status, case, value = try_cases(list)
  if status == FAILED then check.raise(value or case) end
  if status ~= NOT_NOW then return done(cases, status, case, value) end
  if cases.default then
    native.channel_drop_cases()
    return nil, "default"
  end
  return channel.wait(done, cases, channels_of(list), cases.timeout)
end
