-- Facts about the machine and what is installed on it, for the head of the results.

local shell = require("bench.shell")

local machine = {}

local function cpu_model()
  local info = io.open("/proc/cpuinfo")
  if not info then return "unknown" end
  local text = info:read("a")
  info:close()
  return text:match("model name%s*:%s*([^\n]+)") or "unknown"
end

local function interpreter_version(name)
  local line = shell.line(name .. " -v")
  return line and line:match("^(.-)[%s-]*Copyright") or line or "not installed"
end

--- A list of pairs: what it is, and what it is here.
function machine.facts(suite)
  local facts = {
    { "Date", os.date("!%Y-%m-%d %H:%M UTC") },
    { "CPU", cpu_model() },
    { "Cores", shell.line("getconf _NPROCESSORS_ONLN") or "unknown" },
    { "Load before", shell.line("uptime | sed 's/.*average: *//'") or "unknown" },
    { "Kernel", shell.line("uname -sr") or "unknown" },
    { "rustc", shell.line("rustc --version") or "not installed" },
  }
  for _, interpreters in ipairs({ suite.interpreters, suite.further_interpreters }) do
    for _, name in ipairs(interpreters) do
      facts[#facts + 1] = { name, interpreter_version(name) }
    end
  end
  return facts
end

--- The version of a peer in an interpreter; nil if it is not there.
function machine.version(peer, interpreter)
  if peer.command then return shell.line(peer.command .. " --version") end
  local code = ("local m = require %q print(%s)"):format(peer.module, peer.version)
  return shell.line(shell.interpreter(interpreter, "-e " .. shell.quote(code)))
end

return machine
