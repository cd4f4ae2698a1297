//! How values cross between VMs: as bytes, which belong to no VM.
//!
//! Tables, functions and userdata are objects, which are numbered in the order in which they are found. A message is
//!
//! 1. the number of objects, and the head of each: what is needed to make it, empty;
//! 2. the values;
//! 3. the body of each object in turn: what is in it.
//!
//! Wherever an object stands in a value or in another object, its number stands in the message. So cycles and shared
//! references arrive as such, and however deep objects are nested, neither side ever calls itself.
//!
//! Values that are many are kept in Lua tables on both sides: mlua holds a limited number of handles only, and it loses
//! the sign of -0 where Lua has one number type.
//!
//! Bytecode crosses in this form, and bytecode can do anything: messages only ever come from this process. What is in a
//! message besides is checked as it is read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

use mlua::{Function, Lua, LuaString, Table, Value};

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
    /// A table: the length of its list, 4 bytes. Its body: its metatable or nil, then keys and values in turn, up to
    /// [`Tag::End`].
    Table,
    /// A Lua function: its bytecode. Its body: the number of its upvalues, 4 bytes, then these.
    Function,
    /// A C function: the name of the module that has it, and under which name. No body.
    CFunction,
    /// A loaded module: the name that `require` is called with, and the type of the module. No body.
    Module,
    /// Something of this module's own, `task.wait` say: its name. No body.
    Own,
    /// What a function of the sender makes on the other side: the index of the first of its handles, 4 bytes, and a
    /// message with the function and its arguments. No body.
    Rebuilt,
    /// What crosses by reference: the index of its handle, 4 bytes. No body.
    Shared,
}

impl Kind {
    /// The kind of a byte of a message.
    pub fn of(byte: u8) -> Option<Kind> {
        const KINDS: [Kind; 7] =
            [Kind::Table, Kind::Function, Kind::CFunction, Kind::Module, Kind::Own, Kind::Rebuilt, Kind::Shared];
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

/// The objects of a message, by their numbers. The first few are handles; the rest is kept in a Lua table, as mlua holds
/// a limited number of handles only.
#[derive(Debug, Default)]
pub struct Objects {
    few: Vec<Value>,
    more: Option<Table>,
}

impl Objects {
    const FEW: usize = 32;

    /// Adds the next object, which has this number.
    pub fn add(&mut self, lua: &Lua, number: usize, object: Value) -> mlua::Result<()> {
        if number < Self::FEW {
            self.few.push(object);
            return Ok(());
        }
        let more = match &self.more {
            Some(more) => more,
            None => self.more.insert(lua.create_table()?),
        };
        more.raw_set(number - Self::FEW + 1, object)
    }

    /// The object with this number; nil if there is none.
    pub fn get(&self, number: u32) -> mlua::Result<Value> {
        match (self.few.get(number as usize), &self.more) {
            (Some(object), _) => Ok(object.clone()),
            (None, Some(more)) => more.raw_get(number as usize - Self::FEW + 1),
            (None, None) => Ok(Value::Nil),
        }
    }

    /// The object with this number, which is a table.
    pub fn table(&self, number: u32) -> mlua::Result<Table> {
        match self.get(number)? {
            Value::Table(table) => Ok(table),
            other => Err(mlua::Error::runtime(format!("there is a {} in the place of a table", other.type_name()))),
        }
    }

    /// The object with this number, which is a function.
    pub fn function(&self, number: u32) -> mlua::Result<Function> {
        match self.get(number)? {
            Value::Function(function) => Ok(function),
            other => Err(mlua::Error::runtime(format!("there is a {} in the place of a function", other.type_name()))),
        }
    }
}

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
    /// `debug.setupvalue`.
    pub setupvalue: Option<Function>,
    /// `debug.upvalueid`, which Lua 5.1 has not.
    pub upvalueid: Option<Function>,
    /// `debug.upvaluejoin`, which Lua 5.1 has not.
    pub upvaluejoin: Option<Function>,
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
}

impl Transfer {
    /// That of a Lua state.
    pub fn new(lua: &Lua, to_handle: ToHandle, from_handle: FromHandle) -> mlua::Result<Self> {
        let globals = lua.globals();
        let debug: Option<Table> = globals.raw_get("debug")?;
        let field = |name| debug.as_ref().map_or(Ok(None), |debug| debug.raw_get::<Option<Function>>(name));
        let package: Option<Table> = globals.raw_get("package")?;
        let (call, apply) = lua.load(CALLS).set_name("=[scheduler]/transfer").call(())?;
        Ok(Transfer {
            call,
            apply,
            getupvalue: field("getupvalue")?,
            setupvalue: field("setupvalue")?,
            upvalueid: field("upvalueid")?,
            upvaluejoin: field("upvaluejoin")?,
            getmetatable: field("getmetatable")?,
            require: globals.raw_get("require")?,
            loaded: package.map_or(Ok(None), |package| package.raw_get("loaded"))?,
            globals,
            own: lua.create_table()?,
            to_handle,
            from_handle,
            names: RefCell::default(),
        })
    }

