// Timers, create: see timers_create.lua.
//   node bench/timers_create.js [COUNT]
"use strict";

const measurement = require("./measurement.js");

const count = measurement.count(1000000);
const handles = new Array(count).fill(null);
const nothing = () => {};

// At the top level on purpose: inside of a function that is called once, V8 makes slower code of the loop.
const start = measurement.now();
for (let i = 0; i < count; i++) handles[i] = setTimeout(nothing, ((i % 1000) * 7919) % 1000);
measurement.report("create", count / (measurement.now() - start), "ops/s");
process.exit();
