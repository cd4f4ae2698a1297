//! Messages from tasks to tasks, in any VMs of the process.
//!
//! # Ground rules
//!
//! 1. What waits is listed as a [`Waiter`] (see `waiter.rs`). The lock of one channel is taken first, then those of its
//!    waiters. No code holds two channels.
//! 2. Receivers wait only while there is no message, senders only while there is no room. Whoever makes one or the other
//!    ends the first wait at once, so nobody who comes later is first.
//! 3. A receiver that waits is handed its message in two steps. It lies in the waiter first, as a [`Delivery`]; then the
//!    task takes it. If the task is gone, the delivery is dropped, and gives the message back: to the next receiver, or
//!    in front of the later ones. The number that a message got when it was accepted is its position.
//! 4. Messages may hold channels, so they are dropped, and VMs woken, without a lock: see [`After`], which is made
//!    before a lock is taken and so outlives it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock, PoisonError, TryLockError};

use super::stored::{Stored, bury};
use super::waiter::{After, Claim, Ended, Me, Waiter, claim, claim_me};
use super::{Counted, Handle, Place, new_place};
use crate::runtime::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use crate::runtime::sync::{Mutex, MutexGuard, thread};
use crate::runtime::{lock_contended, process};

/// A message on its way to a receiver; dropped, it goes back to its channel.
#[derive(Debug)]
pub struct Delivery {
    channel: Arc<Channel>,
    position: u64,
    message: Option<Stored>,
}

impl Delivery {
    /// The message, which does not go back then.
    pub fn take(mut self) -> Option<Stored> {
        self.message.take()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.channel.give_back(self.position, message);
        }
    }
}

/// What [`Channel::send`] comes to.
#[derive(Debug)]
pub enum Sending {
    /// It was received, or is in the channel.
    Sent,
    /// There is no room, and nobody waits for it.
    Full(Stored),
    /// The channel is closed.
    Closed,
    /// It is listed, and will be sent.
    Listed,
    /// Another case of the waiter was done meanwhile.
    Elsewhere,
}

/// What [`Channel::receive`] comes to.
#[derive(Debug)]
pub enum Receiving {
    /// The first message.
    Received(Stored),
    /// There is none.
    Empty,
    /// There is none, and there will be none.
    Closed,
    /// It is listed, and will be given one.
    Listed,
    /// Another case of the waiter was done meanwhile.
    Elsewhere,
}

/// Who receives need not wait.
const CAN_RECEIVE: u8 = 1;
/// Who sends need not wait.
const CAN_SEND: u8 = 2;

/// Messages between VMs.
#[derive(Debug)]
pub struct Channel {
    number: Place,
    capacity: usize,
    /// The process that made it.
    pid: u32,
    /// A std mutex: it is held for a few pushes and pops, and never while anything is dropped or woken.
    state: Mutex<State>,
    /// Takes the place of the state in a forked process, if a thread of the parent held the lock at that moment: closed.
    orphaned: OnceLock<Mutex<State>>,
    /// VMs that can use it and messages that hold it, those in itself as well.
    holds: AtomicUsize,
    /// [`CAN_RECEIVE`] and [`CAN_SEND`], as they were when the lock was last released: for who looks without it.
    hints: AtomicU8,
    _counted: Counted,
}

#[derive(Debug)]
struct State {
    is_closed: bool,
    /// The process that has used it last.
    pid: u32,
    /// The number of the message that was accepted last.
    last_position: u64,
    /// In order of their positions. More than the capacity if some were given back.
    messages: VecDeque<(u64, Stored)>,
    senders: List<Stored>,
    receivers: List<()>,
    /// How often messages in it hold itself.
    own: usize,
    /// How many of the holds are those of VMs that a fork has left behind.
    ghosts: usize,
}

/// In order of their places, and so of their coming.
type List<T> = BTreeMap<(Place, usize), Listed<T>>;

#[derive(Debug)]
struct Listed<T> {
    waiter: Arc<Waiter>,
    case: usize,
    message: T,
}

impl<T> Listed<T> {
    /// Lists a waiter that acts, if one does.
    fn add(list: &mut List<T>, (waiter, case): (&Arc<Waiter>, usize), message: T) {
        list.insert((waiter.place(), case), Listed { waiter: Arc::clone(waiter), case, message });
    }
}

