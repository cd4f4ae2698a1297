//! The VM of a worker.

use std::rc::Rc;

use mlua::{Function, Lua, LuaString, MultiValue, Result, Value};

use super::{Loaded, job, load, open};
use crate::vm::state::new_state;
use crate::vm::transfer::{Transfer, decode, encode};
use crate::worker::{Executor, Failure, Outcome, Request};

/// A Lua state in which jobs run, one after the other.
struct WorkerVm {
    lua: Lua,
    run_job: Function,
    transfer: Rc<Transfer>,
}

/// Makes a worker's VM, on the worker's thread.
pub fn make_executor() -> std::result::Result<Box<dyn Executor>, String> {
    match WorkerVm::new() {
        Ok(vm) => Ok(Box::new(vm)),
        Err(error) => Err(error.to_string()),
    }
}

impl WorkerVm {
    fn new() -> Result<Self> {
        let lua = new_state();
        let Loaded { run_job, transfer, vm, .. } = load(&lua)?;
        vm.is_worker.set(true);
        lua.preload_module("scheduler", lua.create_function(|lua, ()| open(lua))?)?;
        Ok(WorkerVm { lua, run_job, transfer })
    }

    fn run(&self, request: &Request) -> Result<Outcome> {
        if let Some(package) = job::package(&self.lua)? {
            package.raw_set("path", self.lua.create_string(&request.environment.path)?)?;
            package.raw_set("cpath", self.lua.create_string(&request.environment.cpath)?)?;
        }
        let call = decode(&self.lua, &self.transfer, &request.call)?;
        let mut results: MultiValue = self.run_job.call(call)?;
        match results.pop_front() {
            Some(Value::Boolean(true)) => Ok(match encode(&self.transfer, "result", results.iter()) {
                Ok(message) => Outcome::Done(message),
                Err(refused) => failed(refused.to_string()),
            }),
            _ => self.failure(results),
        }
    }

    /// The error in words, the traceback and the error itself, which is left out where it cannot cross.
    fn failure(&self, values: MultiValue) -> Result<Outcome> {
        let (message, traceback, value) =
            <(LuaString, LuaString, Value) as mlua::FromLuaMulti>::from_lua_multi(values, &self.lua)?;
        let value = encode(&self.transfer, "error", std::iter::once(&value)).ok();
        let (message, traceback) = (message.as_bytes().to_vec(), traceback.as_bytes().to_vec());
        Ok(Outcome::Failed(Failure { kind: "error", message, traceback, value }))
    }
}

impl Executor for WorkerVm {
    fn execute(&mut self, request: &Request) -> Outcome {
        self.run(request).unwrap_or_else(|error| failed(error.to_string()))
    }
}

fn failed(message: String) -> Outcome {
    Outcome::Failed(Failure { kind: "error", message: message.into_bytes(), ..Failure::default() })
}
