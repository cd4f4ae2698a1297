//! One [`Vm`] per `lua_State`: everything that belongs to the state and is not Lua, and how values leave and enter it.
//!
//! The Lua side (`lua/`) resumes coroutines and calls callbacks; it is given numbers by the [`Vm`] and keeps the Lua
//! values under them. So no handle into Lua is held here, however much is scheduled.

#[cfg(feature = "luajit")]
mod brake;
pub mod channels;
pub mod decode;
pub mod encode;
pub mod functions;
pub mod interrupt;
pub mod memory;
pub mod places;
pub mod raw;
pub mod state;
pub mod transfer;
pub mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::engine::{Delay, Engine, Id, Nanos, Origin, Origins, Repeat, Slot, Work};
use crate::runtime::{CompletionQueue, MOMENT, Reactor, Spinner, WakeDescriptor, process};
use crate::worker::{Completion, Job, JobNumber, Message, Outcome, Pool, Refusal, Request, Seat, Waker};
use channels::{Channels, Waited};
use places::Places;
use watch::Watch;

/// What Lua says when memory has run out.
pub const NO_MEMORY: &str = "not enough memory";

/// What the names of the module's own chunks begin with.
pub const OWN_CHUNKS: &[u8] = b"=[scheduler]";

/// A park takes several microseconds of work. Timers that were set in a row are due in a row, microseconds apart: those
/// of this span (ns) share one wake-up.
const SHORTEST_WAIT: Nanos = 50_000;

/// What belongs to one Lua state. It is touched by the state's thread alone, and lives as long as the state.
#[derive(Debug)]
pub struct Vm {
    /// What is due and in which order.
    pub engine: RefCell<Engine>,
    /// Where timers were set.
    pub origins: RefCell<Origins>,
    /// The place in its pool, of a worker's state.
    pub seat: OnceCell<Rc<Seat>>,
    /// Whether this worker has room for another job beside those that wait.
    pub has_room: Cell<bool>,
    /// How many tasks wait for something in a pool.
    pub pool_waits: Cell<usize>,
    /// What is locked, or waited for, between VMs.
    pub places: Places,
    /// Its channels, and the tasks that wait for these.
    pub channels: Channels,
    /// What runs, for the watchdog.
    pub watch: Watch,
    process: RefCell<Process>,
    /// Completions that were taken from the queue and not handed to Lua yet.
    taken: RefCell<VecDeque<Completion>>,
    /// Where the timer that fired last was set.
    fired: Cell<Origin>,
    jobs: RefCell<FxHashMap<JobNumber, Sent>>,
    jobs_sent: Cell<JobNumber>,
    completions_taken: Cell<u64>,
    /// Whether there is a descriptor.
    is_embedded: Cell<bool>,
    /// Whether it pays to look for others for a moment.
    spinner: Spinner,
    /// The last of the jobs that a fork has lost, until Lua is told.
    lost_jobs: Cell<Option<JobNumber>>,
}

/// A job whose outcome is still to come.
#[derive(Debug)]
struct Sent {
    job: Arc<Job>,
    /// None for the job of another VM, which this one waits for as well.
    pool: Option<Arc<Pool>>,
}

/// What a turn finds when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// The time that stands for the whole turn.
    pub now: Nanos,
    /// Whether timers are due or immediates queued.
    pub has_callbacks: bool,
    /// Whether completions were taken, or jobs are lost.
    pub has_completions: bool,
}

/// What does not survive a `fork`: it shares descriptors with the parent's, or needs threads that are not there.
#[derive(Debug)]
struct Process {
    pid: u32,
    completions: Arc<CompletionQueue<Completion>>,
    /// Made when the thread parks for the first time.
    reactor: Option<Reactor>,
    /// Made when the host asks for it.
    descriptor: Option<WakeDescriptor>,
}

impl Process {
    fn new() -> Self {
        let completions = Arc::new(CompletionQueue::new());
        Process { pid: process::id(), completions, reactor: None, descriptor: None }
    }
}

