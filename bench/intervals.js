// Interval precision: see intervals.lua. By Node's rule a period counts from the last firing.
//   node bench/intervals.js [SECONDS]
"use strict";

const measurement = require("./measurement.js");

const INTERVALS = 100;
const PERIOD = 0.001;

const duration = measurement.count(3);
const starts = [];
const last = [];
const grid = [];
const own = [];

function fire(interval) {
  const time = measurement.now();
  grid.push((time - starts[interval]) % PERIOD);
  own.push(time - last[interval] - PERIOD);
  last[interval] = time;
}

function reportPercentiles(kind, samples) {
  samples.sort((a, b) => a - b);
  for (const p of [50, 99]) {
    measurement.report(`${kind}_p${p}`, measurement.percentile(samples, p / 100) * 1000, "ms");
  }
}

function finish() {
  const { user, system } = process.cpuUsage(cpuBefore);
  measurement.report("fired", grid.length / ((INTERVALS * duration) / PERIOD), "ratio");
  reportPercentiles("late", own);
  reportPercentiles("grid", grid);
  measurement.report("cpu", (user + system) / 1e6, "s");
  process.exit();
}

const cpuBefore = process.cpuUsage();
for (let interval = 0; interval < INTERVALS; interval++) {
  starts[interval] = last[interval] = measurement.now();
  setInterval(() => fire(interval), PERIOD * 1000);
}
setTimeout(finish, duration * 1000);
