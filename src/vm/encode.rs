//! Lua values to a message.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt::{self, Write};
use std::mem;

use mlua::{Function, Lua, Table, Value};

use super::transfer::{HAS_INTEGERS, Kind, MAX_REBUILDS, Objects, Tag, Transfer, words};
use crate::worker::{Handle, Message};

/// Why values cannot cross, and where among them the reason lies.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    path: String,
    reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot transfer {}: {}", self.path, self.reason)
    }
}

/// Why a userdata is refused that is rebuilt from others, and these from others, and so on.
const ENDLESS: &str = "userdata whose __transfer gives further ones without end";

/// A step from a value to one in it.
#[derive(Debug)]
enum Step {
    Field(String),
    Index(String),
    Key,
    Upvalue(String),
    Metatable,
}

/// Encodes the fields 1 to `count` of a table; `name` is what the first one is called in messages, "argument" or
/// "result".
pub fn encode(lua: &Lua, transfer: &Transfer, name: &str, values: &Table, count: usize) -> Result<Message, Refused> {
    encode_nested(lua, transfer, name, values, count, 0)
}

fn encode_nested(
    lua: &Lua,
    transfer: &Transfer,
    name: &str,
    values: &Table,
    count: usize,
    rebuilds: usize,
) -> Result<Message, Refused> {
    let refused = |path, reason| Refused { path, reason };
    let mut encoder = Encoder::new(lua, transfer, rebuilds);
    for index in 1..=count {
        encoder.owner = Owner::Value(index);
        let value = field(values, Value::Integer(index as i64)).map_err(|error| words(&error));
        if let Err(reason) = value.and_then(|value| encoder.value(&value)) {
            return Err(refused(format!("{name} #{index}"), reason));
        }
    }
    let values = mem::take(&mut encoder.out);
    let mut number = 0;
    while (number as usize) < encoder.kinds.len() {
        if let Err((step, reason)) = encoder.body(number) {
            return Err(refused(encoder.describe(name, number, step), reason));
        }
        number += 1;
    }
    Ok(encoder.finish(count, &values))
}

/// A field of a table, -0 included.
fn field(table: &Table, key: Value) -> mlua::Result<Value> {
    match table.raw_get(&key)? {
        Value::Integer(0) if !HAS_INTEGERS => Ok(Value::Number(table.raw_get(key)?)),
        value => Ok(value),
    }
}

/// What an object was found in first.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Value(usize),
    Object(u32),
}

struct Encoder<'a> {
    lua: &'a Lua,
    transfer: &'a Transfer,
    objects: Objects,
    kinds: Vec<Kind>,
    owners: Vec<Owner>,
    /// The number of each object by its address: nothing is collected meanwhile.
    numbers: HashMap<*const c_void, u32>,
    /// The loaded modules, by their addresses, once they were asked for.
    module_names: Option<HashMap<*const c_void, Vec<u8>>>,
    /// The numbers of those that were sent by name. As an argument or in a table, a module is a table like any other.
    modules: HashMap<*const c_void, u32>,
    /// In which function, and at which index, each upvalue was sent that several may share.
    upvalues: HashMap<*const c_void, (u32, u32)>,
    heads: Vec<u8>,
    /// What crosses by reference.
    handles: Vec<Handle>,
    /// The part of the message that is being written: the values, or the bodies.
    out: Vec<u8>,
    owner: Owner,
    rebuilds: usize,
}

type Encoded = Result<(), String>;
type EncodedBody = Result<(), (Option<Step>, String)>;

impl<'a> Encoder<'a> {
    fn new(lua: &'a Lua, transfer: &'a Transfer, rebuilds: usize) -> Self {
        Encoder {
            lua,
            transfer,
            objects: Objects::default(),
            kinds: Vec::new(),
            owners: Vec::new(),
            numbers: HashMap::new(),
            module_names: None,
            modules: HashMap::new(),
            upvalues: HashMap::new(),
            heads: Vec::new(),
            handles: Vec::new(),
            out: Vec::new(),
            owner: Owner::Value(1),
            rebuilds,
        }
    }

