//! What waits and what runs beside the Lua thread: parking, the completion queue, the background runtime.
//!
//! Nothing here knows Lua. The Lua thread enters tokio to park and for nothing else, so Lua code never runs inside a
//! tokio context.

pub mod background;
pub mod completion;
pub mod deadline;
pub mod descriptor;
#[cfg(not(feature = "system_allocator"))]
pub mod heap;
mod pair;
pub mod process;
pub mod reactor;
#[cfg(unix)]
pub mod signal;
#[cfg(not(unix))]
#[path = "no_signal.rs"]
pub mod signal;
pub mod spin;
pub mod sync;

pub use completion::CompletionQueue;
pub use descriptor::WakeDescriptor;
pub use process::PerProcess;
pub use reactor::Reactor;
pub use spin::{MOMENT, Spinner, lock_contended};
