//! Natives of `scheduler.shared.mutex`.

use std::sync::Arc;

use mlua::Result;

use super::super::Natives;
use super::{Mutex, This, from_handle};
use crate::worker::{Handle, shared};

pub fn add(natives: &Natives) -> Result<()> {
    natives.add_raising("new_mutex", |lua, _, ()| from_handle(lua, Handle::Mutex(Arc::new(shared::Mutex::new()))))?;
    natives.add("mutex_try_lock", |_, vm, this: This<Mutex>| {
        let mutex = &this.left()?.0;
        let place = mutex.try_lock()?;
        vm.places.take(place, Arc::clone(mutex), false);
        Some(place)
    })?;
    natives.add("mutex_lock", |_, vm, this: This<Mutex>| {
        let Some(this) = this.left() else { return (None, false) };
        let (place, is_held) = this.0.lock(vm.new_waker());
        vm.places.take(place, Arc::clone(&this.0), !is_held);
        (Some(place), is_held)
    })?;
    natives.add("mutex_is_locked", |_, _, this: This<Mutex>| Some(this.left()?.0.is_locked()))
}
