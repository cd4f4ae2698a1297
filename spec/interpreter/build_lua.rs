//! Builds a Lua library from its sources, and copies the headers beside it:
//!
//!     build-lua lua5.5 FOLDER
//!
//! Known are lua5.3, lua5.4, lua5.5 and luajit, each in the newest release that the crates with the sources have. As in
//! a build script, TARGET, HOST and OPT_LEVEL in the environment say for what it is built, and how.

use std::env;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(name), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: build-lua lua5.3|lua5.4|lua5.5|luajit FOLDER".into());
    };
    let folder = PathBuf::from(folder);
    let version = match name.as_str() {
        "luajit" => {
            luajit_src::Build::new().out_dir(&folder).build();
            return Ok(());
        }
        "lua5.3" => lua_src::Lua53,
        "lua5.4" => lua_src::Lua54,
        "lua5.5" => lua_src::Lua55,
        other => return Err(format!("{other} is not known").into()),
    };
    lua_src::Build::new().out_dir(&folder).build(version);
    Ok(())
}
