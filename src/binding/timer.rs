//! Natives of the JS family of timers.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use super::Natives;
use super::raw::timer::{TimerTables, timer_functions};
use crate::engine::clock::NANOS_PER_MS;
use crate::engine::{Delay, Id, Missed, Origin, Repeat};
use crate::vm::Vm;
use crate::vm::origin::capture;

/// Where the user's code is on the stack, past the native function, its guard and the Lua function that called it; in
/// the slow way of `setTimeout` the raw one comes first.
const CALLER: usize = 3;

/// The id and the slot of what was set, and how many arguments there are for its callback. No id: the delay is bad.
type Set = (Option<u64>, u32, usize);

pub fn add(natives: &Natives) -> Result<()> {
    natives.add("set_timeout", |lua, vm, (ms, arguments): (Value, MultiValue)| {
        set(lua, vm, delay(&ms), Repeat::Once, arguments.len())
    })?;
    natives.add("set_interval", |lua, vm, (ms, missed, arguments): (Value, mlua::LuaString, MultiValue)| {
        let missed = match &*missed.as_bytes() {
            b"burst" => Missed::Burst,
            b"delay" => Missed::Delay,
            _ => Missed::Skip,
        };
        set(lua, vm, delay(&ms).map(period), Repeat::Interval(missed), arguments.len())
    })?;
    natives.add("set_immediate", |lua, vm, arguments: MultiValue| {
        set(lua, vm, Some(Delay::Immediate), Repeat::Once, arguments.len())
    })?;
    let vm = Rc::clone(&natives.vm);
    let functions =
        natives.lua.create_function(
            move |lua,
                  (callbacks, overlapping, waiting, slow_set, slow_clear): (
                Table,
                Table,
                Table,
                Function,
                Function,
            )| {
                timer_functions(lua, &vm, TimerTables { callbacks, overlapping, waiting }, slow_set, slow_clear)
            },
        )?;
    natives.table.raw_set("timer_functions", functions)?;
    natives.add("set_wake", |_, vm, seconds: f64| {
        let (id, slot) = vm.set_timer(Delay::from_seconds(seconds), Repeat::Wake, Origin::default());
        (id.0, slot.0 + 1)
    })?;
    natives
        .add("clear", |_, vm, id: u64| vm.engine.borrow_mut().timers.clear(Id(id)).map(|cleared| cleared.slot.0 + 1))?;
    natives.add("slot", |_, vm, id: u64| vm.engine.borrow().timers.slot(Id(id)).map(|slot| slot.0 + 1))?;
    natives.add("set_ref", |_, vm, (id, referenced): (Value, bool)| {
        if let Some(id) = id_of(&id) {
            vm.engine.borrow_mut().timers.set_referenced(id, referenced);
        }
    })?;
    natives.add("has_ref", |_, vm, id: Value| {
        id_of(&id).and_then(|id| vm.engine.borrow().timers.is_referenced(id)).unwrap_or(false)
    })?;
    natives.add("refresh", |_, vm, id: Value| {
        let refreshed = id_of(&id).is_some_and(|id| vm.engine.borrow_mut().refresh(id));
        vm.arm_descriptor_outside_of_turns();
        refreshed
    })
}

fn set(lua: &Lua, vm: &Vm, delay: Option<Delay>, repeat: Repeat, arguments: usize) -> Set {
    let Some(delay) = delay else { return (None, 0, 0) };
    let origin = capture(&mut vm.origins.borrow_mut(), lua, CALLER);
    let (id, slot) = vm.set_timer(delay, repeat, origin);
    (Some(id.0), slot.0 + 1, arguments)
}

/// A missing delay is 0; NaN and what is no number are refused.
fn delay(ms: &Value) -> Option<Delay> {
    match *ms {
        Value::Integer(ms) => Some(Delay::from_ms(ms as f64)),
        Value::Number(ms) if !ms.is_nan() => Some(Delay::from_ms(ms)),
        Value::Nil => Some(Delay::After(0)),
        _ => None,
    }
}

/// An interval of 0 would never let go; as in browsers and Node it is one of 1 ms.
fn period(delay: Delay) -> Delay {
    match delay {
        Delay::After(0) => Delay::After(NANOS_PER_MS),
        other => other,
    }
}

fn id_of(id: &Value) -> Option<Id> {
    match *id {
        Value::Integer(id) => Id::from_number(id as f64),
        Value::Number(id) => Id::from_number(id),
        _ => None,
    }
}
