//! Encoder and decoder as functions in the registry, for the spec that feeds broken messages to the decoder, and lets
//! both run out of memory. In builds with the feature `fuzz` only: whoever can call the decoder can have it run any
//! bytecode.

use std::rc::Rc;

use mlua::{Lua, LuaString, Result, Table};

use crate::vm::memory::limit_memory;
use crate::vm::transfer::{Transfer, decode, encode};
use crate::worker::Message;

pub fn add(lua: &Lua, transfer: &Rc<Transfer>) -> Result<()> {
    let for_decode = Rc::clone(transfer);
    let decoder =
        move |lua: &Lua, message: LuaString| decode(lua, &for_decode, &Message::from(message.as_bytes().to_vec()));
    lua.set_named_registry_value("scheduler.decode", lua.create_function(decoder)?)?;
    let for_encode = Rc::clone(transfer);
    let encoder = move |lua: &Lua, values: Table| {
        let message = encode(lua, &for_encode, "value", &values, values.raw_get("n")?);
        message.map_err(mlua::Error::runtime).and_then(|message| lua.create_string(message.bytes))
    };
    lua.set_named_registry_value("scheduler.encode", lua.create_function(encoder)?)?;
    let for_both = Rc::clone(transfer);
    let cross = move |lua: &Lua, (values, bytes): (Table, usize)| {
        limit_memory(lua, lua.used_memory() + bytes)?;
        let crossed = encode(lua, &for_both, "value", &values, values.raw_get("n").unwrap_or(0))
            .map_err(|refused| refused.to_string())
            .and_then(|message| decode(lua, &for_both, &message).map_err(|error| error.to_string()));
        limit_memory(lua, usize::MAX)?;
        Ok(match crossed {
            Ok(values) => (Some(values), None),
            Err(reason) => (None, Some(reason)),
        })
    };
    lua.set_named_registry_value("scheduler.cross_within", lua.create_function(cross)?)
}
