//! The order of a turn.
//!
//! `now` is read → completions → due timers → ready and deferred tasks → immediates → park. The caller runs what
//! [`Engine::next_work`] names, one at a time; completions, tasks and microtasks are queued on its side, and it says when
//! the turn of the immediates has come.
//!
//! A turn fires at most [`TIMERS_PER_TURN`] timers, so that a flood of them leaves room for the rest; what is left over
//! comes first in the next turn.

use std::collections::VecDeque;

use super::clock::{Clock, Nanos};
use super::histogram::Histogram;
use super::origin::Origin;
use super::slots::{Id, Slot};
use super::timer::{Delay, Fired, Repeat, Timers};
use super::timer_queue::Entry;

/// Timers that fire in one turn at the most.
pub const TIMERS_PER_TURN: usize = 10_000;
/// How many callbacks run between two looks at the clock in a turn that is bounded in time.
const WORK_PER_CLOCK_CHECK: usize = 16;

/// What is to run next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The callback of a timer or an immediate.
    Callback(Fired),
    /// The timer that a coroutine waits for, in this slot, is due.
    Wake(Slot),
}

/// What the engine has done since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Turns begun.
    pub turns: u64,
    /// Timers that fired, each tick of an interval counted.
    pub timers_fired: u64,
    /// Immediates that ran.
    pub immediates: u64,
}

/// How long things took so far, on a clock that is not paused.
#[derive(Debug, Default)]
pub struct Meters {
    /// How late the first timer of each turn was.
    pub lag: Histogram,
    /// Turns, without the time for which the thread was parked.
    pub turn: Histogram,
}

/// What is left of the budget of the running turn.
#[derive(Debug, Default)]
struct Budget {
    timers: usize,
    /// Those that were queued when their part of the turn began; `None` until then.
    immediates: Option<usize>,
    /// When the turn has to end, if it is bounded in time.
    ends_at: Option<Nanos>,
    until_clock_check: usize,
}

/// Everything that is scheduled in one VM.
#[derive(Debug, Default)]
pub struct Engine {
    /// The time that deadlines are measured in.
    pub clock: Clock,
    /// Timers and immediates.
    pub timers: Timers,
    /// What was done so far.
    pub counters: Counters,
    /// How long it took.
    pub meters: Meters,
    now: Nanos,
    /// When the turn began that is to be measured.
    busy_since: Option<Nanos>,
    due: VecDeque<Entry>,
    immediates: VecDeque<Id>,
    budget: Budget,
    in_turn: bool,
    stopped: bool,
}

impl Engine {
    /// The time that was read when the running turn began; outside of one, the time.
    pub fn now(&self) -> Nanos {
        if self.in_turn { self.now } else { self.clock.now() }
    }

    /// Sets a timer. Its delay counts from the call, not from the start of the turn: it never fires early.
    pub fn set_timer(&mut self, delay: Delay, repeat: Repeat, origin: Origin) -> (Id, Slot) {
        let (id, slot) = self.timers.set(self.clock.now(), delay, repeat, origin);
        if delay == Delay::Immediate {
            self.immediates.push_back(id);
        }
        (id, slot)
    }

    /// Starts the delay of a timer anew; false if it is not set any more.
    pub fn refresh(&mut self, id: Id) -> bool {
        self.timers.refresh(id, self.clock.now())
    }

    /// Begins a turn, bounded in time if `budget` says so.
    pub fn begin_turn(&mut self, budget: Option<Nanos>) {
        self.now = self.clock.now();
        self.measure_turn(self.now);
        self.in_turn = true;
        self.stopped = false;
        self.counters.turns += 1;
        self.timers.take_due(self.now, &mut self.due);
        self.measure_lag();
        self.budget = Budget {
            timers: TIMERS_PER_TURN,
            immediates: None,
            ends_at: budget.map(|budget| self.now.saturating_add(budget)),
            until_clock_check: WORK_PER_CLOCK_CHECK,
        };
    }

    /// What is to run next in this turn.
    pub fn next_work(&mut self) -> Option<Work> {
        if self.stopped || self.is_out_of_time() {
            return None;
        }
        match self.budget.immediates {
            None => self.next_timer(),
            Some(_) => self.next_immediate(),
        }
    }

    /// From here on [`Engine::next_work`] names the immediates that are queued by now, and no timers.
    pub fn begin_immediates(&mut self) {
        self.budget.immediates = Some(self.immediates.len());
    }

    /// Ends the turn.
    pub fn end_turn(&mut self) {
        self.in_turn = false;
        self.rest();
    }

    /// There is nothing more to do in this turn, and the thread may park. Where it goes on at once, the next turn begins
    /// when this one ends, so that the clock need not be read for both.
    pub fn rest(&mut self) {
        if self.busy_since.is_some() {
            self.measure_turn(self.clock.now());
            self.busy_since = None;
        }
    }

