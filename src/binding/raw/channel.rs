//! The natives of channels for messages of one plain value: `channel_send`, `channel_receive`. All others take lists.

use std::ffi::{c_char, c_int};
use std::rc::Rc;
use std::slice;

use mlua::{Lua, Result, Table, ffi};

use super::{TABLE, guarded, panicked, vm, with_table};
use crate::binding::shared::channel::status;
use crate::vm::Vm;
use crate::vm::transfer::HAS_INTEGERS;
use crate::worker::shared::channel::Receiving;
use crate::worker::shared::stored::{Scalar, Stored};

/// The functions, by their names.
const FUNCTIONS: [(&str, ffi::lua_CFunction); 2] = [("channel_send", send), ("channel_receive", receive)];

/// Adds the functions to `natives`; `numbers` has the numbers of channels by their userdata.
pub fn add_functions(lua: &Lua, vm: &Rc<Vm>, natives: &Table, numbers: &Table) -> Result<()> {
    FUNCTIONS.iter().try_for_each(|(name, function)| natives.raw_set(*name, with_table(lua, vm, *function, numbers)?))
}

/// A value in Lua, or one that is about to be.
#[derive(Clone, Copy)]
enum Plain {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    String(*const u8, usize),
}

/// What `receive` comes to.
#[derive(Clone, Copy)]
enum Received {
    Nothing(i64),
    Plain(Plain),
}

/// `channel_send(channel, value)` returns a status; nothing for what is no channel.
unsafe extern "C-unwind" fn send(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor. A string stays
    // where it is while it is an argument.
    unsafe {
        let (Some(vm), Some(number)) = (vm(state), number(state)) else { return 0 };
        let status = match plain(state) {
            None => status::NOT_PLAIN,
            Some(plain) => {
                let sent = guarded(|| {
                    let scalar = match plain {
                        Plain::Boolean(boolean) => Scalar::Boolean(boolean),
                        Plain::Integer(integer) => Scalar::Integer(integer),
                        Plain::Number(number) => Scalar::Number(number.to_bits()),
                        Plain::String(bytes, len) => Scalar::String(slice::from_raw_parts(bytes, len).into()),
                    };
                    let member = vm.channels.member(number)?;
                    Some(status::of(vm.channels.send(&member, Stored::Scalar(scalar))))
                });
                match sent {
                    Some(Some(status)) => status,
                    Some(None) => return 0,
                    None => return panicked(state),
                }
            }
        };
        ffi::lua_pushinteger(state, status as _);
        1
    }
}

/// `channel_receive(channel)` returns a status, and the value of a message that is plain. One that is not can be taken
/// by `channel_received`.
unsafe extern "C-unwind" fn receive(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the upvalues are as `add_functions` sets them. No local of this frame has a destructor. A string that was
    // received is kept by the VM until it was pushed.
    unsafe {
        let (Some(vm), Some(number)) = (vm(state), number(state)) else { return 0 };
        let received = guarded(|| {
            let receiving = vm.channels.member(number)?.channel().receive(None);
            Some(match receiving {
                Receiving::Received(Stored::Scalar(scalar)) => Received::Plain(match scalar {
                    Scalar::Boolean(boolean) => Plain::Boolean(boolean),
                    Scalar::Integer(integer) => Plain::Integer(integer),
                    Scalar::Number(bits) => Plain::Number(f64::from_bits(bits)),
                    Scalar::String(bytes) => {
                        let plain = Plain::String(bytes.as_ptr(), bytes.len());
                        vm.channels.received.replace(Some(Stored::Scalar(Scalar::String(bytes))));
                        plain
                    }
                }),
                Receiving::Received(message) => {
                    vm.channels.received.replace(Some(message));
                    Received::Nothing(status::DONE_LIST)
                }
                Receiving::Closed => Received::Nothing(status::CLOSED),
                Receiving::Empty | Receiving::Listed | Receiving::Elsewhere => Received::Nothing(status::NOT_NOW),
            })
        });
        let plain = match received {
            None => return panicked(state),
            Some(None) => return 0,
            Some(Some(Received::Nothing(status))) => {
                ffi::lua_pushinteger(state, status as _);
                return 1;
            }
            Some(Some(Received::Plain(plain))) => plain,
        };
        ffi::lua_pushinteger(state, status::DONE as _);
        match plain {
            Plain::Boolean(boolean) => ffi::lua_pushboolean(state, c_int::from(boolean)),
            Plain::Integer(integer) => ffi::lua_pushinteger(state, integer as _),
            Plain::Number(number) => ffi::lua_pushnumber(state, number),
            Plain::String(bytes, len) => {
                ffi::lua_pushlstring(state, bytes.cast::<c_char>(), len);
                guarded(|| drop(vm.channels.received.take()));
            }
        }
        2
    }
}

/// The number of the channel that is the first argument.
///
/// # Safety
/// The running function has the table of the numbers as its second upvalue.
unsafe fn number(state: *mut ffi::lua_State) -> Option<u64> {
    // SAFETY: a C function has room for 20 values beside its arguments; to look up what is no key does not raise.
    unsafe {
        if ffi::lua_type(state, 1) != ffi::LUA_TUSERDATA {
            return None;
        }
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawget(state, TABLE);
        let is_channel = ffi::lua_type(state, -1) == ffi::LUA_TNUMBER;
        let number = ffi::lua_tonumber(state, -1) as u64;
        ffi::lua_settop(state, -2);
        is_channel.then_some(number)
    }
}

/// The second argument, if it is the last one and plain.
///
/// # Safety
/// Called in a C function that Lua runs. A string is borrowed from Lua, as long as it is an argument.
unsafe fn plain(state: *mut ffi::lua_State) -> Option<Plain> {
    // SAFETY: reads the arguments; `lua_tolstring` is asked for strings only, so nothing here can raise.
    unsafe {
        if ffi::lua_gettop(state) != 2 {
            return None;
        }
        match ffi::lua_type(state, 2) {
            ffi::LUA_TBOOLEAN => Some(Plain::Boolean(ffi::lua_toboolean(state, 2) != 0)),
            ffi::LUA_TNUMBER if HAS_INTEGERS && ffi::lua_isinteger(state, 2) != 0 => {
                Some(Plain::Integer(ffi::lua_tointeger(state, 2) as i64))
            }
            ffi::LUA_TNUMBER => Some(Plain::Number(ffi::lua_tonumber(state, 2))),
            ffi::LUA_TSTRING => {
                let mut len = 0;
                let bytes = ffi::lua_tolstring(state, 2, &mut len);
                Some(Plain::String(bytes.cast::<u8>(), len))
            }
            _ => None,
        }
    }
}
