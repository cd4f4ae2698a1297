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

/// What `_VERSION` is in the Lua that the module was built for, and whether that is LuaJIT.
#[cfg(feature = "mlua")]
const BUILT_FOR: (&str, bool) = if cfg!(feature = "lua55") {
    ("Lua 5.5", false)
} else if cfg!(feature = "lua54") {
    ("Lua 5.4", false)
} else if cfg!(feature = "lua53") {
    ("Lua 5.3", false)
} else if cfg!(feature = "lua52") {
    ("Lua 5.2", false)
} else {
    ("Lua 5.1", cfg!(feature = "luajit"))
};

/// `require "scheduler"`.
#[cfg(feature = "mlua")]
#[mlua::lua_module]
fn scheduler(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    check_interpreter(lua)?;
    binding::open(lua)
}

/// A library built for another Lua is mostly refused by the loader, for symbols that it does not find; where it is
/// loaded, this says what is wrong.
#[cfg(feature = "mlua")]
fn check_interpreter(lua: &mlua::Lua) -> mlua::Result<()> {
    let name = |version: &str, jit: bool| if jit { format!("LuaJIT ({version})") } else { version.to_owned() };
    let globals = lua.globals();
    let version: String = globals.raw_get("_VERSION").unwrap_or_default();
    let jit = globals.contains_key("jit")?;
    if (version.as_str(), jit) == BUILT_FOR {
        return Ok(());
    }
    let (built_for, built_for_jit) = BUILT_FOR;
    Err(mlua::Error::runtime(format!(
        "this scheduler library was built for {}, but this is {}: install the one for it",
        name(built_for, built_for_jit),
        name(&version, jit)
    )))
}
