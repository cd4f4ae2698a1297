//! Lua states of our own, for workers.

use mlua::{Lua, LuaOptions, Result, StdLib, ffi};

/// A fresh state with the libraries of the stock interpreter, in which native modules can be loaded.
#[expect(unsafe_code, reason = "mlua's safe constructor leaves out the debug library and native modules")]
pub fn new_state() -> Result<Lua> {
    // SAFETY: `unsafe_new_with` gives up one guarantee: that nothing run in the state can break memory safety, because
    // `debug`, FFI, bytecode and native modules can. The functions that a worker runs come from the host's own Lua
    // program, which has all of these at hand already. The state is owned by the `Lua` that is returned, is used on
    // the worker's thread only (`Lua` is not `Send`), and is closed by its drop there.
    let lua = unsafe { Lua::unsafe_new_with(StdLib::NONE, LuaOptions::default()) };
    // As the interpreter does: the collector waits until all is there.
    lua.gc_stop();
    // SAFETY: this is what the interpreter calls, and so opens what it has, where mlua opens a list of its own (it
    // leaves out the `bit32` that Lua 5.3 may have, and makes `ffi` a global). Nothing here has a destructor if it
    // raises.
    unsafe { lua.exec_raw::<()>((), |state| ffi::luaL_openlibs(state))? };
    lua.gc_restart();
    #[cfg(feature = "aggressive_gc")]
    lua.gc_set_mode(mlua::state::GcMode::Incremental(mlua::state::GcIncParams::default().pause(0)));
    Ok(lua)
}