    fn value(&mut self, value: &Value) -> Encoded {
        match value {
            Value::Nil => self.tag(Tag::Nil),
            Value::Boolean(false) => self.tag(Tag::False),
            Value::Boolean(true) => self.tag(Tag::True),
            Value::Integer(integer) => self.fixed(Tag::Integer, integer.to_le_bytes()),
            Value::Number(number) => self.fixed(Tag::Number, number.to_le_bytes()),
            Value::String(string) => {
                self.tag(Tag::String);
                push_bytes(&mut self.out, &string.as_bytes());
            }
            Value::Table(table) if self.transfer.is_globals(table) => self.tag(Tag::Globals),
            Value::Table(_) | Value::Function(_) | Value::UserData(_) => return self.object(value),
            other => return Err(type_of(other).into()),
        }
        Ok(())
    }

    /// Writes the number of an object; begins it if it was not found before.
    fn object(&mut self, value: &Value) -> Encoded {
        let address = value.to_pointer();
        let number = match self.numbers.get(&address) {
            Some(&number) => number,
            None => {
                let kind = self.head(value)?;
                let number = self.number(kind, value)?;
                self.numbers.insert(address, number);
                number
            }
        };
        self.fixed(Tag::Object, number.to_le_bytes());
        Ok(())
    }

    /// Numbers an object whose head was written.
    fn number(&mut self, kind: Kind, value: &Value) -> Result<u32, String> {
        let number = u32::try_from(self.kinds.len()).map_err(|_| "too many objects")?;
        self.objects.add(self.lua, number as usize, value.clone()).map_err(|error| words(&error))?;
        self.kinds.push(kind);
        self.owners.push(self.owner);
        Ok(number)
    }

    /// Writes the head of an object.
    fn head(&mut self, value: &Value) -> Result<Kind, String> {
        if let Some(name) = self.transfer.own_name(value).map_err(|error| words(&error))? {
            self.heads.push(Kind::Own as u8);
            push_bytes(&mut self.heads, &name.as_bytes());
            return Ok(Kind::Own);
        }
        match value {
            Value::Table(table) => {
                let heads = &mut self.heads;
                heads.push(Kind::Table as u8);
                heads.extend(u32::try_from(table.raw_len()).unwrap_or(u32::MAX).to_le_bytes());
                Ok(Kind::Table)
            }
            Value::Function(function) if function.info().what == "C" => {
                let name = self.transfer.name_of(self.lua, function).map_err(|error| words(&error))?;
                let Some((module, name)) = name else {
                    return match self.module_head(value)? {
                        true => Ok(Kind::Module),
                        false => Err("a C function that no loaded module has".into()),
                    };
                };
                let heads = &mut self.heads;
                heads.push(Kind::CFunction as u8);
                push_bytes(heads, &module);
                push_bytes(heads, &name);
                Ok(Kind::CFunction)
            }
            Value::Function(function) => {
                if self.transfer.getupvalue.is_none() {
                    let reason =
                        "a function, and the debug library, which functions are taken apart with, is not there";
                    return Err(reason.into());
                }
                self.heads.push(Kind::Function as u8);
                push_bytes(&mut self.heads, &function.dump(false));
                Ok(Kind::Function)
            }
            other => {
                if let Some(handle) = (self.transfer.to_handle)(self.lua, other) {
                    self.heads.push(Kind::Shared as u8);
                    self.heads.extend((self.handles.len() as u32).to_le_bytes());
                    self.handles.push(handle);
                    return Ok(Kind::Shared);
                }
                let message = self.rebuilt(other)?;
                self.heads.push(Kind::Rebuilt as u8);
                // The handles of the inner message follow those that are there.
                self.heads.extend((self.handles.len() as u32).to_le_bytes());
                push_bytes(&mut self.heads, &message.bytes);
                self.handles.extend(message.handles);
                Ok(Kind::Rebuilt)
            }
        }
    }

    /// Asks a userdata how it is made anew.
    fn rebuilt(&self, value: &Value) -> Result<Message, String> {
        let custom = self.transfer.custom(value).map_err(|error| words(&error))?;
        let custom = custom.ok_or_else(|| type_of(value).to_owned())?;
        if self.rebuilds == MAX_REBUILDS {
            return Err(ENDLESS.into());
        }
        let call: mlua::Result<Table> = self.transfer.call.call((custom, value));
        let call = call.map_err(|error| format!("its __transfer failed: {}", words(&error)))?;
        if !call.raw_get::<Value>(1).is_ok_and(|first| first.is_function()) {
            return Err("its __transfer returned no function".into());
        }
        let count = call.raw_get("n").map_err(|error| words(&error))?;
        encode_nested(self.lua, self.transfer, "result", &call, count, self.rebuilds + 1).map_err(
            |Refused { path, reason }| match reason.as_str() {
                ENDLESS => reason,
                _ => format!("{path} of its __transfer: {reason}"),
            },
        )
    }

