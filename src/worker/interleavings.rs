//! Protocols between threads, tried in the orders that their threads can interleave in: see `runtime/sync.rs`.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::crew::{Crew, Executor};
use super::job::{Cancelled, Completion, Environment, Failure, Job, Message, Outcome, Request, Waker};
use super::pool::Settings;
use super::seat::{Seat, Taken};
use super::shared::channel::{Channel, Receiving, Sending};
use super::shared::stored::{Scalar, Stored};
use super::shared::waiter::{Ended, Waiter};
use super::shared::{Hold, Mutex, Place};
use crate::runtime::CompletionQueue;
use crate::runtime::sync::atomic::{AtomicUsize, Ordering};
use crate::runtime::sync::thread;

type Completions = Arc<CompletionQueue<Completion>>;

/// Tries orders with up to so many switches where no thread has to wait. Most faults need no more than two.
fn in_all_orders(switches: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut tries = loom::model::Builder::new();
    tries.preemption_bound = tries.preemption_bound.or(Some(switches));
    tries.check(test);
}

/// As the Lua thread does; loom's notice blocks the thread, so the future is ready at once.
fn park<T>(completions: &CompletionQueue<T>) {
    let context = &mut Context::from_waker(std::task::Waker::noop());
    assert_eq!(pin!(completions.posted()).poll(context), Poll::Ready(()));
}

fn completions() -> Completions {
    Arc::new(CompletionQueue::new())
}

