//! `setTimeout` and `clearTimeout`.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, ffi};

use super::{call_upvalue, capture_origin, guarded, panicked, push_handle, vm};
use crate::engine::{Delay, Id, Repeat};
use crate::vm::Vm;

/// What the upvalues are, beside the handle.
const CALLBACKS: c_int = super::TABLE;
const OVERLAPPING: c_int = ffi::lua_upvalueindex(3);
const WAITING: c_int = ffi::lua_upvalueindex(4);
const SLOW_WAY: c_int = ffi::lua_upvalueindex(5);

/// The tables that timers are kept in on the Lua side, by slot.
pub struct TimerTables {
    /// The callbacks.
    pub callbacks: Table,
    /// Intervals that may overlap.
    pub overlapping: Table,
    /// Coroutines in which intervals still wait.
    pub waiting: Table,
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

/// `setTimeout(fn, ms)`
unsafe extern "C-unwind" fn set_timeout(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `timer_functions` sets them. No local of this frame has a destructor. The callback is
    // stored before the timer is set: storing may raise, and a callback in a slot that is not in use does no harm.
    unsafe {
        let (Some(vm), Some(delay)) = (vm(state), plain_delay(state)) else { return go_slow_way(state) };
        let Some(slot) = guarded(|| vm.engine.borrow().timers.next_slot()) else { return panicked(state) };
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawseti(state, CALLBACKS, i64::from(slot.0 + 1) as _);
        let origin = capture_origin(state, vm, 1);
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

/// Calls the Lua function of the same name with the same arguments.
///
/// # Safety
/// The running function has it as its fifth upvalue, and nothing in its frame has a destructor.
unsafe fn go_slow_way(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as required of the caller.
    unsafe { call_upvalue(state, SLOW_WAY) }
}
