// What Node's workloads have in common; see measurement.lua.
"use strict";

const { performance } = require("node:perf_hooks");

/** One line for the runner. */
function report(name, value, unit) {
  process.stdout.write(`${name}\t${value}\t${unit}\n`);
}

/** Seconds since some moment in the past. */
function now() {
  return performance.now() / 1000;
}

/** The value below which the share `p` of `sorted` lies. */
function percentile(sorted, p) {
  return sorted[Math.max(1, Math.ceil(p * sorted.length)) - 1];
}

/** The middle one of an odd number of values. */
function median(values) {
  return percentile([...values].sort((a, b) => a - b), 0.5);
}

/** The median of the seconds that each of so many calls takes, after one that is not measured. */
async function medianTime(rounds, fn) {
  await fn();
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const start = now();
    await fn();
    times.push(now() - start);
  }
  return median(times);
}

/** The count on the command line. */
function count(otherwise) {
  return Number(process.argv[2]) || otherwise;
}

module.exports = { count, median, medianTime, now, percentile, report };
