//! What lies in tables and channels.

use std::cell::RefCell;
use std::mem;

use super::Handle;
use crate::worker::Message;

/// A value without anything in it; the keys of tables are such values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// The bits of a float.
    Number(u64),
    /// A string.
    String(Box<[u8]>),
}

/// A value, or several.
#[derive(Debug)]
pub enum Stored {
    /// One that is quickly made again.
    Scalar(Scalar),
    /// Any other.
    Message(Message),
}

impl Stored {
    /// What crosses by reference in it.
    pub fn handles(&self) -> &[Handle] {
        match self {
            Stored::Scalar(_) => &[],
            Stored::Message(message) => &message.handles,
        }
    }
}

thread_local! {
    /// What is still to be dropped while something is.
    static GRAVES: RefCell<Option<Vec<Vec<Handle>>>> = const { RefCell::new(None) };
}

/// Drops values. However deep channels and tables lie in each other, this does not call itself.
pub fn bury(values: impl IntoIterator<Item = Stored>) {
    let handles = values.into_iter().filter_map(|value| match value {
        Stored::Message(message) if !message.handles.is_empty() => Some(message.handles),
        _ => None,
    });
    let mut graves: Vec<_> = handles.collect();
    if graves.is_empty() {
        return;
    }
    let is_nested = GRAVES.try_with(|all| match &mut *all.borrow_mut() {
        Some(rest) => {
            rest.append(&mut graves);
            true
        }
        none => {
            *none = Some(mem::take(&mut graves));
            false
        }
    });
    // When the thread is ending there is no such list, and they go as they are.
    if is_nested != Ok(false) {
        return;
    }
    let next = || GRAVES.try_with(|all| all.borrow_mut().as_mut().and_then(Vec::pop)).ok().flatten();
    while let Some(grave) = next() {
        drop(grave);
    }
    let _ = GRAVES.try_with(RefCell::take);
}
