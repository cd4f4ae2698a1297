//! Shared memory: the userdata that programs hold.

use std::sync::Arc;

use mlua::{Lua, MetaMethod, Result, UserData, UserDataMethods, Value};

use super::Natives;
use crate::worker::Handle;
use crate::worker::shared::Atomic;

/// `scheduler.shared.atomic`.
struct SharedAtomic(Arc<Atomic>);

impl UserData for SharedAtomic {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |_, this, ()| Ok(this.0.get()));
        methods.add_method("set", |_, this, value: i64| {
            this.0.set(value);
            Ok(())
        });
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(format!("atomic({})", this.0.get())));
    }
}

/// The handle of a userdata that crosses by reference.
pub fn to_handle(value: &Value) -> Option<Handle> {
    let userdata = value.as_userdata()?;
    userdata.borrow::<SharedAtomic>().ok().map(|atomic| Handle::Atomic(Arc::clone(&atomic.0)))
}

/// The userdata of a handle.
pub fn from_handle(lua: &Lua, handle: Handle) -> Result<Value> {
    Ok(Value::UserData(match handle {
        Handle::Atomic(atomic) => lua.create_userdata(SharedAtomic(atomic))?,
    }))
}

pub fn add(natives: &Natives) -> Result<()> {
    natives.table.raw_set(
        "new_atomic",
        natives
            .lua
            .create_function(|lua, value: i64| from_handle(lua, Handle::Atomic(Arc::new(Atomic::new(value)))))?,
    )
}