    /// Measures the turn that ends now, if one does, and begins with the next.
    fn measure_turn(&mut self, now: Nanos) {
        // A paused clock would tell how far it was moved.
        let is_real = !self.clock.is_paused();
        if let Some(since) = self.busy_since.filter(|_| is_real) {
            self.meters.turn.record(now.saturating_sub(since));
        }
        self.busy_since = is_real.then_some(now);
    }

    fn measure_lag(&mut self) {
        if let Some(first) = self.due.front()
            && !self.clock.is_paused()
        {
            self.meters.lag.record(self.now.saturating_sub(first.deadline));
        }
    }

    /// Whether a turn is running.
    pub fn is_in_turn(&self) -> bool {
        self.in_turn
    }

    /// Forgets all timers and waits, whose ids are not given out again, and virtual time.
    pub fn discard(&mut self) {
        self.clock = Clock::new();
        self.timers = Timers::default();
        self.due.clear();
        self.immediates.clear();
    }

    /// Makes [`Engine::next_work`] answer with nothing until the next turn begins.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether [`Engine::stop`] was called since the last turn began.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a turn that began now would find something to run, the timers aside that become due by then.
    pub fn has_work(&self) -> bool {
        !self.due.is_empty() || !self.immediates.is_empty()
    }

    /// Whether there is work, or a timer that keeps the loop and that time will make due.
    pub fn is_alive(&self) -> bool {
        self.timers.keep_the_loop() && (self.has_work() || !self.clock.is_paused())
    }

    /// When the next turn is needed at the latest; `None` when no timer asks for one. A paused clock's never come.
    pub fn next_deadline(&self) -> Option<Nanos> {
        match self.has_work() {
            true => Some(self.clock.now()),
            false => self.timers.next_deadline(),
        }
    }

    /// Moves a paused clock to the next deadline, or to its target if that comes first; false once it is there.
    pub fn step_clock(&mut self) -> bool {
        let target = self.clock.target();
        match self.timers.next_deadline() {
            Some(deadline) if deadline <= target => {
                self.clock.advance_to(deadline);
                true
            }
            _ => {
                self.clock.advance_to(target);
                false
            }
        }
    }

    /// Whether a turn that began now would find something to run.
    pub fn is_due(&self) -> bool {
        self.has_work() || self.timers.next_deadline().is_some_and(|deadline| deadline <= self.clock.now())
    }

    fn next_timer(&mut self) -> Option<Work> {
        while self.budget.timers > 0 {
            let entry = self.due.pop_front()?;
            if let Some(fired) = self.timers.fire(entry, self.now) {
                self.budget.timers -= 1;
                self.counters.timers_fired += 1;
                return Some(if fired.wakes { Work::Wake(fired.slot) } else { Work::Callback(fired) });
            }
        }
        None
    }

    fn next_immediate(&mut self) -> Option<Work> {
        while let Some(left) = self.budget.immediates.filter(|left| *left > 0) {
            self.budget.immediates = Some(left - 1);
            let id = self.immediates.pop_front()?;
            if let Some(fired) = self.timers.fire_immediate(id) {
                self.counters.immediates += 1;
                return Some(Work::Callback(fired));
            }
        }
        None
    }

