//! Natives of `scheduler.channel` and `scheduler.select`.

use std::rc::{Rc, Weak};

use mlua::{AnyUserData, Error, IntoLuaMulti, Lua, Result, Table, Value};

use super::super::{Natives, userdata};
use super::stored::scalar_to_lua;
use super::{Channel, This, from_handle};
use crate::vm::Vm;
use crate::vm::channels::{Case, Done, Waited};
use crate::vm::transfer::{Transfer, decode, encode};
use crate::worker::Handle;
use crate::worker::shared::channel::Channel as Shared;
use crate::worker::shared::stored::Stored;
use crate::worker::shared::{Hold, Place};

/// In the registry: the channels that are kept, since another VM may wake the tasks that wait for them.
const PINS: &str = "scheduler.pins";

/// In the registry: the numbers of channels by their userdata.
const NUMBERS: &str = "scheduler.channel_numbers";

/// What natives return first, as `lua/channel.lua` knows it.
pub mod status {
    use crate::worker::shared::channel::Sending;

    /// It takes a wait.
    pub const NOT_NOW: i64 = 0;
    /// It is done, and a value may follow.
    pub const DONE: i64 = 1;
    /// It is done, and the list of several values follows.
    pub const DONE_LIST: i64 = 2;
    /// The channel is closed.
    pub const CLOSED: i64 = 3;
    /// Values are not plain, and have to be given as a list.
    pub const NOT_PLAIN: i64 = 4;
    /// It has failed, and the reason follows.
    pub const FAILED: i64 = 5;

    /// That of a sender.
    pub fn of(sending: Sending) -> i64 {
        match sending {
            Sending::Sent => DONE,
            Sending::Closed => CLOSED,
            Sending::Full(_) | Sending::Listed | Sending::Elsewhere => NOT_NOW,
        }
    }
}

/// A handle for a message.
pub fn to_handle(lua: &Lua, userdata: &AnyUserData) -> Option<Handle> {
    let channel = userdata.borrow::<Channel>().ok()?;
    if channel.0.is_waited_for() {
        lua.named_registry_value::<Table>(PINS).and_then(|pins| pins.raw_set(userdata, true)).ok()?;
    }
    Some(Handle::Channel(channel.0.hold()))
}

/// The userdata of a channel that has arrived.
pub fn create(lua: &Lua, hold: Hold) -> Result<AnyUserData> {
    let vm = lua.app_data_ref::<Weak<Vm>>().and_then(|vm| vm.upgrade());
    let vm = vm.ok_or_else(|| Error::runtime("the Lua state is closing"))?;
    let number = hold.channel().number();
    let userdata = userdata::create(lua, Channel(vm.channels.join(hold)))?;
    lua.named_registry_value::<Table>(NUMBERS)?.raw_set(&userdata, number)?;
    Ok(userdata)
}

/// The numbers of channels by their userdata.
pub fn numbers(lua: &Lua) -> Result<Table> {
    lua.named_registry_value(NUMBERS)
}

pub fn add(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    let lua = natives.lua;
    let pins = lua.create_table()?;
    lua.set_named_registry_value(PINS, &pins)?;
    let (numbers, weak) = (lua.create_table()?, lua.create_table()?);
    weak.raw_set("__mode", "k")?;
    numbers.set_metatable(Some(weak))?;
    lua.set_named_registry_value(NUMBERS, numbers)?;
    lua.set_app_data(Rc::downgrade(&natives.vm));
    natives.table.raw_set("channel_pins", pins)?;
    natives.add_raising("new_channel", |lua, _, capacity: f64| {
        from_handle(lua, Handle::Channel(Shared::open(capacity as usize)))
    })?;
    natives.add("channel_number", |_, _, this: This<Channel>| Some(this.left()?.0.channel().number()))?;
    natives.add("channel_length", |_, _, this: This<Channel>| Some(this.left()?.0.channel().length()))?;
    natives.add("channel_is_closed", |_, _, this: This<Channel>| Some(this.left()?.0.channel().is_closed()))?;
    natives.add("channel_has_others", |_, _, this: This<Channel>| Some(this.left()?.0.channel().has_others()))?;
    natives.add("channel_is_waited_for", |_, _, this: This<Channel>| Some(this.left()?.0.is_waited_for()))?;
    natives.add("channel_close", |_, _, this: This<Channel>| {
        this.left()?.0.channel().close();
        Some(true)
    })?;
    let anchors = lua.create_function(|lua, object: AnyUserData| anchors(lua, &object))?;
    natives.table.raw_set("channel_anchors", anchors)?;
    add_sending(natives, transfer)?;
    add_receiving(natives, transfer)?;
    add_waiting(natives, transfer)
}

/// The table in which a channel keeps the nodes of tasks that wait for it.
fn anchors(lua: &Lua, object: &AnyUserData) -> Result<Table> {
    match object.user_value::<Option<Table>>()? {
        Some(anchors) => Ok(anchors),
        None => {
            let anchors = lua.create_table()?;
            object.set_user_value(&anchors)?;
            Ok(anchors)
        }
    }
}

