//! How much processor a message costs the server, beside the least that any thread-per-connection relay can cost: the same packets through a
//! bare relay (no crypto, no parsing, one thread per connection, bytes from A to B) and through the server, in turn, in one run.
//!
//! `cargo bench --bench stream` prints for both the CPU of their process per message and the ratio; nothing is asserted, since machines differ.

#[allow(dead_code)]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::Process;

const PAIRS: usize = 16;
const TEXT_BYTES: usize = 100;
const ROUNDS: usize = 5;
const ROUND_TIME: Duration = Duration::from_secs(2);

fn main() {
    if std::env::args().any(|argument| argument == "--relay") {
        return relay();
    }
    println!(
        "{PAIRS} pairs, texts of {TEXT_BYTES} bytes; CPU of the server's process per message, in µs; {ROUNDS} rounds in turn"
    );
    for (in_flight, in_write) in [(32, 32), (32, 1), (1, 1)] {
        let (mut relay, mut server) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            relay.push(measure(Kind::Relay, in_flight, in_write));
            server.push(measure(Kind::Server, in_flight, in_write));
        }
        let ratios: Vec<f64> = relay.iter().zip(&server).map(|(relay, server)| server.cpu_us / relay.cpu_us).collect();
        println!("in flight {in_flight}, up to {in_write} in one write of the client:");
        line("bare relay", &relay);
        line("chatserver", &server);
        println!("  ratio of CPU per message, median: {:.2}  (each round: {ratios:.2?})", median(ratios.clone()));
    }
}

fn line(name: &str, results: &[Result]) {
    let cpu = median(results.iter().map(|result| result.cpu_us).collect());
    let rate = median(results.iter().map(|result| result.per_second).collect());
    println!("  {name}: {cpu:.2} µs of CPU per message, {rate:.0} messages/s");
}

fn median(mut values: Vec<f64>) -> f64 {
    common::quantile(&mut values, 0.5)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Relay,
    Server,
}

struct Result {
    cpu_us: f64,
    per_second: f64,
}

fn start(kind: Kind) -> Process {
    if kind == Kind::Server {
        return Process::server();
    }
    let mut relay = Command::new(std::env::current_exe().expect("our own path"));
    relay.arg("--relay");
    Process::start(relay, tempfile::tempdir().expect("a temporary directory"))
}

fn measure(kind: Kind, in_flight: usize, in_write: usize) -> Result {
    let process = start(kind);
    let address = process.address;
    let (ready, start) = (mpsc::channel(), std::sync::Arc::new(std::sync::Barrier::new(PAIRS + 1)));
    let pairs: Vec<_> = (0..PAIRS)
        .map(|pair| {
            let (ready, start) = (ready.0.clone(), start.clone());
            thread::spawn(move || {
                let streams = connect(kind, address, pair);
                ready.send(()).expect("the main thread waits");
                start.wait();
                stream(streams, pair, in_flight, in_write)
            })
        })
        .collect();
    pairs.iter().for_each(|_| ready.1.recv().expect("a pair is ready"));
    let cpu_before = process.cpu();
    let started = Instant::now();
    start.wait();
    let messages: u64 = pairs.into_iter().map(|pair| pair.join().expect("no pair fails")).sum();
    let elapsed = started.elapsed();
    let cpu = process.cpu() - cpu_before;
    Result { cpu_us: cpu.as_secs_f64() * 1e6 / messages as f64, per_second: messages as f64 / elapsed.as_secs_f64() }
}

fn name(pair: usize, side: char) -> String {
    format!("bench-{pair:02}-{side}")
}

/// Two connected clients, ready to write and to read.
fn connect(kind: Kind, address: SocketAddr, pair: usize) -> (TcpStream, TcpStream) {
    let join = |side: char| match kind {
        Kind::Server => common::log_in(address, &name(pair, side)),
        Kind::Relay => {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.set_nodelay(true).expect("a socket");
            stream.write_all(&[pair as u8 * 2 + u8::from(side == 'b')]).expect("writes");
            stream.read_exact(&mut [0]).expect("an answer");
            stream
        }
    };
    let a = join('a');
    (a, join('b'))
}

/// Keeps `in_flight` messages on their way from A to B for the time of a round; gives the number that arrived.
fn stream((mut a, mut b): (TcpStream, TcpStream), pair: usize, in_flight: usize, in_write: usize) -> u64 {
    let packet = common::message(&name(pair, 'a'), &name(pair, 'b'), &"x".repeat(TEXT_BYTES));
    let packets = packet.repeat(in_flight);
    let mut buffer = vec![0; 64 * 1024];
    let (mut sent, mut received_bytes) = (0u64, 0u64);
    let started = Instant::now();
    loop {
        let received = received_bytes / packet.len() as u64;
        let now_due = in_flight as u64 - (sent - received);
        if started.elapsed() < ROUND_TIME {
            for packets in packets[..now_due as usize * packet.len()].chunks(in_write * packet.len()) {
                a.write_all(packets).expect("writes");
            }
            sent += now_due;
        } else if received == sent {
            return received;
        }
        let count = b.read(&mut buffer).expect("reads");
        assert!(count > 0, "the server closed the connection");
        received_bytes += count as u64;
    }
}

/// Bytes from connection 2n to connection 2n+1 and back, nothing else.
fn relay() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("listening on {}", listener.local_addr().expect("bound"));
    let mut waiting: Vec<Option<TcpStream>> = (0..256).map(|_| None).collect();
    for stream in listener.incoming() {
        let mut stream = stream.expect("accepts");
        stream.set_nodelay(true).expect("a socket");
        let mut id = [0];
        stream.read_exact(&mut id).expect("an id");
        stream.write_all(&[0]).expect("an answer");
        match waiting[id[0] as usize ^ 1].take() {
            None => waiting[id[0] as usize] = Some(stream),
            Some(other) => {
                let copies =
                    [(stream.try_clone().expect("a copy"), other.try_clone().expect("a copy")), (other, stream)];
                for (mut from, mut to) in copies {
                    thread::spawn(move || {
                        let mut buffer = vec![0; 64 * 1024];
                        while let Ok(count @ 1..) = from.read(&mut buffer) {
                            if to.write_all(&buffer[..count]).is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        }
    }
}
