// Parallel: see parallel.lua. A worker for each core, each of which is sent the next job when it has done one.
//   node bench/parallel.js [ROUNDS]
"use strict";

const os = require("node:os");
const { Worker, isMainThread, parentPort } = require("node:worker_threads");
const measurement = require("./measurement.js");

const JOBS = 64;
const N = 27;
const RESULT = JOBS * 196418;

function fib(n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/** The seconds that `run` takes to get it right. */
async function seconds(run) {
  const start = measurement.now();
  if ((await run()) !== RESULT) throw new Error("wrong results");
  return measurement.now() - start;
}

function runSerially() {
  let sum = 0;
  for (let i = 0; i < JOBS; i++) sum += fib(N);
  return sum;
}

/** Runs all jobs on the workers; gives the sum of the results. */
function runInParallel(workers) {
  return new Promise((resolve) => {
    let [sent, received, sum] = [0, 0, 0];
    const next = (worker) => {
      if (sent++ < JOBS) worker.postMessage(N);
    };
    for (const worker of workers) {
      worker.removeAllListeners("message");
      worker.on("message", (result) => {
        sum += result;
        next(worker);
        if (++received === JOBS) resolve(sum);
      });
      next(worker);
    }
  });
}

async function main() {
  const workers = Array.from({ length: os.availableParallelism() }, () => new Worker(__filename));
  // Both sides are warmed up: the workers have to start, and V8 has to compile `fib` in each.
  runSerially();
  await runInParallel(workers);
  const [speedups, walls] = [[], []];
  for (let round = 0; round < measurement.count(9); round++) {
    const serial = await seconds(runSerially);
    walls.push(await seconds(() => runInParallel(workers)));
    speedups.push(serial / walls[round]);
  }
  measurement.report("speedup", measurement.median(speedups), "x");
  measurement.report("wall", measurement.median(walls) * 1000, "ms");
  process.exit();
}

if (isMainThread) main();
else parentPort.on("message", (n) => parentPort.postMessage(fib(n)));
