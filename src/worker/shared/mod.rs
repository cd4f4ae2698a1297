//! What VMs share: it crosses by reference, and is freed with the last one that has it.

pub mod atomic;
pub mod buffer;
pub mod channel;
pub mod mutex;
pub mod stored;
pub mod table;
pub mod waiter;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use atomic::Atomic;
pub use buffer::Buffer;
pub use channel::Hold;
pub use mutex::Mutex;
pub use table::Table;

use super::{Job, Pool};

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
    /// What a worker is at.
    Job(Arc<Job>),
    /// Messages.
    Channel(Hold),
}

/// What tells those apart that wait, of all VMs, or hold what others wait for.
pub type Place = u64;

/// A place that nobody has.
pub const NO_PLACE: Place = 0;

/// A place that nobody has had.
pub fn new_place() -> Place {
    static LAST: AtomicU64 = AtomicU64::new(NO_PLACE);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
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
