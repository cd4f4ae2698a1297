//! Values to what tables and channels store, and back.

use mlua::{Lua, Result, Table, Value};

use crate::vm::transfer::{HAS_INTEGERS, Transfer, decode, encode};
use crate::worker::shared::stored::{Scalar, Stored};

/// The value of a scalar.
pub fn scalar_to_lua(lua: &Lua, scalar: &Scalar) -> Result<Value> {
    Ok(match scalar {
        Scalar::Boolean(boolean) => Value::Boolean(*boolean),
        Scalar::Integer(integer) => Value::Integer(*integer),
        Scalar::Number(bits) => Value::Number(f64::from_bits(*bits)),
        Scalar::String(string) => Value::String(lua.create_string(string)?),
    })
}

/// The value that was stored.
pub fn to_lua(lua: &Lua, transfer: &Transfer, stored: Option<&Stored>) -> Result<Value> {
    match stored {
        None => Ok(Value::Nil),
        Some(Stored::Scalar(scalar)) => scalar_to_lua(lua, scalar),
        Some(Stored::Message(message)) => decode(lua, transfer, message)?.raw_get(1),
    }
}

/// A value in the form in which it is kept; nil is none. Fails with the reason if it cannot cross.
pub fn to_stored(
    lua: &Lua,
    transfer: &Transfer,
    value: &Value,
    is_negative_zero: bool,
) -> std::result::Result<Option<Stored>, String> {
    Ok(Some(Stored::Scalar(match value {
        Value::Nil => return Ok(None),
        Value::Integer(0) if !HAS_INTEGERS && is_negative_zero => Scalar::Number((-0.0_f64).to_bits()),
        Value::Boolean(_) | Value::Integer(_) | Value::Number(_) | Value::String(_) => {
            plain(value).ok_or("it is no scalar")?
        }
        _ => {
            let values: Table = lua.create_sequence_from([value]).map_err(|error| error.to_string())?;
            let message = encode(lua, transfer, "value", &values, 1)
                .map_err(|refused| refused.to_string().replacen("value #1", "the value", 1))?;
            return Ok(Some(Stored::Message(message)));
        }
    })))
}

/// A value without anything in it, as it is.
pub fn plain(value: &Value) -> Option<Scalar> {
    match value {
        // Floats stay floats.
        Value::Number(number) => Some(Scalar::Number(number.to_bits())),
        value => scalar(value),
    }
}

/// The same as a key. What is equal in Lua is equal here: floats that are whole are integers.
pub fn scalar(value: &Value) -> Option<Scalar> {
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
