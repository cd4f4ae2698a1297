//! Channels without a VM.

use std::thread;

use super::super::stored::Scalar;
use super::super::{NO_PLACE, Table};
use super::*;
use crate::runtime::CompletionQueue;
use crate::worker::job::Waker;
use crate::worker::{Completion, Message};

type Completions = Arc<CompletionQueue<Completion>>;

fn message(text: &str) -> Stored {
    Stored::Scalar(Scalar::String(text.as_bytes().into()))
}

fn with_handles(handles: Vec<Handle>) -> Stored {
    Stored::Message(Message { bytes: Vec::new(), handles, ..Message::default() })
}

fn text(message: Stored) -> String {
    let Stored::Scalar(Scalar::String(text)) = message else { panic!("{message:?}") };
    String::from_utf8(text.into()).unwrap()
}

fn send(channel: &Hold, text: &str) -> Sending {
    channel.channel().send(message(text), None)
}

fn receive(channel: &Hold) -> Option<String> {
    match channel.channel().receive(None) {
        Receiving::Received(message) => Some(text(message)),
        _ => None,
    }
}

fn waiter() -> (Arc<Waiter>, Completions) {
    let completions = Arc::new(CompletionQueue::new());
    (Waiter::new(Some(Waker::new(&completions))), completions)
}

fn woken(completions: &Completions) -> Vec<Place> {
    completions.take().into_iter().map(|completion| completion.number).collect()
}

fn listen(channel: &Hold, waiter: &Arc<Waiter>, case: usize) -> Receiving {
    channel.channel().receive(Some((waiter, case)))
}

