//! Shared memory: the userdata that programs hold. Their methods are Lua (`lua/shared.lua`), on top of natives that
//! answer nil or false where an argument is not what it should be: Lua then says what is wrong, at the line of the call.

mod atomic;
mod buffer;
pub mod channel;
mod mutex;
mod stored;
mod table;

use std::rc::Rc;
use std::sync::Arc;

use mlua::{AnyUserData, Either, Function, Lua, Result, Table, UserData, UserDataFields, UserDataRef, Value};

use super::{Natives, userdata};
use crate::vm::channels::Member;
use crate::vm::transfer::{HAS_INTEGERS, Transfer};
use crate::worker::{Handle, Job, Pool, shared};

/// In the registry: a function that returns the metatable's fields for the name of a class.
const CLASSES: &str = "scheduler.classes";

/// In the registry: the userdata that are there, so that what arrives again is the same one.
const ARRIVED: &str = "scheduler.arrived";

/// The fields of a metatable that a class may have.
const META_FIELDS: [&str; 5] = ["__index", "__name", "__tostring", "__len", "__call"];

/// The greatest whole number up to which a float tells each from the next.
const MOST_OF_FLOAT: i64 = (1 << 53) - 1;

/// What a native is given that a userdata of `T` should be.
pub type This<T> = Either<UserDataRef<T>, Value>;

/// A number that Lua has checked to be one. Where Lua has one number type, mlua's values lose the sign of -0.
#[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
type Number = f64;
#[cfg(not(any(feature = "lua51", feature = "lua52", feature = "luajit")))]
type Number = Value;

struct Atomic(Arc<shared::Atomic>);
struct Buffer(shared::Buffer);
struct Dictionary(Arc<shared::Table>);
struct Mutex(Arc<shared::Mutex>);
/// Not shared memory, but it crosses as that does.
pub struct PoolHandle(pub Arc<Pool>);
/// That of a job, on its way to another VM inside its promise.
pub struct JobHandle(pub Arc<Job>);

impl UserData for JobHandle {}
struct Channel(Rc<Member>);

impl UserData for Atomic {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        add_class(fields, "atomic");
    }
}

impl UserData for Buffer {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        add_class(fields, "buffer");
    }
}

impl UserData for Dictionary {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        add_class(fields, "table");
    }
}

impl UserData for Mutex {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        add_class(fields, "mutex");
    }
}

impl UserData for PoolHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        add_class(fields, "pool");
    }
}

impl UserData for Channel {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        add_class(fields, "channel");
    }
}

/// Lets a metatable have what the Lua side has put into the class.
fn add_class<T, F: UserDataFields<T>>(fields: &mut F, class: &'static str) {
    for name in META_FIELDS {
        fields.add_meta_field_with(name, move |lua| {
            let classes: Function = lua.named_registry_value(CLASSES)?;
            classes.call::<Table>(class)?.raw_get::<Value>(name)
        });
    }
}

/// The handle of a userdata that crosses by reference.
pub fn to_handle(lua: &Lua, value: &Value) -> Option<Handle> {
    let userdata = value.as_userdata()?;
    if let Ok(atomic) = userdata.borrow::<Atomic>() {
        Some(Handle::Atomic(Arc::clone(&atomic.0)))
    } else if let Ok(buffer) = userdata.borrow::<Buffer>() {
        Some(Handle::Buffer(buffer.0.clone()))
    } else if let Ok(table) = userdata.borrow::<Dictionary>() {
        Some(Handle::Table(Arc::clone(&table.0)))
    } else if let Ok(mutex) = userdata.borrow::<Mutex>() {
        Some(Handle::Mutex(Arc::clone(&mutex.0)))
    } else {
        let pool = userdata.borrow::<PoolHandle>().ok().map(|pool| Handle::Pool(Arc::clone(&pool.0)));
        let job = || userdata.borrow::<JobHandle>().ok().map(|job| Handle::Job(Arc::clone(&job.0)));
        pool.or_else(job).or_else(|| channel::to_handle(lua, userdata))
    }
}

/// The userdata of a handle: the one that is there, if there is one.
pub fn from_handle(lua: &Lua, handle: Handle) -> Result<Value> {
    // A worker loads the module when it is needed.
    super::open(lua)?;
    let arrived: Table = lua.named_registry_value(ARRIVED)?;
    let (address, start, len) = match &handle {
        Handle::Atomic(atomic) => (Arc::as_ptr(atomic).addr(), 0, 0),
        Handle::Buffer(buffer) => buffer.identity(),
        Handle::Table(table) => (Arc::as_ptr(table).addr(), 0, 0),
        Handle::Mutex(mutex) => (Arc::as_ptr(mutex).addr(), 0, 0),
        Handle::Pool(pool) => (Arc::as_ptr(pool).addr(), 0, 0),
        Handle::Job(job) => (Arc::as_ptr(job).addr(), 0, 0),
        Handle::Channel(hold) => (Arc::as_ptr(hold.channel()).addr(), 0, 0),
    };
    let key = lua.create_string([address, start, len].map(usize::to_ne_bytes).concat())?;
    if let Some(userdata) = arrived.raw_get::<Option<AnyUserData>>(&key)? {
        return Ok(Value::UserData(userdata));
    }
    let created = match handle {
        Handle::Atomic(atomic) => userdata::create(lua, Atomic(atomic))?,
        Handle::Buffer(buffer) => userdata::create(lua, Buffer(buffer))?,
        Handle::Table(table) => userdata::create(lua, Dictionary(table))?,
        Handle::Mutex(mutex) => userdata::create(lua, Mutex(mutex))?,
        Handle::Pool(pool) => userdata::create(lua, PoolHandle(pool))?,
        Handle::Job(job) => userdata::create(lua, JobHandle(job))?,
        Handle::Channel(hold) => channel::create(lua, hold)?,
    };
    arrived.raw_set(key, &created)?;
    Ok(Value::UserData(created))
}

pub fn add(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    let arrived = natives.lua.create_table()?;
    let weak = natives.lua.create_table()?;
    weak.raw_set("__mode", "v")?;
    arrived.set_metatable(Some(weak))?;
    natives.lua.set_named_registry_value(ARRIVED, arrived)?;
    natives.add("is_whole", |_, _, value: Value| whole(&value).is_some())?;
    atomic::add(natives)?;
    buffer::add(natives)?;
    table::add(natives, transfer)?;
    mutex::add(natives)?;
    channel::add(natives, transfer)
}

/// Tells where the methods come from.
pub fn set_classes(lua: &Lua, load_class: Function) -> Result<()> {
    lua.set_named_registry_value(CLASSES, load_class)
}

/// A whole number, as far as Lua's numbers tell each from the next.
fn whole(value: &Value) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
    let whole = match value {
        Value::Integer(integer) => *integer,
        Value::Number(number) if number.fract() == 0.0 && (-LIMIT..LIMIT).contains(number) => *number as i64,
        _ => return None,
    };
    (HAS_INTEGERS || whole.unsigned_abs() <= MOST_OF_FLOAT.unsigned_abs()).then_some(whole)
}

/// A position as Lua counts, from 1, as one from 0.
fn index(value: &Value) -> Option<usize> {
    usize::try_from(whole(value)?.checked_sub(1)?).ok()
}
