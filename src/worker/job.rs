//! One call sent to a worker, and what comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use super::bytecode::Bytecode;
use super::shared::Handle;
use super::shared::Place;
use crate::engine::Nanos;
use crate::runtime::CompletionQueue;
use crate::runtime::sync::{Mutex, MutexGuard};

/// What tells the jobs of a VM apart.
pub type JobNumber = u64;

/// Values in the form in which they cross between VMs.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The values: see the layer above.
    pub bytes: Vec<u8>,
    /// What they share with the sender; the bytes refer to these by their index.
    pub handles: Vec<Handle>,
    /// The code of the functions among them; the bytes refer to these by their index as well.
    pub functions: Vec<Arc<Bytecode>>,
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Message { bytes, ..Message::default() }
    }
}

/// What a worker VM must have in common with the one that sent the job.
#[derive(Debug, Default)]
pub struct Environment {
    /// `package.path`.
    pub path: Vec<u8>,
    /// `package.cpath`.
    pub cpath: Vec<u8>,
}

/// What a worker is to call.
#[derive(Debug)]
pub struct Request {
    /// The function, then its arguments; or the values that a mapped function is called with, one by one.
    pub call: Message,
    /// Where the worker finds modules.
    pub environment: Arc<Environment>,
    /// The function that is called for each value, if it is a part of a map.
    pub mapped: Option<Arc<Mapped>>,
}

/// The function of a map. It is sent once to each worker that has a part in it.
#[derive(Debug)]
pub struct Mapped {
    /// What tells it from others in this process.
    pub id: u64,
    /// The function.
    pub function: Message,
}

impl Mapped {
    /// A function that is to be called for many values.
    pub fn new(function: Message) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Arc::new(Mapped { id: IDS.fetch_add(1, Ordering::Relaxed), function })
    }
}

/// What a job ended with.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The results of the function.
    Done(Message),
    /// Its error.
    Failed(Box<Failure>),
    /// No job has ended: what a place was waiting for is there. See [`Waker`].
    Woken,
    /// To a worker: the job that it was given under this number is to stop.
    Interrupted,
    /// There is a job to take, or room in a queue, or a pool has nothing left to do: whoever waits may look.
    Changed,
}

/// Why a job has no results.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// `"error"`: the function raised it; `"memory"`: the worker had none left; `"lost"`: the worker died.
    pub kind: &'static str,
    /// The error in words.
    pub message: Vec<u8>,
    /// The traceback in the worker.
    pub traceback: Vec<u8>,
    /// The error value itself, if it can cross.
    pub value: Option<Message>,
    /// Of a part of a map: which of its values it is about, from 1.
    pub position: Option<u32>,
}

impl Failure {
    /// One that is told in words alone.
    pub fn new(kind: &'static str, message: impl Into<Vec<u8>>) -> Box<Self> {
        Box::new(Failure { kind, message: message.into(), ..Failure::default() })
    }
}

/// A job's outcome, on its way to the VM that sent it.
#[derive(Debug)]
pub struct Completion {
    /// Which job.
    pub number: JobNumber,
    /// What it ended with.
    pub outcome: Outcome,
}

/// Tells a VM that a place need not wait any more: see `shared/mutex.rs` and `shared/waiter.rs`.
#[derive(Clone, Debug)]
pub struct Waker(Weak<CompletionQueue<Completion>>);

impl Waker {
    /// That of the VM that takes from `completions`.
    pub fn new(completions: &Arc<CompletionQueue<Completion>>) -> Self {
        Waker(Arc::downgrade(completions))
    }

    /// Tells it; false if the VM is closed, or that of the process which has forked this one.
    pub fn wake(&self, place: Place) -> bool {
        let is_open = |queue: &Arc<CompletionQueue<Completion>>| queue.is_taken_here() && !queue.is_closed();
        let Some(completions) = self.0.upgrade().filter(is_open) else { return false };
        completions.post(Completion { number: place, outcome: Outcome::Woken });
        true
    }
}

