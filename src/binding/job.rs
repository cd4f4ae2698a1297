//! Natives of jobs: sending them to a pool, and taking what comes back.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use mlua::{AnyUserData, IntoLuaMulti, Lua, MultiValue, Result, Table, UserData, Value};

use super::shared::{JobHandle, PoolHandle, This};
use super::{Natives, pool, userdata};
use crate::vm::Vm;
use crate::vm::transfer::{Transfer, decode, encode, words};
use crate::worker::{Completion, Environment, Failure, JobNumber, Mapped, Message, Outcome, Pool, Refusal, Request};

/// The function of a map, to be sent to workers.
struct MappedFunction(Arc<Mapped>);

impl UserData for MappedFunction {}

/// Parks the Lua thread. In a worker, while its jobs wait for other threads, another worker takes its place.
pub fn park(vm: &Vm) -> std::io::Result<()> {
    vm.engine.borrow_mut().rest();
    if vm.spin_for_completion() {
        return Ok(());
    }
    let Some(seat) = vm.seat.get() else { return vm.park() };
    if vm.has_room.get() && !seat.listen(&vm.completions()) {
        return Ok(());
    }
    seat.while_parked(vm.waits_for_others(), || vm.park())
}

pub fn add(natives: &Natives, transfer: &Rc<Transfer>, sender: &Rc<Sender>) -> Result<()> {
    natives.add_raising("submit", {
        let sender = Rc::clone(sender);
        move |lua, _, (pool, call, count): (Value, Table, usize)| sender.submit(lua, &pool, (&call, count), None)
    })?;
    natives.add("set_environment", {
        let sender = Rc::clone(sender);
        move |_, _, (path, cpath): (Option<mlua::LuaString>, Option<mlua::LuaString>)| {
            let bytes = |text: Option<mlua::LuaString>| text.map_or_else(Vec::new, |text| text.as_bytes().to_vec());
            *sender.environment.borrow_mut() = Arc::new(Environment { path: bytes(path), cpath: bytes(cpath) });
        }
    })?;
    natives.add_raising("submit_part", {
        let sender = Rc::clone(sender);
        move |lua, _, (pool, values, count, function): (Value, Table, usize, AnyUserData)| {
            let mapped = Arc::clone(&function.borrow::<MappedFunction>()?.0);
            sender.submit(lua, &pool, (&values, count), Some(mapped))
        }
    })?;
    // By which `submit_plain` knows a pool; that of the default one is 0.
    natives.add("pool_number", {
        let sender = Rc::clone(sender);
        move |_, _, pool: This<PoolHandle>| pool.left().map(|pool| sender.number(&pool.0))
    })?;
    natives.add_raising("map_function", {
        let transfer = Rc::clone(transfer);
        move |lua, _, list: Table| match encode(lua, &transfer, "argument", &list, 1) {
            Ok(function) => Ok((Some(userdata::create(lua, MappedFunction(Mapped::new(function)))?), None)),
            Err(refused) => Ok((None, Some(refused.to_string()))),
        }
    })?;
    natives.add_raising("share_job", |lua, vm, number: JobNumber| {
        vm.share_job(number).map(|job| userdata::create(lua, JobHandle(job))).transpose()
    })?;
    natives.add("join_job", |_, vm, job: This<JobHandle>| Some(vm.join_job(&job.left()?.0)))?;
    natives.add("cancel_job", |_, vm, number: JobNumber| vm.cancel_job(number))?;
    let (vm, transfer) = (Rc::clone(&natives.vm), Rc::clone(transfer));
    let next_completion = natives.lua.create_function(move |lua, ()| match vm.next_completion() {
        Some(completion) => values_of(lua, &transfer, completion),
        None => Ok(MultiValue::new()),
    })?;
    natives.table.raw_set("next_completion", next_completion)
}

/// What sends the jobs of a VM.
pub struct Sender {
    vm: Rc<Vm>,
    transfer: Rc<Transfer>,
    /// That of the program, whose changes Lua tells.
    environment: RefCell<Arc<Environment>>,
    /// Pools by their numbers, from 1. A number is given again when its pool is gone.
    pools: RefCell<Vec<Weak<Pool>>>,
}

/// Why a job is not sent to a pool that is closed (see `lua/parallel.lua`).
const CLOSED: &str = "closed";