fn given(waiter: &Waiter) -> (usize, String) {
    match waiter.take() {
        Some((case, Ended::Received(delivery))) => (case, text(delivery.take().unwrap())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_come_in_order_up_to_the_capacity() {
    let channel = Channel::open(2);
    assert!(matches!(send(&channel, "a"), Sending::Sent) && matches!(send(&channel, "b"), Sending::Sent));
    assert!(matches!(send(&channel, "c"), Sending::Full(_)));
    assert_eq!(channel.channel().length(), 2);
    assert_eq!([receive(&channel), receive(&channel), receive(&channel)], [Some("a".into()), Some("b".into()), None]);
}

#[test]
fn a_dropped_delivery_goes_to_the_next_receiver_and_then_to_the_front() {
    let channel = Channel::open(9);
    let waiters: Vec<_> = (0..2).map(|_| waiter().0).collect();
    for waiter in &waiters {
        assert!(matches!(listen(&channel, waiter, 0), Receiving::Listed));
    }
    for text in ["a", "b", "c"] {
        send(&channel, text);
    }
    assert_eq!(channel.channel().length(), 1);
    let (late, _) = waiter();
    for waiter in waiters.iter().rev() {
        drop(waiter.take());
    }
    assert_eq!(channel.channel().length(), 3);
    assert!(matches!(listen(&channel, &late, 0), Receiving::Received(_)));
    assert_eq!([receive(&channel), receive(&channel)], [Some("b".into()), Some("c".into())]);
    let (first, second) = (waiter().0, waiter().0);
    listen(&channel, &first, 0);
    listen(&channel, &second, 3);
    send(&channel, "d");
    drop(first.take());
    assert_eq!(given(&second), (3, "d".into()));
}

#[test]
fn one_case_of_a_waiter_is_done() {
    let (a, b) = (Channel::open(0), Channel::open(0));
    let (waiter, _completions) = waiter();
    listen(&a, &waiter, 0);
    listen(&b, &waiter, 1);
    assert!(matches!(send(&b, "b"), Sending::Sent));
    assert!(matches!(send(&a, "a"), Sending::Full(_)));
    assert_eq!(given(&waiter), (1, "b".into()));
    assert!(!waiter.withdraw());
}

#[test]
fn a_waiter_that_was_withdrawn_is_passed_over() {
    let channel = Channel::open(0);
    let ((gone, _), (stays, completions)) = (waiter(), waiter());
    listen(&channel, &gone, 0);
    listen(&channel, &stays, 0);
    assert!(!gone.withdraw());
    assert!(matches!(send(&channel, "a"), Sending::Sent));
    assert_eq!(woken(&completions), [stays.place()]);
    assert!(stays.withdraw());
    assert_eq!(given(&stays).1, "a");
}

#[test]
fn a_hold_that_goes_wakes_the_one_that_is_left() {
    let channel = Channel::open(0);
    let other = channel.clone();
    let (waiter, completions) = waiter();
    listen(&channel, &waiter, 0);
    assert!(channel.channel().has_others() && completions.is_empty());
    drop(other);
    assert!(!channel.channel().has_others());
    assert_eq!(woken(&completions), [NO_PLACE]);
}

#[test]
fn a_channel_that_only_itself_holds_is_freed() {
    let channel = Channel::open(3);
    let freed = Arc::downgrade(channel.channel());
    for _ in 0..2 {
        let handles = vec![Handle::Channel(channel.clone()), Handle::Channel(channel.clone())];
        channel.channel().send(with_handles(handles), None);
    }
    assert!(!channel.channel().has_others());
    drop(channel);
    assert!(freed.upgrade().is_none());
}

#[test]
fn channels_and_tables_in_each_other_are_freed_without_a_stack() {
    let mut outer = Channel::open(1);
    for number in 0..100_000 {
        let next = Channel::open(2);
        if number % 3 == 0 {
            let table = Arc::new(Table::new());
            table.set(Scalar::Boolean(true), Some(with_handles(vec![Handle::Channel(outer)])));
            next.channel().send(with_handles(vec![Handle::Table(table)]), None);
        } else {
            next.channel().send(with_handles(vec![Handle::Channel(outer)]), None);
        }
        if number % 5 == 0 {
            next.channel().send(with_handles(vec![Handle::Channel(next.clone())]), None);
        }
        outer = next;
    }
}

#[test]
fn two_waiters_on_many_threads_meet_once() {
    let (a, b) = (Channel::open(0), Channel::open(0));
    let met = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..4 {
            let (a, b, met) = (a.clone(), b.clone(), &met);
            scope.spawn(move || {
                for _ in 0..5000 {
                    let (waiter, _completions) = waiter();
                    let channels = if number % 2 == 0 { [&a, &b] } else { [&b, &a] };
                    let mut done = 0;
                    for (case, channel) in channels.into_iter().enumerate() {
                        let me = Some((&waiter, case));
                        done += usize::from(match number < 2 {
                            true => matches!(channel.channel().send(message("x"), me), Sending::Sent),
                            false => matches!(channel.channel().receive(me), Receiving::Received(_)),
                        });
                    }
                    waiter.withdraw();
                    let outcome = waiter.take().map(|(_, outcome)| outcome);
                    assert!(done + usize::from(outcome.is_some()) <= 1);
                    let side: isize = if number < 2 { 1 } else { -1 };
                    let count = done + usize::from(outcome.is_some());
                    if let Some(Ended::Received(delivery)) = outcome {
                        delivery.take();
                    }
                    met.fetch_add(side.wrapping_mul(count as isize) as usize, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(met.load(Ordering::SeqCst), 0);
}

#[test]
fn closing_ends_all_waits() {
    let channel = Channel::open(0);
    let ((receiver, _), (sender, _)) = (waiter(), waiter());
    listen(&channel, &receiver, 0);
    channel.channel().close();
    assert!(matches!(receiver.take(), Some((0, Ended::Closed))));
    let sent = channel.channel().send(message("a"), Some((&sender, 0)));
    assert!(matches!(sent, Sending::Closed) && matches!(send(&channel, "b"), Sending::Closed));
    assert!(matches!(listen(&channel, &waiter().0, 0), Receiving::Closed));
}