/// What stops what a worker runs. Any thread may ask for it.
pub trait Interrupt: Send + Sync {
    /// Stops the job that the worker was given under this number, if it still runs.
    fn interrupt(&self, running: RunNumber);

    /// Told by the worker itself: whether it is parked, and so computes nothing.
    fn set_parked(&self, is_parked: bool);
}

/// What tells the jobs of a worker apart.
pub type RunNumber = u64;

/// A job, seen by those that wait for it. The pool's end of it is an [`Assignment`].
pub struct Job {
    number: JobNumber,
    completions: Weak<CompletionQueue<Completion>>,
    /// A std mutex: it is held to look and to take.
    state: Mutex<State>,
    /// Who wants the outcome besides, once other VMs have heard of the job.
    others: Mutex<Option<Others>>,
    made: Instant,
    /// For how many nanoseconds it was queued; 0 until it starts.
    waited: AtomicU64,
}

/// VMs that wait for the job of another one.
#[derive(Debug, Default)]
struct Others {
    waiting: Vec<(JobNumber, Weak<CompletionQueue<Completion>>)>,
    /// For those that come late.
    outcome: Option<Outcome>,
}

enum State {
    Queued(Request),
    Running(RunNumber, Option<Arc<dyn Interrupt>>),
    Cancelled,
    Ended,
}

/// What cancelling has come to.
pub enum Cancelled {
    /// It will never start.
    Queued,
    /// It was running, and was told to stop.
    Running(Stop),
    /// It had ended.
    TooLate,
}

/// By what a job that runs is told to stop.
#[derive(Clone)]
pub struct Stop {
    run: RunNumber,
    interrupt: Option<Arc<dyn Interrupt>>,
}

impl Stop {
    fn ask(&self) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.interrupt(self.run);
        }
    }

    /// Asks again and again until the job has ended: it may have caught what it was told, and go on.
    pub async fn insist(self, job: Weak<Job>) {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(1);
        let mut wait = FIRST;
        loop {
            tokio::time::sleep(wait).await;
            match job.upgrade() {
                Some(job) if matches!(*job.lock(), State::Cancelled) => self.ask(),
                _ => return,
            }
            wait = (2 * wait).min(LONGEST);
        }
    }
}

impl Job {
    /// A job of the VM that takes from `completions`.
    pub fn new(number: JobNumber, completions: &Arc<CompletionQueue<Completion>>, request: Request) -> Arc<Self> {
        let state = Mutex::new(State::Queued(request));
        Arc::new(Job {
            number,
            completions: Arc::downgrade(completions),
            state,
            others: Mutex::new(None),
            made: Instant::now(),
            waited: AtomicU64::new(0),
        })
    }

    /// For how long it was queued, and for how long it has run since.
    pub fn times(&self) -> (Nanos, Nanos) {
        let waited = self.waited.load(Ordering::Relaxed);
        (waited, (self.made.elapsed().as_nanos() as Nanos).saturating_sub(waited))
    }

    /// Sees to it that it does not start, or stops. Nothing is posted for it any more, but for the `notice`.
    pub fn cancel(&self, notice: Option<Outcome>) -> Cancelled {
        let mut state = self.lock();
        if let State::Queued(_) | State::Running(..) = &*state {
            self.tell_others(|| Outcome::Failed(Failure::new("cancelled", "the job was cancelled")));
            if let Some(outcome) = notice {
                self.post(outcome);
            }
        }
        match &*state {
            State::Queued(_) => {
                let former = mem::replace(&mut *state, State::Cancelled);
                // What a request holds may be dropped at length.
                drop(state);
                drop(former);
                Cancelled::Queued
            }
            State::Running(run, interrupt) => {
                let stop = Stop { run: *run, interrupt: interrupt.clone() };
                *state = State::Cancelled;
                drop(state);
                stop.ask();
                Cancelled::Running(stop)
            }
            State::Cancelled | State::Ended => Cancelled::TooLate,
        }
    }

    /// From now on other VMs may [`Job::join`]. If it has ended a moment ago, its own VM has to tell them.
    pub fn share(&self) {
        self.others().get_or_insert_default();
    }

