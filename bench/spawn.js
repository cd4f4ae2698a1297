// Spawn: see spawn.lua. A task is the call of an async function, and all of them are awaited: a call whose promise
// nobody looks at is no task, since V8 compiles it to what it would be without `async`.
//   node bench/spawn.js [COUNT]
"use strict";

const measurement = require("./measurement.js");

const count = measurement.count(1000000);
const tasks = [];
let ran = 0;

async function task() {
  ran++;
}

function finish() {
  const seconds = measurement.now() - start;
  if (ran !== count) throw new Error(`only ${ran} of ${count} tasks have run`);
  measurement.report("spawn", count / seconds, "ops/s");
}

const start = measurement.now();
for (let i = 0; i < count; i++) tasks.push(task());
Promise.all(tasks).then(finish);
