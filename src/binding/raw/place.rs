//! The natives that look at places in channels and mutexes, and give them up: `channel_withdraw`, `channel_give_up`,
//! `mutex_is_held`, `mutex_leave`. They take no memory of Lua, since that may be what the wait at a place has failed
//! for.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Lua, Result, Table, ffi};

use super::{closing, guarded, panicked, vm, with_upvalues};
use crate::vm::Vm;
use crate::worker::shared::Place;

/// The functions, by their names.
const FUNCTIONS: [(&str, ffi::lua_CFunction); 4] =
    [("channel_withdraw", withdraw), ("channel_give_up", give_up), ("mutex_is_held", is_held), ("mutex_leave", leave)];

/// Adds the functions to `natives`.
pub fn add_functions(lua: &Lua, vm: &Rc<Vm>, natives: &Table) -> Result<()> {
    FUNCTIONS.iter().try_for_each(|(name, function)| {
        // SAFETY: the functions expect the handle, and no more.
        natives.raw_set(*name, unsafe { with_upvalues(lua, vm, *function, ())? })
    })
}

/// `channel_withdraw(place)` returns whether the wait has ended with something.
unsafe extern "C-unwind" fn withdraw(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalue is as `add_functions` sets it. No local of this frame has a destructor.
    unsafe { with_place(state, |vm, place| vm.channels.withdraw(place)) }
}

/// `channel_give_up(place)`
unsafe extern "C-unwind" fn give_up(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe {
        with_place(state, |vm, place| {
            vm.channels.give_up(place);
            true
        })
    }
}

/// `mutex_is_held(place)` returns whether the mutex is held there.
unsafe extern "C-unwind" fn is_held(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe { with_place(state, |vm, place| vm.places.is_held(place)) }
}

/// `mutex_leave(place)` returns whether it was not left before.
unsafe extern "C-unwind" fn leave(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe { with_place(state, |vm, place| vm.places.leave(place)) }
}

/// Returns to Lua what `run` does with the place that is the argument.
///
/// # Safety
/// Called in a C function of this file, and nothing in its frame has a destructor.
unsafe fn with_place(state: *mut ffi::lua_State, run: impl FnOnce(&Vm, Place) -> bool + Copy) -> c_int {
    // SAFETY: reads the argument; pushing a boolean does not raise.
    unsafe {
        let Some(vm) = vm(state) else { return closing(state) };
        let place = ffi::lua_tonumber(state, 1) as Place;
        let Some(result) = guarded(|| run(vm, place)) else { return panicked(state) };
        ffi::lua_pushboolean(state, c_int::from(result));
        1
    }
}
