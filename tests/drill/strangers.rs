//! A million strangers who connect and go, none of whom logs in: some silent, some with half a packet, some with garbage, in order or with a
//! reset. Hardening: leak per connection that never logs in.
//!
//! A reset leaves no port in TIME_WAIT, so the ports of this machine last. Each thread has some connections open at a time, the oldest goes first.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::{PATIENCE, Pair, Server, happens_within};
use crate::holdings::{Holdings, mib};
use crate::{net, process};

/// Threads of strangers.
const THREADS: u64 = 2;

/// Connections of a thread at a time. All of them together are fewer than `max_strangers`.
const OPEN: usize = 100;

/// What the allocator may keep, KiB: two bytes for each of a million.
const ALLOWED_KIB: u64 = 2048;

/// Lets `times` strangers come and go.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut server = process::start(&place.path().join("data"), |setup| {
        // The pair says nothing while the others come and go.
        setup.set("log_level", "error").set("read_timeout", "1 h")
    });
    let mut pair = Pair::of(&server, "healthy", "happy");
    let before = Holdings::at_rest(&server);
    let mut wrong = Vec::new();
    // What the allocator keeps for so many threads at a time is not counted.
    crowd(&server, u64::from(times / 10).min(20_000), seed);
    wrong.extend(before.come_back(&server));
    let before_kib = server.rss_kib();
    let began = Instant::now();
    let refused = crowd(&server, times.into(), seed + 1);
    let rate = f64::from(times) / began.elapsed().as_secs_f64();
    wrong.extend(before.come_back(&server));
    let is_counted_out = happens_within(PATIENCE, || {
        process::ask(&server.data(), "status").is_ok_and(|status| process::number(&status, "connections.open") == 2)
    });
    if !is_counted_out {
        wrong.push("two connections are left, and the gauge says something else".into());
    }
    let after_kib = server.rss_kib();
    if after_kib > before_kib + ALLOWED_KIB {
        wrong.push(format!("{} KiB more memory than before", after_kib - before_kib));
    }
    pair.chat();
    let panicked = server.logged("panicked");
    if panicked > 0 {
        wrong.push(format!("{panicked} threads panicked"));
    }
    let ended = server.sigterm();
    if !ended.success() {
        wrong.push(format!("at the end SIGTERM: {ended}"));
    }
    let line = format!(
        "strangers: {times} came and went, {rate:.0}/s, {refused} refused; memory {} before, {} after; {} before and after",
        mib(before_kib * 1024),
        mib(after_kib * 1024),
        before.line(),
    );
    Outcome { line, wrong }
}

/// So many come and go; gives the number of those that the system or the server turned away.
fn crowd(server: &Server, times: u64, seed: u64) -> u64 {
    let (refused, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let address: SocketAddr = server.addr().parse().expect("an address");
    thread::scope(|scope| {
        for begun in 0..THREADS {
            let (refused, done) = (&refused, &done);
            scope.spawn(move || {
                let mut dice = Dice::new(seed, begun);
                let mut open = VecDeque::with_capacity(OPEN + 1);
                for _ in (begun..times).step_by(THREADS as usize) {
                    match TcpStream::connect(address) {
                        Ok(socket) => open.push_back(socket),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "a stranger connects: {error}");
                            refused.fetch_add(1, Relaxed);
                            // The others' ports are free as soon as they have gone.
                            open.drain(..).for_each(net::reset);
                        }
                    }
                    if let Some(socket) = open.back_mut()
                        && !say(socket, &mut dice)
                    {
                        refused.fetch_add(1, Relaxed);
                    }
                    if open.len() > OPEN {
                        open.drain(..1).for_each(|socket| go(socket, &mut dice));
                    }
                    if done.fetch_add(1, Relaxed) % 100_000 == 99_999 {
                        eprintln!("strangers: {} of {times}", done.load(Relaxed));
                    }
                }
                open.drain(..).for_each(|socket| go(socket, &mut dice));
            });
        }
    });
    refused.into_inner()
}

/// What a stranger says first, if anything; `false`: it has been turned away.
pub fn say(socket: &mut TcpStream, dice: &mut Dice) -> bool {
    let header = [0, 0, 0, 40, 0, 0, 0, 1, 9, 9, 9, 9];
    let words = match dice.roll(5) {
        0 | 1 => return true,
        2 => &header[..4],
        3 => &header,
        _ => &dice.next().to_be_bytes(),
    };
    socket.write_all(words).is_ok()
}

/// A stranger goes: with a reset, or with a good-bye first.
pub fn go(socket: TcpStream, dice: &mut Dice) {
    if dice.is_one_in(5) {
        let _ = socket.shutdown(Shutdown::Write);
    }
    net::reset(socket);
}

/// Strangers come and go, some fifty a second, until `is_over`.
pub fn trickle(server: &Server, seed: u64, is_over: impl Fn(Duration) -> bool) -> u64 {
    let (mut dice, mut open, mut count) = (Dice::new(seed, 1), VecDeque::new(), 0);
    while !is_over(dice.millis(0, 40)) {
        let mut socket = server.socket();
        say(&mut socket, &mut dice);
        open.push_back(socket);
        count += 1;
        if open.len() > 20 {
            open.drain(..1).for_each(|socket| go(socket, &mut dice));
        }
    }
    count
}
