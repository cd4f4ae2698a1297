-- What the runner runs: interpreters, peers, workloads and their targets. A new workload needs an entry here, a script
-- `bench/NAME.lua` that takes the peer's name, and one for each peer that is not a Lua library.

local suite = {}

--- Those that every peer is measured in, and that the targets hold for.
suite.interpreters = { "lua5.4", "luajit" }

--- Those that scheduler is measured in besides, to see what the other interpreters get.
suite.further_interpreters = { "lua5.1" }

--- How to tell whether a peer is there: `module` can be required, or `command` be run. `version` is a Lua expression
--- about the module `m`. `script` is the command line that measures one that is not a Lua library, for the name of a
--- workload.
suite.peers = {
  scheduler = { module = "scheduler", version = "m._VERSION" },
  luv = { module = "luv", version = [["libuv " .. m.version_string()]] },
  cqueues = { module = "cqueues", version = "m.VERSION" },
  copas = { module = "copas", version = "m._VERSION" },
  evaera = { module = "bench.evaera", version = "m.version" },
  raw = { module = "luv", version = [["coroutines alone; threads of libuv " .. m.version_string()]] },
  node = { command = "node", script = "node bench/%s.js" },
  python = { command = "python3", script = "python3 -B bench/%s.py" },
  crossbeam = { command = "build/bench/crossbeam", script = "build/bench/crossbeam %s" },
}

--- How figures of each unit are shown.
suite.units = {
  ["ops/s"] = { label = "M ops/s", scale = 1e-6, format = "%.2f" },
  ms = { label = "ms", scale = 1, format = "%.3f" },
  s = { label = "s", scale = 1, format = "%.3f" },
  us = { label = "µs", scale = 1, format = "%.2f" },
  ["messages/s"] = { label = "k/s", scale = 1e-3, format = "%.1f" },
  B = { label = "B", scale = 1, format = "%.0f" },
  MiB = { label = "MiB", scale = 1, format = "%.1f" },
  ratio = { label = "", scale = 1, format = "%.4f" },
  x = { label = "×", scale = 1, format = "%.2f" },
}

