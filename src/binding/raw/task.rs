//! The natives of tasks: `new_task`, `here`, `sleep`, `origin`, `set_origin`, `has_failed`, `token_of`, `mark`,
//! `take_mark`, `thread`; and for who looks inside, `origin_in` and `resumed_by`.
//!
//! `token_of` and `set_origin` read and write local variables of a coroutine that is suspended. The debug library could
//! as well, but makes a table for each look, and hosts take it away.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, ffi};

use super::{TABLE, capture_origin, guarded, panicked, vm, with_table};
use crate::engine::{Delay, Origin, Repeat};
use crate::vm::Vm;

/// Which table a function has as its upvalue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upvalue {
    Callbacks,
    Waiting,
}

/// The functions, by their names.
const FUNCTIONS: [(&str, ffi::lua_CFunction, Upvalue); 9] = [
    ("here", here, Upvalue::Callbacks),
    ("sleep", sleep, Upvalue::Callbacks),
    ("origin", origin, Upvalue::Callbacks),
    ("set_origin", set_origin, Upvalue::Callbacks),
    ("has_failed", has_failed, Upvalue::Callbacks),
    ("token_of", token_of, Upvalue::Waiting),
    ("mark", mark, Upvalue::Waiting),
    ("take_mark", take_mark, Upvalue::Waiting),
    ("thread", thread, Upvalue::Callbacks),
];

/// The local variable of a task's first function that its origin is kept in.
const ORIGIN: c_int = 1;

/// A function that the stock `coroutine.wrap` made has its coroutine as its only upvalue; for ours, see `coroutine.rs`.
const MOST_UPVALUES_OF_WRAP: c_int = 3;

/// The local variable of a function that waits which tells what for.
const TOKEN: &CStr = c"token";

/// Adds the functions to `natives`. What sleeps is kept in `callbacks`; `waiting` has the functions of the module that
/// yield, and under "yield" Lua's own.
pub fn add_functions(lua: &Lua, vm: &Rc<Vm>, natives: &Table, callbacks: &Table, waiting: &Table) -> Result<()> {
    for (name, function, table) in FUNCTIONS {
        let table = if table == Upvalue::Callbacks { callbacks } else { waiting };
        natives.raw_set(name, with_table(lua, vm, function, table)?)?;
    }
    Ok(())
}

/// The function `new_task(f, ...)`, which makes a coroutine that is to run `f(...)`: its function is `body` if there are
/// no further arguments, else `body_with_arguments`. It returns nothing if `f` is no function.
pub fn new_task_function(lua: &Lua, body: Function, body_with_arguments: Function) -> Result<Function> {
    // SAFETY: the two arguments are the upvalues that `new_task` expects.
    unsafe { lua.exec_raw((body, body_with_arguments), |state| ffi::lua_pushcclosure(state, new_task, 2)) }
}

unsafe extern "C-unwind" fn new_task(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `new_task_function` sets them. No local of this frame has a destructor. A new
    // coroutine has room for its function.
    unsafe {
        if ffi::lua_type(state, 1) != ffi::LUA_TFUNCTION {
            return 0;
        }
        let body = if ffi::lua_gettop(state) == 1 { 1 } else { 2 };
        let co = ffi::lua_newthread(state);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(body));
        ffi::lua_xmove(state, co, 1);
        1
    }
}

/// `here()` returns the running coroutine; nothing on the main thread, and if the coroutine cannot yield.
unsafe extern "C-unwind" fn here(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: a C function has room for 20 values.
    unsafe { c_int::from(ffi::lua_pushthread(state) == 0 && may_yield(state)) }
}

