//! Lua values to a message.

use std::collections::TryReserveError;
use std::fmt::{self, Write};
use std::mem;

use mlua::{Lua, Table, Value};

use super::NO_MEMORY;
use super::raw::walk::{Found, Owner, START, Stop, Walk, push_bytes};
use super::transfer::{Kind, MAX_REBUILDS, Transfer, words};
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
    let objects = transfer.take_objects(lua).map_err(|error| Refused { path: name.into(), reason: words(&error) })?;
    let mut walk = transfer.take_walk();
    walk.begin(transfer, count);
    let mut encoder = Encoder { lua, transfer, walk, objects, handles: Vec::new(), rebuilds };
    let encoded = encoder.run(name, values);
    let Encoder { mut walk, objects, handles, .. } = encoder;
    let no_memory = |_| Refused { path: format!("{name}s"), reason: NO_MEMORY.into() };
    let message = encoded.and_then(|()| finish(&mut walk, handles).map_err(no_memory));
    if message.is_ok() {
        transfer.give_objects(objects, walk.owners.len());
    }
    transfer.give_walk(walk);
    message
}

/// Of messages that are larger, the buffer itself is sent, and not a copy of the right size.
const SMALL: usize = 4096;

/// Puts the message together: the numbers that it begins with are known now, and the heads come last.
fn finish(walk: &mut Walk, handles: Vec<Handle>) -> Result<Message, TryReserveError> {
    let length = (walk.out.len() - START) as u64;
    let (objects, rest) = walk.out.split_at_mut(4);
    objects.copy_from_slice(&(walk.owners.len() as u32).to_le_bytes());
    rest[..8].copy_from_slice(&length.to_le_bytes());
    walk.out.try_reserve(walk.heads.len())?;
    walk.out.extend_from_slice(&walk.heads);
    let bytes = match walk.out.len() {
        0..=SMALL => walk.out.as_slice().to_vec(),
        _ => mem::take(&mut walk.out),
    };
    Ok(Message { bytes, handles, functions: mem::take(&mut walk.functions) })
}

struct Encoder<'a> {
    lua: &'a Lua,
    transfer: &'a Transfer,
    walk: Box<Walk>,
    objects: Table,
    /// What crosses by reference.
    handles: Vec<Handle>,
    rebuilds: usize,
}