--- `measurements` names what is shown of the figures that a script prints. A target bounds scheduler's median:
--- `at_least` or `at_most` so many times that of `peer`, `plus` so much if that is given; or without a peer the figure
--- itself, in its own unit. It holds in every interpreter, or in the `interpreter` that it names.
suite.workloads = {
  {
    name = "timers_create",
    title = "Timers, create",
    what = "1,000,000 one-shot timers of 0 to 999 ms are set (cqueues, copas: 100,000).",
    peers = { "scheduler", "luv", "cqueues", "copas", "node" },
    measurements = { "create" },
    targets = {
      { measurement = "create", peer = "luv", at_least = 4 },
      { measurement = "create", peer = "node", at_least = 2 },
    },
  },
  {
    name = "timers_cancel",
    title = "Timers, cancel",
    what = "As many timers, set beforehand, are all taken back.",
    peers = { "scheduler", "luv", "copas", "node" },
    measurements = { "cancel" },
    targets = {
      { measurement = "cancel", peer = "luv", at_least = 6 },
      { measurement = "cancel", peer = "node", at_least = 1 },
    },
  },
  {
    name = "timers_fire",
    title = "Timers, fire",
    what = "1,000,000 one-shot timers of 0 to 10 ms are set and have all fired (cqueues, copas: 100,000).",
    peers = { "scheduler", "luv", "cqueues", "copas", "node" },
    measurements = { "fire" },
    targets = {
      { measurement = "fire", peer = "luv", at_least = 8 },
      { measurement = "fire", peer = "node", at_least = 1.5 },
    },
  },
  {
    name = "intervals",
    title = "Interval precision",
    what = "100 intervals of 1 ms for 3 s. `fired` is the share of the expected firings, `late` the lateness by the "
      .. "peer's own rule, `cpu` the CPU time used.",
    peers = { "scheduler", "luv", "cqueues", "copas", "node" },
    measurements = { "fired", "late_p50", "late_p99", "cpu" },
    targets = {
      { measurement = "fired", at_least = 0.995 },
      { measurement = "late_p50", peer = "luv", at_most = 1 },
      { measurement = "late_p99", peer = "luv", at_most = 1 },
      { measurement = "cpu", peer = "luv", at_most = 1 },
    },
  },
  {
    name = "switch",
    title = "Switch",
    what = "Two tasks give way to each other 1,000,000 times each. `turn` is the same where the loop looks for events "
      .. "after each round, as it always does in luv and cqueues. `raw` is a queue written in Lua, without a loop.",
    peers = { "scheduler", "luv", "cqueues", "copas", "raw", "node" },
    measurements = { "switch", "turn" },
    targets = { { measurement = "switch", peer = "luv", at_least = 1.4 } },
  },
  {
    name = "spawn",
    title = "Spawn",
    what = "1,000,000 tasks that only add one to a counter are created and run. `raw` is a coroutine for each.",
    peers = { "scheduler", "cqueues", "copas", "raw", "node" },
    measurements = { "spawn" },
    targets = {
      { measurement = "spawn", peer = "cqueues", at_least = 6 },
      { measurement = "spawn", peer = "node", at_least = 1 },
    },
  },
  {
    name = "sleepers",
    title = "Sleepers",
    what = "1,000,000 coroutines each sleep once, for 0 to 999 ms (copas: 100,000). `wall` is how long that takes, "
      .. "`bytes` the memory for each while all sleep. `raw` has coroutines that are suspended, and do not sleep.",
    peers = { "scheduler", "luv", "cqueues", "copas", "raw", "node" },
    measurements = { "wall", "bytes" },
    targets = {
      { measurement = "wall", interpreter = "lua5.4", at_most = 2.6 },
      { measurement = "wall", interpreter = "luajit", at_most = 2 },
      { measurement = "bytes", peer = "raw", at_most = 1, plus = 150 },
    },
  },
  {
    name = "promises",
    title = "Promises",
    what = "1,000,000 of each, of evaera's 100,000. `settle`: a promise that its executor resolves, with one handler. "
      .. "`chain`: a link of a chain of 1000. `await`: a wait for a settled promise. `all`: a promise among 10,000. "
      .. "`bytes`: the memory of one that is pending, in the heap of the language.",
    peers = { "scheduler", "evaera", "node" },
    measurements = { "settle", "chain", "await", "all", "bytes" },
    targets = {
      { measurement = "settle", interpreter = "lua5.4", peer = "evaera", at_least = 4 },
      { measurement = "chain", interpreter = "lua5.4", peer = "evaera", at_least = 4 },
      { measurement = "await", interpreter = "lua5.4", peer = "evaera", at_least = 4 },
      { measurement = "all", interpreter = "lua5.4", peer = "evaera", at_least = 4 },
      { measurement = "settle", interpreter = "luajit", peer = "node", at_least = 1 / 3 },
      { measurement = "chain", interpreter = "luajit", peer = "node", at_least = 1 / 3 },
      { measurement = "await", interpreter = "luajit", peer = "node", at_least = 1 / 3 },
      { measurement = "all", interpreter = "luajit", peer = "node", at_least = 1 / 3 },
    },
  },
  {
    name = "start",
    title = "Start",
    what = "What `require` adds to the life of an interpreter that does nothing else.",
    peers = { "scheduler", "luv", "cqueues", "copas" },
    measurements = { "require" },
    targets = { { measurement = "require", at_most = 1 } },
  },
  {
    name = "parallel",
    title = "Parallel",
    what = "fib(27) for each of 64 items, on all cores: the speed-up against one VM, and the wall time. `raw` is a "
      .. "bare thread for each core.",
    peers = { "scheduler", "luv", "raw", "node", "python" },
    measurements = { "speedup", "wall" },
    targets = { { measurement = "speedup", peer = "raw", at_least = 0.97 } },
  },
  {
    name = "jobs",
    title = "Tiny jobs",
    what = "100,000 calls of an empty function in other VMs (Python: 10,000 of `run`), the time for each. `map`: as "
      .. "one list. `run`: each started alone, all of them in flight together.",
    peers = { "scheduler", "luv", "node", "python" },
    measurements = { "map", "run" },
    targets = { { measurement = "map", at_most = 0.35 }, { measurement = "run", at_most = 1.5 } },
  },
  {
    name = "workers",
    title = "Workers",
    what = "A worker VM starts, runs an empty job and ends, again and again: the time for each.",
    peers = { "scheduler", "luv", "node", "python" },
    measurements = { "start" },
    targets = {
      { measurement = "start", interpreter = "lua5.4", peer = "luv", at_most = 1.81 },
      { measurement = "start", interpreter = "luajit", peer = "luv", at_most = 1.16 },
    },
  },
  {
    name = "channels",
    title = "Channels",
    what = "Between the main VM and a job. `round_trip`: an integer there and back. The others are messages a second "
      .. "one way: `integer`, `string_1k` of 1 KiB, `table` of 10 lists of 10 numbers, `records`: 10 tables of 10 "
      .. "named numbers, `string_1m` of 1 MiB. `resident`: the memory of the process at the end. `grown`: the most "
      .. "that it gained from the first to the last round of a kind. `crossbeam`: two threads without a VM.",
    peers = { "scheduler", "node", "python", "crossbeam" },
    measurements = { "round_trip", "integer", "string_1k", "table", "records", "string_1m", "resident", "grown" },
    targets = {
      { measurement = "round_trip", at_most = 6 },
      { measurement = "integer", interpreter = "lua5.4", peer = "node", at_least = 1.97 },
      { measurement = "integer", interpreter = "luajit", peer = "node", at_least = 2.9 },
      { measurement = "string_1k", interpreter = "lua5.4", peer = "node", at_least = 1.77 },
      { measurement = "string_1k", interpreter = "luajit", peer = "node", at_least = 2.38 },
      { measurement = "table", interpreter = "lua5.4", peer = "node", at_least = 1.5 },
      { measurement = "table", interpreter = "luajit", peer = "node", at_least = 1.63 },
      { measurement = "records", peer = "node", at_least = 1.5 },
      { measurement = "string_1m", peer = "node", at_least = 5.33 },
      { measurement = "grown", at_most = 16 },
    },
  },
  {
    name = "idle",
    title = "Idle workers",
    what = "The CPU time that a process uses in 3 s with workers that have run jobs, while a task waits for a message.",
    peers = { "scheduler", "luv", "node" },
    measurements = { "cpu" },
    targets = { { measurement = "cpu", at_most = 5 } },
  },
}

return suite
