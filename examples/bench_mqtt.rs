//! Plays what `chatserver bench` plays on any MQTT 3.1.1 broker: the same users, texts, checks and figures, in another protocol.
//!
//! `cargo run --release --example bench_mqtt -- --addr 127.0.0.1:1883 stream --pairs 16 --qos 1`
//!
//! Each user has a topic of the own name and subscribes to it alone; to write to somebody is to publish to that one's topic. With QoS 1 the
//! broker acknowledges what it takes and the user what arrives. A login is CONNECT and SUBSCRIBE in one write, and is over when SUBACK is there.
//! Few packets of MQTT are needed, so they are written here: OASIS MQTT 3.1.1, sections 2 and 3, is what to read beside.

use std::net::ToSocketAddrs;
use std::process::ExitCode;

use chatserver::bench::{self, Dialect, Event, Failure, Nonsense, Settings, Target, Workload};
use clap::Parser;

/// Measure an MQTT 3.1.1 broker with the load of `chatserver bench`
///
/// Exit codes: 0 measured, 1 or 2 it could not begin, 3 messages were lost or the broker refused, 4 it is not there or silent.
#[derive(Debug, Parser)]
struct Args {
    /// What to play, one or several
    #[arg(value_name = "WORKLOAD", required = true)]
    workloads: Vec<Workload>,

    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    addr: String,

    /// 0: the broker may lose it; 1: each step is acknowledged
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,

    #[command(flatten)]
    settings: Settings,

    /// One JSON object a workload, on a line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    bench::take_all_descriptors();
    let Some(address) = args.addr.to_socket_addrs().ok().and_then(|mut found| found.next()) else {
        eprintln!("{} is no address", args.addr);
        return ExitCode::from(1);
    };
    if args.workloads.contains(&Workload::Offline) {
        eprintln!("offline is not played here: a broker forgets a clean session's messages");
        return ExitCode::from(2);
    }
    let mut is_clean = true;
    for workload in args.workloads {
        let name = format!("mqtt-qos{}", args.qos);
        let mut broker = Target::at(&name, address, Box::new(Mqtt::new(args.qos)));
        match bench::play(&mut broker, workload, &args.settings, &mut |_, _| {}) {
            Ok(report) => {
                is_clean &= report.is_clean();
                match args.json {
                    true => println!("{}", serde_json::to_string(&report).expect("numbers and names")),
                    false => print!("{}", report.text()),
                }
            }
            Err(failure) => {
                eprintln!("{}: {failure}", workload.name());
                return ExitCode::from(match failure {
                    Failure::Nonsense(_) | Failure::Closed => 3,
                    Failure::Silent(_) | Failure::Io(_) => 4,
                    Failure::Database(_) => 1,
                });
            }
        }
    }
    ExitCode::from(if is_clean { 0 } else { 3 })
}

// The upper half of a packet's first byte.
const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const DISCONNECT: u8 = 14;

/// The broker may forget everything when the connection ends.
const CLEAN_SESSION: u8 = 2;

/// MQTT 3.1.1, as far as publishing and subscribing go.
pub struct Mqtt {
    qos: u8,
    /// Each user's last packet identifier, by number.
    identifiers: Vec<u16>,
}

impl Mqtt {
    /// With this quality of service.
    pub fn new(qos: u8) -> Mqtt {
        Mqtt { qos, identifiers: Vec::new() }
    }

    /// The next one of a user; none is 0.
    fn identifier(&mut self, user: u32) -> [u8; 2] {
        let user = user as usize;
        if user >= self.identifiers.len() {
            self.identifiers.resize(user + 1, 0);
        }
        self.identifiers[user] = self.identifiers[user].checked_add(1).unwrap_or(1);
        self.identifiers[user].to_be_bytes()
    }
}

/// As long as in the other dialects.
fn topic(user: u32) -> String {
    format!("bench-{user:06}")
}

/// Appends a packet: its kind and flags, the length of the rest, the rest.
fn packet(kind: u8, flags: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(kind << 4 | flags);
    let mut left: usize = parts.iter().map(|part| part.len()).sum();
    while left > 127 {
        out.push(left as u8 & 127 | 128);
        left >>= 7;
    }
    out.push(left as u8);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// A packet that came.
struct Packet<'b> {
    /// Its kind and flags.
    first: u8,
    body: &'b [u8],
    /// Bytes of it all.
    length: usize,
}

/// Takes the first packet. `None`: it is not complete.
fn take_packet(bytes: &[u8]) -> Result<Option<Packet<'_>>, Nonsense> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0;
    for (place, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 127) << (7 * place);
        if byte & 128 == 0 {
            let body = rest.get(place + 1..place + 1 + length);
            return Ok(body.map(|body| Packet { first: *first, body, length: 2 + place + length }));
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(Nonsense("the broker's packet has no length".into())) }
}

impl Dialect for Mqtt {
    fn log_in(&mut self, user: u32, out: &mut Vec<u8>) {
        let (topic, identifier) = (topic(user), self.identifier(user));
        let length = (topic.len() as u16).to_be_bytes();
        let keepalive = [0, 0];
        packet(CONNECT, 0, &[b"\0\x04MQTT\x04", &[CLEAN_SESSION], &keepalive, &length, topic.as_bytes()], out);
        packet(SUBSCRIBE, 2, &[&identifier, &length, topic.as_bytes(), &[self.qos]], out);
    }

    fn text(&mut self, from: u32, to: u32, text: &[u8], out: &mut Vec<u8>) {
        let topic = topic(to);
        let length = (topic.len() as u16).to_be_bytes();
        let identifier = if self.qos > 0 { &self.identifier(from)[..] } else { &[] };
        packet(PUBLISH, self.qos << 1, &[&length, topic.as_bytes(), identifier, text], out);
    }

    fn log_out(&mut self, _user: u32, out: &mut Vec<u8>) {
        packet(DISCONNECT, 0, &[], out);
    }

    fn take<'a>(
        &'a mut self,
        _user: u32,
        bytes: &'a [u8],
        reply: &mut Vec<u8>,
    ) -> Result<Option<(usize, Event<'a>)>, Nonsense> {
        let Some(Packet { first, body, length }) = take_packet(bytes)? else { return Ok(None) };
        let event = match (first >> 4, body) {
            (CONNACK, [_, 0]) | (PUBACK, _) => Event::Other,
            (SUBACK, [_, _, granted]) if *granted == self.qos => Event::LoggedIn,
            (PUBLISH, _) => Event::Text(arrived(first, body, reply)?),
            (kind, _) => return Err(Nonsense(format!("the broker refused or says too much: packet {kind}, {body:?}"))),
        };
        Ok(Some((length, event)))
    }
}

/// The text of a PUBLISH, which is acknowledged if it asks for that.
fn arrived<'a>(first: u8, body: &'a [u8], reply: &mut Vec<u8>) -> Result<&'a [u8], Nonsense> {
    let nonsense = || Nonsense("the broker's message has no topic".into());
    let (length, rest) = body.split_first_chunk().ok_or_else(nonsense)?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*length))..).ok_or_else(nonsense)?;
    if first >> 1 & 3 == 0 {
        return Ok(rest);
    }
    let (identifier, text) = rest.split_first_chunk::<2>().ok_or_else(nonsense)?;
    packet(PUBACK, 0, &[identifier], reply);
    Ok(text)
}
