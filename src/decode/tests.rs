//! Packets out of texts, bytes and captures, sound and broken; and that nothing panics or hangs.

use std::io::Cursor;
use std::net::SocketAddr;
use std::time::SystemTime;

use super::*;
use crate::capture::{ConnectionId, Resolution, Writer};
use crate::protocol::{Chat, Message, PUBLISHED_KEY};

fn cipher() -> Arc<Cipher> {
    Arc::new(Cipher::new(PUBLISHED_KEY).unwrap())
}

fn options(style: Style) -> Options {
    Options {
        cipher: cipher(),
        max_packet_bytes: 65_536,
        format: None,
        port: None,
        from: None,
        look: Look { style, ..Look::default() },
    }
}

fn ping(time: i64) -> Vec<u8> {
    let mut packet = Vec::new();
    Message::ClientPing { ping: true, time }.encode(&cipher(), &mut packet);
    packet
}

fn chat(text: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    Message::Chat(Chat { from: "Ann", to: "Bob", text, time: 1, ..Chat::default() }).encode(&cipher(), &mut packet);
    packet
}

/// What a stream shows of these pieces: offset and name, or what was skipped.
fn seen(stream: &mut Stream, pieces: &[&[u8]]) -> Vec<String> {
    let mut said = Vec::new();
    let mut see = |seen: Seen<'_>| {
        said.push(match seen {
            Seen::Packet { offset, packet } => {
                format!(
                    "{offset} {}{}",
                    packet.name(),
                    packet.fault.map_or(String::new(), |fault| format!(" ✗ {fault}"))
                )
            }
            Seen::Skipped { offset, bytes, why } => format!("{offset} {bytes} bytes {why}"),
        });
    };
    pieces.iter().for_each(|piece| stream.push(piece, &mut see));
    stream.end(&mut see);
    said
}

#[test]
fn however_a_stream_is_cut_the_same_packets_are_seen() {
    let stream = [ping(1), chat("hello"), ping(2)].concat();
    let expected = ["0 PK_ClientPing", "24 PK_C2CTextChat", "64 PK_ClientPing"];
    for size in 1..=stream.len() {
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(seen(&mut Stream::new(cipher(), 65_536), &pieces), expected, "in pieces of {size}");
    }
}

#[test]
fn after_a_fault_packets_are_found_again_where_a_segment_begins_with_one() {
    let (ping, garbage) = (ping(1), [0xff; 30]);
    let pieces: [&[u8]; 4] = [&ping, &garbage, &garbage[..7], &ping];
    let fault = "24 a type of the program's own ✗ at byte 0 of the packet: packet length 4294967295 is above the maximum of 65536";
    assert_eq!(
        seen(&mut Stream::new(cipher(), 65_536).of_segments(), &pieces),
        [
            "0 PK_ClientPing",
            fault,
            "54 7 bytes not explained: where a packet begins is not known any more",
            "61 PK_ClientPing"
        ]
    );
    let last = "54 31 bytes not explained: where a packet begins is not known any more";
    assert_eq!(seen(&mut Stream::new(cipher(), 65_536), &pieces), ["0 PK_ClientPing", fault, last]);
}

#[test]
fn of_bytes_of_both_sides_each_packet_tells_its_own() {
    let mut answer = Vec::new();
    Message::ServerPong { time: 1 }.encode(&cipher(), &mut answer);
    let mut out = Vec::new();
    let stream = [chat("first"), ping(1), chat("mine"), answer, chat("whose?"), ping(2)].concat();
    let count = decode(&stream[..], &options(Style::Short), &mut out).unwrap();
    assert!(count.is_mixed);
    let text = String::from_utf8(out).unwrap();
    let directions: Vec<_> = text.lines().map(|line| line[8..].split("  ").next().unwrap().to_owned()).collect();
    let (client, server, either) = ("client → server", "server → client", "either way");
    assert_eq!(directions, [either, client, client, server, either, client], "{text}");
}

#[test]
fn on_a_narrow_terminal_lines_are_broken_between_words() {
    let look = Look { columns: Some(80), ..Look::default() };
    let mut out = Vec::new();
    decode(&chat("hello, hello, hello")[..], &Options { look, ..options(Style::Full) }, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let layers = text.lines().filter(|line| line.starts_with("  0") || line.starts_with("          "));
    let longest = layers.map(|line| line.chars().count()).max().unwrap();
    assert!(longest <= 80 && text.contains("body, encrypted with AES-128-CBC:"), "{longest}\n{text}");
}

/// A capture of a connection from each port, in which `talk` says what passes.
fn capture_of(ports: &[u16], talk: impl Fn(&mut Writer<&mut Vec<u8>>, ConnectionId)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, Resolution::Microseconds).unwrap();
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    for port in ports {
        let id = writer.open(address(*port), address(8989), NOW).unwrap();
        talk(&mut writer, id);
    }
    file
}

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A capture of two conversations of six packets.
fn capture() -> Vec<u8> {
    capture_of(&[40_001, 40_002], |writer, id| {
        for time in 1..4 {
            writer.data(id, Direction::ToServer, &ping(time), NOW).unwrap();
            writer.data(id, Direction::ToClient, &chat("你好"), NOW).unwrap();
        }
        writer.fin(id, Direction::ToServer, NOW).unwrap();
    })
}

/// A capture of one packet.
fn small_capture() -> Vec<u8> {
    capture_of(&[40_001], |writer, id| writer.data(id, Direction::ToServer, &ping(1), NOW).unwrap())
}

