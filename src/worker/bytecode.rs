//! The code of functions that cross: made once by the VM that has the function, and shared by all messages.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bytecode of a function.
#[derive(Debug)]
pub struct Bytecode {
    /// Tells it from all others of the process.
    pub id: u64,
    /// What Lua makes the function from.
    pub bytes: Box<[u8]>,
}

impl Bytecode {
    /// That of a function which was not sent before.
    pub fn new(bytes: Vec<u8>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Bytecode { id: LAST.fetch_add(1, Ordering::Relaxed) + 1, bytes: bytes.into() }
    }
}
