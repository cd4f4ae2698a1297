-- Virtual time, for the tests of programs that use timers.

local native, check, loop = ...

local error, type = error, type
local clock = {}

-- More turns than this at one moment of virtual time are taken for an endless chain.
local TURNS_AT_ONE_MOMENT = 100000

function clock.pause()
  native.clock_pause()
end

function clock.resume()
  native.clock_resume()
end

--- Runs what is due or ready, until there is no more of it at this moment.
local function settle()
  for _ = 1, TURNS_AT_ONE_MOMENT do
    loop.turn()
    if not loop.has_work() and not native.is_due() then return end
  end
  error("the scheduler finds no end of work at one moment of virtual time", 0)
end

local function advance()
  repeat
    settle()
  until not native.clock_step()
  settle()
end

function clock.advance(seconds)
  if type(seconds) ~= "number" then check.bad_argument(1, "advance", "number", seconds) end
  if not (seconds >= 0 and seconds < math.huge) then
    check.raise("bad argument #1 to 'advance' (a finite number of seconds, not negative, expected)")
  end
  loop.refuse_nesting()
  if not native.clock_set_target(seconds) then check.raise("the clock is not paused") end
  loop.while_running(advance)
end

return clock
