//! The VM of a worker.
//!
//! It is made with as little as a job needs that only computes. The module is loaded when a job asks for it, waits, or
//! fails.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use mlua::{Error, FromLuaMulti, Function, IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, Value};

use super::{Parts, job, open, raw, worker_chunk};
use crate::runtime::CompletionQueue;
use crate::vm::interrupt::{InterruptHandle, Interrupter};
use crate::vm::memory::{free_reserve, has_too_much, limit_memory};
use crate::vm::state::State;
use crate::vm::transfer::{Transfer, decode, encode, words};
use crate::vm::{NO_MEMORY, Vm};
use crate::worker::{
    Completion, Environment, Executor, Failure, Interrupt, Mapped, Message, Outcome, Request, RunNumber, Seat, Taken,
};

/// What is raised in a job that is interrupted. Nobody hears of it but code that catches it.
const CANCELLED: &str = "the job was cancelled";

/// A Lua state in which jobs run. It is dropped after what is kept of it.
struct WorkerVm {
    work: Function,
    finish_begun: Function,
    worker: Rc<Worker>,
    lua: State,
}

/// What there is for a worker.
#[derive(Clone, Copy)]
pub enum InHand {
    /// A job, which is in hand.
    Job,
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    Leave,
}

/// What the natives of a worker share.
pub struct Worker {
    seat: Rc<Seat>,
    transfer: Rc<Transfer>,
    vm: Rc<Vm>,
    /// Stops the job that computes.
    interrupter: Interrupter,
    /// Whether the state is not to go on: memory has run out, or code was interrupted that may be half done.
    is_unfit: Cell<bool>,
    environment: RefCell<Option<Arc<Environment>>>,
    /// The job that was taken and has not begun.
    in_hand: RefCell<Option<(RunNumber, Request)>>,
    /// What has begun and was not handed in. It is few.
    runs: RefCell<Vec<Run>>,
}

/// A job that was taken, when that was, and the function of the map that it is a part of.
struct Run {
    number: RunNumber,
    start: Instant,
    mapped: Option<Arc<Mapped>>,
}

/// Makes a worker's VM, on the worker's thread.
pub fn make_executor(seat: Rc<Seat>) -> std::result::Result<Box<dyn Executor>, Box<Failure>> {
    match State::new().and_then(|lua| WorkerVm::new(lua, &seat)) {
        Ok(vm) => Ok(Box::new(vm)),
        Err(error) => Err(Failure::new(kind_of(&error), format!("no worker VM could be made: {}", words(&error)))),
    }
}

impl WorkerVm {
    fn new(lua: State, seat: &Rc<Seat>) -> Result<Self> {
        let interrupter = Interrupter::new(&lua, CANCELLED)?;
        // Before anything takes them into its locals.
        #[cfg(not(feature = "luajit"))]
        raw::coroutine::replace_functions(&lua)?;
        let vm = Rc::new(Vm::new());
        let transfer = Rc::new(Transfer::new(&lua, super::shared::to_handle, super::shared::from_handle)?);
        // It is new, so nobody has set it.
        let _ = vm.seat.set(Rc::clone(seat));
        let completions = Arc::downgrade(&vm.completions());
        seat.set_interrupt(Arc::new(Stopper { completions, interrupter: interrupter.handle() }));
        let worker = Rc::new(Worker {
            vm: Rc::clone(&vm),
            seat: Rc::clone(seat),
            transfer: Rc::clone(&transfer),
            interrupter,
            is_unfit: Cell::new(false),
            environment: RefCell::default(),
            in_hand: RefCell::default(),
            runs: RefCell::default(),
        });
        let state = lua.create_table()?;
        let natives = worker.natives(&lua)?;
        state.raw_set("native", &natives)?;
        state.raw_set("concurrency", seat.settings().concurrency)?;
        lua.set_app_data(Parts { vm, transfer, worker: Some(state.clone()) });
        lua.preload_module("scheduler", lua.create_function(|lua, ()| open(lua))?)?;
        if let Some(limit) = seat.settings().memory_limit {
            limit_memory(&lua, limit)?;
            natives.raw_set("has_too_much", lua.create_function(|lua, ()| has_too_much(lua))?)?;
        }
        let (work, finish_begun, initialise): (_, _, Function) =
            worker_chunk(&lua, "worker.lua", include_str!("../../lua/worker.lua"))?.call((natives, &state))?;
        let vm = WorkerVm { work, finish_begun, worker, lua };
        vm.initialise(&initialise)?;
        Ok(vm)
    }

