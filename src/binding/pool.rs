//! Natives of pools.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use mlua::{Lua, Result, Table, Value};

use super::job::Sender;
use super::shared::{PoolHandle, This, from_handle};
use super::turn::distribution;
use super::{Natives, worker};
use crate::worker::{Handle, Pool, Settings};

/// The pool of a userdata; of anything else, the default one. Raises if the pool cannot be had: where a state has no
/// memory left, say.
pub fn of(value: &Value) -> Result<Arc<Pool>> {
    match value {
        Value::UserData(userdata) => Ok(Arc::clone(&userdata.borrow::<PoolHandle>()?.0)),
        _ => Ok(Arc::clone(default())),
    }
}

/// The default pool, shared by all VMs of the process: a worker for each core.
pub fn default() -> &'static Arc<Pool> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    POOL.get_or_init(|| Arc::new(Pool::new(Settings::new("scheduler", cores()), worker::make_executor)))
}

fn cores() -> usize {
    // To ask takes long: the system's limits are in files.
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

pub fn add(natives: &Natives, sender: &Rc<Sender>) -> Result<()> {
    let sender = Rc::clone(sender);
    natives.add_raising("new_pool", move |lua, _, options: Table| match settings(lua, &sender, &options)? {
        Ok(settings) => {
            let pool = Arc::new(Pool::new(settings, worker::make_executor));
            Ok((Some(from_handle(lua, Handle::Pool(pool))?), None))
        }
        Err(refused) => Ok((None, Some(refused))),
    })?;
    // How many jobs run at a time, if they wait.
    natives.add_raising("pool_width", |_, _, this: Value| {
        let pool = of(&this)?;
        Ok(pool.settings().size.saturating_mul(pool.settings().concurrency))
    })?;
    natives.add("is_pool", |_, _, this: This<PoolHandle>| this.left().is_some())?;
    natives.add_raising("pool_close", |_, _, this: Value| of(&this).map(|pool| pool.close()))?;
    natives.add_raising("pool_cancel_all", |_, _, this: Value| of(&this).map(|pool| pool.cancel_all()))?;
    natives.add_raising("pool_is_done", |_, _, this: Value| of(&this).map(|pool| pool.is_done()))?;
    natives.add_raising("pool_is_full", |_, _, this: Value| of(&this).map(|pool| pool.is_full()))?;
    natives.add_raising("pool_watch", |_, vm, this: Value| of(&this).map(|pool| pool.watch(&vm.completions())))?;
    // How many tasks wait for pools: one more, one less, or none any more.
    natives.add("pool_waits", |_, vm, change: i32| {
        vm.pool_waits.set(if change == 0 { 0 } else { vm.pool_waits.get().saturating_add_signed(change as isize) });
    })?;
    natives.add_raising("is_own_pool", |_, vm, this: Value| of(&this).map(|pool| vm.works_for(&pool)))?;
    let figures = natives.lua.create_function(|lua, this: Value| {
        let pool = of(&this)?;
        figures(lua, &pool)
    })?;
    natives.table.raw_set("pool_figures", figures)
}

/// What Lua has checked to be the options of a pool; or why its `init` cannot be sent. Raises if an option cannot be had:
/// where a state has no memory left, say.
fn settings(lua: &Lua, sender: &Sender, options: &Table) -> Result<std::result::Result<Settings, String>> {
    let number = |name| options.raw_get::<Option<f64>>(name);
    let count = |name, otherwise| Ok::<_, mlua::Error>(number(name)?.map_or(otherwise, |number| number as usize));
    let mut settings = Settings::new("pool", count("size", cores())?);
    if let Some(name) = options.raw_get::<Option<mlua::LuaString>>("name")? {
        settings.name = name.to_string_lossy();
    }
    settings.queue = count("queue", settings.queue)?;
    settings.concurrency = count("concurrency", settings.concurrency)?;
    settings.memory_limit = number("memory_limit")?.map(|bytes| bytes as usize);
    if let Some(seconds) = number("idle")? {
        settings.idle = Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    }
    if let Some(init) = options.raw_get::<Option<Table>>("init")? {
        match sender.request(lua, (&init, 1), None) {
            Ok(request) => settings.init = Some(request),
            Err(refused) => return Ok(Err(refused)),
        }
    }
    Ok(Ok(settings))
}

/// What a pool does, for users.
pub fn figures(lua: &Lua, pool: &Pool) -> Result<Table> {
    let (table, times) = (lua.create_table()?, pool.times());
    table.raw_set("wait", distribution(lua, &times.wait)?)?;
    table.raw_set("run", distribution(lua, &times.run)?)?;
    let figures = pool.figures();
    table.raw_set("size", pool.settings().size)?;
    table.raw_set("workers", figures.workers)?;
    table.raw_set("idle", figures.idle)?;
    table.raw_set("queued", figures.queued)?;
    table.raw_set("running", figures.running)?;
    table.raw_set("done", figures.done)?;
    table.raw_set("failed", figures.failed)?;
    table.raw_set("cancelled", figures.cancelled)?;
    Ok(table)
}
