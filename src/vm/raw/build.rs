//! A message to Lua values: everything but what takes Lua code to make.

use std::ffi::{CStr, c_int};
use std::sync::Arc;

use mlua::{Error, Function, LightUserData, Lua, Result, Table, ffi};

use super::{HAS_INTEGERS, has_globals, join_upvalues, push_named};
use crate::vm::NO_MEMORY;
use crate::vm::decode::{Reader, malformed};
use crate::vm::functions::Place;
use crate::vm::transfer::{Kind, Tag, Transfer};
use crate::worker::Bytecode;

/// What is on the stack of a build, at these indices, and which upvalues its entry has.
const BUILD: c_int = 1;
const OBJECTS: c_int = 2;
const VALUES: c_int = 3;
const GLOBALS: c_int = ffi::lua_upvalueindex(1);
const LOADED: c_int = ffi::lua_upvalueindex(2);
const RECEIVED: c_int = ffi::lua_upvalueindex(3);

/// The function that builds, in this VM: see [`Build::go_on`].
pub fn entry(lua: &Lua, globals: &Table, loaded: Option<&Table>, received: &Table) -> Result<Function> {
    // SAFETY: these are the upvalues that the constants above name. Only `go_on` calls it.
    unsafe { super::closure(lua, run, (globals, loaded, received)) }
}

unsafe extern "C-unwind" fn run(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: `go_on` passes a pointer to a build that outlives this call, and that nobody else uses meanwhile.
    unsafe { (*ffi::lua_touserdata(state, BUILD).cast::<Build>()).run(state) }
}

/// Objects that are cleared one by one, so that their table can be used again.
pub const MOST_CLEARED: usize = 256;

/// A message on its way to values.
#[derive(Debug)]
pub struct Build<'a> {
    transfer: &'a Transfer,
    /// Values and bodies.
    pub reader: Reader<'a>,
    /// The heads.
    pub heads: Reader<'a>,
    /// The number of objects.
    pub objects: usize,
    /// Those that are made, empty.
    pub kinds: Vec<Kind>,
    functions: &'a [Arc<Bytecode>],
    /// The number of the message.
    message: u64,
    /// The tables that have a metatable, and the number of that; none for the table of globals.
    metatables: Vec<(u32, Option<u32>)>,
    /// How many fields there can be in the message at the most: so no space is taken for what cannot come.
    space: usize,
    stop: Stop,
}

/// Why a build has stopped.
#[derive(Debug)]
enum Stop {
    /// All is made.
    Done,
    /// An object of this kind is to be made; the rest of its head is not read.
    Special(Kind),
    /// The message is no message, or a function cannot be made.
    Failed(Error),
}

/// What a build made.
pub enum Built {
    /// The list of the values.
    Values(Table),
    /// Nothing: the next object, which has this kind, is to be added by the caller.
    Special(Kind),
}

/// How far it came.
type Progress<T> = std::result::Result<T, Stop>;

fn broken() -> Stop {
    Stop::Failed(malformed())
}

impl<'a> Build<'a> {
    /// A build that has not begun.
    pub fn new(transfer: &'a Transfer, bytes: &'a [u8], functions: &'a [Arc<Bytecode>], message: u64) -> Result<Self> {
        let mut reader = Reader(bytes);
        let objects = reader.u32()? as usize;
        let length = usize::try_from(u64::from_le_bytes(reader.fixed()?)).map_err(|_| malformed())?;
        let values = reader.take(length)?;
        // Each has a head of a byte at least.
        if objects > reader.0.len() {
            return Err(malformed());
        }
        Ok(Build {
            transfer,
            reader: Reader(values),
            heads: reader,
            objects,
            kinds: Vec::with_capacity(objects),
            functions,
            message,
            metatables: Vec::new(),
            space: length,
            stop: Stop::Done,
        })
    }

    /// Goes on until all is made, or an object is to be made that is none of this one's.
    pub fn go_on(&mut self, objects: &Table) -> Result<Built> {
        let entry = &self.transfer.build;
        let values: Option<Table> = entry.call((LightUserData((&raw mut *self).cast()), objects))?;
        match (std::mem::replace(&mut self.stop, Stop::Done), values) {
            (Stop::Done, Some(values)) => Ok(Built::Values(values)),
            (Stop::Special(kind), _) => Ok(Built::Special(kind)),
            (Stop::Failed(error), _) => Err(error),
            (Stop::Done, None) => Err(malformed()),
        }
    }

