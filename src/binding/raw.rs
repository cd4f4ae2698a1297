//! What is done through the plain C API: the module's entry, the three natives that are called for every timer, and the
//! guards of the others.
//!
//! Through mlua, and with a Lua function around it for the errors, `setTimeout` takes 340 ns on Lua 5.4, this way 150;
//! `clearTimeout` 90 and 40. The targets of the benchmarks lie between the two. Whatever is not the plain case (further
//! arguments, a callable table, a bad argument) is left to the Lua function of the same name.
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

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, ffi};

use super::turn;
use crate::engine::{Delay, Id, Origin, Repeat};
use crate::vm::Vm;

/// What the upvalues of the functions are.
const HANDLE: c_int = ffi::lua_upvalueindex(1);
const CALLBACKS: c_int = ffi::lua_upvalueindex(2);
const OVERLAPPING: c_int = ffi::lua_upvalueindex(3);
const WAITING: c_int = ffi::lua_upvalueindex(4);
const SLOW_WAY: c_int = ffi::lua_upvalueindex(5);
/// Of a guard.
const GUARDED: c_int = ffi::lua_upvalueindex(2);

/// How far up the stack the Lua function that made a call is looked for, past C functions such as `pcall`.
const MAX_LEVELS: c_int = 6;

/// What the userdata holds: `None` after it was finalized.
type Handle = Option<Rc<Vm>>;

/// The tables that timers are kept in on the Lua side, by slot.
pub struct TimerTables {
    /// The callbacks.
    pub callbacks: Table,
    /// Intervals that may overlap.
    pub overlapping: Table,
    /// Coroutines in which intervals still wait.
    pub waiting: Table,
}

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
        ffi::lua_getglobal(state, c"_VERSION".as_ptr());
        ffi::lua_getglobal(state, c"jit".as_ptr());
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
        Lua::entrypoint1(state, super::open)
    }
}

/// `next_work`.
pub fn next_work_function(lua: &Lua, vm: &Rc<Vm>) -> Result<Function> {
    // SAFETY: `push_handle` leaves one value, which becomes the upvalue that `next_work` expects.
    unsafe {
        let vm = Rc::into_raw(Rc::clone(vm));
        lua.exec_raw((), move |state| {
            push_handle(state, vm);
            ffi::lua_pushcclosure(state, next_work, 1);
        })
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
    unsafe {
        if vm(state).is_none() {
            ffi::lua_pushstring(state, c"scheduler: the Lua state is closing".as_ptr());
            ffi::lua_error(state);
        }
        call_upvalue(state, GUARDED)
    }
}

/// `setTimeout` and `clearTimeout`; what they leave to Lua goes to `slow_set` and `slow_clear`.
pub fn timer_functions(
    lua: &Lua,
    vm: &Rc<Vm>,
    tables: TimerTables,
    slow_set: Function,
    slow_clear: Function,
) -> Result<(Function, Function)> {
    let TimerTables { callbacks, overlapping, waiting } = tables;
    // SAFETY: the five arguments lie at 1 to 5, the handle at 6, and there is room for 20 values beside the arguments.
    // Each closure is given the upvalues in the order of the constants above.
    unsafe {
        let vm = Rc::into_raw(Rc::clone(vm));
        lua.exec_raw((callbacks, overlapping, waiting, slow_set, slow_clear), move |state| {
            push_handle(state, vm);
            for (function, slow) in [(set_timeout as ffi::lua_CFunction, 4), (clear_timeout as ffi::lua_CFunction, 5)] {
                for upvalue in [6, 1, 2, 3, slow] {
                    ffi::lua_pushvalue(state, upvalue);
                }
                ffi::lua_pushcclosure(state, function, 5);
            }
            for _ in 0..6 {
                ffi::lua_remove(state, 1);
            }
        })
    }
}

/// Pushes a userdata that owns `vm`.
///
/// # Safety
/// `vm` comes from `Rc::into_raw`, and its count goes over to the userdata. There is room for three values. If Lua is
/// out of memory it raises, and the VM is not freed: a leak, no more.
unsafe fn push_handle(state: *mut ffi::lua_State, vm: *const Vm) {
    // SAFETY: the userdata is as large as a handle and aligned for anything; it is written before anybody reads it,
    // and has its finalizer from then on. Nothing in this frame has a destructor when Lua may raise.
    unsafe {
        let handle = ffi::lua_newuserdata(state, size_of::<Handle>()).cast::<Handle>();
        ffi::lua_createtable(state, 0, 1);
        ffi::lua_pushcclosure(state, finalize, 0);
        ffi::lua_setfield(state, -2, c"__gc".as_ptr());
        handle.write(Some(Rc::from_raw(vm)));
        ffi::lua_setmetatable(state, -2);
    }
}

/// `__gc` of the handle.
unsafe extern "C-unwind" fn finalize(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua passes the userdata whose metatable this is in, and a program does not get hold of that metatable
    // but by the debug library. `take` leaves `None`, so that a second call finds nothing.
    let handle = unsafe { ffi::lua_touserdata(state, 1).cast::<Handle>().as_mut() };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(handle.and_then(Option::take))));
    0
}

