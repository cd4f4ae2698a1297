// Workers: see workers.lua. The job is the worker's script, which has ended when the worker exits.
//   node bench/workers.js [COUNT]
"use strict";

const { Worker } = require("node:worker_threads");
const measurement = require("./measurement.js");

const ROUNDS = 9;

function start() {
  return new Promise((resolve) => new Worker("", { eval: true }).on("exit", resolve));
}

async function main() {
  const count = measurement.count(5);
  const seconds = await measurement.medianTime(ROUNDS, async () => {
    for (let i = 0; i < count; i++) await start();
  });
  measurement.report("start", (seconds / count) * 1e6, "us");
}

main();
