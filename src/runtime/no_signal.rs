//! In the place of `signal.rs` where there are no signals to threads, as on Windows: no thread can be reached, so a job
//! that computes goes on after it was cancelled, and its pool starts another worker.

#![expect(unsafe_code, reason = "the trait is that of `signal.rs`")]

use std::sync::Arc;

/// What is called in the signal handler, where there is one.
///
/// # Safety
/// As in `signal.rs`.
pub unsafe trait OnSignal: Send + Sync {
    /// Called on the thread that the signal was sent to.
    fn on_signal(&self);
}

/// Keeps the target, as where it would be called.
pub struct Signalled {
    _target: Arc<dyn OnSignal>,
}

/// Sends nothing.
#[derive(Clone, Copy)]
pub struct Signaller;

impl Signalled {
    /// The calling thread cannot be signalled.
    pub fn new(target: Arc<dyn OnSignal>) -> Self {
        Signalled { _target: target }
    }

    /// What sends signals to this thread: nothing.
    pub fn signaller(&self) -> Signaller {
        Signaller
    }
}

impl Signaller {
    /// False, always.
    pub fn send(&self) -> bool {
        false
    }
}