    /// Posts the outcome to `completions` as well, under this number.
    pub fn join(&self, number: JobNumber, completions: &Arc<CompletionQueue<Completion>>) {
        let mut others = self.others();
        let others = others.get_or_insert_default();
        match &others.outcome {
            Some(outcome) => completions.post(Completion { number, outcome: outcome.clone() }),
            None => others.waiting.push((number, Arc::downgrade(completions))),
        }
    }

    /// Takes a [`Job::join`] back.
    pub fn leave(&self, number: JobNumber, completions: &Arc<CompletionQueue<Completion>>) {
        if let Some(others) = &mut *self.others() {
            let is_it = |of: JobNumber, queue: &Weak<_>| of == number && queue.as_ptr() == Arc::as_ptr(completions);
            others.waiting.retain(|(of, queue)| !is_it(*of, queue));
        }
    }

    /// Tells those that have joined, unless they were told.
    pub fn tell_others(&self, outcome: impl FnOnce() -> Outcome) {
        let mut others = self.others();
        let Some(others) = others.as_mut().filter(|others| others.outcome.is_none()) else { return };
        let outcome = outcome();
        for (number, completions) in mem::take(&mut others.waiting) {
            if let Some(completions) = completions.upgrade() {
                completions.post(Completion { number, outcome: outcome.clone() });
            }
        }
        others.outcome = Some(outcome);
    }

    fn others(&self) -> MutexGuard<'_, Option<Others>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may still start.
    pub fn is_queued(&self) -> bool {
        matches!(*self.lock(), State::Queued(_))
    }

    /// Whether it was cancelled and has not ended yet.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.lock(), State::Cancelled)
    }

    fn post(&self, outcome: Outcome) {
        if let Some(completions) = self.completions.upgrade() {
            completions.post(Completion { number: self.number, outcome });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Job").field("number", &self.number).finish_non_exhaustive()
    }
}

/// How a job ended, for the pool's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With results.
    Done,
    /// With an error, or lost.
    Failed,
    /// It was cancelled before.
    Cancelled,
}

/// The pool's end of a job. Dropped without an outcome, it says that the job was lost: a worker that dies fails its jobs.
#[derive(Debug)]
pub struct Assignment(Arc<Job>);

impl Assignment {
    /// That of a job that is to be queued.
    pub fn new(job: &Arc<Job>) -> Self {
        Assignment(Arc::clone(job))
    }

    /// The job.
    pub fn job(&self) -> &Arc<Job> {
        &self.0
    }

    /// Starts it; `None` if it was cancelled: also when its VM is closed.
    pub fn start(&self, run: RunNumber, interrupt: Option<Arc<dyn Interrupt>>) -> Option<Request> {
        let mut state = self.0.lock();
        match mem::replace(&mut *state, State::Ended) {
            State::Queued(request) => {
                *state = State::Running(run, interrupt);
                self.0.waited.store(self.0.made.elapsed().as_nanos() as Nanos, Ordering::Relaxed);
                Some(request)
            }
            former => {
                *state = former;
                None
            }
        }
    }

    /// Sends the outcome; `note` hears of it before the VM does that sent the job.
    pub fn end(self, outcome: Outcome, note: impl FnOnce(&Arc<Job>, Ending)) {
        self.settle(outcome, note);
    }

    /// Takes it back: it was never queued.
    pub fn withdraw(self) {
        *self.0.lock() = State::Ended;
    }

    fn settle(&self, outcome: Outcome, note: impl FnOnce(&Arc<Job>, Ending)) {
        let former = mem::replace(&mut *self.0.lock(), State::Ended);
        match former {
            State::Cancelled => note(&self.0, Ending::Cancelled),
            State::Ended => {}
            State::Queued(_) | State::Running(..) => {
                note(&self.0, if matches!(outcome, Outcome::Done(_)) { Ending::Done } else { Ending::Failed });
                self.0.tell_others(|| outcome.clone());
                self.0.post(outcome);
            }
        }
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.settle(Outcome::Failed(Failure::new("lost", "the worker that ran the job died")), |_, _| {});
    }
}
