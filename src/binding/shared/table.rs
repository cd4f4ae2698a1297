//! Natives of `scheduler.shared.table`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Result, Table, Value};

use super::super::Natives;
use super::{Dictionary, This, from_handle};
use crate::vm::transfer::{HAS_INTEGERS, Transfer, decode, encode};
use crate::worker::Handle;
use crate::worker::shared::table::{Scalar, Stored, Table as Shared};

/// What the natives say, as `lua/shared.lua` knows it: it is done, an argument is wrong, a value cannot cross, it was
/// called by an update's function, that function has raised.
const DONE: i64 = 0;
const BAD_ARGUMENT: i64 = 1;
const REFUSED: i64 = 2;
const NESTED: i64 = 3;
const RAISED: i64 = 4;

pub fn add(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    natives.add("new_table", |lua, _, ()| from_handle(lua, Handle::Table(Arc::new(Shared::new()))).ok())?;
    natives.add("table_count", |_, _, this: This<Dictionary>| Some(this.left()?.0.len()))?;
    natives.add("table_keys", |lua, _, this: This<Dictionary>| {
        let keys = this.left()?.0.keys().into_iter().map(|key| scalar_to_lua(lua, &key));
        lua.create_sequence_from(keys.collect::<Result<Vec<_>>>().ok()?).ok()
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

/// A value without anything in it. What is equal in Lua is equal here: floats that are whole are integers.
fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Boolean(boolean) => Some(Scalar::Boolean(*boolean)),
        Value::Integer(integer) => Some(Scalar::Integer(*integer)),
        Value::Number(number) if number.is_nan() => None,
        Value::Number(number) if *number as i64 as f64 == *number && *number < i64::MAX as f64 => {
            Some(Scalar::Integer(*number as i64))
        }
        Value::Number(number) => Some(Scalar::Number(number.to_bits())),
        Value::String(string) => Some(Scalar::String(string.as_bytes().to_vec().into())),
        _ => None,
    }
}

fn scalar_to_lua(lua: &Lua, scalar: &Scalar) -> Result<Value> {
    Ok(match scalar {
        Scalar::Boolean(boolean) => Value::Boolean(*boolean),
        Scalar::Integer(integer) => Value::Integer(*integer),
        Scalar::Number(bits) => Value::Number(f64::from_bits(*bits)),
        Scalar::String(string) => Value::String(lua.create_string(string)?),
    })
}

fn to_lua(lua: &Lua, transfer: &Transfer, stored: Option<&Stored>) -> Result<Value> {
    match stored {
        None => Ok(Value::Nil),
        Some(Stored::Scalar(scalar)) => scalar_to_lua(lua, scalar),
        Some(Stored::Message(message)) => decode(lua, transfer, message)?.raw_get(1),
    }
}

/// A value in the form in which it is kept; nil is none. Fails with the reason if it cannot cross.
fn to_stored(
    lua: &Lua,
    transfer: &Transfer,
    value: &Value,
    is_negative_zero: bool,
) -> std::result::Result<Option<Stored>, String> {
    Ok(Some(Stored::Scalar(match value {
        Value::Nil => return Ok(None),
        Value::Integer(0) if !HAS_INTEGERS && is_negative_zero => Scalar::Number((-0.0_f64).to_bits()),
        // Floats stay floats.
        Value::Number(number) => Scalar::Number(number.to_bits()),
        Value::Boolean(_) | Value::Integer(_) | Value::String(_) => scalar(value).ok_or("it is no scalar")?,
        _ => {
            let values: Table = lua.create_sequence_from([value]).map_err(|error| error.to_string())?;
            let message = encode(lua, transfer, "value", &values, 1)
                .map_err(|refused| refused.to_string().replacen("value #1", "the value", 1))?;
            return Ok(Some(Stored::Message(message)));
        }
    })))
}
