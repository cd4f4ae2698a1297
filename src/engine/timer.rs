//! Timers and immediates: what was set, until it has fired or was cleared.

use std::collections::VecDeque;

use super::clock::{NANOS_PER_MS, NANOS_PER_SECOND, Nanos};
use super::origin::Origin;
use super::slots::{Id, Slot, Slots};
use super::timer_queue::{Entry, LATEST, TimerQueue};

/// How long after it was set a timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// After that much time.
    After(Nanos),
    /// Only `clear` ends it; it does not keep the loop.
    Never,
    /// In the immediates of the turn: the caller queues it.
    Immediate,
}

impl Delay {
    /// The delay for a number of milliseconds: rounded up to whole nanoseconds, so that nothing fires early; negative
    /// is 0, too large the largest, infinite never. NaN is for the caller to refuse.
    pub fn from_ms(ms: f64) -> Self {
        Self::from_units(ms, NANOS_PER_MS)
    }

    /// The delay for a number of seconds, likewise.
    pub fn from_seconds(seconds: f64) -> Self {
        Self::from_units(seconds, NANOS_PER_SECOND)
    }

    fn from_units(number: f64, unit: Nanos) -> Self {
        match number == f64::INFINITY {
            true => Delay::Never,
            // The cast saturates on both sides.
            false => Delay::After((number * unit as f64).ceil() as Nanos),
        }
    }
}

/// What an interval does about ticks that it could not fire in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Fires once for all of them and goes on with the schedule.
    Skip,
    /// Fires once for each.
    Burst,
    /// Fires once; the schedule starts anew from there.
    Delay,
}

/// How often a timer fires, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It fires once.
    Once,
    /// It fires once, and wakes a coroutine.
    Wake,
    /// It fires until it is cleared.
    Interval(Missed),
}

/// Kept small: a program may have millions.
#[derive(Debug)]
struct Timer {
    deadline: Nanos,
    /// For those that have a deadline.
    delay: Nanos,
    origin: Origin,
    kind: Kind,
    repeat: Repeat,
    /// Whether it keeps `run` from returning.
    referenced: bool,
    /// Whether its entry is in the timer queue; it leaves it at the start of the pass that fires it.
    queued: bool,
}

/// A [`Delay`] without its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Timed,
    Never,
    Immediate,
}

impl Timer {
    fn keeps_the_loop(&self) -> bool {
        self.referenced && self.kind != Kind::Never
    }
}

/// A timer that fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Where its callback is kept.
    pub slot: Slot,
    /// Its id.
    pub id: Id,
    /// Whether it stays set, as an interval does.
    pub again: bool,
    /// Whether it wakes a coroutine, rather than that a callback is called.
    pub wakes: bool,
    /// Where it was set.
    pub origin: Origin,
}

/// A timer that was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// Where its callback is kept.
    pub slot: Slot,
    /// Whether it was an interval.
    pub is_interval: bool,
}

/// All timers of a VM.
#[derive(Debug, Default)]
pub struct Timers {
    slots: Slots<Timer>,
    queue: TimerQueue,
    /// How many timers have their entry in the queue; what the queue holds beyond that is stale.
    queued: usize,
    /// How many keep the loop.
    referenced: usize,
}

impl Timers {
    /// The number of timers and immediates that are set.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slot that a timer is kept in, if it is set.
    pub fn slot(&self, id: Id) -> Option<Slot> {
        self.slots.slot(id)
    }

    /// When a timer is due, if it is set; `None` within for what no time makes due.
    pub fn deadline(&self, id: Id) -> Option<Option<Nanos>> {
        self.slots.get(id).map(|timer| (timer.kind == Kind::Timed).then_some(timer.deadline))
    }

    /// The slot that the next timer is kept in.
    pub fn next_slot(&self) -> Slot {
        self.slots.next_slot()
    }

    /// Whether one of them keeps the loop.
    pub fn keep_the_loop(&self) -> bool {
        self.referenced > 0
    }