impl Encoder<'_> {
    fn run(&mut self, name: &str, values: &Table) -> Result<(), Refused> {
        loop {
            let stop = self.walk.go_on(self.transfer, values, &self.objects);
            let refused = match stop {
                Ok(Stop::Done) => return Ok(()),
                Ok(Stop::Dump) => self.dump().map_err(|error| (None, words(&error))),
                Ok(Stop::Special) => self.special().map_err(|reason| (None, reason)),
                Ok(Stop::Refused(found, reason)) => Err((self.step(found), reason.to_owned())),
                Err(error) => Err((None, words(&error))),
            };
            refused.map_err(|(step, reason)| Refused { path: self.describe(name, step), reason })?;
        }
    }

    /// The object that is next.
    fn object(&self) -> mlua::Result<Value> {
        self.objects.raw_get(i64::from(self.walk.number) + 1)
    }

    fn dump(&self) -> mlua::Result<()> {
        match self.object()? {
            Value::Function(function) => self.transfer.functions.dump(&function),
            _ => Ok(()),
        }
    }

    /// Writes the head of the next object, which has no body.
    fn special(&mut self) -> Result<(), String> {
        let object = self.object().map_err(|error| words(&error))?;
        self.head(&object)?;
        self.walk.number += 1;
        Ok(())
    }

    fn head(&mut self, object: &Value) -> Result<(), String> {
        match object {
            Value::Function(function) if function.info().what == "C" => {
                let name = self.transfer.name_of(self.lua, function).map_err(|error| words(&error))?;
                let Some((module, name)) = name else {
                    return match self.module_head(object)? {
                        true => Ok(()),
                        false => Err("a C function that no loaded module has".into()),
                    };
                };
                let mut head = Vec::new();
                push_bytes(&mut head, &module);
                push_bytes(&mut head, &name);
                self.transfer.note_name(self.lua, function, &head).map_err(|error| words(&error))?;
                self.walk.heads.push(Kind::CFunction as u8);
                self.walk.heads.extend(head);
            }
            Value::Function(_) => {
                return Err(
                    "a function, and the debug library, which functions are taken apart with, is not there".into()
                );
            }
            other => {
                if let Some(handle) = (self.transfer.to_handle)(self.lua, other) {
                    self.walk.heads.push(Kind::Shared as u8);
                    push_index(&mut self.walk.heads, self.handles.len());
                    self.handles.push(handle);
                    return Ok(());
                }
                let message = self.rebuilt(other)?;
                let heads = &mut self.walk.heads;
                heads.push(Kind::Rebuilt as u8);
                // What the inner message shares follows what is there.
                push_index(heads, self.handles.len());
                push_index(heads, self.walk.functions.len());
                push_bytes(heads, &message.bytes);
                self.handles.extend(message.handles);
                self.walk.functions.extend(message.functions);
            }
        }
        Ok(())
    }

    /// Asks a value how it is made anew.
    fn rebuilt(&self, value: &Value) -> Result<Message, String> {
        let custom = match self.transfer.custom(value).map_err(|error| words(&error))? {
            Value::Function(custom) => custom,
            Value::String(name) => return Err(name.to_string_lossy()),
            _ => return Err(type_of(value).to_owned()),
        };
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

    /// Writes the head of a loaded module; false if the value is none.
    fn module_head(&mut self, value: &Value) -> Result<bool, String> {
        let name = self.transfer.module_name(value).map_err(|error| words(&error))?;
        let Some(name) = name else { return Ok(false) };
        let heads = &mut self.walk.heads;
        heads.push(Kind::Module as u8);
        push_bytes(heads, &name);
        push_bytes(heads, type_of(value).as_bytes());
        Ok(true)
    }

    /// The step to what cannot cross.
    fn step(&self, found: Found) -> Option<Step> {
        Some(match found {
            Found::Here => return None,
            Found::Field => step_to(&self.objects.raw_get(self.walk.owners.len() + 1).unwrap_or(Value::Nil)),
            Found::Upvalue(name) => Step::Upvalue(name),
            Found::Metatable => Step::Metatable,
            Found::Key => Step::Key,
        })
    }

    /// "argument #2.handlers[3], upvalue 'sock'": the way to where the walk is, and to what lies a step from there.
    fn describe(&self, name: &str, step: Option<Step>) -> String {
        const SHOWN: usize = 12;
        let (mut line, mut at) = (Vec::new(), self.walk.owner());
        let position = loop {
            match at {
                Owner::Value(position) => break position,
                Owner::Object(owner) => {
                    line.push(owner);
                    // Where memory ran out, the way to the last object was not noted any more.
                    let Some(&next) = self.walk.owners.get(owner as usize) else { break 1 };
                    at = next;
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
        let steps = line.len().saturating_sub(1) + usize::from(step.is_some());
        if steps > SHOWN {
            text.push_str("...");
        } else if let Some(step) = step {
            push_step(&mut text, &step);
        }
        text
    }

    /// The step from an object to one that was found in it.
    fn step_between(&self, owner: u32, object: u32) -> mlua::Result<Option<Step>> {
        let wanted = self.objects.raw_get::<Value>(i64::from(object) + 1)?.to_pointer();
        match self.objects.raw_get(i64::from(owner) + 1)? {
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

/// The type of a value, as Lua calls it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::LightUserData(_) => "light userdata",
        Value::Other(_) => "cdata",
        other => other.type_name(),
    }
}

fn push_index(out: &mut Vec<u8>, index: usize) {
    out.extend((index as u32).to_le_bytes());
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
