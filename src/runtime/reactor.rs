//! The local reactor: a tokio current-thread runtime that the Lua thread enters to park.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::completion::CompletionQueue;
use super::deadline::DeadlineTimer;

/// Where the Lua thread parks.
#[derive(Debug)]
pub struct Reactor {
    deadline: DeadlineTimer,
    runtime: Runtime,
}

impl Reactor {
    /// A reactor for the calling thread.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let deadline = DeadlineTimer::new()?;
        drop(entered);
        Ok(Reactor { deadline, runtime })
    }

    /// Sleeps until `wait` has passed (`None`: for ever) or something is posted to `completions`.
    pub fn park<T>(&mut self, wait: Option<Duration>, completions: &CompletionQueue<T>) -> io::Result<()> {
        let Reactor { deadline, runtime } = self;
        runtime.block_on(async {
            let mut posted = pin!(async {
                // A post that was taken before this thread parked has left its notice.
                while completions.is_empty() {
                    completions.posted().await;
                }
            });
            let mut due = pin!(async {
                match wait {
                    Some(wait) => deadline.sleep(wait).await,
                    None => std::future::pending().await,
                }
            });
            poll_fn(|context| match posted.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => due.as_mut().poll(context),
            })
            .await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn park_ends_with_the_deadline() {
        let (mut reactor, queue) = (Reactor::new().unwrap(), CompletionQueue::<()>::new());
        let start = Instant::now();
        reactor.park(Some(Duration::from_millis(3)), &queue).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(3));
    }

    #[test]
    fn park_ends_with_a_post_from_another_thread() {
        let (mut reactor, queue) = (Reactor::new().unwrap(), CompletionQueue::new());
        std::thread::scope(|scope| {
            scope.spawn(|| queue.post(7));
            reactor.park(None, &queue).unwrap();
        });
        assert_eq!(queue.take(), [7]);
    }
}
