//! Natives that draw how far a map is, on stderr if that is a terminal.

use std::io::{Write, stderr};

use indicatif::{ProgressBar, ProgressStyle};
use mlua::{AnyUserData, Result, UserData};

use super::{Natives, userdata};

struct Bar(ProgressBar);

impl UserData for Bar {}

impl Bar {
    /// Leaves it on the terminal as it is, once; what is written next begins a line.
    fn end(&self) {
        if self.0.is_finished() {
            return;
        }
        self.0.abandon();
        if !self.0.is_hidden() {
            // Where nothing can be written, nothing is missing.
            let _ = stderr().write_all(b"\n");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

fn new_bar(total: Option<u64>) -> ProgressBar {
    const WITH_TOTAL: &str = "{wide_bar} {human_pos}/{human_len} {elapsed} (eta {eta})";
    const WITHOUT_TOTAL: &str = "{spinner} {human_pos} {elapsed} ({per_sec})";
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), WITH_TOTAL),
        None => (ProgressBar::new_spinner(), WITHOUT_TOTAL),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

pub fn add(natives: &Natives) -> Result<()> {
    natives.add_raising("progress_start", |lua, _, total: Option<u64>| userdata::create(lua, Bar(new_bar(total))))?;
    natives.add("progress_set", |_, _, (bar, done): (AnyUserData, u64)| {
        if let Ok(bar) = bar.borrow::<Bar>() {
            bar.0.set_position(done);
        }
    })?;
    natives.add("progress_end", |_, _, bar: AnyUserData| {
        if let Ok(bar) = bar.borrow::<Bar>() {
            bar.end();
        }
    })
}
