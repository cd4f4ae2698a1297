//! The natives of turns: `begin_turn`, `next_work`.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Lua, Result, Table, ffi};

use super::{guarded, panicked, vm, with_table};
use crate::binding::turn;
use crate::engine::{Delay, Nanos};
use crate::vm::Vm;

/// The functions, by their names.
const FUNCTIONS: [(&str, ffi::lua_CFunction); 2] = [("begin_turn", begin_turn), ("next_work", next_work)];

/// Adds the functions to `natives`.
pub fn add_functions(lua: &Lua, vm: &Rc<Vm>, natives: &Table) -> Result<()> {
    // Not one of them has a table.
    let none = lua.create_table()?;
    FUNCTIONS.iter().try_for_each(|(name, function)| natives.raw_set(*name, with_table(lua, vm, *function, &none)?))
}

/// `begin_turn([budget_ms])` returns the time in nanoseconds, whether timers are due or immediates queued, and whether
/// completions have arrived or jobs are lost.
unsafe extern "C-unwind" fn begin_turn(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor.
    unsafe {
        let Some(vm) = vm(state) else { return 0 };
        let has_budget = ffi::lua_type(state, 1) == ffi::LUA_TNUMBER;
        let budget = has_budget.then(|| match Delay::from_ms(ffi::lua_tonumber(state, 1)) {
            Delay::After(budget) => budget,
            _ => Nanos::MAX,
        });
        let Some(began) = guarded(|| vm.begin_turn(budget)) else { return panicked(state) };
        ffi::lua_pushnumber(state, began.now as f64);
        ffi::lua_pushboolean(state, c_int::from(began.has_callbacks));
        ffi::lua_pushboolean(state, c_int::from(began.has_completions));
        3
    }
}

/// `next_work()`
unsafe extern "C-unwind" fn next_work(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor.
    unsafe {
        let Some(vm) = vm(state) else { return 0 };
        let Some(work) = guarded(|| vm.next_work()) else { return panicked(state) };
        let Some((kind, slot)) = work.map(turn::number) else { return 0 };
        ffi::lua_pushinteger(state, kind as _);
        ffi::lua_pushinteger(state, i64::from(slot) as _);
        2
    }
}
