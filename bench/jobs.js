// Tiny jobs: see jobs.lua. A worker for each core; a job is a message to one of them and its answer.
//   node bench/jobs.js [COUNT]
"use strict";

const os = require("node:os");
const { Worker, isMainThread, parentPort } = require("node:worker_threads");
const measurement = require("./measurement.js");

const ROUNDS = 9;

/** Runs the jobs on the workers, which take turns. */
function run(workers, count) {
  return new Promise((resolve) => {
    let received = 0;
    for (const worker of workers) {
      worker.removeAllListeners("message");
      worker.on("message", () => {
        if (++received === count) resolve();
      });
    }
    for (let i = 0; i < count; i++) workers[i % workers.length].postMessage(i);
  });
}

async function main() {
  const count = measurement.count(100000);
  const workers = Array.from({ length: os.availableParallelism() }, () => new Worker(__filename));
  const seconds = await measurement.medianTime(ROUNDS, () => run(workers, count));
  measurement.report("run", (seconds / count) * 1e6, "us");
  process.exit();
}

function empty() {}

if (isMainThread) main();
else parentPort.on("message", () => parentPort.postMessage(empty()));
