//! What exists once per process, forks included, and threads that leave the host's signals alone.

use once_cell::sync::OnceCell;

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
        let pid = std::process::id();
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
        let pid = std::process::id();
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
