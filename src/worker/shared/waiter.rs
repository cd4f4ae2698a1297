//! Tasks that wait for channels.
//!
//! # Ground rules
//!
//! 1. A [`Waiter`] is one suspended task. It is listed in one channel, or by a select in several. It goes from waiting to
//!    done, or to gone, once. Whoever changes that, under its lock, decides: so exactly one case of a select happens, and
//!    a message goes to one receiver.
//! 2. Waiters are locked by who holds the lock of a channel, up to two, by their places. Two are locked where both sides
//!    of an exchange wait, as two selects do: both are done, or neither is.

use std::mem;
use std::sync::{Arc, PoisonError, TryLockError};

use super::channel::Delivery;
use super::stored::{Stored, bury};
use super::{NO_PLACE, Place, new_place};
use crate::runtime::sync::atomic::{AtomicBool, Ordering};
use crate::runtime::sync::thread::{self, ThreadId};
use crate::runtime::sync::{Mutex, MutexGuard};
use crate::worker::job::Waker;

/// A task that waits for one of its cases.
#[derive(Debug)]
pub struct Waiter {
    place: Place,
    /// That of its VM: in a forked process the others are not there.
    thread: ThreadId,
    /// A std mutex: it is held for an assignment.
    progress: Mutex<Progress>,
    /// Whether a case was done: for who looks without the lock.
    has_ended: AtomicBool,
}

#[derive(Debug)]
enum Progress {
    /// Without a waker, its thread looks itself.
    Waiting(Option<Waker>),
    Done(usize, Ended),
    Gone,
}

/// How a case ended.
#[derive(Debug)]
pub enum Ended {
    /// The message was received, or is in the channel.
    Sent,
    /// A message for a receiver.
    Received(Delivery),
    /// The channel is closed; for a receiver, empty too.
    Closed,
}

impl Waiter {
    /// One of the VM of this thread, which looks for itself whether it has ended, or is told by `waker`.
    pub fn new(waker: Option<Waker>) -> Arc<Self> {
        let (place, thread) = (new_place(), thread::current().id());
        let (progress, has_ended) = (Mutex::new(Progress::Waiting(waker)), AtomicBool::new(false));
        Arc::new(Waiter { place, thread, progress, has_ended })
    }

    /// Whether it looks as if a case was done.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// From now on it is told. False if it is done already: nobody tells it then.
    pub fn tell(&self, waker: Waker) -> bool {
        let mut progress = self.lock();
        let is_waiting = matches!(*progress, Progress::Waiting(_));
        if is_waiting {
            *progress = Progress::Waiting(Some(waker));
        }
        is_waiting
    }

    /// What tells it from others.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The thread of its VM.
    pub fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Ends the wait, unless it is done: nothing can happen to it any more then. Returns whether it is done.
    pub fn withdraw(&self) -> bool {
        let mut progress = self.lock();
        if matches!(*progress, Progress::Waiting(_)) {
            *progress = Progress::Gone;
        }
        matches!(*progress, Progress::Done(..))
    }

    /// Whether a case is done that was not taken yet.
    pub fn is_done(&self) -> bool {
        matches!(*self.lock(), Progress::Done(..))
    }

    /// The case that is done, once.
    pub fn take(&self) -> Option<(usize, Ended)> {
        match mem::replace(&mut *self.lock(), Progress::Gone) {
            Progress::Done(case, ended) => Some((case, ended)),
            Progress::Waiting(_) | Progress::Gone => None,
        }
    }

    /// In a forked process: lets the wait go on here. False if it was being ended at the moment of the fork.
    pub fn rewake(&self, waker: Waker) -> bool {
        let mut progress = match self.progress.try_lock() {
            Ok(progress) => progress,
            Err(TryLockError::Poisoned(progress)) => progress.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        match &mut *progress {
            Progress::Waiting(former) => *former = Some(waker),
            // Who has done that may have told the parent alone.
            Progress::Done(..) => drop(waker.wake(self.place)),
            Progress::Gone => {}
        }
        true
    }

    /// Tells its VM, if it waits, that there is less to wait for.
    pub fn nudge(&self, after: &mut After) {
        if let Progress::Waiting(Some(waker)) = &*self.lock() {
            after.woken.push((waker.clone(), NO_PLACE));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who acts on a channel: a waiter that lists itself, and for which case; nobody, if it is done now or not at all.
pub type Me<'a> = Option<(&'a Arc<Waiter>, usize)>;

/// What [`claim`] comes to.
#[derive(Debug)]
pub enum Claim {
    /// The waits of both have ended.
    Won,
    /// The peer's had ended before.
    PeerIsGone,
    /// That of the one who acts had.
    IAmGone,
}

/// Ends the waits of both sides, or neither. What becomes of `me` is for the caller to tell: it has not waited yet.
pub fn claim(me: Me<'_>, peer: &Waiter, case: usize, ended: impl FnOnce() -> Ended, after: &mut After) -> Claim {
    let (mut mine, mut theirs);
    match me {
        Some((me, _)) if me.place < peer.place => {
            mine = Some(me.lock());
            theirs = peer.lock();
        }
        me => {
            theirs = peer.lock();
            mine = me.map(|(me, _)| me.lock());
        }
    }
    if mine.as_ref().is_some_and(|mine| !matches!(**mine, Progress::Waiting(_))) {
        return Claim::IAmGone;
    }
    if !matches!(*theirs, Progress::Waiting(_)) {
        return Claim::PeerIsGone;
    }
    if let Some(mine) = &mut mine {
        **mine = Progress::Gone;
    }
    if let Progress::Waiting(Some(waker)) = mem::replace(&mut *theirs, Progress::Done(case, ended())) {
        after.woken.push((waker, peer.place));
    }
    peer.has_ended.store(true, Ordering::Release);
    Claim::Won
}

/// Ends the wait of a waiter that acts by itself. False if another case of it was done meanwhile.
pub fn claim_me(me: Me<'_>) -> bool {
    let Some((me, _)) = me else { return true };
    let mut progress = me.lock();
    let is_waiting = matches!(*progress, Progress::Waiting(_));
    if is_waiting {
        *progress = Progress::Gone;
    }
    is_waiting
}

/// What is left to do once no lock is held, and is done when this is dropped: messages may hold channels, and who is
/// woken must find the lock free.
#[derive(Debug, Default)]
pub struct After {
    woken: Vec<(Waker, Place)>,
    /// What nobody wants.
    pub dropped: Vec<Stored>,
}

impl Drop for After {
    fn drop(&mut self) {
        for (waker, place) in self.woken.drain(..) {
            // If its VM is closing, that gives back what it was given.
            let _ = waker.wake(place);
        }
        bury(self.dropped.drain(..));
    }
}
