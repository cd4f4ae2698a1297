//! The plain case of a message, by which most jobs go: values that are no objects, behind a function that has no
//! upvalues but its globals and itself. It needs no table on either side, neither for the values nor for objects.
//!
//! Nothing here can raise: what could, or takes more than a look, is left to a walk or a build. So any C function may
//! call this, and hold what has destructors meanwhile.

use std::ffi::c_int;
use std::sync::Arc;

use mlua::ffi;

use super::build::{has, push_scalar};
use super::walk::{START, is_env, push_bytes, string};
use super::{HAS_INTEGERS, has_globals};
use crate::vm::decode::Reader;
use crate::vm::functions::Functions;
use crate::vm::transfer::{Kind, Tag};
use crate::worker::{Bytecode, Message};

/// So many values have room on the stack of any C function, beside its arguments.
const MOST: usize = 16;

/// A function that may be among the values, as the first of them, and where the tables lie that say more of it.
#[derive(Clone, Copy)]
pub struct Sending<'a> {
    /// The functions of the VM.
    pub functions: &'a Functions,
    /// The index of [`crate::vm::transfer::Transfer::own`].
    pub own: c_int,
    /// That of [`Functions::sent`].
    pub sent: c_int,
}

/// The same on the other side.
#[derive(Clone, Copy)]
pub struct Receiving<'a> {
    /// The functions of the VM.
    pub functions: &'a Functions,
    /// The index of the globals.
    pub globals: c_int,
    /// That of [`Functions::received`].
    pub received: c_int,
}

/// The values from `first` to the top of the stack as a message, if they are plain.
///
/// # Safety
/// Called in a C function, with room for three values. The indices of `sending` are those of tables.
pub unsafe fn encode(state: *mut ffi::lua_State, first: c_int, sending: Option<Sending>) -> Option<Message> {
    const SMALL: usize = 64;
    // SAFETY: as above.
    unsafe {
        let last = ffi::lua_gettop(state);
        let count = usize::try_from(last + 1 - first).ok().filter(|count| *count <= MOST)?;
        let mut message = Message { bytes: Vec::with_capacity(SMALL), ..Message::default() };
        let bytes = &mut message.bytes;
        bytes.resize(START, 0);
        bytes.extend_from_slice(&(count as u32).to_le_bytes());
        let (mut next, mut head) = (first, None);
        if let Some(sending) = sending
            && count > 0
            && ffi::lua_type(state, first) == ffi::LUA_TFUNCTION
        {
            let bytecode = bytecode(state, first, sending)?;
            let (places, _) = places_of_globals_and_itself(state, first)?;
            message.functions.push(bytecode);
            bytes.push(Tag::Object as u8);
            bytes.extend_from_slice(&0_u32.to_le_bytes());
            head = Some(places);
            next += 1;
        }
        for index in next..=last {
            if !write_scalar(bytes, state, index) {
                return None;
            }
        }
        let length = (bytes.len() - START) as u64;
        if let Some(places) = head {
            bytes.push(Kind::Plain as u8);
            bytes.extend_from_slice(&0_u32.to_le_bytes());
            bytes.extend_from_slice(&places);
        }
        let (objects, rest) = bytes.split_at_mut(4);
        objects.copy_from_slice(&u32::from(head.is_some()).to_le_bytes());
        rest[..8].copy_from_slice(&length.to_le_bytes());
        Some(message)
    }
}

/// The bytecode of a Lua function that was sent before.
///
/// # Safety
/// As [`encode`], and the function lies at `function`.
unsafe fn bytecode(
    state: *mut ffi::lua_State,
    function: c_int,
    Sending { functions, own, sent }: Sending,
) -> Option<Arc<Bytecode>> {
    // SAFETY: as above. The ids are whole numbers.
    unsafe {
        ffi::lua_pushvalue(state, function);
        ffi::lua_rawget(state, own);
        ffi::lua_pushvalue(state, function);
        ffi::lua_rawget(state, sent);
        let is_known = ffi::lua_type(state, -1) == ffi::LUA_TNUMBER && ffi::lua_type(state, -2) == ffi::LUA_TNIL;
        let id = ffi::lua_tonumber(state, -1) as u64;
        ffi::lua_pop(state, 2);
        if is_known { functions.bytecode(id) } else { None }
    }
}

/// If a function has no upvalues but its globals and itself: which these are, 0 for one that it has not.
///
/// # Safety
/// A Lua function lies at `function`, which is no index from the top. There is room for a value.
pub unsafe fn places_of_globals_and_itself(
    state: *mut ffi::lua_State,
    function: c_int,
) -> Option<([u8; 2], Option<c_int>)> {
    // Where functions have an environment instead, an upvalue of that name is one like any other.
    const HAS_ENV: bool = !cfg!(any(feature = "lua51", feature = "luajit"));
    let (mut env, mut this) = (0, 0);
    // SAFETY: as above; `lua_getupvalue` pushes nothing if it returns null.
    unsafe {
        for index in 1..=3 {
            let name = ffi::lua_getupvalue(state, function, index);
            if name.is_null() {
                break;
            }
            let is_globals = HAS_ENV && env == 0 && is_env(state, name);
            let is_itself = !is_globals && this == 0 && ffi::lua_rawequal(state, -1, function) != 0;
            ffi::lua_pop(state, 1);
            if is_globals {
                env = index;
            } else if is_itself {
                this = index;
            } else {
                return None;
            }
        }
    }
    Some(([env as u8, this as u8], (this != 0).then_some(this)))
}

