-- The clock of all Lua workloads: wall time in seconds.
--
-- Lua's own `os.clock` counts the CPU time of the whole process: waiting would be free, and work on two cores would
-- cost double. So it is luv's, which is monotonic and counts nanoseconds, whoever is measured; where luv is missing it
-- is LuaSocket's, in microseconds. Every peer of an interpreter gets the same one. Node has `performance.now`.

local function open()
  local has_luv, luv = pcall(require, "luv")
  if has_luv then
    local hrtime = luv.hrtime
    return "luv.hrtime", function()
      return hrtime() / 1e9
    end
  end
  local has_socket, socket = pcall(require, "socket")
  if has_socket then return "socket.gettime", socket.gettime end
  error("the benchmarks need luv or LuaSocket for a clock", 0)
end

local clock = {}
clock.name, clock.now = open()

return clock
