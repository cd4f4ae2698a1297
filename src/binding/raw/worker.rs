//! The natives of workers for messages of plain values: `take`, `done_plain`. See `job.rs`.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Lua, Result, Table, ffi};

use super::{call_upvalue, guarded, held, panicked, with_upvalues};
use crate::binding::worker::{InHand, Worker};
use crate::vm::raw::plain::{self, Receiving};
use crate::worker::Outcome;

/// What the upvalues are, beside the handle.
const GLOBALS: c_int = super::TABLE;
const RECEIVED: c_int = ffi::lua_upvalueindex(3);
const SLOW_WAY: c_int = ffi::lua_upvalueindex(4);

/// Adds `done_plain` to `natives`, and replaces `take`, which is asked for what is not plain.
pub fn add_functions(lua: &Lua, worker: &Rc<Worker>, natives: &Table) -> Result<()> {
    let slow_way: mlua::Function = natives.raw_get("take")?;
    let transfer = worker.transfer();
    // SAFETY: the upvalues are in the order of the constants above.
    unsafe {
        let upvalues = (&transfer.globals, &transfer.functions.received, slow_way);
        natives.raw_set("take", with_upvalues(lua, worker, take, upvalues)?)?;
        natives.raw_set("done_plain", with_upvalues(lua, worker, done_plain, ())?)
    }
}

/// What `take` has found.
#[derive(Clone, Copy)]
enum Found {
    /// A job: so many values are pushed.
    Plain(c_int),
    /// A job that takes more.
    Other,
    Nothing,
    Leave,
}

/// `take(wait)` returns the number of a job, its function and its arguments if these are plain; false if there is none
/// now, nothing if there will be none for this worker.
unsafe extern "C-unwind" fn take(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor; what runs guarded
    // calls nothing that could raise.
    unsafe {
        let Some(worker) = held::<Worker>(state) else { return 0 };
        let wait = ffi::lua_toboolean(state, 1) != 0;
        let found = guarded(|| match worker.take_in_hand(wait) {
            InHand::Nothing => Found::Nothing,
            InHand::Leave => Found::Leave,
            InHand::Job => {
                let mut pushed = None;
                worker.begin_plain(|run, call| {
                    let functions = &worker.transfer().functions;
                    ffi::lua_pushinteger(state, run as _);
                    pushed =
                        plain::push(state, call, Some(Receiving { functions, globals: GLOBALS, received: RECEIVED }));
                    pushed.is_some()
                });
                pushed.map_or(Found::Other, Found::Plain)
            }
        });
        match found {
            None => panicked(state),
            Some(Found::Plain(count)) => 1 + count,
            Some(Found::Other) => {
                ffi::lua_settop(state, 1);
                call_upvalue(state, SLOW_WAY)
            }
            Some(Found::Nothing) => {
                ffi::lua_pushboolean(state, 0);
                1
            }
            Some(Found::Leave) => 0,
        }
    }
}

/// `done_plain(number of the job, ...)` hands in its results; nothing is returned, and nothing done, if they are not
/// plain, else true.
unsafe extern "C-unwind" fn done_plain(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor; what runs guarded
    // calls nothing that could raise.
    unsafe {
        let Some(worker) = held::<Worker>(state) else { return 0 };
        let run = ffi::lua_tonumber(state, 1) as u64;
        let is_done = guarded(|| match plain::encode(state, 2, None) {
            Some(results) => {
                worker.end(run, Outcome::Done(results));
                true
            }
            None => false,
        });
        let Some(is_done) = is_done else { return panicked(state) };
        if !is_done {
            return 0;
        }
        ffi::lua_pushboolean(state, 1);
        1
    }
}
