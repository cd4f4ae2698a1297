//! A pool: what is kept of one in every process, and what users do with it. See [`Crew`] for its workers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use super::crew::{Crew, MakeExecutor};
use super::job::{Completion, Job, Request};
use crate::engine::Histogram;
use crate::runtime::{CompletionQueue, PerProcess};

/// What a pool is like.
#[derive(Debug)]
pub struct Settings {
    /// What its threads are called.
    pub name: String,
    /// Workers at the most.
    pub size: usize,
    /// Jobs that may wait for a worker; more have to wait where they come from.
    pub queue: usize,
    /// Jobs that one worker runs at a time, while they wait.
    pub concurrency: usize,
    /// How long a worker waits for a job before it ends; `None` is for ever.
    pub idle: Option<Duration>,
    /// Bytes that the Lua state of a worker may take.
    pub memory_limit: Option<usize>,
    /// What each worker calls first.
    pub init: Option<Request>,
}

impl Settings {
    /// A pool with this number of workers, and nothing special.
    pub fn new(name: impl Into<String>, size: usize) -> Self {
        const IDLE: Duration = Duration::from_secs(10);
        let (queue, concurrency, idle) = (usize::MAX, 1, Some(IDLE));
        Settings { name: name.into(), size, queue, concurrency, idle, memory_limit: None, init: None }
    }
}

/// Why a job is not taken.
#[derive(Debug)]
pub enum Refusal {
    /// The pool was closed.
    Closed,
    /// The queue is full.
    Full,
    /// There is no worker, and none can be started.
    NoThread(io::Error),
}

/// What a pool has done and has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Workers that are there.
    pub workers: usize,
    /// Workers that wait for a job.
    pub idle: usize,
    /// Jobs that wait for a worker.
    pub queued: usize,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that ended with results.
    pub done: u64,
    /// Jobs that ended with an error, or were lost.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
}

/// How long the jobs of a pool took that have ended.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// From when they were sent until a worker took them.
    pub wait: Histogram,
    /// From then on.
    pub run: Histogram,
}

/// Workers and the queue that they take from.
pub struct Pool {
    settings: Arc<Settings>,
    make_executor: MakeExecutor,
    is_closed: AtomicBool,
    crew: PerProcess<Arc<Crew>>,
}

impl Pool {
    /// A pool none of whose workers is started yet.
    pub fn new(settings: Settings, make_executor: MakeExecutor) -> Self {
        let settings = Arc::new(settings);
        Pool { settings, make_executor, is_closed: AtomicBool::new(false), crew: PerProcess::new() }
    }

    /// What it is like.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it has done and has to do.
    pub fn figures(&self) -> Figures {
        self.crew.get().map_or_else(Figures::default, |crew| crew.figures())
    }

    /// How long its jobs took.
    pub fn times(&self) -> Times {
        self.crew.get().map_or_else(Times::default, |crew| crew.times())
    }

    /// Queues a job. `is_bound` if the queue may be full for it.
    pub fn submit(&self, job: &Arc<Job>, is_bound: bool) -> Result<(), Refusal> {
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        self.crew().submit(job, is_bound)
    }

    /// Whether a job would have to wait before it can be queued.
    pub fn is_full(&self) -> bool {
        let is_bounded = self.settings.queue != usize::MAX && !self.is_closed();
        is_bounded && self.crew.get().is_some_and(|crew| crew.has_no_room())
    }

    /// Cancels a job that was queued here.
    pub fn cancel(&self, job: &Arc<Job>) {
        let cancelled = job.cancel(None);
        if let Some(crew) = self.crew.get() {
            crew.note_cancelled(job, cancelled);
        }
    }

