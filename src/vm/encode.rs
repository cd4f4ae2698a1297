//! Lua values to a message.

use std::collections::{BTreeSet, HashMap};
use std::ffi::c_void;
use std::fmt::{self, Write};

use mlua::{Function, Table, Value};

use super::transfer::{MAX_DEPTH, Tag, Transfer};
use crate::worker::Message;

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

/// A step from a value to one in it.
#[derive(Debug)]
enum Step {
    Field(String),
    Index(String),
    Key,
    Upvalue(String),
}

/// Encodes `values`; `name` is what the first one is called in messages, "argument" or "result".
pub fn encode<'a>(
    transfer: &Transfer,
    name: &str,
    values: impl ExactSizeIterator<Item = &'a Value>,
) -> Result<Message, Refused> {
    let mut encoder =
        Encoder { transfer, body: Vec::new(), numbers: HashMap::new(), referenced: BTreeSet::new(), path: Vec::new() };
    let count = values.len();
    for (index, value) in values.enumerate() {
        if let Err(reason) = encoder.value(value) {
            return Err(Refused { path: describe(name, index + 1, &encoder.path), reason });
        }
    }
    Ok(encoder.finish(count))
}

struct Encoder<'a> {
    transfer: &'a Transfer,
    body: Message,
    /// The number of each table and function that was begun, by its address: nothing is collected meanwhile.
    numbers: HashMap<*const c_void, u32>,
    referenced: BTreeSet<u32>,
    /// The way to the value that is being encoded; it is left as it is when that value is refused.
    path: Vec<Step>,
}

type Encoded = Result<(), String>;

impl Encoder<'_> {
    fn value(&mut self, value: &Value) -> Encoded {
        match value {
            Value::Nil => self.tag(Tag::Nil),
            Value::Boolean(false) => self.tag(Tag::False),
            Value::Boolean(true) => self.tag(Tag::True),
            Value::Integer(integer) => self.fixed(Tag::Integer, integer.to_le_bytes()),
            Value::Number(number) => self.fixed(Tag::Number, number.to_le_bytes()),
            Value::String(string) => {
                self.tag(Tag::String);
                self.bytes(&string.as_bytes());
            }
            Value::Table(table) => return self.table(table),
            Value::Function(function) => return self.function(function),
            other => return Err(other.type_name().into()),
        }
        Ok(())
    }

    fn table(&mut self, table: &Table) -> Encoded {
        if self.transfer.is_globals(table) {
            self.tag(Tag::Globals);
            return Ok(());
        }
        if !self.begin(table.to_pointer(), Tag::Table)? {
            return Ok(());
        }
        if table.metatable().is_some() {
            return Err("a table with a metatable".into());
        }
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(|error| error.to_string())?;
            self.step(Step::Key, &key)?;
            self.step(step_to(&key), &value)?;
        }
        self.tag(Tag::End);
        Ok(())
    }

    fn function(&mut self, function: &Function) -> Encoded {
        if function.info().what == "C" {
            return Err("a C function".into());
        }
        if !self.begin(function.to_pointer(), Tag::Function)? {
            return Ok(());
        }
        if self.transfer.getupvalue.is_none() {
            return Err("a function, and the debug library, which functions are taken apart with, is not there".into());
        }
        self.bytes(&function.dump(false));
        let count_at = self.body.len();
        self.body.extend(0_u32.to_le_bytes());
        let mut count = 0_u32;
        while let Some((name, value)) =
            self.transfer.upvalue(function, count as usize + 1).map_err(|e| e.to_string())?
        {
            // A program may run in an environment of its own; in the worker, globals are the worker's.
            match name == "_ENV" && value.is_table() {
                true => self.tag(Tag::Globals),
                false => self.step(Step::Upvalue(name), &value)?,
            }
            count += 1;
        }
        self.body[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        Ok(())
    }

    /// Begins a table or function; false if it was sent already and a reference is all that is needed.
    fn begin(&mut self, address: *const c_void, tag: Tag) -> Result<bool, String> {
        if let Some(&number) = self.numbers.get(&address) {
            self.referenced.insert(number);
            self.fixed(Tag::Reference, number.to_le_bytes());
            return Ok(false);
        }
        if self.path.len() > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.numbers.insert(address, self.numbers.len() as u32);
        self.tag(tag);
        Ok(true)
    }

    fn step(&mut self, step: Step, value: &Value) -> Encoded {
        self.path.push(step);
        self.value(value)?;
        self.path.pop();
        Ok(())
    }

    fn tag(&mut self, tag: Tag) {
        self.body.push(tag as u8);
    }

    fn fixed<const N: usize>(&mut self, tag: Tag, bytes: [u8; N]) {
        self.tag(tag);
        self.body.extend(bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.body.extend((bytes.len() as u64).to_le_bytes());
        self.body.extend(bytes);
    }

    /// Puts the head before the body: which numbers are referred to, and the number of values.
    fn finish(self, count: usize) -> Message {
        let mut message = Vec::with_capacity(self.body.len() + 4 * self.referenced.len() + 8);
        message.extend((self.referenced.len() as u32).to_le_bytes());
        for number in &self.referenced {
            message.extend(number.to_le_bytes());
        }
        message.extend((count as u32).to_le_bytes());
        message.extend(self.body);
        message
    }
}

fn step_to(key: &Value) -> Step {
    match key {
        Value::String(string) => {
            let text = string.to_string_lossy();
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

/// "argument #2.handlers[3], upvalue 'sock'"
fn describe(name: &str, position: usize, path: &[Step]) -> String {
    const SHOWN: usize = 12;
    let mut text = format!("{name} #{position}");
    for step in path.iter().take(SHOWN) {
        // Writing to a String does not fail.
        let _ = match step {
            Step::Field(field) => write!(text, ".{field}"),
            Step::Index(index) => write!(text, "[{index}]"),
            Step::Key => write!(text, ", a key"),
            Step::Upvalue(upvalue) => write!(text, ", upvalue '{upvalue}'"),
        };
    }
    if path.len() > SHOWN {
        text.push_str("...");
    }
    text
}