impl Vm {
    /// A VM in which nothing is scheduled and nothing is started.
    pub fn new() -> Self {
        Vm {
            engine: RefCell::default(),
            origins: RefCell::default(),
            seat: OnceCell::new(),
            has_room: Cell::new(false),
            pool_waits: Cell::new(0),
            places: Places::default(),
            channels: Channels::default(),
            watch: Watch::default(),
            process: RefCell::new(Process::new()),
            taken: RefCell::default(),
            fired: Cell::default(),
            jobs: RefCell::default(),
            jobs_sent: Cell::new(0),
            completions_taken: Cell::new(0),
            is_embedded: Cell::new(false),
            spinner: Spinner::default(),
            lost_jobs: Cell::new(None),
        }
    }

    /// Begins a turn.
    pub fn begin_turn(&self, budget: Option<Nanos>) -> Began {
        // Otherwise nothing in this process could have come from a parent's turn, and the next park looks anyway.
        if self.is_embedded.get() || self.waits_for_others() || self.seat.get().is_some() {
            self.leave_parent_process();
            let process = self.process.borrow();
            if let Some(descriptor) = &process.descriptor {
                descriptor.clear();
            }
            self.taken.borrow_mut().extend(process.completions.take());
        }
        let mut engine = self.engine.borrow_mut();
        engine.begin_turn(budget);
        Began {
            now: engine.now(),
            has_callbacks: engine.has_work(),
            has_completions: self.has_lost_jobs() || !self.taken.borrow().is_empty(),
        }
    }

    /// The number of the last of the jobs that are lost because this process is a fork of the one that sent them, once.
    pub fn take_lost_jobs(&self) -> Option<JobNumber> {
        self.lost_jobs.take()
    }

    /// Sets a timer, and sees to it that a host's loop learns of its deadline.
    pub fn set_timer(&self, delay: Delay, repeat: Repeat, origin: Origin) -> (Id, Slot) {
        let set = self.engine.borrow_mut().set_timer(delay, repeat, origin);
        self.arm_descriptor_outside_of_turns();
        set
    }

    /// What is to run next in this turn.
    pub fn next_work(&self) -> Option<Work> {
        let work = self.engine.borrow_mut().next_work();
        if let Some(Work::Callback(fired)) = work {
            self.fired.set(fired.origin);
        }
        work
    }

    /// Where the timer or immediate that fired last was set.
    pub fn fired(&self) -> Origin {
        self.fired.get()
    }

    /// Whether something has come from other threads, for the next turn.
    pub fn has_completions(&self) -> bool {
        self.waits_for_others() && !self.process.borrow().completions.is_empty()
    }

    /// The next completion of this turn.
    pub fn next_completion(&self) -> Option<Completion> {
        let completion = self.taken.borrow_mut().pop_front()?;
        self.completions_taken.set(self.completions_taken.get() + 1);
        match completion.outcome {
            Outcome::Woken => self.places.woken(completion.number),
            Outcome::Done(_) | Outcome::Failed(_) => {
                if let Some(Sent { job, .. }) = self.jobs.borrow_mut().remove(&completion.number) {
                    job.tell_others(|| completion.outcome.clone());
                }
            }
            Outcome::Interrupted | Outcome::Changed => {}
        }
        Some(completion)
    }

    /// The next completion, if it is that of a job with results, and `take` takes these, by the number of the job.
    pub fn next_plain(&self, take: impl FnOnce(JobNumber, &Message) -> bool) {
        let taken = self.taken.borrow();
        if let Some(Completion { number, outcome: Outcome::Done(results) }) = taken.front()
            && take(*number, results)
        {
            drop(taken);
            self.next_completion();
        }
    }

    /// Whether something is left that will, or could, make work.
    pub fn is_alive(&self) -> bool {
        !self.jobs.borrow().is_empty()
            || self.places.is_waiting()
            || self.pool_waits.get() > 0
            || self.has_lost_jobs()
            || self.engine.borrow().is_alive()
            || self.channels.waits_for_others()
            // After that: whoever was the last other one may just have told us something.
            || self.has_completions()
    }

    /// Whether tasks wait for what other threads may do. Those that wait for channels, this one's own tasks as well.
    pub fn waits_for_others(&self) -> bool {
        !self.jobs.borrow().is_empty()
            || self.places.is_waiting()
            || self.pool_waits.get() > 0
            || self.channels.is_waiting()
    }

    /// The queue into which other threads post for this VM.
    pub fn completions(&self) -> Arc<CompletionQueue<Completion>> {
        self.leave_parent_process();
        Arc::clone(&self.process.borrow().completions)
    }

