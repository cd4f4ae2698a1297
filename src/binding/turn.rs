//! Natives of the loop: turns, parking, counters.

use std::io::Write;

use mlua::{Function, Lua, LuaString, Result, Table};

use super::raw::task::new_task_function;
use super::{Natives, job, pool};
use crate::engine::clock::{NANOS_PER_MS, NANOS_PER_SECOND};
use crate::engine::{Histogram, Nanos, Origin, Work};
use crate::vm::Vm;
use crate::worker::shared;

/// The kinds of work, as `lua/loop.lua` knows them.
const ONCE: i64 = 1;
const INTERVAL: i64 = 2;
const WAKE: i64 = 3;

pub fn add(natives: &Natives) -> Result<()> {
    natives.table.raw_set("ONCE", ONCE)?;
    natives.table.raw_set("INTERVAL", INTERVAL)?;
    natives.table.raw_set("WAKE", WAKE)?;

    natives.add("take_lost_jobs", |_, vm, ()| vm.take_lost_jobs())?;
    natives.add("begin_immediates", |_, vm, ()| vm.engine.borrow_mut().begin_immediates())?;
    natives.add("is_out_of_time", |_, vm, ()| vm.engine.borrow_mut().is_out_of_time())?;
    natives.add("end_turn", |_, vm, ()| vm.engine.borrow_mut().end_turn())?;
    natives.add("stop", |_, vm, ()| vm.engine.borrow_mut().stop())?;
    natives.add("is_alive", |_, vm, ()| vm.is_alive())?;
    natives.add("park", |_, vm, ()| job::park(vm).err().map(|error| error.to_string()))?;
    natives.add("poll_again", |_, vm, has_work: bool| {
        vm.arm_descriptor();
        let wait_ms = match has_work {
            true => Some(0.0),
            false => vm.time_to_next_turn().map(|wait| wait.as_secs_f64() * 1e3),
        };
        (has_work || vm.is_alive(), wait_ms)
    })?;
    natives.add("fd", |_, vm, ()| match vm.descriptor() {
        Ok(descriptor) => (Some(descriptor), None),
        Err(error) => (None, Some(error.to_string())),
    })?;
    natives.add("raise", |_, vm, ()| vm.raise_descriptor())?;
    natives.add("now", |_, vm, ()| vm.engine.borrow().now() as f64 / NANOS_PER_MS as f64)?;
    natives.add("time", |_, vm, ()| vm.engine.borrow().clock.now() as f64)?;
    natives.add("set_room", |_, vm, has_room: bool| vm.has_room.set(has_room))?;
    natives.add("discard", |_, vm, ()| vm.discard())?;

    natives.add("fired_origin", |_, vm, ()| vm.fired().at_time(vm.engine.borrow().now()).0 as f64)?;
    natives.add("promise_origin", |_, _, origin: f64| Origin(origin as u64).of_promise().0 as f64)?;
    natives.add("describe", |_, vm, origin: f64| vm.origins.borrow().describe(Origin(origin as u64)))?;
    natives.add("write_stderr", |_, _, text: LuaString| {
        // There is nobody to tell that the message could not be written.
        let _ = std::io::stderr().lock().write_all(&text.as_bytes());
    })?;
    let task_maker = natives.lua.create_function(|lua, (body, body_with_arguments): (Function, Function)| {
        new_task_function(lua, body, body_with_arguments)
    })?;
    natives.table.raw_set("task_maker", task_maker)?;
    let stats = natives.lua.create_function({
        let vm = std::rc::Rc::clone(&natives.vm);
        move |lua, ()| stats(lua, &vm)
    })?;
    natives.table.raw_set("stats", stats)
}

/// Work as its kind and its slot. Slots begin with 1 in Lua, so that they lie in the array part of a table.
pub fn number(work: Work) -> (i64, u32) {
    match work {
        Work::Callback(fired) => (if fired.again { INTERVAL } else { ONCE }, fired.slot.0 + 1),
        Work::Wake(slot) => (WAKE, slot.0 + 1),
    }
}

fn stats(lua: &Lua, vm: &Vm) -> Result<Table> {
    let table = lua.create_table()?;
    let engine = vm.engine.borrow();
    let counters = engine.counters;
    table.raw_set("turns", counters.turns)?;
    table.raw_set("turn", distribution(lua, &engine.meters.turn)?)?;
    table.raw_set("lag", distribution(lua, &engine.meters.lag)?)?;
    table.raw_set("timers_pending", engine.timers.len())?;
    table.raw_set("timers_fired", counters.timers_fired)?;
    table.raw_set("immediates_run", counters.immediates)?;
    table.raw_set("completions", vm.completions_taken())?;
    table.raw_set("jobs_pending", vm.jobs_in_flight())?;
    table.raw_set("tasks_waiting", vm.channels.waits())?;
    table.raw_set("jobs_sent", vm.jobs_sent())?;
    table.raw_set("workers", pool::default().figures().workers)?;
    table.raw_set("pool", pool::figures(lua, pool::default())?)?;
    table.raw_set("shared", shared::count())?;
    Ok(table)
}

/// Spans of time as users see them, in seconds.
pub fn distribution(lua: &Lua, histogram: &Histogram) -> Result<Table> {
    let seconds = |nanos: Nanos| nanos as f64 / NANOS_PER_SECOND as f64;
    let table = lua.create_table()?;
    table.raw_set("count", histogram.count())?;
    table.raw_set("mean", seconds(histogram.mean()))?;
    table.raw_set("p50", seconds(histogram.percentile(0.5)))?;
    table.raw_set("p99", seconds(histogram.percentile(0.99)))?;
    table.raw_set("max", seconds(histogram.longest()))?;
    Ok(table)
}
