//! Lua values to a message: everything but what takes Lua code to find out.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_char, c_int};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use mlua::{Function, LightUserData, Lua, Result, Table, ffi};

use super::plain::{places_of_globals_and_itself, write_scalar};
use super::{TYPE_CDATA, push_named, upvalue_id};
use crate::vm::NO_MEMORY;
use crate::vm::decode::Reader;
use crate::vm::functions::Functions;
use crate::vm::transfer::{Kind, Tag, Transfer};
use crate::worker::Bytecode;

/// What is on the stack of a walk, at these indices, and which upvalues its entry has.
const CALL: c_int = 1;
const VALUES: c_int = 2;
const OBJECTS: c_int = 3;
/// Where the object lies that is walked through.
const OBJECT: c_int = 4;
const OWN: c_int = ffi::lua_upvalueindex(1);
const LOADED: c_int = ffi::lua_upvalueindex(2);
const SENT: c_int = ffi::lua_upvalueindex(3);
const NAMED: c_int = ffi::lua_upvalueindex(4);

/// What a walk is called with.
struct Call<'a>(&'a mut Walk, &'a Transfer);

/// The function that walks, in this VM: see [`Walk::go_on`].
pub fn entry(lua: &Lua, own: &Table, loaded: Option<&Table>, sent: &Table, named: &Table) -> Result<Function> {
    // SAFETY: these are the upvalues that the constants above name. Only `go_on` calls it.
    unsafe { super::closure(lua, run, (own, loaded, sent, named)) }
}

unsafe extern "C-unwind" fn run(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: `go_on` passes a pointer to a call that outlives this one, and that nobody else uses meanwhile.
    unsafe {
        let Call(walk, transfer) = &mut *ffi::lua_touserdata(state, CALL).cast::<Call>();
        walk.run(state, transfer);
    }
    0
}

/// What a message begins with: the number of objects, 4 bytes, and the length of values and bodies, 8 bytes.
pub const START: usize = 12;

/// How often the loaded modules are looked through before their addresses are noted.
const FEW: usize = 4;

/// Numbers by addresses.
type Addresses<T> = HashMap<usize, T, BuildHasherDefault<AddressHasher>>;

/// Addresses differ enough as they are: one multiplication spreads them.
#[derive(Debug, Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

/// What an object was found in first.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// This one of the values.
    Value(usize),
    /// The object with this number.
    Object(u32),
}

/// Where in an object something is that cannot cross.
#[derive(Debug)]
pub enum Found {
    /// It is a key, or one of the values.
    Here,
    /// It is under a key, which was added to the objects.
    Field,
    /// It is the upvalue with this name.
    Upvalue(String),
    /// It is the metatable.
    Metatable,
    /// It is a key of the table.
    Key,
}

/// Why a walk has stopped.
#[derive(Debug, Default)]
pub enum Stop {
    /// All is written.
    #[default]
    Done,
    /// The head of the next object takes more than a look.
    Special,
    /// The next object is a function whose bytecode is not made.
    Dump,
    /// Something cannot cross, for this reason.
    Refused(Found, &'static str),
}

/// Values on their way to a message. It is used again for the next ones.
#[derive(Debug, Default)]
pub struct Walk {
    /// Values and bodies.
    pub out: Vec<u8>,
    /// The heads.
    pub heads: Vec<u8>,
    /// The code of the functions.
    pub functions: Vec<Arc<Bytecode>>,
    /// What each object was found in.
    pub owners: Vec<Owner>,
    /// The object that is next.
    pub number: u32,
    /// The objects that are sent as a loaded module.
    pub modules: HashSet<u32>,
    /// The number of each object: nothing is collected meanwhile.
    numbers: Addresses<u32>,
    /// Those that are sent by name. As an argument or in a table, a module is a table like any other.
    module_numbers: Addresses<u32>,
    /// How often it was asked whether something is a module.
    lookups: usize,
    /// The addresses of the loaded modules, once they were asked for often.
    loaded: Option<HashSet<usize, BuildHasherDefault<AddressHasher>>>,
    /// In which function, and at which index, each upvalue was sent that several may share.
    upvalues: Addresses<(u32, u32)>,
    /// The values: how many, and how many of them are written.
    count: usize,
    written: usize,
    globals: usize,
    owner: Option<Owner>,
    stop: Stop,
}

type Progress<T> = std::result::Result<T, Stop>;

impl Walk {
    /// Begins another message of so many values.
    pub fn begin(&mut self, transfer: &Transfer, count: usize) {
        self.out.clear();
        // What is not known yet, then the values.
        self.out.extend_from_slice(&[0; START]);
        self.out.extend_from_slice(&(count as u32).to_le_bytes());
        self.heads.clear();
        self.functions = Vec::new();
        self.owners.clear();
        self.number = 0;
        self.modules.clear();
        clear(&mut self.numbers);
        clear(&mut self.module_numbers);
        clear(&mut self.upvalues);
        (self.lookups, self.loaded) = (0, None);
        (self.count, self.written) = (count, 0);
        self.globals = transfer.globals.to_pointer() as usize;
    }

