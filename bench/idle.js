// Idle workers: see idle.lua. The workers wait for messages, and so does the main thread.
//   node bench/idle.js [SECONDS]
"use strict";

const os = require("node:os");
const { Worker, isMainThread, parentPort } = require("node:worker_threads");
const measurement = require("./measurement.js");

const JOBS = 64;

/** Has a worker run its share of the jobs. */
function exercise(worker, count) {
  return new Promise((resolve) => {
    let received = 0;
    worker.on("message", () => {
      if (++received === count) resolve();
    });
    for (let i = 0; i < count; i++) worker.postMessage(i);
  });
}

async function main() {
  const workers = Array.from({ length: os.availableParallelism() }, () => new Worker(__filename));
  await Promise.all(workers.map((worker) => exercise(worker, Math.ceil(JOBS / workers.length))));
  const before = process.cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, measurement.count(3) * 1000));
  const { user, system } = process.cpuUsage(before);
  measurement.report("cpu", (user + system) / 1000, "ms");
  process.exit();
}

if (isMainThread) main();
else parentPort.on("message", () => parentPort.postMessage(null));