#[test]
fn what_is_posted_wakes_the_thread_and_arrives() {
    in_all_orders(3, || {
        let queue = Arc::new(CompletionQueue::new());
        let posting: Vec<_> = (0..2)
            .map(|n| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || (0..2).for_each(|m| queue.post(2 * n + m)))
            })
            .collect();
        let mut taken = Vec::new();
        while taken.len() < 4 {
            park(&queue);
            taken.extend(queue.take());
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3]);
        posting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn what_is_posted_while_the_queue_closes_is_dropped_or_was_taken() {
    in_all_orders(4, || {
        let queue = Arc::new(CompletionQueue::new());
        let value = Arc::new(());
        let posting = {
            let (queue, value) = (Arc::clone(&queue), Arc::clone(&value));
            thread::spawn(move || (0..2).for_each(|_| queue.post(Arc::clone(&value))))
        };
        let taken = queue.take().len();
        queue.close();
        posting.join().unwrap();
        assert!(taken <= 2 && queue.is_empty() && queue.take().is_empty());
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

/// Waits until one of the places was told of.
fn wait_for(place: Place, completions: &Completions) {
    loop {
        park(completions);
        if completions.take().iter().any(|completion| completion.number == place) {
            return;
        }
    }
}

fn message(n: i64) -> Stored {
    Stored::Scalar(Scalar::Integer(n))
}

fn number(message: Stored) -> i64 {
    let Stored::Scalar(Scalar::Integer(n)) = message else { panic!("{message:?}") };
    n
}

/// What a wait has come to: whether a message was sent, and the one that was received.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Sent,
    Received(i64),
    Closed,
}

fn came(ended: Ended) -> Came {
    match ended {
        Ended::Sent => Came::Sent,
        Ended::Received(delivery) => Came::Received(number(delivery.take().unwrap())),
        Ended::Closed => Came::Closed,
    }
}

fn sent(sending: Sending) -> Option<Came> {
    match sending {
        Sending::Sent => Some(Came::Sent),
        Sending::Closed => Some(Came::Closed),
        Sending::Listed | Sending::Elsewhere => None,
        Sending::Full(_) => panic!("a waiter is listed"),
    }
}

fn received(receiving: Receiving) -> Option<Came> {
    match receiving {
        Receiving::Received(message) => Some(Came::Received(number(message))),
        Receiving::Closed => Some(Came::Closed),
        Receiving::Listed | Receiving::Elsewhere => None,
        Receiving::Empty => panic!("a waiter is listed"),
    }
}

/// One thing that a task would do; nothing has come of it yet if it is listed.
type Case<'a> = &'a dyn Fn(&Arc<Waiter>, usize) -> Option<Came>;

/// As a task does: acts, and waits if it has to. It is told from the beginning, or looks first, as a VM does.
fn act(tells_late: bool, cases: &[Case<'_>]) -> (usize, Came) {
    let completions = completions();
    let waiter = Waiter::new((!tells_late).then(|| Waker::new(&completions)));
    for (index, case) in cases.iter().enumerate() {
        if let Some(came) = case(&waiter, index) {
            return (index, came);
        }
    }
    if !tells_late || waiter.tell(Waker::new(&completions)) {
        wait_for(waiter.place(), &completions);
    }
    let (case, ended) = waiter.take().unwrap();
    (case, came(ended))
}

fn send(channel: &Hold, n: i64) -> impl Fn(&Arc<Waiter>, usize) -> Option<Came> {
    move |waiter, case| sent(channel.channel().send(message(n), Some((waiter, case))))
}

fn receive(channel: &Hold) -> impl Fn(&Arc<Waiter>, usize) -> Option<Came> {
    move |waiter, case| received(channel.channel().receive(Some((waiter, case))))
}

#[test]
fn messages_arrive_once_and_in_order_however_little_room_there_is() {
    for (capacity, tells_late) in [(0, false), (0, true), (1, false), (1, true)] {
        in_all_orders(3, move || {
            let channel = Channel::open(capacity);
            let sender = channel.clone();
            let sending = thread::spawn(move || {
                for n in 0..2 {
                    assert_eq!(act(tells_late, &[&send(&sender, n)]), (0, Came::Sent));
                }
            });
            for n in 0..2 {
                assert_eq!(act(tells_late, &[&receive(&channel)]), (0, Came::Received(n)));
            }
            sending.join().unwrap();
        });
    }
}

#[test]
fn two_receivers_get_a_message_each() {
    in_all_orders(2, || {
        let channel = Channel::open(1);
        let receiving: Vec<_> = (0..2)
            .map(|n| {
                let channel = channel.clone();
                thread::spawn(move || act(n == 0, &[&receive(&channel)]).1)
            })
            .collect();
        (0..2).for_each(|n| assert_eq!(act(false, &[&send(&channel, n)]).1, Came::Sent));
        let received: Vec<_> = receiving.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(
            received == [Came::Received(0), Came::Received(1)] || received == [Came::Received(1), Came::Received(0)]
        );
    });
}

#[test]
fn selects_that_meet_do_one_case_each() {
    for tells_late in [false, true] {
        in_all_orders(3, move || {
            let (a, b) = (Channel::open(0), Channel::open(0));
            let (other_a, other_b) = (a.clone(), b.clone());
            let other = thread::spawn(move || act(tells_late, &[&receive(&other_b), &receive(&other_a)]));
            let (case, came) = act(tells_late, &[&send(&a, 0), &send(&b, 1)]);
            let (other_case, other_came) = other.join().unwrap();
            assert_eq!((came, other_came), (Came::Sent, Came::Received(case as i64)));
            assert_eq!(other_case, 1 - case);
        });
    }
}

#[test]
fn a_select_between_two_receivers_is_done_with_one() {
    in_all_orders(2, || {
        let channels = [Channel::open(0), Channel::open(0)];
        let receiving = channels.clone().map(|channel| thread::spawn(move || act(false, &[&receive(&channel)]).1));
        let (case, came) = act(false, &[&send(&channels[0], 0), &send(&channels[1], 1)]);
        channels.iter().for_each(|channel| channel.channel().close());
        let received = receiving.map(|thread| thread.join().unwrap());
        assert_eq!(
            (came, &received[case], &received[1 - case]),
            (Came::Sent, &Came::Received(case as i64), &Came::Closed)
        );
    });
}

#[test]
fn a_message_for_a_receiver_that_gives_up_is_not_lost() {
    for capacity in [0, 1] {
        in_all_orders(4, move || {
            let channel = Channel::open(capacity);
            let sender = channel.clone();
            let sending = thread::spawn(move || match sender.channel().send(message(1), None) {
                Sending::Sent => 1,
                Sending::Full(_) => 0,
                other => panic!("{other:?}"),
            });
            let completions = completions();
            let waiter = Waiter::new(Some(Waker::new(&completions)));
            let mut got = usize::from(received(channel.channel().receive(Some((&waiter, 0)))).is_some());
            if waiter.withdraw() {
                // Cancelled, it takes nothing any more: what it was given goes back.
                drop(waiter.take());
            }
            channel.channel().unlist(waiter.place(), 0);
            let sent = sending.join().unwrap();
            got += usize::from(matches!(channel.channel().receive(None), Receiving::Received(_)));
            assert_eq!(got, sent);
        });
    }
}

#[test]
fn whoever_waits_hears_that_the_channel_closes() {
    in_all_orders(3, || {
        let channel = Channel::open(0);
        let waiting: Vec<_> = (0..2)
            .map(|n| {
                let channel = channel.clone();
                thread::spawn(move || match n {
                    0 => act(true, &[&receive(&channel)]).1,
                    _ => act(false, &[&send(&channel, 7)]).1,
                })
            })
            .collect();
        channel.channel().close();
        let came: Vec<_> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(came == [Came::Closed, Came::Closed] || came == [Came::Received(7), Came::Sent], "{came:?}");
    });
}

#[test]
fn a_receiver_hears_that_nobody_is_left_who_could_send() {
    in_all_orders(4, || {
        let channel = Channel::open(0);
        let other = channel.clone();
        let dropping = thread::spawn(move || drop(other));
        let completions = completions();
        let waiter = Waiter::new(Some(Waker::new(&completions)));
        assert!(matches!(channel.channel().receive(Some((&waiter, 0))), Receiving::Listed));
        // As a loop does: it sleeps only while others could end the wait.
        while channel.channel().has_others() {
            park(&completions);
            completions.take();
        }
        dropping.join().unwrap();
    });
}

#[test]
fn a_mutex_is_held_by_one_at_a_time_and_handed_to_all_who_wait() {
    in_all_orders(3, || {
        let (mutex, inside) = (Arc::new(Mutex::new()), Arc::new(AtomicUsize::new(0)));
        let locking: Vec<_> = (0..2)
            .map(|_| {
                let (mutex, inside) = (Arc::clone(&mutex), Arc::clone(&inside));
                thread::spawn(move || {
                    let completions = completions();
                    let (place, is_held) = mutex.lock(Waker::new(&completions));
                    if !is_held {
                        wait_for(place, &completions);
                    }
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    inside.fetch_sub(1, Ordering::Relaxed);
                    mutex.leave(place);
                })
            })
            .collect();
        // One that gives up, at whatever moment.
        let completions = completions();
        let (place, _) = mutex.lock(Waker::new(&completions));
        mutex.leave(place);
        locking.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!mutex.is_locked());
    });
}

#[test]
fn a_mutex_goes_on_when_the_vm_that_is_next_closes() {
    in_all_orders(4, || {
        let mutex = Arc::new(Mutex::new());
        let held = mutex.try_lock().unwrap();
        let closing = {
            let mutex = Arc::clone(&mutex);
            thread::spawn(move || {
                let completions = completions();
                let (place, _) = mutex.lock(Waker::new(&completions));
                completions.close();
                mutex.leave(place);
            })
        };
        mutex.leave(held);
        closing.join().unwrap();
        assert!(!mutex.is_locked());
    });
}

/// Does nothing with its jobs but end them.
struct Plain(Rc<Seat>);

impl Executor for Plain {
    fn work(self: Box<Self>) -> bool {
        loop {
            match self.0.take(true) {
                Taken::Job(run, _) => self.0.end(run, Outcome::Done(Message::default())),
                Taken::Nothing => {}
                Taken::Leave => return true,
            }
        }
    }
}

fn plain(seat: Rc<Seat>) -> Result<Box<dyn Executor>, Box<Failure>> {
    Ok(Box::new(Plain(seat)))
}

fn settings(size: usize) -> Arc<Settings> {
    Arc::new(Settings { idle: None, ..Settings::new("tried", size) })
}

fn job(n: u64, completions: &Completions) -> Arc<Job> {
    let environment = Arc::new(Environment::default());
    Job::new(n, completions, Request { call: Message::default(), environment, mapped: None })
}

/// Waits until so many jobs have ended, or more.
fn wait_for_ends(count: usize, completions: &Completions) -> usize {
    let mut seen = 0;
    while seen < count {
        park(completions);
        seen += completions.take().len();
    }
    seen
}

#[test]
fn every_job_is_taken_whenever_workers_come_and_sleep() {
    for size in [1, 2] {
        in_all_orders(2, move || {
            let crew = Crew::new(&settings(size), plain);
            let completions = completions();
            for n in 1..=2 {
                crew.submit(&job(n, &completions), false).unwrap();
            }
            wait_for_ends(2, &completions);
            crew.submit(&job(3, &completions), false).unwrap();
            wait_for_ends(1, &completions);
            crew.close();
        });
    }
}

#[test]
fn jobs_of_two_threads_are_taken() {
    in_all_orders(2, || {
        let crew = Crew::new(&settings(1), plain);
        let other = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || {
                let completions = completions();
                crew.submit(&job(1, &completions), false).unwrap();
                wait_for_ends(1, &completions);
            })
        };
        let completions = completions();
        crew.submit(&job(1, &completions), false).unwrap();
        wait_for_ends(1, &completions);
        other.join().unwrap();
        crew.close();
    });
}

