//! What exists once per process, forks included, and threads that leave the host's signals alone.

use std::sync::atomic::{AtomicU32, Ordering};

use once_cell::sync::OnceCell;

/// The number of this process. A system call at first: then it is known until a `fork`. It is asked for by each job that
/// is sent, and each turn that takes what other threads have sent.
pub fn id() -> u32 {
    match ID.load(Ordering::Relaxed) {
        UNKNOWN => look(),
        id => id,
    }
}

/// No process has this number.
const UNKNOWN: u32 = 0;
static ID: AtomicU32 = AtomicU32::new(UNKNOWN);

#[cold]
fn look() -> u32 {
    let id = std::process::id();
    if forgets_at_fork() {
        ID.store(id, Ordering::Relaxed);
    }
    id
}

/// Whether the child of a `fork` begins without a number. No lock is taken for it that another thread could hold then.
#[cfg(unix)]
fn forgets_at_fork() -> bool {
    use std::sync::atomic::AtomicBool;
    static IS_BEGUN: AtomicBool = AtomicBool::new(false);
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn forget() {
        ID.store(UNKNOWN, Ordering::Relaxed);
    }
    if !IS_BEGUN.swap(true, Ordering::SeqCst) {
        // SAFETY: the function stores an atomic, which any thread may do at any time, and is never unloaded: the library
        // stays in memory as its threads do.
        #[expect(unsafe_code, reason = "a system call for each job is a twentieth of its time")]
        let registered = unsafe { libc::pthread_atfork(None, None, Some(forget)) };
        IS_DONE.store(registered == 0, Ordering::SeqCst);
    }
    IS_DONE.load(Ordering::SeqCst)
}

#[cfg(not(unix))]
fn forgets_at_fork() -> bool {
    true
}

/// A value made at its first use in each process.
///
/// `fork` copies memory but not threads, so what owns threads is dead in the child. The child gets a fresh value at its
/// first use; its parent's stays in memory, untouched. Values of successive generations form a chain, which needs no
/// lock that a thread of the parent could have held at the moment of the fork.
pub struct PerProcess<T> {
    first: OnceCell<Generation<T>>,
}

struct Generation<T> {
    pid: u32,
    value: T,
    child: OnceCell<Box<Generation<T>>>,
}

impl<T> PerProcess<T> {
    /// Nothing made yet; for a `static`.
    pub const fn new() -> Self {
        PerProcess { first: OnceCell::new() }
    }

    /// This process's value, made by `make` if there is none yet.
    pub fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let pid = id();
        let make = || make().map(|value| Generation { pid, value, child: OnceCell::new() });
        let Some(mut generation) = self.first.get() else {
            return self.first.get_or_try_init(make).map(|made| &made.value);
        };
        while generation.pid != pid {
            match generation.child.get() {
                Some(child) => generation = child,
                None => return generation.child.get_or_try_init(|| make().map(Box::new)).map(|made| &made.value),
            }
        }
        Ok(&generation.value)
    }

    /// This process's value, if there is one.
    pub fn get(&self) -> Option<&T> {
        let pid = id();
        let mut generation = self.first.get();
        while let Some(found) = generation {
            if found.pid == pid {
                return Some(&found.value);
            }
            generation = found.child.get().map(|child| &**child);
        }
        None
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `start`, which starts threads, such that they inherit a mask that leaves every signal to the host's threads.
pub fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, SigmaskHow};
        let former = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let started = start();
        if let Ok(former) = former {
            // It was in force a moment ago, so it can be set again.
            let _ = former.thread_set_mask();
        }
        started
    }
    #[cfg(not(unix))]
    start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once() {
        static VALUE: PerProcess<u32> = PerProcess::new();
        assert_eq!(VALUE.get(), None);
        assert_eq!(VALUE.get_or_try_init(|| Err("not yet")), Err("not yet"));
        assert_eq!(VALUE.get_or_try_init(|| Ok::<_, ()>(7)), Ok(&7));
        assert_eq!(VALUE.get_or_try_init(|| Ok::<_, ()>(8)), Ok(&7));
        assert_eq!(VALUE.get(), Some(&7));
    }
}