/// `sleep(seconds)` returns the running coroutine, the time in nanoseconds, and the id of the timer that will wake the
/// coroutine; no id if the time is 0 or less. It returns nothing, and has done nothing, for what Lua has to look at: no
/// coroutine is running, it cannot yield, or the argument is bad.
unsafe extern "C-unwind" fn sleep(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `with_table` sets them. No local of this frame has a destructor. The coroutine is
    // stored before the timer is set: storing may raise, and what is in a slot that is not in use does no harm.
    unsafe {
        let (Some(vm), Some(delay)) = (vm(state), seconds(state)) else { return 0 };
        if ffi::lua_pushthread(state) == 1 || !may_yield(state) {
            return 0;
        }
        let Some((slot, now)) = guarded(|| {
            let engine = vm.engine.borrow();
            (engine.timers.next_slot(), engine.clock.now())
        }) else {
            return panicked(state);
        };
        if delay == Delay::After(0) {
            ffi::lua_pushnumber(state, now as f64);
            return 2;
        }
        ffi::lua_pushvalue(state, -1);
        ffi::lua_rawseti(state, TABLE, i64::from(slot.0 + 1) as _);
        let Some(id) = guarded(|| vm.set_timer(delay, Repeat::Wake, Origin::default()).0) else {
            return panicked(state);
        };
        ffi::lua_pushnumber(state, now as f64);
        ffi::lua_pushinteger(state, id.0 as _);
        3
    }
}

/// The delay that the first argument asks for; none given is 0.
///
/// # Safety
/// Called in a C function that Lua runs.
unsafe fn seconds(state: *mut ffi::lua_State) -> Option<Delay> {
    // SAFETY: reads the argument; nothing here can raise.
    unsafe {
        match ffi::lua_type(state, 1) {
            ffi::LUA_TNUMBER => {
                let seconds = ffi::lua_tonumber(state, 1);
                (!seconds.is_nan()).then(|| Delay::from_seconds(seconds))
            }
            ffi::LUA_TNIL | ffi::LUA_TNONE => Some(Delay::After(0)),
            _ => None,
        }
    }
}

/// `origin([is_job])`: the line of the user's function that runs, as a number for `describe`.
unsafe extern "C-unwind" fn origin(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `with_table` sets them. No local of this frame has a destructor.
    unsafe {
        let Some(vm) = vm(state) else { return 0 };
        let is_job = ffi::lua_toboolean(state, 1) != 0;
        let place = stamped_origin(state, vm);
        ffi::lua_pushnumber(state, if is_job { place.of_job() } else { place.of_task() }.0 as f64);
        1
    }
}

/// The line of the user's function that called the function of the module that called the running one, and the time.
///
/// # Safety
/// As for [`capture_origin`].
unsafe fn stamped_origin(state: *mut ffi::lua_State, vm: &Vm) -> Origin {
    // SAFETY: as required of the caller.
    let place = unsafe { capture_origin(state, vm, 2) };
    guarded(|| place.at_time(vm.engine.borrow().now())).unwrap_or(place)
}

/// `token_of(co)`: what a suspended coroutine waits for; nothing if it is not suspended in a function of ours.
unsafe extern "C-unwind" fn token_of(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `with_table` sets them. No local of this frame has a destructor. The coroutine is
    // suspended and has room for a value; `lua_getinfo` and `lua_getlocal` are given a level that `lua_getstack` has
    // found, and what they push onto the coroutine's stack is taken off again.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        if co.is_null() || ffi::lua_status(co) != ffi::LUA_YIELD || ffi::lua_checkstack(co, 1) == 0 {
            return 0;
        }
        let mut call = MaybeUninit::<ffi::lua_Debug>::uninit();
        if ffi::lua_getstack(co, 1, call.as_mut_ptr()) == 0 {
            return 0;
        }
        ffi::lua_getinfo(co, c"f".as_ptr(), call.as_mut_ptr());
        ffi::lua_xmove(co, state, 1);
        ffi::lua_rawget(state, TABLE);
        if ffi::lua_toboolean(state, -1) == 0 {
            return 0;
        }
        for index in 1.. {
            let name = ffi::lua_getlocal(co, call.as_ptr(), index);
            if name.is_null() {
                return 0;
            }
            if CStr::from_ptr(name) == TOKEN {
                ffi::lua_xmove(co, state, 1);
                return 1;
            }
            ffi::lua_settop(co, -2);
        }
        0
    }
}

/// `origin_in(co)`: what `set_origin` has written into a task that is suspended.
pub unsafe extern "C-unwind" fn origin_in(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: no local of this frame has a destructor. The coroutine does not run and has room for a value;
    // `lua_getlocal` is given a level that `lua_getstack` has found.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        if co.is_null() || co == state || ffi::lua_checkstack(co, 1) == 0 {
            return 0;
        }
        let Some(call) = first_call(co) else { return 0 };
        if ffi::lua_getlocal(co, call.as_ptr(), ORIGIN).is_null() {
            return 0;
        }
        ffi::lua_xmove(co, state, 1);
        c_int::from(ffi::lua_type(state, -1) == ffi::LUA_TNUMBER)
    }
}