    /// The earliest deadline. That of a timer which was cleared may be among them: the loop then wakes for nothing, once.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.queue.next_deadline().filter(|_| self.queued > 0)
    }

    /// Sets a timer at `now`.
    pub fn set(&mut self, now: Nanos, delay: Delay, repeat: Repeat, origin: Origin) -> (Id, Slot) {
        let (kind, delay) = match delay {
            Delay::After(delay) => (Kind::Timed, delay),
            Delay::Never => (Kind::Never, 0),
            Delay::Immediate => (Kind::Immediate, 0),
        };
        let queued = kind == Kind::Timed;
        let timer = Timer { deadline: later(now, delay), delay, origin, kind, repeat, referenced: true, queued };
        let deadline = timer.deadline;
        self.referenced += usize::from(timer.keeps_the_loop());
        let (id, slot) = self.slots.insert(timer);
        if queued {
            self.queued += 1;
            self.queue.push(Entry { deadline, id, slot });
        }
        (id, slot)
    }

    /// Clears a timer; what is not set any more is nothing to it.
    pub fn clear(&mut self, id: Id) -> Option<Cleared> {
        let (slot, timer) = self.slots.remove(id)?;
        self.referenced -= usize::from(timer.keeps_the_loop());
        if timer.queued {
            self.queued -= 1;
            self.drop_stale_entries();
        }
        Some(Cleared { slot, is_interval: matches!(timer.repeat, Repeat::Interval(_)) })
    }

    /// Whether the timer keeps the loop while it is pending; `None` if it is not set any more.
    pub fn is_referenced(&self, id: Id) -> Option<bool> {
        self.slots.get(id).map(|timer| timer.referenced)
    }

    /// Makes the timer keep the loop, or not.
    pub fn set_referenced(&mut self, id: Id, referenced: bool) {
        let Some(slot) = self.slots.slot(id) else { return };
        let Some(timer) = self.slots.get_at_mut(slot, id) else { return };
        self.referenced -= usize::from(timer.keeps_the_loop());
        timer.referenced = referenced;
        self.referenced += usize::from(timer.keeps_the_loop());
    }

    /// Starts the delay of a timer anew; false if it is not set any more.
    pub fn refresh(&mut self, id: Id, now: Nanos) -> bool {
        let Some(slot) = self.slots.slot(id) else { return false };
        let Some(timer) = self.slots.get_at_mut(slot, id) else { return false };
        if timer.kind == Kind::Timed {
            let delay = timer.delay;
            if std::mem::take(&mut timer.queued) {
                self.queued -= 1;
            }
            self.arm(id, slot, later(now, delay));
            self.drop_stale_entries();
        }
        true
    }

    /// Moves the entries that are due at `now` to the end of `due`.
    pub fn take_due(&mut self, now: Nanos, due: &mut VecDeque<Entry>) {
        let start = due.len();
        self.queue.take_due(now, due);
        for entry in due.range(start..) {
            if let Some(timer) = self.slots.get_at_mut(entry.slot, entry.id)
                && timer.queued
                && timer.deadline == entry.deadline
            {
                timer.queued = false;
                self.queued -= 1;
            }
        }
    }

    /// Fires the timer of an entry that was due, unless it was cleared or refreshed since.
    pub fn fire(&mut self, entry: Entry, now: Nanos) -> Option<Fired> {
        let Entry { id, slot, deadline } = entry;
        let timer = self.slots.get_at_mut(slot, id)?;
        if timer.deadline != deadline || timer.queued {
            return None;
        }
        let (origin, wakes) = (timer.origin, timer.repeat == Repeat::Wake);
        let again = match timer.repeat {
            Repeat::Interval(missed) => {
                let next = next_tick(deadline, timer.delay, missed, now);
                self.arm(id, slot, next);
                true
            }
            Repeat::Once | Repeat::Wake => {
                self.clear(id);
                false
            }
        };
        Some(Fired { slot, id, again, wakes, origin })
    }

    /// Fires an immediate, unless it was cleared since.
    pub fn fire_immediate(&mut self, id: Id) -> Option<Fired> {
        let origin = self.slots.get(id)?.origin;
        self.clear(id).map(|Cleared { slot, .. }| Fired { slot, id, again: false, wakes: false, origin })
    }

    fn arm(&mut self, id: Id, slot: Slot, deadline: Nanos) {
        let Some(timer) = self.slots.get_at_mut(slot, id) else { return };
        timer.deadline = deadline;
        timer.queued = true;
        self.queued += 1;
        self.queue.push(Entry { deadline, id, slot });
    }

    /// Sweeps the queue when most of it is stale, so that setting and clearing far timers does not make it grow.
    fn drop_stale_entries(&mut self) {
        const TOLERATED: usize = 1024;
        if self.queue.len() > 2 * self.queued + TOLERATED {
            let slots = &self.slots;
            self.queue.retain(|entry| {
                slots.get_at(entry.slot, entry.id).is_some_and(|t| t.queued && t.deadline == entry.deadline)
            });
        }
    }
}

fn later(now: Nanos, delay: Nanos) -> Nanos {
    now.saturating_add(delay).min(LATEST)
}

