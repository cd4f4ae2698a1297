//! Jobs and the threads that run them.
//!
//! Nothing here knows Lua: a worker owns an [`Executor`], which the layer above makes, and hands it one request after
//! the other.

pub mod job;
pub mod pool;
pub mod shared;

pub use job::{Completion, Environment, Executor, Failure, JobNumber, Message, Outcome, Reply, Request, Waker};
pub use pool::Pool;
pub use shared::Handle;
