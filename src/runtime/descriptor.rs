//! A descriptor for hosts with a loop of their own: readable when `poll` has work.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::background::background;
use super::deadline::DeadlineTimer;
use super::pair::{Stream, number_of, pair};

/// Makes the descriptor readable; any thread may.
#[derive(Clone, Debug)]
pub struct Signal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    writer: Stream,
    /// Whether a byte is in the pipe: there is one at the most, so that a write never has to wait.
    raised: AtomicBool,
}

impl Signal {
    /// Makes the descriptor readable, if it is not.
    pub fn raise(&self) {
        if !self.0.raised.swap(true, Ordering::SeqCst) {
            // It cannot be full, and the reader lives as long as the VM: a failure means that nobody waits any more.
            if (&self.0.writer).write(&[1]).is_err() {
                self.0.raised.store(false, Ordering::SeqCst);
            }
        }
    }
}

/// One end of a socket pair, and a task of the background runtime that writes to the other end at the deadline.
#[derive(Debug)]
pub struct WakeDescriptor {
    reader: Stream,
    signal: Signal,
    deadline: watch::Sender<Option<Instant>>,
}

impl WakeDescriptor {
    /// A descriptor that is not readable yet.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let signal = Signal(Arc::new(Shared { writer, raised: AtomicBool::new(false) }));
        let (deadline, changes) = watch::channel(None);
        let runtime = background()?;
        let entered = runtime.enter();
        let timer = DeadlineTimer::new()?;
        drop(entered);
        runtime.spawn(raise_at_deadlines(timer, changes, signal.clone()));
        Ok(WakeDescriptor { reader, signal, deadline })
    }

    /// The number by which the system, and so the host, knows it.
    pub fn number(&self) -> i64 {
        number_of(&self.reader)
    }

    /// What others may raise it with.
    pub fn signal(&self) -> Signal {
        self.signal.clone()
    }

    /// Sets the deadline at which it becomes readable; `None`: at none.
    ///
    /// The task is told of every deadline, also of one that it had before: it may have raised the descriptor for that
    /// already, and waits for another one since.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.deadline.send_if_modified(|current| {
            let former = std::mem::replace(current, deadline);
            former.is_some() || deadline.is_some()
        });
    }

    /// Makes it unreadable.
    ///
    /// The byte is read before the mark is taken back: in the other order a byte written in between would be read
    /// while the mark says that there is one, and nothing would be written ever after. Work that was announced in
    /// between is found by whoever looks for it after this.
    pub fn clear(&self) {
        let raised = &self.signal.0.raised;
        while raised.load(Ordering::SeqCst) {
            match (&self.reader).read(&mut [0]) {
                // The mark is there and its byte is about to be.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => raised.store(false, Ordering::SeqCst),
            }
        }
    }
}

/// Ends when the [`WakeDescriptor`] is dropped.
async fn raise_at_deadlines(mut timer: DeadlineTimer, mut changes: watch::Receiver<Option<Instant>>, signal: Signal) {
    loop {
        let deadline = *changes.borrow_and_update();
        let changed = match deadline {
            None => changes.changed().await,
            Some(deadline) => {
                let sleep = timer.sleep(deadline.saturating_duration_since(Instant::now()));
                tokio::select! {
                    changed = changes.changed() => changed,
                    _ = sleep => {
                        signal.raise();
                        changes.changed().await
                    }
                }
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn becomes_readable(descriptor: &WakeDescriptor) -> bool {
        descriptor.reader.set_nonblocking(false).unwrap();
        descriptor.reader.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut byte = [0];
        let read = (&descriptor.reader).read(&mut byte);
        descriptor.signal.0.raised.store(false, Ordering::SeqCst);
        descriptor.reader.set_nonblocking(true).unwrap();
        read.is_ok()
    }

    #[test]
    fn it_is_readable_at_the_deadline_and_when_raised() {
        let descriptor = WakeDescriptor::new().unwrap();
        descriptor.set_deadline(Some(Instant::now() + Duration::from_millis(2)));
        assert!(becomes_readable(&descriptor));
        descriptor.signal().raise();
        descriptor.signal().raise();
        assert!(becomes_readable(&descriptor));
    }

    #[test]
    fn a_deadline_that_was_met_may_be_set_again() {
        let descriptor = WakeDescriptor::new().unwrap();
        let deadline = Instant::now();
        for _ in 0..100 {
            descriptor.set_deadline(Some(deadline));
            assert!(becomes_readable(&descriptor));
        }
    }

    #[test]
    fn clearing_takes_the_signal_back() {
        let descriptor = WakeDescriptor::new().unwrap();
        descriptor.signal().raise();
        descriptor.clear();
        let read = (&descriptor.reader).read(&mut [0]);
        assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
        descriptor.signal().raise();
        assert!(becomes_readable(&descriptor));
    }
}
