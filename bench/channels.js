// Channels: see channels.lua. Messages to a worker. There is no bound to how many can be under way; so that memory
// stays within one, the worker reports each batch, and no more than two batches are under way.
//   node bench/channels.js
"use strict";

const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");
const measurement = require("./measurement.js");

const ROUNDS = 9;
const ROUND_TRIPS = 20000;
const MIB = 1024 * 1024;

/** Ten arrays of ten numbers. */
function numbers() {
  return Array.from({ length: 10 }, (_, i) => Array.from({ length: 10 }, (_, j) => i * 10 + j));
}

/** The same with ten fields each. */
function records() {
  return numbers().map((row) => Object.fromEntries(row.map((number, j) => [`field${j + 1}`, number])));
}

const kinds = [
  { name: "integer", value: 42, count: 300000, batch: 512 },
  { name: "string_1k", value: "x".repeat(1024), count: 100000, batch: 512 },
  { name: "table", value: numbers(), count: 20000, batch: 512 },
  { name: "records", value: records(), count: 20000, batch: 512 },
  { name: "string_1m", value: "x".repeat(MIB), count: 400, batch: 8 },
];

/** Sends an integer to the worker so many times, and waits each time until it comes back. */
function roundTrips(worker, count) {
  return new Promise((resolve) => {
    let i = 0;
    worker.removeAllListeners("message");
    worker.on("message", () => {
      if (++i === count) resolve();
      else worker.postMessage(i);
    });
    worker.postMessage(i);
  });
}

/** Sends all messages of a kind to the worker; ends when it has reported the last batch. */
function sendAll(worker, { value, count, batch }) {
  return new Promise((resolve) => {
    let [sent, reported] = [0, 0];
    const sendBatch = () => {
      for (let i = 0; i < batch && sent < count; i++, sent++) worker.postMessage(value);
    };
    worker.removeAllListeners("message");
    worker.on("message", (received) => {
      reported += received;
      sendBatch();
      if (reported === count) resolve();
    });
    sendBatch();
    sendBatch();
  });
}

async function measureRoundTrips() {
  const worker = new Worker(__filename, { workerData: { batch: 1, count: 1 } });
  const seconds = await measurement.medianTime(ROUNDS, () => roundTrips(worker, ROUND_TRIPS));
  measurement.report("round_trip", (seconds / ROUND_TRIPS) * 1e6, "us");
  await worker.terminate();
}

/** Resolves to how many bytes the process grew. */
async function measureOneWay(kind) {
  const worker = new Worker(__filename, { workerData: { batch: kind.batch, count: kind.count } });
  let first;
  const seconds = await measurement.medianTime(ROUNDS, async () => {
    await sendAll(worker, kind);
    first ??= process.memoryUsage.rss();
  });
  const last = process.memoryUsage.rss();
  await worker.terminate();
  measurement.report(kind.name, kind.count / seconds, "messages/s");
  return last - first;
}

async function main() {
  await measureRoundTrips();
  const grown = [];
  for (const kind of kinds) grown.push(await measureOneWay(kind));
  measurement.report("resident", process.memoryUsage.rss() / MIB, "MiB");
  measurement.report("grown", Math.max(...grown) / MIB, "MiB");
}

/** The worker reports each batch, and what is left of a round. */
function receive({ batch, count }) {
  let [received, unreported] = [0, 0];
  parentPort.on("message", () => {
    received++;
    if (++unreported < batch && received < count) return;
    parentPort.postMessage(unreported);
    unreported = 0;
    if (received === count) received = 0;
  });
}

if (isMainThread) main();
else receive(workerData);