/// The number of a job and the bytes that it took, or nothing and why it was not sent; nothing and nothing if there is
/// no room for it now.
type Submitted = (Option<JobNumber>, Option<usize>, Option<String>);

impl Sender {
    /// That of a VM.
    pub fn new(vm: &Rc<Vm>, transfer: &Rc<Transfer>) -> Rc<Self> {
        let (vm, transfer) = (Rc::clone(vm), Rc::clone(transfer));
        Rc::new(Sender { vm, transfer, environment: RefCell::default(), pools: RefCell::default() })
    }

    /// What it takes values apart with.
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// A number by which [`Sender::pool`] finds a pool as long as it is there.
    fn number(&self, pool: &Arc<Pool>) -> usize {
        let mut pools = self.pools.borrow_mut();
        let found = pools.iter().position(|other| other.strong_count() == 0 || other.as_ptr() == Arc::as_ptr(pool));
        let position = found.unwrap_or(pools.len());
        match pools.get_mut(position) {
            Some(place) => *place = Arc::downgrade(pool),
            None => pools.push(Arc::downgrade(pool)),
        }
        position + 1
    }

    /// The pool with this number.
    pub fn pool(&self, number: usize) -> Option<Arc<Pool>> {
        match number.checked_sub(1) {
            Some(position) => self.pools.borrow().get(position)?.upgrade(),
            None => Some(Arc::clone(pool::default())),
        }
    }

    /// Sends a call to a pool, unless that does not take it now.
    pub fn send_plain(&self, pool: Arc<Pool>, call: Message) -> Option<JobNumber> {
        self.vm.send_job(&pool, Request { call, environment: self.environment(), mapped: None }).ok()
    }

    /// A call as a message: a list of the function and its arguments, and its length.
    pub fn request(
        &self,
        lua: &Lua,
        (call, count): (&Table, usize),
        mapped: Option<Arc<Mapped>>,
    ) -> std::result::Result<Request, String> {
        let call = encode(lua, &self.transfer, "argument", call, count).map_err(|refused| refused.to_string())?;
        Ok(Request { call, environment: self.environment(), mapped })
    }

    fn submit(&self, lua: &Lua, pool: &Value, call: (&Table, usize), mapped: Option<Arc<Mapped>>) -> Result<Submitted> {
        let pool = pool::of(pool)?;
        if pool.is_full() && !self.vm.works_for(&pool) {
            return Ok((None, None, None));
        }
        let request = match self.request(lua, call, mapped) {
            Ok(request) => request,
            Err(refused) => return Ok((None, None, Some(refused))),
        };
        let size = request.call.bytes.len();
        Ok(match self.vm.send_job(&pool, request) {
            Ok(number) => (Some(number), Some(size), None),
            Err(Refusal::Full) => (None, None, None),
            Err(Refusal::Closed) => (None, None, Some(CLOSED.into())),
            Err(Refusal::NoThread(error)) => (None, None, Some(format!("no worker thread can be started: {error}"))),
        })
    }

    fn environment(&self) -> Arc<Environment> {
        Arc::clone(&self.environment.borrow())
    }
}

/// The `package` table, which a sandbox may lack.
pub fn package(lua: &Lua) -> Result<Option<Table>> {
    lua.globals().raw_get("package")
}

/// The job's number, nil and the list of its results, or false and the kind, message, traceback and value of its
/// error, and the position of the value in a map that it is about. Of a place that need not wait any more, the number,
/// negative. 0 and the number of what a worker runs if that is to stop; 0 alone if something has changed in a pool.
fn values_of(lua: &Lua, transfer: &Transfer, completion: Completion) -> Result<MultiValue> {
    let results = match completion.outcome {
        Outcome::Done(message) => {
            decode(lua, transfer, &message).and_then(|results| (mlua::Nil, results).into_lua_multi(lua))
        }
        Outcome::Failed(failure) => failure_values(lua, transfer, *failure),
        Outcome::Woken => return (-(completion.number as i64)).into_lua_multi(lua),
        Outcome::Interrupted => return (0, completion.number).into_lua_multi(lua),
        Outcome::Changed => return 0.into_lua_multi(lua),
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
    (false, failure.kind, message, traceback, value, failure.position).into_lua_multi(lua)
}