    /// Returns how many results lie on top of the stack: the list of values, or nothing.
    ///
    /// # Safety
    /// Of this and the functions below: they run in [`run`].
    unsafe fn run(&mut self, state: *mut ffi::lua_State) -> c_int {
        // SAFETY: as above.
        if let Err(stop) = unsafe { self.build(state) } {
            self.stop = stop;
            return 0;
        }
        if self.objects <= MOST_CLEARED {
            for index in 1..=self.objects {
                // SAFETY: as above; the fields are there.
                unsafe {
                    ffi::lua_pushnil(state);
                    ffi::lua_rawseti(state, OBJECTS, index as ffi::lua_Integer);
                }
            }
        }
        1
    }

    unsafe fn build(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        // SAFETY: as above. An error holds nothing until this returns it, past all calls of Lua.
        unsafe {
            while self.kinds.len() < self.objects {
                self.head(state)?;
            }
            self.values(state)?;
            for number in 0..self.objects {
                match self.kinds.get(number) {
                    Some(Kind::Table) => self.table(state, number)?,
                    Some(Kind::Function) => self.function(state, number)?,
                    _ => {}
                }
            }
            self.set_metatables(state)
        }
    }

    /// Makes an object that is still empty.
    unsafe fn head(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        let kind = self.heads.kind().map_err(Stop::Failed)?;
        // SAFETY: as above. Each of the arms pushes one value.
        unsafe {
            match kind {
                Kind::Table => {
                    let list = self.take_space().ok_or_else(broken)?;
                    let fields = self.take_space().ok_or_else(broken)?;
                    ffi::lua_createtable(state, list, fields);
                }
                Kind::Function => {
                    let bytecode = self.next_bytecode().ok_or_else(broken)?;
                    load(state, bytecode)?;
                }
                Kind::Plain => {
                    let bytecode = self.next_bytecode().ok_or_else(broken)?;
                    let [env, this] = self.heads.fixed().map_err(Stop::Failed)?;
                    self.plain(state, bytecode, (env.into(), this.into()))?;
                }
                Kind::Module | Kind::CFunction if self.loaded(state, kind) => {}
                special => return Err(Stop::Special(special)),
            }
            self.kinds.push(kind);
            ffi::lua_rawseti(state, OBJECTS, self.kinds.len() as ffi::lua_Integer);
        }
        Ok(())
    }

    /// Pushes a module that is loaded here, or a C function of one; if there is none, false, and nothing is read.
    unsafe fn loaded(&mut self, state: *mut ffi::lua_State, kind: Kind) -> bool {
        let mut head = Reader(self.heads.0);
        // SAFETY: as above. Names of types end with a zero.
        unsafe {
            let top = ffi::lua_gettop(state);
            if ffi::lua_type(state, LOADED) != ffi::LUA_TTABLE {
                return false;
            }
            let is_there = if kind == Kind::CFunction {
                push_named(state, LOADED, &mut head);
                ffi::lua_type(state, -1) == ffi::LUA_TFUNCTION
            } else if let (Ok(name), Ok(kind)) = (head.bytes(), head.bytes()) {
                ffi::lua_pushlstring(state, name.as_ptr().cast(), name.len());
                ffi::lua_rawget(state, LOADED);
                CStr::from_ptr(ffi::lua_typename(state, ffi::lua_type(state, -1))).to_bytes() == kind
            } else {
                false
            };
            if !is_there {
                ffi::lua_settop(state, top);
                return false;
            }
            ffi::lua_insert(state, top + 1);
            ffi::lua_settop(state, top + 1);
        }
        self.heads = head;
        true
    }

    /// How much of a table is made at once.
    fn take_space(&mut self) -> Option<c_int> {
        let length = (self.heads.u32().ok()? as usize).min(self.space);
        self.space -= length;
        c_int::try_from(length).ok()
    }

