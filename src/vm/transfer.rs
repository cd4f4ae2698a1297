//! How values cross between VMs: as bytes, which belong to no VM.
//!
//! Tables, functions and userdata are objects, which are numbered in the order in which they are found. A message is
//!
//! 1. the number of objects, and the length of what follows up to the heads;
//! 2. the values: how many, then each;
//! 3. the body of each object in turn: what is in it;
//! 4. the head of each object in turn: what is needed to make it, empty.
//!
//! Wherever an object stands in a value or in another object, its number stands in the message. So cycles and shared
//! references arrive as such, and however deep objects are nested, neither side ever calls itself.
//!
//! Objects are kept in Lua tables on both sides: mlua holds a limited number of handles only. The plain cases, values,
//! tables and Lua functions, are in `raw/`; what takes Lua code to find out or to make is in `encode.rs` and
//! `decode.rs`, which let `raw/` go on from there.
//!
//! Bytecode crosses in this form, and bytecode can do anything: messages only ever come from this process. What is in a
//! message besides is checked as it is read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

use mlua::{Function, Lua, LuaString, Table, Value};

use super::functions::Functions;
use super::raw::build::{self, MOST_CLEARED};
use super::raw::walk::{self, Walk};
use crate::worker::Handle;

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
    /// An object: its number in 4 bytes.
    Object,
    /// The table of globals: each VM's own.
    Globals,
    /// The end of a table.
    End,
    /// In a function's body: the upvalue is the one of another function, whose number and index follow, 4 bytes each.
    Shared,
}

impl Tag {
    /// The tag of a byte of a message.
    pub fn of(byte: u8) -> Option<Tag> {
        const TAGS: [Tag; 10] = [
            Tag::Nil,
            Tag::False,
            Tag::True,
            Tag::Integer,
            Tag::Number,
            Tag::String,
            Tag::Object,
            Tag::Globals,
            Tag::End,
            Tag::Shared,
        ];
        TAGS.get(usize::from(byte)).copied()
    }
}

/// What an object is. In its head follows what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A table: how long its list is, and how many other fields it has, 4 bytes each. Its body: its metatable or nil,
    /// the values of the list up to [`Tag::End`], then keys and values in turn up to another one.
    Table,
    /// A Lua function: the index of its bytecode, 4 bytes. Its body: the number of its upvalues, 4 bytes, then these.
    Function,
    /// A C function: the name of the module that has it, and under which name. No body.
    CFunction,
    /// A loaded module: the name that `require` is called with, and the type of the module. No body.
    Module,
    /// Something of this module's own, `task.wait` say: its name. No body.
    Own,
    /// What a function of the sender makes on the other side: the indices of the first of its handles and of the first
    /// of its bytecodes, 4 bytes each, and a message with the function and its arguments. No body.
    Rebuilt,
    /// What crosses by reference: the index of its handle, 4 bytes. No body.
    Shared,
    /// A Lua function without upvalues but its globals and itself: the index of its bytecode, 4 bytes, and which of its
    /// upvalues these two are, a byte each, 0 for none. No body.
    Plain,
}

impl Kind {
    /// The kind of a byte of a message.
    pub fn of(byte: u8) -> Option<Kind> {
        const KINDS: [Kind; 8] = [
            Kind::Table,
            Kind::Function,
            Kind::CFunction,
            Kind::Module,
            Kind::Own,
            Kind::Rebuilt,
            Kind::Shared,
            Kind::Plain,
        ];
        KINDS.get(usize::from(byte)).copied()
    }
}

/// How deep userdata may be nested that are rebuilt from userdata.
pub const MAX_REBUILDS: usize = 16;

/// Where Lua has one number type, mlua gives whole numbers as integers, and so loses the sign of -0.
pub const HAS_INTEGERS: bool = !cfg!(any(feature = "lua51", feature = "lua52", feature = "luajit"));

/// The modules of the interpreter, in which names of C functions are looked for first. Others may hold the same ones.
const STANDARD: [&[u8]; 14] = [
    b"_G",
    b"bit",
    b"bit32",
    b"coroutine",
    b"debug",
    b"ffi",
    b"io",
    b"jit",
    b"math",
    b"os",
    b"package",
    b"string",
    b"table",
    b"utf8",
];

/// Calls functions with lists in the place of arguments or results; a list has its length in `n`.
const CALLS: &str = "
    local unpack = table.unpack or unpack
    local pack = table.pack or function(...) return { n = select('#', ...), ... } end
    return function(fn, ...) return pack(fn(...)) end, function(list) return list[1](unpack(list, 2, list.n)) end
";

/// A module, and a field in it.
type FieldName = (Vec<u8>, Vec<u8>);

/// Gives the handle of a userdata of ours that crosses by reference.
pub type ToHandle = fn(&Lua, &Value) -> Option<Handle>;

