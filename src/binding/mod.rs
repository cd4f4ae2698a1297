//! The Lua-visible surface. One thin file for each part: convert the arguments, one call down, convert back.
//!
//! What users call is Lua (`lua/`), so that errors about arguments are plain strings at the line of the call, and so
//! that coroutines yield from Lua code only. The natives that it is built on are made here; they take and return
//! numbers and do not allocate in Lua on the ways that are often gone.

mod clock;
#[cfg(feature = "fuzz")]
mod fuzz;
mod job;
mod look;
mod pool;
mod progress;
mod raw;
mod shared;
mod timer;
mod turn;
mod userdata;
mod worker;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use mlua::chunk::ChunkMode;
use mlua::{Function, IntoLuaMulti, Lua, Result, Table};

use crate::vm::Vm;
use crate::vm::transfer::Transfer;

/// Under this name the module of a state is kept in its registry, so that a second `require` finds it.
const REGISTRY_NAME: &str = "scheduler.module";

/// The Lua parts of the module, by their file names in `lua/`.
const PARTS: &[(&str, &str)] = &[
    ("awaitable.lua", include_str!("../../lua/awaitable.lua")),
    ("channel.lua", include_str!("../../lua/channel.lua")),
    ("check.lua", include_str!("../../lua/check.lua")),
    ("clock.lua", include_str!("../../lua/clock.lua")),
    ("compat.lua", include_str!("../../lua/compat.lua")),
    ("coroutine.lua", include_str!("../../lua/coroutine.lua")),
    ("deadlock.lua", include_str!("../../lua/deadlock.lua")),
    ("errors.lua", include_str!("../../lua/errors.lua")),
    ("event.lua", include_str!("../../lua/event.lua")),
    ("execute_tasks.lua", include_str!("../../lua/execute_tasks.lua")),
    ("fifo.lua", include_str!("../../lua/fifo.lua")),
    ("holding.lua", include_str!("../../lua/holding.lua")),
    ("interval.lua", include_str!("../../lua/interval.lua")),
    ("loop.lua", include_str!("../../lua/loop.lua")),
    ("map.lua", include_str!("../../lua/map.lua")),
    ("map_input.lua", include_str!("../../lua/map_input.lua")),
    ("mutex.lua", include_str!("../../lua/mutex.lua")),
    ("outcome.lua", include_str!("../../lua/outcome.lua")),
    ("parallel.lua", include_str!("../../lua/parallel.lua")),
    ("pool.lua", include_str!("../../lua/pool.lua")),
    ("promise.lua", include_str!("../../lua/promise.lua")),
    ("promise_class.lua", include_str!("../../lua/promise_class.lua")),
    ("promise_error.lua", include_str!("../../lua/promise_error.lua")),
    ("promise_executor.lua", include_str!("../../lua/promise_executor.lua")),
    ("promise_handler.lua", include_str!("../../lua/promise_handler.lua")),
    ("promise_list.lua", include_str!("../../lua/promise_list.lua")),
    ("promisify.lua", include_str!("../../lua/promisify.lua")),
    ("queue.lua", include_str!("../../lua/queue.lua")),
    ("scope.lua", include_str!("../../lua/scope.lua")),
    ("select.lua", include_str!("../../lua/select.lua")),
    ("semaphore.lua", include_str!("../../lua/semaphore.lua")),
    ("shared.lua", include_str!("../../lua/shared.lua")),
    ("shared_mutex.lua", include_str!("../../lua/shared_mutex.lua")),
    ("task.lua", include_str!("../../lua/task.lua")),
    ("tasks.lua", include_str!("../../lua/tasks.lua")),
    ("timer.lua", include_str!("../../lua/timer.lua")),
    ("wait.lua", include_str!("../../lua/wait.lua")),
    ("waiters.lua", include_str!("../../lua/waiters.lua")),
    ("watchdog.lua", include_str!("../../lua/watchdog.lua")),
    ("worker_tasks.lua", include_str!("../../lua/worker_tasks.lua")),
];

/// What a state has before the module is loaded, if it is a worker's.
struct Parts {
    vm: Rc<Vm>,
    transfer: Rc<Transfer>,
    /// The table of `lua/worker.lua`.
    worker: Option<Table>,
}

impl Parts {
    fn of(lua: &Lua) -> Result<Self> {
        if let Some(parts) = lua.app_data_ref::<Parts>() {
            let Parts { vm, transfer, worker } = &*parts;
            return Ok(Parts { vm: Rc::clone(vm), transfer: Rc::clone(transfer), worker: worker.clone() });
        }
        let transfer = Rc::new(Transfer::new(lua, shared::to_handle, shared::from_handle)?);
        Ok(Parts { vm: Rc::new(Vm::new()), transfer, worker: None })
    }
}

/// The module of a Lua state, made at the first call.
pub fn open(lua: &Lua) -> Result<Table> {
    match lua.named_registry_value(REGISTRY_NAME)? {
        Some(module) => Ok(module),
        None => load(lua),
    }
}

