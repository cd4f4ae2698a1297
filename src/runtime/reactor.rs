//! The local reactor: a tokio current-thread runtime that the Lua thread enters to park.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::completion::CompletionQueue;
use super::deadline::DeadlineTimer;

/// Where the Lua thread parks.
#[derive(Debug)]
pub struct Reactor {
    deadline: DeadlineTimer,
    notice: Arc<Notice>,
    runtime: Runtime,
}

/// How a park ended: because of what it waits for, or by a signal that the thread was sent.
///
/// tokio goes back to sleep after a signal. But its handler may have left something for Lua to do, as the one by which
/// the stock interpreter ends a program at Ctrl-C; so the park has to end too. When the thread has left its sleep and
/// none of those was woken that it waits for, then it was a signal.
#[derive(Debug, Default)]
struct Notice {
    /// What wakes the thread; it is tokio's.
    waker: Mutex<Option<Waker>>,
    is_woken: AtomicBool,
    is_interrupted: AtomicBool,
}

impl Notice {
    /// Begins to look; returns whether there was a signal since.
    fn begin(&self, waker: &Waker) -> bool {
        let mut known = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        drop(known);
        self.is_woken.store(false, Ordering::SeqCst);
        self.is_interrupted.swap(false, Ordering::SeqCst)
    }

    fn wake_thread(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
    }

    /// The thread has left its sleep. tokio calls this on it, inside of its runtime, where to wake it leaves nothing
    /// behind that would end the next sleep too.
    fn left_sleep(&self) {
        if !self.is_woken.load(Ordering::SeqCst) {
            self.is_interrupted.store(true, Ordering::SeqCst);
            self.wake_thread();
        }
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.wake_thread();
    }
}

impl Reactor {
    /// A reactor for the calling thread.
    pub fn new() -> io::Result<Self> {
        let notice = Arc::new(Notice::default());
        // tokio's waker, which the notice holds, holds this function.
        let noted = Arc::downgrade(&notice);
        let left_sleep = move || {
            if let Some(notice) = noted.upgrade() {
                notice.left_sleep();
            }
        };
        let runtime = Builder::new_current_thread().enable_all().on_thread_unpark(left_sleep).build()?;
        let entered = runtime.enter();
        let deadline = DeadlineTimer::new()?;
        drop(entered);
        Ok(Reactor { deadline, notice, runtime })
    }

    /// Sleeps until `wait` has passed (`None`: for ever), something is posted to `completions`, or the thread was sent
    /// a signal.
    pub fn park<T>(&mut self, wait: Option<Duration>, completions: &CompletionQueue<T>) -> io::Result<()> {
        let Reactor { deadline, notice, runtime } = self;
        let noting = Waker::from(Arc::clone(notice));
        runtime.block_on(async {
            let mut posted = pin!(completions.posted());
            let mut due = pin!(async {
                match wait {
                    Some(wait) => deadline.sleep(wait).await,
                    None => std::future::pending().await,
                }
            });
            poll_fn(|context| {
                if notice.begin(context.waker()) {
                    return Poll::Ready(Ok(()));
                }
                let context = &mut Context::from_waker(&noting);
                match posted.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Ok(())),
                    Poll::Pending => due.as_mut().poll(context),
                }
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
    fn a_signal_ends_one_park() {
        let (mut reactor, queue) = (Reactor::new().unwrap(), CompletionQueue::<()>::new());
        reactor.park(Some(Duration::from_millis(1)), &queue).unwrap();
        reactor.notice.is_woken.store(false, Ordering::SeqCst);
        reactor.notice.left_sleep();
        reactor.park(None, &queue).unwrap();
        let start = Instant::now();
        for _ in 0..3 {
            reactor.park(Some(Duration::from_millis(5)), &queue).unwrap();
        }
        // Woken from outside of the runtime, as here, one more may have ended early.
        assert!(start.elapsed() >= Duration::from_millis(10));
    }

    #[test]
    fn a_reactor_leaves_nothing_behind() {
        let (mut reactor, queue) = (Reactor::new().unwrap(), CompletionQueue::<()>::new());
        reactor.park(Some(Duration::from_millis(1)), &queue).unwrap();
        let notice = Arc::downgrade(&reactor.notice);
        drop(reactor);
        assert!(notice.upgrade().is_none());
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
