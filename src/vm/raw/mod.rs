//! The ways of values into a message and out of one, through the plain C API.
//!
//! Through mlua, a table of 100 numbers on two levels takes 8 µs to take apart and 13 µs to make on Lua 5.4,
//! 11 and 34 on LuaJIT; this way, 4 and 3, 4 and 2. mlua makes a handle of each value that it reads, and a protected
//! call for each that it writes.
//!
//! # Ground rules
//!
//! 1. A walk or a build runs within one protected call of a C function, its entry: Lua may raise in it, mostly as it is
//!    out of memory, and then leaves our frames by a jump.
//! 2. So nothing with a destructor is alive in a frame from which Lua is called. What grows meanwhile belongs to the
//!    [`walk::Walk`] or [`build::Build`], which the caller owns.
//! 3. Nothing in it may panic: no indexing, no `unwrap`.
//! 4. It calls no Lua code. Where some is needed (`require`, `__transfer`), the walk or build stops, its caller does
//!    that, and lets it go on. But whatever allocates may run finalizers, which are any code: they may send and receive
//!    as well. So what is shared by all messages of a VM is not left half done when Lua is called.
//! 5. An entry has room for 20 values, which Lua grants to every C function beside its arguments; neither needs more
//!    than ten.
//! 6. No program gets hold of an entry but by the hooks of the debug library, whose users could write anywhere anyway.

#![expect(unsafe_code, reason = "mlua's calls are measurably too slow here; see above")]

pub mod build;
pub mod plain;
pub mod walk;

use std::ffi::{c_int, c_void};

use mlua::{Function, IntoLuaMulti, LightUserData, Lua, Result, ffi};

use super::decode::Reader;
use super::transfer::HAS_INTEGERS;

/// What LuaJIT says of a value of its FFI.
const TYPE_CDATA: c_int = 10;

/// The function that dumps others, in this VM: see [`dump`].
pub fn dump_entry(lua: &Lua) -> Result<Function> {
    // SAFETY: only `dump` calls it.
    unsafe { closure(lua, run_dump, ()) }
}

/// The bytecode of a Lua function, with its debug information. mlua's own panics if LuaJIT is out of memory.
pub fn dump(entry: &Function, function: &Function) -> Result<Vec<u8>> {
    let mut bytes = Vec::<u8>::new();
    entry.call::<()>((LightUserData((&raw mut bytes).cast()), function))?;
    Ok(bytes)
}

unsafe extern "C-unwind" fn run_dump(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: `dump` passes a pointer to bytes that outlive this call, and a Lua function on top. If that cannot be
    // dumped, a message is on top.
    unsafe {
        let bytes = ffi::lua_touserdata(state, 1);
        if ffi::lua_dump(state, write, bytes, 0) != 0 {
            ffi::lua_error(state);
        }
    }
    0
}

unsafe extern "C-unwind" fn write(
    _: *mut ffi::lua_State,
    part: *const c_void,
    length: usize,
    bytes: *mut c_void,
) -> c_int {
    // Lua 5.5 says with a part of no length that this was the last one.
    if length > 0 {
        // SAFETY: Lua passes a part of the bytecode of this length, and what `run_dump` has given it.
        unsafe { (*bytes.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(part.cast(), length)) };
    }
    0
}

/// A function whose upvalues are these values.
///
/// # Safety
/// The function does with them and its arguments what it may.
unsafe fn closure(lua: &Lua, function: ffi::lua_CFunction, upvalues: impl IntoLuaMulti) -> Result<Function> {
    // SAFETY: the values are all that is on the stack; they are few. Nothing here has a destructor if it raises.
    unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, function, ffi::lua_gettop(state))) }
}

#[cfg(feature = "luajit")]
unsafe extern "C-unwind" {
    fn lua_upvalueid(state: *mut ffi::lua_State, function: c_int, index: c_int) -> *mut c_void;
    fn lua_upvaluejoin(state: *mut ffi::lua_State, function: c_int, index: c_int, owner: c_int, other: c_int);
}

#[cfg(not(any(feature = "lua51", feature = "luajit")))]
use ffi::{lua_upvalueid, lua_upvaluejoin};

/// What tells an upvalue from others; null where Lua does not tell.
///
/// # Safety
/// At `function` is a function that has an upvalue with this index.
#[cfg(not(feature = "lua51"))]
unsafe fn upvalue_id(state: *mut ffi::lua_State, function: c_int, index: c_int) -> *const c_void {
    // SAFETY: as above.
    unsafe { lua_upvalueid(state, function, index) }
}

/// See above.
#[cfg(feature = "lua51")]
unsafe fn upvalue_id(_: *mut ffi::lua_State, _: c_int, _: c_int) -> *const c_void {
    std::ptr::null()
}

/// Makes an upvalue of one Lua function that of another; false where Lua cannot, or one of them is not there.
///
/// # Safety
/// There is room for two values. `function` and `owner` are no pseudo-indices.
#[cfg(not(feature = "lua51"))]
unsafe fn join_upvalues(
    state: *mut ffi::lua_State,
    (function, index): (c_int, c_int),
    (owner, other): (c_int, c_int),
) -> bool {
    // SAFETY: Lua checks neither the functions nor the indices; here it is asked whether they are there.
    unsafe {
        let is_there = |function, index| {
            if ffi::lua_type(state, function) != ffi::LUA_TFUNCTION || ffi::lua_iscfunction(state, function) != 0 {
                return false;
            }
            let is_there = !ffi::lua_getupvalue(state, function, index).is_null();
            if is_there {
                ffi::lua_pop(state, 1);
            }
            is_there
        };
        if !is_there(function, index) || !is_there(owner, other) {
            return false;
        }
        lua_upvaluejoin(state, function, index, owner, other);
        true
    }
}

/// See above.
#[cfg(feature = "lua51")]
unsafe fn join_upvalues(_: *mut ffi::lua_State, _: (c_int, c_int), _: (c_int, c_int)) -> bool {
    false
}

/// Pushes the field of a loaded module, or something else if there is none: the names of both come next.
///
/// # Safety
/// At `loaded`, which is no index from the top, is the table of loaded modules, and there is room for three values.
unsafe fn push_named(state: *mut ffi::lua_State, loaded: c_int, names: &mut Reader) {
    // SAFETY: as above; `rawget` is asked of tables only.
    unsafe {
        for table in [loaded, -2] {
            let Ok(name) = names.bytes() else { return ffi::lua_pushnil(state) };
            if ffi::lua_type(state, if table == loaded { loaded } else { -1 }) != ffi::LUA_TTABLE {
                return ffi::lua_pushnil(state);
            }
            ffi::lua_pushlstring(state, name.as_ptr().cast(), name.len());
            ffi::lua_rawget(state, table);
        }
    }
}

/// Whether the environment of the function on top of the stack is at `globals`, where functions have one.
///
/// # Safety
/// There is room for a value.
#[cfg(any(feature = "lua51", feature = "luajit"))]
unsafe fn has_globals(state: *mut ffi::lua_State, globals: c_int) -> bool {
    // SAFETY: as above.
    unsafe {
        ffi::lua_getfenv(state, -1);
        let is_equal = ffi::lua_rawequal(state, -1, globals) != 0;
        ffi::lua_pop(state, 1);
        is_equal
    }
}

/// See above.
#[cfg(not(any(feature = "lua51", feature = "luajit")))]
unsafe fn has_globals(_: *mut ffi::lua_State, _: c_int) -> bool {
    true
}