    /// Whether this is the table of globals.
    pub fn is_globals(&self, value: &Table) -> bool {
        value.to_pointer() == self.globals.to_pointer()
    }

    /// The name and value of an upvalue, -0 included; `None` past the last one.
    pub fn upvalue(&self, function: &Function, index: usize) -> mlua::Result<Option<(String, Value)>> {
        let Some(getupvalue) = &self.getupvalue else { return Ok(None) };
        let (name, value): (Option<LuaString>, Value) = getupvalue.call((function, index))?;
        let Some(name) = name else { return Ok(None) };
        let value = match value {
            Value::Integer(0) if !HAS_INTEGERS => {
                let (_, number): (Value, f64) = getupvalue.call((function, index))?;
                Value::Number(number)
            }
            value => value,
        };
        Ok(Some((name.to_string_lossy(), value)))
    }

    /// What tells an upvalue from others; functions that share it give the same. `None` where Lua does not tell.
    pub fn upvalue_id(&self, function: &Function, index: usize) -> mlua::Result<Option<*const c_void>> {
        let Some(upvalueid) = &self.upvalueid else { return Ok(None) };
        Ok(upvalueid.call::<Value>((function, index))?.as_light_userdata().map(|id| id.0.cast_const()))
    }

    /// The `__transfer` of a userdata.
    pub fn custom(&self, value: &Value) -> mlua::Result<Option<Function>> {
        let Some(getmetatable) = &self.getmetatable else { return Ok(None) };
        match getmetatable.call::<Value>(value)? {
            Value::Table(metatable) => metatable.raw_get("__transfer"),
            _ => Ok(None),
        }
    }

    /// The names under which `require` gives tables, functions and userdata, by their addresses.
    pub fn modules(&self) -> mlua::Result<HashMap<*const c_void, Vec<u8>>> {
        let mut names = HashMap::new();
        let (Some(loaded), true) = (&self.loaded, self.require.is_some()) else { return Ok(names) };
        loaded.for_each(|name: Value, module: Value| {
            if let (Value::String(name), Value::Table(_) | Value::Function(_) | Value::UserData(_)) = (name, &module) {
                let name = name.as_bytes().to_vec();
                let entry = names.entry(module.to_pointer()).or_insert_with(|| name.clone());
                if name < *entry {
                    *entry = name;
                }
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// Whether a name is still that of the module with this address.
    pub fn is_module(&self, lua: &Lua, name: &[u8], address: *const c_void) -> mlua::Result<bool> {
        let Some(loaded) = &self.loaded else { return Ok(false) };
        Ok(loaded.raw_get::<Value>(lua.create_string(name)?)?.to_pointer() == address)
    }

    /// The name of something of this module's own.
    pub fn own_name(&self, value: &Value) -> mlua::Result<Option<LuaString>> {
        self.own.raw_get(value)
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
