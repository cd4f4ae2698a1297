//! What is done through the plain C API: the module's entry, the natives that are called for every timer, wait and turn,
//! and the guards of the others.
//!
//! Through mlua, and with a Lua function around it for the errors, `setTimeout` takes 340 ns on Lua 5.4, this way 150;
//! `clearTimeout` 90 and 40. The targets of the benchmarks lie between the two. Whatever is not the plain case (further
//! arguments, a callable table, a bad argument) is left to Lua.
//!
//! # Ground rules
//!
//! These functions are called by Lua, and Lua's errors leave a C function by a jump over its frame. So:
//!
//! 1. Nothing with a destructor is alive in a frame from which a function of the C API is called that can raise.
//! 2. A panic does not leave the frame either: what could panic runs in [`guarded`].
//! 3. The VM is reached through a userdata that is an upvalue of the function. When the state closes, user code may run
//!    in finalizers after ours: the userdata is then still there, but empty.

#![expect(unsafe_code, reason = "mlua's calls are measurably too slow here; see above")]

pub mod channel;
#[cfg(not(feature = "luajit"))]
pub mod coroutine;
pub mod job;
pub mod place;
mod reserve;
pub mod task;
pub mod timer;
pub mod turn;
pub mod watch;
pub mod worker;

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, ffi};

use crate::engine::Origin;
use crate::vm::{NO_MEMORY, OWN_CHUNKS, Vm};

use self::reserve::{ROOM_OF_METATABLE, ROOM_OF_MODULE};

/// What the upvalues of the functions are: the VM's handle first, then mostly a table.
const HANDLE: c_int = ffi::lua_upvalueindex(1);
const TABLE: c_int = ffi::lua_upvalueindex(2);
/// Of a guard.
const GUARDED: c_int = ffi::lua_upvalueindex(2);

/// How far up the stack the user's function that made a call is looked for, past C functions such as `pcall` and past
/// the module's own.
const MAX_LEVELS: c_int = 12;

/// What the userdata holds, mostly the VM: `None` after it was finalized.
type Handle<T> = Option<Rc<T>>;

/// What `_VERSION` is in the Lua that the module was built for.
const VERSION: &CStr = if cfg!(feature = "lua55") {
    c"Lua 5.5"
} else if cfg!(feature = "lua54") {
    c"Lua 5.4"
} else if cfg!(feature = "lua53") {
    c"Lua 5.3"
} else if cfg!(feature = "lua52") {
    c"Lua 5.2"
} else {
    c"Lua 5.1"
};

/// `require "scheduler"`.
///
/// A library built for another Lua is mostly refused by the loader, for symbols that it does not find. Where it is
/// loaded all the same, this raises a sentence that says what is wrong, before mlua touches the state.
///
/// # Safety
/// For Lua's loader to call.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_scheduler(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: plain calls of the C API, with room for a C function's 20 values; nothing here has a destructor when one
    // of them raises. `_VERSION` stays a string while it is on the stack.
    unsafe {
        ffi::lua_settop(state, 0);
        ffi::lua_pushglobaltable(state);
        get_raw(state, c"_VERSION");
        get_raw(state, c"jit");
        let is_luajit = ffi::lua_type(state, -1) == ffi::LUA_TTABLE;
        let version = ffi::lua_tostring(state, -2);
        if version.is_null() || CStr::from_ptr(version) != VERSION || is_luajit != cfg!(feature = "luajit") {
            let name = |is_luajit| if is_luajit { c" (LuaJIT)" } else { c"" }.as_ptr();
            let version = if version.is_null() { c"another".as_ptr() } else { version };
            let sentence = c"this scheduler library was built for %s%s, but this is %s%s: install the one for it";
            let built_for_luajit = name(cfg!(feature = "luajit"));
            ffi::lua_pushfstring(
                state,
                sentence.as_ptr(),
                VERSION.as_ptr(),
                built_for_luajit,
                version,
                name(is_luajit),
            );
            ffi::lua_error(state);
        }
        ffi::lua_settop(state, 0);
        if !attach(state) {
            reserve::collect(state);
            if !attach(state) {
                ffi::lua_pushlstring(state, NO_MEMORY.as_ptr().cast(), NO_MEMORY.len());
                ffi::lua_error(state);
            }
        }
        Lua::entrypoint1(state, move |lua| {
            reserve::with_reserve(state, ROOM_OF_MODULE, || super::open(lua))
                .unwrap_or_else(|| Err(mlua::Error::runtime(NO_MEMORY)))
        })
    }
}

