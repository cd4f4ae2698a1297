//! A message to Lua values.

use std::sync::Arc;

use mlua::{Error, Lua, Result, Table, Value};

use super::raw::build::{Build, Built};
use super::transfer::{Kind, MAX_REBUILDS, Tag, Transfer};
use crate::worker::{Bytecode, Handle, Message};

/// The list of the values of a message, with its length in `n`, made anew in this VM.
pub fn decode(lua: &Lua, transfer: &Transfer, message: &Message) -> Result<Table> {
    let number = transfer.functions.begin_message();
    decode_nested(
        lua,
        transfer,
        &message.bytes,
        Shared { number, handles: &message.handles, functions: &message.functions },
        0,
    )
}

/// What a message has besides its bytes, and the number that the receiver gives it.
#[derive(Clone, Copy)]
struct Shared<'a> {
    number: u64,
    handles: &'a [Handle],
    functions: &'a [Arc<Bytecode>],
}

fn decode_nested(lua: &Lua, transfer: &Transfer, bytes: &[u8], shared: Shared, rebuilds: usize) -> Result<Table> {
    let mut build = Build::new(transfer, bytes, shared.functions, shared.number)?;
    let objects = transfer.take_objects(lua)?;
    let values = loop {
        match build.go_on(&objects)? {
            Built::Values(values) => break values,
            Built::Special(kind) => {
                let object = special(lua, transfer, kind, &mut build.heads, shared, rebuilds)?;
                build.kinds.push(kind);
                objects.raw_set(build.kinds.len(), object)?;
            }
        }
    };
    transfer.give_objects(objects, build.objects);
    Ok(values)
}

/// Makes an object that takes Lua code to make.
fn special(
    lua: &Lua,
    transfer: &Transfer,
    kind: Kind,
    head: &mut Reader,
    shared: Shared,
    rebuilds: usize,
) -> Result<Value> {
    match kind {
        Kind::CFunction => {
            let (module, name) = (head.bytes()?, head.bytes()?);
            Ok(Value::Function(transfer.c_function(lua, module, name)?))
        }
        Kind::Module => {
            let (name, kind) = (head.bytes()?, head.bytes()?);
            module(lua, transfer, name, kind)
        }
        Kind::Own => transfer.own_value(lua, head.bytes()?),
        Kind::Shared => {
            let handle = shared.handles.get(head.u32()? as usize).ok_or_else(malformed)?;
            (transfer.from_handle)(lua, handle.clone())
        }
        Kind::Rebuilt => {
            let (handle, function) = (head.u32()? as usize, head.u32()? as usize);
            let shared = Shared {
                number: shared.number,
                handles: shared.handles.get(handle..).ok_or_else(malformed)?,
                functions: shared.functions.get(function..).ok_or_else(malformed)?,
            };
            let message = head.bytes()?;
            if rebuilds == MAX_REBUILDS {
                return Err(malformed());
            }
            transfer.apply.call(decode_nested(lua, transfer, message, shared, rebuilds + 1)?)
        }
        Kind::Table | Kind::Function | Kind::Plain => Err(malformed()),
    }
}

fn module(lua: &Lua, transfer: &Transfer, name: &[u8], kind: &[u8]) -> Result<Value> {
    let module = transfer.module(lua, name)?;
    if module.type_name().as_bytes() == kind {
        return Ok(module);
    }
    let (name, kind) = (String::from_utf8_lossy(name), String::from_utf8_lossy(kind));
    Err(Error::runtime(format!("module '{name}' is a {} here, not a {kind}", module.type_name())))
}

/// What is left to read.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The bytes of a number.
    #[inline]
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// What a value begins with.
    #[inline]
    pub fn tag(&mut self) -> Result<Tag> {
        let [byte] = self.fixed()?;
        Tag::of(byte).ok_or_else(malformed)
    }

    /// What the head of an object begins with.
    pub fn kind(&mut self) -> Result<Kind> {
        let [byte] = self.fixed()?;
        Kind::of(byte).ok_or_else(malformed)
    }

    /// A number.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    /// How many things follow, each of a byte at least.
    pub fn count(&mut self) -> Result<usize> {
        let count = self.u32()? as usize;
        if count <= self.0.len() { Ok(count) } else { Err(malformed()) }
    }

    /// Bytes, after their length.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(u64::from_le_bytes(self.fixed()?)).map_err(|_| malformed())?;
        self.take(length)
    }
}

/// The error of a message that is none.
#[cold]
pub fn malformed() -> Error {
    Error::runtime("malformed message")
}
