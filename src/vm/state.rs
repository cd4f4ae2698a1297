//! Lua states of our own, for workers.

use mlua::Lua;

/// A fresh state with all standard libraries, in which native modules can be loaded, as in the stock interpreter.
#[expect(unsafe_code, reason = "mlua's safe constructor leaves out the debug library and native modules")]
pub fn new_state() -> Lua {
    // SAFETY: `unsafe_new` gives up one guarantee: that nothing run in the state can break memory safety, because
    // `debug`, FFI, bytecode and native modules can. The functions that a worker runs come from the host's own Lua
    // program, which has all of these at hand already. The state is owned by the `Lua` that is returned, is used on
    // the worker's thread only (`Lua` is not `Send`), and is closed by its drop there.
    unsafe { Lua::unsafe_new() }
}
