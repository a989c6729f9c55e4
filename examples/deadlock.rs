//! BROKEN ON PURPOSE: two threads that wait for each other for ever. Lesson 9 (docs/lessons/09-threads-and-locks.md) finds out why with gdb.
//!
//! ann and bob write to each other. Each message takes two locks: the sender's mailbox, to count what was sent, and the recipient's, to
//! count what came. `rustc -g examples/deadlock.rs` builds it without anything else.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const MESSAGES: u64 = 2_000_000;

struct User {
    name: &'static str,
    mailbox: Mutex<Mailbox>,
    progress: AtomicU64,
}

#[derive(Default)]
struct Mailbox {
    sent: u64,
    received: u64,
}

fn forward(from: &User, to: &User) {
    let mut own = from.mailbox.lock().unwrap();
    let mut other = to.mailbox.lock().unwrap();
    own.sent += 1;
    other.received += 1;
    from.progress.fetch_add(1, Relaxed);
}

fn send_all(from: &User, to: &User) {
    for _ in 0..MESSAGES {
        forward(from, to);
    }
}

fn main() {
    let ann = Arc::new(User { name: "ann", mailbox: Mutex::default(), progress: AtomicU64::new(0) });
    let bob = Arc::new(User { name: "bob", mailbox: Mutex::default(), progress: AtomicU64::new(0) });
    for (from, to) in [(ann.clone(), bob.clone()), (bob.clone(), ann.clone())] {
        thread::Builder::new().name(from.name.to_owned()).spawn(move || send_all(&from, &to)).unwrap();
    }

    // Looks from outside, and takes no lock: a watchdog that waits for the same locks would be stuck with the others.
    let mut before = (0, 0);
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = (ann.progress.load(Relaxed), bob.progress.load(Relaxed));
        if now == (MESSAGES, MESSAGES) {
            return println!("ann and bob have sent {MESSAGES} messages each");
        }
        if now == before {
            println!("nothing moves: ann has sent {}, bob {}", now.0, now.1);
        }
        before = now;
    }
}
