//! The background runtime: tokio on threads of its own, one per process, for what goes on while Lua computes.

use std::io;

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
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("scheduler-io").enable_all().build()
}
