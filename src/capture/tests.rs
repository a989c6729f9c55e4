//! What is written is read; every file format and link type; segments in every order; damage of every kind.

use std::io::{Cursor, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

const CLIENT: &str = "192.0.2.1:40000";
const SERVER: &str = "192.0.2.2:8989";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_356_894) + Duration::from_millis(ms)
}

fn read(file: &[u8]) -> Vec<Piece> {
    streams(file, Options::default()).map(|piece| piece.unwrap()).collect()
}

/// All pieces, and the error at the end.
fn read_to_error(file: &[u8]) -> (Vec<Piece>, ReadError) {
    let (mut pieces, mut error) = (Vec::new(), None);
    for piece in streams(file, Options::default()) {
        assert!(error.is_none(), "nothing follows an error");
        match piece {
            Ok(piece) => pieces.push(piece),
            Err(found) => error = Some(found),
        }
    }
    (pieces, error.expect("an error"))
}

/// The bytes of one direction of one connection, gaps as zeros; offsets must fit.
fn stream(pieces: &[Piece], id: u64, direction: Direction) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.connection.id == id && piece.direction == direction) {
        assert_eq!(piece.offset, bytes.len() as u64, "{piece:?}");
        match &piece.content {
            Content::Bytes(more) => bytes.extend_from_slice(more),
            Content::Gap(missing) => bytes.resize(bytes.len() + *missing as usize, 0),
            _ => {}
        }
    }
    bytes
}

fn contents(pieces: &[Piece], direction: Direction) -> Vec<&Content> {
    pieces.iter().filter(|piece| piece.direction == direction).map(|piece| &piece.content).collect()
}

/// Raw IP packets with one segment each.
struct Segments {
    packets: Vec<Vec<u8>>,
}

impl Segments {
    fn new() -> Segments {
        Segments { packets: Vec::new() }
    }

    /// From the client, or from the server; `flags` of "SAFR".
    fn add(mut self, direction: Direction, seq: u32, ack: Option<u32>, flags: &str, bytes: &[u8]) -> Segments {
        let (from, to) = if direction == Direction::ToServer { (1, 2) } else { (2, 1) };
        let ports = if direction == Direction::ToServer { (40_000, 8989) } else { (8989, 40_000) };
        let mut packet =
            PacketBuilder::ipv4([192, 0, 2, from], [192, 0, 2, to], 64).tcp(ports.0, ports.1, seq, u16::MAX);
        packet = ack.into_iter().fold(packet, |packet, ack| packet.ack(ack));
        for flag in flags.chars() {
            packet = match flag {
                'S' => packet.syn(),
                'F' => packet.fin(),
                _ => packet.rst(),
            };
        }
        let mut written = Vec::new();
        packet.write(&mut written, bytes).unwrap();
        self.packets.push(written);
        self
    }

    fn data(self, seq: u32, bytes: &[u8]) -> Segments {
        self.add(Direction::ToServer, seq, Some(1), "", bytes)
    }

    fn ack(self, ack: u32) -> Segments {
        self.add(Direction::ToClient, 1, Some(ack), "", &[])
    }

    fn file(&self) -> Vec<u8> {
        pcap(101, &self.packets)
    }
}

fn pcap(link_type: u32, frames: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, link_type].map(u32::to_le_bytes).concat();
    for frame in frames {
        let length = frame.as_ref().len() as u32;
        file.extend([1_795_356_894, 5, length, length].map(u32::to_le_bytes).as_flattened());
        file.extend_from_slice(frame.as_ref());
    }
    file
}

/// A block of a pcapng file.
fn block(big_endian: bool, kind: u32, body: &[&[u8]]) -> Vec<u8> {
    let number = |number: u32| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut body = body.concat();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = number(body.len() as u32 + 12);
    [&number(kind)[..], &length, &body, &length].concat()
}

