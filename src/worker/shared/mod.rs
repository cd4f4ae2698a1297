//! What VMs share: it crosses by reference, and is freed with the last one that has it.

pub mod atomic;
pub mod buffer;
pub mod mutex;
pub mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use atomic::Atomic;
pub use buffer::Buffer;
pub use mutex::Mutex;
pub use table::Table;

use super::Pool;

/// Something shared, on its way between VMs.
#[derive(Clone, Debug)]
pub enum Handle {
    /// A number.
    Atomic(Arc<Atomic>),
    /// An array of numbers, or a part of one.
    Buffer(Buffer),
    /// Keys and values.
    Table(Arc<Table>),
    /// A lock.
    Mutex(Arc<Mutex>),
    /// Workers.
    Pool(Arc<Pool>),
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How many things are shared in this process.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Part of each thing that is shared: counts it.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Self {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

impl Default for Counted {
    fn default() -> Self {
        Counted::new()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}