    /// Calls what the pool has each worker call first.
    fn initialise(&self, initialise: &Function) -> Result<()> {
        let Some(init) = &self.worker.seat.settings().init else { return Ok(()) };
        let failure: Option<LuaString> = initialise.call(self.worker.take_in(&self.lua, init)?)?;
        match failure {
            Some(message) if message.as_bytes().split(|byte| *byte == b'\n').next() == Some(NO_MEMORY.as_bytes()) => {
                Err(Error::MemoryError(NO_MEMORY.into()))
            }
            Some(message) => Err(Error::runtime(format!("the pool's init failed: {}", message.to_string_lossy()))),
            None => Ok(()),
        }
    }
}

impl Executor for WorkerVm {
    fn work(self: Box<Self>) -> bool {
        let mut worked = self.work.call::<()>(());
        // Of a job that was stopped in the midst of it, others that wait here know nothing.
        if worked.is_ok() && !self.worker.runs.borrow().is_empty() {
            worked = self.worker.seat.while_leaving(|| self.finish_begun.call(()));
        }
        if let Err(error) = &worked {
            self.worker.fail_all(error);
        }
        worked.is_ok() && !self.worker.is_unfit.get()
    }
}

impl Worker {
    /// What it makes values with.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    fn natives(self: &Rc<Self>, lua: &Lua) -> Result<Table> {
        let natives = Natives { lua, worker: self, table: lua.create_table()? };
        natives.add("take", |lua, worker, wait: bool| worker.take(lua, wait))?;
        natives.add("done", |lua, worker, (run, list): (RunNumber, Table)| worker.done(lua, run, &list))?;
        natives.add("fail", |lua, worker, failed: Failed| worker.fail(lua, failed))?;
        natives.add("refusal", |lua, worker, value: Value| worker.refusal(lua, value))?;
        natives.add("mapped_function", |lua, worker, run: RunNumber| worker.mapped_function(lua, run))?;
        natives.add("elapsed", |_, worker, run: RunNumber| Ok(worker.elapsed(run)))?;
        natives.add("is_cancelled", |_, worker, run: RunNumber| Ok(worker.seat.is_cancelled(run)))?;
        natives.add("has_jobs", |_, worker, ()| Ok(worker.seat.has_queued()))?;
        natives.add("is_fit", |_, worker, ()| Ok(!worker.is_unfit.get()))?;
        natives.add("give_up", |_, worker, ()| {
            worker.is_unfit.set(true);
            Ok(())
        })?;
        natives.add("free_reserve", |_, _, ()| {
            free_reserve();
            Ok(())
        })?;
        natives.add("is_stopping", |_, worker, ()| Ok(worker.interrupter.is_stopping()))?;
        natives.add("waits", |_, worker, run: RunNumber| {
            worker.waits(run);
            Ok(())
        })?;
        natives.add("load", |lua, _, ()| open(lua).map(drop))?;
        let table = natives.table;
        raw::worker::add_functions(lua, self, &table)?;
        Ok(table)
    }

    /// Takes the next job in hand, unless there is one; waits for one if told to.
    pub fn take_in_hand(&self, wait: bool) -> InHand {
        if self.in_hand.borrow().is_some() {
            return InHand::Job;
        }
        match self.seat.take(wait) {
            Taken::Job(run, request) => {
                self.vm.channels.resume();
                self.in_hand.replace(Some((run, request)));
                InHand::Job
            }
            Taken::Nothing => InHand::Nothing,
            Taken::Leave => InHand::Leave,
        }
    }

    /// Begins the job in hand if it needs nothing but to be called, and `take` takes the call, by the number of the job.
    pub fn begin_plain(&self, take: impl FnOnce(RunNumber, &Message) -> bool) {
        let mut in_hand = self.in_hand.borrow_mut();
        let is_taken = in_hand.as_ref().is_some_and(|(run, request)| {
            request.mapped.is_none() && self.is_told(request) && take(*run, &request.call)
        });
        if is_taken && let Some((run, _)) = in_hand.take() {
            self.begin(run, None);
        }
    }

    fn begin(&self, number: RunNumber, mapped: Option<Arc<Mapped>>) {
        self.runs.borrow_mut().push(Run { number, start: Instant::now(), mapped });
        self.interrupter.begin(number);
    }

    /// The next job: its number, its call, and the id of its function if it is a part of a map. False if there is none
    /// now, nothing if there will be none for this worker.
    fn take(&self, lua: &Lua, wait: bool) -> Result<MultiValue> {
        loop {
            match self.take_in_hand(wait) {
                InHand::Job => {}
                InHand::Nothing => return false.into_lua_multi(lua),
                InHand::Leave => return Ok(MultiValue::new()),
            }
            let Some((run, request)) = self.in_hand.take() else { continue };
            match self.take_in(lua, &request) {
                Ok(call) => {
                    let id = request.mapped.as_ref().map(|mapped| mapped.id);
                    self.begin(run, request.mapped);
                    return (run, call, id).into_lua_multi(lua);
                }
                Err(error) => self.refuse(run, &error),
            }
        }
    }

    /// Whether the worker has the environment of a request.
    fn is_told(&self, request: &Request) -> bool {
        self.environment.borrow().as_ref().is_some_and(|last| Arc::ptr_eq(last, &request.environment))
    }

    /// Makes the values of a request.
    fn take_in(&self, lua: &Lua, request: &Request) -> Result<Table> {
        if !self.is_told(request) {
            if let Some(package) = job::package(lua)? {
                package.raw_set("path", lua.create_string(&request.environment.path)?)?;
                package.raw_set("cpath", lua.create_string(&request.environment.cpath)?)?;
            }
            self.environment.replace(Some(Arc::clone(&request.environment)));
        }
        decode(lua, &self.transfer, &request.call)
    }

    fn refuse(&self, run: RunNumber, error: &Error) {
        let message = format!("the job cannot be taken: {}", words(error));
        self.end(run, Outcome::Failed(Failure::new(kind_of(error), message)));
    }

    /// A job waits. If others run meanwhile, it is not known any more which one computes.
    fn waits(&self, run: RunNumber) {
        if self.interrupter.token() == run {
            match self.seat.settings().concurrency {
                1 => self.interrupter.waits(),
                _ => drop(self.interrupter.end()),
            }
        }
    }

    /// Hands in what a job came to.
    pub fn end(&self, run: RunNumber, outcome: Outcome) {
        if self.interrupter.token() == run && self.interrupter.end() {
            self.is_unfit.set(true);
        }
        let mut runs = self.runs.borrow_mut();
        runs.retain(|running| running.number != run);
        if runs.is_empty() {
            // What the results hold counts for itself.
            self.vm.channels.pause();
        }
        drop(runs);
        self.seat.end(run, outcome);
    }

    /// Hands in the results of a job; returns why they cannot cross, if they cannot.
    fn done(&self, lua: &Lua, run: RunNumber, results: &Table) -> Result<Option<String>> {
        match encode(lua, &self.transfer, "result", results, results.raw_get("n").unwrap_or(0)) {
            Ok(message) => {
                self.end(run, Outcome::Done(message));
                Ok(None)
            }
            Err(refused) => Ok(Some(refused.to_string())),
        }
    }

    /// Why a result cannot cross, if it cannot.
    fn refusal(&self, lua: &Lua, value: Value) -> Result<Option<String>> {
        let list = lua.create_table()?;
        list.raw_set(1, value)?;
        Ok(encode(lua, &self.transfer, "result", &list, 1).err().map(|refused| refused.to_string()))
    }

    fn fail(&self, lua: &Lua, (run, kind, message, traceback, value, position): Failed) -> Result<()> {
        // The error itself is left out where it cannot cross.
        let value = value.and_then(|list| encode(lua, &self.transfer, "error", &list, 1).ok());
        let bytes = |text: LuaString| text.as_bytes().to_vec();
        let kind = if kind.as_bytes() == b"memory" { "memory" } else { "error" };
        let traceback = traceback.map(bytes).unwrap_or_default();
        self.end(run, Outcome::Failed(Box::new(Failure { kind, message: bytes(message), traceback, value, position })));
        Ok(())
    }

    /// The function of the map that a job is a part of; nothing if it cannot be taken: the job has failed then.
    fn mapped_function(&self, lua: &Lua, run: RunNumber) -> Result<Option<Function>> {
        let mapped = self.look_at(run, |run| run.mapped.clone()).flatten();
        let Some(mapped) = mapped else { return Ok(None) };
        match decode(lua, &self.transfer, &mapped.function).and_then(|list| list.raw_get(1)) {
            Ok(function) => Ok(Some(function)),
            Err(error) => {
                self.refuse(run, &error);
                Ok(None)
            }
        }
    }

    /// Seconds since a job was taken.
    fn elapsed(&self, run: RunNumber) -> f64 {
        self.look_at(run, |run| run.start.elapsed().as_secs_f64()).unwrap_or(0.0)
    }

    fn look_at<T>(&self, number: RunNumber, look: impl FnOnce(&Run) -> T) -> Option<T> {
        self.runs.borrow().iter().find(|run| run.number == number).map(look)
    }

    /// Fails what runs, as the worker cannot go on; or the next job, if it cannot even take one.
    fn fail_all(&self, error: &Error) {
        free_reserve();
        let kind = kind_of(error);
        let message = if kind == "memory" { NO_MEMORY.into() } else { words(error) };
        let runs: Vec<RunNumber> = self.runs.borrow().iter().map(|run| run.number).collect();
        for run in runs {
            self.end(run, Outcome::Failed(Failure::new(kind, message.clone())));
        }
        if !self.seat.has_taken() {
            self.seat.fail_next(Failure::new(kind, message));
        }
    }
}