/// Makes the userdata of a handle.
pub type FromHandle = fn(&Lua, Handle) -> mlua::Result<Value>;

/// What a VM needs to take values apart and to put them together, found once: programs change their globals.
#[derive(Debug)]
pub struct Transfer {
    /// `debug.getupvalue`, where the host grants it.
    pub getupvalue: Option<Function>,
    /// Whether the host grants `debug.setupvalue`.
    pub grants_setupvalue: bool,
    /// `debug.getmetatable`.
    getmetatable: Option<Function>,
    /// Calls a function, and returns the list of its results.
    pub call: Function,
    /// Calls the function that a list begins with, with the rest of the list.
    pub apply: Function,
    require: Option<Function>,
    /// `package.loaded`.
    loaded: Option<Table>,
    /// The table of globals.
    pub globals: Table,
    /// The functions and tables of this module, with their names: `lua/init.lua` fills it.
    pub own: Table,
    /// See [`ToHandle`].
    pub to_handle: ToHandle,
    /// See [`FromHandle`].
    pub from_handle: FromHandle,
    /// The module and the field in which a C function was found.
    names: RefCell<HashMap<*const c_void, FieldName>>,
    /// From C functions to module and field, as they stand in a head: where those are found that were sent before.
    pub named: Table,
    /// The functions that were sent and received.
    pub functions: Functions,
    /// The entries of `raw/`.
    pub walk: Function,
    pub build: Function,
    /// Empty ones, for the next message.
    spare_objects: RefCell<Option<Table>>,
    spare_walk: RefCell<Option<Box<Walk>>>,
}

impl Transfer {
    /// That of a Lua state.
    pub fn new(lua: &Lua, to_handle: ToHandle, from_handle: FromHandle) -> mlua::Result<Self> {
        let globals = lua.globals();
        let debug: Option<Table> = globals.raw_get("debug")?;
        let field = |name| debug.as_ref().map_or(Ok(None), |debug| debug.raw_get::<Option<Function>>(name));
        let package: Option<Table> = globals.raw_get("package")?;
        let (call, apply) = lua.load(CALLS).set_name("=[scheduler]/transfer").call(())?;
        let require: Option<Function> = globals.raw_get("require")?;
        let loaded: Option<Table> = package.map_or(Ok(None), |package| package.raw_get("loaded"))?;
        let loadable = loaded.as_ref().filter(|_| require.is_some());
        let (own, named, functions) = (lua.create_table()?, weak_table(lua)?, Functions::new(lua)?);
        Ok(Transfer {
            walk: walk::entry(lua, &own, loadable, &functions.sent, &named)?,
            build: build::entry(lua, &globals, loadable, &functions.received)?,
            call,
            apply,
            getupvalue: field("getupvalue")?,
            grants_setupvalue: field("setupvalue")?.is_some(),
            getmetatable: field("getmetatable")?,
            require,
            loaded,
            globals,
            own,
            to_handle,
            from_handle,
            names: RefCell::default(),
            named,
            functions,
            spare_objects: RefCell::default(),
            spare_walk: RefCell::default(),
        })
    }

    /// A table for the objects of a message.
    pub fn take_objects(&self, lua: &Lua) -> mlua::Result<Table> {
        self.spare_objects.take().map_or_else(|| lua.create_table(), Ok)
    }

    /// Gives the table back, which was cleared if there were few.
    pub fn give_objects(&self, objects: Table, count: usize) {
        if count <= MOST_CLEARED {
            self.spare_objects.replace(Some(objects));
        }
    }

    /// What takes values apart.
    pub fn take_walk(&self) -> Box<Walk> {
        self.spare_walk.take().unwrap_or_default()
    }

    /// Gives it back; it is kept if it is small.
    pub fn give_walk(&self, walk: Box<Walk>) {
        if walk.is_small() {
            self.spare_walk.replace(Some(walk));
        }
    }

    /// The name and value of an upvalue; `None` past the last one.
    pub fn upvalue(&self, function: &Function, index: usize) -> mlua::Result<Option<(String, Value)>> {
        let Some(getupvalue) = &self.getupvalue else { return Ok(None) };
        let (name, value): (Option<LuaString>, Value) = getupvalue.call((function, index))?;
        Ok(name.map(|name| (name.to_string_lossy(), value)))
    }

    /// The `__transfer` of a userdata or table: a function, or what it is called that does not cross.
    pub fn custom(&self, value: &Value) -> mlua::Result<Value> {
        let Some(getmetatable) = &self.getmetatable else { return Ok(Value::Nil) };
        match getmetatable.call::<Value>(value)? {
            Value::Table(metatable) => metatable.raw_get("__transfer"),
            _ => Ok(Value::Nil),
        }
    }

    /// `package.loaded`, if `require` is there.
    fn loadable(&self) -> Option<&Table> {
        self.loaded.as_ref().filter(|_| self.require.is_some())
    }