    fn next_bytecode(&mut self) -> Option<&'a Arc<Bytecode>> {
        self.functions.get(self.heads.u32().ok()? as usize)
    }

    /// Pushes a function that has no upvalues but its globals and itself, at these indices: the one of before, if it
    /// has these still.
    unsafe fn plain(
        &mut self,
        state: *mut ffi::lua_State,
        bytecode: &Arc<Bytecode>,
        (env, this): (c_int, c_int),
    ) -> Progress<()> {
        if env + this != 0 {
            self.check_grant()?;
        }
        let functions = &self.transfer.functions;
        // SAFETY: as above. What is in a slot is a Lua function.
        unsafe {
            let function = ffi::lua_gettop(state) + 1;
            let mut place = functions.place(bytecode, self.message);
            if let Place::At(slot) = place {
                ffi::lua_rawgeti(state, RECEIVED, slot.into());
                if has_globals(state, GLOBALS) && has(state, env, GLOBALS) && has(state, this, function) {
                    return Ok(());
                }
                ffi::lua_pop(state, 1);
                functions.forget(bytecode);
                place = functions.place(bytecode, self.message);
            }
            load(state, bytecode)?;
            if !give(state, env, GLOBALS) || !give(state, this, function) {
                return Err(broken());
            }
            if let Place::New(slot) = place {
                ffi::lua_pushvalue(state, -1);
                ffi::lua_rawseti(state, RECEIVED, slot.into());
                functions.keep(bytecode, slot);
            }
        }
        Ok(())
    }

    /// Makes the list of the values.
    unsafe fn values(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        let count = self.reader.count().map_err(Stop::Failed)?;
        let length = c_int::try_from(count).map_err(|_| broken())?;
        // SAFETY: as above; the table lies at VALUES.
        unsafe {
            ffi::lua_createtable(state, length, 1);
            for index in 1..=length {
                self.value(state)?;
                ffi::lua_rawseti(state, VALUES, index.into());
            }
            ffi::lua_pushlstring(state, c"n".as_ptr(), 1);
            ffi::lua_pushinteger(state, count as ffi::lua_Integer);
            ffi::lua_rawset(state, VALUES);
        }
        Ok(())
    }

    /// Pushes the next value.
    unsafe fn value(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        let tag = self.reader.tag().map_err(Stop::Failed)?;
        // SAFETY: as above.
        unsafe { self.tagged(state, tag) }
    }

    #[inline]
    unsafe fn tagged(&mut self, state: *mut ffi::lua_State, tag: Tag) -> Progress<()> {
        // SAFETY: as above; each of the ways pushes one value.
        unsafe {
            if push_scalar(state, tag, &mut self.reader).map_err(Stop::Failed)? {
                return Ok(());
            }
            match tag {
                Tag::Object => {
                    let number = self.number()?;
                    push_object(state, number as usize);
                }
                Tag::Globals => ffi::lua_pushvalue(state, GLOBALS),
                _ => return Err(broken()),
            }
        }
        Ok(())
    }

    /// The number of an object.
    fn number(&mut self) -> Progress<u32> {
        let number = self.reader.u32().map_err(Stop::Failed)?;
        if (number as usize) < self.kinds.len() { Ok(number) } else { Err(broken()) }
    }

    /// Fills a table.
    unsafe fn table(&mut self, state: *mut ffi::lua_State, number: usize) -> Progress<()> {
        // SAFETY: as above; the object is a table, and lies below what is pushed after it.
        unsafe {
            push_object(state, number);
            match self.reader.tag().map_err(Stop::Failed)? {
                Tag::Nil => {}
                Tag::Object => {
                    let metatable = self.number()?;
                    self.metatables.push((number as u32, Some(metatable)));
                }
                Tag::Globals => self.metatables.push((number as u32, None)),
                _ => return Err(broken()),
            }
            let mut index: c_int = 0;
            loop {
                let tag = self.reader.tag().map_err(Stop::Failed)?;
                if tag == Tag::End {
                    break;
                }
                index = index.checked_add(1).ok_or_else(broken)?;
                self.tagged(state, tag)?;
                ffi::lua_rawseti(state, -2, index.into());
            }
            loop {
                let tag = self.reader.tag().map_err(Stop::Failed)?;
                if tag == Tag::End {
                    break;
                }
                self.tagged(state, tag)?;
                self.value(state)?;
                ffi::lua_rawset(state, -3);
            }
            ffi::lua_pop(state, 1);
        }
        Ok(())
    }

    /// A host may keep upvalues from its program.
    fn check_grant(&self) -> Progress<()> {
        match self.transfer.grants_setupvalue {
            true => Ok(()),
            false => Err(Stop::Failed(Error::runtime("the debug library is not there"))),
        }
    }

    /// Gives a function its upvalues.
    unsafe fn function(&mut self, state: *mut ffi::lua_State, number: usize) -> Progress<()> {
        let count = self.reader.u32().map_err(Stop::Failed)?;
        self.check_grant()?;
        // SAFETY: as above; the object is a Lua function. Setting an upvalue that is not there does nothing.
        unsafe {
            push_object(state, number);
            let function = ffi::lua_gettop(state);
            for index in 1..=c_int::try_from(count).map_err(|_| broken())? {
                let tag = self.reader.tag().map_err(Stop::Failed)?;
                if tag == Tag::Shared {
                    let owner = self.number()?;
                    let other = c_int::try_from(self.reader.u32().map_err(Stop::Failed)?).map_err(|_| broken())?;
                    push_object(state, owner as usize);
                    if !join_upvalues(state, (function, index), (function + 1, other)) {
                        return Err(broken());
                    }
                } else {
                    self.tagged(state, tag)?;
                    ffi::lua_setupvalue(state, function, index);
                }
                ffi::lua_settop(state, function);
            }
            ffi::lua_pop(state, 1);
        }
        Ok(())
    }

    /// Metatables come last: what stands in them has to be there when they are set.
    unsafe fn set_metatables(&mut self, state: *mut ffi::lua_State) -> Progress<()> {
        // SAFETY: as above; the owner is a table, and so is what becomes its metatable.
        unsafe {
            for &(owner, metatable) in &self.metatables {
                push_object(state, owner as usize);
                match metatable {
                    Some(number) => push_object(state, number as usize),
                    None => ffi::lua_pushvalue(state, GLOBALS),
                }
                if ffi::lua_type(state, -1) != ffi::LUA_TTABLE {
                    return Err(broken());
                }
                ffi::lua_setmetatable(state, -2);
                ffi::lua_pop(state, 1);
            }
        }
        Ok(())
    }
}

