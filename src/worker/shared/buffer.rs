//! An array of numbers that many VMs may read and write at once.
//!
//! # Ground rules
//!
//! VMs may race for an element. So each is an atomic, read and written in relaxed order: a reader gets what some VM has
//! written there as a whole, and nothing is said about the order in which it sees the writes to different elements. What
//! orders them is an atomic number, a mutex, or the end of a job.

use std::collections::TryReserveError;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

use super::Counted;

/// What the elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// A whole number with a sign, of so many bits.
    Signed(u32),
    /// A whole number without a sign, of so many bits.
    Unsigned(u32),
    /// A float of 32 bits.
    F32,
    /// A float of 64 bits.
    F64,
}

/// An element, in a form that holds each of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number.
    Whole(i64),
    /// A float, or a whole number that is too big.
    Float(f64),
}

impl Element {
    const ALL: [(&'static str, Element); 10] = [
        ("i8", Element::Signed(8)),
        ("u8", Element::Unsigned(8)),
        ("i16", Element::Signed(16)),
        ("u16", Element::Unsigned(16)),
        ("i32", Element::Signed(32)),
        ("u32", Element::Unsigned(32)),
        ("i64", Element::Signed(64)),
        ("u64", Element::Unsigned(64)),
        ("f32", Element::F32),
        ("f64", Element::F64),
    ];

    /// The one with a name, such as "u8".
    pub fn named(name: &[u8]) -> Option<Element> {
        Element::ALL.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, element)| *element)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Element::ALL.iter().find(|(_, element)| *element == self).map_or("?", |(name, _)| name)
    }

    /// Its size in bytes.
    pub fn size(self) -> usize {
        match self {
            Element::Signed(bits) | Element::Unsigned(bits) => bits as usize / 8,
            Element::F32 => 4,
            Element::F64 => 8,
        }
    }

    /// The least and the greatest whole number that it holds, as far as 64 bits with a sign go; `None` for floats.
    pub fn range(self) -> Option<(i64, i64)> {
        match self {
            Element::Signed(bits) => Some((i64::MIN >> (64 - bits), i64::MAX >> (64 - bits))),
            Element::Unsigned(64) => Some((0, i64::MAX)),
            Element::Unsigned(bits) => Some((0, (1 << bits) - 1)),
            Element::F32 | Element::F64 => None,
        }
    }

    /// The bits of an element; `None` if it does not hold this number. Floats are rounded.
    pub fn bits(self, number: Number) -> Option<u64> {
        match (self.range(), number) {
            (Some((least, greatest)), Number::Whole(whole)) => {
                (least..=greatest).contains(&whole).then_some(whole as u64)
            }
            (Some(_), Number::Float(_)) => None,
            (None, Number::Whole(whole)) => Some(self.float_bits(whole as f64)),
            (None, Number::Float(float)) => Some(self.float_bits(float)),
        }
    }

    fn float_bits(self, float: f64) -> u64 {
        match self {
            Element::F32 => u64::from((float as f32).to_bits()),
            _ => float.to_bits(),
        }
    }

    /// The number with these bits.
    fn number(self, bits: u64) -> Number {
        match self {
            Element::Signed(width) => Number::Whole((bits << (64 - width)) as i64 >> (64 - width)),
            Element::Unsigned(_) => i64::try_from(bits).map_or(Number::Float(bits as f64), Number::Whole),
            Element::F32 => Number::Float(f64::from(f32::from_bits(bits as u32))),
            Element::F64 => Number::Float(f64::from_bits(bits)),
        }
    }
}

/// The elements, by their size.
#[derive(Debug)]
enum Cells {
    One(Box<[AtomicU8]>),
    Two(Box<[AtomicU16]>),
    Four(Box<[AtomicU32]>),
    Eight(Box<[AtomicU64]>),
}

/// `$body` with `$cells` as the slice of elements and `$bits` as the type of their bits.
macro_rules! with_cells {
    ($memory:expr, $cells:ident, $bits:ident => $body:expr) => {
        match &$memory.cells {
            Cells::One($cells) => {
                type $bits = u8;
                $body
            }
            Cells::Two($cells) => {
                type $bits = u16;
                $body
            }
            Cells::Four($cells) => {
                type $bits = u32;
                $body
            }
            Cells::Eight($cells) => {
                type $bits = u64;
                $body
            }
        }
    };
}

#[derive(Debug)]
struct Memory {
    cells: Cells,
    _counted: Counted,
}

/// An array, or a part of one. Positions count from 0; the caller sees to it that they lie within.
#[derive(Clone, Debug)]
pub struct Buffer {
    memory: Arc<Memory>,
    element: Element,
    start: usize,
    len: usize,
}

