//! Natives that draw how far a map is, on stderr if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use mlua::{AnyUserData, Result, UserData};

use super::Natives;

struct Bar(ProgressBar);

impl UserData for Bar {}

impl Drop for Bar {
    fn drop(&mut self) {
        // What is on the terminal by then stays there.
        self.0.abandon();
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
    natives.add("progress_start", |lua, _, total: Option<u64>| lua.create_userdata(Bar(new_bar(total))).ok())?;
    natives.add("progress_set", |_, _, (bar, done): (AnyUserData, u64)| {
        if let Ok(bar) = bar.borrow::<Bar>() {
            bar.0.set_position(done);
        }
    })?;
    natives.add("progress_end", |_, _, bar: AnyUserData| {
        if let Ok(bar) = bar.borrow::<Bar>() {
            bar.0.abandon();
        }
    })
}
