//! Waiting for a deadline more finely than tokio's own timer, whose grain is a millisecond.

use std::io;
use std::time::Duration;

#[cfg(target_os = "linux")]
pub use timer_descriptor::DeadlineTimer;
#[cfg(not(target_os = "linux"))]
pub use tokio_sleep::DeadlineTimer;

/// A timer descriptor, watched by the reactor like a socket.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "tokio registers descriptors of a foreign kind by an unsafe call only")]
mod timer_descriptor {
    use std::os::fd::{AsFd, AsRawFd, RawFd};

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;

    use super::{Duration, io};

    /// Waits for one deadline at a time.
    #[derive(Debug)]
    pub struct DeadlineTimer(AsyncFd<Descriptor>);

    #[derive(Debug)]
    struct Descriptor(TimerFd);

    impl AsRawFd for Descriptor {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }

    impl DeadlineTimer {
        /// A timer for the runtime that this is called in.
        pub fn new() -> io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            // SAFETY: `register` asks that the descriptor stays open and the same until it is deregistered. `Descriptor`
            // owns its `TimerFd`, `as_raw_fd` always names that one, and `AsyncFd` deregisters before it drops it.
            let registered = unsafe { AsyncFd::register(Descriptor(timer)) };
            Ok(DeadlineTimer(registered.map_err(|error| error.into_parts().1)?))
        }

        /// Returns when `wait` has passed; early, once in a while, when the former sleep was cut off just as it ended.
        pub async fn sleep(&mut self, wait: Duration) -> io::Result<()> {
            // Zero would disarm it.
            let wait = TimeSpec::from_duration(wait.max(Duration::from_nanos(1)));
            self.0.get_ref().0.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
            // The expiration is not read: setting the timer again takes it back.
            self.0.readable_mut().await?.clear_ready();
            Ok(())
        }
    }
}

/// Where there are no timer descriptors: late by up to a millisecond.
#[cfg(not(target_os = "linux"))]
mod tokio_sleep {
    use super::{Duration, io};

    /// Waits for one deadline at a time.
    #[derive(Debug)]
    pub struct DeadlineTimer(());

    impl DeadlineTimer {
        /// A timer for the runtime that this is called in.
        pub fn new() -> io::Result<Self> {
            Ok(DeadlineTimer(()))
        }

        /// Returns when `wait` has passed.
        pub async fn sleep(&mut self, wait: Duration) -> io::Result<()> {
            tokio::time::sleep(wait).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_sleep_lasts_and_can_be_cut_off_and_begun_anew() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut timer = DeadlineTimer::new().unwrap();
            for micros in [0, 300, 2500] {
                // Cut off: it expires while nobody waits, and must not end the next sleep.
                tokio::select! {
                    biased;
                    _ = timer.sleep(Duration::from_micros(100)) => panic!("it has only begun"),
                    _ = std::future::ready(()) => {}
                }
                std::thread::sleep(Duration::from_micros(200));
                let (start, wait) = (Instant::now(), Duration::from_micros(micros));
                timer.sleep(wait).await.unwrap();
                assert!(start.elapsed() >= wait);
            }
        });
    }
}
