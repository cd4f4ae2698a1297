//! A pool: threads that take jobs from one queue. They start when there is a job that no idle one can take.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{fmt, io, mem, thread};

use super::job::{Assignment, Cancelled, Completion, Ending, Failure, Job, JobNumber, Outcome, Request};
use super::seat::Seat;
use crate::runtime::process::with_signals_blocked;
use crate::runtime::{CompletionQueue, PerProcess, Spinner};

/// Lua calls C functions recursively; the main thread of a process usually has as much.
const STACK_SIZE: usize = 8 << 20;

/// Linux cuts the names of threads off.
const NAME_SHOWN: usize = 15;

/// Makes the executor of a new worker, on its thread.
pub type MakeExecutor = fn(Rc<Seat>) -> Result<Box<dyn Executor>, Box<Failure>>;

/// Takes jobs and runs them, on the thread that made it, until there are none for it.
pub trait Executor {
    /// Works until the seat tells it to leave. False if it is not fit to go on and has to be replaced.
    fn work(self: Box<Self>) -> bool;
}

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
        is_bounded && self.crew.get().is_some_and(|crew| crew.is_full(&crew.lock()))
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
        self.crew.get().is_none_or(|crew| crew.lock().is_done())
    }

    /// Tells a VM, once, when there is room in the queue, or when nothing is left to do.
    pub fn watch(&self, completions: &Arc<CompletionQueue<Completion>>) {
        add(&mut self.crew().lock().watchers, completions);
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

type Listener = Weak<CompletionQueue<Completion>>;

fn add(listeners: &mut Vec<Listener>, completions: &Arc<CompletionQueue<Completion>>) {
    if !listeners.iter().any(|listener| listener.as_ptr() == Arc::as_ptr(completions)) {
        listeners.push(Arc::downgrade(completions));
    }
}

fn tell(listeners: Vec<Listener>) {
    const NO_JOB: JobNumber = 0;
    for completions in listeners.iter().filter_map(Weak::upgrade) {
        completions.post(Completion { number: NO_JOB, outcome: Outcome::Changed });
    }
}

/// The workers of one process, and what they share.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) settings: Arc<Settings>,
    make_executor: MakeExecutor,
    state: Mutex<State>,
    work_came: Condvar,
    /// Set under the lock.
    is_closing: AtomicBool,
    /// Jobs in the queue, to look at without the lock.
    queued: AtomicUsize,
    numbers: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Assignment>,
    /// Jobs that were cancelled in the queue since those were last taken out.
    cancelled_in_queue: usize,
    running: Vec<Arc<Job>>,
    workers: usize,
    idle: usize,
    /// Whether an idle worker looks for a job without being parked: one at a time, or they would take the cores of
    /// those that make jobs.
    is_one_looking: bool,
    /// Workers that were started and have not asked for a job yet.
    starting: usize,
    /// Workers whose jobs wait for other jobs, and such as do not stop: others take their place.
    blocked: usize,
    /// Workers that have room for more jobs beside those that wait.
    roomy: Vec<Listener>,
    watchers: Vec<Listener>,
    done: u64,
    failed: u64,
    cancelled: u64,
}

impl State {
    /// Takes a job out of those that run; false if it was cancelled meanwhile.
    fn forget(&mut self, job: &Arc<Job>) -> bool {
        let position = self.running.iter().position(|running| Arc::ptr_eq(running, job));
        position.map(|position| self.running.swap_remove(position)).is_some()
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty()
    }
}

