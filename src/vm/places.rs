//! The places of a VM: what it has locked between VMs, and what it waits for.
//!
//! Whatever becomes of the VM, each of them is left in the end, or the others would wait for ever.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use crate::worker::shared::{Mutex, Place};

/// See above.
#[derive(Debug, Default)]
pub struct Places {
    taken: RefCell<HashMap<Place, Taken>>,
    waiting: Cell<usize>,
}

#[derive(Debug)]
struct Taken {
    mutex: Arc<Mutex>,
    is_waiting: bool,
}

impl Places {
    /// Notes a place.
    pub fn take(&self, place: Place, mutex: Arc<Mutex>, is_waiting: bool) {
        self.waiting.set(self.waiting.get() + usize::from(is_waiting));
        self.taken.borrow_mut().insert(place, Taken { mutex, is_waiting });
    }

    /// Notes that a place need not wait any more.
    pub fn woken(&self, place: Place) {
        if let Some(taken) = self.taken.borrow_mut().get_mut(&place) {
            self.stop_waiting(taken);
        }
    }

    /// Whether the mutex is held at a place, though the one that waits there may not have been told by now.
    pub fn is_held(&self, place: Place) -> bool {
        self.taken.borrow().get(&place).is_some_and(|taken| taken.mutex.is_held_at(place))
    }

    /// Leaves a place; false if it was left before.
    pub fn leave(&self, place: Place) -> bool {
        let Some(mut taken) = self.taken.borrow_mut().remove(&place) else { return false };
        self.stop_waiting(&mut taken);
        taken.mutex.leave(place);
        true
    }

    /// Leaves all places.
    pub fn leave_all(&self) {
        self.waiting.set(0);
        let taken = self.taken.take();
        // Those that wait first: what is unlocked is not handed to one of them.
        let (waiting, holding): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(_, taken)| taken.is_waiting);
        for (place, taken) in waiting.into_iter().chain(holding) {
            taken.mutex.leave(place);
        }
    }

    /// In the child of a fork: who could end these waits is not there.
    pub fn forget_waits(&self) {
        self.taken.borrow_mut().values_mut().for_each(|taken| self.stop_waiting(taken));
    }

    /// Whether a place waits.
    pub fn is_waiting(&self) -> bool {
        self.waiting.get() > 0
    }

    fn stop_waiting(&self, taken: &mut Taken) {
        if std::mem::take(&mut taken.is_waiting) {
            self.waiting.set(self.waiting.get() - 1);
        }
    }
}
