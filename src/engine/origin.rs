//! Where in the Lua program something was set or spawned, and when: in one number.

use rustc_hash::FxHashMap;

use super::clock::{NANOS_PER_MS, Nanos};

/// Where in the Lua program something was set, and when, if that was noted. Below 2^53, exact in a Lua float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin(pub u64);

/// Programs that load code under ever new names must not fill the memory with them. Beyond this, places are not known.
const MAX_PLACES: usize = 1 << PLACE_BITS;

// What an origin is made of, from the lowest bit: the place, the time at which it was noted, what was set there.
const PLACE_BITS: u32 = 17;
const TIME_BITS: u32 = 34;
const TIME: u64 = ((1 << TIME_BITS) - 1) << PLACE_BITS;
const KIND_SHIFT: u32 = PLACE_BITS + TIME_BITS;
const TASK: u64 = 1 << KIND_SHIFT;
const JOB: u64 = 2 << KIND_SHIFT;
const PROMISE: u64 = 3 << KIND_SHIFT;

/// The grain of the time in an origin: so it holds five years.
const TIME_GRAIN: Nanos = 10 * NANOS_PER_MS;

impl Origin {
    /// The origin of a task that was spawned there.
    pub fn of_task(self) -> Self {
        Origin(self.0 | TASK)
    }

    /// The origin of a job that was started there.
    pub fn of_job(self) -> Self {
        Origin(self.0 | JOB)
    }

    /// The origin of what works for a promise that was made there; that of a job stays one.
    pub fn of_promise(self) -> Self {
        Origin(if self.0 & PROMISE == TASK { self.0 | PROMISE } else { self.0 })
    }

    /// The origin of what began at that time.
    pub fn at_time(self, now: Nanos) -> Self {
        // 0 is a time that is not known.
        let time = (now / TIME_GRAIN + 1) << PLACE_BITS;
        Origin(self.0 & !TIME | time & TIME)
    }

    /// When what is there began, to a hundredth of a second, if that is known.
    pub fn time(self) -> Option<Nanos> {
        let time = (self.0 & TIME) >> PLACE_BITS;
        time.checked_sub(1).map(|time| time * TIME_GRAIN)
    }

    fn place(self) -> usize {
        (self.0 & (MAX_PLACES as u64 - 1)) as usize
    }
}

/// A line of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    chunk: u32,
    line: u32,
}

/// Lines of chunks, and the names of those, each kept once.
#[derive(Debug, Default)]
pub struct Origins {
    chunks: Vec<Box<[u8]>>,
    chunk_numbers: FxHashMap<Box<[u8]>, u32>,
    /// By their numbers less one: 0 is a place that is not known.
    places: Vec<Place>,
    place_numbers: FxHashMap<Place, u32>,
    /// The chunk and the place that were named last: mostly it is the same again.
    last_chunk: u32,
    last_place: u32,
}

impl Origins {
    /// A line of a chunk.
    pub fn at(&mut self, chunk: &[u8], line: u32) -> Origin {
        let place = self.chunk(chunk).and_then(|chunk| self.number(Place { chunk, line }));
        Origin(place.unwrap_or(0).into())
    }

    /// "chunk:line", if that is known.
    pub fn place(&self, origin: Origin) -> Option<String> {
        let Place { chunk, line } = self.places.get(origin.place().checked_sub(1)?)?;
        let name = self.chunks.get(*chunk as usize)?;
        Some(format!("{}:{line}", String::from_utf8_lossy(name)))
    }

    /// "a timer set at chunk:line", or "a task spawned at", or "a job started at"; "?" for a place that is not known.
    pub fn describe(&self, origin: Origin) -> String {
        let what = match origin.0 & PROMISE {
            TASK => "a task spawned at",
            JOB => "a job started at",
            PROMISE => "a promise made at",
            _ => "a timer set at",
        };
        format!("{what} {}", self.place(origin).as_deref().unwrap_or("?"))
    }

    fn chunk(&mut self, name: &[u8]) -> Option<u32> {
        if self.chunks.get(self.last_chunk as usize).is_some_and(|last| **last == *name) {
            return Some(self.last_chunk);
        }
        let next = self.chunks.len() as u32;
        self.last_chunk = match self.chunk_numbers.get(name) {
            Some(&number) => number,
            None if self.places.len() + 1 >= MAX_PLACES => return None,
            None => {
                self.chunks.push(name.into());
                self.chunk_numbers.insert(name.into(), next);
                next
            }
        };
        Some(self.last_chunk)
    }

    fn number(&mut self, place: Place) -> Option<u32> {
        let is_last = |last: &Place| *last == place;
        if self.last_place > 0 && self.places.get(self.last_place as usize - 1).is_some_and(is_last) {
            return Some(self.last_place);
        }
        let next = self.places.len() as u32 + 1;
        self.last_place = match self.place_numbers.get(&place) {
            Some(&number) => number,
            None if next as usize >= MAX_PLACES => return None,
            None => {
                self.places.push(place);
                self.place_numbers.insert(place, next);
                next
            }
        };
        Some(self.last_place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::NANOS_PER_SECOND;
    use super::*;

    #[test]
    fn an_origin_has_place_time_and_kind_and_is_exact_in_a_float() {
        let mut origins = Origins::default();
        let (first, second) = (origins.at(b"main.lua", 7), origins.at(b"main.lua", 8));
        assert_eq!((origins.at(b"main.lua", 7), first.time()), (first, None));
        let years = 5 * 365 * 24 * 3600 * NANOS_PER_SECOND;
        let origin = second.of_task().at_time(years);
        assert_eq!(Origin(origin.0 as f64 as u64), origin);
        assert_eq!(origin.time(), Some(years));
        assert_eq!(origins.describe(origin), "a task spawned at main.lua:8");
        assert_eq!(origins.describe(origin.of_promise()), "a promise made at main.lua:8");
        assert_eq!(origins.describe(first.of_job().of_promise()), "a job started at main.lua:7");
        assert_eq!(origins.describe(first.at_time(0)), "a timer set at main.lua:7");
        assert_eq!(origins.place(Origin::default().of_task()), None);
    }

    #[test]
    fn places_without_end_take_bounded_memory() {
        let mut origins = Origins::default();
        (0..2 * MAX_PLACES).for_each(|i| assert!(origins.at(format!("chunk {i}").as_bytes(), 1).0 < MAX_PLACES as u64));
        assert!(origins.places.len() < MAX_PLACES && origins.chunks.len() < MAX_PLACES);
        assert_eq!(
            {
                let at = origins.at(b"one more", 1);
                origins.describe(at)
            },
            "a timer set at ?"
        );
        assert_eq!(
            {
                let at = origins.at(b"chunk 3", 1);
                origins.describe(at)
            },
            "a timer set at chunk 3:1"
        );
    }
}