    /// Writes what is in an object.
    fn body(&mut self, number: u32) -> EncodedBody {
        self.owner = Owner::Object(number);
        match self.kinds[number as usize] {
            Kind::Table => {
                let table = self.objects.table(number).map_err(without_step)?;
                self.table(&table)
            }
            Kind::Function => {
                let function = self.objects.function(number).map_err(without_step)?;
                self.function(number, &function)
            }
            Kind::CFunction | Kind::Module | Kind::Own | Kind::Rebuilt | Kind::Shared => Ok(()),
        }
    }

    fn table(&mut self, table: &Table) -> EncodedBody {
        match table.metatable() {
            None => self.tag(Tag::Nil),
            Some(metatable) => {
                let metatable = Value::Table(metatable);
                self.module_or(&metatable).map_err(|reason| (Some(Step::Metatable), reason))?;
            }
        }
        let mut refused = None;
        let visited = table.for_each(|key: Value, value: Value| {
            let value = match value {
                Value::Integer(0) if !HAS_INTEGERS => field(table, key.clone())?,
                value => value,
            };
            let encoded = self.value(&key).map_err(|reason| (Some(Step::Key), reason));
            let encoded = encoded.and_then(|()| self.value(&value).map_err(|reason| (Some(step_to(&key)), reason)));
            encoded.map_err(|reason| {
                refused = Some(reason);
                mlua::Error::runtime("refused")
            })
        });
        if let Some(refused) = refused {
            return Err(refused);
        }
        visited.map_err(without_step)?;
        self.tag(Tag::End);
        Ok(())
    }

    fn function(&mut self, number: u32, function: &Function) -> EncodedBody {
        let count_at = self.out.len();
        self.out.extend(0_u32.to_le_bytes());
        let mut count = 0_u32;
        while let Some((name, value)) = self.transfer.upvalue(function, count as usize + 1).map_err(without_step)? {
            count += 1;
            // A program may run in an environment of its own; in the worker, globals are the worker's.
            if name == "_ENV" && value.is_table() {
                self.tag(Tag::Globals);
                continue;
            }
            let id = self.transfer.upvalue_id(function, count as usize).map_err(without_step)?;
            match id.and_then(|id| self.upvalues.get(&id)) {
                Some(&(owner, index)) => {
                    self.fixed(Tag::Shared, owner.to_le_bytes());
                    self.out.extend(index.to_le_bytes());
                }
                None => {
                    if let Some(id) = id {
                        self.upvalues.insert(id, (number, count));
                    }
                    self.module_or(&value).map_err(|reason| (Some(Step::Upvalue(name)), reason))?;
                }
            }
        }
        self.out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        Ok(())
    }

    /// Writes an upvalue or a metatable; one that is a loaded module by its name.
    fn module_or(&mut self, value: &Value) -> Encoded {
        let is_object = matches!(value, Value::Table(_) | Value::Function(_) | Value::UserData(_));
        let is_globals = matches!(value, Value::Table(table) if self.transfer.is_globals(table));
        if !is_object || is_globals {
            return self.value(value);
        }
        let address = value.to_pointer();
        let number = match self.modules.get(&address).copied() {
            Some(number) => number,
            None if self.module_head(value)? => {
                let number = self.number(Kind::Module, value)?;
                self.modules.insert(address, number);
                number
            }
            None => return self.value(value),
        };
        self.fixed(Tag::Object, number.to_le_bytes());
        Ok(())
    }