/// The table of natives that is being filled, for one worker.
struct Natives<'a> {
    lua: &'a Lua,
    worker: &'a Rc<Worker>,
    table: Table,
}

impl Natives<'_> {
    fn add<A, R>(&self, name: &str, native: impl Fn(&Lua, &Worker, A) -> Result<R> + 'static) -> Result<()>
    where
        A: FromLuaMulti,
        R: IntoLuaMulti,
    {
        let worker = Rc::clone(self.worker);
        self.table.raw_set(name, self.lua.create_function(move |lua, arguments| native(lua, &worker, arguments))?)
    }
}

/// A job's number, the kind, message and traceback of its error, a list of the error itself, and the position of the
/// value in a part of a map that it is about.
type Failed = (RunNumber, LuaString, LuaString, Option<LuaString>, Option<Table>, Option<u32>);

/// The kind of a failure of the worker itself.
fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::MemoryError(_) => "memory",
        // The loop caught it and raised it again.
        Error::RuntimeError(text) if text.lines().next() == Some(NO_MEMORY) => "memory",
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => kind_of(cause),
        _ => "error",
    }
}

/// Stops jobs of a worker.
struct Stopper {
    completions: Weak<CompletionQueue<Completion>>,
    interrupter: InterruptHandle,
}

impl Interrupt for Stopper {
    fn interrupt(&self, running: RunNumber) {
        // One way for what computes, and one for what waits. In this order: what is woken to be told is not interrupted
        // by a signal that comes after that.
        self.interrupter.interrupt(running);
        if let Some(completions) = self.completions.upgrade() {
            completions.post(Completion { number: running, outcome: Outcome::Interrupted });
        }
    }

    fn set_parked(&self, is_parked: bool) {
        self.interrupter.set_parked(is_parked);
    }
}
