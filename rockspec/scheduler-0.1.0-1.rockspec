rockspec_format = "3.0"
package = "scheduler"
version = "0.1.0-1"

source = {
  url = "git+https://example.invalid/scheduler.git",
  tag = "v0.1.0",
}

description = {
  summary = "Timers, tasks, promises and multi-core parallelism for stock Lua",
  detailed = [[
    A native module for Lua 5.1 to 5.5 and LuaJIT: timers as in JavaScript, tasks and promises, an event loop that also
    runs inside another one, and jobs in parallel on all cores. Needs cargo (Rust 1.88) and a C compiler to build.
  ]],
  license = "MIT",
  labels = { "async", "timer", "parallel", "eventloop" },
}

supported_platforms = { "unix" }

dependencies = {
  "lua >= 5.1, < 5.6",
}

build = {
  type = "command",
  -- Run by the interpreter that LuaRocks is set to, which so tells its version, and LuaJIT from Lua 5.1.
  build_command = [["$(LUA)" rockspec/build.lua]],
  install = {
    lib = { scheduler = "build/rock/scheduler.so" },
    lua = { ["scheduler.types"] = "types/scheduler.lua" },
    bin = { scheduler = "bin/scheduler" },
  },
}

test = {
  type = "command",
  script = "spec/run.lua",
}
