//! Coroutines that wait for something, and those that can go on: the ready queue.

use std::collections::VecDeque;

use super::slots::{Id, Slot, Slots};

/// Registered waits. The [`Id`] of one is its wake token: used up by the first wake-up, so that a later one does nothing.
#[derive(Debug, Default)]
pub struct Waits {
    waiting: Slots<()>,
    ready: VecDeque<(Id, Slot)>,
}

impl Waits {
    /// Registers a wait; the caller keeps the coroutine under the slot.
    pub fn register(&mut self) -> (Id, Slot) {
        self.waiting.insert(())
    }

    /// Queues the wait's coroutine; a token that was used or released is nothing to it.
    pub fn wake(&mut self, token: Id) {
        if let Some(slot) = self.waiting.slot(token) {
            self.ready.push_back((token, slot));
        }
    }

    /// Forgets a wait: its coroutine went on without us.
    pub fn release(&mut self, token: Id) -> Option<Slot> {
        self.waiting.remove(token).map(|(slot, ())| slot)
    }

    /// The number of waits.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a coroutine can go on.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the next coroutine that can go on, first in first out.
    pub fn next_ready(&mut self) -> Option<Slot> {
        while let Some((token, slot)) = self.ready.pop_front() {
            if self.waiting.remove(token).is_some() {
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_woken_in_order_and_once() {
        let mut waits = Waits::default();
        let (first, one) = waits.register();
        let (second, two) = waits.register();
        let (third, _) = waits.register();
        for token in [second, first, second, third] {
            waits.wake(token);
        }
        assert!(waits.release(third).is_some());
        assert_eq!((waits.next_ready(), waits.next_ready(), waits.next_ready()), (Some(two), Some(one), None));
    }

    #[test]
    fn a_stale_token_does_not_wake_the_next_wait_of_its_slot() {
        let mut waits = Waits::default();
        let (stale, slot) = waits.register();
        assert_eq!(waits.release(stale), Some(slot));
        let (_, same) = waits.register();
        assert_eq!(same, slot);
        waits.wake(stale);
        assert_eq!((waits.next_ready(), waits.len()), (None, 1));
    }
}
