//! What a VM remembers of the functions that it has sent and received.
//!
//! Sent: a function is turned into bytecode once. A table with weak keys says which bytecode is a function's. Closures
//! that are made anew in a loop are different functions of the same code, and share their bytecode as well.
//!
//! Received: a function without upvalues but for its globals and itself has nothing that could tell it from another one
//! of the same code. So it is made once, and given to each message that has it: compiled code stays compiled. It is
//! looked at before, as a job may have changed even these. The few that came last are kept.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use mlua::{Function, Lua, Table, Value};
use rustc_hash::FxHashMap;

use super::raw;
use super::transfer::weak_table;
use crate::worker::Bytecode;

/// What a VM remembers of either kind before it looks what is still needed: how many, and of how many bytes.
const MOST: usize = 64;
const MOST_BYTES: usize = 1 << 20;

/// See above.
#[derive(Debug)]
pub struct Functions {
    /// From functions to the ids of their bytecode.
    pub sent: Table,
    /// The functions that were received, by their slots.
    pub received: Table,
    dump_entry: Function,
    bytecode: RefCell<Sent>,
    slots: RefCell<Received>,
}

#[derive(Debug, Default)]
struct Sent {
    by_id: FxHashMap<u64, Arc<Bytecode>>,
    by_content: HashMap<Content, u64>,
    bytes: usize,
    /// How many there may be, and of how many bytes, until it is looked which functions are gone.
    most: usize,
    most_bytes: usize,
}

/// Bytecode that is found by what it is.
#[derive(Debug)]
struct Content(Arc<Bytecode>);

impl Borrow<[u8]> for Content {
    fn borrow(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.bytes.hash(state);
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for Content {}

#[derive(Debug, Default)]
struct Received {
    by_id: FxHashMap<u64, Slot>,
    bytes: usize,
    /// The slots that were given up, and the last one that was not used before.
    free: Vec<i32>,
    last: i32,
    /// How many messages were begun.
    messages: u64,
}

#[derive(Debug)]
struct Slot {
    number: i32,
    bytecode: Weak<Bytecode>,
    bytes: usize,
    /// How many messages were begun when it was given to one last.
    message: u64,
}

/// Where a received function is found, or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is in this slot.
    At(i32),
    /// It is to be made, and could be kept in this slot.
    New(i32),
    /// It is to be made for this message alone.
    None,
}

impl Functions {
    /// Those of a VM that has neither sent nor received any.
    pub fn new(lua: &Lua) -> mlua::Result<Self> {
        Ok(Functions {
            sent: weak_table(lua)?,
            received: lua.create_table()?,
            dump_entry: raw::dump_entry(lua)?,
            bytecode: RefCell::new(Sent { most: MOST, most_bytes: MOST_BYTES, ..Sent::default() }),
            slots: RefCell::default(),
        })
    }

    /// The bytecode with this id.
    pub fn bytecode(&self, id: u64) -> Option<Arc<Bytecode>> {
        self.bytecode.borrow().by_id.get(&id).cloned()
    }

    /// Makes the bytecode of a function that has none yet.
    pub fn dump(&self, function: &Function) -> mlua::Result<()> {
        let bytes = raw::dump(&self.dump_entry, function)?;
        let known = self.bytecode.borrow().by_content.get(bytes.as_slice()).copied();
        let id = match known {
            Some(id) => id,
            None => {
                self.forget_collected()?;
                self.bytecode.borrow_mut().add(Arc::new(Bytecode::new(bytes)))
            }
        };
        self.sent.raw_set(function, id as f64)
    }

    /// Forgets the bytecode of functions that are gone, if there is much.
    fn forget_collected(&self) -> mlua::Result<()> {
        if !self.bytecode.borrow().is_full() {
            return Ok(());
        }
        let mut living = HashSet::new();
        self.sent.for_each(|_: Value, id: f64| {
            living.insert(id as u64);
            Ok(())
        })?;
        self.bytecode.borrow_mut().retain(|id| living.contains(&id));
        Ok(())
    }

