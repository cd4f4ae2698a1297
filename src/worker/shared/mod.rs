//! What VMs share: it crosses by reference, and is freed with the last one that has it.

pub mod atomic;

use std::sync::Arc;

pub use atomic::Atomic;

/// Something shared, on its way between VMs.
#[derive(Clone, Debug)]
pub enum Handle {
    /// A number.
    Atomic(Arc<Atomic>),
}
