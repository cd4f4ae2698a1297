//! A message to Lua values.

use std::iter;

use mlua::chunk::ChunkMode;
use mlua::{Error, Function, Lua, MultiValue, Result, Table, Value};

use super::transfer::{MAX_DEPTH, Tag, Transfer};

/// The values of a message, made anew in this VM.
pub fn decode(lua: &Lua, transfer: &Transfer, message: &[u8]) -> Result<MultiValue> {
    let mut reader = Reader(message);
    let referenced = (0..reader.u32()?).map(|_| reader.u32()).collect::<Result<Vec<_>>>()?;
    let count = reader.u32()?;
    let kept = if referenced.is_empty() { None } else { Some(lua.create_table()?) };
    let mut decoder = Decoder { lua, transfer, reader, referenced, kept, begun: 0, depth: 0 };
    iter::repeat_with(|| decoder.value()).take(count as usize).collect()
}

struct Decoder<'a> {
    lua: &'a Lua,
    transfer: &'a Transfer,
    reader: Reader<'a>,
    /// The numbers that references name, ascending.
    referenced: Vec<u32>,
    /// The values with these numbers, in a Lua table: mlua holds a limited number of values only.
    kept: Option<Table>,
    begun: u32,
    depth: usize,
}

impl Decoder<'_> {
    fn value(&mut self) -> Result<Value> {
        let tag = self.reader.tag()?;
        self.tagged(tag)
    }

    fn tagged(&mut self, tag: Tag) -> Result<Value> {
        Ok(match tag {
            Tag::Nil => Value::Nil,
            Tag::False => Value::Boolean(false),
            Tag::True => Value::Boolean(true),
            Tag::Integer => Value::Integer(i64::from_le_bytes(self.reader.fixed()?)),
            Tag::Number => Value::Number(f64::from_le_bytes(self.reader.fixed()?)),
            Tag::String => Value::String(self.lua.create_string(self.reader.bytes()?)?),
            Tag::Table => Value::Table(self.nested(Self::table)?),
            Tag::Function => Value::Function(self.nested(Self::function)?),
            Tag::Globals => Value::Table(self.transfer.globals.clone()),
            Tag::Reference => {
                let number = self.reader.u32()?;
                self.kept.as_ref().ok_or_else(malformed)?.raw_get(number)?
            }
            Tag::End => return Err(malformed()),
        })
    }

    fn table(&mut self) -> Result<Table> {
        let table = self.lua.create_table()?;
        self.keep(&table)?;
        loop {
            let tag = self.reader.tag()?;
            if tag == Tag::End {
                return Ok(table);
            }
            let key = self.tagged(tag)?;
            table.raw_set(key, self.value()?)?;
        }
    }

    fn function(&mut self) -> Result<Function> {
        let bytecode = self.reader.bytes()?;
        let function = self.lua.load(bytecode).set_mode(ChunkMode::Binary).into_function()?;
        self.keep(&function)?;
        for index in 1..=self.reader.u32()? {
            let value = self.value()?;
            let setupvalue = self.transfer.setupvalue.as_ref();
            let setupvalue = setupvalue.ok_or_else(|| Error::runtime("the debug library is not there"))?;
            setupvalue.call::<()>((&function, index, value))?;
        }
        Ok(function)
    }

    /// Numbers the value that begins, and keeps it if it will be referred to.
    fn keep(&mut self, value: impl mlua::IntoLua) -> Result<()> {
        let number = self.begun;
        self.begun += 1;
        match &self.kept {
            Some(kept) if self.referenced.binary_search(&number).is_ok() => kept.raw_set(number, value),
            _ => Ok(()),
        }
    }

    fn nested<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH + 2 {
            return Err(malformed());
        }
        let decoded = decode(self);
        self.depth -= 1;
        decoded
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn tag(&mut self) -> Result<Tag> {
        let [byte] = self.fixed()?;
        Tag::of(byte).ok_or_else(malformed)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(u64::from_le_bytes(self.fixed()?)).map_err(|_| malformed())?;
        self.take(length)
    }
}

fn malformed() -> Error {
    Error::runtime("malformed message")
}
