//! Natives of jobs: sending them to the pool, and taking what comes back.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use mlua::{IntoLuaMulti, Lua, MultiValue, Result, Table, Value};

use super::{Natives, worker};
use crate::runtime::PerProcess;
use crate::vm::Vm;
use crate::vm::transfer::{Transfer, decode, encode, words};
use crate::worker::{Completion, Environment, Failure, JobNumber, Outcome, Pool, Request};

static POOL: PerProcess<Pool> = PerProcess::new();

/// The default pool, shared by all VMs of the process: a worker for each core.
fn pool() -> &'static Pool {
    let make = || {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok::<_, Infallible>(Pool::new(cores, worker::make_executor))
    };
    let Ok(pool) = POOL.get_or_try_init(make);
    pool
}

/// The number of workers that were started in this process.
pub fn workers() -> usize {
    POOL.get().map_or(0, Pool::workers)
}

/// Parks the Lua thread. In a worker, while its job waits for other threads, another worker takes its place.
pub fn park(vm: &Vm) -> std::io::Result<()> {
    match vm.is_worker.get() && vm.waits_for_others() {
        true => pool().while_blocked(|| vm.park()),
        false => vm.park(),
    }
}

pub fn add(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    let sender =
        Sender { transfer: Rc::clone(transfer), package: package(natives.lua)?, environment: RefCell::default() };
    natives.add("submit", move |lua, vm, call: Table| match sender.submit(lua, vm, &call) {
        Ok(number) => (Some(number), None),
        Err(reason) => (None, Some(reason)),
    })?;
    let (vm, transfer) = (Rc::clone(&natives.vm), Rc::clone(transfer));
    let next_completion = natives.lua.create_function(move |lua, ()| match vm.next_completion() {
        Some(completion) => values_of(lua, &transfer, completion),
        None => Ok(MultiValue::new()),
    })?;
    natives.table.raw_set("next_completion", next_completion)
}

/// What sends the jobs of a VM.
struct Sender {
    transfer: Rc<Transfer>,
    package: Option<Table>,
    /// That of the last job; a program seldom changes its paths.
    environment: RefCell<Option<Arc<Environment>>>,
}

impl Sender {
    /// Sends a call: a list of the function and its arguments, with its length `n`.
    fn submit(&self, lua: &Lua, vm: &Vm, call: &Table) -> std::result::Result<JobNumber, String> {
        let count = call.raw_get("n").map_err(|error| error.to_string())?;
        let call = encode(lua, &self.transfer, "argument", call, count).map_err(|refused| refused.to_string())?;
        let request = Request { call, environment: self.environment() };
        let (number, reply) = vm.new_reply();
        pool().submit(request, reply).map_err(|error| {
            vm.withdraw_job();
            format!("no worker thread can be started: {error}")
        })?;
        Ok(number)
    }

    fn environment(&self) -> Arc<Environment> {
        let field = |name| {
            let value = self.package.as_ref().and_then(|package| package.raw_get::<mlua::LuaString>(name).ok());
            value.map_or_else(Vec::new, |value| value.as_bytes().to_vec())
        };
        let current = Environment { path: field("path"), cpath: field("cpath") };
        let mut last = self.environment.borrow_mut();
        match &*last {
            Some(environment) if **environment == current => Arc::clone(environment),
            _ => Arc::clone(last.insert(Arc::new(current))),
        }
    }
}

/// The `package` table, which a sandbox may lack.
pub fn package(lua: &Lua) -> Result<Option<Table>> {
    lua.globals().raw_get("package")
}

/// The job's number and true and the list of its results, or false and the kind, message, traceback and value of its
/// error. Of a place that need not wait any more, the number, negative.
fn values_of(lua: &Lua, transfer: &Transfer, completion: Completion) -> Result<MultiValue> {
    let results = match completion.outcome {
        Outcome::Done(message) => {
            decode(lua, transfer, &message).and_then(|results| (true, results).into_lua_multi(lua))
        }
        Outcome::Failed(failure) => failure_values(lua, transfer, failure),
        Outcome::Woken => return (-(completion.number as i64)).into_lua_multi(lua),
    };
    let mut values = results.or_else(|error| {
        let message = format!("the outcome of the job cannot be taken: {}", words(&error));
        (false, "error", message, "").into_lua_multi(lua)
    })?;
    values.push_front(Value::Integer(completion.number as i64));
    Ok(values)
}

fn failure_values(lua: &Lua, transfer: &Transfer, failure: Failure) -> Result<MultiValue> {
    let value = match failure.value {
        Some(message) => decode(lua, transfer, &message)?.raw_get(1)?,
        None => Value::Nil,
    };
    let (message, traceback) = (lua.create_string(failure.message)?, lua.create_string(failure.traceback)?);
    (false, failure.kind, message, traceback, value).into_lua_multi(lua)
}
