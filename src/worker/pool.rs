//! A pool: threads that take jobs from one queue. They start when there is a job that no idle one can take.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::job::{Executor, Failure, Outcome, Reply, Request};
use crate::runtime::process::with_signals_blocked;

/// Lua calls C functions recursively; the main thread of a process usually has as much.
const STACK_SIZE: usize = 8 << 20;

/// Makes the executor of a new worker, on its thread.
pub type MakeExecutor = fn() -> Result<Box<dyn Executor>, String>;

type Job = (Request, Reply);

/// Workers and the queue that they take from.
#[derive(Debug)]
pub struct Pool {
    size: usize,
    make_executor: MakeExecutor,
    queue: Sender<Job>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    jobs: Receiver<Job>,
    workers: AtomicUsize,
    /// Workers whose job waits for other jobs: others take their place, or jobs that wait for jobs could take up all.
    blocked: AtomicUsize,
    /// Jobs that are queued or run. Counted by who submits, so that one which a worker is just taking is not missed.
    in_flight: AtomicUsize,
}

impl Pool {
    /// A pool of up to `size` workers, none of which is started yet.
    pub fn new(size: usize, make_executor: MakeExecutor) -> Self {
        let (queue, jobs) = unbounded();
        let shared =
            Shared { jobs, workers: AtomicUsize::new(0), blocked: AtomicUsize::new(0), in_flight: AtomicUsize::new(0) };
        Pool { size, make_executor, queue, shared: Arc::new(shared) }
    }

    /// The number of workers that were started.
    pub fn workers(&self) -> usize {
        self.shared.workers.load(Ordering::SeqCst)
    }

    /// Queues a job. Fails if there is no worker and none can be started.
    pub fn submit(&self, request: Request, reply: Reply) -> io::Result<()> {
        let in_flight = self.shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        if let Err(error) = self.grow(in_flight) {
            self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            reply.withdraw();
            return Err(error);
        }
        // The pool holds a receiver of its own, so the queue is never disconnected.
        let _ = self.queue.send((request, reply));
        Ok(())
    }

