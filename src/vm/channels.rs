//! What a VM has to do with channels: those that its program holds, and its tasks that wait.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::worker::Waker;
use crate::worker::shared::channel::{Channel, Receiving, Sending};
use crate::worker::shared::stored::Stored;
use crate::worker::shared::waiter::{Ended, Waiter};
use crate::worker::shared::{Hold, Place};

/// A channel that the program of a VM holds, however many userdata stand for it.
#[derive(Debug)]
pub struct Member {
    channel: Arc<Channel>,
    /// `None` between the jobs of a worker, whose program cannot send anything then.
    hold: RefCell<Option<Hold>>,
    /// The waits of the VM in which it has a part.
    waits: Cell<usize>,
    of: Weak<Registry>,
}

impl Member {
    /// The channel.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Whether tasks of this VM wait for it.
    pub fn is_waited_for(&self) -> bool {
        self.waits.get() > 0
    }

    /// A hold for a message.
    pub fn hold(&self) -> Hold {
        Hold::new(&self.channel)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(registry) = self.of.upgrade() else { return };
        registry.members.borrow_mut().remove(&self.channel.number());
        if self.is_waited_for() {
            registry.drop_unreachable_waits();
        }
    }
}

/// One of the things that a task waits for.
#[derive(Debug)]
pub enum Case {
    /// To send this message; taken when it is listed.
    Send(Rc<Member>, Option<Stored>),
    /// To receive.
    Receive(Rc<Member>),
}

impl Case {
    fn channel(&self) -> &Channel {
        match self {
            Case::Send(member, _) | Case::Receive(member) => &member.channel,
        }
    }

    fn is_receiver(&self) -> bool {
        matches!(self, Case::Receive(_))
    }
}

/// How a case has ended.
#[derive(Debug)]
pub enum Done {
    /// The message was sent.
    Sent,
    /// This message was received.
    Received(Stored),
    /// The channel is closed.
    Closed,
}

/// What cases come to.
#[derive(Debug)]
pub enum Waited {
    /// One has ended, the one with this index.
    Now(usize, Done),
    /// None has.
    Later(Place),
}

#[derive(Debug)]
struct Wait {
    waiter: Arc<Waiter>,
    listings: Vec<Listing>,
}

/// Where a wait is listed.
#[derive(Debug)]
struct Listing {
    channel: Arc<Channel>,
    /// Weak: a program does not hold a channel since its task waits.
    member: Weak<Member>,
    case: usize,
}

impl Wait {
    /// What it has ended with, once.
    fn take(&mut self) -> Option<(usize, Done)> {
        self.unlist();
        let (case, ended) = self.waiter.take()?;
        let done = match ended {
            Ended::Sent => Done::Sent,
            Ended::Closed => Done::Closed,
            Ended::Received(delivery) => Done::Received(delivery.take()?),
        };
        Some((case, done))
    }

