//! Natives of the JS family of timers.

use std::rc::Rc;

use mlua::{Function, Result, Table, Value};

use super::Natives;
use super::raw::timer::{TimerTables, timer_functions};
use crate::engine::Id;

pub fn add(natives: &Natives) -> Result<()> {
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

fn id_of(id: &Value) -> Option<Id> {
    match *id {
        Value::Integer(id) => Id::from_number(id as f64),
        Value::Number(id) => Id::from_number(id),
        _ => None,
    }
}
