//! Pools, jobs and the threads that run them.
//!
//! Nothing here knows Lua: a worker owns an [`Executor`], which the layer above makes, and which takes its jobs from a
//! [`Seat`].

pub mod bytecode;
pub mod crew;
#[cfg(test)]
#[cfg(scheduler_loom)]
mod interleavings;
pub mod job;
pub mod pool;
pub mod seat;
pub mod shared;

pub use bytecode::Bytecode;
pub use crew::Executor;
pub use job::{
    Completion, Environment, Failure, Interrupt, Job, JobNumber, Mapped, Message, Outcome, Request, RunNumber, Waker,
};
pub use pool::{Pool, Refusal, Settings};
pub use seat::{Seat, Taken};
pub use shared::Handle;
