//! What a logged-in user costs who says nothing: `cargo bench --bench crowd [-- USERS]` logs in 10,000 users on the default configuration and
//! prints resident memory per user, the time that the logins took, and the processor time of ten idle seconds.

#[allow(dead_code)]
mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

const IDLE: Duration = Duration::from_secs(10);

fn main() {
    let users: usize = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let server = common::Process::server();
    let before_kib = server.resident_kib();
    let started = Instant::now();
    let crowd: Vec<TcpStream> =
        (0..users).map(|user| common::log_in(server.address, &format!("crowd-{user}"))).collect();
    let took = started.elapsed();
    let after_kib = server.resident_kib();
    println!("{users} users logged in, one after another, in {:.1} s", took.as_secs_f64());
    // The timer writes their last-seen times; then nobody has anything to do.
    std::thread::sleep(Duration::from_secs(3));
    let cpu = server.cpu();
    std::thread::sleep(IDLE);
    let idle_cpu = server.cpu() - cpu;
    let settled_kib = server.resident_kib();
    println!("resident: {before_kib} KiB before, {after_kib} KiB after the logins, {settled_kib} KiB idle");
    println!("resident per user: {:.1} KiB", (settled_kib - before_kib) as f64 / crowd.len() as f64);
    println!("processor time of {} idle seconds: {} ms", IDLE.as_secs(), idle_cpu.as_millis());
}
