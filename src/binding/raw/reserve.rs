//! Memory kept ready for what must not be cut off half-way.
//!
//! When mlua gets hold of a state, an allocation that fails makes it panic, or leaves behind what it later trips over.
//! So whatever `require` needs is asked for at once, before mlua touches the state; and should an allocation fail all the
//! same, there are a few blocks to take its place. They come from the host's allocator, which sees each of them shrink
//! to what was wanted: it can free them as its own.

use std::ffi::{c_int, c_void};
use std::ptr;

use mlua::ffi;

/// More than `require` needs.
pub const ROOM_OF_MODULE: usize = 512 << 10;

/// More than the metatable of a userdata needs, and the methods that are loaded for it.
pub const ROOM_OF_METATABLE: usize = 128 << 10;

/// Large enough for what mlua allocates without protection: closures, metatables, the stack of a coroutine.
const BLOCK: usize = 16 << 10;
const BLOCKS: usize = 8;

/// The host's allocator, and blocks of its memory. It stays where it is in memory as long as Lua calls `allocate`.
struct Reserve {
    allocator: ffi::lua_Alloc,
    data: *mut c_void,
    blocks: [*mut c_void; BLOCKS],
}

impl Reserve {
    /// Takes the blocks; `None` if the host has not so much memory, in bytes, and these.
    ///
    /// # Safety
    /// The allocator and its data are those of a Lua state whose thread this is.
    unsafe fn new(allocator: ffi::lua_Alloc, data: *mut c_void, room: usize) -> Option<Box<Self>> {
        let mut reserve = Box::new(Reserve { allocator, data, blocks: [ptr::null_mut(); BLOCKS] });
        // SAFETY: as Lua itself calls an allocator: no block and no size, then the block with its size to free it.
        unsafe {
            let all = allocator(data, ptr::null_mut(), 0, room);
            if all.is_null() {
                return None;
            }
            allocator(data, all, room, 0);
            for block in &mut reserve.blocks {
                *block = allocator(data, ptr::null_mut(), 0, BLOCK);
            }
        }
        Some(reserve)
    }

    /// A block of this size, made of one in reserve; null if it does not fit or there is none.
    ///
    /// # Safety
    /// As [`Reserve::new`], while the allocator and its data are still those.
    unsafe fn take(&mut self, size: usize) -> *mut c_void {
        let Some(block) = self.blocks.iter_mut().find(|block| size <= BLOCK && !block.is_null()) else {
            return ptr::null_mut();
        };
        let block = std::mem::replace(block, ptr::null_mut());
        // SAFETY: the block is the allocator's, of this size, and shrinks: Lua relies on it that this does not fail.
        unsafe { (self.allocator)(self.data, block, BLOCK, size) }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for &block in self.blocks.iter().filter(|block| !block.is_null()) {
            // SAFETY: the block is the allocator's, of this size, and nobody has it.
            unsafe { (self.allocator)(self.data, block, BLOCK, 0) };
        }
    }
}

/// The allocator of a state while it has a reserve, which is the `data`.
unsafe extern "C" fn allocate(data: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: `data` is the reserve that `with_reserve` has given the state, and nobody else refers to it meanwhile. The
    // calls are those that Lua makes; a block that cannot grow is copied as far as it went, and then freed.
    unsafe {
        let reserve = &mut *data.cast::<Reserve>();
        let allocated = (reserve.allocator)(reserve.data, block, old, new);
        if !allocated.is_null() || new == 0 {
            return allocated;
        }
        let taken = reserve.take(new);
        if !taken.is_null() && !block.is_null() {
            ptr::copy_nonoverlapping(block.cast::<u8>(), taken.cast(), old.min(new));
            (reserve.allocator)(reserve.data, block, old, 0);
        }
        taken
    }
}

/// Gives the state its allocator back.
struct Restore(*mut ffi::lua_State, *mut Reserve);

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: the reserve is a box's, and the state does not refer to it any more when it is dropped. Where Lua jumps
        // over this drop, state and reserve stay together instead.
        unsafe {
            let reserve = Box::from_raw(self.1);
            ffi::lua_setallocf(self.0, reserve.allocator, reserve.data);
        }
    }
}

/// Calls `run`, which needs so much memory in bytes, with a reserve; `None` if there is not enough for that.
///
/// # Safety
/// The state is that of the running C function, whose thread this is.
pub unsafe fn with_reserve<T>(state: *mut ffi::lua_State, room: usize, run: impl FnOnce() -> T) -> Option<T> {
    // SAFETY: the state is valid; its allocator is taken as it is, and given back as it was.
    unsafe {
        let mut data = ptr::null_mut();
        let allocator = ffi::lua_getallocf(state, &raw mut data);
        let reserve = Box::into_raw(Reserve::new(allocator, data, room)?);
        ffi::lua_setallocf(state, allocate, reserve.cast());
        let _restore = Restore(state, reserve);
        Some(run())
    }
}

/// Frees what is garbage, so that there may be enough.
///
/// # Safety
/// Called in a C function that Lua runs; nothing in the frames up to Lua has a destructor, since finalizers may raise.
pub unsafe fn collect(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the state is valid.
    unsafe { ffi::lua_gc(state, ffi::LUA_GCCOLLECT, 0) }
}
