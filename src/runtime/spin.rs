//! Looking for others for a moment before the thread parks: to be woken through the kernel takes them and us 25 µs.
//!
//! A thread whose peer answers at once never parks. One whose peer does not parks without a look before long: each look
//! in vain doubles the number of times that it is left out. But parks that were so short that a look might have paid
//! bring it back sooner: else two threads that have begun to park would go on to wake each other.

use std::cell::Cell;
use std::hint;
use std::sync::{OnceLock, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use super::sync::{Mutex, MutexGuard};

/// Longer than another thread takes to be woken and to answer.
pub const MOMENT: Duration = Duration::from_micros(50);

/// How many looks are left out at the most after one in vain.
const MOST_SKIPS: u32 = 256;

/// How many of these a park counts for that was shorter than a look. Not for all of them: a peer that runs on the same
/// core ends parks soon, and looks never.
const SHORT_PARK: u32 = 8;

/// How often a look is repeated before the clock is looked at.
const LOOKS: usize = 64;

/// How often a lock that another thread holds is left alone before this thread parks for it.
const RETREATS: usize = 2;

/// For how long each time: in about a microsecond the other thread takes the lock several times. Four times as long
/// makes numbers cross somewhat faster, and strings, which take longer outside the lock, at half the speed.
const PAUSES: usize = 64;

/// Whether it has paid so far.
#[derive(Debug, Default)]
pub struct Spinner {
    /// How many looks were left out since the last one.
    skipped: Cell<u32>,
    /// How many are to be left out.
    skips: Cell<u32>,
}

impl Spinner {
    /// Looks until `is_over`; false if it was not within a moment.
    pub fn spin(&self, is_over: impl Fn() -> bool) -> bool {
        if is_over() {
            return true;
        }
        // loom knows no clock: there, whoever looks in vain once has looked long enough.
        if self.skipped.get() < self.skips.get() || !has_cores() || cfg!(all(test, scheduler_loom)) {
            self.skipped.set(self.skipped.get() + 1);
            return false;
        }
        let came = looked(is_over);
        self.skipped.set(0);
        self.skips.set(if came { 0 } else { (2 * self.skips.get()).clamp(1, MOST_SKIPS) });
        came
    }

    /// Parks, and notes whether a look might have paid.
    pub fn while_parked<T>(&self, park: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let parked = park();
        if start.elapsed() < MOMENT {
            self.skipped.set(self.skipped.get() + SHORT_PARK - 1);
        }
        parked
    }
}

fn looked(is_over: impl Fn() -> bool) -> bool {
    let end = Instant::now() + MOMENT;
    loop {
        for _ in 0..LOOKS {
            if is_over() {
                return true;
            }
            hint::spin_loop();
        }
        if Instant::now() >= end {
            return false;
        }
    }
}

/// Locks what another thread was found to hold, and will probably soon hold again. Two threads that take a lock in turns
/// wait for each other's caches most of the time; so this one leaves it alone for a while, and both take it several
/// times in a row.
pub fn lock_contended<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let retreats = if has_cores() && !cfg!(all(test, scheduler_loom)) { RETREATS } else { 0 };
    for _ in 0..retreats {
        (0..PAUSES).for_each(|_| hint::spin_loop());
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(guard)) => return guard.into_inner(),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether another thread can run meanwhile.
fn has_cores() -> bool {
    static HAS_CORES: OnceLock<bool> = OnceLock::new();
    *HAS_CORES.get_or_init(|| thread::available_parallelism().is_ok_and(|cores| cores.get() > 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_vain_become_rare() {
        let (spinner, looks) = (Spinner::default(), Cell::new(0));
        let mut took = 0;
        for _ in 0..1000 {
            looks.set(0);
            assert!(!spinner.spin(|| {
                looks.set(looks.get() + 1);
                false
            }));
            took += usize::from(looks.get() > 1);
        }
        assert!(!has_cores() || (2..=12).contains(&took), "{took}");
        assert!(spinner.spin(|| true));
        let skipped = spinner.skipped.get();
        spinner.while_parked(|| {});
        assert!(spinner.skipped.get() > skipped);
    }

    #[test]
    fn contended_locks_are_had_by_each_in_turn() {
        const THREADS: usize = 4;
        const TIMES: usize = 1000;
        let counter = Mutex::new(0);
        thread::scope(|scope| {
            // They all find it held at first, and that is longer than they leave it alone.
            let mut count = counter.lock().expect("nobody has panicked");
            let counting = || (0..TIMES).for_each(|_| *lock_contended(&counter) += 1);
            let threads = [(); THREADS].map(|()| scope.spawn(counting));
            thread::sleep(MOMENT * 20);
            *count += 1;
            drop(count);
            for thread in threads {
                thread.join().expect("no thread panics");
            }
            scope.spawn(|| assert_eq!(*lock_contended(&counter), THREADS * TIMES + 1));
        });
    }

    #[test]
    fn contended_locks_of_threads_that_panicked_are_had() {
        let mutex = Mutex::new(7);
        let panicked = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _guard = mutex.lock();
                panic!("while it is held");
            });
            thread.join()
        });
        assert!(panicked.is_err());
        assert_eq!(*lock_contended(&mutex), 7);
    }
}
