//! A dictionary that many VMs may use at once.
//!
//! # Ground rules
//!
//! The lock of a shard is held for a look into a map, never while a program's function runs. An update marks its entry
//! instead: until it has ended, others that want to change that entry wait, those that read it get the old value, and
//! all other entries are free. That is why this is no map of a crate: they hold a whole shard for so long, for readers
//! as well, or call the function again if another was faster.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Counted;
use super::stored::{Scalar, Stored, bury};

/// More than there are cores in most machines; a power of two.
const SHARDS: usize = 32;

/// Keys and values.
#[derive(Debug)]
pub struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    _counted: Counted,
}

#[derive(Debug, Default)]
struct Shard {
    /// A std mutex: nothing is awaited, and no function of a program is called while it is held.
    entries: Mutex<HashMap<Scalar, Entry>>,
    /// Tells that an update has ended.
    updated: Condvar,
}

#[derive(Debug, Default)]
struct Entry {
    /// `None` while an update makes the first value.
    value: Option<Arc<Stored>>,
    is_updating: bool,
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, HashMap<Scalar, Entry>> {
        // What panicked while it was held has left a whole map.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries, when that of `key` is not being updated.
    fn lock_for_change(&self, key: &Scalar) -> MutexGuard<'_, HashMap<Scalar, Entry>> {
        let mut entries = self.lock();
        while entries.get(key).is_some_and(|entry| entry.is_updating) {
            entries = self.updated.wait(entries).unwrap_or_else(PoisonError::into_inner);
        }
        entries
    }
}

impl Table {
    /// One without entries.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Table { shards, hasher: RandomState::new(), _counted: Counted::new() }
    }

    fn shard(&self, key: &Scalar) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// The value of a key.
    pub fn get(&self, key: &Scalar) -> Option<Arc<Stored>> {
        self.shard(key).lock().get(key)?.value.clone()
    }

    /// Sets a value, or deletes it; returns whether there was one.
    pub fn set(&self, key: Scalar, value: Option<Stored>) -> bool {
        let mut entries = self.shard(&key).lock_for_change(&key);
        let former = match value {
            Some(value) => entries.insert(key, Entry { value: Some(Arc::new(value)), is_updating: false }),
            None => entries.remove(&key),
        };
        drop(entries);
        // Dropped after the lock is free: there may be much in it.
        former.is_some()
    }

    /// Begins to update a value; waits as long as another does.
    pub fn update(&self, key: Scalar) -> Update<'_> {
        let shard = self.shard(&key);
        let mut entries = shard.lock_for_change(&key);
        let entry = entries.entry(key.clone()).or_default();
        entry.is_updating = true;
        Update { shard, key, value: entry.value.clone() }
    }

    /// The keys, in no order.
    pub fn keys(&self) -> Vec<Scalar> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let entries = shard.lock();
            keys.extend(entries.iter().filter(|(_, entry)| entry.value.is_some()).map(|(key, _)| key.clone()));
        }
        keys
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        let count = |shard: &Shard| shard.lock().values().filter(|entry| entry.value.is_some()).count();
        self.shards.iter().map(count).sum()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let values = |shard: &Shard| shard.lock().drain().filter_map(|(_, entry)| entry.value).collect::<Vec<_>>();
        bury(self.shards.iter().flat_map(values).filter_map(Arc::into_inner));
    }
}

/// An entry that nobody else can change. Dropped, it leaves the old value.
#[derive(Debug)]
pub struct Update<'a> {
    shard: &'a Shard,
    key: Scalar,
    /// The value so far.
    pub value: Option<Arc<Stored>>,
}

impl Update<'_> {
    /// Sets the new value, or deletes it.
    pub fn finish(self, value: Option<Stored>) {
        let former = self
            .shard
            .lock()
            .get_mut(&self.key)
            .and_then(|entry| std::mem::replace(&mut entry.value, value.map(Arc::new)));
        // The value lives in `self` as well: nothing is dropped while the lock is held.
        drop(former);
    }
}

impl Drop for Update<'_> {
    fn drop(&mut self) {
        let mut entries = self.shard.lock();
        match entries.get_mut(&self.key) {
            Some(entry) if entry.value.is_some() => entry.is_updating = false,
            _ => drop(entries.remove(&self.key)),
        }
        // Release, then notify.
        drop(entries);
        self.shard.updated.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Handle, count};
    use super::*;
    use crate::worker::Message;

    fn integer(n: i64) -> Stored {
        Stored::Scalar(Scalar::Integer(n))
    }

    fn key(name: &str) -> Scalar {
        Scalar::String(name.as_bytes().into())
    }

    fn value(stored: Option<Arc<Stored>>) -> Option<i64> {
        match stored.as_deref() {
            Some(Stored::Scalar(Scalar::Integer(n))) => Some(*n),
            _ => None,
        }
    }

    #[test]
    fn values_are_set_and_deleted() {
        let table = Table::new();
        assert!(!table.set(key("a"), Some(integer(1))));
        assert!(table.set(key("a"), Some(integer(2))));
        assert_eq!((value(table.get(&key("a"))), table.len()), (Some(2), 1));
        assert_eq!(table.keys(), [key("a")]);
        assert!(table.set(key("a"), None) && !table.set(key("a"), None));
        assert!(table.is_empty() && table.keys().is_empty());
    }

    #[test]
    fn updates_of_many_threads_all_count() {
        let table = Table::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let update = table.update(key("n"));
                        let n = value(update.value.clone()).unwrap_or(0);
                        update.finish(Some(integer(n + 1)));
                    }
                });
            }
        });
        assert_eq!(value(table.get(&key("n"))), Some(8_000));
    }

    #[test]
    fn an_update_holds_up_those_who_change_the_entry_and_nobody_else() {
        let table = Table::new();
        table.set(key("n"), Some(integer(1)));
        std::thread::scope(|scope| {
            let update = table.update(key("n"));
            let setting = scope.spawn(|| table.set(key("n"), Some(integer(10))));
            assert_eq!(value(table.get(&key("n"))), Some(1));
            (0..100).for_each(|n| assert!(!table.set(Scalar::Integer(n), Some(integer(n)))));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!setting.is_finished());
            update.finish(Some(integer(2)));
            assert!(setting.join().unwrap());
        });
        assert_eq!(value(table.get(&key("n"))), Some(10));
    }

    #[test]
    fn an_update_that_is_dropped_changes_nothing() {
        let table = Table::new();
        drop(table.update(key("none")));
        assert!(table.is_empty() && table.shard(&key("none")).lock().is_empty());
        table.set(key("n"), Some(integer(1)));
        drop(table.update(key("n")));
        assert_eq!(value(table.get(&key("n"))), Some(1));
        table.update(key("n")).finish(None);
        assert!(table.is_empty());
        assert!(!table.set(key("n"), Some(integer(2))));
    }

    #[test]
    fn tables_in_tables_are_freed_however_deep() {
        let mut outer = Arc::new(Table::new());
        let weak = Arc::downgrade(&outer);
        for _ in 0..20_000 {
            let next = Table::new();
            let message = Message { handles: vec![Handle::Table(outer)], ..Message::default() };
            next.set(key("inner"), Some(Stored::Message(message)));
            outer = Arc::new(next);
        }
        assert!(count() > 20_000);
        drop(outer);
        assert!(weak.upgrade().is_none());
    }
}