    /// Begins to read another message, and gives it a number.
    pub fn begin_message(&self) -> u64 {
        let mut slots = self.slots.borrow_mut();
        slots.messages += 1;
        slots.messages
    }

    /// Where a function without upvalues is. In one message, functions that were different stay so.
    pub fn place(&self, bytecode: &Arc<Bytecode>, message: u64) -> Place {
        self.slots.borrow_mut().place(bytecode, message)
    }

    /// The slot of a function without upvalues that was received before, for a message that has no other.
    pub fn known(&self, bytecode: &Bytecode) -> Option<i32> {
        let Received { by_id, messages, .. } = &mut *self.slots.borrow_mut();
        let slot = by_id.get_mut(&bytecode.id)?;
        *messages += 1;
        slot.message = *messages;
        Some(slot.number)
    }

    /// Gives up a function that was received.
    pub fn forget(&self, bytecode: &Bytecode) {
        self.slots.borrow_mut().forget(bytecode.id);
    }

    /// Notes that a function is in the slot that [`Functions::place`] has named.
    pub fn keep(&self, bytecode: &Arc<Bytecode>, number: i32) {
        self.slots.borrow_mut().keep(bytecode, number);
    }
}

impl Sent {
    fn is_full(&self) -> bool {
        self.by_id.len() >= self.most || self.bytes >= self.most_bytes
    }

    fn add(&mut self, bytecode: Arc<Bytecode>) -> u64 {
        let id = bytecode.id;
        self.bytes += bytecode.bytes.len();
        self.by_content.insert(Content(Arc::clone(&bytecode)), id);
        self.by_id.insert(id, bytecode);
        id
    }

    fn retain(&mut self, is_living: impl Fn(u64) -> bool) {
        self.by_id.retain(|id, _| is_living(*id));
        self.by_content.retain(|_, id| is_living(*id));
        self.bytes = self.by_id.values().map(|bytecode| bytecode.bytes.len()).sum();
        self.most = MOST.max(2 * self.by_id.len());
        self.most_bytes = MOST_BYTES.max(2 * self.bytes);
    }
}

impl Received {
    fn place(&mut self, bytecode: &Arc<Bytecode>, message: u64) -> Place {
        if let Some(slot) = self.by_id.get_mut(&bytecode.id) {
            // A finalizer or a module may have read another message since this one was begun.
            if slot.message >= message {
                return Place::None;
            }
            slot.message = self.messages;
            return Place::At(slot.number);
        }
        let bytes = bytecode.bytes.len();
        if bytes > MOST_BYTES / 2 {
            return Place::None;
        }
        if self.by_id.len() >= MOST || self.bytes + bytes > MOST_BYTES {
            self.make_room(bytes);
        }
        Place::New(self.free.pop().unwrap_or_else(|| {
            self.last += 1;
            self.last
        }))
    }

    fn forget(&mut self, id: u64) {
        if let Some(slot) = self.by_id.remove(&id) {
            self.bytes -= slot.bytes;
            self.free.push(slot.number);
        }
    }

    fn keep(&mut self, bytecode: &Arc<Bytecode>, number: i32) {
        // While it was made, a finalizer may have received another one.
        self.forget(bytecode.id);
        let slot =
            Slot { number, bytecode: Arc::downgrade(bytecode), bytes: bytecode.bytes.len(), message: self.messages };
        self.bytes += slot.bytes;
        self.by_id.insert(bytecode.id, slot);
    }

    /// Gives up those that nobody can send any more; if that is not enough, all.
    fn make_room(&mut self, bytes: usize) {
        let Received { by_id, free, .. } = self;
        by_id.retain(|_, slot| {
            let is_kept = slot.bytecode.strong_count() > 0;
            if !is_kept {
                free.push(slot.number);
            }
            is_kept
        });
        self.bytes = self.by_id.values().map(|slot| slot.bytes).sum();
        if self.by_id.len() >= MOST || self.bytes + bytes > MOST_BYTES {
            self.free.extend(self.by_id.drain().map(|(_, slot)| slot.number));
            self.bytes = 0;
        }
    }
}
