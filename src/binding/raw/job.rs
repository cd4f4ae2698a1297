//! The natives of jobs for messages of plain values: `submit_plain`, `next_completion`.
//!
//! Through mlua, and with a list for the values of each message, a job takes the program's thread twice as long.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Lua, Result, Table, ffi};

use super::{call_upvalue, guarded, held, panicked, vm, with_upvalues};
use crate::binding::job::Sender;
use crate::vm::Vm;
use crate::vm::raw::plain::{self, Sending};

/// What the upvalues are, beside the handle.
const OWN: c_int = super::TABLE;
const SENT: c_int = ffi::lua_upvalueindex(3);
const SLOW_WAY: c_int = super::TABLE;

/// Adds `submit_plain` to `natives`, and replaces `next_completion`, which is asked what is not plain.
pub fn add_functions(lua: &Lua, vm: &Rc<Vm>, sender: &Rc<Sender>, natives: &Table) -> Result<()> {
    let slow_way: mlua::Function = natives.raw_get("next_completion")?;
    let transfer = sender.transfer();
    // SAFETY: the upvalues are in the order of the constants above.
    unsafe {
        let tables = (&transfer.own, &transfer.functions.sent);
        natives.raw_set("submit_plain", with_upvalues(lua, sender, submit_plain, tables)?)?;
        natives.raw_set("next_completion", with_upvalues(lua, vm, next_completion, slow_way)?)
    }
}

/// `submit_plain(number of the pool, fn, ...)` returns the number of the job; nothing if the call is not plain, or the
/// pool does not take it now.
unsafe extern "C-unwind" fn submit_plain(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor; what runs guarded
    // calls nothing that could raise.
    unsafe {
        let Some(sender) = held::<Sender>(state) else { return 0 };
        let pool = ffi::lua_tonumber(state, 1) as usize;
        let sent = guarded(|| {
            let sending = Sending { functions: &sender.transfer().functions, own: OWN, sent: SENT };
            let send = |pool| sender.send_plain(pool, plain::encode(state, 2, Some(sending))?);
            send(sender.pool(pool)?)
        });
        let Some(sent) = sent else { return panicked(state) };
        let Some(number) = sent else { return 0 };
        ffi::lua_pushinteger(state, number as _);
        1
    }
}

/// `next_completion()` returns the number of a job, true and its results if these are plain.
unsafe extern "C-unwind" fn next_completion(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor; what runs guarded
    // calls nothing that could raise.
    unsafe {
        let Some(vm) = vm(state) else { return 0 };
        let pushed = guarded(|| {
            let mut pushed = None;
            vm.next_plain(|number, results| {
                ffi::lua_pushinteger(state, number as _);
                ffi::lua_pushboolean(state, 1);
                pushed = plain::push(state, results, None);
                pushed.is_some()
            });
            pushed
        });
        match pushed {
            None => panicked(state),
            Some(Some(count)) => 2 + count,
            Some(None) => {
                ffi::lua_settop(state, 0);
                call_upvalue(state, SLOW_WAY)
            }
        }
    }
}