#[test]
fn a_job_that_is_cancelled_holds_up_no_other() {
    in_all_orders(2, || {
        let crew = Crew::new(&settings(1), plain);
        let completions = completions();
        let jobs = [job(1, &completions), job(2, &completions)];
        jobs.iter().for_each(|job| crew.submit(job, false).unwrap());
        let cancelled = jobs[0].cancel(None);
        let was_too_late = matches!(cancelled, Cancelled::TooLate);
        crew.note_cancelled(&jobs[0], cancelled);
        wait_for_ends(if was_too_late { 2 } else { 1 }, &completions);
        crew.close();
    });
}

/// A worker each of whose jobs waits for others a while, so that there are more workers than there may be afterwards.
struct Blocking(Rc<Seat>);

impl Executor for Blocking {
    fn work(self: Box<Self>) -> bool {
        loop {
            match self.0.take(true) {
                Taken::Job(run, _) => {
                    self.0.while_parked(true, || {});
                    self.0.end(run, Outcome::Done(Message::default()));
                }
                Taken::Nothing => {}
                Taken::Leave => return true,
            }
        }
    }
}

#[test]
fn a_worker_too_many_that_leaves_leaves_no_job_behind() {
    in_all_orders(2, || {
        let crew = Crew::new(&settings(1), |seat| Ok(Box::new(Blocking(seat))));
        let completions = completions();
        (1..=2).for_each(|n| crew.submit(&job(n, &completions), false).unwrap());
        let seen = wait_for_ends(1, &completions);
        crew.submit(&job(3, &completions), false).unwrap();
        wait_for_ends(3 - seen, &completions);
        crew.close();
    });
}

