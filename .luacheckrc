-- The module itself runs on every Lua: only what all of them have. Specs, benches and examples choose by feature.
std = "min"
max_line_length = 120
exclude_files = { "build", "target", "types" }
files["lua"].read_globals = {
  "unpack",
  coroutine = { fields = { "close", "isyieldable" } },
  table = { fields = { "pack", "unpack" } },
}
files["spec"].std = "+busted"
files["spec"].read_globals = {
  "jit",
  "unpack",
  math = { fields = { "type", "maxinteger", "mininteger" } },
  table = { fields = { "pack", "unpack" } },
}
files["spec/interpreter"] = { std = "max" }
files["bin"] = { std = "max", globals = { "arg" }, read_globals = { "_PROMPT", "_PROMPT2" } }
files["bench"].std = "max"
files["docs"].std = "max"
files["examples"].std = "max"
files[".busted"] = { std = "min" }
files["rockspec/*.rockspec"].std = "rockspec"
files["rockspec/*.lua"].std = "max"
