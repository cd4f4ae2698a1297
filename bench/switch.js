// Switch: see switch.lua. `await` gives way through the queue of microtasks; Node's loop takes no part in it.
//   node bench/switch.js [COUNT]
"use strict";

const measurement = require("./measurement.js");

const TASKS = 2;

const count = measurement.count(1000000);
const resolved = Promise.resolve();

async function task() {
  for (let i = 0; i < count; i++) await resolved;
}

async function main() {
  const start = measurement.now();
  await Promise.all(Array.from({ length: TASKS }, task));
  measurement.report("switch", (TASKS * count) / (measurement.now() - start), "ops/s");
}

main();
