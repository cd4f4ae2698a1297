//! What is due, and in which order: timers, immediates, the clock and the order of a turn.
//!
//! Nothing here knows Lua or tokio. The engine deals in [`Slot`]s: small dense integers under which the layers above
//! keep the callback or the coroutine. It is driven by one thread and needs no locks.

pub mod clock;
pub mod histogram;
pub mod origin;
pub mod slots;
pub mod timer;
pub mod timer_queue;
pub mod turn;

pub use clock::{Clock, Nanos};
pub use histogram::Histogram;
pub use origin::{Origin, Origins};
pub use slots::{Id, Slot};
pub use timer::{Delay, Missed, Repeat};
pub use turn::{Engine, Work};
