//! Channels: see ../channels.lua. Two threads without a VM: what the machine gives, and a VM can only take from it.
//!
//!     crossbeam [channels | --version]

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use crossbeam_channel::bounded;

const ROUNDS: usize = 9;
const ROUND_TRIPS: u64 = 100_000;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The median of the seconds that each of nine calls takes, after one that is not measured.
fn median_time(mut run: impl FnMut()) -> f64 {
    run();
    let mut times = [0.0; ROUNDS];
    for time in &mut times {
        let start = Instant::now();
        run();
        *time = start.elapsed().as_secs_f64();
    }
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{name}\t{value}\t{unit}");
}

fn round_trips() {
    let (send_there, receive_there) = bounded::<u64>(1);
    let (send_back, receive_back) = bounded::<u64>(1);
    thread::spawn(move || receive_there.iter().try_for_each(|number| send_back.send(number)));
    for number in 0..ROUND_TRIPS {
        send_there.send(number).expect("the thread has ended");
        assert_eq!(receive_back.recv(), Ok(number));
    }
}

/// Sends what `make` gives so many times; ends when the other thread has done with the last what `take` does.
fn one_way<T: Send + 'static>(count: usize, capacity: usize, make: impl Fn() -> T, take: fn(T)) {
    let (send, receive) = bounded::<T>(capacity);
    let receiver = thread::spawn(move || receive.iter().for_each(take));
    for _ in 0..count {
        send.send(make()).expect("the thread has ended");
    }
    drop(send);
    receiver.join().expect("the thread has panicked");
}

fn measure_integers() {
    let count = 1_000_000;
    let seconds = median_time(|| {
        one_way(
            count,
            1024,
            || 42_u64,
            |number| {
                black_box(number);
            },
        );
    });
    report("integer", count as f64 / seconds, "messages/s");
}

/// A string is copied out of one VM and into another, so it is copied twice here too.
fn measure_strings(name: &str, length: usize, count: usize, capacity: usize) {
    let text = vec![b'x'; length];
    let seconds = median_time(|| {
        one_way(
            count,
            capacity,
            || text.clone(),
            |message| {
                black_box(message.clone());
            },
        );
    });
    report(name, count as f64 / seconds, "messages/s");
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("crossbeam-channel {}", env!("CARGO_PKG_VERSION"));
        return;
    }
    report("round_trip", median_time(round_trips) / ROUND_TRIPS as f64 * 1e6, "us");
    measure_integers();
    measure_strings("string_1k", KIB, 200_000, 1024);
    measure_strings("string_1m", MIB, 1000, 16);
}
