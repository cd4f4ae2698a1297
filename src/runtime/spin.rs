//! Looking for others for a moment before the thread parks: to be woken through the kernel takes them and us 25 µs.
//!
//! A thread whose peer answers at once never parks. One whose peer does not parks without a look before long: each look
//! in vain doubles the number of times that it is left out. But parks that were so short that a look might have paid
//! bring it back sooner: else two threads that have begun to park would go on to wake each other.

use std::cell::Cell;
use std::hint;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than another thread takes to be woken and to answer.
pub const MOMENT: Duration = Duration::from_micros(50);

/// How many looks are left out at the most after one in vain.
const MOST_SKIPS: u32 = 256;

/// How many of these a park counts for that was shorter than a look. Not for all of them: a peer that runs on the same
/// core ends parks soon, and looks never.
const SHORT_PARK: u32 = 8;

/// How often a look is repeated before the clock is looked at.
const LOOKS: usize = 64;

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
}