    /// Takes it out of all channels.
    fn unlist(&mut self) {
        let is_alone = self.listings.len() == 1;
        for listing in self.listings.drain(..) {
            if let Some(member) = listing.member.upgrade() {
                member.waits.set(member.waits.get() - 1);
            }
            // Who has ended the wait has taken that listing out.
            if !(is_alone && self.waiter.is_done()) {
                listing.channel.unlist(self.waiter.place(), listing.case);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Registry {
    /// By the numbers of their channels.
    members: RefCell<HashMap<Place, Weak<Member>>>,
    waits: RefCell<BTreeMap<Place, Wait>>,
}

impl Registry {
    /// Ends the waits of tasks that were collected with all channels that they waited for.
    fn drop_unreachable_waits(&self) {
        let is_lost = |wait: &Wait| wait.listings.iter().all(|listing| listing.member.strong_count() == 0);
        let lost = self.places(is_lost);
        lost.into_iter().for_each(|place| self.give_up(place));
    }

    fn places(&self, is_wanted: impl Fn(&Wait) -> bool) -> Vec<Place> {
        let waits = self.waits.borrow();
        waits.iter().filter(|(_, wait)| is_wanted(wait)).map(|(place, _)| *place).collect()
    }

    /// Ends a wait; what it was given goes back.
    fn give_up(&self, place: Place) {
        let Some(mut wait) = self.waits.borrow_mut().remove(&place) else { return };
        wait.waiter.withdraw();
        wait.unlist();
        drop(wait.waiter.take());
    }
}

/// The channels of a VM, and its waits.
#[derive(Debug, Default)]
pub struct Channels {
    registry: Rc<Registry>,
    /// Cases that were tried in vain and are to be waited for.
    tried: RefCell<Vec<Case>>,
    /// A message that is on its way into Lua.
    pub received: RefCell<Option<Stored>>,
    random: Cell<u64>,
}

impl Channels {
    /// The member for a channel that arrives.
    pub fn join(&self, hold: Hold) -> Rc<Member> {
        let number = hold.channel().number();
        if let Some(member) = self.member(number) {
            member.hold.borrow_mut().get_or_insert(hold);
            return member;
        }
        let member = Rc::new(Member {
            channel: Arc::clone(hold.channel()),
            hold: RefCell::new(Some(hold)),
            waits: Cell::new(0),
            of: Rc::downgrade(&self.registry),
        });
        self.registry.members.borrow_mut().insert(number, Rc::downgrade(&member));
        member
    }

    /// The member for the channel with this number.
    pub fn member(&self, number: Place) -> Option<Rc<Member>> {
        self.registry.members.borrow().get(&number).and_then(Weak::upgrade)
    }

    /// Sends a message. One for which there is no room is kept, to be waited with.
    pub fn send(&self, member: &Rc<Member>, message: Stored) -> Sending {
        match member.channel.send(message, None) {
            Sending::Full(message) => {
                self.keep(vec![Case::Send(Rc::clone(member), Some(message))]);
                Sending::Listed
            }
            sending => sending,
        }
    }

    fn members(&self) -> Vec<Rc<Member>> {
        self.registry.members.borrow().values().filter_map(Weak::upgrade).collect()
    }

    /// The job of a worker begins: its program can use the channels that it has kept.
    pub fn resume(&self) {
        for member in self.members() {
            member.hold.borrow_mut().get_or_insert_with(|| member.hold());
        }
    }

    /// The job of a worker has ended.
    pub fn pause(&self) {
        for member in self.members() {
            drop(member.hold.take());
        }
    }

    /// Whether tasks wait.
    pub fn is_waiting(&self) -> bool {
        !self.registry.waits.borrow().is_empty()
    }

    /// How many tasks wait.
    pub fn waits(&self) -> usize {
        self.registry.waits.borrow().len()
    }

    /// Whether tasks wait for what others could do.
    pub fn waits_for_others(&self) -> bool {
        let has_others = |wait: &Wait| wait.listings.iter().any(|listing| listing.channel.has_others());
        self.registry.waits.borrow().values().any(has_others)
    }

    /// A random number below `limit`.
    fn random_below(&self, limit: usize) -> usize {
        // Knuth's generator; any is good enough to be fair.
        let next = self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next);
        ((next >> 33) as usize) % limit
    }

    fn shuffled(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.random_below(last + 1));
        }
        order
    }

    /// Keeps cases that were tried in vain.
    pub fn keep(&self, cases: Vec<Case>) {
        drop(self.tried.replace(cases));
    }

    /// Tries cases in a random order; if none is done, they are kept to be waited for.
    pub fn try_cases(&self, mut cases: Vec<Case>) -> Option<Waited> {
        for index in self.shuffled(cases.len()) {
            let done = match &mut cases[index] {
                Case::Receive(member) => received(member.channel.receive(None)),
                Case::Send(member, message) => match member.channel.send(message.take()?, None) {
                    Sending::Full(refused) => {
                        *message = Some(refused);
                        None
                    }
                    sending => sent(sending),
                },
            };
            if let Some(done) = done {
                return Some(Waited::Now(index, done));
            }
        }
        self.keep(cases);
        None
    }

    /// Whether another VM could let one of the cases that are kept be done.
    pub fn has_shared_cases(&self) -> bool {
        self.tried.borrow().iter().any(|case| case.channel().is_shared())
    }

    /// Whether they have to be listed to be found by others.
    pub fn has_to_be_found(&self) -> bool {
        let has_to_be_found = |case: &Case| !case.is_receiver() && !case.channel().has_capacity();
        self.tried.borrow().iter().all(has_to_be_found)
    }

    /// Whether one of the cases that are kept can probably be done.
    pub fn is_ready(&self) -> bool {
        self.tried.borrow().iter().any(|case| case.channel().is_ready(case.is_receiver()))
    }

    /// Tries the cases that are kept.
    pub fn try_again(&self) -> Option<Waited> {
        let cases = self.tried.take();
        self.try_cases(cases)
    }

    /// Waits for the cases that are kept. Calls `look` meanwhile, which looks whether the wait has ended, by the function
    /// that it is given; if it has not by then, `waker` will tell.
    pub fn wait(&self, waker: impl FnOnce() -> Waker, look: Option<impl FnOnce(&dyn Fn() -> bool)>) -> Waited {
        let mut cases = self.tried.take();
        let mut waker = Some(waker);
        let waiter = Waiter::new(if look.is_none() { waker.take().map(|make| make()) } else { None });
        let mut wait = Wait { waiter: Arc::clone(&waiter), listings: Vec::with_capacity(cases.len()) };
        for index in self.shuffled(cases.len()) {
            let me = Some((&waiter, index));
            let (member, done) = match &mut cases[index] {
                Case::Receive(member) => (&*member, received(member.channel.receive(me))),
                Case::Send(member, message) => {
                    let Some(message) = message.take() else { continue };
                    (&*member, sent(member.channel.send(message, me)))
                }
            };
            if let Some(done) = done {
                wait.unlist();
                return Waited::Now(index, done);
            }
            member.waits.set(member.waits.get() + 1);
            let (channel, member) = (Arc::clone(&member.channel), Rc::downgrade(member));
            wait.listings.push(Listing { channel, member, case: index });
        }
        if let Some(look) = look {
            look(&|| waiter.has_ended());
        }
        // If a case was done by others meanwhile, and they have told, that is on its way through the queue.
        if let Some(make) = waker
            && !waiter.tell(make())
            && let Some((case, done)) = wait.take()
        {
            return Waited::Now(case, done);
        }
        self.registry.waits.borrow_mut().insert(waiter.place(), wait);
        Waited::Later(waiter.place())
    }

    /// Ends a wait, unless it is done. Returns whether it is done: then it is to be taken or given up.
    pub fn withdraw(&self, place: Place) -> bool {
        let mut waits = self.registry.waits.borrow_mut();
        let Some(wait) = waits.get_mut(&place) else { return false };
        let is_done = wait.waiter.withdraw();
        wait.unlist();
        if !is_done {
            waits.remove(&place);
        }
        is_done
    }

    /// What a wait has ended with, once.
    pub fn take(&self, place: Place) -> Option<(usize, Done)> {
        let mut wait = self.registry.waits.borrow_mut().remove(&place)?;
        wait.take()
    }

    /// Ends a wait; what it was given goes back.
    pub fn give_up(&self, place: Place) {
        self.registry.give_up(place);
    }

    /// Ends all waits.
    pub fn discard(&self) {
        self.registry.places(|_| true).into_iter().for_each(|place| self.registry.give_up(place));
        self.tried.take();
    }

    /// In the child of a fork, lets the waits go on there, as far as they are whole.
    pub fn rewake(&self, waker: &Waker) {
        let is_lost = |wait: &Wait| !wait.waiter.rewake(waker.clone());
        for place in self.registry.places(is_lost) {
            // Its waiter must not be touched, nor found by others.
            let wait = self.registry.waits.borrow_mut().remove(&place);
            for listing in wait.iter().flat_map(|wait| &wait.listings) {
                listing.channel.unlist(place, listing.case);
            }
        }
    }
}

/// `None` if it is listed, or there is none, or another case was done meanwhile, which the waiter has.
fn received(receiving: Receiving) -> Option<Done> {
    match receiving {
        Receiving::Received(message) => Some(Done::Received(message)),
        Receiving::Closed => Some(Done::Closed),
        Receiving::Empty | Receiving::Listed | Receiving::Elsewhere => None,
    }
}

fn sent(sending: Sending) -> Option<Done> {
    match sending {
        Sending::Sent => Some(Done::Sent),
        Sending::Closed => Some(Done::Closed),
        Sending::Full(_) | Sending::Listed | Sending::Elsewhere => None,
    }
}