/// The first of a list that is not of `me`: no task receives from itself.
fn first_peer<T>(list: &List<T>, me: Me<'_>) -> Option<(Place, usize)> {
    let own_place = me.map(|(me, _)| me.place());
    list.keys().find(|(place, _)| Some(*place) != own_place).copied()
}

impl State {
    fn new() -> Self {
        State {
            is_closed: false,
            pid: process::id(),
            last_position: 0,
            messages: VecDeque::new(),
            senders: BTreeMap::new(),
            receivers: BTreeMap::new(),
            own: 0,
            ghosts: 0,
        }
    }

    fn accept(&mut self) -> u64 {
        self.last_position += 1;
        self.last_position
    }
}

impl Channel {
    /// A channel with room for so many messages.
    pub fn open(capacity: usize) -> Hold {
        let (state, orphaned, holds) = (Mutex::new(State::new()), OnceLock::new(), AtomicUsize::new(0));
        let (number, pid) = (new_place(), process::id());
        let hints = AtomicU8::new(0);
        let channel = Channel { number, capacity, pid, state, orphaned, holds, hints, _counted: Counted::new() };
        drop(channel.lock());
        Hold::new(&Arc::new(channel))
    }

    /// What tells it from others.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many messages it holds; those of senders that wait are not counted.
    pub fn length(&self) -> usize {
        self.lock().messages.len()
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Whether anybody but one VM could use it: another VM, or one that a message will come to.
    pub fn has_others(&self) -> bool {
        let mut after = After::default();
        let mut state = self.lock();
        self.leave_parent(&mut state, &mut after);
        self.outside(&state) > 1
    }

    /// The holds that are neither in itself nor left behind. Those in itself neither come nor go while it is locked.
    fn outside(&self, state: &State) -> usize {
        self.holds.load(Ordering::SeqCst).saturating_sub(state.own + state.ghosts)
    }

    /// In the child of a fork, forgets who waits in threads that are not there.
    fn leave_parent(&self, state: &mut State, after: &mut After) {
        let pid = process::id();
        if mem::replace(&mut state.pid, pid) == pid {
            return;
        }
        let me = thread::current().id();
        state.receivers.retain(|_, listed| listed.waiter.thread() == me);
        for (key, listed) in mem::take(&mut state.senders) {
            if listed.waiter.thread() == me {
                state.senders.insert(key, listed);
            } else {
                self.discount_own(state, &listed.message);
                after.dropped.push(listed.message);
            }
        }
        state.ghosts += self.outside(state).saturating_sub(1);
    }

    /// Sends a message, or lists `me` as a sender.
    pub fn send(self: &Arc<Self>, message: Stored, me: Me<'_>) -> Sending {
        let mut after = After::default();
        let mut state = self.lock();
        if state.is_closed {
            after.dropped.push(message);
            return if claim_me(me) { Sending::Closed } else { Sending::Elsewhere };
        }
        let mut message = Some(message);
        if let Some(sent) = self.hand_over(&mut state, &mut message, me, &mut after) {
            return sent;
        }
        let Some(message) = message else { return Sending::Sent };
        if state.messages.len() < self.capacity {
            if !claim_me(me) {
                after.dropped.push(message);
                return Sending::Elsewhere;
            }
            let position = state.accept();
            self.count_own(&mut state, &message);
            state.messages.push_back((position, message));
            return Sending::Sent;
        }
        let Some(me) = me else { return Sending::Full(message) };
        self.count_own(&mut state, &message);
        Listed::add(&mut state.senders, me, message);
        Sending::Listed
    }

    /// Gives a message to the first receiver that waits, if any does.
    fn hand_over(
        self: &Arc<Self>,
        state: &mut State,
        message: &mut Option<Stored>,
        me: Me<'_>,
        after: &mut After,
    ) -> Option<Sending> {
        if state.receivers.is_empty() {
            return None;
        }
        self.leave_parent(state, after);
        let position = state.last_position + 1;
        while let Some(key) = first_peer(&state.receivers, me)
            && let Some(listed) = state.receivers.get(&key)
        {
            match claim(me, &listed.waiter, listed.case, || self.deliver(position, message), after) {
                Claim::IAmGone => {
                    after.dropped.extend(message.take());
                    return Some(Sending::Elsewhere);
                }
                Claim::PeerIsGone => drop(state.receivers.remove(&key)),
                Claim::Won => {
                    state.receivers.remove(&key);
                    state.accept();
                    return Some(Sending::Sent);
                }
            }
        }
        None
    }

    fn deliver(self: &Arc<Self>, position: u64, message: &mut Option<Stored>) -> Ended {
        Ended::Received(Delivery { channel: Arc::clone(self), position, message: message.take() })
    }

    /// Takes the first message, or lists `me` as a receiver.
    pub fn receive(&self, me: Me<'_>) -> Receiving {
        let mut after = After::default();
        let mut state = self.lock();
        if !state.messages.is_empty() {
            if !claim_me(me) {
                return Receiving::Elsewhere;
            }
            let Some((_, message)) = state.messages.pop_front() else { return Receiving::Empty };
            self.discount_own(&mut state, &message);
            self.fill(&mut state, &mut after);
            return Receiving::Received(message);
        }
        if let Some(received) = self.take_from_sender(&mut state, me, &mut after) {
            return received;
        }
        if state.is_closed {
            return if claim_me(me) { Receiving::Closed } else { Receiving::Elsewhere };
        }
        let Some(me) = me else { return Receiving::Empty };
        Listed::add(&mut state.receivers, me, ());
        Receiving::Listed
    }

    /// Takes the message of the first sender that waits, if any does.
    fn take_from_sender(&self, state: &mut State, me: Me<'_>, after: &mut After) -> Option<Receiving> {
        if state.senders.is_empty() {
            return None;
        }
        self.leave_parent(state, after);
        while let Some(key) = first_peer(&state.senders, me)
            && let Some(listed) = state.senders.get(&key)
        {
            let claimed = claim(me, &listed.waiter, listed.case, || Ended::Sent, after);
            if matches!(claimed, Claim::IAmGone) {
                return Some(Receiving::Elsewhere);
            }
            let Some(listed) = state.senders.remove(&key) else { break };
            self.discount_own(state, &listed.message);
            if matches!(claimed, Claim::Won) {
                state.accept();
                return Some(Receiving::Received(listed.message));
            }
            after.dropped.push(listed.message);
        }
        None
    }

    /// Lets senders that wait have the room that there is.
    fn fill(&self, state: &mut State, after: &mut After) {
        if state.senders.is_empty() {
            return;
        }
        self.leave_parent(state, after);
        while state.messages.len() < self.capacity {
            let Some((_, listed)) = state.senders.pop_first() else { return };
            if matches!(claim(None, &listed.waiter, listed.case, || Ended::Sent, after), Claim::Won) {
                let position = state.accept();
                state.messages.push_back((position, listed.message));
            } else {
                self.discount_own(state, &listed.message);
                after.dropped.push(listed.message);
            }
        }
    }

    /// Takes back a message whose receiver is gone: for the first that waits, or in front of the later ones.
    fn give_back(self: &Arc<Self>, position: u64, message: Stored) {
        let mut after = After::default();
        let mut state = self.lock();
        let mut message = Some(message);
        while let Some((_, listed)) = state.receivers.pop_first() {
            let deliver = || self.deliver(position, &mut message);
            if matches!(claim(None, &listed.waiter, listed.case, deliver, &mut after), Claim::Won) {
                return;
            }
        }
        let Some(message) = message else { return };
        self.count_own(&mut state, &message);
        let at = state.messages.partition_point(|(other, _)| *other < position);
        state.messages.insert(at, (position, message));
        // Its own hold may be the last one by now.
        self.look_for_others(&mut state, &mut after);
    }

    /// Closes it: receivers that wait are told so, and so are all senders.
    pub fn close(&self) {
        let mut after = After::default();
        let mut state = self.lock();
        state.is_closed = true;
        self.leave_parent(&mut state, &mut after);
        for (_, listed) in mem::take(&mut state.receivers) {
            claim(None, &listed.waiter, listed.case, || Ended::Closed, &mut after);
        }
        for (_, listed) in mem::take(&mut state.senders) {
            claim(None, &listed.waiter, listed.case, || Ended::Closed, &mut after);
            self.discount_own(&mut state, &listed.message);
            after.dropped.push(listed.message);
        }
    }

    /// Takes a case of a waiter out of the lists, if it is still there.
    pub fn unlist(&self, place: Place, case: usize) {
        let mut after = After::default();
        let mut state = self.lock();
        state.receivers.remove(&(place, case));
        if let Some(listed) = state.senders.remove(&(place, case)) {
            self.discount_own(&mut state, &listed.message);
            after.dropped.push(listed.message);
        }
    }

    /// After a hold was given up: tells a VM that waits and is alone now; drops what nobody can receive any more.
    fn look_for_others(&self, state: &mut State, after: &mut After) {
        match self.outside(state) {
            0 if state.own > 0 => {
                for (_, message) in mem::take(&mut state.messages) {
                    self.discount_own(state, &message);
                    after.dropped.push(message);
                }
            }
            1 => {
                let receivers = state.receivers.values().map(|listed| &listed.waiter);
                let mut last = None;
                for waiter in receivers.chain(state.senders.values().map(|listed| &listed.waiter)) {
                    // Mostly all are of one VM, which need be told once.
                    if last.replace(waiter.thread()) != Some(waiter.thread()) {
                        waiter.nudge(after);
                    }
                }
            }
            _ => {}
        }
    }

    fn count_own(&self, state: &mut State, message: &Stored) {
        state.own += self.own_holds(message);
    }

    fn discount_own(&self, state: &mut State, message: &Stored) {
        state.own -= self.own_holds(message);
    }

    fn own_holds(&self, message: &Stored) -> usize {
        let is_own = |handle: &&Handle| matches!(handle, Handle::Channel(hold) if hold.channel().number == self.number);
        message.handles().iter().filter(is_own).count()
    }

    /// Whether others could probably use it.
    pub fn is_shared(&self) -> bool {
        self.holds.load(Ordering::Relaxed) > 1
    }

    /// Whether there is room for messages. If not, a sender has to be listed to be found.
    pub fn has_capacity(&self) -> bool {
        self.capacity > 0
    }

    /// Whether somebody who receives, or sends, need probably not wait.
    pub fn is_ready(&self, is_receiver: bool) -> bool {
        let wanted = if is_receiver { CAN_RECEIVE } else { CAN_SEND };
        self.hints.load(Ordering::Acquire) & wanted != 0
    }

    fn lock(&self) -> Locked<'_> {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => lock_contended(self.held_state()),
        };
        Locked { channel: self, state }
    }

    /// The state, while another thread holds it; unless that is not there in this process.
    fn held_state(&self) -> &Mutex<State> {
        if self.pid == process::id() {
            return &self.state;
        }
        self.orphaned.get_or_init(|| Mutex::new(State { is_closed: true, ..State::new() }))
    }
}

