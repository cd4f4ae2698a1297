//! A message to Lua values.

use mlua::chunk::ChunkMode;
use mlua::{Error, Function, Lua, Result, Table, Value};

use super::transfer::{Kind, MAX_REBUILDS, Objects, Tag, Transfer};
use crate::worker::{Handle, Message};

/// The list of the values of a message, with its length in `n`, made anew in this VM.
pub fn decode(lua: &Lua, transfer: &Transfer, message: &Message) -> Result<Table> {
    decode_nested(lua, transfer, &message.bytes, &message.handles, 0)
}

fn decode_nested(lua: &Lua, transfer: &Transfer, message: &[u8], handles: &[Handle], rebuilds: usize) -> Result<Table> {
    let mut reader = Reader(message);
    let objects = reader.count()?;
    let mut decoder = Decoder {
        lua,
        transfer,
        reader,
        handles,
        objects: Objects::default(),
        kinds: Vec::with_capacity(objects),
        metatables: Vec::new(),
        list_space: message.len() / LIST_ENTRY,
        rebuilds,
    };
    for number in 0..objects {
        let object = decoder.head()?;
        decoder.objects.add(lua, number, object)?;
    }
    let count = decoder.reader.count()?;
    let values = lua.create_table_with_capacity(count, 1)?;
    for index in 1..=count {
        values.raw_set(index, decoder.value()?)?;
    }
    values.raw_set("n", count)?;
    for number in 0..objects {
        decoder.body(number as u32)?;
    }
    decoder.set_metatables()?;
    Ok(values)
}

struct Decoder<'a> {
    lua: &'a Lua,
    transfer: &'a Transfer,
    reader: Reader<'a>,
    /// What crosses by reference.
    handles: &'a [Handle],
    objects: Objects,
    kinds: Vec<Kind>,
    /// The tables that have a metatable, and the number of that; none for the table of globals.
    metatables: Vec<(u32, Option<u32>)>,
    /// How many entries of lists there can be in the rest of the message: so no space is taken for what cannot come.
    list_space: usize,
    rebuilds: usize,
}

/// What an entry of a list takes in a message at least: an index and a value.
const LIST_ENTRY: usize = 10;

impl<'a> Decoder<'a> {
    /// Makes an object that is still empty.
    fn head(&mut self) -> Result<Value> {
        let [byte] = self.reader.fixed()?;
        let kind = Kind::of(byte).ok_or_else(malformed)?;
        self.kinds.push(kind);
        Ok(match kind {
            Kind::Table => {
                let length = (self.reader.u32()? as usize).min(self.list_space);
                self.list_space -= length;
                Value::Table(self.lua.create_table_with_capacity(length, 0)?)
            }
            Kind::Function => {
                let bytecode = self.reader.bytes()?;
                Value::Function(self.lua.load(bytecode).set_mode(ChunkMode::Binary).into_function()?)
            }
            Kind::CFunction => {
                let (module, name) = (self.reader.bytes()?, self.reader.bytes()?);
                Value::Function(self.transfer.c_function(self.lua, module, name)?)
            }
            Kind::Module => {
                let (name, kind) = (self.reader.bytes()?, self.reader.bytes()?);
                self.module(name, kind)?
            }
            Kind::Own => self.transfer.own_value(self.lua, self.reader.bytes()?)?,
            Kind::Rebuilt => self.rebuild()?,
            Kind::Shared => {
                let index = self.reader.u32()? as usize;
                let handle = self.handles.get(index).ok_or_else(malformed)?;
                (self.transfer.from_handle)(self.lua, handle.clone())?
            }
        })
    }

    fn rebuild(&mut self) -> Result<Value> {
        let first = self.reader.u32()? as usize;
        let (message, handles) = (self.reader.bytes()?, self.handles.get(first..).ok_or_else(malformed)?);
        if self.rebuilds == MAX_REBUILDS {
            return Err(malformed());
        }
        let call = decode_nested(self.lua, self.transfer, message, handles, self.rebuilds + 1)?;
        self.transfer.apply.call(call)
    }

    fn module(&self, name: &[u8], kind: &[u8]) -> Result<Value> {
        let module = self.transfer.module(self.lua, name)?;
        if module.type_name().as_bytes() == kind {
            return Ok(module);
        }
        let (name, kind) = (String::from_utf8_lossy(name), String::from_utf8_lossy(kind));
        Err(Error::runtime(format!("module '{name}' is a {} here, not a {kind}", module.type_name())))
    }

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
            Tag::Object => {
                let number = self.number()?;
                self.objects.get(number)?
            }
            Tag::Globals => Value::Table(self.transfer.globals.clone()),
            Tag::End | Tag::Shared => return Err(malformed()),
        })
    }

    /// The number of an object.
    fn number(&mut self) -> Result<u32> {
        let number = self.reader.u32()?;
        if (number as usize) < self.kinds.len() { Ok(number) } else { Err(malformed()) }
    }

    /// Fills an object.
    fn body(&mut self, number: u32) -> Result<()> {
        match self.kinds[number as usize] {
            Kind::Table => {
                let table = self.objects.table(number)?;
                self.table(number, &table)
            }
            Kind::Function => {
                let function = self.objects.function(number)?;
                self.function(&function)
            }
            Kind::CFunction | Kind::Module | Kind::Own | Kind::Rebuilt | Kind::Shared => Ok(()),
        }
    }

    fn table(&mut self, number: u32, table: &Table) -> Result<()> {
        match self.reader.tag()? {
            Tag::Nil => {}
            Tag::Object => {
                let metatable = self.number()?;
                self.metatables.push((number, Some(metatable)));
            }
            Tag::Globals => self.metatables.push((number, None)),
            _ => return Err(malformed()),
        }
        loop {
            let tag = self.reader.tag()?;
            if tag == Tag::End {
                return Ok(());
            }
            let key = self.tagged(tag)?;
            table.raw_set(key, self.value()?)?;
        }
    }

    fn function(&mut self, function: &Function) -> Result<()> {
        for index in 1..=self.reader.u32()? {
            let tag = self.reader.tag()?;
            if tag == Tag::Shared {
                let (owner, other) = (self.number()?, self.reader.u32()?);
                let owner = self.objects.function(owner)?;
                granted(&self.transfer.upvaluejoin)?.call::<()>((function, index, owner, other))?;
            } else {
                let value = self.tagged(tag)?;
                granted(&self.transfer.setupvalue)?.call::<()>((function, index, value))?;
            }
        }
        Ok(())
    }

    /// Metatables come last: what stands in them has to be there when they are set.
    fn set_metatables(&self) -> Result<()> {
        for (table, metatable) in &self.metatables {
            let table = self.objects.table(*table)?;
            let metatable = match metatable {
                Some(number) => self.objects.table(*number)?,
                None => self.transfer.globals.clone(),
            };
            table.set_metatable(Some(metatable))?;
        }
        Ok(())
    }
}

fn granted(function: &Option<Function>) -> Result<&Function> {
    function.as_ref().ok_or_else(|| Error::runtime("the debug library is not there"))
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

    /// How many things follow, each of a byte at least.
    fn count(&mut self) -> Result<usize> {
        let count = self.u32()? as usize;
        if count <= self.0.len() { Ok(count) } else { Err(malformed()) }
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(u64::from_le_bytes(self.fixed()?)).map_err(|_| malformed())?;
        self.take(length)
    }
}

fn malformed() -> Error {
    Error::runtime("malformed message")
}
