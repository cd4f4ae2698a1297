//! How values cross between VMs: as bytes, which belong to no VM.
//!
//! A message is a list of values. Each begins with a tag; tables and Lua functions are numbered in the order in which
//! they begin, and a value that was sent already is sent as its number, so that cycles and shared references arrive as
//! such. The decoder has to keep those values at hand that are referred to; the head of the message names them, so that
//! it need not keep all.
//!
//! Bytecode crosses in this form, and bytecode can do anything: messages only ever come from this process.

use mlua::{Function, Lua, Table, Value};

pub use super::decode::decode;
pub use super::encode::encode;

/// What begins a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// `nil`.
    Nil,
    /// `false`.
    False,
    /// `true`.
    True,
    /// An integer: 8 bytes.
    Integer,
    /// A float: 8 bytes.
    Number,
    /// A string: its length in 8 bytes, then its bytes.
    String,
    /// A table: keys and values in turn, up to [`Tag::End`].
    Table,
    /// The end of a table.
    End,
    /// A function: its bytecode, the number of its upvalues, then these.
    Function,
    /// The table or function with this number.
    Reference,
    /// The table of globals: each VM's own.
    Globals,
}

impl Tag {
    /// The tag of a byte of a message.
    pub fn of(byte: u8) -> Option<Tag> {
        const TAGS: [Tag; 11] = [
            Tag::Nil,
            Tag::False,
            Tag::True,
            Tag::Integer,
            Tag::Number,
            Tag::String,
            Tag::Table,
            Tag::End,
            Tag::Function,
            Tag::Reference,
            Tag::Globals,
        ];
        TAGS.get(usize::from(byte)).copied()
    }
}

/// How deep tables and upvalues may be nested. Each level takes a few slots of mlua's auxiliary stack, which holds no
/// more than 8000 in Lua 5.1 and LuaJIT.
pub const MAX_DEPTH: usize = 1000;

/// What a VM needs to take functions apart and to put them together, found once: programs change their globals.
#[derive(Debug)]
pub struct Transfer {
    /// `debug.getupvalue`, where the host grants it.
    pub getupvalue: Option<Function>,
    /// `debug.setupvalue`.
    pub setupvalue: Option<Function>,
    /// The table of globals.
    pub globals: Table,
}

impl Transfer {
    /// That of a Lua state.
    pub fn new(lua: &Lua) -> mlua::Result<Self> {
        let globals = lua.globals();
        let debug: Option<Table> = globals.raw_get("debug")?;
        let field = |name| debug.as_ref().map_or(Ok(None), |debug| debug.raw_get::<Option<Function>>(name));
        Ok(Transfer { getupvalue: field("getupvalue")?, setupvalue: field("setupvalue")?, globals })
    }

    /// Whether this is the table of globals.
    pub fn is_globals(&self, value: &Table) -> bool {
        value.to_pointer() == self.globals.to_pointer()
    }

    /// The name and value of an upvalue; `None` past the last one.
    pub fn upvalue(&self, function: &Function, index: usize) -> mlua::Result<Option<(String, Value)>> {
        let Some(getupvalue) = &self.getupvalue else { return Ok(None) };
        let (name, value): (Option<mlua::LuaString>, Value) = getupvalue.call((function, index))?;
        Ok(name.map(|name| (name.to_string_lossy(), value)))
    }
}
