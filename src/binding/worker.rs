//! The VM of a worker.
//!
//! It is made with as little as a job needs that only computes. The module is loaded when a job asks for it, waits, or
//! fails.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use mlua::{Error, FromLuaMulti, Function, IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, Value};

use super::{Parts, job, open, worker_chunk};
use crate::runtime::CompletionQueue;
use crate::vm::Vm;
use crate::vm::interrupt::{InterruptHandle, Interrupter};
use crate::vm::state::new_state;
use crate::vm::transfer::{Transfer, decode, encode, words};
use crate::worker::{
    Completion, Environment, Executor, Failure, Interrupt, Mapped, Outcome, Request, RunNumber, Seat, Taken,
};

/// What is raised in a job that is interrupted. Nobody hears of it but code that catches it.
const CANCELLED: &str = "the job was cancelled";

/// A Lua state in which jobs run.
struct WorkerVm {
    lua: Lua,
    work: Function,
    worker: Rc<Worker>,
}

/// What the natives of a worker share.
struct Worker {
    seat: Rc<Seat>,
    transfer: Rc<Transfer>,
    vm: Rc<Vm>,
    /// Stops the job that computes.
    interrupter: Interrupter,
    /// Whether the state is not to go on: memory has run out, or code was interrupted that may be half done.
    is_unfit: Cell<bool>,
    environment: RefCell<Option<Arc<Environment>>>,
    /// What was taken and not handed in. It is few.
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
    match new_state().and_then(|lua| WorkerVm::new(lua, &seat)) {
        Ok(vm) => Ok(Box::new(vm)),
        Err(error) => Err(Failure::new(kind_of(&error), format!("no worker VM could be made: {}", words(&error)))),
    }
}

impl WorkerVm {
    fn new(lua: Lua, seat: &Rc<Seat>) -> Result<Self> {
        let interrupter = Interrupter::new(&lua, CANCELLED)?;
        // Before anything takes them into its locals.
        #[cfg(not(feature = "luajit"))]
        super::raw::coroutine::replace_functions(&lua)?;
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
            runs: RefCell::default(),
        });
        let state = lua.create_table()?;
        let natives = worker.natives(&lua)?;
        state.raw_set("native", &natives)?;
        state.raw_set("concurrency", seat.settings().concurrency)?;
        lua.set_app_data(Parts { vm, transfer, worker: Some(state.clone()) });
        lua.preload_module("scheduler", lua.create_function(|lua, ()| open(lua))?)?;
        let (work, initialise) =
            worker_chunk(&lua, "worker.lua", include_str!("../../lua/worker.lua"))?.call((natives, &state))?;
        if let Some(limit) = seat.settings().memory_limit {
            lua.set_memory_limit(limit)?;
        }
        let vm = WorkerVm { lua, work, worker };
        vm.initialise(&initialise)?;
        Ok(vm)
    }

    /// Calls what the pool has each worker call first.
    fn initialise(&self, initialise: &Function) -> Result<()> {
        let Some(init) = &self.worker.seat.settings().init else { return Ok(()) };
        let failure: Option<LuaString> = initialise.call(self.worker.take_in(&self.lua, init)?)?;
        match failure {
            Some(message) => Err(Error::runtime(format!("the pool's init failed: {}", message.to_string_lossy()))),
            None => Ok(()),
        }
    }
}

impl Executor for WorkerVm {
    fn work(self: Box<Self>) -> bool {
        let worked = self.work.call::<()>(());
        if let Err(error) = &worked {
            self.worker.fail_all(error);
        }
        worked.is_ok() && !self.worker.is_unfit.get()
    }
}

impl Worker {
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
        natives.add("is_stopping", |_, worker, ()| Ok(worker.interrupter.is_stopping()))?;
        natives.add("waits", |_, worker, run: RunNumber| {
            worker.waits(run);
            Ok(())
        })?;
        natives.add("load", |lua, _, ()| open(lua).map(drop))?;
        Ok(natives.table)
    }

    /// The next job: its number, its call, and the id of its function if it is a part of a map. False if there is none
    /// now, nothing if there will be none for this worker.
    fn take(&self, lua: &Lua, wait: bool) -> Result<MultiValue> {
        loop {
            let (run, request) = match self.seat.take(wait) {
                Taken::Job(run, request) => (run, request),
                Taken::Nothing => return false.into_lua_multi(lua),
                Taken::Leave => return Ok(MultiValue::new()),
            };
            self.vm.channels.resume();
            match self.take_in(lua, &request) {
                Ok(call) => {
                    let id = request.mapped.as_ref().map(|mapped| mapped.id);
                    self.runs.borrow_mut().push(Run { number: run, start: Instant::now(), mapped: request.mapped });
                    self.interrupter.begin(run);
                    return (run, call, id).into_lua_multi(lua);
                }
                Err(error) => self.refuse(run, &error),
            }
        }
    }

    /// Makes the values of a request.
    fn take_in(&self, lua: &Lua, request: &Request) -> Result<Table> {
        let mut last = self.environment.borrow_mut();
        if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &request.environment)) {
            if let Some(package) = job::package(lua)? {
                package.raw_set("path", lua.create_string(&request.environment.path)?)?;
                package.raw_set("cpath", lua.create_string(&request.environment.cpath)?)?;
            }
            *last = Some(Arc::clone(&request.environment));
        }
        drop(last);
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

    fn end(&self, run: RunNumber, outcome: Outcome) {
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
        let kind = kind_of(error);
        let message = if kind == "memory" { "not enough memory".into() } else { words(error) };
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
        Error::RuntimeError(text) if text.lines().next() == Some("not enough memory") => "memory",
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
