//! Where in the Lua program something was set: chunk and line, in one number.

use std::collections::HashMap;

use mlua::Lua;

use crate::engine::Origin;

/// Programs that load code under ever new names must not fill the memory with them.
const MAX_CHUNKS: usize = 1 << 16;

/// How far up the stack the Lua function that made a call is looked for, past C functions such as `pcall`.
const MAX_LEVELS: usize = 6;

/// The names of chunks, each kept once.
#[derive(Debug, Default)]
pub struct Origins {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32>,
    /// The chunk that was named last: mostly it is the same again.
    last: u32,
}

impl Origins {
    /// The line that runs at `level` of the stack, or nearest above it; level 0 is the native function.
    pub fn capture(&mut self, lua: &Lua, level: usize) -> Origin {
        (level..level + MAX_LEVELS)
            .map_while(|level| {
                lua.inspect_stack(level, |call| {
                    (call.current_line(), call.source().short_src.map(|name| self.number(&name)))
                })
            })
            .find_map(|place| match place {
                (Some(line), Some(chunk)) => Some(Origin(u64::from(chunk) << 32 | line as u64)),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// "chunk:line", or "?".
    pub fn describe(&self, origin: Origin) -> String {
        match self.names.get((origin.0 >> 32) as usize) {
            Some(name) if origin.0 != 0 => format!("{name}:{}", origin.0 as u32),
            _ => "?".into(),
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if self.names.get(self.last as usize).is_some_and(|last| &**last == name) {
            return self.last;
        }
        let next = self.names.len() as u32;
        self.last = match self.numbers.get(name) {
            Some(&number) => number,
            None if self.names.len() >= MAX_CHUNKS => return u32::MAX,
            None => {
                self.names.push(name.into());
                self.numbers.insert(name.into(), next);
                next
            }
        };
        self.last
    }
}
