//! Pins the library in memory.
//!
//! `lua_close` unloads native modules while threads of ours may still run their code, so the library is linked such
//! that `dlclose` leaves it mapped. Other systems keep a library with thread-local destructors mapped by themselves.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