    /// Writes the head of a loaded module; false if the value is none.
    fn module_head(&mut self, value: &Value) -> Result<bool, String> {
        let transfer = self.transfer;
        let names = match &mut self.module_names {
            Some(names) => names,
            unknown => unknown.insert(transfer.modules().map_err(|error| words(&error))?),
        };
        let Some(name) = names.get(&value.to_pointer()) else { return Ok(false) };
        // A __transfer may have loaded other modules meanwhile.
        if !transfer.is_module(self.lua, name, value.to_pointer()).map_err(|error| words(&error))? {
            return Ok(false);
        }
        self.heads.push(Kind::Module as u8);
        push_bytes(&mut self.heads, name);
        push_bytes(&mut self.heads, type_of(value).as_bytes());
        Ok(true)
    }

    fn tag(&mut self, tag: Tag) {
        self.out.push(tag as u8);
    }

    fn fixed<const N: usize>(&mut self, tag: Tag, bytes: [u8; N]) {
        self.tag(tag);
        self.out.extend(bytes);
    }

    fn finish(self, count: usize, values: &[u8]) -> Message {
        let mut message = Vec::with_capacity(self.heads.len() + values.len() + self.out.len() + 8);
        message.extend((self.kinds.len() as u32).to_le_bytes());
        message.extend(self.heads);
        message.extend((count as u32).to_le_bytes());
        message.extend(values);
        message.extend(self.out);
        Message { bytes: message, handles: self.handles }
    }

    /// "argument #2.handlers[3], upvalue 'sock'": the way to what lies a step from an object.
    fn describe(&self, name: &str, number: u32, step: Option<Step>) -> String {
        const SHOWN: usize = 12;
        let (mut line, mut at) = (vec![number], number);
        let position = loop {
            match self.owners[at as usize] {
                Owner::Value(position) => break position,
                Owner::Object(owner) => {
                    line.push(owner);
                    at = owner;
                }
            }
        };
        line.reverse();
        let mut text = format!("{name} #{position}");
        for pair in line.windows(2).take(SHOWN) {
            if let Ok(Some(step)) = self.step_between(pair[0], pair[1]) {
                push_step(&mut text, &step);
            }
        }
        if line.len() > SHOWN {
            text.push_str("...");
        } else if let Some(step) = step {
            push_step(&mut text, &step);
        }
        text
    }

    /// The step from an object to one that was found in it.
    fn step_between(&self, owner: u32, object: u32) -> mlua::Result<Option<Step>> {
        let wanted = self.objects.get(object)?.to_pointer();
        match self.objects.get(owner)? {
            Value::Table(table) => {
                for pair in table.pairs::<Value, Value>() {
                    let (key, value) = pair?;
                    if value.to_pointer() == wanted {
                        return Ok(Some(step_to(&key)));
                    }
                    if key.to_pointer() == wanted {
                        return Ok(Some(Step::Key));
                    }
                }
                Ok(Some(Step::Metatable))
            }
            Value::Function(function) => {
                let mut index = 1;
                while let Some((name, value)) = self.transfer.upvalue(&function, index)? {
                    if value.to_pointer() == wanted {
                        return Ok(Some(Step::Upvalue(name)));
                    }
                    index += 1;
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

fn without_step(error: mlua::Error) -> (Option<Step>, String) {
    (None, words(&error))
}

/// The type of a value, as Lua calls it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::LightUserData(_) => "light userdata",
        Value::Other(_) => "cdata",
        other => other.type_name(),
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

fn step_to(key: &Value) -> Step {
    match key {
        Value::String(string) => {
            let text = shortened(string.to_string_lossy());
            let is_name = !text.starts_with(|c: char| c.is_ascii_digit())
                && !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if is_name { Step::Field(text) } else { Step::Index(format!("{text:?}")) }
        }
        Value::Integer(integer) => Step::Index(integer.to_string()),
        Value::Number(number) => Step::Index(number.to_string()),
        Value::Boolean(boolean) => Step::Index(boolean.to_string()),
        other => Step::Index(format!("a {}", other.type_name())),
    }
}

fn shortened(mut text: String) -> String {
    const SHOWN: usize = 40;
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn push_step(text: &mut String, step: &Step) {
    // Writing to a String does not fail.
    let _ = match step {
        Step::Field(field) => write!(text, ".{field}"),
        Step::Index(index) => write!(text, "[{index}]"),
        Step::Key => write!(text, ", a key"),
        Step::Upvalue(upvalue) => write!(text, ", upvalue '{upvalue}'"),
        Step::Metatable => write!(text, ", its metatable"),
    };
}
