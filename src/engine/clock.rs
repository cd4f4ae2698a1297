//! Monotonic time, which tests can stop and move.

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds on the [`Clock`], or a span of them.
pub type Nanos = u64;

/// Nanoseconds in a millisecond, the unit of the JS-style timers.
pub const NANOS_PER_MS: Nanos = 1_000_000;
/// Nanoseconds in a second, the unit of everything else.
pub const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// The instant that real clocks count from: one for the process, so that all VMs of it agree.
fn real_now() -> Nanos {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    // 2^64 ns are 584 years.
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as Nanos
}

/// Monotonic time: the system's, or a virtual one that moves by [`Clock::advance_to`] alone.
#[derive(Debug)]
pub struct Clock(Source);

#[derive(Debug)]
enum Source {
    /// The system's clock plus what virtual time has run ahead of it.
    Real { ahead: i64 },
    /// Time stands at `now`; `target` is where `advance` is taking it.
    Paused { now: Nanos, target: Nanos },
}

impl Clock {
    /// A clock that shows the system's time.
    pub fn new() -> Self {
        // The origin is fixed now, so that the first timer does not count from later than the first `now`.
        real_now();
        Clock(Source::Real { ahead: 0 })
    }

    /// The time now; never less than an earlier answer.
    pub fn now(&self) -> Nanos {
        match self.0 {
            Source::Real { ahead } => real_now().saturating_add_signed(ahead),
            Source::Paused { now, .. } => now,
        }
    }

    /// Whether time stands still until it is moved.
    pub fn is_paused(&self) -> bool {
        matches!(self.0, Source::Paused { .. })
    }

    /// Stops time where it is.
    pub fn pause(&mut self) {
        if !self.is_paused() {
            let now = self.now();
            self.0 = Source::Paused { now, target: now };
        }
    }

    /// Moves a paused clock forward; it never goes back.
    pub fn advance_to(&mut self, time: Nanos) {
        if let Source::Paused { now, .. } = &mut self.0 {
            *now = time.max(*now);
        }
    }

    /// Sets how far [`Clock::target`] lies ahead; false if time is not paused.
    pub fn set_target(&mut self, ahead: Nanos) -> bool {
        if let Source::Paused { now, target } = &mut self.0 {
            *target = now.saturating_add(ahead);
        }
        self.is_paused()
    }

    /// Where a paused clock is to be taken, step by step; the time itself if it runs.
    pub fn target(&self) -> Nanos {
        match self.0 {
            Source::Paused { target, .. } => target,
            Source::Real { .. } => self.now(),
        }
    }

    /// Lets time run on from where it stands.
    pub fn resume(&mut self) {
        if let Source::Paused { now, .. } = self.0 {
            self.0 = Source::Real { ahead: now as i64 - real_now() as i64 };
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_clock_moves_only_when_told_and_never_back() {
        let mut clock = Clock::new();
        clock.pause();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance_to(start + 10);
        clock.advance_to(start + 5);
        assert_eq!(clock.now(), start + 10);
    }

    #[test]
    fn a_resumed_clock_goes_on_from_the_virtual_time() {
        let mut clock = Clock::new();
        clock.pause();
        let ahead = clock.now() + 3_600_000 * NANOS_PER_MS;
        clock.advance_to(ahead);
        clock.resume();
        let now = clock.now();
        assert!(now >= ahead && now < ahead + 60_000 * NANOS_PER_MS);
        assert!(clock.now() >= now);
    }
}