/// The call of the function that a coroutine began with.
///
/// # Safety
/// It is not the running one.
unsafe fn first_call(co: *mut ffi::lua_State) -> Option<MaybeUninit<ffi::lua_Debug>> {
    // SAFETY: the record is written by `lua_getstack` if that finds the level.
    unsafe {
        let mut call = MaybeUninit::<ffi::lua_Debug>::uninit();
        let mut level = 0;
        while ffi::lua_getstack(co, level, call.as_mut_ptr()) != 0 {
            level += 1;
        }
        (level > 0 && ffi::lua_getstack(co, level - 1, call.as_mut_ptr()) != 0).then_some(call)
    }
}

/// `set_origin(co)`: writes the origin into the first function of a task that is suspended.
unsafe extern "C-unwind" fn set_origin(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `with_table` sets them. No local of this frame has a destructor. The coroutine is
    // not running; `lua_setlocal` is given a level that `lua_getstack` has found, and pops the number.
    unsafe {
        let (Some(vm), false) = (vm(state), ffi::lua_tothread(state, 1).is_null()) else { return 0 };
        let co = ffi::lua_tothread(state, 1);
        if co == state || ffi::lua_checkstack(co, 1) == 0 {
            return 0;
        }
        let Some(call) = first_call(co) else { return 0 };
        let origin = stamped_origin(state, vm).of_task();
        ffi::lua_pushnumber(co, origin.0 as f64);
        if ffi::lua_setlocal(co, call.as_ptr(), ORIGIN).is_null() {
            ffi::lua_settop(co, -2);
        }
        0
    }
}

/// `has_failed(co)`: whether a dead coroutine died of an error.
unsafe extern "C-unwind" fn has_failed(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: reads the state of the coroutine, if the argument is one.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        ffi::lua_pushboolean(state, c_int::from(!co.is_null() && ffi::lua_status(co) > ffi::LUA_YIELD));
        1
    }
}

/// `mark(co, node)`: leaves a mark in a coroutine that is suspended in `coroutine.yield`, or fresh, which is gone when
/// anybody has resumed it. False where that cannot be.
///
/// The mark lies on the stack of the suspended `coroutine.yield`. Whoever resumes the coroutine puts the results of that
/// call above it, and what lies below them is dropped when the call returns. A fresh coroutine needs none.
unsafe extern "C-unwind" fn mark(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: no local of this frame has a destructor. The coroutine is suspended and has room for two values.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        let is_marked = !co.is_null() && ffi::lua_checkstack(co, 2) != 0 && (is_fresh(co) || yields_itself(state, co));
        if is_marked && !is_fresh(co) {
            ffi::lua_pushlightuserdata(co, ffi::lua_topointer(state, 2).cast_mut());
        }
        ffi::lua_pushboolean(state, c_int::from(is_marked));
        1
    }
}

/// `take_mark(co, node)`: takes the mark away; false if it is gone.
unsafe extern "C-unwind" fn take_mark(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: no local of this frame has a destructor. Only the stack of a suspended coroutine is looked at, and only the
    // mark is taken from it.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        let mark = ffi::lua_topointer(state, 2).cast_mut();
        let mut is_there = !co.is_null() && is_fresh(co);
        if !co.is_null() && ffi::lua_status(co) == ffi::LUA_YIELD && ffi::lua_gettop(co) > 0 {
            is_there = ffi::lua_type(co, -1) == ffi::LUA_TLIGHTUSERDATA && ffi::lua_touserdata(co, -1) == mark;
            if is_there {
                ffi::lua_settop(co, -2);
            }
        }
        ffi::lua_pushboolean(state, c_int::from(is_there));
        1
    }
}

/// `thread()`: the running coroutine; the main thread as well, which Lua 5.1 does not name.
unsafe extern "C-unwind" fn thread(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: a C function has room for 20 values.
    unsafe { ffi::lua_pushthread(state) };
    1
}