/// The state of a channel, which it is locked for.
struct Locked<'a> {
    channel: &'a Channel,
    state: MutexGuard<'a, State>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let State { is_closed, messages, senders, receivers, .. } = &*self.state;
        let can_receive = *is_closed || !messages.is_empty() || !senders.is_empty();
        let can_send = *is_closed || messages.len() < self.channel.capacity || !receivers.is_empty();
        let hints = if can_receive { CAN_RECEIVE } else { 0 } | if can_send { CAN_SEND } else { 0 };
        if self.channel.hints.load(Ordering::Relaxed) != hints {
            self.channel.hints.store(hints, Ordering::Release);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let listed = mem::take(&mut state.senders).into_values().map(|listed| listed.message);
        bury(mem::take(&mut state.messages).into_iter().map(|(_, message)| message).chain(listed));
    }
}

/// A channel that somebody could use: a VM, or whoever gets a message.
#[derive(Debug)]
pub struct Hold(Arc<Channel>);

impl Hold {
    /// One more.
    pub fn new(channel: &Arc<Channel>) -> Self {
        channel.holds.fetch_add(1, Ordering::SeqCst);
        Hold(Arc::clone(channel))
    }

    /// What is held.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.0
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        Hold::new(&self.0)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::SeqCst);
        let mut after = After::default();
        let mut state = self.0.lock();
        self.0.look_for_others(&mut state, &mut after);
    }
}

#[cfg(test)]
mod tests;