    /// The name under which `require` gives a value, the first if there are several.
    pub fn module_name(&self, value: &Value) -> mlua::Result<Option<Vec<u8>>> {
        let (address, mut found) = (value.to_pointer(), None);
        let Some(loaded) = self.loadable() else { return Ok(None) };
        loaded.for_each(|name: Value, module: Value| {
            if let (Value::String(name), true) = (name, module.to_pointer() == address) {
                let name = name.as_bytes().to_vec();
                if found.as_ref().is_none_or(|found| name < *found) {
                    found = Some(name);
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// What this module has under a name.
    pub fn own_value(&self, lua: &Lua, name: &[u8]) -> mlua::Result<Value> {
        let mut value = self.module(lua, b"scheduler")?;
        for part in name.split(|&byte| byte == b'.') {
            value = match value {
                Value::Table(table) => table.get(lua.create_string(part)?)?,
                _ => Value::Nil,
            };
        }
        Ok(value)
    }

    /// The value that `require` gives for a name.
    pub fn module(&self, lua: &Lua, name: &[u8]) -> mlua::Result<Value> {
        let require = self.require.as_ref().ok_or_else(|| mlua::Error::runtime("there is no 'require'"))?;
        require.call(lua.create_string(name)?)
    }

    /// The module that has a C function, and the name that it has there.
    pub fn name_of(&self, lua: &Lua, function: &Function) -> mlua::Result<Option<FieldName>> {
        let pointer = function.to_pointer();
        if let Some(name) = self.names.borrow().get(&pointer)
            && self.named(lua, &name.0, &name.1)?.is_some_and(|named| named.to_pointer() == pointer)
        {
            return Ok(Some(name.clone()));
        }
        self.collect_names()?;
        Ok(self.names.borrow().get(&pointer).cloned())
    }

    /// Notes what the head of a C function is.
    pub fn note_name(&self, lua: &Lua, function: &Function, head: &[u8]) -> mlua::Result<()> {
        self.named.raw_set(function, lua.create_string(head)?)
    }

    /// The function of a loaded module with this name.
    fn named(&self, lua: &Lua, module: &[u8], name: &[u8]) -> mlua::Result<Option<Function>> {
        let Some(loaded) = &self.loaded else { return Ok(None) };
        match loaded.raw_get(lua.create_string(module)?)? {
            Value::Table(module) => match module.raw_get(lua.create_string(name)?)? {
                Value::Function(function) => Ok(Some(function)),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The C function that a module has under a name, here.
    pub fn c_function(&self, lua: &Lua, module: &[u8], name: &[u8]) -> mlua::Result<Function> {
        if self.named(lua, module, name)?.is_none() {
            self.module(lua, module)?;
        }
        self.named(lua, module, name)?.ok_or_else(|| {
            let (module, name) = (String::from_utf8_lossy(module), String::from_utf8_lossy(name));
            mlua::Error::runtime(format!("module '{module}' has no function '{name}' here"))
        })
    }

    /// Notes the C functions in all loaded modules. The interpreter's own modules come first, as all VMs have them.
    fn collect_names(&self) -> mlua::Result<()> {
        let mut names = HashMap::new();
        let Some(loaded) = &self.loaded else { return Ok(()) };
        loaded.for_each(|module: Value, fields: Value| {
            let (Value::String(module), Value::Table(fields)) = (module, fields) else { return Ok(()) };
            fields.for_each(|name: Value, value: Value| {
                if let (Value::String(name), Value::Function(function)) = (name, value) {
                    let name = (module.as_bytes().to_vec(), name.as_bytes().to_vec());
                    let entry = names.entry(function.to_pointer()).or_insert_with(|| name.clone());
                    if rank(&name) < rank(entry) {
                        *entry = name;
                    }
                }
                Ok(())
            })
        })?;
        self.names.replace(names);
        Ok(())
    }
}

/// A table that does not keep its keys.
pub fn weak_table(lua: &Lua) -> mlua::Result<Table> {
    let (table, mode) = (lua.create_table()?, lua.create_table()?);
    mode.raw_set("__mode", "k")?;
    table.set_metatable(Some(mode))?;
    Ok(table)
}

/// Where the name of a C function stands among others.
fn rank(name: &FieldName) -> (bool, &FieldName) {
    (!STANDARD.contains(&name.0.as_slice()), name)
}

/// An error that Lua code raised, in its own words: without the traceback that mlua adds.
pub fn words(error: &mlua::Error) -> String {
    match error {
        mlua::Error::RuntimeError(message) => {
            message.split_once("\nstack traceback:").map_or(message.as_str(), |(words, _)| words).to_owned()
        }
        mlua::Error::CallbackError { cause, .. } => words(cause),
        other => other.to_string(),
    }
}