    /// Goes on until all is written, or until something comes that the caller has to do.
    pub fn go_on(&mut self, transfer: &Transfer, values: &Table, objects: &Table) -> Result<Stop> {
        let mut call = Call(self, transfer);
        transfer.walk.call::<()>((LightUserData((&raw mut call).cast()), values, objects))?;
        Ok(std::mem::take(&mut self.stop))
    }

    /// Whether it holds on to little memory.
    pub fn is_small(&self) -> bool {
        const SMALL: usize = 1 << 16;
        self.owners.capacity() < SMALL && self.heads.capacity() < SMALL && self.out.capacity() < SMALL
    }

    /// Where it is.
    pub fn owner(&self) -> Owner {
        self.owner.unwrap_or(Owner::Value(1))
    }

    /// # Safety
    /// Of this and the functions below: they run in [`run`].
    unsafe fn run(&mut self, state: *mut ffi::lua_State, transfer: &Transfer) {
        // SAFETY: as above.
        unsafe {
            match self.walk(state, transfer) {
                Ok(()) => self.clear_objects(state),
                Err(stop) => self.stop = stop,
            }
        }
    }

    unsafe fn clear_objects(&self, state: *mut ffi::lua_State) {
        if self.owners.len() <= super::build::MOST_CLEARED {
            for index in 1..=self.owners.len() {
                // SAFETY: as above; the fields are there.
                unsafe {
                    ffi::lua_pushnil(state);
                    ffi::lua_rawseti(state, OBJECTS, index as ffi::lua_Integer);
                }
            }
        }
    }

    unsafe fn walk(&mut self, state: *mut ffi::lua_State, transfer: &Transfer) -> Progress<()> {
        // SAFETY: as above; what a step has pushed is popped before the next one.
        unsafe {
            while self.written < self.count {
                self.written += 1;
                self.owner = Some(Owner::Value(self.written));
                ffi::lua_rawgeti(state, VALUES, self.written as ffi::lua_Integer);
                self.value(state, -1).map_err(|reason| Stop::Refused(Found::Here, reason))?;
                ffi::lua_pop(state, 1);
            }
            while (self.number as usize) < self.owners.len() {
                self.owner = Some(Owner::Object(self.number));
                ffi::lua_rawgeti(state, OBJECTS, ffi::lua_Integer::from(self.number as i32) + 1);
                self.object(state, transfer)?;
                ffi::lua_settop(state, OBJECT - 1);
                self.number += 1;
            }
        }
        Ok(())
    }

    /// Writes head and body of the object on the stack.
    unsafe fn object(&mut self, state: *mut ffi::lua_State, transfer: &Transfer) -> Progress<()> {
        // SAFETY: as above; the names of what is the module's own are strings.
        unsafe {
            if self.modules.contains(&self.number) && self.module(state) {
                return Ok(());
            }
            ffi::lua_pushvalue(state, OBJECT);
            ffi::lua_rawget(state, OWN);
            if ffi::lua_type(state, -1) == ffi::LUA_TSTRING {
                self.heads.push(Kind::Own as u8);
                push_bytes(&mut self.heads, string(state, -1));
                return Ok(());
            }
            ffi::lua_pop(state, 1);
            match ffi::lua_type(state, OBJECT) {
                ffi::LUA_TTABLE => self.table(state),
                ffi::LUA_TFUNCTION if ffi::lua_iscfunction(state, OBJECT) != 0 => self.c_function(state),
                ffi::LUA_TFUNCTION if transfer.getupvalue.is_some() => self.function(state, &transfer.functions),
                _ => Err(Stop::Special),
            }
        }
    }