/// Pushes a value that is no object; false, and nothing is pushed, if it is one. Raises for strings alone, if there is no
/// memory.
///
/// # Safety
/// There is room for a value.
#[inline]
pub unsafe fn push_scalar(state: *mut ffi::lua_State, tag: Tag, reader: &mut Reader) -> Result<bool> {
    // SAFETY: as above; each of the arms pushes one value.
    unsafe {
        match tag {
            Tag::Nil => ffi::lua_pushnil(state),
            Tag::False => ffi::lua_pushboolean(state, 0),
            Tag::True => ffi::lua_pushboolean(state, 1),
            Tag::Integer => {
                let integer = i64::from_le_bytes(reader.fixed()?);
                if HAS_INTEGERS {
                    ffi::lua_pushinteger(state, integer as ffi::lua_Integer);
                } else {
                    ffi::lua_pushnumber(state, integer as f64);
                }
            }
            Tag::Number => ffi::lua_pushnumber(state, f64::from_le_bytes(reader.fixed()?)),
            Tag::String => {
                let bytes = reader.bytes()?;
                ffi::lua_pushlstring(state, bytes.as_ptr().cast(), bytes.len());
            }
            Tag::Object | Tag::Globals | Tag::End | Tag::Shared => return Ok(false),
        }
    }
    Ok(true)
}

/// Pushes an object by its number.
///
/// # Safety
/// As [`Build::run`]; there is room for a value.
unsafe fn push_object(state: *mut ffi::lua_State, number: usize) {
    // SAFETY: the table lies at OBJECTS. Where Lua takes an `int`, mlua checks it: there are fewer objects.
    unsafe { ffi::lua_rawgeti(state, OBJECTS, number as ffi::lua_Integer + 1) };
}

/// Pushes a function that is made from its bytecode.
///
/// # Safety
/// As [`Build::run`]; there is room for a value.
unsafe fn load(state: *mut ffi::lua_State, bytecode: &Bytecode) -> Progress<()> {
    let bytes = &bytecode.bytes;
    // SAFETY: bytecode is what a VM of this process has dumped. A message that Lua leaves is copied before it goes.
    unsafe {
        let result = ffi::luaL_loadbufferx(state, bytes.as_ptr().cast(), bytes.len(), c"=?".as_ptr(), c"b".as_ptr());
        if result == ffi::LUA_OK {
            return Ok(());
        }
        if result == ffi::LUA_ERRMEM {
            return Err(Stop::Failed(Error::MemoryError(NO_MEMORY.into())));
        }
        let mut length = 0;
        let message = ffi::lua_tolstring(state, -1, &raw mut length);
        let message = match message.is_null() {
            true => Error::runtime("a function cannot be made"),
            false => Error::runtime(String::from_utf8_lossy(std::slice::from_raw_parts(message.cast(), length))),
        };
        Err(Stop::Failed(message))
    }
}

/// Whether the function on top of the stack has this value as its upvalue; true if it is to have none.
///
/// # Safety
/// A Lua function is on top, and there is room for a value.
pub unsafe fn has(state: *mut ffi::lua_State, index: c_int, value: c_int) -> bool {
    // SAFETY: as above; nothing is pushed if there is no such upvalue.
    unsafe {
        if index == 0 {
            return true;
        }
        if ffi::lua_getupvalue(state, -1, index).is_null() {
            return false;
        }
        let is_equal = ffi::lua_rawequal(state, -1, value) != 0;
        ffi::lua_pop(state, 1);
        is_equal
    }
}

/// Gives the function on top of the stack an upvalue; false if there is none with this index.
///
/// # Safety
/// A Lua function is on top, a value lies at `value`, and there is room for one more.
unsafe fn give(state: *mut ffi::lua_State, index: c_int, value: c_int) -> bool {
    // SAFETY: a Lua function is on top; what is no upvalue stays on the stack.
    unsafe {
        if index == 0 {
            return true;
        }
        ffi::lua_pushvalue(state, value);
        let is_there = !ffi::lua_setupvalue(state, -2, index).is_null();
        if !is_there {
            ffi::lua_pop(state, 1);
        }
        is_there
    }
}
