// Sleepers: see sleepers.lua. A sleep is a promise that a timer resolves.
//   node bench/sleepers.js [COUNT]
"use strict";

const measurement = require("./measurement.js");

const MILLION = 1000000;
const LONGEST = 0.999; // seconds that the last ones sleep

const count = measurement.count(MILLION);
let awake = 0;

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function sleepOnce(ms) {
  await sleep(ms);
  if (++awake === count) finish();
}

function finish() {
  const seconds = measurement.now() - start;
  measurement.report("wall", LONGEST + ((seconds - LONGEST) * MILLION) / count, "s");
  measurement.report("bytes", (asleep - before) / count, "B");
}

const before = process.memoryUsage().rss;
const start = measurement.now();
for (let i = 0; i < count; i++) sleepOnce(((i % 1000) * 7919) % 1000);
const asleep = process.memoryUsage().rss;