/// When an interval that was due at `deadline` and fires at `now` is due next.
fn next_tick(deadline: Nanos, period: Nanos, missed: Missed, now: Nanos) -> Nanos {
    let next = later(deadline, period);
    match missed {
        Missed::Burst => next,
        Missed::Delay => later(now, period),
        Missed::Skip if next > now => next,
        Missed::Skip => later(next, (now - next) / period.max(1) * period + period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = NANOS_PER_MS;

    fn fire_all(timers: &mut Timers, now: Nanos) -> Vec<Id> {
        let mut due = VecDeque::new();
        timers.take_due(now, &mut due);
        due.into_iter().filter_map(|entry| timers.fire(entry, now)).map(|fired| fired.id).collect()
    }

    fn set(timers: &mut Timers, now: Nanos, delay: Nanos) -> Id {
        timers.set(now, Delay::After(delay), Repeat::Once, Origin::default()).0
    }

    fn set_interval(timers: &mut Timers, period: Nanos, missed: Missed) -> Id {
        timers.set(0, Delay::After(period), Repeat::Interval(missed), Origin::default()).0
    }

    #[test]
    fn delays_are_rounded_up_and_saturate() {
        assert_eq!(Delay::from_ms(0.000_000_1), Delay::After(1));
        assert_eq!(Delay::from_ms(1.5), Delay::After(1_500_000));
        assert_eq!(Delay::from_ms(-3.0), Delay::After(0));
        assert_eq!(Delay::from_ms(1e300), Delay::After(Nanos::MAX));
        assert_eq!(Delay::from_ms(f64::INFINITY), Delay::Never);
    }

    #[test]
    fn equal_deadlines_fire_in_order_of_creation_whatever_the_delays() {
        let mut timers = Timers::default();
        let first = set(&mut timers, 0, 10 * MS);
        let second = set(&mut timers, 5 * MS, 5 * MS);
        let third = set(&mut timers, 9 * MS, MS);
        assert_eq!(fire_all(&mut timers, 10 * MS), [first, second, third]);
    }

    #[test]
    fn an_interval_keeps_its_place_of_creation() {
        let mut timers = Timers::default();
        let interval = set_interval(&mut timers, 10 * MS, Missed::Skip);
        let timeout = set(&mut timers, 0, 20 * MS);
        assert_eq!(fire_all(&mut timers, 10 * MS), [interval]);
        assert_eq!(fire_all(&mut timers, 20 * MS), [interval, timeout]);
    }

    #[test]
    fn late_intervals_skip_catch_up_or_delay() {
        for (missed, firings, next) in [(Missed::Skip, 1, 40), (Missed::Burst, 3, 40), (Missed::Delay, 1, 45)] {
            let mut timers = Timers::default();
            set_interval(&mut timers, 10 * MS, missed);
            let fired: usize = (0..5).map(|_| fire_all(&mut timers, 35 * MS).len()).sum();
            assert_eq!((fired, timers.next_deadline()), (firings, Some(next * MS)), "{missed:?}");
        }
    }

    #[test]
    fn a_cleared_timer_does_not_fire_even_in_the_pass_that_it_is_due_in() {
        let mut timers = Timers::default();
        let (first, second) = (set(&mut timers, 0, MS), set(&mut timers, 0, MS));
        let mut due = VecDeque::new();
        timers.take_due(MS, &mut due);
        assert_eq!(timers.fire(due[0], MS).map(|fired| fired.id), Some(first));
        assert!(timers.clear(second).is_some());
        assert_eq!(timers.fire(due[1], MS), None);
        assert_eq!((timers.clear(first), timers.clear(second), timers.len()), (None, None, 0));
    }

    #[test]
    fn a_refreshed_timer_fires_at_its_new_deadline_only() {
        let mut timers = Timers::default();
        let id = set(&mut timers, 0, 10 * MS);
        assert!(timers.refresh(id, 5 * MS));
        assert_eq!(fire_all(&mut timers, 14 * MS), []);
        assert_eq!(fire_all(&mut timers, 15 * MS), [id]);
        assert!(!timers.refresh(id, 15 * MS));
    }

    #[test]
    fn a_timer_refreshed_in_the_pass_that_it_is_due_in_waits_again() {
        let mut timers = Timers::default();
        let id = set(&mut timers, 0, MS);
        let mut due = VecDeque::new();
        timers.take_due(MS, &mut due);
        assert!(timers.refresh(id, MS));
        assert_eq!(timers.fire(due[0], MS), None);
        assert_eq!(fire_all(&mut timers, 2 * MS), [id]);
    }

    #[test]
    fn references_are_counted_and_never_does_not_count() {
        let mut timers = Timers::default();
        let id = set(&mut timers, 0, MS);
        let (never, _) = timers.set(0, Delay::Never, Repeat::Once, Origin::default());
        assert!(timers.keep_the_loop());
        timers.set_referenced(id, false);
        timers.set_referenced(id, false);
        assert!(!timers.keep_the_loop());
        assert_eq!((timers.is_referenced(id), timers.is_referenced(never)), (Some(false), Some(true)));
        timers.set_referenced(id, true);
        timers.clear(id);
        assert!(!timers.keep_the_loop());
        assert_eq!((timers.clear(never).is_some(), timers.is_empty()), (true, true));
    }

    #[test]
    fn setting_and_clearing_far_timers_does_not_make_the_queue_grow() {
        let mut timers = Timers::default();
        let kept = set(&mut timers, 0, MS);
        for _ in 0..100_000 {
            let id = set(&mut timers, 0, 3_600_000 * MS);
            timers.clear(id);
        }
        assert!(timers.queue.len() < 2000, "{} entries", timers.queue.len());
        assert_eq!(fire_all(&mut timers, MS), [kept]);
    }
}
