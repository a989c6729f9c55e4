//! What a recipient that stops reading costs the others: `cargo bench --bench slow_reader` measures the round trip of a healthy pair, alone and
//! while 64 MB are sent to somebody who does not read, in turn, and prints p50, p99 and their ratios, what the sender needed, and what the
//! server's memory grew by. Then the slow one reads everything, in order.

#[allow(dead_code)]
mod common;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

const TEXT_BYTES: usize = 1000;
const TOTAL_BYTES: usize = 64 * 1000 * 1000;
const ROUNDS: usize = 5;

fn main() {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let server = common::Process::server();
        let mut healthy = (common::log_in(server.address, "ann"), common::log_in(server.address, "bob"));
        let before = round_trips(&mut healthy, |count, _| count < 20_000);
        let slow = common::log_in(server.address, "slow");
        let sender = common::log_in(server.address, "sender");
        let resident_kib = server.resident_kib();
        let is_done = AtomicBool::new(false);
        let (during, sending) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let took = send_all(sender);
                is_done.store(true, SeqCst);
                took
            });
            let during = round_trips(&mut healthy, |count, _| !is_done.load(SeqCst) || count < 20_000);
            (during, sending.join().expect("the sender is not stalled"))
        });
        let grown_kib = server.resident_kib().saturating_sub(resident_kib);
        let reading = Instant::now();
        read_all(slow);
        println!(
            "round {round}: {} MB sent in {sending:.2} s, memory grew by {grown_kib} KiB, read in order in {:.2} s",
            TOTAL_BYTES / 1_000_000,
            reading.elapsed().as_secs_f64()
        );
        alone.push(before);
        beside.push(during);
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let mut ratios: Vec<f64> = alone
            .iter_mut()
            .zip(&mut beside)
            .map(|(alone, beside)| common::quantile(beside, share) / common::quantile(alone, share))
            .collect();
        let (alone, beside) = (common::quantile(&mut alone[0], share), common::quantile(&mut beside[0], share));
        println!(
            "{name}: {alone:.0} µs alone, {beside:.0} µs beside the slow reader; ratio, median: {:.2}",
            common::quantile(&mut ratios, 0.5)
        );
    }
}

/// Messages to and fro while `more` says so; gives each round trip in µs.
fn round_trips((a, b): &mut (TcpStream, TcpStream), more: impl Fn(usize, Instant) -> bool) -> Vec<f64> {
    let (there, back) = (common::message("ann", "bob", "ping"), common::message("bob", "ann", "pong"));
    let (started, mut trips) = (Instant::now(), Vec::new());
    while more(trips.len(), started) {
        let sent = Instant::now();
        a.write_all(&there).expect("writes");
        common::read_packet(b);
        b.write_all(&back).expect("writes");
        common::read_packet(a);
        trips.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    trips
}

fn send_all(mut sender: TcpStream) -> f64 {
    let started = Instant::now();
    for number in 0..TOTAL_BYTES / TEXT_BYTES {
        sender.write_all(&common::message("sender", "slow", &format!("{number:0TEXT_BYTES$}"))).expect("writes");
    }
    // A message to oneself comes back when all before it were taken in.
    sender.write_all(&common::message("sender", "sender", "done")).expect("writes");
    common::read_packet(&mut sender);
    started.elapsed().as_secs_f64()
}

fn read_all(mut slow: TcpStream) {
    use chatserver::protocol::{Decoder, Frame, Message};
    use std::io::Read;
    let (cipher, mut decoder) = (common::cipher(), Decoder::default());
    for number in 0..TOTAL_BYTES / TEXT_BYTES {
        let mut packet = vec![0; 8];
        slow.read_exact(&mut packet).expect("a header");
        let length = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]) as usize;
        packet.resize(length, 0);
        slow.read_exact(&mut packet[8..]).expect("a body");
        let frame = Frame::parse(&packet, 65_536).expect("a packet").expect("whole");
        let Ok(Message::Chat(chat)) = decoder.decode(&cipher, frame).map(|decoded| decoded.message) else {
            panic!("no message")
        };
        assert_eq!(chat.text.parse(), Ok(number), "in order, once");
    }
}
