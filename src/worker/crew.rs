//! The crew of a pool: threads that take jobs from one queue. They start when there is a job that no idle one can take.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{hint, io, mem};

use super::job::{Assignment, Cancelled, Completion, Ending, Failure, Job, JobNumber, Outcome};
use super::pool::{Figures, Refusal, Settings, Times};
use super::seat::Seat;
use crate::runtime::background::background;
use crate::runtime::process::with_signals_blocked;
use crate::runtime::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::runtime::sync::{Condvar, Mutex, MutexGuard, thread};
use crate::runtime::{CompletionQueue, Spinner};

/// Lua calls C functions recursively; the main thread of a process usually has as much.
const STACK_SIZE: usize = 8 << 20;

/// What a worker needs to begin, and how long it waits for that.
const MEMORY_NEEDED: usize = 2 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// Linux cuts the names of threads off.
const NAME_SHOWN: usize = 15;

/// Makes the executor of a new worker, on its thread.
pub type MakeExecutor = fn(Rc<Seat>) -> Result<Box<dyn Executor>, Box<Failure>>;

/// Takes jobs and runs them, on the thread that made it, until there are none for it.
pub trait Executor {
    /// Works until the seat tells it to leave. False if it is not fit to go on and has to be replaced.
    fn work(self: Box<Self>) -> bool;
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
    /// Whether an idle worker was woken and has not come yet. It sees to it that others are, if there is more to do.
    is_one_called: bool,
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
    /// Of jobs that were not cancelled.
    times: Times,
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
    pub(super) fn new(settings: &Arc<Settings>, make_executor: MakeExecutor) -> Arc<Self> {
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

    pub(super) fn figures(&self) -> Figures {
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

    pub(super) fn times(&self) -> Times {
        self.lock().times.clone()
    }

    /// Workers that there may be now.
    fn limit(&self, state: &State) -> usize {
        self.settings.size.saturating_add(state.blocked)
    }

    /// Whether the queue has no room.
    pub(super) fn has_no_room(&self) -> bool {
        self.is_full(&self.lock())
    }

    /// Whether nothing is queued, and nothing runs.
    pub(super) fn is_done(&self) -> bool {
        self.lock().is_done()
    }

    /// Posts to `completions`, once, when there is room in the queue, or when nothing is left to do.
    pub(super) fn watch(&self, completions: &Arc<CompletionQueue<Completion>>) {
        add(&mut self.lock().watchers, completions);
    }

    fn is_full(&self, state: &State) -> bool {
        let startable = self.limit(state).saturating_sub(state.workers);
        let room = self.settings.queue.saturating_add(
            state.idle + usize::from(state.is_one_looking) + state.starting + startable + state.roomy.len(),
        );
        state.queue.len() >= room
    }

    pub(super) fn submit(self: &Arc<Self>, job: &Arc<Job>, is_bound: bool) -> Result<(), Refusal> {
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
        self.wake_idle(&mut state);
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

    /// Wakes an idle worker if there is a job for it: one at a time, as this takes longer than most other things here.
    fn wake_idle(&self, state: &mut State) {
        if state.idle > 0 && !state.is_one_called && state.queue.len() > usize::from(state.is_one_looking) {
            state.is_one_called = true;
            self.work_came.notify_one();
        }
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
            wait_for_memory();
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
                self.wake_idle(&mut state);
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
            (state, is_late) = spinner.while_parked(|| self.wait(state));
            state.idle -= 1;
            state.is_one_called = false;
            if is_late && state.queue.is_empty() {
                break;
            }
        }
        state.workers -= 1;
        // It may have been this one that was called for it.
        self.wake_idle(&mut state);
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
        let (waited, ran) = job.times();
        let mut state = self.lock();
        let is_out = state.forget(job);
        if !matches!(ending, Ending::Cancelled) {
            state.times.wait.record(waited);
            state.times.run.record(ran);
        }
        match ending {
            Ending::Done => state.done += 1,
            Ending::Failed => state.failed += 1,
            // Whoever cancelled it while it ran has counted that.
            Ending::Cancelled if is_out => state.cancelled += 1,
            Ending::Cancelled => state.blocked -= 1,
        }
    }

    pub(super) fn note_cancelled(self: &Arc<Self>, job: &Arc<Job>, cancelled: Cancelled) {
        let mut state = self.lock();
        match cancelled {
            Cancelled::TooLate => {}
            Cancelled::Queued => {
                state.cancelled_in_queue += 1;
                if 2 * state.cancelled_in_queue > state.queue.len() || state.queue.len() >= self.settings.queue {
                    self.sweep(state);
                }
            }
            Cancelled::Running(stop) => {
                if state.forget(job) {
                    state.cancelled += 1;
                    state.blocked += 1;
                    tell(mem::take(&mut state.watchers));
                    // If no thread can be started, the jobs wait for a worker that gets free.
                    let _ = self.call_worker(state);
                    self.tell_if_done();
                    // Where no thread can be started, it was asked once.
                    if let Ok(background) = background() {
                        background.spawn(stop.insist(Arc::downgrade(job)));
                    }
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

    pub(super) fn close(&self) {
        let mut state = self.lock();
        self.is_closing.store(true, Ordering::SeqCst);
        // Those that wait for room need not any more.
        let watchers = mem::take(&mut state.watchers);
        drop(state);
        self.work_came.notify_all();
        tell(watchers);
    }

    pub(super) fn cancel_all(self: &Arc<Self>) {
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

/// Waits until there is memory for a worker. It takes the place of one that has run out and is about to free it; and
/// where Lua gets an error, Rust ends the process.
fn wait_for_memory() {
    let is_there = || hint::black_box(Vec::<u8>::new()).try_reserve_exact(MEMORY_NEEDED).is_ok();
    let start = Instant::now();
    while !hint::black_box(is_there()) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
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
