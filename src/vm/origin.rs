//! Looking for where in the Lua program something is set.

use mlua::Lua;

use crate::engine::{Origin, Origins};

/// What the names of the module's own chunks begin with.
pub const OWN_CHUNKS: &[u8] = b"=[scheduler]";

/// How far up the stack the Lua function that made a call is looked for, past C functions such as `pcall`.
const MAX_LEVELS: usize = 6;

/// The line that runs at `level` of the stack, or nearest above it; level 0 is the native function.
pub fn capture(origins: &mut Origins, lua: &Lua, level: usize) -> Origin {
    let place = (level..level + MAX_LEVELS)
        .map_while(|level| {
            lua.inspect_stack(level, |call| (call.source().short_src.map(String::from), call.current_line()))
        })
        .find_map(|(chunk, line)| Some((chunk?, line?)));
    place.map_or_else(Origin::default, |(chunk, line)| origins.at(chunk.as_bytes(), line as u32))
}
