//! What the linker is told.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        // Pins the library in memory: `lua_close` unloads native modules while threads of ours may still run their code,
        // so `dlclose` must leave it mapped. macOS keeps a library with thread-local destructors mapped by itself.
        Ok("linux" | "android" | "freebsd" | "netbsd" | "openbsd" | "dragonfly") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        // Lua's functions are found in the interpreter that loads the module, which other linkers take for granted.
        Ok("macos") => {
            println!("cargo:rustc-cdylib-link-arg=-undefined");
            println!("cargo:rustc-cdylib-link-arg=dynamic_lookup");
        }
        _ => {}
    }
}
