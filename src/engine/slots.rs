//! Records under an id that is never used again and a slot that is.
//!
//! # Ground rules
//!
//! The *id* is what users hold: unique in the process for its lifetime, whatever is cleared, fired or closed, so a
//! stale id finds nothing. The *slot* is where the layers above keep the callback or coroutine: dense and used again,
//! so that they can be kept in the array part of a Lua table.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// A number greater than 0 and below 2^53 (exact in a Lua float), given out once in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl Id {
    /// The id that a Lua number stands for: whole and in the range of ids; any other is the id of nothing.
    pub fn from_number(number: f64) -> Option<Self> {
        (number >= 1.0 && number < (1_u64 << 53) as f64 && number.fract() == 0.0).then_some(Id(number as u64))
    }
}

/// An index that is in use for one record at a time; the first one is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

/// Ids are taken from the process in blocks, so that the shared counter is touched once in a while only.
const IDS_PER_BLOCK: u64 = 4096;

/// Gives out ids, ascending.
#[derive(Debug, Default)]
struct Ids {
    next: u64,
    end: u64,
}

impl Ids {
    fn take(&mut self) -> Id {
        static NEXT_BLOCK: AtomicU64 = AtomicU64::new(1);
        if self.next == self.end {
            self.next = NEXT_BLOCK.fetch_add(IDS_PER_BLOCK, Ordering::Relaxed);
            self.end = self.next + IDS_PER_BLOCK;
        }
        self.next += 1;
        Id(self.next - 1)
    }
}

/// Where each id's record is.
///
/// A hash table of pages of neighbouring ids. Ids that were given out one after the other are mostly in use together,
/// so that a page is well filled and an id takes few bytes: at a million timers, the time for creating one is mostly
/// the operating system's for handing out memory.
#[derive(Debug, Default)]
struct Index {
    pages: HashMap<u64, [u32; IDS_PER_PAGE], BuildHasherDefault<PageHasher>>,
}

const IDS_PER_PAGE: usize = 16;

impl Index {
    fn split(id: Id) -> (u64, usize) {
        (id.0 / IDS_PER_PAGE as u64, id.0 as usize % IDS_PER_PAGE)
    }

    fn insert(&mut self, id: Id, slot: Slot) {
        let (page, at) = Self::split(id);
        self.pages.entry(page).or_default()[at] = slot.0 + 1;
    }

    fn get(&self, id: Id) -> Option<Slot> {
        let (page, at) = Self::split(id);
        self.pages.get(&page)?[at].checked_sub(1).map(Slot)
    }

    fn remove(&mut self, id: Id) -> Option<Slot> {
        let (page, at) = Self::split(id);
        let slots = self.pages.get_mut(&page)?;
        let slot = std::mem::take(&mut slots[at]).checked_sub(1).map(Slot);
        if *slots == [0; IDS_PER_PAGE] {
            self.pages.remove(&page);
        }
        slot
    }
}

/// Keeps neighbouring pages in neighbouring places of the table, hence in the same cache lines.
#[derive(Default)]
struct PageHasher(u64);

impl Hasher for PageHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("page numbers hash as one u64")
    }

    fn write_u64(&mut self, page: u64) {
        // The table takes the place from the low bits and a check byte from the top seven; page numbers leave those.
        self.0 = page | page << 57;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The record of each slot, in chunks: a list that grows by moving takes the operating system's memory twice.
#[derive(Debug)]
struct Records<T> {
    chunks: Vec<Vec<Option<(Id, T)>>>,
    len: usize,
}

const RECORDS_PER_CHUNK: usize = 512;

impl<T> Records<T> {
    fn get(&self, slot: Slot) -> Option<&Option<(Id, T)>> {
        let at = slot.0 as usize;
        self.chunks.get(at / RECORDS_PER_CHUNK)?.get(at % RECORDS_PER_CHUNK)
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Option<(Id, T)>> {
        let at = slot.0 as usize;
        self.chunks.get_mut(at / RECORDS_PER_CHUNK)?.get_mut(at % RECORDS_PER_CHUNK)
    }

    fn push(&mut self, record: Option<(Id, T)>) {
        if self.len.is_multiple_of(RECORDS_PER_CHUNK) {
            // The first chunk grows, since most programs have few timers.
            let capacity = if self.chunks.is_empty() { 0 } else { RECORDS_PER_CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(record);
        }
        self.len += 1;
    }
}

impl<T> Default for Records<T> {
    fn default() -> Self {
        Records { chunks: Vec::new(), len: 0 }
    }
}

/// Records that are found by id or by slot.
#[derive(Debug)]
pub struct Slots<T> {
    ids: Ids,
    index: Index,
    records: Records<T>,
    vacant: Vec<Slot>,
}

impl<T> Slots<T> {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.records.len - self.vacant.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot that the next record is kept in.
    pub fn next_slot(&self) -> Slot {
        self.vacant.last().copied().unwrap_or(Slot(self.records.len as u32))
    }

    /// Keeps `record`, in the slot that was vacated last.
    pub fn insert(&mut self, record: T) -> (Id, Slot) {
        let id = self.ids.take();
        let slot = self.next_slot();
        let record = Some((id, record));
        match self.records.get_mut(slot) {
            Some(vacant) => {
                self.vacant.pop();
                *vacant = record;
            }
            None => self.records.push(record),
        }
        self.index.insert(id, slot);
        (id, slot)
    }

    /// The slot of `id`, if it is still in use.
    pub fn slot(&self, id: Id) -> Option<Slot> {
        self.index.get(id)
    }

    /// The record of `id`.
    pub fn get(&self, id: Id) -> Option<&T> {
        self.get_at(self.slot(id)?, id)
    }

    /// The record in `slot`, if it is that of `id`: without a look into the index.
    pub fn get_at(&self, slot: Slot, id: Id) -> Option<&T> {
        match self.records.get(slot) {
            Some(Some((found, record))) if *found == id => Some(record),
            _ => None,
        }
    }

    /// As [`Slots::get_at`], to change it.
    pub fn get_at_mut(&mut self, slot: Slot, id: Id) -> Option<&mut T> {
        match self.records.get_mut(slot) {
            Some(Some((found, record))) if *found == id => Some(record),
            _ => None,
        }
    }

    /// Vacates the slot of `id`.
    pub fn remove(&mut self, id: Id) -> Option<(Slot, T)> {
        let slot = self.index.remove(id)?;
        let (_, record) = self.records.get_mut(slot)?.take()?;
        self.vacant.push(slot);
        Some((slot, record))
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { ids: Ids::default(), index: Index::default(), records: Records::default(), vacant: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_ids_are_not() {
        let mut slots = Slots::default();
        let (first, slot) = slots.insert('a');
        assert_eq!(slots.remove(first), Some((slot, 'a')));
        assert_eq!(slots.remove(first), None);
        let (second, reused) = slots.insert('b');
        assert_eq!(reused, slot);
        assert!(second > first);
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&'b')));
        assert_eq!(slots.get_at(slot, first), None);
    }

    #[test]
    fn ids_are_unique_over_tables_and_blocks() {
        let (mut one, mut two) = (Slots::default(), Slots::default());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 * IDS_PER_BLOCK {
            assert!(seen.insert(one.insert(()).0));
            assert!(seen.insert(two.insert(()).0));
        }
        assert!(seen.iter().all(|id| id.0 > 0 && id.0 < 1 << 53));
    }
}