/// `resumed_by(co)`: the coroutine that `co`, which does not run itself, has resumed and that has not given back control;
/// nothing if it is suspended or a C module has resumed one.
///
/// The function on top of its stack is `coroutine.resume` then, whose first argument is that coroutine, or one that
/// `coroutine.wrap` made, which has it as an upvalue.
pub unsafe extern "C-unwind" fn resumed_by(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: no local of this frame has a destructor. The coroutine has room for a value; `lua_getlocal` and
    // `lua_getinfo` are given a level that `lua_getstack` has found, and what they push is taken off again.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        let mut call = MaybeUninit::<ffi::lua_Debug>::uninit();
        if co.is_null()
            || co == state
            || ffi::lua_status(co) != ffi::LUA_OK
            || ffi::lua_checkstack(co, 1) == 0
            || ffi::lua_getstack(co, 0, call.as_mut_ptr()) == 0
        {
            return 0;
        }
        if !ffi::lua_getlocal(co, call.as_ptr(), 1).is_null() {
            ffi::lua_xmove(co, state, 1);
            if ffi::lua_type(state, -1) == ffi::LUA_TTHREAD {
                return 1;
            }
        }
        ffi::lua_getinfo(co, c"f".as_ptr(), call.as_mut_ptr());
        ffi::lua_xmove(co, state, 1);
        let function = ffi::lua_gettop(state);
        for upvalue in 1..=MOST_UPVALUES_OF_WRAP {
            if ffi::lua_getupvalue(state, function, upvalue).is_null() {
                break;
            }
            if ffi::lua_type(state, -1) == ffi::LUA_TTHREAD {
                return 1;
            }
        }
        0
    }
}

/// Whether a coroutine has not begun yet: it holds its function and nothing else.
///
/// # Safety
/// It is not the running one.
unsafe fn is_fresh(co: *mut ffi::lua_State) -> bool {
    // SAFETY: reads the state of a coroutine.
    unsafe {
        let mut call = MaybeUninit::<ffi::lua_Debug>::uninit();
        ffi::lua_status(co) == ffi::LUA_OK
            && ffi::lua_getstack(co, 0, call.as_mut_ptr()) == 0
            && ffi::lua_gettop(co) > 0
    }
}

/// Whether a coroutine is suspended in the `coroutine.yield` that is the function's table. Other C functions that yield
/// may look at their stack when they go on.
///
/// # Safety
/// The running function has `yield` as its second upvalue; the coroutine has room for a value.
unsafe fn yields_itself(state: *mut ffi::lua_State, co: *mut ffi::lua_State) -> bool {
    // SAFETY: `lua_getinfo` is given a level that `lua_getstack` has found, and pushes one value, which is taken off.
    unsafe {
        let mut call = MaybeUninit::<ffi::lua_Debug>::uninit();
        if ffi::lua_status(co) != ffi::LUA_YIELD || ffi::lua_getstack(co, 0, call.as_mut_ptr()) == 0 {
            return false;
        }
        ffi::lua_getinfo(co, c"f".as_ptr(), call.as_mut_ptr());
        ffi::lua_xmove(co, state, 1);
        ffi::lua_getfield(state, TABLE, c"yield".as_ptr());
        ffi::lua_rawequal(state, -1, -2) != 0
    }
}

/// Whether the running coroutine can yield; Lua 5.1 and 5.2 do not tell.
///
/// # Safety
/// Called in a C function that Lua runs; so are the two below.
#[cfg(any(feature = "lua53", feature = "lua54", feature = "lua55"))]
unsafe fn may_yield(state: *mut ffi::lua_State) -> bool {
    // SAFETY: reads the state.
    unsafe { ffi::lua_isyieldable(state) != 0 }
}

#[cfg(feature = "luajit")]
unsafe fn may_yield(state: *mut ffi::lua_State) -> bool {
    unsafe extern "C-unwind" {
        /// Declared in LuaJIT's own `lua.h` (2.1), but not by mlua.
        fn lua_isyieldable(state: *mut ffi::lua_State) -> c_int;
    }
    // SAFETY: reads the state.
    unsafe { lua_isyieldable(state) != 0 }
}

#[cfg(not(any(feature = "lua53", feature = "lua54", feature = "lua55", feature = "luajit")))]
unsafe fn may_yield(_: *mut ffi::lua_State) -> bool {
    true
}