    /// Writes the head of a loaded module; false if it is none any more.
    unsafe fn module(&mut self, state: *mut ffi::lua_State) -> bool {
        let mut found: Option<&[u8]> = None;
        // SAFETY: as above. The names stay where they are while nothing is written to the table of modules.
        unsafe {
            let address = ffi::lua_topointer(state, OBJECT);
            let kind = ffi::lua_typename(state, ffi::lua_type(state, OBJECT));
            ffi::lua_pushnil(state);
            while ffi::lua_next(state, LOADED) != 0 {
                if ffi::lua_topointer(state, -1) == address && ffi::lua_type(state, -2) == ffi::LUA_TSTRING {
                    let name = string(state, -2);
                    found = Some(found.map_or(name, |found| found.min(name)));
                }
                ffi::lua_pop(state, 1);
            }
            if let Some(name) = found {
                self.heads.push(Kind::Module as u8);
                push_bytes(&mut self.heads, name);
                push_bytes(&mut self.heads, CStr::from_ptr(kind).to_bytes());
            }
        }
        found.is_some()
    }

    /// Writes the head of a C function whose name was found before, and is its name still.
    unsafe fn c_function(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        // SAFETY: as above. The head stays on the stack while it is read.
        unsafe {
            ffi::lua_pushvalue(state, OBJECT);
            ffi::lua_rawget(state, NAMED);
            if ffi::lua_type(state, -1) != ffi::LUA_TSTRING || ffi::lua_type(state, LOADED) != ffi::LUA_TTABLE {
                return Err(Stop::Special);
            }
            let head = string(state, -1);
            push_named(state, LOADED, &mut Reader(head));
            if ffi::lua_rawequal(state, -1, OBJECT) == 0 {
                return Err(Stop::Special);
            }
            self.heads.push(Kind::CFunction as u8);
            self.heads.extend_from_slice(head);
        }
        Ok(())
    }

    unsafe fn table(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        let (mut list, mut fields) = (0_u32, 0_u32);
        let mut is_list = true;
        // SAFETY: as above. Nothing is written to the table while it is walked through.
        unsafe {
            if ffi::lua_getmetatable(state, OBJECT) == 0 {
                self.tag(Tag::Nil);
            } else {
                ffi::lua_pushstring(state, c"__transfer".as_ptr());
                ffi::lua_rawget(state, -2);
                if ffi::lua_type(state, -1) != ffi::LUA_TNIL {
                    return Err(Stop::Special);
                }
                ffi::lua_pop(state, 1);
                self.module_or(state).map_err(|reason| Stop::Refused(Found::Metatable, reason))?;
                ffi::lua_pop(state, 1);
            }
            ffi::lua_pushnil(state);
            while ffi::lua_next(state, OBJECT) != 0 {
                if is_list {
                    is_list = ffi::lua_type(state, -2) == ffi::LUA_TNUMBER
                        && ffi::lua_tonumber(state, -2) == f64::from(list) + 1.0;
                    if is_list {
                        list = list.wrapping_add(1);
                    } else {
                        self.tag(Tag::End);
                    }
                }
                if !is_list {
                    fields = fields.wrapping_add(1);
                    self.value(state, -2).map_err(|reason| Stop::Refused(Found::Key, reason))?;
                }
                if let Err(reason) = self.value(state, -1) {
                    ffi::lua_pop(state, 1);
                    ffi::lua_rawseti(state, OBJECTS, self.owners.len() as ffi::lua_Integer + 1);
                    return Err(Stop::Refused(Found::Field, reason));
                }
                ffi::lua_pop(state, 1);
            }
        }
        if is_list {
            self.tag(Tag::End);
        }
        self.tag(Tag::End);
        self.heads.push(Kind::Table as u8);
        self.heads.extend_from_slice(&list.to_le_bytes());
        self.heads.extend_from_slice(&fields.to_le_bytes());
        Ok(())
    }