/// One section with two interfaces: Ethernet, which the frames do not come from, and raw IP with times in ns.
fn pcapng(big_endian: bool, frames: &[impl AsRef<[u8]>]) -> Vec<u8> {
    pcapng_at(big_endian, 9, 1_795_356_894_123_456_789, frames)
}

/// The same with times of this resolution, and the time of every frame in it.
fn pcapng_at(big_endian: bool, resolution: u8, time: u64, frames: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let long = |number: u32| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
    let short = |number: u16| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut file = block(big_endian, 0x0a0d_0d0a, &[&long(0x1a2b_3c4d), &short(1), &short(0), &[0xff; 8]]);
    file.extend(block(big_endian, 1, &[&short(1), &[0; 2], &long(65_535)]));
    let resolution = [&short(9)[..], &short(1), &[resolution, 0, 0, 0]].concat();
    file.extend(block(big_endian, 1, &[&short(101), &[0; 2], &long(65_535), &resolution, &[0; 4]]));
    file.extend(block(big_endian, 0x7777, &[b"a block that nobody knows"]));
    for frame in frames {
        let frame = frame.as_ref();
        let length = long(frame.len() as u32);
        let head = [long(1), long((time >> 32) as u32), long(time as u32), length, length].concat();
        file.extend(block(big_endian, 6, &[&head, frame]));
    }
    file
}

#[test]
fn what_was_written_is_read() {
    let ends =
        [[CLIENT, SERVER], ["[2001:db8::1]:40000", "[2001:db8::2]:8989"], ["127.0.0.1:40001", "[2001:db8::2]:8989"]];
    for resolution in [Resolution::Microseconds, Resolution::Nanoseconds] {
        for segment_bytes in [1, 7, 1400, usize::MAX] {
            let mut file = Vec::new();
            let mut writer = Writer::new(&mut file, resolution).unwrap().segment_bytes(segment_bytes);
            let ids = ends.map(|[client, server]| writer.open(addr(client), addr(server), at(0)).unwrap());
            let question: Vec<u8> = (0..100_000_u32).map(|n| (n / 7) as u8).collect();
            let step = if segment_bytes == 1 { 400 } else { 40_000 };
            for (n, &id) in ids.iter().enumerate() {
                writer.data(id, Direction::ToServer, &question[..1000 + step * n], at(1)).unwrap();
                writer.data(id, Direction::ToClient, b"answer", at(2)).unwrap();
            }
            writer.fin(ids[0], Direction::ToServer, at(3)).unwrap();
            writer.fin(ids[0], Direction::ToClient, at(4)).unwrap();
            writer.reset(ids[1], Direction::ToClient, at(5)).unwrap();
            let pieces = read(&file);
            for n in 0..3 {
                let id = n as u64 + 1;
                assert!(stream(&pieces, id, Direction::ToServer) == question[..1000 + step * n]);
                assert_eq!(stream(&pieces, id, Direction::ToClient), b"answer");
            }
            assert_eq!(pieces[0].connection.client, addr(CLIENT));
            assert_eq!(pieces[0].connection.server, addr(SERVER));
            assert_eq!(pieces[0].time, at(1));
            let last = |id, direction| {
                let mut mine = pieces.iter().filter(|piece| piece.connection.id == id && piece.direction == direction);
                mine.next_back().unwrap()
            };
            assert_eq!(last(1, Direction::ToServer).content, Content::Fin);
            assert_eq!(
                (&last(1, Direction::ToClient).content, last(1, Direction::ToClient).time),
                (&Content::Fin, at(4))
            );
            assert_eq!(last(2, Direction::ToClient).content, Content::Reset);
            assert!(!pieces.iter().any(|piece| matches!(piece.content, Content::Gap(_) | Content::Middle)));
            assert_eq!(last(3, Direction::ToServer).connection.client, addr("[::ffff:127.0.0.1]:40001"));
        }
    }
}