    /// Whether the turn is bounded in time and has used it up; to be asked once for each piece of work.
    pub fn is_out_of_time(&mut self) -> bool {
        let Some(ends_at) = self.budget.ends_at else { return false };
        self.budget.until_clock_check -= 1;
        if self.budget.until_clock_check > 0 {
            return false;
        }
        self.budget.until_clock_check = WORK_PER_CLOCK_CHECK;
        self.clock.now() >= ends_at
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::NANOS_PER_MS;
    use super::*;

    fn paused() -> Engine {
        let mut engine = Engine::default();
        engine.clock.pause();
        engine
    }

    fn after(engine: &mut Engine, ms: u64) -> Id {
        engine.set_timer(Delay::After(ms * NANOS_PER_MS), Repeat::Once, Origin::default()).0
    }

    fn immediate(engine: &mut Engine) -> Id {
        engine.set_timer(Delay::Immediate, Repeat::Once, Origin::default()).0
    }

    fn advance(engine: &mut Engine, ms: u64) {
        let now = engine.clock.now();
        engine.clock.advance_to(now + ms * NANOS_PER_MS);
    }

    fn callback(work: Option<Work>) -> Option<Id> {
        match work {
            Some(Work::Callback(fired)) => Some(fired.id),
            _ => None,
        }
    }

    #[test]
    fn a_turn_fires_timers_and_wakes_sleepers_in_order_and_then_runs_immediates() {
        let mut engine = paused();
        let last = immediate(&mut engine);
        let first = after(&mut engine, 0);
        let (_, sleeper) = engine.set_timer(Delay::After(0), Repeat::Wake, Origin::default());
        let third = after(&mut engine, 0);
        engine.begin_turn(None);
        assert_eq!(callback(engine.next_work()), Some(first));
        assert_eq!(engine.next_work(), Some(Work::Wake(sleeper)));
        assert_eq!(callback(engine.next_work()), Some(third));
        assert_eq!(engine.next_work(), None);
        engine.begin_immediates();
        assert_eq!(callback(engine.next_work()), Some(last));
        assert_eq!(engine.next_work(), None);
        assert!(!engine.is_alive());
    }

    #[test]
    fn timers_set_in_their_pass_and_immediates_set_in_theirs_wait_for_the_next_turn() {
        let mut engine = paused();
        let (timer, first) = (after(&mut engine, 0), immediate(&mut engine));
        engine.begin_turn(None);
        assert_eq!(callback(engine.next_work()), Some(timer));
        let (again, same_turn) = (after(&mut engine, 0), immediate(&mut engine));
        assert_eq!(engine.next_work(), None);
        engine.begin_immediates();
        assert_eq!(callback(engine.next_work()), Some(first));
        let next_turn = immediate(&mut engine);
        assert_eq!(callback(engine.next_work()), Some(same_turn));
        assert_eq!(engine.next_work(), None);
        engine.begin_turn(None);
        assert_eq!(callback(engine.next_work()), Some(again));
        engine.begin_immediates();
        assert_eq!(callback(engine.next_work()), Some(next_turn));
    }

    #[test]
    fn now_stands_still_in_a_turn_and_delays_count_from_the_call() {
        let mut engine = paused();
        engine.begin_turn(None);
        let start = engine.now();
        advance(&mut engine, 50);
        assert_eq!(engine.now(), start);
        after(&mut engine, 10);
        assert_eq!(engine.next_deadline(), Some(start + 60 * NANOS_PER_MS));
        engine.end_turn();
        assert_eq!(engine.now(), start + 50 * NANOS_PER_MS);
    }

    #[test]
    fn stop_leaves_the_rest_for_the_next_turn() {
        let mut engine = paused();
        let timers: Vec<_> = (0..3).map(|_| after(&mut engine, 0)).collect();
        engine.begin_turn(None);
        assert_eq!(callback(engine.next_work()), Some(timers[0]));
        engine.stop();
        assert_eq!(engine.next_work(), None);
        assert!(engine.is_stopped() && engine.is_alive());
        engine.begin_turn(None);
        assert_eq!(callback(engine.next_work()), Some(timers[1]));
    }

    #[test]
    fn a_flood_of_timers_leaves_room_for_the_others() {
        let mut engine = paused();
        (0..TIMERS_PER_TURN + 1).for_each(|_| assert!(after(&mut engine, 0).0 > 0));
        let other = immediate(&mut engine);
        engine.begin_turn(None);
        for _ in 0..TIMERS_PER_TURN {
            assert!(engine.next_work().is_some());
        }
        assert_eq!(engine.next_work(), None);
        engine.begin_immediates();
        assert_eq!(callback(engine.next_work()), Some(other));
        assert!(engine.is_alive() && engine.has_work());
        engine.begin_turn(None);
        assert!(engine.next_work().is_some());
        assert!(!engine.is_alive());
    }

    #[test]
    fn a_turn_that_is_bounded_in_time_ends_soon_after() {
        let mut engine = paused();
        (0..100).for_each(|_| assert!(after(&mut engine, 0).0 > 0));
        engine.begin_turn(Some(NANOS_PER_MS));
        advance(&mut engine, 2);
        let ran = std::iter::from_fn(|| engine.next_work()).count();
        assert!(ran > 0 && ran < WORK_PER_CLOCK_CHECK, "{ran}");
    }

    #[test]
    fn turns_and_the_lag_of_timers_are_measured_but_not_on_a_paused_clock() {
        let mut engine = Engine::default();
        engine.set_timer(Delay::After(0), Repeat::Once, Origin::default());
        engine.begin_turn(None);
        assert!(engine.next_work().is_some());
        assert_eq!((engine.meters.lag.count(), engine.meters.turn.count()), (1, 0));
        engine.begin_turn(None);
        assert_eq!((engine.meters.lag.count(), engine.meters.turn.count()), (1, 1));
        engine.rest();
        engine.rest();
        engine.end_turn();
        assert_eq!(engine.meters.turn.count(), 2);
        engine.clock.pause();
        after(&mut engine, 1000);
        advance(&mut engine, 5000);
        engine.begin_turn(None);
        engine.end_turn();
        assert_eq!((engine.meters.lag.count(), engine.meters.turn.count()), (1, 2));
        engine.begin_turn(None);
        advance(&mut engine, 5000);
        engine.clock.resume();
        engine.end_turn();
        assert_eq!(engine.meters.turn.count(), 2);
    }

    #[test]
    fn a_paused_clock_keeps_no_loop_waiting() {
        let mut engine = paused();
        after(&mut engine, 5);
        assert!(!engine.is_alive());
        engine.clock.resume();
        assert!(engine.is_alive());
    }
}
