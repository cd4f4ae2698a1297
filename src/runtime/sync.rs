//! What threads share state by: the standard library's, and tokio's notice.
//!
//! For the tests in `worker/interleavings.rs`, loom's take their place (`make loom`). It runs a test again and again,
//! each time with its threads in another order, and lets atomics be seen as late as their orderings allow.

#[cfg(not(all(test, scheduler_loom)))]
pub use self::real::*;
#[cfg(all(test, scheduler_loom))]
pub use self::tried::*;

#[cfg(not(all(test, scheduler_loom)))]
mod real {
    pub use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub use std::thread;

    pub use tokio::sync::Notify;
}

#[cfg(all(test, scheduler_loom))]
mod tried {
    pub use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub use loom::thread;

    /// tokio's, as far as it is used here: who waits is one thread, which nothing else is to wake.
    #[derive(Debug, Default)]
    pub struct Notify(loom::sync::Notify);

    impl Notify {
        /// One that was given no notice.
        pub fn new() -> Self {
            Notify(loom::sync::Notify::new())
        }

        /// Gives notice.
        pub fn notify_one(&self) {
            self.0.notify();
        }

        /// Waits until there is notice.
        pub async fn notified(&self) {
            self.0.wait();
        }
    }
}
