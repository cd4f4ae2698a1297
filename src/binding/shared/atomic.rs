//! Natives of `scheduler.shared.atomic`.

use std::sync::Arc;

use mlua::{Either, Result, Value};

use super::super::Natives;
use super::{Atomic, MOST_OF_FLOAT, This, from_handle, whole};
use crate::vm::transfer::HAS_INTEGERS;
use crate::worker::{Handle, shared};

pub fn add(natives: &Natives) -> Result<()> {
    natives.add_raising("new_atomic", |lua, _, value: Value| {
        let Some(value) = whole(&value) else { return Ok(None) };
        from_handle(lua, Handle::Atomic(Arc::new(shared::Atomic::new(value)))).map(Some)
    })?;
    natives.add("atomic_get", |_, _, this: This<Atomic>| Some(this.left()?.0.get()))?;
    natives.add("atomic_set", |_, _, (this, value): (This<Atomic>, Value)| match (this, whole(&value)) {
        (Either::Left(this), Some(value)) => {
            this.0.set(value);
            true
        }
        _ => false,
    })?;
    natives
        .add("atomic_swap", |_, _, (this, value): (This<Atomic>, Value)| Some(this.left()?.0.swap(whole(&value)?)))?;
    natives.add("atomic_exchange", |_, _, (this, expected, value): (This<Atomic>, Value, Value)| {
        let exchange = || Some(this.left()?.0.compare_exchange(whole(&expected)?, whole(&value)?));
        match exchange() {
            Some(Ok(value)) => (Some(true), Some(value)),
            Some(Err(value)) => (Some(false), Some(value)),
            None => (None, None),
        }
    })?;
    natives.add("atomic_add", |_, _, (this, number): (This<Atomic>, Value)| sum(&*this.left()?, whole(&number)?))?;
    natives.add("atomic_sub", |_, _, (this, number): (This<Atomic>, Value)| {
        sum(&*this.left()?, whole(&number)?.wrapping_neg())
    })
}

/// Adds; Lua's integers wrap around, floats cannot.
fn sum(atomic: &Atomic, number: i64) -> Option<i64> {
    match HAS_INTEGERS {
        true => Some(atomic.0.add(number)),
        false => atomic.0.add_within(number, &(-MOST_OF_FLOAT..=MOST_OF_FLOAT)),
    }
}