/// Pushes a field of the table that lies at 1, whatever its metatable does: programs let it refuse unknown globals.
///
/// # Safety
/// Called in a C function that Lua runs.
unsafe fn get_raw(state: *mut ffi::lua_State, name: &CStr) {
    // SAFETY: the table is there, and there is room for the name.
    unsafe {
        ffi::lua_pushstring(state, name.as_ptr());
        ffi::lua_rawget(state, 1);
    }
}

/// Lets mlua have the state, if it has not got it yet; false if there is not enough memory for that.
///
/// # Safety
/// Called in a C function that Lua runs.
unsafe fn attach(state: *mut ffi::lua_State) -> bool {
    // SAFETY: the state is valid, and what mlua does with it here is protected, or too little to exceed the reserve.
    let attach =
        || unsafe { reserve::with_reserve(state, ROOM_OF_MODULE, || Lua::get_or_init_from_ptr(state)).is_some() };
    catch_unwind(AssertUnwindSafe(attach)).unwrap_or(false)
}

/// Calls `run`, in which mlua may make a metatable, with a reserve of memory; `None` if there is not enough for that.
///
/// # Errors
/// If there is not enough memory to begin.
pub fn with_reserve<T>(lua: &Lua, run: impl FnOnce() -> T) -> Result<Option<T>> {
    let mut running = ptr::null_mut();
    // SAFETY: to note the state cannot raise; it is valid as long as the function that it runs.
    unsafe {
        lua.exec_raw::<()>((), |state| running = state)?;
        Ok(reserve::with_reserve(running, ROOM_OF_METATABLE, run))
    }
}

/// Replaces each function in `natives` by one that raises when the state is closing, where mlua's have been finalized
/// already, and calls it else.
///
/// Finalizers run in the reverse order of creation. So the handle that this makes, after the natives, is emptied before
/// any of them is; user code that runs in finalizers after that meets an error, not freed memory.
pub fn guard_functions(lua: &Lua, vm: &Rc<Vm>, natives: &Table) -> Result<()> {
    let functions = natives.pairs().collect::<Result<Vec<(mlua::LuaString, mlua::Value)>>>()?;
    // SAFETY: the function lies at 1, the handle is pushed above it; `guard` expects them in the other order.
    let handle = unsafe {
        let vm = Rc::into_raw(Rc::clone(vm));
        lua.exec_raw::<mlua::AnyUserData>((), move |state| push_handle(state, vm))?
    };
    for (name, value) in functions {
        let mlua::Value::Function(function) = value else { continue };
        // SAFETY: the two arguments are the upvalues that `guard` expects.
        let guarded: Function =
            unsafe { lua.exec_raw((&handle, function), |state| ffi::lua_pushcclosure(state, guard, 2))? };
        natives.raw_set(name, guarded)?;
    }
    Ok(())
}

/// Calls its second upvalue, unless the state is closing.
unsafe extern "C-unwind" fn guard(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `guard_functions` sets them. No local of this frame has a destructor.
    unsafe { if vm(state).is_none() { closing(state) } else { call_upvalue(state, GUARDED) } }
}

/// Raises that the state is closing.
///
/// # Safety
/// Nothing in the frames up to Lua has a destructor.
unsafe fn closing(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: pushing may raise, as `lua_error` does.
    unsafe {
        ffi::lua_pushstring(state, c"scheduler: the Lua state is closing".as_ptr());
        ffi::lua_error(state)
    }
}

/// A function whose upvalues are the handle and a table.
fn with_table(lua: &Lua, vm: &Rc<Vm>, function: ffi::lua_CFunction, table: &Table) -> Result<Function> {
    // SAFETY: the functions that are given expect these.
    unsafe { with_upvalues(lua, vm, function, table) }
}

/// Pushes a userdata that owns `held`.
///
/// # Safety
/// `held` comes from `Rc::into_raw`, and its count goes over to the userdata. There is room for three values. If Lua is
/// out of memory it raises, and what is held is not freed: a leak, no more.
unsafe fn push_handle<T>(state: *mut ffi::lua_State, held: *const T) {
    // SAFETY: the userdata is as large as a handle and aligned for anything; it is written before anybody reads it,
    // and has its finalizer from then on. Nothing in this frame has a destructor when Lua may raise.
    unsafe {
        let handle = ffi::lua_newuserdata(state, size_of::<Handle<T>>()).cast::<Handle<T>>();
        ffi::lua_createtable(state, 0, 1);
        ffi::lua_pushcclosure(state, finalize::<T>, 0);
        ffi::lua_setfield(state, -2, c"__gc".as_ptr());
        handle.write(Some(Rc::from_raw(held)));
        ffi::lua_setmetatable(state, -2);
    }
}

