// Promises: see promises.lua.
//   node bench/promises.js [COUNT]
"use strict";

const v8 = require("node:v8");
const vm = require("node:vm");
const measurement = require("./measurement.js");

const BATCH = 1000;
const LINKS = 1000;
const GATHERED = 10000;
const PENDING = 100000;

const count = measurement.count(1000000);

function resolveAtOnce(resolve) {
  resolve(1);
}

function doNothing() {}

function expect(what, expected, got) {
  if (got !== expected) throw new Error(`${what}: expected ${expected}, got ${got}`);
}

/** Handlers run in order: when the last one has, all have. */
async function settle() {
  let sum = 0;
  const add = (value) => {
    sum += value;
  };
  for (let batch = 0; batch < count / BATCH; batch++) {
    let last;
    for (let i = 0; i < BATCH; i++) last = new Promise(resolveAtOnce).then(add);
    await last;
  }
  expect("settle", count, sum);
}

async function chain() {
  let sum = 0;
  const addOne = (value) => value + 1;
  for (let done = 0; done < count; done += LINKS) {
    let link = Promise.resolve(0);
    for (let i = 0; i < LINKS; i++) link = link.then(addOne);
    sum += await link;
  }
  expect("chain", count, sum);
}

async function awaitSettled() {
  let sum = 0;
  const settled = Array.from({ length: BATCH }, () => Promise.resolve(1));
  for (let i = 0; i < count; i++) sum += await settled[i % BATCH];
  expect("await", count, sum);
}

async function all() {
  let sum = 0;
  for (let done = 0; done < count; done += GATHERED) {
    const list = [];
    for (let i = 0; i < GATHERED; i++) list.push(new Promise(resolveAtOnce));
    sum += (await Promise.all(list)).length;
  }
  expect("all", count, sum);
}

/** The garbage collector, as `--expose-gc` would offer it: the runner passes no flags. */
function collector() {
  v8.setFlagsFromString("--expose-gc");
  return vm.runInNewContext("gc");
}

function bytes() {
  const collect = collector();
  const kept = new Array(PENDING).fill(null);
  collect();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < PENDING; i++) kept[i] = new Promise(doNothing);
  collect();
  const after = process.memoryUsage().heapUsed;
  expect("bytes", true, kept[PENDING - 1] instanceof Promise); // all have been kept until here
  return (after - before) / PENDING;
}

async function rate(run) {
  const start = measurement.now();
  await run();
  return count / (measurement.now() - start);
}

async function main() {
  measurement.report("settle", await rate(settle), "ops/s");
  measurement.report("chain", await rate(chain), "ops/s");
  measurement.report("await", await rate(awaitSettled), "ops/s");
  measurement.report("all", await rate(all), "ops/s");
  measurement.report("bytes", bytes(), "B");
}

main();
