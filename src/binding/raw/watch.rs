//! The natives of the watchdog: `watch_look`, `set_watch`, `watch_hook`; with those of `task.rs` for who looks inside.
//!
//! While there is a watchdog, a count hook looks from time to time whether what runs holds the loop for too long. That is
//! the one means that needs no other thread, which must not touch the state, and no signal, which would disturb a host on
//! its own thread. It makes code slower, but only then.
//!
//! In PUC Lua each coroutine has a hook, and a new one takes over that of the coroutine which makes it; LuaJIT has one
//! for all. A hook of the program's, a debugger say, is left alone. When there is no watchdog any more, the hooks find
//! nothing in the registry and remove themselves.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Lua, Result, Table, ffi};

use super::task::{origin_in, resumed_by};
use super::{TABLE, guarded, vm, with_table};
use crate::vm::Vm;

/// So many instructions pass between two looks.
const INSTRUCTIONS: c_int = 1000;

/// Its address is the key in the registry under which `watch_look` lies while there is a watchdog.
static LOOK: u8 = 0;

/// The functions, by their names.
const FUNCTIONS: [(&str, ffi::lua_CFunction); 5] = [
    ("watch_look", watch_look),
    ("set_watch", set_watch),
    ("watch_hook", watch_hook),
    ("origin_in", origin_in),
    ("resumed_by", resumed_by),
];

/// Adds the functions to `natives`, and the table `watcher`, in which `report(seconds)` is what a look calls.
pub fn add_functions(lua: &Lua, vm: &Rc<Vm>, natives: &Table) -> Result<()> {
    let watcher = lua.create_table()?;
    for (name, function) in FUNCTIONS {
        natives.raw_set(name, with_table(lua, vm, function, &watcher)?)?;
    }
    natives.raw_set("watcher", watcher)
}

/// `watch_look()`: calls `report` with the seconds for which what runs has held the loop, if that is too long.
unsafe extern "C-unwind" fn watch_look(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `with_table` sets them. No local of this frame has a destructor. What `report` raises
    // stays in the protected call: the code that is interrupted has nothing to do with it.
    unsafe {
        let Some(held) = vm(state).and_then(|vm| guarded(|| vm.watch.look()).flatten()) else { return 0 };
        ffi::lua_getfield(state, TABLE, c"report".as_ptr());
        ffi::lua_pushnumber(state, held.as_secs_f64());
        ffi::lua_pcall(state, 1, 0, 0);
        0
    }
}

/// `set_watch([watch_look])`: what the hooks call from now on; nothing makes them remove themselves.
unsafe extern "C-unwind" fn set_watch(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the registry is a table; setting its field may raise, and nothing here has a destructor.
    unsafe {
        ffi::lua_settop(state, 1);
        ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, (&raw const LOOK).cast());
        0
    }
}

/// `watch_hook(co)`: sets the hook on a coroutine, or the main thread, that has none. False if it has another.
unsafe extern "C-unwind" fn watch_hook(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the coroutine is an argument, so it is alive, and all coroutines of a state run on its thread.
    unsafe {
        let co = ffi::lua_tothread(state, 1);
        let is_free =
            !co.is_null() && ffi::lua_gethook(co).is_none_or(|other| other as usize == hook as *const () as usize);
        if is_free {
            ffi::lua_sethook(co, Some(hook), ffi::LUA_MASKCOUNT, INSTRUCTIONS);
        }
        ffi::lua_pushboolean(state, c_int::from(is_free));
        1
    }
}

/// The hook.
unsafe extern "C-unwind" fn hook(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: Lua calls a hook with room for 20 values. The registry holds nothing there, or what `set_watch` was given,
    // which raises only if memory runs out; nothing in this frame has a destructor then.
    unsafe {
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, (&raw const LOOK).cast());
        if ffi::lua_type(state, -1) == ffi::LUA_TFUNCTION {
            ffi::lua_call(state, 0, 0);
        } else {
            ffi::lua_settop(state, -2);
            ffi::lua_sethook(state, None, 0, 0);
        }
    }
}