    /// Starts a worker if there are more jobs than workers. One worker is enough to go on.
    fn grow(&self, in_flight: usize) -> io::Result<()> {
        let workers = self.workers();
        if workers >= in_flight.min(self.limit()) {
            return Ok(());
        }
        match self.start_worker() {
            Err(error) if workers == 0 => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs `wait` on a worker's thread, while its job waits for other jobs.
    pub fn while_blocked<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.shared.blocked.fetch_add(1, Ordering::SeqCst);
        // If no thread can be started, the jobs wait for a worker that gets free.
        let _ = self.grow(self.shared.in_flight.load(Ordering::SeqCst));
        let waited = wait();
        self.shared.blocked.fetch_sub(1, Ordering::SeqCst);
        waited
    }

    fn limit(&self) -> usize {
        self.size + self.shared.blocked.load(Ordering::SeqCst)
    }

    fn start_worker(&self) -> io::Result<()> {
        let number = self.shared.workers.fetch_add(1, Ordering::SeqCst) + 1;
        let (shared, size, make_executor) = (Arc::clone(&self.shared), self.size, self.make_executor);
        let thread = thread::Builder::new().name(format!("scheduler-{number}")).stack_size(STACK_SIZE);
        let started = with_signals_blocked(|| thread.spawn(move || shared.work(size, make_executor)));
        if started.is_err() {
            self.shared.workers.fetch_sub(1, Ordering::SeqCst);
        }
        started.map(drop)
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self, size: usize, make_executor: MakeExecutor) {
        let mut executor = None;
        for (request, reply) in &self.jobs {
            let outcome = reply.is_wanted().then(|| run(&mut executor, make_executor, &request));
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            match outcome {
                Some(Some(outcome)) => reply.send(outcome),
                // Dropped, the reply says that the job was lost, to whoever still listens.
                Some(None) | None => drop(reply),
            }
            if self.is_surplus(size) {
                return;
            }
        }
    }

    /// Counts the calling worker out if there are more than there should be, now that others are not blocked any more.
    fn is_surplus(&self, size: usize) -> bool {
        let limit = size + self.blocked.load(Ordering::SeqCst);
        let fewer = |workers: usize| (workers > limit).then(|| workers - 1);
        self.workers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
    }
}

/// Runs a request; `None` if the executor panicked. It is then replaced for the next one.
fn run(slot: &mut Option<Box<dyn Executor>>, make_executor: MakeExecutor, request: &Request) -> Option<Outcome> {
    let executor = slot.take();
    let ran = catch_unwind(AssertUnwindSafe(move || match executor.map_or_else(make_executor, Ok) {
        Ok(mut executor) => (executor.execute(request), Some(executor)),
        Err(error) => {
            let message = format!("no worker VM could be made: {error}").into_bytes();
            (Outcome::Failed(Failure { kind: "lost", message, ..Failure::default() }), None)
        }
    }));
    let (outcome, executor) = ran.ok()?;
    *slot = executor;
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use super::super::job::Environment;
    use super::*;
    use crate::runtime::{CompletionQueue, Reactor};

    struct Echo;

    impl Executor for Echo {
        fn execute(&mut self, request: &Request) -> Outcome {
            assert_ne!(request.call.bytes, b"die");
            Outcome::Done(request.call.clone())
        }
    }

    fn outcomes(pool: &Pool, calls: &[&[u8]]) -> Vec<Outcome> {
        let completions = Arc::new(CompletionQueue::new());
        let environment = Arc::new(Environment { path: Vec::new(), cpath: Vec::new() });
        for (number, call) in (0..).zip(calls) {
            let request = Request { call: call.to_vec().into(), environment: Arc::clone(&environment) };
            pool.submit(request, Reply::new(number, &completions)).unwrap();
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

    #[test]
    fn a_pool_grows_to_its_size_and_no_further() {
        let pool = Pool::new(2, || Ok(Box::new(Echo)));
        assert_eq!(pool.workers(), 0);
        let calls: Vec<_> = (0..100_u8).map(|n| vec![n]).collect();
        let sent: Vec<_> = calls.iter().map(Vec::as_slice).collect();
        assert_eq!(results(outcomes(&pool, &sent)), calls);
        assert!((1..=2).contains(&pool.workers()));
    }

    #[test]
    fn an_executor_that_panics_fails_its_job_and_is_replaced() {
        let pool = Pool::new(1, || Ok(Box::new(Echo)));
        for _ in 0..3 {
            let outcome = outcomes(&pool, &[b"die"]).remove(0);
            assert!(matches!(outcome, Outcome::Failed(Failure { kind: "lost", .. })));
        }
        assert_eq!(results(outcomes(&pool, &[b"live"])), [b"live"]);
    }

    #[test]
    fn a_blocked_worker_is_stood_in_for() {
        let pool = Pool::new(1, || Ok(Box::new(Echo)));
        // Afterwards the second one may end at once.
        let (outcome, workers) = pool.while_blocked(|| (outcomes(&pool, &[b"one", b"two"]), pool.workers()));
        assert_eq!(results(outcome), [b"one", b"two"]);
        assert_eq!(workers, 2);
        while pool.workers() > 1 {
            outcomes(&pool, &[b"one more"]);
        }
        outcomes(&pool, &[b"the last one stays"]);
        assert_eq!(pool.workers(), 1);
    }

    #[test]
    fn jobs_fail_when_no_executor_can_be_made() {
        let pool = Pool::new(1, || Err("no memory".into()));
        let Outcome::Failed(failure) = outcomes(&pool, &[b""]).remove(0) else { panic!("it has no executor") };
        assert_eq!(failure.message, b"no worker VM could be made: no memory");
    }
}