impl Buffer {
    /// So many zeroes; `None` if there is not enough memory.
    pub fn new(element: Element, len: usize) -> Option<Self> {
        let cells = match element.size() {
            1 => try_zeroed_slice_box(len).map(Cells::One),
            2 => try_zeroed_slice_box(len).map(Cells::Two),
            4 => try_zeroed_slice_box(len).map(Cells::Four),
            _ => try_zeroed_slice_box(len).map(Cells::Eight),
        };
        let cells = cells.ok()?;
        Some(Buffer { memory: Arc::new(Memory { cells, _counted: Counted::new() }), element, start: 0, len })
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the elements are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Where the memory lies. It stays there, and stays valid as long as there is a buffer with it.
    pub fn pointer(&self) -> *mut c_void {
        with_cells!(self.memory, cells, Bits => {
            // Behind the last element there is none whose address could be asked for.
            match cells.get(self.start) {
                Some(cell) => cell.as_ptr(),
                None => cells.as_ptr().wrapping_add(self.start).cast::<Bits>().cast_mut(),
            }
            .cast()
        })
    }

    /// What tells it from others: equal for the same part of the same memory only.
    pub fn identity(&self) -> (usize, usize, usize) {
        (Arc::as_ptr(&self.memory).addr(), self.start, self.len)
    }

    /// A part of it, with the same memory.
    pub fn slice(&self, range: Range<usize>) -> Buffer {
        let len = range.len();
        Buffer { memory: Arc::clone(&self.memory), element: self.element, start: self.start + range.start, len }
    }

    /// An element; `None` if there is none there.
    pub fn get(&self, index: usize) -> Option<Number> {
        if index >= self.len {
            return None;
        }
        let at = self.start + index;
        let bits = match &self.memory.cells {
            Cells::One(cells) => cells.get(at)?.load(Relaxed).into(),
            Cells::Two(cells) => cells.get(at)?.load(Relaxed).into(),
            Cells::Four(cells) => cells.get(at)?.load(Relaxed).into(),
            Cells::Eight(cells) => cells.get(at)?.load(Relaxed),
        };
        Some(self.element.number(bits))
    }

    /// Sets an element to the bits of [`Element::bits`]; false if there is none there.
    pub fn set(&self, index: usize, bits: u64) -> bool {
        if index >= self.len {
            return false;
        }
        let at = self.start + index;
        with_cells!(self.memory, cells, Bits => {
            cells.get(at).map(|cell| cell.store(bits as Bits, Relaxed)).is_some()
        })
    }

    /// Sets a range of elements.
    pub fn fill(&self, range: Range<usize>, bits: u64) {
        let range = self.within(range);
        with_cells!(self.memory, cells, Bits => cells[range].iter().for_each(|cell| cell.store(bits as Bits, Relaxed)));
    }

    /// Copies elements of another buffer of the same kind to a position here. The two may overlap.
    pub fn copy(&self, at: usize, source: &Buffer, range: Range<usize>) {
        let from = source.within(range);
        let to = self.within(at..at + from.len());
        macro_rules! copy {
            ($to:expr, $from:expr) => {{
                let (targets, sources) = (&$to[to], &$from[from]);
                let pairs = targets.iter().zip(sources);
                // What is still to be read must not be overwritten.
                if targets.as_ptr() > sources.as_ptr() {
                    pairs.rev().for_each(|(target, source)| target.store(source.load(Relaxed), Relaxed));
                } else {
                    pairs.for_each(|(target, source)| target.store(source.load(Relaxed), Relaxed));
                }
            }};
        }
        match (&self.memory.cells, &source.memory.cells) {
            (Cells::One(a), Cells::One(b)) => copy!(a, b),
            (Cells::Two(a), Cells::Two(b)) => copy!(a, b),
            (Cells::Four(a), Cells::Four(b)) => copy!(a, b),
            (Cells::Eight(a), Cells::Eight(b)) => copy!(a, b),
            _ => {}
        }
    }

    /// Sets the elements from a position on to those in `bytes`, as this machine orders bytes.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let size = self.element.size();
        let range = self.within(at..at + bytes.len() / size);
        with_cells!(self.memory, cells, Bits => {
            for (cell, bytes) in cells[range].iter().zip(bytes.chunks_exact(size)) {
                if let Ok(bytes) = bytes.try_into() {
                    cell.store(Bits::from_ne_bytes(bytes), Relaxed);
                }
            }
        });
    }