#[test]
fn nanoseconds_stay_where_the_file_has_them() {
    let time = UNIX_EPOCH + Duration::new(1_795_356_894, 123_456_789);
    for (resolution, nanoseconds) in [(Resolution::Nanoseconds, 123_456_789), (Resolution::Microseconds, 123_456_000)] {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, resolution).unwrap();
        let id = writer.open(addr(CLIENT), addr(SERVER), time).unwrap();
        writer.data(id, Direction::ToServer, b"x", time).unwrap();
        assert_eq!(read(&file)[0].time, UNIX_EPOCH + Duration::new(1_795_356_894, nanoseconds));
    }
}

#[test]
fn both_formats_in_both_byte_orders_say_the_same() {
    let segments = Segments::new().add(Direction::ToServer, 9, None, "S", &[]).data(10, b"hello");
    let pcap = segments.file();
    let mut swapped = pcap.clone();
    // 4-byte numbers: the file's header without its two version numbers, and the two records' headers.
    let records = [24, 24 + 16 + segments.packets[0].len()];
    for from in
        [0, 8, 12, 16, 20].into_iter().chain(records.iter().flat_map(|&from| [from, from + 4, from + 8, from + 12]))
    {
        swapped[from..from + 4].reverse();
    }
    swapped[4..6].reverse();
    swapped[6..8].reverse();
    for file in [pcap, swapped, pcapng(false, &segments.packets), pcapng(true, &segments.packets)] {
        assert!(is_capture(&file) && is_capture(&file[..MIN_CAPTURE_BYTES]));
        let pieces = read(&file);
        assert_eq!(contents(&pieces, Direction::ToServer), [&Content::Bytes(b"hello".to_vec())]);
        let microseconds = pieces[0].time.duration_since(UNIX_EPOCH).unwrap().as_micros();
        assert!([1_795_356_894_000_005, 1_795_356_894_123_456].contains(&microseconds), "{microseconds}");
    }
    // A second section may have the other byte order.
    let both = [pcapng(false, &segments.packets[..1]), pcapng(true, &segments.packets[1..])].concat();
    assert_eq!(stream(&read(&both), 1, Direction::ToServer), b"hello");
}

#[test]
fn times_are_read_in_every_resolution_that_fits() {
    let packets = Segments::new().data(10, b"x").packets;
    let now = 1_795_356_894_u64;
    let known = [
        (0, now, Duration::from_secs(now)),
        (3, now * 1000 + 5, Duration::from_secs(now) + Duration::from_millis(5)),
        (19, 15_000_000_000_000_000_000, Duration::from_millis(1500)),
        (0x80, now, Duration::from_secs(now)),
        (0x80 | 10, now << 10 | 256, Duration::from_secs(now) + Duration::from_millis(250)),
        (0x80 | 32, now << 32 | 1 << 31, Duration::from_secs(now) + Duration::from_millis(500)),
        (0x80 | 63, 3 << 62, Duration::from_millis(1500)),
    ];
    for (resolution, units, since) in known {
        for big_endian in [false, true] {
            let pieces = read(&pcapng_at(big_endian, resolution, units, &packets));
            assert_eq!(pieces[0].time, UNIX_EPOCH + since, "resolution {resolution:#x}");
        }
    }
    for resolution in [20, 0x7f, 0x80 | 64, 0xff] {
        let (_, error) = read_to_error(&pcapng_at(false, resolution, 0, &packets));
        assert!(error.to_string().contains("a resolution of time that no clock has"), "{resolution:#x}: {error}");
    }
}