/// The VM of the running function, unless its state is closing.
///
/// # Safety
/// The running function has the handle as its first upvalue. The reference must not be kept beyond the call: the
/// upvalue holds the VM as long as that.
unsafe fn vm<'a>(state: *mut ffi::lua_State) -> Option<&'a Vm> {
    // SAFETY: the upvalue is the userdata that `push_handle` made, which has been written.
    unsafe { (*ffi::lua_touserdata(state, HANDLE).cast::<Handle>()).as_deref() }
}

/// Runs what could panic, and what has destructors; `None` if it did panic.
fn guarded<T: Copy>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// `setTimeout(fn, ms)`
unsafe extern "C-unwind" fn set_timeout(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `timer_functions` sets them. No local of this frame has a destructor. The callback is
    // stored before the timer is set: storing may raise, and a callback in a slot that is not in use does no harm.
    unsafe {
        let (Some(vm), Some(delay)) = (vm(state), plain_delay(state)) else { return go_slow_way(state) };
        let Some(slot) = guarded(|| vm.engine.borrow().timers.next_slot()) else { return panicked(state) };
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawseti(state, CALLBACKS, i64::from(slot.0 + 1) as _);
        let origin = capture_origin(state, vm);
        let Some(id) = guarded(|| vm.set_timer(delay, Repeat::Once, origin).0) else { return panicked(state) };
        ffi::lua_pushinteger(state, id.0 as _);
        1
    }
}

/// The delay, if the arguments are a function and a number or nothing.
///
/// # Safety
/// Called in a C function that Lua runs.
unsafe fn plain_delay(state: *mut ffi::lua_State) -> Option<Delay> {
    // SAFETY: reads the arguments; nothing here can raise.
    unsafe {
        let count = ffi::lua_gettop(state);
        if count == 0 || count > 2 || ffi::lua_type(state, 1) != ffi::LUA_TFUNCTION {
            return None;
        }
        if count == 1 {
            return Some(Delay::After(0));
        }
        let ms = ffi::lua_tonumber(state, 2);
        (ffi::lua_type(state, 2) == ffi::LUA_TNUMBER && !ms.is_nan()).then(|| Delay::from_ms(ms))
    }
}

/// `clearTimeout(id)`
unsafe extern "C-unwind" fn clear_timeout(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `timer_functions` sets them. No local of this frame has a destructor; setting fields
    // to nil does not raise.
    unsafe {
        match ffi::lua_type(state, 1) {
            ffi::LUA_TNUMBER => {}
            ffi::LUA_TNIL | ffi::LUA_TNONE => return 0,
            _ => return go_slow_way(state),
        }
        let (Some(vm), Some(id)) = (vm(state), Id::from_number(ffi::lua_tonumber(state, 1))) else { return 0 };
        let Some(cleared) = guarded(|| vm.engine.borrow_mut().timers.clear(id)) else { return panicked(state) };
        if let Some(cleared) = cleared {
            let tables = if cleared.is_interval { &[CALLBACKS, OVERLAPPING, WAITING][..] } else { &[CALLBACKS] };
            for &table in tables {
                ffi::lua_pushnil(state);
                ffi::lua_rawseti(state, table, i64::from(cleared.slot.0 + 1) as _);
            }
        }
        0
    }
}

/// `next_work()`
unsafe extern "C-unwind" fn next_work(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalue is as `next_work_function` sets it. No local of this frame has a destructor.
    unsafe {
        let Some(vm) = vm(state) else { return 0 };
        let Some(work) = guarded(|| vm.next_work()) else { return panicked(state) };
        let Some((kind, slot)) = work.map(turn::number) else { return 0 };
        ffi::lua_pushinteger(state, kind as _);
        ffi::lua_pushinteger(state, i64::from(slot) as _);
        2
    }
}

/// The line of the Lua function that called the running one.
///
/// # Safety
/// Called in a C function that Lua runs, and `vm` is that of the state.
unsafe fn capture_origin(state: *mut ffi::lua_State, vm: &Vm) -> Origin {
    // SAFETY: `lua_getinfo` is only asked about a level that `lua_getstack` has found, and fills the fields that are
    // read; asked for "S" and "l" it cannot raise. `short_src` ends with a zero.
    unsafe {
        let mut call = MaybeUninit::<ffi::lua_Debug>::uninit();
        for level in 1..=MAX_LEVELS {
            if ffi::lua_getstack(state, level, call.as_mut_ptr()) == 0 {
                break;
            }
            ffi::lua_getinfo(state, c"Sl".as_ptr(), call.as_mut_ptr());
            let call = call.as_ptr();
            let line = (*call).currentline;
            if line > 0 {
                let chunk = CStr::from_ptr((&raw const (*call).short_src).cast::<c_char>());
                return guarded(|| vm.origins.borrow_mut().at(chunk.to_bytes(), line as u32)).unwrap_or_default();
            }
        }
        Origin::default()
    }
}

/// Calls the Lua function of the same name with the same arguments.
///
/// # Safety
/// The running function has it as its fifth upvalue, and nothing in its frame has a destructor.
unsafe fn go_slow_way(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as required of the caller.
    unsafe { call_upvalue(state, SLOW_WAY) }
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
