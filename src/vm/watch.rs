//! How long a callback, or a task, has held the loop: for the watchdog.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Looks at what runs. Real time counts, also while the clock is paused.
#[derive(Debug, Default)]
pub struct Watch {
    /// How long something may hold the loop; `None` while nothing is watched.
    limit: Cell<Option<Duration>>,
    /// When that began which runs; `None` if nothing does, or it was reported.
    since: Cell<Option<Instant>>,
}

impl Watch {
    /// Watches from now on, or no more.
    pub fn set_limit(&self, limit: Option<Duration>) {
        self.limit.set(limit);
        self.since.set(None);
    }

    /// Something else runs now, or nothing. Returns for how long that held the loop which did, if that was too long and
    /// was not reported.
    pub fn step(&self, is_idle: bool) -> Option<Duration> {
        let too_long = self.look();
        self.since.set(if is_idle { None } else { Some(Instant::now()) });
        too_long
    }

    /// For how long what runs has held the loop, if that is too long; once.
    pub fn look(&self) -> Option<Duration> {
        let held = self.since.get()?.elapsed();
        if held < self.limit.get()? {
            return None;
        }
        self.since.set(None);
        Some(held)
    }
}