#[test]
fn every_link_type_brings_the_same_segment() {
    let packet = &Segments::new().add(Direction::ToServer, 9, None, "S", b"hello").packets[0];
    let macs = [2_u8; 12];
    let cases: [(u32, Vec<u8>); 10] = [
        (1, [&macs[..], &[8, 0]].concat()),
        (1, [&macs[..], &[0x81, 0, 0, 7, 8, 0]].concat()),
        (1, [&macs[..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 8, 0]].concat()),
        (101, vec![]),
        (12, vec![]),
        (228, vec![]),
        (0, vec![2, 0, 0, 0]),
        (108, vec![0, 0, 0, 2]),
        (113, [&[0; 14][..], &[8, 0]].concat()),
        (276, [&[8, 0][..], &[0; 18]].concat()),
    ];
    for (link_type, header) in cases {
        let frame = [&header[..], packet].concat();
        let mut files = vec![pcap(link_type, std::slice::from_ref(&frame))];
        if link_type == 1 {
            // Short frames are filled up; these bytes are not TCP's.
            files.push(pcap(1, &[[&frame[..], &[0; 6]].concat()]));
        }
        for file in files {
            assert_eq!(stream(&read(&file), 1, Direction::ToServer), b"hello", "link type {link_type}, {header:?}");
        }
    }
    let (_, error) = read_to_error(&pcap(127, &[packet]));
    assert!(matches!(error, ReadError::LinkType { offset: 24, link_type: 127 }), "{error}");
}

#[test]
fn a_pipe_is_read_as_it_is_written() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let segments = Segments::new().data(10, b"one").data(13, b"two");
    let file = segments.file();
    let first_record = 24 + 16 + segments.packets[0].len();
    writer.write_all(&file[..first_record]).unwrap();
    let mut pieces = streams(reader, Options::default());
    assert_eq!(pieces.next().unwrap().unwrap().content, Content::Middle);
    assert_eq!(pieces.next().unwrap().unwrap().content, Content::Bytes(b"one".to_vec()));
    // The rest one byte after the other.
    file[first_record..].iter().for_each(|&byte| writer.write_all(&[byte]).unwrap());
    assert_eq!(pieces.next().unwrap().unwrap().content, Content::Bytes(b"two".to_vec()));
    drop(writer);
    assert!(pieces.next().is_none());
}

#[test]
fn a_lost_segment_is_a_gap_as_soon_as_the_receiver_has_acknowledged_it() {
    let lost = Segments::new().data(10, b"one").data(16, b"three").data(30, b"five");
    let gap = |bytes| Content::Gap(bytes);
    let bytes = |bytes: &[u8]| Content::Bytes(bytes.to_vec());
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&lost.ack(21).file()).unwrap();
    let mut live = streams(reader, Options::default());
    for expected in [Content::Middle, bytes(b"one"), gap(3), bytes(b"three")] {
        assert_eq!(live.next().unwrap().unwrap().content, expected);
    }
    drop(writer);
    let rest: Vec<Content> = live.map(|piece| piece.unwrap().content).collect();
    assert_eq!(rest, [gap(9), bytes(b"five")], "at the end nothing is waited for");
}

#[test]
fn what_was_cut_off_by_the_snapshot_length_is_a_gap() {
    let segments = Segments::new().data(10, b"0123456789").add(Direction::ToServer, 20, Some(1), "F", b"end").ack(24);
    let mut file = pcap(101, &[&segments.packets[0][..44]]);
    file[24 + 12..24 + 16].copy_from_slice(&50_u32.to_le_bytes());
    file.extend_from_slice(&pcap(101, &segments.packets[1..])[24..]);
    let pieces = read(&file);
    let [middle, first, gap, last, fin] = contents(&pieces, Direction::ToServer)[..] else { panic!("{pieces:?}") };
    assert_eq!([middle, fin], [&Content::Middle, &Content::Fin]);
    assert_eq!([first, last], [&Content::Bytes(b"0123".to_vec()), &Content::Bytes(b"end".to_vec())]);
    assert_eq!(gap, &Content::Gap(6));
}

