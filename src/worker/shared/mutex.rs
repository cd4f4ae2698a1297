//! A lock between VMs: first come, first served.
//!
//! # Ground rules
//!
//! Who asks for the lock is given a place, a number that is used once in a process. The holder has a place as well, so
//! that to unlock and to give up waiting is the same: to leave. The lock is handed from the one who leaves to the one
//! who waits for the longest, whose VM is then told. If that one has given up meanwhile, it leaves too. So no wake-up
//! can be lost between the two, and nobody gets in between.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::{Counted, Place, new_place};
use crate::runtime::sync::{self, MutexGuard};
use crate::worker::job::Waker;

/// A lock.
#[derive(Debug, Default)]
pub struct Mutex {
    /// A std mutex: it is held for a few instructions, and nobody is woken under it.
    state: sync::Mutex<State>,
    _counted: Counted,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<Place>,
    /// Places ascend, so the first is that of who waits for the longest.
    waiting: BTreeMap<Place, Waker>,
}

impl Mutex {
    /// One that nobody holds.
    pub fn new() -> Self {
        Self::default()
    }

    /// A place, if nobody holds the lock: it is held now.
    pub fn try_lock(&self) -> Option<Place> {
        let mut state = self.state();
        if state.holder.is_some() {
            return None;
        }
        let place = new_place();
        state.holder = Some(place);
        Some(place)
    }

    /// A place, and whether the lock is held now. If it is not, the waker is called when it is.
    pub fn lock(&self, waker: Waker) -> (Place, bool) {
        let mut state = self.state();
        let place = new_place();
        if state.holder.is_none() {
            state.holder = Some(place);
            return (place, true);
        }
        state.waiting.insert(place, waker);
        (place, false)
    }

    /// Gives a place up, whether it holds the lock, waits for it, or neither.
    pub fn leave(&self, mut place: Place) {
        loop {
            let mut state = self.state();
            state.waiting.remove(&place);
            if state.holder != Some(place) {
                return;
            }
            let next = state.waiting.pop_first();
            state.holder = next.as_ref().map(|(next, _)| *next);
            // Release, then notify.
            drop(state);
            match next {
                // Whose VM is closed will not take it.
                Some((next, waker)) if !waker.wake(next) => place = next,
                _ => return,
            }
        }
    }

    /// Whether it is held at this place.
    pub fn is_held_at(&self, place: Place) -> bool {
        self.state().holder == Some(place)
    }

    /// Whether somebody holds it.
    pub fn is_locked(&self) -> bool {
        self.state().holder.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::runtime::CompletionQueue;
    use crate::worker::Completion;

    type Queue = Arc<CompletionQueue<Completion>>;

    fn queue() -> Queue {
        Arc::new(CompletionQueue::new())
    }

    fn woken(queue: &Queue) -> Vec<Place> {
        queue.take().into_iter().map(|completion| completion.number).collect()
    }

    #[test]
    fn it_is_handed_over_in_order() {
        let (mutex, queue) = (Mutex::new(), queue());
        let first = mutex.try_lock().unwrap();
        assert!(mutex.is_locked() && mutex.try_lock().is_none());
        let places: Vec<_> = (0..3).map(|_| mutex.lock(Waker::new(&queue)).0).collect();
        assert!(woken(&queue).is_empty());
        mutex.leave(first);
        mutex.leave(first);
        assert_eq!(woken(&queue), places[..1]);
        assert!(mutex.try_lock().is_none());
        mutex.leave(places[0]);
        mutex.leave(places[1]);
        mutex.leave(places[2]);
        assert_eq!(woken(&queue), places[1..]);
        assert!(!mutex.is_locked());
        assert!(mutex.lock(Waker::new(&queue)).1);
    }

    #[test]
    fn who_gives_up_is_passed_over_before_and_after_its_turn() {
        let (mutex, queue) = (Mutex::new(), queue());
        let first = mutex.try_lock().unwrap();
        let places: Vec<_> = (0..3).map(|_| mutex.lock(Waker::new(&queue)).0).collect();
        mutex.leave(places[0]);
        mutex.leave(first);
        mutex.leave(places[1]);
        assert_eq!(woken(&queue), places[1..]);
    }

    #[test]
    fn closed_vms_are_passed_over() {
        let (mutex, queue, closed, gone) = (Mutex::new(), queue(), self::queue(), self::queue());
        let first = mutex.try_lock().unwrap();
        mutex.lock(Waker::new(&gone));
        mutex.lock(Waker::new(&closed));
        let (place, _) = mutex.lock(Waker::new(&queue));
        drop(gone);
        closed.close();
        mutex.leave(first);
        assert_eq!(woken(&queue), [place]);
        mutex.leave(place);
        assert!(!mutex.is_locked());
    }

    #[test]
    fn one_at_a_time() {
        let (mutex, inside) = (Mutex::new(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let queue = queue();
                    for _ in 0..1_000 {
                        let (place, is_held) = mutex.lock(Waker::new(&queue));
                        while !is_held && woken(&queue) != [place] {
                            std::thread::yield_now();
                        }
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        mutex.leave(place);
                    }
                });
            }
        });
        assert!(!mutex.is_locked());
    }
}