    /// Waits for the cases of channels that were tried. If this thread has nothing else to do, it looks for a moment
    /// whether another one lets a case be done, before the task is suspended.
    pub fn wait_for_cases(&self, is_idle: bool) -> Waited {
        let channels = &self.channels;
        let may_look = is_idle && channels.has_shared_cases();
        let has_to_be_found = may_look && channels.has_to_be_found();
        if may_look
            && !has_to_be_found
            && self.spin(|| channels.is_ready())
            && let Some(waited) = channels.try_again()
        {
            return waited;
        }
        let look = |has_ended: &dyn Fn() -> bool| {
            self.spin(has_ended);
        };
        channels.wait(|| self.new_waker(), has_to_be_found.then_some(look))
    }

    /// While tasks wait for channels or locks: looks for a moment, without parking, whether somebody ends that. Not for
    /// jobs: the workers may need the core.
    pub fn spin_for_completion(&self) -> bool {
        self.waits_for_others() && self.spin(|| false)
    }

    /// Returns as soon as `is_over`, or a completion came; false if that takes too long, or this thread has work to do.
    fn spin(&self, is_over: impl Fn() -> bool) -> bool {
        let is_time = |wait: Option<Duration>| wait.is_none_or(|wait| wait > MOMENT);
        let has_time = self.time_to_wait().is_some_and(is_time) && !self.engine.borrow().clock.is_paused();
        if !has_time || self.is_embedded.get() {
            return false;
        }
        let completions = Arc::clone(&self.process.borrow().completions);
        self.spinner.spin(|| is_over() || !completions.is_empty())
    }

    /// What tells this VM that one of its places need not wait any more.
    pub fn new_waker(&self) -> Waker {
        self.leave_parent_process();
        Waker::new(&self.process.borrow().completions)
    }

    /// Sleeps until the next deadline or completion.
    pub fn park(&self) -> io::Result<()> {
        self.leave_parent_process();
        let Some(wait) = self.time_to_wait() else { return Ok(()) };
        let Process { reactor, completions, .. } = &mut *self.process.borrow_mut();
        let reactor = match reactor {
            Some(reactor) => reactor,
            None => reactor.insert(Reactor::new()?),
        };
        self.spinner.while_parked(|| reactor.park(wait, completions))
    }

    /// `None` if there is work already, else how long there will be none: `Some(None)` is for ever.
    fn time_to_wait(&self) -> Option<Option<Duration>> {
        if self.has_lost_jobs() {
            return None;
        }
        let engine = self.engine.borrow();
        if engine.clock.is_paused() && !engine.has_work() {
            return Some(None);
        }
        let Some(deadline) = engine.next_deadline() else { return Some(None) };
        let wait = deadline.checked_sub(engine.clock.now())?;
        (wait > 0).then(|| Some(Duration::from_nanos(wait.max(SHORTEST_WAIT))))
    }

    /// Sends a job, and returns its number.
    pub fn send_job(&self, pool: &Arc<Pool>, request: Request) -> Result<JobNumber, Refusal> {
        self.leave_parent_process();
        let number = self.jobs_sent.get() + 1;
        let job = Job::new(number, &self.process.borrow().completions, request);
        pool.submit(&job, !self.works_for(pool))?;
        self.jobs_sent.set(number);
        self.jobs.borrow_mut().insert(number, Sent { job, pool: Some(Arc::clone(pool)) });
        Ok(number)
    }

    /// Whether it is a worker's, of this pool. It need not wait for room there, since it would wait for itself.
    pub fn works_for(&self, pool: &Pool) -> bool {
        self.seat.get().is_some_and(|seat| seat.is_of(pool))
    }

    /// Cancels a job of this VM: nothing comes of it any more.
    pub fn cancel_job(&self, number: JobNumber) {
        let sent = self.jobs.borrow_mut().remove(&number);
        match sent {
            Some(Sent { job, pool: Some(pool) }) => pool.cancel(&job),
            Some(Sent { job, pool: None }) => job.leave(number, &self.process.borrow().completions),
            None => {}
        }
    }

    /// A job of this VM, for others to wait for.
    pub fn share_job(&self, number: JobNumber) -> Option<Arc<Job>> {
        let jobs = self.jobs.borrow();
        let job = &jobs.get(&number)?.job;
        job.share();
        Some(Arc::clone(job))
    }

