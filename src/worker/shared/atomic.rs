//! A number that many VMs may change at once.

use std::sync::atomic::{AtomicI64, Ordering};

/// A whole number of 64 bits; additions wrap around. All orders are sequentially consistent.
#[derive(Debug, Default)]
pub struct Atomic(AtomicI64);

impl Atomic {
    /// One with this value.
    pub fn new(value: i64) -> Self {
        Atomic(AtomicI64::new(value))
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::SeqCst);
    }

    /// Adds to it; returns the value that it had before.
    pub fn add(&self, number: i64) -> i64 {
        self.0.fetch_add(number, Ordering::SeqCst)
    }

    /// Sets it; returns the value that it had before.
    pub fn swap(&self, value: i64) -> i64 {
        self.0.swap(value, Ordering::SeqCst)
    }

    /// Sets it if it has the value `expected`; returns whether it had, and the value that it had.
    pub fn compare_exchange(&self, expected: i64, value: i64) -> Result<i64, i64> {
        self.0.compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst)
    }
}
