//! The completion queue: results that come from other threads.
//!
//! # Ground rules
//!
//! Any thread posts; the Lua thread alone takes, all that is there at once, at one point of its turn. Only the post
//! that finds the queue empty wakes the Lua thread: one wake-up for a batch, however long it grows until it is taken.

use std::sync::{OnceLock, PoisonError};

use super::descriptor::Signal;
use super::process;
use super::sync::atomic::{AtomicBool, Ordering};
use super::sync::{Mutex, MutexGuard, Notify};

/// Results on their way to the Lua thread.
#[derive(Debug)]
pub struct CompletionQueue<T> {
    /// The process that takes from it.
    pid: u32,
    /// A std mutex: it is held for a push or a swap, and never over an await.
    state: Mutex<State<T>>,
    /// Whether the batch is not empty: changed under the lock, looked at without.
    has_batch: AtomicBool,
    parked: Notify,
    /// What wakes a host that waits in a loop of its own.
    descriptor: OnceLock<Signal>,
}

#[derive(Debug)]
struct State<T> {
    batch: Vec<T>,
    closed: bool,
}

impl<T> CompletionQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State { batch: Vec::new(), closed: false };
        CompletionQueue {
            pid: process::id(),
            state: Mutex::new(state),
            has_batch: AtomicBool::new(false),
            parked: Notify::new(),
            descriptor: OnceLock::new(),
        }
    }

    /// Adds a result; it is dropped when nobody will take it any more.
    pub fn post(&self, result: T) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let first = state.batch.is_empty();
        state.batch.push(result);
        self.has_batch.store(true, Ordering::Release);
        // Release, then notify: the Lua thread would else wake up only to wait for this lock.
        drop(state);
        if first {
            self.parked.notify_one();
            if let Some(descriptor) = self.descriptor.get() {
                descriptor.raise();
            }
        }
    }

    /// Takes all that was posted.
    pub fn take(&self) -> Vec<T> {
        // What is posted after this look wakes the thread, or keeps it from parking.
        if self.is_empty() {
            return Vec::new();
        }
        let mut state = self.lock();
        self.has_batch.store(false, Ordering::Release);
        std::mem::take(&mut state.batch)
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        !self.has_batch.load(Ordering::Acquire)
    }

    /// Whether posts are in vain because the Lua state is gone.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether it is this process that takes from it. If not, a thread that is not there may hold the lock.
    pub fn is_taken_here(&self) -> bool {
        self.pid == process::id()
    }

    /// Drops what is there and what comes.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.has_batch.store(false, Ordering::Release);
        let dropped = std::mem::take(&mut state.batch);
        drop(state);
        drop(dropped);
    }

    /// Returns when there is something to take.
    pub async fn posted(&self) {
        // A post that was taken before this thread parked has left its notice.
        while self.is_empty() {
            self.parked.notified().await;
        }
    }

    /// Lets posts make a descriptor readable as well.
    pub fn raise_on_post(&self, descriptor: Signal) {
        // A queue has one descriptor at the most.
        let _ = self.descriptor.set(descriptor);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic while it was held left a whole Vec: one panic must not end the loop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for CompletionQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_woken(queue: &CompletionQueue<u32>) -> bool {
        pin!(queue.parked.notified()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_batch_wakes_once() {
        let queue = CompletionQueue::new();
        assert!(!is_woken(&queue));
        (0..3).for_each(|n| queue.post(n));
        assert!(is_woken(&queue));
        queue.post(3);
        assert!(!is_woken(&queue));
        assert_eq!(queue.take(), [0, 1, 2, 3]);
        queue.post(4);
        assert!(is_woken(&queue));
    }

    #[test]
    fn a_closed_queue_drops_what_comes() {
        let queue = CompletionQueue::new();
        queue.post(1);
        queue.close();
        queue.post(2);
        assert!(queue.is_closed() && queue.is_empty());
    }

    #[test]
    fn posts_of_many_threads_all_arrive() {
        let queue = CompletionQueue::new();
        let mut taken = 0;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|n| queue.post(n)));
            }
            while taken < 4000 {
                taken += queue.take().len();
            }
        });
        assert_eq!(taken, 4000);
    }
}