/// A simple packet block does not say how much was captured: as much as its interface takes of a frame, and then come up to three bytes of padding.
#[test]
fn padding_behind_a_frame_that_was_cut_off_is_no_byte_of_the_stream() {
    let segments = Segments::new().data(10, b"0123456789").data(20, b"end");
    // 20 bytes of IP, 20 of TCP.
    for (snap_bytes, first) in [(45_u32, &b"01234"[..]), (46, b"012345"), (47, b"0123456"), (48, b"01234567")] {
        let mut file = block(false, 0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes(), &[1, 0, 0, 0], &[0xff; 8]]);
        file.extend(block(false, 1, &[&[101, 0, 0, 0], &snap_bytes.to_le_bytes()]));
        for packet in &segments.packets {
            let captured = &packet[..packet.len().min(snap_bytes as usize)];
            file.extend(block(false, 3, &[&(packet.len() as u32).to_le_bytes(), captured]));
        }
        let gap = Content::Gap(10 - first.len() as u64);
        let expected = [&Content::Middle, &Content::Bytes(first.to_vec()), &gap, &Content::Bytes(b"end".to_vec())];
        assert_eq!(contents(&read(&file), Direction::ToServer), expected, "{snap_bytes} of each frame");
    }
}

#[test]
fn waiting_for_a_segment_takes_bounded_memory() {
    let options = Options { waiting_bytes: 1000, ..Options::default() };
    for segment_bytes in [1, 100] {
        let mut segments = Segments::new().data(10, b"one");
        for n in 0..100 {
            segments = segments.data(14 + n * segment_bytes, &vec![n as u8; segment_bytes as usize]);
        }
        let pieces: Vec<Piece> = streams(&segments.file()[..], options).map(|piece| piece.unwrap()).collect();
        assert_eq!(pieces[2].content, Content::Gap(1));
        let total = stream(&pieces, 1, Direction::ToServer);
        assert_eq!(total.len() as u32, 4 + 100 * segment_bytes);
        // What came out came before the end of the input: the segment that was too much made it so.
        let mut live = streams(Cursor::new(segments.file()).chain(Blocked), options);
        let before_the_end = std::iter::from_fn(|| live.next()).take_while(Result::is_ok).count();
        assert_eq!(before_the_end, pieces.len());
    }
}

/// An input that fails.
struct Blocked;

impl Read for Blocked {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("unplugged"))
    }
}

#[test]
fn an_input_that_fails_says_where() {
    let file = Segments::new().data(10, b"one").file();
    let bytes = file.len() as u64;
    let all: Vec<_> = streams(Cursor::new(file).chain(Blocked), Options::default()).collect();
    let Some(Err(ReadError::Input { offset, error })) = all.last() else { panic!("{all:?}") };
    assert_eq!((*offset, error.to_string()), (bytes, "unplugged".to_owned()));
    assert_eq!(all.len(), 3);
}

#[test]
fn past_the_most_connections_the_quietest_is_forgotten() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, Resolution::Microseconds).unwrap();
    let ids: Vec<ConnectionId> = (0..20)
        .map(|n| writer.open(format!("192.0.2.1:{}", 40_000 + n).parse().unwrap(), addr(SERVER), at(0)).unwrap())
        .collect();
    ids.iter().rev().for_each(|&id| writer.data(id, Direction::ToServer, b"hello", at(1)).unwrap());
    let options = Options { connections: 10, ..Options::default() };
    let pieces: Vec<Piece> = streams(&file[..], options).map(|piece| piece.unwrap()).collect();
    let texts = pieces.iter().filter(|piece| piece.content == Content::Bytes(b"hello".to_vec())).count();
    let middles = pieces.iter().filter(|piece| piece.content == Content::Middle).count();
    assert_eq!((texts, middles), (20, 10), "the other ten begin in the middle");
    assert!(pieces.iter().all(|piece| piece.connection.server == addr(SERVER)));
}

#[test]
fn the_same_ports_again_are_another_connection() {
    let segments = Segments::new()
        .add(Direction::ToServer, 9, None, "S", &[])
        .add(Direction::ToServer, 9, None, "S", &[])
        .data(10, b"one")
        .add(Direction::ToServer, 13, Some(1), "R", &[])
        .add(Direction::ToServer, 70_000, None, "S", &[])
        .data(70_001, b"two");
    let pieces = read(&segments.file());
    assert_eq!(stream(&pieces, 1, Direction::ToServer), b"one");
    assert_eq!(stream(&pieces, 2, Direction::ToServer), b"two");
    let ends = pieces.iter().filter(|piece| piece.content == Content::Reset).count();
    assert_eq!((pieces.len(), ends), (4, 2), "{pieces:?}");
}

