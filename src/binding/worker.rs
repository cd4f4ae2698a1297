//! The VM of a worker.

use std::rc::Rc;

use mlua::{Function, Lua, LuaString, Result, Table};

use super::{Loaded, job, load, open};
use crate::vm::encode::Refused;
use crate::vm::state::new_state;
use crate::vm::transfer::{Transfer, decode, encode, words};
use crate::worker::{Executor, Failure, Message, Outcome, Request};

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
        let call = match decode(&self.lua, &self.transfer, &request.call) {
            Ok(call) => call,
            Err(error) => return Ok(failed(format!("the job cannot be taken: {}", words(&error)))),
        };
        let (results, message, traceback): (Table, Option<LuaString>, LuaString) = self.run_job.call(call)?;
        match message {
            None => Ok(match self.encode("result", &results) {
                Ok(message) => Outcome::Done(message),
                Err(refused) => failed(refused.to_string()),
            }),
            // The error itself is left out where it cannot cross.
            Some(message) => Ok(Outcome::Failed(Failure {
                kind: "error",
                message: message.as_bytes().to_vec(),
                traceback: traceback.as_bytes().to_vec(),
                value: self.encode("error", &results).ok(),
            })),
        }
    }

    /// Encodes a list with its length `n`.
    fn encode(&self, name: &str, list: &Table) -> std::result::Result<Message, Refused> {
        encode(&self.lua, &self.transfer, name, list, list.raw_get("n").unwrap_or(0))
    }
}

impl Executor for WorkerVm {
    fn execute(&mut self, request: &Request) -> Outcome {
        self.run(request).unwrap_or_else(|error| failed(words(&error)))
    }
}

fn failed(message: String) -> Outcome {
    Outcome::Failed(Failure { kind: "error", message: message.into_bytes(), ..Failure::default() })
}
