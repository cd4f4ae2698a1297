//! Userdata. mlua makes a type's metatable with the first of them, and does not survive it where there is no memory for
//! each of its functions: on Lua 5.1 and LuaJIT the error of Lua leaves its frames by a jump, or ends the process.

use std::marker::PhantomData;

use mlua::{AnyUserData, Error, Lua, Result, UserData};

use super::raw;
use crate::vm::NO_MEMORY;

/// In the state's app data: the type has its metatable.
struct Known<T>(PhantomData<T>);

/// A userdata, made with a reserve of memory if it is the first of its type.
///
/// # Errors
/// If there is not enough memory, or the methods of the type cannot be loaded.
pub fn create<T: UserData + 'static>(lua: &Lua, data: T) -> Result<AnyUserData> {
    if lua.app_data_ref::<Known<T>>().is_some() {
        return lua.create_userdata(data);
    }
    let mut data = Some(data);
    let mut create = || raw::with_reserve(lua, || data.take().map(|data| lua.create_userdata(data)));
    let mut created = create()?;
    if created.is_none() {
        lua.gc_collect()?;
        created = create()?;
    }
    let userdata = created.flatten().ok_or_else(|| Error::MemoryError(NO_MEMORY.into()))??;
    lua.set_app_data(Known::<T>(PhantomData));
    Ok(userdata)
}