/// Who has closed its side and is gone answers what still comes with a reset.
#[test]
fn a_reset_ends_both_directions_also_after_a_fin() {
    let segments = Segments::new()
        .add(Direction::ToServer, 9, None, "S", &[])
        .add(Direction::ToClient, 0, Some(10), "S", &[])
        .data(10, b"one")
        .add(Direction::ToServer, 13, Some(1), "F", &[])
        .add(Direction::ToClient, 1, Some(14), "", b"too late")
        .add(Direction::ToServer, 14, None, "R", &[]);
    let pieces = read(&segments.file());
    assert_eq!(contents(&pieces, Direction::ToServer), [&Content::Bytes(b"one".to_vec()), &Content::Fin]);
    assert_eq!(contents(&pieces, Direction::ToClient), [&Content::Bytes(b"too late".to_vec()), &Content::Reset]);
}

#[test]
fn who_is_the_server() {
    let to_client = Segments::new().add(Direction::ToClient, 9, Some(1), "", b"late").file();
    assert_eq!(read(&to_client)[0].connection.server, addr(SERVER), "the lower port");
    let called = Segments::new().add(Direction::ToClient, 9, None, "S", b"called").file();
    assert_eq!(read(&called)[0].connection.server, addr(CLIENT), "who is called");
    let hint = |server_port| Options { server_port: Some(server_port), ..Options::default() };
    let hinted = streams(&called[..], hint(8989)).next().unwrap().unwrap();
    assert_eq!(hinted.connection.server, addr(SERVER), "as the caller says");
    assert!(streams(&called[..], hint(22)).next().is_none());
}

#[test]
fn sequence_numbers_begin_again_after_the_last() {
    let mut segments = Segments::new().add(Direction::ToServer, u32::MAX - 3, None, "S", &[]);
    let text: Vec<u8> = (0..40).collect();
    for from in [20, 0, 10, 30] {
        segments = segments.data((u32::MAX - 2).wrapping_add(from), &text[from as usize..from as usize + 10]);
    }
    assert_eq!(stream(&read(&segments.file()), 1, Direction::ToServer), text);
}

#[test]
fn a_capture_that_was_cut_off_gives_all_before() {
    let segments = Segments::new().data(10, b"one").data(13, b"two");
    for file in [segments.file(), pcapng(false, &segments.packets), pcapng(true, &segments.packets)] {
        let whole = read(&file).len();
        for bytes in 0..file.len() {
            let all: Vec<_> = streams(&file[..bytes], Options::default()).collect();
            let good = all.iter().filter(|piece| piece.is_ok()).count();
            assert!(good < whole && good + 1 >= all.len());
            match all.last() {
                Some(Err(ReadError::CutOff { offset })) => assert!(*offset < bytes as u64),
                Some(Err(error)) => assert!(bytes < 4 && matches!(error, ReadError::NotACapture), "{bytes}: {error}"),
                _ => assert!(bytes >= 24, "the end of a record"),
            }
        }
    }
}

