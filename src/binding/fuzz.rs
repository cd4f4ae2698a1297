//! Encoder and decoder as functions in the registry, for the spec that feeds broken messages to the decoder. In builds
//! with the feature `fuzz` only: whoever can call the decoder can have it run any bytecode.

use std::rc::Rc;

use mlua::{Lua, LuaString, Result, Table};

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
    lua.set_named_registry_value("scheduler.encode", lua.create_function(encoder)?)
}
