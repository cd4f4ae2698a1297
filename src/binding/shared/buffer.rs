//! Natives of `scheduler.shared.buffer`. Ranges are given as a position from 1 and the last one, and checked by Lua.

use std::ops::Range;

use mlua::{LightUserData, LuaString, Result, Value};

use super::super::Natives;
#[cfg(not(any(feature = "lua51", feature = "lua52", feature = "luajit")))]
use super::whole;
use super::{Buffer, MOST_OF_FLOAT, Number, This, from_handle, index};
use crate::vm::transfer::HAS_INTEGERS;
use crate::worker::Handle;
use crate::worker::shared::buffer::{Buffer as Shared, Element, Number as Given};

pub fn add(natives: &Natives) -> Result<()> {
    natives.add("new_buffer", |lua, _, (name, len): (LuaString, usize)| {
        let buffer = Shared::new(Element::named(&name.as_bytes())?, len)?;
        from_handle(lua, Handle::Buffer(buffer)).ok()
    })?;
    natives.add("element_size", |_, _, name: LuaString| Element::named(&name.as_bytes()).map(Element::size))?;
    natives
        .add("buffer_get", |_, _, (this, at): (This<Buffer>, Value)| Some(to_lua(this.left()?.0.get(index(&at)?)?)))?;
    natives.add("buffer_set", |_, _, (this, at, number): (This<Buffer>, Value, Number)| {
        let set = || {
            let this = this.left()?;
            Some(this.0.set(index(&at)?, bits(this.0.element(), number)?))
        };
        set() == Some(true)
    })?;
    natives.add("buffer_fill", |_, _, (this, number, from, to): (This<Buffer>, Number, usize, usize)| {
        let fill = || {
            let this = this.left()?;
            let bits = bits(this.0.element(), number)?;
            this.0.fill(range(from, to), bits);
            Some(())
        };
        fill().is_some()
    })?;
    natives.add(
        "buffer_copy",
        |_, _, (this, at, source, from, to): (This<Buffer>, usize, This<Buffer>, usize, usize)| {
            if let (Some(this), Some(source)) = (this.left(), source.left()) {
                this.0.copy(at - 1, &source.0, range(from, to));
            }
        },
    )?;
    natives.add("buffer_write", |_, _, (this, at, bytes): (This<Buffer>, usize, LuaString)| {
        if let Some(this) = this.left() {
            this.0.write(at - 1, &bytes.as_bytes());
        }
    })?;
    natives.add_raising("buffer_slice", |lua, _, (this, from, to): (This<Buffer>, usize, usize)| {
        let Some(this) = this.left() else { return Ok(None) };
        from_handle(lua, Handle::Buffer(this.0.slice(range(from, to)))).map(Some)
    })?;
    natives.add_raising("buffer_bytes", |lua, _, (this, from, to): (This<Buffer>, usize, usize)| {
        let bytes = this.left().and_then(|this| this.0.bytes(range(from, to)).ok());
        bytes.map(|bytes| lua.create_string(bytes)).transpose()
    })?;
    natives.add("buffer_pointer", |_, _, this: This<Buffer>| Some(LightUserData(this.left()?.0.pointer())))?;
    natives.add("buffer_info", |_, _, this: This<Buffer>| match this.left() {
        None => (None, None, None, None),
        Some(this) => {
            let element = this.0.element();
            let (least, greatest) = element.range().unzip();
            let greatest = greatest.map(|greatest| if HAS_INTEGERS { greatest } else { greatest.min(MOST_OF_FLOAT) });
            let least = least.map(|least| if HAS_INTEGERS { least } else { least.max(-MOST_OF_FLOAT) });
            (Some(this.0.len()), Some(element.name()), least, greatest)
        }
    })
}

/// The range that Lua names by its first and last position.
fn range(from: usize, to: usize) -> Range<usize> {
    from - 1..to
}

fn to_lua(number: Given) -> Value {
    match number {
        Given::Whole(whole) => Value::Integer(whole),
        Given::Float(float) => Value::Number(float),
    }
}

#[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
fn bits(element: Element, number: Number) -> Option<u64> {
    match element.range() {
        None => element.bits(Given::Float(number)),
        Some(_) if number.fract() == 0.0 && number.abs() <= MOST_OF_FLOAT as f64 => {
            element.bits(Given::Whole(number as i64))
        }
        Some(_) => None,
    }
}

#[cfg(not(any(feature = "lua51", feature = "lua52", feature = "luajit")))]
fn bits(element: Element, number: Number) -> Option<u64> {
    match (element.range(), number) {
        (None, Value::Number(float)) => element.bits(Given::Float(float)),
        (_, number) => element.bits(Given::Whole(whole(&number)?)),
    }
}