#[test]
fn a_capture_is_shown_connection_by_connection() {
    let mut out = Vec::new();
    let count = decode(&capture()[..], &options(Style::Json), &mut out).unwrap();
    assert_eq!(count, Count { packets: 12, ..Count::default() });
    let first = String::from_utf8(out).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(
        first,
        r#"{"offset":0,"direction":"client-to-server","type":4,"name":"PK_ClientPing","fields":{"ping":true,"timestamp":1},"error":null,"time":0.0,"connection":1}"#
    );
    let other = Options { port: Some(9999), ..options(Style::Short) };
    assert_eq!(decode(&capture()[..], &other, &mut Vec::new()).unwrap().packets, 0);
}

#[test]
fn what_a_capture_ends_within_is_shown_and_counted() {
    let mut file = capture_of(&[40_001], |writer, id| {
        writer.data(id, Direction::ToServer, &ping(1), NOW).unwrap();
        writer.data(id, Direction::ToServer, &ping(2)[..20], NOW).unwrap();
    });
    let mut out = Vec::new();
    assert_eq!(
        decode(&file[..], &options(Style::Short), &mut out).unwrap(),
        Count { packets: 2, faults: 1, ..Count::default() }
    );
    assert!(String::from_utf8(out).unwrap().contains("of which 20 of 24 are here"));
    // Also where the file itself ends within a record.
    let mut out = Vec::new();
    file.extend_from_slice(&[0; 5]);
    assert!(matches!(decode(&file[..], &options(Style::Short), &mut out), Err(DecodeError::Capture(_))));
    assert!(String::from_utf8(out).unwrap().contains("of which 20 of 24 are here"));
}

/// Otherwise what a long capture leaves unfinished is kept to its end.
#[test]
fn what_a_reset_after_a_fin_cuts_off_is_shown_when_the_reset_comes() {
    let file = capture_of(&[40_001, 40_002], |writer, id| {
        writer.data(id, Direction::ToServer, &ping(1), NOW).unwrap();
        writer.fin(id, Direction::ToServer, NOW).unwrap();
        writer.data(id, Direction::ToClient, &chat("never whole")[..20], NOW).unwrap();
        writer.reset(id, Direction::ToServer, NOW).unwrap();
    });
    let mut out = Vec::new();
    let count = decode(&file[..], &options(Style::Json), &mut out).unwrap();
    assert_eq!(count, Count { packets: 4, faults: 2, ..Count::default() });
    let text = String::from_utf8(out).unwrap();
    let is_of_the_first: Vec<_> = text.lines().map(|line| line.ends_with("\"connection\":1}")).collect();
    assert_eq!(is_of_the_first, [true, true, false, false], "{text}");
}

#[test]
fn past_what_may_be_held_a_packet_is_lost_and_the_next_one_found_at_its_offset() {
    let (long, short) = (chat(&"x".repeat(300)), ping(1));
    let file = capture_of(&[40_001], |writer, id| {
        let mut say = |direction, bytes: &[u8]| writer.data(id, direction, bytes, NOW).unwrap();
        say(Direction::ToClient, &short);
        long.chunks(150).for_each(|part| say(Direction::ToServer, part));
        // This direction held nothing, so it has lost nothing.
        say(Direction::ToClient, &short[..4]);
        say(Direction::ToClient, &short[4..]);
        say(Direction::ToServer, &short);
    });
    let (mut out, options) = (Vec::new(), options(Style::Json));
    let mut shown = Shown { look: options.look, out: &mut out, count: Count::default(), failed: None };
    captured(&file[..], &options, 100, &mut shown).unwrap();
    let lines = String::from_utf8(out).unwrap();
    let said = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let error = line["error"].as_str().unwrap_or_default().to_owned();
        (line["direction"] == "client-to-server", line["offset"].as_u64().unwrap(), error)
    };
    let rest = long.len() - 150;
    let expected = [
        (false, 0, String::new()),
        (
            true,
            0,
            format!(
                "at byte 150 of the packet: the bytes end within the packet, of which 150 of {} are here",
                long.len()
            ),
        ),
        (false, short.len() as u64, String::new()),
        (true, 150, format!("{rest} bytes {BEHIND_A_FAULT}")),
        (true, long.len() as u64, String::new()),
    ];
    assert_eq!(lines.lines().map(said).collect::<Vec<_>>(), expected, "{lines}");
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % bound as u64) as usize
    }
}

/// An output that is counted and forgotten.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(str::from_utf8(bytes).is_ok());
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// It ends each time, and says something of each input that is not empty.
#[test]
fn a_hundred_thousand_random_and_bit_flipped_inputs_are_decoded_as_far_as_they_go() {
    let stream = [ping(1), chat("hello, 你好"), ping(2)].concat();
    let hex = stream.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    let inputs = [stream, hex, small_capture()];
    let mut chance = Chance(2026);
    let (mut shown, mut refused, mut silent) = (0, 0, 0);
    for round in 0..100_000 {
        let mut input = match round % 4 {
            3 => (0..chance.below(100)).map(|_| chance.below(256) as u8).collect(),
            kind => inputs[kind].clone(),
        };
        if round % 4 != 3 {
            for _ in 0..1 + chance.below(3) {
                let at = chance.below(input.len());
                input[at] ^= 1 << chance.below(8);
            }
            // Also an end too early.
            input.truncate(input.len() - if chance.below(4) == 0 { chance.below(input.len()) } else { 0 });
        }
        let style = [Style::Full, Style::Short, Style::Json][chance.below(3)];
        let mut out = Counted(0);
        match decode(Cursor::new(&input), &options(style), &mut out) {
            Ok(_) if out.0 > 0 => shown += 1,
            Ok(_) => silent += 1,
            Err(DecodeError::Output(error)) => panic!("{error}"),
            Err(_) => refused += 1,
        }
    }
    assert!(shown > 50_000 && refused > 1000, "{shown} shown, {refused} refused, {silent} silent");
}