impl Crew {
    fn new(settings: &Arc<Settings>, make_executor: MakeExecutor) -> Arc<Self> {
        Arc::new(Crew {
            settings: Arc::clone(settings),
            make_executor,
            state: Mutex::default(),
            work_came: Condvar::new(),
            is_closing: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            numbers: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn figures(&self) -> Figures {
        let state = self.lock();
        Figures {
            workers: state.workers,
            idle: state.idle + usize::from(state.is_one_looking),
            queued: state.queue.iter().filter(|assignment| assignment.job().is_queued()).count(),
            running: state.running.len(),
            done: state.done,
            failed: state.failed,
            cancelled: state.cancelled,
        }
    }

    /// Workers that there may be now.
    fn limit(&self, state: &State) -> usize {
        self.settings.size.saturating_add(state.blocked)
    }

    fn is_full(&self, state: &State) -> bool {
        let startable = self.limit(state).saturating_sub(state.workers);
        let room = self.settings.queue.saturating_add(
            state.idle + usize::from(state.is_one_looking) + state.starting + startable + state.roomy.len(),
        );
        state.queue.len() >= room
    }

    fn submit(self: &Arc<Self>, job: &Arc<Job>, is_bound: bool) -> Result<(), Refusal> {
        let mut state = self.lock();
        if self.is_closing.load(Ordering::SeqCst) {
            return Err(Refusal::Closed);
        }
        if is_bound && self.is_full(&state) {
            return Err(Refusal::Full);
        }
        state.queue.push_back(Assignment::new(job));
        self.queued.store(state.queue.len(), Ordering::Relaxed);
        let Err(error) = self.call_worker(state) else { return Ok(()) };
        let mut state = self.lock();
        let is_ours = |assignment: &Assignment| Arc::ptr_eq(assignment.job(), job);
        let position = state.queue.iter().position(is_ours);
        if let Some(assignment) = position.and_then(|position| state.queue.remove(position)) {
            self.queued.store(state.queue.len(), Ordering::Relaxed);
            drop(state);
            assignment.withdraw();
            return Err(Refusal::NoThread(error));
        }
        Ok(())
    }

    /// Sees to it that somebody takes what is queued. One worker is enough to go on.
    fn call_worker(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        let awake = usize::from(state.is_one_looking);
        if state.idle > 0 && state.queue.len() > awake {
            self.work_came.notify_one();
        }
        if state.queue.len() <= state.idle + awake + state.starting {
            return Ok(());
        }
        if state.workers >= self.limit(&state) {
            let roomy = state.roomy.pop();
            drop(state);
            tell(roomy.into_iter().collect());
            return Ok(());
        }
        let is_first = state.workers == 0;
        state.workers += 1;
        state.starting += 1;
        drop(state);
        let started = self.start_worker();
        if started.is_err() {
            let mut state = self.lock();
            state.workers -= 1;
            state.starting -= 1;
        }
        if is_first { started } else { Ok(()) }
    }

    fn start_worker(self: &Arc<Self>) -> io::Result<()> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let suffix = format!("-{number}");
        let shown = NAME_SHOWN.saturating_sub(suffix.len());
        let mut name: String = self.settings.name.chars().filter(|&letter| letter != '\0').collect();
        while name.len() > shown {
            name.pop();
        }
        let crew = Arc::clone(self);
        let thread = thread::Builder::new().name(name + &suffix).stack_size(STACK_SIZE);
        with_signals_blocked(|| thread.spawn(move || crew.work())).map(drop)
    }

    /// The life of a worker.
    fn work(self: &Arc<Self>) {
        let mut is_new = true;
        loop {
            let seat = Rc::new(Seat::new(Arc::clone(self)));
            let is_fit = catch_unwind(AssertUnwindSafe(|| {
                let executor = (self.make_executor)(Rc::clone(&seat));
                self.lock().starting -= usize::from(mem::take(&mut is_new));
                match executor {
                    Ok(executor) => executor.work(),
                    Err(failure) => {
                        seat.fail_next(failure);
                        false
                    }
                }
            }));
            // What an executor leaves behind that is not fit is lost. Another one takes its place, if there are jobs.
            drop(seat);
            self.lock().starting -= usize::from(mem::take(&mut is_new));
            if is_fit.unwrap_or(false) || self.leave_if_unneeded() {
                return;
            }
        }
    }

    fn leave_if_unneeded(&self) -> bool {
        let mut state = self.lock();
        let is_unneeded = state.queue.is_empty();
        state.workers -= usize::from(is_unneeded);
        is_unneeded
    }

    /// The next job for a worker, which waits for one if told to.
    pub(super) fn take(&self, wait: bool, spinner: &Spinner) -> Next {
        let mut state = self.lock();
        let mut has_looked = false;
        loop {
            if wait && state.workers > self.limit(&state) {
                break;
            }
            if let Some(assignment) = state.queue.pop_front() {
                self.queued.store(state.queue.len(), Ordering::Relaxed);
                state.running.push(Arc::clone(assignment.job()));
                let watchers = mem::take(&mut state.watchers);
                drop(state);
                tell(watchers);
                return Next::Job(assignment);
            }
            if !wait {
                return Next::None;
            }
            if self.is_closing.load(Ordering::SeqCst) {
                break;
            }
            if !has_looked && !state.is_one_looking {
                has_looked = true;
                state.is_one_looking = true;
                drop(state);
                spinner.spin(|| self.queued.load(Ordering::Relaxed) > 0 || self.is_closing.load(Ordering::Relaxed));
                state = self.lock();
                state.is_one_looking = false;
                continue;
            }
            state.idle += 1;
            // Where nothing may wait in the queue, there is room only now.
            tell(mem::take(&mut state.watchers));
            let is_late;
            (state, is_late) = self.wait(state);
            state.idle -= 1;
            if is_late && state.queue.is_empty() {
                break;
            }
        }
        state.workers -= 1;
        if !state.queue.is_empty() {
            // It may have been this one that was called for it.
            self.work_came.notify_one();
        }
        Next::Leave
    }

    /// Waits for a job; true if none has come for as long as a worker may be idle.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
        let Some(idle) = self.settings.idle else {
            return (self.work_came.wait(state).unwrap_or_else(PoisonError::into_inner), false);
        };
        let (state, waited) = self.work_came.wait_timeout(state, idle).unwrap_or_else(PoisonError::into_inner);
        (state, waited.timed_out())
    }

    /// Notes how a job has ended that `take` gave out.
    pub(super) fn note_end(&self, job: &Arc<Job>, ending: Ending) {
        let mut state = self.lock();
        let is_out = state.forget(job);
        match ending {
            Ending::Done => state.done += 1,
            Ending::Failed => state.failed += 1,
            // Whoever cancelled it while it ran has counted that.
            Ending::Cancelled if is_out => state.cancelled += 1,
            Ending::Cancelled => state.blocked -= 1,
        }
    }

    fn note_cancelled(self: &Arc<Self>, job: &Arc<Job>, cancelled: Cancelled) {
        let mut state = self.lock();
        match cancelled {
            Cancelled::TooLate => {}
            Cancelled::Queued => {
                state.cancelled_in_queue += 1;
                if 2 * state.cancelled_in_queue > state.queue.len() || state.queue.len() >= self.settings.queue {
                    self.sweep(state);
                }
            }
            Cancelled::Running => {
                if state.forget(job) {
                    state.cancelled += 1;
                    state.blocked += 1;
                    tell(mem::take(&mut state.watchers));
                    // If no thread can be started, the jobs wait for a worker that gets free.
                    let _ = self.call_worker(state);
                    self.tell_if_done();
                }
            }
        }
    }

    /// Takes those out of the queue that were cancelled.
    fn sweep(&self, mut state: MutexGuard<'_, State>) {
        let before = state.queue.len();
        let (queued, cancelled) =
            mem::take(&mut state.queue).into_iter().partition(|assignment| assignment.job().is_queued());
        state.queue = queued;
        state.cancelled += (before - state.queue.len()) as u64;
        state.cancelled_in_queue = 0;
        self.queued.store(state.queue.len(), Ordering::Relaxed);
        let watchers = mem::take(&mut state.watchers);
        drop(state);
        tell(watchers);
        drop::<VecDeque<Assignment>>(cancelled);
    }

    /// Tells those that wait for it that nothing is left to do.
    pub(super) fn tell_if_done(&self) {
        if !self.is_closing.load(Ordering::SeqCst) {
            return;
        }
        let mut state = self.lock();
        if state.is_done() {
            let watchers = mem::take(&mut state.watchers);
            drop(state);
            tell(watchers);
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        self.is_closing.store(true, Ordering::SeqCst);
        // Those that wait for room need not any more.
        let watchers = mem::take(&mut state.watchers);
        drop(state);
        self.work_came.notify_all();
        tell(watchers);
    }

    fn cancel_all(self: &Arc<Self>) {
        let state = self.lock();
        let queued = state.queue.iter().map(|assignment| Arc::clone(assignment.job()));
        let jobs: Vec<_> = queued.chain(state.running.iter().cloned()).collect();
        drop(state);
        for job in jobs {
            let notice = Outcome::Failed(Failure::new("cancelled", "the pool was closed"));
            let cancelled = job.cancel(Some(notice));
            self.note_cancelled(&job, cancelled);
        }
    }

    /// Whether there is a job to take, for a worker that spins.
    pub(super) fn has_queued(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
    }

    /// Tells a worker that has room for more jobs when there is one; false if there is one now.
    pub(super) fn listen(&self, completions: &Arc<CompletionQueue<Completion>>) -> bool {
        let mut state = self.lock();
        if !state.queue.is_empty() {
            return false;
        }
        add(&mut state.roomy, completions);
        tell(mem::take(&mut state.watchers));
        true
    }

    /// Runs `wait` on a worker's thread, while its job waits for other jobs.
    pub(super) fn while_blocked<T>(self: &Arc<Self>, wait: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        state.blocked += 1;
        // If no thread can be started, the jobs wait for a worker that gets free.
        let _ = self.call_worker(state);
        let waited = wait();
        self.lock().blocked -= 1;
        waited
    }
}

/// What there is for a worker.
pub(super) enum Next {
    Job(Assignment),
    /// Nothing now.
    None,
    /// Nothing any more: it has been counted out.
    Leave,
}

#[cfg(test)]
mod tests {
    use super::super::job::{Environment, Message};
    use super::super::seat::Taken;
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