/// `__gc` of the handle.
unsafe extern "C-unwind" fn finalize<T>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua passes the userdata whose metatable this is in, and a program does not get hold of that metatable
    // but by the debug library. `take` leaves `None`, so that a second call finds nothing.
    let handle = unsafe { ffi::lua_touserdata(state, 1).cast::<Handle<T>>().as_mut() };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(handle.and_then(Option::take))));
    0
}

/// The VM of the running function, unless its state is closing.
///
/// # Safety
/// As [`held`], and the handle is that of a VM.
unsafe fn vm<'a>(state: *mut ffi::lua_State) -> Option<&'a Vm> {
    // SAFETY: as above.
    unsafe { held(state) }
}

/// What the handle of the running function holds, unless its state is closing.
///
/// # Safety
/// The running function has the handle of a `T` as its first upvalue. The reference must not be kept beyond the call:
/// the upvalue holds it as long as that.
unsafe fn held<'a, T>(state: *mut ffi::lua_State) -> Option<&'a T> {
    // SAFETY: the upvalue is the userdata that `push_handle` made, which has been written.
    unsafe { (*ffi::lua_touserdata(state, HANDLE).cast::<Handle<T>>()).as_deref() }
}

/// A function whose upvalues are the handle of `held` and further values.
///
/// # Safety
/// The function does with them and its arguments what it may.
unsafe fn with_upvalues<T: 'static>(
    lua: &Lua,
    held: &Rc<T>,
    function: ffi::lua_CFunction,
    upvalues: impl mlua::IntoLuaMulti,
) -> Result<Function> {
    // SAFETY: the values are all that is on the stack, and few; the handle is pushed above them and put in front.
    unsafe {
        let held = Rc::into_raw(Rc::clone(held));
        lua.exec_raw(upvalues, move |state| {
            push_handle(state, held);
            ffi::lua_insert(state, 1);
            ffi::lua_pushcclosure(state, function, ffi::lua_gettop(state));
        })
    }
}

/// Runs what could panic, and what has destructors; `None` if it did panic.
fn guarded<T: Copy>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// The line of the user's function that called the running one, or the module's function that did. Levels of the stack
/// before `first` are known to be the module's.
///
/// # Safety
/// Called in a C function that Lua runs, and `vm` is that of the state.
unsafe fn capture_origin(state: *mut ffi::lua_State, vm: &Vm, first: c_int) -> Origin {
    // SAFETY: `lua_getinfo` is only asked about a level that `lua_getstack` has found, and fills the fields that are
    // read; asked for "S" and "l" it cannot raise. `source` and `short_src` end with a zero.
    unsafe {
        let mut call = MaybeUninit::<ffi::lua_Debug>::uninit();
        for level in first..=MAX_LEVELS {
            if ffi::lua_getstack(state, level, call.as_mut_ptr()) == 0 {
                break;
            }
            ffi::lua_getinfo(state, c"Sl".as_ptr(), call.as_mut_ptr());
            let call = call.as_ptr();
            let line = (*call).currentline;
            if line > 0 && !CStr::from_ptr((*call).source).to_bytes().starts_with(OWN_CHUNKS) {
                let chunk = CStr::from_ptr((&raw const (*call).short_src).cast::<c_char>());
                return guarded(|| vm.origins.borrow_mut().at(chunk.to_bytes(), line as u32)).unwrap_or_default();
            }
        }
        Origin::default()
    }
}

/// Calls an upvalue with the arguments of the running function, and returns its results.
///
/// # Safety
/// Nothing in the frames up to Lua has a destructor.
unsafe fn call_upvalue(state: *mut ffi::lua_State, upvalue: c_int) -> c_int {
    // SAFETY: a C function has room for 20 values beside its arguments.
    unsafe {
        let arguments = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, upvalue);
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, arguments, ffi::LUA_MULTRET);
        ffi::lua_gettop(state)
    }
}

/// Raises what a panic becomes.
///
/// # Safety
/// Nothing in the frames up to Lua has a destructor.
unsafe fn panicked(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: pushing may raise, as `lua_error` does.
    unsafe {
        ffi::lua_pushstring(state, c"scheduler: internal error, see stderr".as_ptr());
        ffi::lua_error(state)
    }
}
