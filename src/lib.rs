#![doc = include_str!("README.md")]

#[cfg(test)]
mod architecture;
#[cfg(feature = "mlua")]
mod binding;
pub mod engine;
pub mod runtime;
#[cfg(feature = "mlua")]
mod vm;
pub mod worker;

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static HEAP: runtime::heap::Heap = runtime::heap::Heap;

#[cfg(not(any(
    test,
    feature = "lua51",
    feature = "lua52",
    feature = "lua53",
    feature = "lua54",
    feature = "lua55",
    feature = "luajit"
)))]
compile_error!("name the Lua that the module is for: --features lua51, lua52, lua53, lua54, lua55 or luajit");

// More than one feature: mlua says so as readably.
