//! A number that many VMs may change at once.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Counted;

/// A whole number of 64 bits. All orders are sequentially consistent: what a VM wrote elsewhere before it changed the
/// number is seen by who sees the change.
#[derive(Debug, Default)]
pub struct Atomic {
    value: AtomicI64,
    _counted: Counted,
}

impl Atomic {
    /// One with this value.
    pub fn new(value: i64) -> Self {
        Atomic { value: AtomicI64::new(value), _counted: Counted::new() }
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.value.load(Ordering::SeqCst)
    }

    /// Sets it.
    pub fn set(&self, value: i64) {
        self.value.store(value, Ordering::SeqCst);
    }

    /// Adds to it, and wraps around; returns the new value.
    pub fn add(&self, number: i64) -> i64 {
        self.value.fetch_add(number, Ordering::SeqCst).wrapping_add(number)
    }

    /// Adds to it unless the sum is out of this range; returns the new value.
    pub fn add_within(&self, number: i64, range: &RangeInclusive<i64>) -> Option<i64> {
        let sum = |value: i64| value.checked_add(number).filter(|sum| range.contains(sum));
        self.value.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sum).ok().and_then(sum)
    }

    /// Sets it; returns the value that it had before.
    pub fn swap(&self, value: i64) -> i64 {
        self.value.swap(value, Ordering::SeqCst)
    }

    /// Sets it if it has the value `expected`. Returns the value that it had, as an error if that was another one.
    pub fn compare_exchange(&self, expected: i64, value: i64) -> Result<i64, i64> {
        self.value.compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_of_many_threads_all_count() {
        let (wrapping, bounded) = (Atomic::new(0), Atomic::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        wrapping.add(1);
                        bounded.add_within(2, &(0..=100_000));
                    }
                });
            }
        });
        assert_eq!((wrapping.get(), bounded.get()), (40_000, 80_000));
    }

    #[test]
    fn additions_wrap_around_or_stay_within_a_range() {
        let atomic = Atomic::new(i64::MAX);
        assert_eq!(atomic.add_within(1, &(i64::MIN..=i64::MAX)), None);
        assert_eq!(atomic.add(1), i64::MIN);
        atomic.set(9);
        assert_eq!(atomic.add_within(1, &(0..=10)), Some(10));
        assert_eq!(atomic.add_within(1, &(0..=10)), None);
        assert_eq!(atomic.get(), 10);
    }

    #[test]
    fn an_exchange_depends_on_the_value() {
        let atomic = Atomic::new(1);
        assert_eq!(atomic.compare_exchange(2, 3), Err(1));
        assert_eq!(atomic.compare_exchange(1, 3), Ok(1));
        assert_eq!(atomic.swap(4), 3);
        assert_eq!(atomic.get(), 4);
    }
}