fn add_sending(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    let transfer = Rc::clone(transfer);
    natives.add("channel_send_list", move |lua, vm, (this, list): (This<Channel>, Table)| {
        let Some(this) = this.left() else { return (None, None) };
        match encode_list(lua, &transfer, &list) {
            Ok(message) => (Some(status::of(vm.channels.send(&this.0, message))), None),
            Err(reason) => (Some(status::FAILED), Some(reason)),
        }
    })
}

fn encode_list(lua: &Lua, transfer: &Transfer, list: &Table) -> std::result::Result<Stored, String> {
    let count = list.raw_get("n").map_err(|error| error.to_string())?;
    encode(lua, transfer, "argument", list, count).map(Stored::Message).map_err(|refused| refused.to_string())
}

fn add_receiving(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    let transfer = Rc::clone(transfer);
    natives.add_raising("channel_received", move |lua, vm, ()| match vm.channels.received.take() {
        Some(message) => values_of(lua, &transfer, &message),
        None => Ok((status::NOT_NOW, Value::Nil)),
    })
}

/// A status, and the value of a message, or the list of its values.
fn values_of(lua: &Lua, transfer: &Transfer, message: &Stored) -> Result<(i64, Value)> {
    let value = match message {
        Stored::Scalar(scalar) => scalar_to_lua(lua, scalar).map(|value| (status::DONE, value)),
        Stored::Message(message) => decode(lua, transfer, message).map(|list| (status::DONE_LIST, Value::Table(list))),
    };
    value.or_else(|error| {
        let reason = format!("the message cannot be taken: {error}");
        match lua.create_string(&reason) {
            Ok(reason) => Ok((status::FAILED, Value::String(reason))),
            Err(_) => Err(Error::runtime(reason)),
        }
    })
}

/// A status, then for one that is done, the case and what it received; for a wait, its place.
fn add_waiting(natives: &Natives, transfer: &Rc<Transfer>) -> Result<()> {
    let shared = Rc::clone(transfer);
    // Without a channel, for the cases that are kept.
    natives.add_raising("channel_wait", move |lua, vm, (is_idle, this): (bool, This<Channel>)| {
        if let Some(this) = this.left() {
            vm.channels.keep(vec![Case::Receive(Rc::clone(&this.0))]);
        }
        case_values(lua, &shared, vm.wait_for_cases(is_idle))
    })?;
    let shared = Rc::clone(transfer);
    let vm = Rc::clone(&natives.vm);
    let try_cases = natives.lua.create_function(move |lua, list: Table| {
        let waited = match cases(lua, &shared, &list) {
            Ok(cases) => vm.channels.try_cases(cases),
            Err(reason) => return (status::FAILED, reason).into_lua_multi(lua),
        };
        match waited {
            Some(waited) => case_values(lua, &shared, waited)?.into_lua_multi(lua),
            None => status::NOT_NOW.into_lua_multi(lua),
        }
    })?;
    natives.table.raw_set("channel_try_cases", try_cases)?;
    let shared = Rc::clone(transfer);
    natives.add_raising("channel_take", move |lua, vm, place: Place| match vm.channels.take(place) {
        Some((case, done)) => case_values(lua, &shared, Waited::Now(case, done)),
        None => Ok((status::NOT_NOW, 0, Value::Nil)),
    })?;
    natives.add("channel_drop_cases", |_, vm, ()| vm.channels.keep(Vec::new()))
}

/// The cases of a list of channels and messages in turn; in the place of a message is false for one that receives.
fn cases(lua: &Lua, transfer: &Transfer, list: &Table) -> std::result::Result<Vec<Case>, String> {
    let text = |error: Error| error.to_string();
    let mut cases = Vec::new();
    for index in (1..list.raw_len()).step_by(2) {
        let channel: AnyUserData = list.raw_get(index).map_err(text)?;
        let member = Rc::clone(&channel.borrow::<Channel>().map_err(text)?.0);
        cases.push(match list.raw_get(index + 1).map_err(text)? {
            Value::Table(values) => Case::Send(member, Some(encode_list(lua, transfer, &values)?)),
            _ => Case::Receive(member),
        });
    }
    Ok(cases)
}

fn case_values(lua: &Lua, transfer: &Transfer, waited: Waited) -> Result<(i64, Place, Value)> {
    let case_number = |case: usize| case as u64 + 1;
    Ok(match waited {
        Waited::Later(place) => (status::NOT_NOW, place, Value::Nil),
        Waited::Now(case, Done::Closed) => (status::CLOSED, case_number(case), Value::Nil),
        Waited::Now(case, Done::Sent) => (status::DONE, case_number(case), Value::Nil),
        Waited::Now(case, Done::Received(message)) => {
            let (status, value) = values_of(lua, transfer, &message)?;
            (status, case_number(case), value)
        }
    })
}
