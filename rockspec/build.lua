-- Builds the module for the interpreter that runs this, into build/rock: LuaRocks calls it.

local function feature()
  if jit then return "luajit" end
  return (_VERSION:lower():gsub("[ .]", ""))
end

--- Runs a command; stops the build if it fails. `os.execute` returns a status in 5.1, `true` in later versions.
local function run(command)
  print(command)
  local result = os.execute(command)
  if result ~= true and result ~= 0 then
    io.stderr:write("failed: ", command, "\n")
    os.exit(1)
  end
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

local name = feature()
local target = "target/rock-" .. name
run(("cargo build --locked --release --features %s --target-dir %s"):format(name, target))
run("mkdir -p build/rock")
local library = target .. "/release/libscheduler"
run(("cp %s build/rock/scheduler.so"):format(exists(library .. ".so") and library .. ".so" or library .. ".dylib"))