/// A worker whose first job waits, and which listens for another one meanwhile.
struct Listening(Rc<Seat>);

impl Executor for Listening {
    fn work(self: Box<Self>) -> bool {
        let completions = completions();
        let Taken::Job(first, _) = self.0.take(true) else { return true };
        loop {
            match self.0.take(false) {
                Taken::Job(second, _) => {
                    self.0.end(second, Outcome::Done(Message::default()));
                    break;
                }
                _ if self.0.listen(&completions) => {
                    park(&completions);
                    completions.take();
                }
                _ => {}
            }
        }
        self.0.end(first, Outcome::Done(Message::default()));
        Box::new(Plain(Rc::clone(&self.0))).work()
    }
}

#[test]
fn a_worker_that_has_room_hears_of_a_job() {
    in_all_orders(3, || {
        let crew = Crew::new(&settings(1), |seat| Ok(Box::new(Listening(seat))));
        let completions = completions();
        (1..=2).for_each(|n| crew.submit(&job(n, &completions), false).unwrap());
        wait_for_ends(2, &completions);
        crew.close();
    });
}

#[test]
fn whoever_waits_for_room_hears_of_it() {
    in_all_orders(3, || {
        let crew = Crew::new(&Arc::new(Settings { idle: None, queue: 0, ..Settings::new("tried", 1) }), plain);
        let completions = completions();
        let mut ended = 0;
        for n in 1..=2 {
            let job = job(n, &completions);
            while crew.submit(&job, true).is_err() {
                // Looked at again once it is watched, or the notice may have come before.
                crew.watch(&completions);
                if crew.has_no_room() {
                    park(&completions);
                    ended += completions.take().iter().filter(|completion| completion.number > 0).count();
                }
            }
        }
        while ended < 2 {
            park(&completions);
            ended += completions.take().iter().filter(|completion| completion.number > 0).count();
        }
        crew.close();
    });
}
