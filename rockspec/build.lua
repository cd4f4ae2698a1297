-- Builds the module for the interpreter that runs this, into build/rock: LuaRocks calls it.

local function feature()
  if jit then return "luajit" end
  return (_VERSION:lower():gsub("[ .]", ""))
end

--- Runs a command; says whether it has succeeded. `os.execute` returns a status in 5.1, `true` in later versions.
local function succeeds(command)
  local result = os.execute(command)
  return result == true or result == 0
end

local function stop(complaint)
  io.stderr:write(complaint, "\n")
  os.exit(1)
end

--- Runs a command; stops the build if it fails.
local function run(command)
  print(command)
  if not succeeds(command) then stop("failed: " .. command) end
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

if not succeeds("cargo --version >/dev/null 2>&1") then
  stop("scheduler is built by cargo, which was not found. It comes with Rust, 1.88 or later: https://rustup.rs")
end
local name = feature()
local target = os.getenv("CARGO_TARGET_DIR") or "target/rock-" .. name
run(('cargo build --locked --release --features %s --target-dir "%s"'):format(name, target))
run("mkdir -p build/rock")
local library = target .. "/release/libscheduler"
run(('cp "%s" build/rock/scheduler.so'):format(exists(library .. ".so") and library .. ".so" or library .. ".dylib"))
