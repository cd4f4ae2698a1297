//! What a worker has to do with its pool: it takes jobs and hands in what they came to.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use super::crew::{Crew, Next};
use super::job::{Assignment, Completion, Ending, Failure, Interrupt, Outcome, Request, RunNumber};
use super::pool::{Pool, Settings};
use crate::runtime::{CompletionQueue, Spinner};

/// The place of a worker in its pool. Jobs that were not handed in when it is dropped are lost.
pub struct Seat {
    crew: Arc<Crew>,
    runs: Cell<RunNumber>,
    /// What was taken and not handed in. It is few.
    running: RefCell<Vec<(RunNumber, Assignment)>>,
    interrupt: RefCell<Option<Arc<dyn Interrupt>>>,
    spinner: Spinner,
}

impl fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Seat").field("runs", &self.runs).finish_non_exhaustive()
    }
}

/// What there is for a worker.
pub enum Taken {
    /// A job, and the number to hand it in under.
    Job(RunNumber, Request),
    /// Nothing now.
    Nothing,
    /// Nothing any more: the worker is to end.
    Leave,
}

impl Seat {
    pub(super) fn new(crew: Arc<Crew>) -> Self {
        Seat {
            crew,
            runs: Cell::new(0),
            running: RefCell::default(),
            interrupt: RefCell::default(),
            spinner: Spinner::default(),
        }
    }

    /// What the pool is like.
    pub fn settings(&self) -> &Settings {
        &self.crew.settings
    }

    /// Whether it is one of this pool.
    pub fn is_of(&self, pool: &Pool) -> bool {
        std::ptr::eq(pool.settings(), self.settings())
    }

    /// Tells how the jobs that are taken from now on can be stopped.
    pub fn set_interrupt(&self, interrupt: Arc<dyn Interrupt>) {
        *self.interrupt.borrow_mut() = Some(interrupt);
    }

    /// The next job; waits for one if told to.
    pub fn take(&self, wait: bool) -> Taken {
        loop {
            let assignment = match self.crew.take(wait, &self.spinner) {
                Next::Job(assignment) => assignment,
                Next::None => return Taken::Nothing,
                Next::Leave => return Taken::Leave,
            };
            let run = self.runs.get() + 1;
            self.runs.set(run);
            match assignment.start(run, self.interrupt.borrow().clone()) {
                Some(request) => {
                    self.running.borrow_mut().push((run, assignment));
                    return Taken::Job(run, request);
                }
                None => {
                    self.crew.note_end(assignment.job(), Ending::Cancelled);
                    self.crew.tell_if_done();
                }
            }
        }
    }

    /// Hands a job in.
    pub fn end(&self, run: RunNumber, outcome: Outcome) {
        let mut running = self.running.borrow_mut();
        let position = running.iter().position(|(number, _)| *number == run);
        if let Some((_, assignment)) = position.map(|position| running.swap_remove(position)) {
            drop(running);
            self.hand_in(assignment, outcome);
        }
    }

    /// Whether a job that runs was cancelled.
    pub fn is_cancelled(&self, run: RunNumber) -> bool {
        self.running.borrow().iter().any(|(number, assignment)| *number == run && assignment.job().is_cancelled())
    }

    /// Whether a job was taken.
    pub fn has_taken(&self) -> bool {
        self.runs.get() > 0
    }

    /// Fails the next job, as there is no executor that could run it.
    pub fn fail_next(&self, failure: Box<Failure>) {
        if let Taken::Job(run, _) = self.take(false) {
            self.end(run, Outcome::Failed(failure));
        }
    }

    /// Whether there is a job to take.
    pub fn has_queued(&self) -> bool {
        self.crew.has_queued()
    }

    /// Posts to `completions` when there is a job to take; false if there is one now.
    pub fn listen(&self, completions: &Arc<CompletionQueue<Completion>>) -> bool {
        self.crew.listen(completions)
    }

    /// Runs `park`. If the job waits for other jobs, another worker takes its place meanwhile.
    pub fn while_parked<T>(&self, waits_for_others: bool, park: impl FnOnce() -> T) -> T {
        self.set_parked(true);
        let parked = if waits_for_others { self.crew.while_blocked(park) } else { park() };
        self.set_parked(false);
        parked
    }

    /// Runs `finish`, which ends the jobs of a worker that takes no more. Another one takes its place meanwhile.
    pub fn while_leaving<T>(&self, finish: impl FnOnce() -> T) -> T {
        self.crew.while_blocked(finish)
    }

    fn set_parked(&self, is_parked: bool) {
        if let Some(interrupt) = &*self.interrupt.borrow() {
            interrupt.set_parked(is_parked);
        }
    }

    fn hand_in(&self, assignment: Assignment, outcome: Outcome) {
        assignment.end(outcome, |job, ending| self.crew.note_end(job, ending));
        self.crew.tell_if_done();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        for (_, assignment) in self.running.take() {
            self.hand_in(assignment, Outcome::Failed(Failure::new("lost", "the worker that ran the job died")));
        }
    }
}
