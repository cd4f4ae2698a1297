//! The brake of a state of LuaJIT that has passed its memory limit.
//!
//! LuaJIT does not survive it everywhere when it is refused memory. An error in the midst of an instruction, or while code
//! is being compiled, can leave its stack in disorder ([#906](https://github.com/LuaJIT/LuaJIT/issues/906),
//! [#1166](https://github.com/LuaJIT/LuaJIT/issues/1166), [#1502](https://github.com/LuaJIT/LuaJIT/issues/1502)). So such
//! a state is given more, and a hook is set, which raises the error between two instructions. Only what goes far beyond the
//! limit is refused. Until 2023 no compiled code survived that; those versions interpret what has a limit.

#![expect(unsafe_code, reason = "the allocator sets a hook, which calls the plain C API")]

use std::ffi::c_int;
use std::ptr;

use mlua::{Function, Lua, Result, Table, ffi};

use super::NO_MEMORY;
use super::interrupt::is_own;
use super::memory::memory_of;

/// How many times its limit, and how much beyond that, a state may take until it is refused more. What a table or
/// string takes that grows to twice its size is less: what grows step by step is not refused, but stopped.
const FACTOR: usize = 8;
const LEEWAY: usize = 16 << 20;

/// The pace at which a step of the collector is a whole round.
const AT_ONCE: c_int = 0;

/// The addresses of these are keys of the registry: of the error, and of [`collect`].
static ERROR: u8 = 0;
static COLLECT: u8 = 0;

/// Where the hook is set, and what was set before it: a hook, and the collector's pace.
#[derive(Debug)]
pub struct Brake {
    main: *mut ffi::lua_State,
    hook: (Option<ffi::lua_Hook>, c_int, c_int),
    pace: c_int,
}

impl Default for Brake {
    fn default() -> Self {
        Brake { main: ptr::null_mut(), hook: (None, 0, 0), pace: 0 }
    }
}

impl Brake {
    /// Notes the main thread of its state.
    pub fn belong_to(&mut self, main: *mut ffi::lua_State) {
        self.main = main;
    }

    /// Whether a block is refused with which so much would be used, beyond the limit. Stops what asks for it.
    pub fn refuses(&mut self, used: usize, limit: usize) -> bool {
        // SAFETY: the allocator calls this, in a state that has a limit and whose main thread is noted.
        unsafe { self.pull() };
        used > limit.saturating_mul(FACTOR).saturating_add(LEEWAY)
    }

    /// Sets the hook, unless it is set, and sets off the collector. Compiled code meets no hook, but gives way to the
    /// interpreter when the collector has marked all there is, which it does at once now.
    ///
    /// # Safety
    /// Called by the allocator, in a state whose main thread is noted.
    unsafe fn pull(&mut self) {
        // SAFETY: the main thread lives as long as its state. These functions neither allocate nor raise: they set
        // fields and the dispatch table, which LuaJIT lets a signal handler do at any moment.
        unsafe {
            if !is_set(self.main) {
                let hook = ffi::lua_gethook(self.main);
                self.hook = (hook, ffi::lua_gethookmask(self.main), ffi::lua_gethookcount(self.main));
                ffi::lua_sethook(self.main, Some(stop), ffi::LUA_MASKCOUNT, 1);
            }
            let pace = ffi::lua_gc(self.main, ffi::LUA_GCSETSTEPMUL, AT_ONCE);
            if pace != AT_ONCE {
                self.pace = pace;
            }
            ffi::lua_gc(self.main, ffi::LUA_GCRESTART, 0);
        }
    }

    /// Puts back what was there, if the hook is set.
    ///
    /// # Safety
    /// The state whose main thread is noted is open, and this is its thread.
    pub unsafe fn release(&mut self) {
        let (hook, mask, count) = self.hook;
        // SAFETY: the hook is the one that was set there. Neither function allocates or raises.
        unsafe {
            if is_set(self.main) {
                ffi::lua_sethook(self.main, hook, mask, count);
                ffi::lua_gc(self.main, ffi::LUA_GCSETSTEPMUL, self.pace);
            }
        }
    }
}

/// Frees garbage.
unsafe extern "C-unwind" fn collect(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls this with a valid state.
    unsafe { ffi::lua_gc(state, ffi::LUA_GCCOLLECT, 0) };
    0
}

/// Whether a state has our hook.
///
/// # Safety
/// The state is open.
unsafe fn is_set(state: *mut ffi::lua_State) -> bool {
    // SAFETY: the state is open.
    unsafe { ffi::lua_gethook(state) }.is_some_and(|hook| ptr::fn_addr_eq(hook, stop as ffi::lua_Hook))
}

/// Makes what there is no memory for later, and turns the compiler off if it must be.
pub fn prepare(lua: &Lua) -> Result<()> {
    // SAFETY: the string lies at the top. Nothing in it has a destructor if Lua raises.
    let keep = |state| unsafe {
        ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, (&raw const ERROR).cast());
        ffi::lua_pushcclosure(state, collect, 0);
        ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, (&raw const COLLECT).cast());
    };
    // SAFETY: see there.
    unsafe { lua.exec_raw::<()>(NO_MEMORY, keep)? };
    let jit: Table = lua.globals().raw_get("jit")?;
    if survives_refusals(&jit.raw_get::<String>("version")?) {
        return Ok(());
    }
    jit.raw_get::<Function>("off")?.call(())
}

/// Whether compiled code does. Since August 2023 the last number of a version is the time of its last change.
fn survives_refusals(version: &str) -> bool {
    let last = version.strip_prefix("LuaJIT 2.1.").unwrap_or("");
    last == "ROLLING" || last.parse().is_ok_and(|time: u64| time > 1_690_000_000)
}

/// Raises the error if garbage was not all that was too much, but not in one of the module's own functions, whose
/// tables could be left half changed: it comes back there at each instruction until other code runs.
unsafe extern "C-unwind" fn stop(state: *mut ffi::lua_State, activation: *mut ffi::lua_Debug) {
    // SAFETY: Lua calls a hook with room for 20 values, and with the record of the function that runs. The memory is
    // looked at between calls of Lua. The registry holds what `prepare` has put there. Nothing in this frame has a
    // destructor when Lua raises.
    unsafe {
        let memory = memory_of(state);
        if memory.is_null() || is_own(state, activation) {
            return;
        }
        (*memory).brake().release();
        // A finalizer that raises does not take the place of the error.
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, (&raw const COLLECT).cast());
        if ffi::lua_pcall(state, 0, 0, 0) != 0 {
            ffi::lua_pop(state, 1);
        }
        if (*memory).is_too_much() {
            ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, (&raw const ERROR).cast());
            ffi::lua_error(state);
        }
    }
}
