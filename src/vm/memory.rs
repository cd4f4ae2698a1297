//! The memory that a worker's Lua state takes, and how much of it that may be.
//!
//! PUC Lua is refused what would be too much: that raises an error where it asked. LuaJIT does not survive that, and has
//! a brake instead.

#![expect(unsafe_code, reason = "an allocator of Lua's is made of pointers")]

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::cell::RefCell;
use std::ffi::c_void;
use std::{mem, ptr};

use mlua::{Error, Lua, Result, ffi};

use super::NO_MEMORY;
#[cfg(feature = "luajit")]
use super::brake::{self, Brake};

/// What Lua expects of every block.
const ALIGN: usize = 16;

/// How much is kept back for Rust, which ends the process where Lua gets an error: so that the error can be told.
const KEPT_BACK: usize = 1 << 20;

thread_local! {
    /// What is kept back on this thread.
    static RESERVE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a state has taken, and may take, in bytes. It stays where it is as long as Lua calls [`allocate`].
#[derive(Debug)]
pub struct Memory {
    used: usize,
    limit: usize,
    /// Whether it was to take more since [`has_too_much`] was asked.
    has_exceeded: bool,
    #[cfg(feature = "luajit")]
    brake: Brake,
}

impl Memory {
    /// That of a state without a limit, and a reserve for this thread; `None` if there is not enough for it.
    pub fn new() -> Option<Self> {
        RESERVE.with_borrow_mut(|reserve| reserve.try_reserve_exact(KEPT_BACK)).ok()?;
        Some(Memory {
            used: 0,
            limit: usize::MAX,
            has_exceeded: false,
            #[cfg(feature = "luajit")]
            brake: Brake::default(),
        })
    }

    /// Whether a block is refused, with which so much would be used, beyond the limit.
    #[cold]
    fn refuses(&mut self, used: usize) -> bool {
        self.has_exceeded = true;
        #[cfg(feature = "luajit")]
        return self.brake.refuses(used, self.limit);
        #[cfg(not(feature = "luajit"))]
        return used > self.limit;
    }

    /// Whether more is used than may be.
    pub fn is_too_much(&self) -> bool {
        self.used > self.limit
    }

    /// What stops a state of LuaJIT.
    #[cfg(feature = "luajit")]
    pub fn brake(&mut self) -> &mut Brake {
        &mut self.brake
    }
}

/// From now on, a worker's state may take so many bytes. Called on its main thread.
///
/// # Errors
/// If it has taken more already, or Lua has an allocator of its own.
pub fn limit_memory(lua: &Lua, bytes: usize) -> Result<()> {
    #[cfg(feature = "luajit")]
    brake::prepare(lua)?;
    let is_too_much = with_memory(lua, |memory, _main| {
        #[cfg(feature = "luajit")]
        memory.brake.belong_to(_main);
        memory.limit = bytes;
        memory.is_too_much()
    })?;
    if is_too_much && has_too_much_kept(lua)? { Err(Error::MemoryError(NO_MEMORY.into())) } else { Ok(()) }
}

/// Whether a state has taken more than it may, garbage not counted. That is freed, if it was to take more since this was
/// asked last.
pub fn has_too_much(lua: &Lua) -> Result<bool> {
    Ok(with_memory(lua, |memory, _| mem::take(&mut memory.has_exceeded))? && has_too_much_kept(lua)?)
}

/// Frees garbage; whether what is left is too much.
fn has_too_much_kept(lua: &Lua) -> Result<bool> {
    lua.gc_collect()?;
    with_memory(lua, |memory, _| {
        #[cfg(feature = "luajit")]
        if !memory.is_too_much() {
            // SAFETY: the state runs this, and has its main thread noted.
            unsafe { memory.brake.release() };
        }
        memory.is_too_much()
    })
}

/// Calls `run` with the memory of a state, and with the state.
fn with_memory<T>(lua: &Lua, run: impl FnOnce(&mut Memory, *mut ffi::lua_State) -> T) -> Result<T> {
    let mut result = None;
    // SAFETY: the state is valid, and nothing raises. Beside our allocator lies a memory, which nobody else uses while Lua
    // does not run.
    let with = |state| unsafe { result = memory_of(state).as_mut().map(|memory| run(memory, state)) };
    // SAFETY: see there.
    unsafe { lua.exec_raw::<()>((), with)? };
    result.ok_or(Error::MemoryControlNotAvailable)
}

/// Frees what is kept back, now that memory has run out.
pub fn free_reserve() {
    RESERVE.take();
}

/// The memory of a state; null if it has another allocator than [`allocate`].
///
/// # Safety
/// The state is valid.
pub unsafe fn memory_of(state: *mut ffi::lua_State) -> *mut Memory {
    let mut data = ptr::null_mut();
    // SAFETY: the state is valid.
    let allocator = unsafe { ffi::lua_getallocf(state, &raw mut data) };
    if ptr::fn_addr_eq(allocator, allocate as ffi::lua_Alloc) { data.cast() } else { ptr::null_mut() }
}

/// The allocator: that of the library, and null if there is no memory, or no more for this state.
///
/// # Safety
/// `data` is a [`Memory`] that this thread alone uses, and the rest is what Lua passes.
pub unsafe extern "C" fn allocate(data: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: `data` is valid during this call; `block` is null or of the size `old`, from here. Lua asks for no size that
    // a layout refuses without being told so.
    unsafe {
        let memory = &mut *data.cast::<Memory>();
        // Without a block, `old` tells what the new one is for.
        let old = if block.is_null() { 0 } else { old };
        let used = memory.used - old;
        if new == 0 {
            if !block.is_null() {
                dealloc(block.cast(), Layout::from_size_align_unchecked(old, ALIGN));
                memory.used = used;
            }
            return ptr::null_mut();
        }
        let Ok(layout) = Layout::from_size_align(new, ALIGN) else { return ptr::null_mut() };
        let used = used.saturating_add(new);
        if used > memory.limit && new > old && memory.refuses(used) {
            return ptr::null_mut();
        }
        let allocated = if block.is_null() {
            alloc(layout)
        } else {
            realloc(block.cast(), Layout::from_size_align_unchecked(old, ALIGN), new)
        };
        if !allocated.is_null() {
            memory.used = used;
        }
        allocated.cast()
    }
}