    /// Waits for the job of another VM; returns its number here.
    pub fn join_job(&self, job: &Arc<Job>) -> JobNumber {
        self.leave_parent_process();
        let number = self.jobs_sent.get() + 1;
        self.jobs_sent.set(number);
        self.jobs.borrow_mut().insert(number, Sent { job: Arc::clone(job), pool: None });
        job.join(number, &self.process.borrow().completions);
        number
    }

    /// The number of jobs whose outcome is still to come.
    pub fn jobs_in_flight(&self) -> usize {
        self.jobs.borrow().len()
    }

    /// The descriptor that is readable when there is work for a turn; made at the first call.
    pub fn descriptor(&self) -> io::Result<i64> {
        self.leave_parent_process();
        let mut process = self.process.borrow_mut();
        if let Some(descriptor) = &process.descriptor {
            return Ok(descriptor.number());
        }
        let descriptor = WakeDescriptor::new()?;
        process.completions.raise_on_post(descriptor.signal());
        if !process.completions.is_empty() {
            descriptor.signal().raise();
        }
        let number = process.descriptor.insert(descriptor).number();
        drop(process);
        self.is_embedded.set(true);
        self.arm_descriptor();
        Ok(number)
    }

    /// Makes the descriptor readable, if there is one.
    pub fn raise_descriptor(&self) {
        if let Some(descriptor) = &self.process.borrow().descriptor {
            descriptor.signal().raise();
        }
    }

    /// Makes the descriptor readable when the next turn is needed.
    pub fn arm_descriptor(&self) {
        let process = self.process.borrow();
        let Some(descriptor) = &process.descriptor else { return };
        match self.time_to_wait() {
            None => descriptor.signal().raise(),
            Some(wait) => descriptor.set_deadline(wait.and_then(|wait| Instant::now().checked_add(wait))),
        }
    }

    /// As [`Vm::arm_descriptor`], when something was set; a turn arms it at its end anyway.
    pub fn arm_descriptor_outside_of_turns(&self) {
        if self.is_embedded.get() && !self.engine.borrow().is_in_turn() {
            self.arm_descriptor();
        }
    }

    /// How long there is nothing to do; `None` if no deadline ends that.
    pub fn time_to_next_turn(&self) -> Option<Duration> {
        self.time_to_wait().unwrap_or(Some(Duration::ZERO))
    }

    /// The number of jobs that were sent.
    pub fn jobs_sent(&self) -> JobNumber {
        self.jobs_sent.get()
    }

    /// The number of completions that were taken.
    pub fn completions_taken(&self) -> u64 {
        self.completions_taken.get()
    }

    /// Forgets all timers and waits, and leaves all places; time and counters go on.
    pub fn discard(&self) {
        self.places.leave_all();
        self.channels.discard();
        self.engine.borrow_mut().discard();
    }

    /// In the child of a `fork`, leaves what belongs to the parent and starts afresh.
    fn leave_parent_process(&self) {
        let mut process = self.process.borrow_mut();
        if process.pid == process::id() {
            return;
        }
        // Not dropped: the child shares the parent's epoll instances, and closing would take its registrations away.
        // Nor is the queue touched, whose lock a thread of the parent may have held at the moment of the fork.
        std::mem::forget(std::mem::replace(&mut *process, Process::new()));
        self.taken.borrow_mut().clear();
        self.places.forget_waits();
        self.channels.rewake(&Waker::new(&process.completions));
        let jobs = self.jobs.take();
        if !jobs.is_empty() {
            // A thread of the parent may have held their locks.
            std::mem::forget(jobs);
            self.lost_jobs.set(Some(self.jobs_sent.get()));
        }
    }

    fn has_lost_jobs(&self) -> bool {
        self.lost_jobs.get().is_some()
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.leave_parent_process();
        // What tasks were given and have not taken goes to others.
        self.channels.discard();
        self.process.borrow().completions.close();
        // Nobody waits for them any more. Those first that were sent last: a worker that gets free would take one which is
        // still queued.
        let mut jobs: Vec<_> = self.jobs.take().into_iter().collect();
        jobs.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        for (_, Sent { job, pool }) in jobs {
            if let Some(pool) = pool {
                pool.cancel(&job);
            }
        }
        // After that, so that nothing is handed to this VM any more.
        self.places.leave_all();
    }
}
