//! Natives of `scheduler.shared.table`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Result, Value};

use super::super::Natives;
use super::stored::{scalar, scalar_to_lua, to_lua, to_stored};
use super::{Dictionary, This, from_handle};
use crate::vm::transfer::Transfer;
use crate::worker::Handle;
use crate::worker::shared::Table as Shared;

/// What the natives say, as `lua/shared.lua` knows it: it is done, an argument is wrong, a value cannot cross, it was
/// called by an update's function, that function has raised.
const DONE: i64 = 0;
const BAD_ARGUMENT: i64 = 1;
const REFUSED: i64 = 2;
const NESTED: i64 = 3;
const RAISED: i64 = 4;

pub fn add(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    natives.add_raising("new_table", |lua, _, ()| from_handle(lua, Handle::Table(Arc::new(Shared::new()))))?;
    natives.add("table_count", |_, _, this: This<Dictionary>| Some(this.left()?.0.len()))?;
    natives.add_raising("table_keys", |lua, _, this: This<Dictionary>| {
        let Some(this) = this.left() else { return Ok(None) };
        let keys = this.0.keys().into_iter().map(|key| scalar_to_lua(lua, &key));
        lua.create_sequence_from(keys.collect::<Result<Vec<_>>>()?).map(Some)
    })?;
    let getter = Rc::clone(transfer);
    natives.add("table_get", move |lua, _, (this, key): (This<Dictionary>, Value)| {
        let (Some(this), Some(key)) = (this.left(), scalar(&key)) else { return (BAD_ARGUMENT, Value::Nil) };
        match to_lua(lua, &getter, this.0.get(&key).as_deref()) {
            Ok(value) => (DONE, value),
            Err(error) => (REFUSED, message(lua, &error.to_string())),
        }
    })?;
    let is_updating = Rc::new(Cell::new(false));
    add_set(natives, Rc::clone(transfer), Rc::clone(&is_updating))?;
    add_update(natives, Rc::clone(transfer), is_updating)
}

fn add_set(natives: &Natives, transfer: Rc<Transfer>, is_updating: Rc<Cell<bool>>) -> Result<()> {
    type Arguments = (This<Dictionary>, Value, Value, bool);
    natives.add("table_set", move |lua, _, (this, key, value, is_negative_zero): Arguments| {
        let (Some(this), Some(key)) = (this.left(), scalar(&key)) else { return (BAD_ARGUMENT, Value::Nil) };
        // Its own update would be waited for for ever.
        if is_updating.get() {
            return (NESTED, Value::Nil);
        }
        match to_stored(lua, &transfer, &value, is_negative_zero) {
            Ok(value) => (DONE, Value::Boolean(this.0.set(key, value))),
            Err(refused) => (REFUSED, message(lua, &refused)),
        }
    })
}

fn add_update(natives: &Natives, transfer: Rc<Transfer>, is_updating: Rc<Cell<bool>>) -> Result<()> {
    // `run(fn, value)` returns whether `fn` has returned, what or its error, and whether that is -0. It raises nothing.
    type Arguments = (This<Dictionary>, Value, Function, Value);
    let update = move |lua: &Lua, (this, key, run, function): Arguments| -> Result<MultiValue> {
        let (Some(this), Some(key)) = (this.left(), scalar(&key)) else { return BAD_ARGUMENT.into_lua_multi(lua) };
        if is_updating.get() {
            return NESTED.into_lua_multi(lua);
        }
        let update = this.0.update(key);
        let _updating = Updating::begin(&is_updating);
        let value = match to_lua(lua, &transfer, update.value.as_deref()) {
            Ok(value) => value,
            Err(error) => return (REFUSED, message(lua, &error.to_string())).into_lua_multi(lua),
        };
        let (has_returned, result, is_negative_zero): (bool, Value, bool) = run.call((function, value))?;
        if !has_returned {
            return (RAISED, result).into_lua_multi(lua);
        }
        match to_stored(lua, &transfer, &result, is_negative_zero) {
            Ok(value) => update.finish(value),
            Err(refused) => return (REFUSED, message(lua, &refused)).into_lua_multi(lua),
        }
        (DONE, result).into_lua_multi(lua)
    };
    natives.table.raw_set("table_update", natives.lua.create_function(update)?)
}

/// Notes that the function of an update runs, however it ends.
struct Updating<'a>(&'a Cell<bool>);

impl<'a> Updating<'a> {
    fn begin(is_updating: &'a Cell<bool>) -> Self {
        is_updating.set(true);
        Updating(is_updating)
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn message(lua: &Lua, text: &str) -> Value {
    lua.create_string(text).map_or(Value::Nil, Value::String)
}
