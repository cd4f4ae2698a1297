//! Lua states of our own, for workers.
//!
//! mlua can make states as well. But where memory runs out its allocator ends the process, not the job. And it leaves
//! its calls unprotected in them, which finalizers that raise would leave by a jump over its frames.

#![expect(unsafe_code, reason = "mlua's own states do not survive the two things that are named above")]

use std::ops::Deref;
use std::ptr;

use mlua::{Error, Lua, Result, ffi};

use super::NO_MEMORY;
use super::memory::{Memory, allocate};

/// A Lua state that is closed when this is dropped. Nothing that is kept of it may be used after that.
pub struct State {
    lua: Lua,
    _owned: Owned,
}

/// The state itself.
struct Owned {
    state: *mut ffi::lua_State,
    /// Null where Lua insists on an allocator of its own, as LuaJIT does without GC64.
    memory: *mut Memory,
}

impl State {
    /// A fresh state with the libraries of the stock interpreter, in which native modules can be loaded.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new() -> Result<Self> {
        let owned = Owned::new().ok_or_else(|| Error::MemoryError(NO_MEMORY.into()))?;
        // SAFETY: the state is valid, and closed after the `Lua` that refers to it is dropped. What runs in it can break
        // memory safety, by `debug`, FFI, bytecode and native modules; but that comes from the host's own Lua program,
        // which has all of these at hand already. The state is used on this thread only (`Lua` is not `Send`).
        let lua = unsafe { Lua::get_or_init_from_ptr(owned.state) }.clone();
        let state = State { lua, _owned: owned };
        // As the interpreter does: the collector waits until all is there.
        state.gc_stop();
        // SAFETY: this is what the interpreter calls, and so opens what it has, where mlua opens a list of its own (it
        // leaves out the `bit32` that Lua 5.3 may have, and makes `ffi` a global). Nothing here has a destructor if it
        // raises.
        unsafe { state.exec_raw::<()>((), |state| ffi::luaL_openlibs(state))? };
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        warnings::show(&state)?;
        state.gc_restart();
        #[cfg(feature = "aggressive_gc")]
        state.gc_set_mode(mlua::state::GcMode::Incremental(mlua::state::GcIncParams::default().pause(0)));
        Ok(state)
    }
}

impl Deref for State {
    type Target = Lua;

    fn deref(&self) -> &Lua {
        &self.lua
    }
}

impl Owned {
    fn new() -> Option<Self> {
        let memory = Box::into_raw(Box::new(Memory::new()?));
        // SAFETY: `allocate` does what Lua asks of an allocator, and its data stays until the state is closed.
        let state = unsafe {
            #[cfg(feature = "lua55")]
            let seed = ffi::luaL_makeseed(ptr::null_mut());
            #[cfg(feature = "lua55")]
            let state = ffi::lua_newstate(allocate, memory.cast(), seed);
            #[cfg(not(feature = "lua55"))]
            let state = ffi::lua_newstate(allocate, memory.cast());
            state
        };
        if !state.is_null() {
            return Some(Owned { state, memory });
        }
        // SAFETY: no state refers to the memory. The interpreter makes its states by the same call.
        let state = unsafe {
            drop(Box::from_raw(memory));
            ffi::luaL_newstate()
        };
        (!state.is_null()).then_some(Owned { state, memory: ptr::null_mut() })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the state is closed once, on its thread, outside of all calls of Lua; then nobody has the memory.
        unsafe {
            ffi::lua_close(self.state);
            if !self.memory.is_null() {
                drop(Box::from_raw(self.memory));
            }
        }
    }
}

/// `warn`, which the interpreter lets write to stderr once a program has said `warn("@on")`.
#[cfg(any(feature = "lua54", feature = "lua55"))]
mod warnings {
    use std::cell::Cell;
    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::io::{self, Write};
    use std::ptr;

    use mlua::{Lua, Result, ffi};

    thread_local! {
        /// Of the state of this thread: whether warnings are on, and whether one is begun.
        static STATE: Cell<(bool, bool)> = const { Cell::new((false, false)) };
    }

    pub fn show(lua: &Lua) -> Result<()> {
        STATE.set((false, false));
        // SAFETY: `warn` needs no data, and so works until the state is closed. mlua's own way to this does not.
        unsafe { lua.exec_raw((), |state| ffi::lua_setwarnf(state, Some(warn), ptr::null_mut())) }
    }

    unsafe extern "C-unwind" fn warn(_: *mut c_void, piece: *const c_char, continues: c_int) {
        // SAFETY: Lua passes a string.
        let piece = unsafe { CStr::from_ptr(piece) }.to_bytes();
        let ((is_on, is_begun), continues) = (STATE.get(), continues != 0);
        if let (false, false, [b'@', control @ ..]) = (is_begun, continues, piece) {
            STATE.set((if control == b"on" { true } else { is_on && control != b"off" }, false));
            return;
        }
        STATE.set((is_on, continues));
        if is_on {
            let begin: &[u8] = if is_begun { b"" } else { b"Lua warning: " };
            let end: &[u8] = if continues { b"" } else { b"\n" };
            // If nobody reads it, it is lost.
            let _ = io::stderr().write_all(&[begin, piece, end].concat());
        }
    }
}
