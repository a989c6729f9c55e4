//! What a recipient that stops reading costs the others: `cargo bench --bench slow_reader` measures the round trip of a healthy pair while 64 MB
//! are sent at a steady rate to somebody who reads them as they come, and while they are sent to somebody who does not read, in turn. It
//! prints p50, p99 and the ratios, how long the sender needed, and by how much the server's memory grew. Then the slow one reads everything.

#[allow(dead_code)]
mod common;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const TEXT_BYTES: usize = 1000;
const TOTAL_BYTES: usize = 64 * 1000 * 1000;
const ROUNDS: usize = 5;

/// Messages of one write, and the pause after it: 16 MB/s, so that the processors are not what is measured.
const BURST: (usize, Duration) = (16, Duration::from_millis(1));

fn main() {
    let (mut reading, mut stopped) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        reading.push(round(true));
        stopped.push(round(false));
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let quantiles =
            |rounds: &mut Vec<Vec<f64>>| rounds.iter_mut().map(|trips| common::quantile(trips, share)).collect();
        let (mut reading, mut stopped): (Vec<f64>, Vec<f64>) = (quantiles(&mut reading), quantiles(&mut stopped));
        let mut ratios: Vec<f64> = reading.iter().zip(&stopped).map(|(reading, stopped)| stopped / reading).collect();
        println!(
            "{name} of the healthy pair: {:.0} µs beside a recipient that reads, {:.0} µs beside one that does not; ratio, median of {ROUNDS}: {:.2}",
            common::quantile(&mut reading, 0.5),
            common::quantile(&mut stopped, 0.5),
            common::quantile(&mut ratios, 0.5)
        );
    }
}

/// One server, one healthy pair, one sender of 64 MB; gives the healthy pair's round trips in µs.
fn round(is_reading: bool) -> Vec<f64> {
    let server = common::Process::server();
    let mut healthy = (common::log_in(server.address, "ann"), common::log_in(server.address, "bob"));
    let recipient = common::log_in(server.address, "slow");
    let sender = common::log_in(server.address, "sender");
    round_trips(&mut healthy, |count| count < 2_000);
    let resident_kib = server.resident_kib();
    let (is_done, mut most_kib) = (AtomicBool::new(false), 0);
    let (trips, took) = std::thread::scope(|scope| {
        let reader = is_reading.then(|| scope.spawn(|| read_all(recipient.try_clone().expect("a copy"))));
        let sending = scope.spawn(|| {
            let took = send_all(sender);
            is_done.store(true, SeqCst);
            took
        });
        let trips = round_trips(&mut healthy, |count| {
            if count % 1_000 == 0 {
                most_kib = most_kib.max(server.resident_kib());
            }
            !is_done.load(SeqCst)
        });
        if let Some(reader) = reader {
            reader.join().expect("all of it, in order");
        }
        (trips, sending.join().expect("the sender is not stalled"))
    });
    let kind = if is_reading { "reads" } else { "does not read" };
    let grown_kib = most_kib.saturating_sub(resident_kib);
    print!("recipient {kind}: {} MB sent in {took:.2} s, memory grew by {grown_kib} KiB", TOTAL_BYTES / 1_000_000);
    if !is_reading {
        let started = Instant::now();
        read_all(recipient);
        print!(", then read in order in {:.2} s", started.elapsed().as_secs_f64());
    }
    println!();
    trips
}

/// Messages to and fro while `more` says so; gives each round trip in µs.
fn round_trips((a, b): &mut (TcpStream, TcpStream), mut more: impl FnMut(usize) -> bool) -> Vec<f64> {
    let (there, back) = (common::message("ann", "bob", "ping"), common::message("bob", "ann", "pong"));
    let mut trips = Vec::new();
    while more(trips.len()) {
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
    let numbers: Vec<usize> = (0..TOTAL_BYTES / TEXT_BYTES).collect();
    for burst in numbers.chunks(BURST.0) {
        let packets: Vec<u8> = burst
            .iter()
            .flat_map(|number| common::message("sender", "slow", &format!("{number:0TEXT_BYTES$}")))
            .collect();
        sender.write_all(&packets).expect("writes");
        std::thread::sleep(BURST.1);
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
