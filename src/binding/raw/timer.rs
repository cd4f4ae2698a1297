//! `setTimeout` and `clearTimeout`; and the natives `set_timeout`, `set_interval`, `set_immediate`, `set_wake` and `clear`.
//!
//! What a timer calls is stored before the timer is set: to store it may raise, and in a slot that is not in use it does
//! no harm. Between the two nothing may run that sets timers: no finalizers, that is.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, ffi};

use super::{call_upvalue, capture_origin, closing, guarded, panicked, push_handle, vm, with_table};
use crate::engine::clock::NANOS_PER_MS;
use crate::engine::{Delay, Id, Missed, Origin, Repeat};
use crate::vm::Vm;

/// What the upvalues are, beside the handle.
const CALLBACKS: c_int = super::TABLE;
const OVERLAPPING: c_int = ffi::lua_upvalueindex(3);
const WAITING: c_int = ffi::lua_upvalueindex(4);
const SLOW_WAY: c_int = ffi::lua_upvalueindex(5);

/// The natives, by their names. Nothing is returned for a delay that is bad.
const FUNCTIONS: [(&str, ffi::lua_CFunction); 5] = [
    ("set_timeout", set_timeout_for),
    ("set_interval", set_interval),
    ("set_immediate", set_immediate),
    ("set_wake", set_wake),
    ("clear", clear),
];

/// What an interval does about what it has missed, as Lua numbers it.
const MISSED: [Missed; 3] = [Missed::Skip, Missed::Burst, Missed::Delay];

/// The tables that timers are kept in on the Lua side, by slot.
pub struct TimerTables {
    /// The callbacks.
    pub callbacks: Table,
    /// Intervals that may overlap.
    pub overlapping: Table,
    /// Coroutines in which intervals still wait.
    pub waiting: Table,
}

/// Adds the natives. What timers call, or wake, is kept in `callbacks`, by their slots.
pub fn add_functions(lua: &Lua, vm: &Rc<Vm>, natives: &Table, callbacks: &Table) -> Result<()> {
    FUNCTIONS.iter().try_for_each(|(name, function)| natives.raw_set(*name, with_table(lua, vm, *function, callbacks)?))
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
    // SAFETY: the upvalues are as `timer_functions` sets them. No local of this frame has a destructor.
    unsafe {
        let (Some(vm), Some(delay)) = (vm(state), plain_delay(state)) else { return go_slow_way(state) };
        set(state, vm, delay, Repeat::Once, None)
    }
}

/// Sets a timer for what lies at 1; returns its id. The table at `overlapping` is told of it.
///
/// # Safety
/// Called in a C function that Lua runs, with the callbacks as its second upvalue, and nothing in its frame has a
/// destructor.
unsafe fn set(state: *mut ffi::lua_State, vm: &Vm, delay: Delay, repeat: Repeat, overlapping: Option<c_int>) -> c_int {
    // SAFETY: a C function has room for 20 values. `lua_rawseti` runs no finalizer, and so the slot stays the next.
    unsafe {
        let Some(slot) = guarded(|| vm.engine.borrow().timers.next_slot()) else { return panicked(state) };
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawseti(state, CALLBACKS, i64::from(slot.0 + 1) as _);
        if let Some(table) = overlapping {
            ffi::lua_pushboolean(state, 1);
            ffi::lua_rawseti(state, table, i64::from(slot.0 + 1) as _);
        }
        let origin = if repeat == Repeat::Wake { Origin::default() } else { capture_origin(state, vm, 1) };
        let Some(id) = guarded(|| vm.set_timer(delay, repeat, origin).0) else { return panicked(state) };
        ffi::lua_pushinteger(state, id.0 as _);
        1
    }
}

/// `set_timeout(callback, ms)`, where there may be no `ms`.
unsafe extern "C-unwind" fn set_timeout_for(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor.
    unsafe {
        let Some(vm) = vm(state) else { return closing(state) };
        let Some(delay) = delay(state) else { return 0 };
        set(state, vm, delay, Repeat::Once, None)
    }
}

/// `set_interval(callback, ms, missed, overlapping)`: how it deals with what it has missed, by its number; and the table
/// of those that may overlap, if this one may.
unsafe extern "C-unwind" fn set_interval(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above; the third argument is a number.
    unsafe {
        let Some(vm) = vm(state) else { return closing(state) };
        let Some(delay) = delay(state) else { return 0 };
        let missed = MISSED[ffi::lua_tonumber(state, 3) as usize % MISSED.len()];
        let overlapping = (ffi::lua_type(state, 4) == ffi::LUA_TTABLE).then_some(4);
        // One of 0 would never let go; as in browsers and Node it is one of 1 ms.
        let period = if delay == Delay::After(0) { Delay::After(NANOS_PER_MS) } else { delay };
        set(state, vm, period, Repeat::Interval(missed), overlapping)
    }
}

/// `set_immediate(callback)`
unsafe extern "C-unwind" fn set_immediate(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe {
        let Some(vm) = vm(state) else { return closing(state) };
        set(state, vm, Delay::Immediate, Repeat::Once, None)
    }
}

/// `set_wake(sleeper, seconds)`
unsafe extern "C-unwind" fn set_wake(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above; the second argument is a number.
    unsafe {
        let Some(vm) = vm(state) else { return closing(state) };
        set(state, vm, Delay::from_seconds(ffi::lua_tonumber(state, 2)), Repeat::Wake, None)
    }
}

/// `clear(id)`, for one that is no interval.
unsafe extern "C-unwind" fn clear(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above; setting a field to nil does not raise.
    unsafe {
        let (Some(vm), Some(id)) = (vm(state), Id::from_number(ffi::lua_tonumber(state, 1))) else { return 0 };
        let Some(cleared) = guarded(|| vm.engine.borrow_mut().timers.clear(id)) else { return panicked(state) };
        if let Some(cleared) = cleared {
            ffi::lua_pushnil(state);
            ffi::lua_rawseti(state, CALLBACKS, i64::from(cleared.slot.0 + 1) as _);
        }
        0
    }
}

/// The delay that lies at 2. A missing one is 0; NaN and what is no number are refused.
///
/// # Safety
/// Called in a C function that Lua runs.
unsafe fn delay(state: *mut ffi::lua_State) -> Option<Delay> {
    // SAFETY: reads the argument; nothing here can raise.
    unsafe {
        match ffi::lua_type(state, 2) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => Some(Delay::After(0)),
            ffi::LUA_TNUMBER => {
                let ms = ffi::lua_tonumber(state, 2);
                (!ms.is_nan()).then(|| Delay::from_ms(ms))
            }
            _ => None,
        }
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
        delay(state)
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
