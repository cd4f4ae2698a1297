//! One call sent to a worker, and what comes back.

use std::sync::{Arc, Weak};

use super::shared::Handle;
use super::shared::mutex::Place;
use crate::runtime::CompletionQueue;

/// What tells the jobs of a VM apart.
pub type JobNumber = u64;

/// Values in the form in which they cross between VMs.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The values: see the layer above.
    pub bytes: Vec<u8>,
    /// What they share with the sender; the bytes refer to these by their index.
    pub handles: Vec<Handle>,
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Message { bytes, handles: Vec::new() }
    }
}

/// What a worker VM must have in common with the one that sent the job.
#[derive(Debug, PartialEq, Eq)]
pub struct Environment {
    /// `package.path`.
    pub path: Vec<u8>,
    /// `package.cpath`.
    pub cpath: Vec<u8>,
}

/// A function and its arguments.
#[derive(Debug)]
pub struct Request {
    /// The function, then its arguments.
    pub call: Message,
    /// Where the worker finds modules.
    pub environment: Arc<Environment>,
}

/// What a job ended with.
#[derive(Debug)]
pub enum Outcome {
    /// The results of the function.
    Done(Message),
    /// Its error.
    Failed(Failure),
    /// No job has ended: what a place was waiting for is there. See [`Waker`].
    Woken,
}

/// Why a job has no results.
#[derive(Debug, Default)]
pub struct Failure {
    /// `"error"`: the function raised it; `"lost"`: the worker died.
    pub kind: &'static str,
    /// The error in words.
    pub message: Vec<u8>,
    /// The traceback in the worker.
    pub traceback: Vec<u8>,
    /// The error value itself, if it can cross.
    pub value: Option<Message>,
}

/// A job's outcome, on its way to the VM that sent it.
#[derive(Debug)]
pub struct Completion {
    /// Which job.
    pub number: JobNumber,
    /// What it ended with.
    pub outcome: Outcome,
}

/// Tells a VM that a place (see `shared/mutex.rs`) need not wait any more.
#[derive(Debug)]
pub struct Waker(Weak<CompletionQueue<Completion>>);

impl Waker {
    /// That of the VM that takes from `completions`.
    pub fn new(completions: &Arc<CompletionQueue<Completion>>) -> Self {
        Waker(Arc::downgrade(completions))
    }

    /// Tells it; false if the VM is closed.
    pub fn wake(&self, place: Place) -> bool {
        let Some(completions) = self.0.upgrade().filter(|completions| !completions.is_closed()) else { return false };
        completions.post(Completion { number: place, outcome: Outcome::Woken });
        true
    }
}

/// Runs requests on the thread that made it.
pub trait Executor {
    /// Runs one request to its end.
    fn execute(&mut self, request: &Request) -> Outcome;
}

/// Where the outcome goes. Dropped without one, it says that the job was lost: a worker that dies fails its jobs.
#[derive(Debug)]
pub struct Reply {
    number: JobNumber,
    completions: Weak<CompletionQueue<Completion>>,
    sent: bool,
}

impl Reply {
    /// A reply to the VM that takes from `completions`.
    pub fn new(number: JobNumber, completions: &Arc<CompletionQueue<Completion>>) -> Self {
        Reply { number, completions: Arc::downgrade(completions), sent: false }
    }

    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        self.completions.upgrade().is_some_and(|completions| !completions.is_closed())
    }

    /// Sends the outcome.
    pub fn send(mut self, outcome: Outcome) {
        self.post(outcome);
    }

    /// Takes the reply back: the job was never queued.
    pub fn withdraw(mut self) {
        self.sent = true;
    }

    fn post(&mut self, outcome: Outcome) {
        self.sent = true;
        if let Some(completions) = self.completions.upgrade() {
            completions.post(Completion { number: self.number, outcome });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            let message = b"the worker that ran the job died".to_vec();
            self.post(Outcome::Failed(Failure { kind: "lost", message, ..Failure::default() }));
        }
    }
}