#[test]
fn damage_is_named_with_its_place() {
    let file = Segments::new().data(10, b"one").file();
    let mut long = file.clone();
    long[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    let (_, error) = read_to_error(&long);
    assert_eq!(error.to_string(), "at byte 24 the capture is damaged: a record of 4294967311 bytes");
    for file in [&b"GET / HTTP/1.1\r\n"[..], b"", b"\0\0\0\x18\0\0\0\x01", &[0; 100]] {
        assert!(!is_capture(file));
        assert!(matches!(read_to_error(file), (pieces, ReadError::NotACapture) if pieces.is_empty()));
    }
    let no_interface = block(false, 6, &[&[9, 0, 0, 0], &[0; 16]]);
    let mut file = pcapng(false, &[[0; 4]; 0]);
    let offset = file.len();
    file.extend(no_interface);
    let (_, error) = read_to_error(&file);
    assert_eq!(error.to_string(), format!("at byte {offset} the capture is damaged: no interface 9"));
}

/// A stream cut into segments that overlap, some of them twice, in any order; some may be lost.
fn cut() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, usize)>)> {
    (1_usize..400).prop_flat_map(|length| {
        let bytes = prop::collection::vec(any::<u8>(), length);
        let ranges = prop::collection::vec((0..length, 1_usize..60), 1..60);
        (bytes, ranges).prop_map(|(bytes, ranges)| {
            let length = bytes.len();
            (bytes, ranges.into_iter().map(|(from, size)| (from, (from + size).min(length))).collect())
        })
    })
}

proptest! {
    #[test]
    fn segments_in_any_order_are_the_stream((bytes, ranges) in cut(), first in any::<u32>(), acks in prop::collection::vec(0_u32..500, 0..5)) {
        let mut segments = Segments::new().add(Direction::ToServer, first, None, "S", &[]);
        let mut covered = vec![false; bytes.len()];
        for (n, &(from, to)) in ranges.iter().enumerate() {
            segments = segments.data(first.wrapping_add(1 + from as u32), &bytes[from..to]);
            covered[from..to].fill(true);
            // An acknowledgement may tell of any loss: then what comes later is too late.
            if let Some(&ack) = acks.get(n) {
                let acked = (ack as usize).min(bytes.len());
                if covered[..acked].iter().all(|&covered| covered) {
                    segments = segments.ack(first.wrapping_add(1 + acked as u32));
                }
            }
        }
        let end = covered.iter().rposition(|&covered| covered).unwrap() + 1;
        let expected: Vec<u8> = covered[..end].iter().zip(&bytes).map(|(&covered, &byte)| if covered { byte } else { 0 }).collect();
        let pieces = read(&segments.file());
        prop_assert_eq!(stream(&pieces, 1, Direction::ToServer), expected);
        let missing: u64 = pieces.iter().map(|piece| if let Content::Gap(bytes) = piece.content { bytes } else { 0 }).sum();
        prop_assert_eq!(missing as usize, covered[..end].iter().filter(|&&covered| !covered).count());
    }

    #[test]
    fn nothing_makes_the_reader_panic(beginning in 0_usize..3, garbage in prop::collection::vec(any::<u8>(), 0..400)) {
        let file = match beginning {
            0 => [&pcap(1, &[[0; 4]; 0])[..], &garbage].concat(),
            1 => [&pcapng(false, &[[0; 4]; 0])[..], &garbage].concat(),
            _ => pcap(1, std::slice::from_ref(&garbage)),
        };
        prop_assert!(streams(&file[..], Options::default()).count() < 1000);
    }

    #[test]
    fn flipped_bits_neither_panic_nor_hang(format in 0_usize..4, flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..20)) {
        let segments = Segments::new()
            .add(Direction::ToServer, 9, None, "S", &[])
            .add(Direction::ToClient, 0, Some(10), "S", &[])
            .data(16, b"three").data(10, b"one").ack(13).data(13, b"two")
            .add(Direction::ToServer, 21, Some(1), "F", &[]);
        let mut file = match format {
            0 => segments.file(),
            1 => pcapng(false, &segments.packets),
            2 => pcapng(true, &segments.packets),
            _ => pcap(113, &segments.packets.iter().map(|packet| [&[0; 14][..], &[8, 0], packet].concat()).collect::<Vec<_>>()),
        };
        for (position, bit) in flips {
            let position = position.index(file.len());
            file[position] ^= 1 << bit;
        }
        prop_assert!(streams(&file[..], Options::default()).count() < 1000);
    }
}
