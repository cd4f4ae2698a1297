//! Natives for the parts that look inside: `tasks`, `deadlock`, `watchdog`. They are made when one of those is loaded.

use std::rc::Rc;
use std::time::Duration;

use mlua::Result;

use super::{Natives, raw};
use crate::engine::clock::NANOS_PER_SECOND;
use crate::engine::{Id, Nanos, Origin};

/// Adds the native `looking`, which returns a table of the others.
pub fn add(natives: &Natives) -> Result<()> {
    let vm = Rc::clone(&natives.vm);
    let looking = natives.lua.create_function(move |lua, ()| {
        let natives = Natives { lua, vm: Rc::clone(&vm), table: lua.create_table()? };
        add_natives(&natives)?;
        // Those that are not raw have to be guarded before the raw ones are there.
        raw::guard_functions(lua, &vm, &natives.table)?;
        raw::watch::add_functions(lua, &vm, &natives.table)?;
        Ok(natives.table)
    })?;
    natives.table.raw_set("looking", looking)
}

fn add_natives(natives: &Natives) -> Result<()> {
    natives.add("place", |_, vm, origin: f64| vm.origins.borrow().place(Origin(origin as u64)))?;
    // When what is there began, on the clock of `time`.
    natives.add("began", |_, _, origin: f64| Origin(origin as u64).time().map(|began| began as f64))?;
    natives.add("time_left", |_, vm, id: u64| {
        let engine = vm.engine.borrow();
        let left = |deadline: Nanos| deadline.saturating_sub(engine.clock.now()) as f64 / NANOS_PER_SECOND as f64;
        engine.timers.deadline(Id(id)).map(|deadline| deadline.map_or(f64::INFINITY, left))
    })?;
    natives.add("has_deadline", |_, vm, ()| vm.engine.borrow().next_deadline().is_some())?;
    natives.add("watch_limit", |_, vm, seconds: Option<f64>| {
        vm.watch.set_limit(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)));
    })?;
    natives.add("watch_step", |_, vm, is_idle: Option<bool>| {
        vm.watch.step(is_idle.unwrap_or(false)).map(|held| held.as_secs_f64())
    })
}