    unsafe fn function(&mut self, state: *mut ffi::lua_State, functions: &Functions) -> Progress<()> {
        // SAFETY: as above. The ids are whole numbers.
        unsafe {
            ffi::lua_pushvalue(state, OBJECT);
            ffi::lua_rawget(state, SENT);
            let id = ffi::lua_tonumber(state, -1) as u64;
            ffi::lua_pop(state, 1);
            let Some(bytecode) = functions.bytecode(id) else { return Err(Stop::Dump) };
            let index = self.functions.len() as u32;
            self.functions.push(bytecode);
            let plain = self.plain(state);
            self.heads.push(if plain.is_some() { Kind::Plain } else { Kind::Function } as u8);
            self.heads.extend_from_slice(&index.to_le_bytes());
            match plain {
                Some(places) => self.heads.extend_from_slice(&places),
                None => self.upvalues(state)?,
            }
            Ok(())
        }
    }

    /// See [`places_of_globals_and_itself`].
    unsafe fn plain(&mut self, state: *mut ffi::lua_State) -> Option<[u8; 2]> {
        // SAFETY: as above.
        unsafe {
            let (places, this) = places_of_globals_and_itself(state, OBJECT)?;
            // Others may have the same upvalue, as the rest of several that call each other.
            if let Some(this) = this {
                let id = upvalue_id(state, OBJECT, this) as usize;
                if id != 0 {
                    if self.upvalues.contains_key(&id) {
                        return None;
                    }
                    self.upvalues.insert(id, (self.number, this as u32));
                }
            }
            Some(places)
        }
    }

    unsafe fn upvalues(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        let count_at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        let mut count = 0_u32;
        // SAFETY: as above. The name of an upvalue is a string of its function.
        unsafe {
            loop {
                let index = count as c_int + 1;
                let name = ffi::lua_getupvalue(state, OBJECT, index);
                if name.is_null() {
                    break;
                }
                count += 1;
                self.upvalue(state, index, name)?;
                ffi::lua_pop(state, 1);
            }
        }
        if let Some(place) = self.out.get_mut(count_at..count_at + 4) {
            place.copy_from_slice(&count.to_le_bytes());
        }
        Ok(())
    }

    unsafe fn upvalue(&mut self, state: *mut ffi::lua_State, index: c_int, name: *const c_char) -> Progress<()> {
        // SAFETY: as above; the upvalue is on top of the stack.
        unsafe {
            // A program may run in an environment of its own; in the worker, globals are the worker's.
            if is_env(state, name) {
                self.tag(Tag::Globals);
                return Ok(());
            }
            let id = upvalue_id(state, OBJECT, index) as usize;
            if id != 0 {
                if let Some(&(owner, other)) = self.upvalues.get(&id) {
                    self.tag(Tag::Shared);
                    self.out.extend_from_slice(&owner.to_le_bytes());
                    self.out.extend_from_slice(&other.to_le_bytes());
                    return Ok(());
                }
                self.upvalues.insert(id, (self.number, index as u32));
            }
            self.module_or(state).map_err(|reason| {
                Stop::Refused(Found::Upvalue(CStr::from_ptr(name).to_string_lossy().into_owned()), reason)
            })
        }
    }

    /// Writes the upvalue or metatable on top of the stack; one that is a loaded module by its name.
    unsafe fn module_or(&mut self, state: *mut ffi::lua_State) -> std::result::Result<(), &'static str> {
        // SAFETY: as above.
        unsafe {
            let address = ffi::lua_topointer(state, -1) as usize;
            if !is_object(ffi::lua_type(state, -1)) || address == self.globals || !self.is_loaded(state, address) {
                return self.value(state, -1);
            }
            let number = match self.module_numbers.get(&address) {
                Some(&number) => number,
                None => {
                    let number = self.number_object(state, -1)?;
                    self.modules.insert(number);
                    self.module_numbers.insert(address, number);
                    number
                }
            };
            self.tag(Tag::Object);
            self.out.extend_from_slice(&number.to_le_bytes());
            Ok(())
        }
    }

    /// Whether `require` gives what has this address.
    unsafe fn is_loaded(&mut self, state: *mut ffi::lua_State, address: usize) -> bool {
        // SAFETY: as above. Nothing is written to the table while it is walked through.
        unsafe {
            if ffi::lua_type(state, LOADED) != ffi::LUA_TTABLE {
                return false;
            }
            self.lookups += 1;
            if self.lookups > FEW {
                return self.has_loaded(state, address);
            }
            ffi::lua_pushnil(state);
            while ffi::lua_next(state, LOADED) != 0 {
                if ffi::lua_topointer(state, -1) as usize == address && ffi::lua_type(state, -2) == ffi::LUA_TSTRING {
                    ffi::lua_pop(state, 2);
                    return true;
                }
                ffi::lua_pop(state, 1);
            }
        }
        false
    }