    /// The bytes of a range of elements, as this machine orders them; fails if there is no memory for them.
    pub fn bytes(&self, range: Range<usize>) -> Result<Vec<u8>, TryReserveError> {
        let range = self.within(range);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(range.len() * self.element.size())?;
        with_cells!(self.memory, cells, Bits => {
            cells[range].iter().for_each(|cell| bytes.extend(Bits::to_ne_bytes(cell.load(Relaxed))));
        });
        Ok(bytes)
    }

    /// A range of elements as positions in the memory.
    fn within(&self, range: Range<usize>) -> Range<usize> {
        assert!(range.start <= range.end && range.end <= self.len, "out of the buffer");
        self.start + range.start..self.start + range.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, numbers: &[i64]) -> Buffer {
        let buffer = Buffer::new(Element::named(name.as_bytes()).unwrap(), numbers.len()).unwrap();
        for (index, &number) in numbers.iter().enumerate() {
            assert!(buffer.set(index, buffer.element().bits(Number::Whole(number)).unwrap()));
        }
        buffer
    }

    fn wholes(buffer: &Buffer) -> Vec<i64> {
        let whole = |index| match buffer.get(index) {
            Some(Number::Whole(whole)) => whole,
            other => panic!("{other:?}"),
        };
        (0..buffer.len()).map(whole).collect()
    }

    #[test]
    fn each_kind_holds_its_range() {
        for (name, element) in Element::ALL {
            assert_eq!(element.name(), name);
            let Some((least, greatest)) = element.range() else { continue };
            assert_eq!(wholes(&of(name, &[least, 0, greatest])), [least, 0, greatest], "{name}");
            for outside in [greatest.checked_add(1), least.checked_sub(1)].into_iter().flatten() {
                assert_eq!(element.bits(Number::Whole(outside)), None, "{name}");
            }
        }
        assert_eq!(Element::named(b"i128"), None);
    }

    #[test]
    fn floats_are_rounded_to_their_size() {
        let buffer = Buffer::new(Element::F32, 1).unwrap();
        buffer.set(0, Element::F32.bits(Number::Float(0.1)).unwrap());
        assert_eq!(buffer.get(0), Some(Number::Float(f64::from(0.1_f32))));
    }

    #[test]
    fn what_is_bigger_than_any_whole_number_is_the_nearest_float() {
        let buffer = of("u64", &[0]);
        buffer.write(0, &u64::MAX.to_ne_bytes());
        assert_eq!(buffer.get(0), Some(Number::Float(u64::MAX as f64)));
    }

    #[test]
    fn a_part_has_the_same_memory_and_ends_where_it_ends() {
        let whole = of("i16", &[1, 2, 3, 4, 5]);
        let part = whole.slice(1..4).slice(1..3);
        assert_eq!(wholes(&part), [3, 4]);
        assert!(part.set(1, 9) && !part.set(2, 9) && part.get(2).is_none());
        part.slice(0..1).fill(0..1, 7);
        assert_eq!(wholes(&whole), [1, 2, 7, 9, 5]);
        assert_eq!(part.pointer().addr() - whole.pointer().addr(), 4);
        assert_eq!(whole.slice(5..5).pointer().addr() - whole.pointer().addr(), 10);
    }

    #[test]
    fn copies_may_overlap() {
        let forth = of("u8", &[1, 2, 3, 4, 5]);
        forth.copy(1, &forth, 0..4);
        assert_eq!(wholes(&forth), [1, 1, 2, 3, 4]);
        let back = of("u8", &[1, 2, 3, 4, 5]);
        back.copy(0, &back.slice(1..5), 0..4);
        assert_eq!(wholes(&back), [2, 3, 4, 5, 5]);
    }

    #[test]
    fn bytes_go_there_and_back() {
        let buffer = of("i32", &[1, -2, 3]);
        let bytes = buffer.bytes(1..3).unwrap();
        assert_eq!(bytes.len(), 8);
        buffer.write(0, &bytes);
        assert_eq!(wholes(&buffer), [-2, 3, 3]);
    }

    #[test]
    fn too_many_elements_are_refused() {
        assert!(Buffer::new(Element::F64, usize::MAX / 4).is_none());
    }

    #[test]
    fn readers_see_whole_elements() {
        let buffer = of("u64", &[0]);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..20_000).for_each(|n: u64| assert!(buffer.set(0, n << 32 | n))));
            for _ in 0..20_000 {
                let Some(Number::Whole(whole)) = buffer.get(0) else { panic!("no element") };
                assert_eq!(whole >> 32, whole & 0xffff_ffff);
            }
        });
    }
}
