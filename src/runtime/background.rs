//! The background runtime: tokio on threads of its own, one per process, for what goes on while Lua computes.

use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use tokio::runtime::{Builder, Handle, Runtime};

use super::process::{PerProcess, with_signals_blocked};

/// Its work is to wait; two threads keep one long poll from holding up the rest.
const THREADS: usize = 2;

/// The background runtime, started if this process has none yet.
pub fn background() -> io::Result<&'static Handle> {
    static RUNTIME: PerProcess<Runtime> = PerProcess::new();
    RUNTIME.get_or_try_init(|| with_signals_blocked(start)).map(Runtime::handle)
}

fn start() -> io::Result<Runtime> {
    ask_for_threads()?;
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("scheduler-io").enable_all().build()
}

/// Whether there are threads to be had: tokio panics where it cannot start its own. So as many are started, and end when
/// all of them are there.
fn ask_for_threads() -> io::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let started: Vec<_> = (0..THREADS)
        .map(|_| {
            let gate = Arc::clone(&gate);
            thread::Builder::new().spawn(move || drop(gate.lock()))
        })
        .collect();
    drop(closed);
    for thread in started {
        // It does nothing that could panic.
        let _ = thread?.join();
    }
    Ok(())
}
