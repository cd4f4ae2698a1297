//! The allocator of the library.
//!
//! What one thread allocates here another one mostly frees. The system's allocator lets both wait for each other then,
//! mimalloc does not. But mimalloc asks the system for address space alone: it is given 32 TiB where there are 16 GiB of
//! memory, and whoever writes to them is killed. So large blocks come from the system's allocator after all, which is
//! refused them; and those of zeroes are not written to.

#![expect(unsafe_code, reason = "this is what the trait for allocators is made of")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use mimalloc::MiMalloc;

/// The size from which a block is large: glibc and mimalloc get each block of that size from the system, and give it
/// back when it is freed.
const LARGE: usize = 64 << 20;

/// mimalloc for what is small, the system's allocator for what is large.
#[derive(Debug)]
pub struct Heap;

// SAFETY: both allocators keep the trait's rules, and a block is freed or resized by the one that it came from: the size
// tells which one that is.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's, as below.
        unsafe { if layout.size() < LARGE { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if layout.size() < LARGE { MiMalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { if layout.size() < LARGE { MiMalloc.dealloc(block, layout) } else { System.dealloc(block, layout) } }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; a size that the caller may ask for is one for a layout.
        unsafe {
            match (layout.size() < LARGE, size < LARGE) {
                (true, true) => MiMalloc.realloc(block, layout, size),
                (false, false) => System.realloc(block, layout, size),
                _ => {
                    let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !moved.is_null() {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).unwrap()
    }

    #[test]
    fn a_block_keeps_its_bytes_when_it_grows_and_shrinks_past_the_limit() {
        let sizes = [100, LARGE - 1, LARGE, 2 * LARGE, LARGE, LARGE - 1, 50, LARGE + 1, 64];
        // SAFETY: the block has the size that is named each time, and its first 50 bytes are written.
        unsafe {
            let mut block = Heap.alloc(layout(1000));
            let mut old = 1000;
            for position in 0..50 {
                block.add(position).write(position as u8);
            }
            for size in sizes {
                block = Heap.realloc(block, layout(old), size);
                assert!(!block.is_null());
                old = size;
                assert!((0..50).all(|position| block.add(position).read() == position as u8));
                block.add(size - 1).write(255);
                if size > 50 {
                    assert_eq!(block.add(size - 1).read(), 255);
                } else {
                    block.add(size - 1).write(49);
                }
            }
            Heap.dealloc(block, layout(old));
        }
    }

    #[test]
    fn zeroes_are_zeroes_on_both_sides_of_the_limit() {
        for size in [64, LARGE - 1, LARGE] {
            // SAFETY: the block has this size.
            unsafe {
                let block = Heap.alloc_zeroed(layout(size));
                assert!((0..size).step_by(4093).all(|position| block.add(position).read() == 0));
                Heap.dealloc(block, layout(size));
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_no_machine_has_is_refused() {
        for size in [1 << 46, isize::MAX as usize / 2] {
            // SAFETY: nothing is done with the block.
            assert!(unsafe { Heap.alloc(layout(size)) }.is_null());
        }
    }
}
