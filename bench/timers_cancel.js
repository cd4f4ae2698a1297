// Timers, cancel: see timers_cancel.lua.
//   node bench/timers_cancel.js [COUNT]
"use strict";

const measurement = require("./measurement.js");

const count = measurement.count(1000000);
const handles = new Array(count).fill(null);
const nothing = () => {};
for (let i = 0; i < count; i++) handles[i] = setTimeout(nothing, ((i % 1000) * 7919) % 1000);

const start = measurement.now();
for (let i = 0; i < count; i++) clearTimeout(handles[i]);
measurement.report("cancel", count / (measurement.now() - start), "ops/s");
process.exit();
