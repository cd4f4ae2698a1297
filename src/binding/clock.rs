//! Natives of the virtual clock, and of one that nobody can stop.

use std::time::Instant;

use mlua::Result;

use super::Natives;
use crate::engine::Delay;

pub fn add(natives: &Natives) -> Result<()> {
    let start = Instant::now();
    natives.add("stopwatch", move |_, _, ()| start.elapsed().as_secs_f64())?;
    natives.add("clock_pause", |_, vm, ()| vm.engine.borrow_mut().clock.pause())?;
    natives.add("clock_resume", |_, vm, ()| vm.engine.borrow_mut().clock.resume())?;
    natives.add("clock_set_target", |_, vm, seconds: f64| {
        let Delay::After(ahead) = Delay::from_seconds(seconds) else { return false };
        vm.engine.borrow_mut().clock.set_target(ahead)
    })?;
    natives.add("clock_step", |_, vm, ()| vm.engine.borrow_mut().step_clock())?;
    natives.add("is_due", |_, vm, ()| vm.engine.borrow().is_due() || vm.has_completions())
}