fn load(lua: &Lua) -> Result<Table> {
    let Parts { vm, transfer, worker } = Parts::of(lua)?;
    let natives = Natives { lua, vm: Rc::clone(&vm), table: lua.create_table()? };
    natives.table.raw_set("VERSION", env!("CARGO_PKG_VERSION"))?;
    natives.table.raw_set("own_names", &transfer.own)?;
    turn::add(&natives)?;
    timer::add(&natives)?;
    clock::add(&natives)?;
    let sender = job::Sender::new(&vm, &transfer);
    job::add(&natives, &transfer, &sender)?;
    pool::add(&natives, &sender)?;
    progress::add(&natives)?;
    look::add(&natives)?;
    shared::add(&natives, &transfer)?;
    #[cfg(feature = "fuzz")]
    fuzz::add(lua, &transfer)?;
    raw::guard_functions(lua, &natives.vm, &natives.table)?;
    raw::turn::add_functions(lua, &vm, &natives.table)?;
    raw::job::add_functions(lua, &vm, &sender, &natives.table)?;
    let numbers = shared::channel::numbers(lua)?;
    raw::channel::add_functions(lua, &natives.vm, &natives.table, &numbers)?;
    let (callbacks, waiting) = (lua.create_table()?, lua.create_table()?);
    raw::place::add_functions(lua, &vm, &natives.table)?;
    raw::timer::add_functions(lua, &vm, &natives.table, &callbacks)?;
    raw::task::add_functions(lua, &natives.vm, &natives.table, &callbacks, &waiting)?;
    natives.table.raw_set("callbacks", callbacks)?;
    natives.table.raw_set("waiting", waiting)?;
    let load_chunk = if worker.is_some() { worker_chunk } else { chunk };
    let environment = environment(lua)?;
    let load_part = lua.create_function(move |lua, (name, arguments): (String, mlua::MultiValue)| {
        let (_, source) = PARTS.iter().find(|(part, _)| *part == name).ok_or_else(|| mlua::Error::runtime(&name))?;
        let part = load_chunk(lua, &name, source)?;
        part.set_environment(environment.clone())?;
        part.call::<mlua::Value>(arguments)
    })?;
    let init = load_chunk(lua, "init.lua", include_str!("../../lua/init.lua"))?;
    let (module, load_class, load_worker_tasks): (Table, Function, Function) =
        init.call((&natives.table, load_part))?;
    shared::set_classes(lua, load_class)?;
    lua.set_named_registry_value(REGISTRY_NAME, &module)?;
    if let Some(worker) = worker {
        worker.raw_set("tasks", load_worker_tasks.call::<Table>(&worker)?)?;
    }
    Ok(module)
}

/// The globals and standard libraries as they are now, for the parts: a program may change its own before the last of
/// them is loaded.
fn environment(lua: &Lua) -> Result<Table> {
    let environment = copy(lua, &lua.globals())?;
    for name in ["coroutine", "debug", "math", "string", "table"] {
        if let Some(library) = environment.raw_get::<Option<Table>>(name)? {
            environment.raw_set(name, copy(lua, &library)?)?;
        }
    }
    Ok(environment)
}

fn copy(lua: &Lua, table: &Table) -> Result<Table> {
    let copy = lua.create_table()?;
    table.for_each(|name: mlua::Value, value: mlua::Value| copy.raw_set(name, value))?;
    Ok(copy)
}

fn chunk(lua: &Lua, name: &str, source: &'static str) -> Result<Function> {
    lua.load(source).set_name(format!("=[scheduler]/{name}")).into_function()
}

/// As [`chunk`], for the states of workers. They are many, and to compile takes longer than all else that a worker needs
/// to begin: so it is done once.
fn worker_chunk(lua: &Lua, name: &str, source: &'static str) -> Result<Function> {
    // By the addresses of the sources.
    static COMPILED: Mutex<BTreeMap<usize, Arc<[u8]>>> = Mutex::new(BTreeMap::new());
    // A thread of a forked parent may hold the lock for ever: it is worth no wait.
    let compiled = COMPILED.try_lock().ok().and_then(|compiled| compiled.get(&source.as_ptr().addr()).cloned());
    if let Some(bytecode) = compiled {
        return lua.load(&*bytecode).set_mode(ChunkMode::Binary).into_function();
    }
    let function = chunk(lua, name, source)?;
    let bytecode = function.dump(false);
    if let Ok(mut compiled) = COMPILED.try_lock() {
        compiled.insert(source.as_ptr().addr(), bytecode.into());
    }
    Ok(function)
}

/// The table of natives that is being filled, for one VM.
struct Natives<'a> {
    lua: &'a Lua,
    vm: Rc<Vm>,
    table: Table,
}

impl Natives<'_> {
    /// Adds a native that is given the VM.
    fn add<A, R>(&self, name: &str, native: impl Fn(&Lua, &Vm, A) -> R + 'static) -> Result<()>
    where
        A: mlua::FromLuaMulti,
        R: IntoLuaMulti,
    {
        self.add_raising(name, move |lua, vm, arguments| Ok(native(lua, vm, arguments)))
    }

    /// As [`Natives::add`], for one that raises, as it makes an object, say, and Lua has no memory for that.
    fn add_raising<A, R>(&self, name: &str, native: impl Fn(&Lua, &Vm, A) -> Result<R> + 'static) -> Result<()>
    where
        A: mlua::FromLuaMulti,
        R: IntoLuaMulti,
    {
        let vm = Rc::clone(&self.vm);
        self.table.raw_set(name, self.lua.create_function(move |lua, arguments| native(lua, &vm, arguments))?)
    }
}