/// Writes a value that is no object; false, and nothing is written, if it is one or there is no memory for it.
///
/// # Safety
/// Called in a C function; a value lies at `index`.
#[inline]
pub unsafe fn write_scalar(out: &mut Vec<u8>, state: *mut ffi::lua_State, index: c_int) -> bool {
    // SAFETY: as above. The bytes of a string stay while it is on the stack.
    unsafe {
        if out.try_reserve(size_of::<Tag>() + size_of::<u64>()).is_err() {
            return false;
        }
        match ffi::lua_type(state, index) {
            ffi::LUA_TNUMBER => {
                if HAS_INTEGERS && ffi::lua_isinteger(state, index) != 0 {
                    let integer = ffi::lua_tointeger(state, index) as i64;
                    fixed(out, Tag::Integer, integer.to_le_bytes());
                } else {
                    fixed(out, Tag::Number, ffi::lua_tonumber(state, index).to_le_bytes());
                }
            }
            ffi::LUA_TSTRING => {
                let bytes = string(state, index);
                if out.try_reserve(size_of::<Tag>() + size_of::<u64>() + bytes.len()).is_err() {
                    return false;
                }
                out.push(Tag::String as u8);
                push_bytes(out, bytes);
            }
            ffi::LUA_TNIL => out.push(Tag::Nil as u8),
            ffi::LUA_TBOOLEAN if ffi::lua_toboolean(state, index) != 0 => out.push(Tag::True as u8),
            ffi::LUA_TBOOLEAN => out.push(Tag::False as u8),
            _ => return false,
        }
    }
    true
}

#[inline]
fn fixed(out: &mut Vec<u8>, tag: Tag, bytes: [u8; 8]) {
    let [a, b, c, d, e, f, g, h] = bytes;
    out.extend_from_slice(&[tag as u8, a, b, c, d, e, f, g, h]);
}

/// Pushes the values of a message, if they are plain and no strings, which take memory; returns how many. `None`, and
/// nothing is pushed, if they are not.
///
/// # Safety
/// Called in a C function with room for 18 values. The indices of `receiving` are those of tables.
pub unsafe fn push(state: *mut ffi::lua_State, message: &Message, receiving: Option<Receiving>) -> Option<c_int> {
    // SAFETY: as above.
    unsafe {
        let top = ffi::lua_gettop(state);
        let pushed = push_all(state, message, receiving);
        if pushed.is_none() {
            ffi::lua_settop(state, top);
        }
        pushed
    }
}

unsafe fn push_all(state: *mut ffi::lua_State, message: &Message, receiving: Option<Receiving>) -> Option<c_int> {
    let mut reader = Reader(&message.bytes);
    let (objects, length) = (reader.u32().ok()?, reader.fixed().ok()?);
    let mut values = Reader(reader.take(usize::try_from(u64::from_le_bytes(length)).ok()?).ok()?);
    let count = values.count().ok().filter(|count| *count <= MOST)?;
    // SAFETY: as above.
    unsafe {
        let mut rest = count;
        if objects > 0 {
            let is_first = objects == 1 && values.tag().ok()? == Tag::Object && values.u32().ok()? == 0;
            if !is_first || !push_function(state, &mut reader, message, receiving?)? {
                return None;
            }
            rest = count.checked_sub(1)?;
        }
        for _ in 0..rest {
            let tag = values.tag().ok()?;
            if tag == Tag::String || !push_scalar(state, tag, &mut values).ok()? {
                return None;
            }
        }
    }
    c_int::try_from(count).ok()
}

/// Pushes the function of a message: one of before. False if there is none.
unsafe fn push_function(
    state: *mut ffi::lua_State,
    head: &mut Reader,
    message: &Message,
    Receiving { functions, globals, received }: Receiving,
) -> Option<bool> {
    if head.kind().ok()? != Kind::Plain {
        return None;
    }
    let bytecode = message.functions.get(head.u32().ok()? as usize)?;
    let [env, this] = head.fixed().ok()?;
    let slot = functions.known(bytecode)?;
    // SAFETY: as above. What is in a slot is a Lua function.
    unsafe {
        ffi::lua_rawgeti(state, received, slot.into());
        let function = ffi::lua_gettop(state);
        Some(has_globals(state, globals) && has(state, env.into(), globals) && has(state, this.into(), function))
    }
}
