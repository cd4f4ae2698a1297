//! The timer queue: what fires next, by deadline and then by creation.
//!
//! A radix queue. Time only moves forward, so a deadline need not be placed exactly until it is close: an entry lies
//! in the bucket named by the highest bit in which its deadline differs from `base`, the time up to which everything
//! has been taken out.
//!
//! | bucket | deadlines that it holds |
//! |---|---|
//! | 0 | `base` and before |
//! | *n* | those whose highest bit unlike `base` is bit *n* - 1 |
//!
//! When time reaches `now`, the buckets below the one that `now` itself would lie in are due as a whole; that one is
//! divided anew; those above stay as they are. So adding is a push, an entry is moved at most once per bit, and what
//! is due together is sorted together, which is several times faster than as many pops from a heap of a million.

use std::collections::VecDeque;

use super::clock::Nanos;
use super::slots::{Id, Slot};

/// Deadlines lie below 2^63.
const BUCKETS: usize = 64;

/// The latest deadline; what would be later is taken for this one (292 years).
pub const LATEST: Nanos = (1 << 63) - 1;

/// That the timer `id` in `slot` is to fire at `deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub deadline: Nanos,
    /// Ids ascend, so this is also the order of creation.
    pub id: Id,
    /// Where the timer's record is.
    pub slot: Slot,
}

/// Entries, to be taken out as they become due.
#[derive(Debug)]
pub struct TimerQueue {
    base: Nanos,
    buckets: [Vec<Entry>; BUCKETS],
    /// The earliest deadline of each bucket that is not empty.
    earliest: [Nanos; BUCKETS],
    /// Bit *n* is set when bucket *n* is not empty.
    occupied: u64,
    len: usize,
}

impl Default for TimerQueue {
    fn default() -> Self {
        TimerQueue {
            base: 0,
            buckets: [const { Vec::new() }; BUCKETS],
            earliest: [LATEST; BUCKETS],
            occupied: 0,
            len: 0,
        }
    }
}

impl TimerQueue {
    /// The number of entries, stale ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Nanos> {
        (self.occupied != 0).then(|| self.earliest[self.occupied.trailing_zeros() as usize])
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: Entry) {
        let bucket = self.bucket_of(entry.deadline);
        if self.occupied & 1 << bucket == 0 || entry.deadline < self.earliest[bucket] {
            self.earliest[bucket] = entry.deadline;
        }
        self.occupied |= 1 << bucket;
        self.buckets[bucket].push(entry);
        self.len += 1;
    }

    /// Moves what is due at `now` to the end of `due`, in order.
    pub fn take_due(&mut self, now: Nanos, due: &mut VecDeque<Entry>) {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let divided = self.bucket_of(now);
        self.base = now.max(self.base);
        let start = due.len();
        for bucket in 0..=divided {
            let mut entries = self.take(bucket);
            entries.retain(|entry| entry.deadline <= now || self.put_back(*entry));
            // A large bucket becomes the list of what is due as it is: new memory is dear.
            if due.is_empty() { *due = entries.into() } else { due.extend(entries) }
        }
        due.make_contiguous()[start..].sort_unstable_by_key(|entry| (entry.deadline, entry.id));
    }

    /// Drops the entries that `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        for bucket in 0..BUCKETS {
            for entry in self.take(bucket) {
                if keep(&entry) {
                    self.push(entry);
                }
            }
        }
    }

    fn put_back(&mut self, entry: Entry) -> bool {
        self.push(entry);
        false
    }

    fn bucket_of(&self, deadline: Nanos) -> usize {
        match deadline > self.base {
            true => 64 - (deadline ^ self.base).leading_zeros() as usize,
            false => 0,
        }
    }

    fn take(&mut self, bucket: usize) -> Vec<Entry> {
        self.occupied &= !(1 << bucket);
        self.len -= self.buckets[bucket].len();
        std::mem::take(&mut self.buckets[bucket])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(deadline: Nanos, id: u64) -> Entry {
        Entry { deadline, id: Id(id), slot: Slot(id as u32) }
    }

    fn due_at(queue: &mut TimerQueue, now: Nanos) -> Vec<u64> {
        let mut due = VecDeque::new();
        queue.take_due(now, &mut due);
        due.iter().map(|entry| entry.id.0).collect()
    }

    #[test]
    fn due_entries_come_by_deadline_and_then_by_creation() {
        let mut queue = TimerQueue::default();
        for (deadline, id) in [(30, 1), (10, 4), (20, 3), (10, 2), (40, 5)] {
            queue.push(entry(deadline, id));
        }
        assert_eq!(queue.next_deadline(), Some(10));
        assert_eq!(due_at(&mut queue, 30), [2, 4, 3, 1]);
        assert_eq!(queue.next_deadline(), Some(40));
        assert!(due_at(&mut queue, 39).is_empty());
        assert_eq!(due_at(&mut queue, 40), [5]);
        assert!(queue.is_empty() && queue.next_deadline().is_none());
    }

    #[test]
    fn an_entry_at_or_before_the_base_is_due_at_once() {
        let mut queue = TimerQueue::default();
        queue.push(entry(5, 1));
        due_at(&mut queue, 100);
        queue.push(entry(100, 2));
        queue.push(entry(7, 3));
        assert_eq!(queue.next_deadline(), Some(7));
        assert_eq!(due_at(&mut queue, 100), [3, 2]);
    }

    #[test]
    fn retain_drops_what_it_is_told_to() {
        let mut queue = TimerQueue::default();
        (1..=100).for_each(|id| queue.push(entry(id * 1000, id)));
        queue.retain(|entry| entry.id.0 % 10 == 0);
        assert_eq!((queue.len(), queue.next_deadline()), (10, Some(10_000)));
        assert_eq!(due_at(&mut queue, LATEST).len(), 10);
    }

    /// Against a sorted list, over random pushes and steps of time of every size.
    #[test]
    fn agrees_with_a_sorted_list() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let (mut queue, mut model, mut now) = (TimerQueue::default(), Vec::new(), 0);
        for id in 1..if cfg!(miri) { 500 } else { 50_000 } {
            let deadline = (now + (random() >> (20 + random() % 44))).min(LATEST);
            queue.push(entry(deadline, id));
            model.push((deadline, id));
            if id % 7 == 0 {
                now += random() >> (24 + random() % 40);
                model.sort_unstable();
                let due: Vec<_> = model.extract_if(.., |(deadline, _)| *deadline <= now).map(|(_, id)| id).collect();
                assert_eq!(due_at(&mut queue, now), due, "at {now}");
            }
            assert_eq!(queue.next_deadline(), model.iter().map(|(deadline, _)| *deadline).min());
            if model.len() > 300 {
                now = LATEST.min(now + (1 << 40));
            }
        }
    }
}
