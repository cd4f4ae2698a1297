//! Where in the Lua program something was set or spawned: chunk and line, in one number.

use std::collections::HashMap;

use mlua::Lua;

use crate::engine::Origin;

/// What the names of the module's own chunks begin with.
pub const OWN_CHUNKS: &[u8] = b"=[scheduler]";

/// Programs that load code under ever new names must not fill the memory with them.
const MAX_CHUNKS: usize = 1 << 16;

/// The bits that tell the origins of tasks and jobs from those of timers.
const TASK: u64 = 1 << 50;
const JOB: u64 = 1 << 51;

impl Origin {
    /// The origin of a task that was spawned there.
    pub fn of_task(self) -> Self {
        Origin(self.0 | TASK)
    }

    /// The origin of a job that was started there.
    pub fn of_job(self) -> Self {
        Origin(self.0 | JOB)
    }
}

/// How far up the stack the Lua function that made a call is looked for, past C functions such as `pcall`.
const MAX_LEVELS: usize = 6;

/// The names of chunks, each kept once.
#[derive(Debug, Default)]
pub struct Origins {
    names: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u32>,
    /// The chunk that was named last: mostly it is the same again.
    last: u32,
}

impl Origins {
    /// The line that runs at `level` of the stack, or nearest above it; level 0 is the native function.
    pub fn capture(&mut self, lua: &Lua, level: usize) -> Origin {
        let place = (level..level + MAX_LEVELS)
            .map_while(|level| {
                lua.inspect_stack(level, |call| (call.source().short_src.map(String::from), call.current_line()))
            })
            .find_map(|(chunk, line)| Some((chunk?, line?)));
        place.map_or_else(Origin::default, |(chunk, line)| self.at(chunk.as_bytes(), line as u32))
    }

    /// A line of a chunk.
    pub fn at(&mut self, chunk: &[u8], line: u32) -> Origin {
        match self.number(chunk) {
            Some(number) => Origin(u64::from(number) << 32 | u64::from(line)),
            None => Origin::default(),
        }
    }

    /// "a timer set at chunk:line", or "a task spawned at", or "a job started at"; "?" for a place that is not known.
    pub fn describe(&self, origin: Origin) -> String {
        let what = match (origin.0 & TASK, origin.0 & JOB) {
            (0, 0) => "a timer set at",
            (_, 0) => "a task spawned at",
            _ => "a job started at",
        };
        let place = Origin(origin.0 & !(TASK | JOB));
        match self.names.get((place.0 >> 32) as usize) {
            Some(name) if place != Origin::default() => {
                format!("{what} {}:{}", String::from_utf8_lossy(name), place.0 as u32)
            }
            _ => format!("{what} ?"),
        }
    }

    fn number(&mut self, name: &[u8]) -> Option<u32> {
        if self.names.get(self.last as usize).is_some_and(|last| **last == *name) {
            return Some(self.last);
        }
        let next = self.names.len() as u32;
        self.last = match self.numbers.get(name) {
            Some(&number) => number,
            None if self.names.len() >= MAX_CHUNKS => return None,
            None => {
                self.names.push(name.into());
                self.numbers.insert(name.into(), next);
                next
            }
        };
        Some(self.last)
    }
}
