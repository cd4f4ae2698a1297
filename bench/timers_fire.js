// Timers, fire: see timers_fire.lua.
//   node bench/timers_fire.js [COUNT]
"use strict";

const measurement = require("./measurement.js");

const count = measurement.count(1000000);
let fired = 0;

const start = measurement.now();

function fire() {
  fired++;
  if (fired === count) measurement.report("fire", count / (measurement.now() - start), "ops/s");
}

for (let i = 0; i < count; i++) setTimeout(fire, i % 11);