    /// Takes no more jobs; the workers end when those are done that are queued.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        if let Some(crew) = self.crew.get() {
            crew.close();
        }
    }

    /// Whether it takes no more jobs.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Cancels all that is queued or runs, whoever sent it.
    pub fn cancel_all(&self) {
        if let Some(crew) = self.crew.get() {
            crew.cancel_all();
        }
    }

    /// Whether nothing is queued, and nothing runs.
    pub fn is_done(&self) -> bool {
        self.crew.get().is_none_or(|crew| crew.is_done())
    }

    /// Tells a VM, once, when there is room in the queue, or when nothing is left to do.
    pub fn watch(&self, completions: &Arc<CompletionQueue<Completion>>) {
        self.crew().watch(completions);
    }

    fn crew(&self) -> &Arc<Crew> {
        let make = || Ok::<_, Infallible>(Crew::new(&self.settings, self.make_executor));
        let Ok(crew) = self.crew.get_or_try_init(make);
        crew
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::thread;

    use super::super::crew::Executor;
    use super::super::job::{Environment, Failure, JobNumber, Message, Outcome};
    use super::super::seat::{Seat, Taken};
    use super::*;
    use crate::runtime::Reactor;

    /// Hands in what it is given.
    struct Echo(Rc<Seat>);

    impl Executor for Echo {
        fn work(self: Box<Self>) -> bool {
            while let Taken::Job(run, request) = self.0.take(true) {
                assert_ne!(request.call.bytes, b"die");
                let sleep = || thread::sleep(Duration::from_millis(20));
                match &*request.call.bytes {
                    b"compute" => sleep(),
                    b"wait" => self.0.while_parked(true, sleep),
                    _ => {}
                }
                self.0.end(run, Outcome::Done(request.call));
            }
            true
        }
    }

    fn pool(size: usize, change: impl FnOnce(&mut Settings)) -> Pool {
        let mut settings = Settings::new("test", size);
        change(&mut settings);
        Pool::new(settings, |seat| Ok(Box::new(Echo(seat))))
    }

    fn job(number: JobNumber, call: &[u8], completions: &Arc<CompletionQueue<Completion>>) -> Arc<Job> {
        let environment = Arc::new(Environment { path: Vec::new(), cpath: Vec::new() });
        let call = Message::from(call.to_vec());
        Job::new(number, completions, Request { call, environment, mapped: None })
    }

    fn outcomes(pool: &Pool, calls: &[&[u8]]) -> Vec<Outcome> {
        let completions = Arc::new(CompletionQueue::new());
        for (number, call) in (1..).zip(calls) {
            pool.submit(&job(number, call, &completions), true).unwrap();
        }
        let (mut reactor, mut taken) = (Reactor::new().unwrap(), Vec::new());
        while taken.len() < calls.len() {
            reactor.park(None, &completions).unwrap();
            taken.extend(completions.take());
        }
        taken.sort_by_key(|completion| completion.number);
        taken.into_iter().map(|completion| completion.outcome).collect()
    }

    /// The bytes that jobs ended with.
    fn results(outcomes: Vec<Outcome>) -> Vec<Vec<u8>> {
        let result = |outcome| match outcome {
            Outcome::Done(message) => message.bytes,
            other => panic!("{other:?}"),
        };
        outcomes.into_iter().map(result).collect()
    }

    /// Waits, for seconds at the most, until something is so.
    fn wait_until(mut is_so: impl FnMut() -> bool) {
        for _ in 0..5000 {
            if is_so() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("it has not come to be");
    }

    #[test]
    fn a_pool_grows_to_its_size_and_no_further() {
        let pool = pool(2, |_| {});
        assert_eq!(pool.figures().workers, 0);
        let calls: Vec<_> = (0..100_u8).map(|n| vec![n]).collect();
        let sent: Vec<_> = calls.iter().map(Vec::as_slice).collect();
        assert_eq!(results(outcomes(&pool, &sent)), calls);
        assert!((1..=2).contains(&pool.figures().workers));
        assert_eq!((pool.figures().done, pool.figures().running, pool.figures().queued), (100, 0, 0));
    }

    #[test]
    fn an_executor_that_panics_loses_its_job_and_is_replaced() {
        let pool = pool(1, |_| {});
        for _ in 0..3 {
            let outcome = outcomes(&pool, &[b"die"]).remove(0);
            assert!(matches!(outcome, Outcome::Failed(ref failure) if failure.kind == "lost"));
        }
        assert_eq!(results(outcomes(&pool, &[b"live"])), [b"live"]);
        assert_eq!(pool.figures().failed, 3);
    }

    #[test]
    fn jobs_fail_when_no_executor_can_be_made() {
        let pool = Pool::new(Settings::new("test", 1), |_| Err(Failure::new("error", "no memory")));
        for _ in 0..3 {
            let Outcome::Failed(failure) = outcomes(&pool, &[b""]).remove(0) else { panic!("it has no executor") };
            assert_eq!(failure.message, b"no memory");
        }
    }

    #[test]
    fn a_blocked_worker_is_stood_in_for() {
        let pool = pool(1, |_| {});
        assert_eq!(results(outcomes(&pool, &[b"wait", b"one", b"two"])).len(), 3);
        wait_until(|| pool.figures().workers == 1 || results(outcomes(&pool, &[b"more"])).is_empty());
    }

    #[test]
    fn idle_workers_end() {
        let pool = pool(2, |settings| settings.idle = Some(Duration::from_millis(5)));
        outcomes(&pool, &[b"one", b"two"]);
        wait_until(|| pool.figures().workers == 0);
        assert_eq!(results(outcomes(&pool, &[b"three"])), [b"three"]);
    }

    #[test]
    fn a_full_queue_refuses_until_there_is_room() {
        let pool = pool(1, |settings| settings.queue = 1);
        let completions = Arc::new(CompletionQueue::new());
        // The first is about to be taken, by the worker that is started for it.
        let calls: [&[u8]; 3] = [b"wait", b"one", b"two"];
        let refused = calls.iter().filter(|call| pool.submit(&job(1, call, &completions), true).is_err()).count();
        assert!(refused <= 1);
        pool.watch(&completions);
        wait_until(|| completions.take().iter().any(|completion| matches!(completion.outcome, Outcome::Changed)));
        assert!(!pool.is_full() || pool.figures().queued > 0);
    }

    #[test]
    fn a_cancelled_job_never_starts_and_leaves_the_queue() {
        let pool = pool(1, |settings| settings.queue = 4);
        let completions = Arc::new(CompletionQueue::new());
        pool.submit(&job(1, b"compute", &completions), true).unwrap();
        let jobs: Vec<_> = (2..5).map(|number| job(number, b"never", &completions)).collect();
        for job in &jobs {
            pool.submit(job, true).unwrap();
            pool.cancel(job);
        }
        let mut ended = Vec::new();
        wait_until(|| {
            ended.extend(completions.take().iter().map(|completion| completion.number));
            !ended.is_empty() && pool.is_done()
        });
        let figures = pool.figures();
        assert_eq!((ended, figures.queued, figures.cancelled), (vec![1], 0, 3), "{figures:?}");
    }

    #[test]
    fn a_closed_pool_ends_what_is_queued_and_takes_no_more() {
        let pool = pool(1, |_| {});
        let completions = Arc::new(CompletionQueue::new());
        for number in 1..10 {
            pool.submit(&job(number, b"", &completions), true).unwrap();
        }
        pool.close();
        assert!(matches!(pool.submit(&job(10, b"", &completions), true), Err(Refusal::Closed)));
        wait_until(|| pool.figures().workers == 0);
        assert_eq!((pool.is_done(), pool.figures().done), (true, 9));
    }

    #[test]
    fn all_can_be_cancelled_and_their_senders_are_told() {
        let pool = pool(1, |_| {});
        let completions = Arc::new(CompletionQueue::new());
        for number in 1..10 {
            pool.submit(&job(number, b"wait", &completions), true).unwrap();
        }
        pool.close();
        pool.cancel_all();
        assert!(pool.is_done());
        let mut told = Vec::new();
        wait_until(|| {
            told.extend(completions.take().into_iter().filter(|completion| completion.number > 0));
            told.len() == 9
        });
        assert!(told.iter().any(
            |completion| matches!(completion.outcome, Outcome::Failed(ref failure) if failure.kind == "cancelled")
        ));
        wait_until(|| pool.figures().workers == 0);
    }
}