    /// The same, for those who ask often.
    unsafe fn has_loaded(&mut self, state: *mut ffi::lua_State, address: usize) -> bool {
        if let Some(loaded) = &self.loaded {
            return loaded.contains(&address);
        }
        let loaded = self.loaded.insert(HashSet::default());
        // SAFETY: as above.
        unsafe {
            ffi::lua_pushnil(state);
            while ffi::lua_next(state, LOADED) != 0 {
                if ffi::lua_type(state, -2) == ffi::LUA_TSTRING && is_object(ffi::lua_type(state, -1)) {
                    loaded.insert(ffi::lua_topointer(state, -1) as usize);
                }
                ffi::lua_pop(state, 1);
            }
        }
        loaded.contains(&address)
    }

    /// Writes a value.
    #[inline]
    unsafe fn value(&mut self, state: *mut ffi::lua_State, index: c_int) -> std::result::Result<(), &'static str> {
        // SAFETY: as above.
        unsafe {
            if write_scalar(&mut self.out, state, index) {
                return Ok(());
            }
            match ffi::lua_type(state, index) {
                kind if is_object(kind) => self.reference(state, index),
                ffi::LUA_TLIGHTUSERDATA => Err("light userdata"),
                ffi::LUA_TTHREAD => Err("thread"),
                TYPE_CDATA => Err("cdata"),
                _ => Err(NO_MEMORY),
            }
        }
    }

    /// Writes the number of an object, which it gets if it has none.
    unsafe fn reference(&mut self, state: *mut ffi::lua_State, index: c_int) -> std::result::Result<(), &'static str> {
        // SAFETY: as above.
        unsafe {
            let address = ffi::lua_topointer(state, index) as usize;
            if address == self.globals {
                self.tag(Tag::Globals);
                return Ok(());
            }
            let number = match self.numbers.get(&address) {
                Some(&number) => number,
                None => {
                    let number = self.number_object(state, index)?;
                    self.numbers.insert(address, number);
                    number
                }
            };
            self.tag(Tag::Object);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }

    /// Adds an object, whose head and body follow when it is its turn.
    unsafe fn number_object(
        &mut self,
        state: *mut ffi::lua_State,
        index: c_int,
    ) -> std::result::Result<u32, &'static str> {
        // Where Lua takes an `int`, there is an end to the indices.
        let next = i32::try_from(self.owners.len() + 2).map_err(|_| "too many objects")?;
        // SAFETY: as above.
        unsafe {
            ffi::lua_pushvalue(state, index);
            ffi::lua_rawseti(state, OBJECTS, ffi::lua_Integer::from(next) - 1);
        }
        self.owners.push(self.owner());
        Ok(next as u32 - 2)
    }

    #[inline]
    fn tag(&mut self, tag: Tag) {
        self.out.push(tag as u8);
    }
}

/// Makes a map empty, and small if it was large.
fn clear<T>(map: &mut Addresses<T>) {
    match map.capacity() > super::build::MOST_CLEARED {
        true => *map = Addresses::default(),
        false => map.clear(),
    }
}

fn is_object(kind: c_int) -> bool {
    matches!(kind, ffi::LUA_TTABLE | ffi::LUA_TFUNCTION | ffi::LUA_TUSERDATA)
}

/// Whether the upvalue on top of the stack is where a function finds its globals.
///
/// # Safety
/// `name` ends with a zero.
pub unsafe fn is_env(state: *mut ffi::lua_State, name: *const c_char) -> bool {
    // SAFETY: as above.
    unsafe { CStr::from_ptr(name) == c"_ENV" && ffi::lua_type(state, -1) == ffi::LUA_TTABLE }
}

/// The string at `index`.
///
/// # Safety
/// A string lies there, and stays as long as this is used.
pub unsafe fn string<'a>(state: *mut ffi::lua_State, index: c_int) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: as above. `lua_tolstring` gives a string as it is.
    unsafe { std::slice::from_raw_parts(ffi::lua_tolstring(state, index, &raw mut length).cast(), length) }
}

/// Writes bytes after their length.
pub fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}
