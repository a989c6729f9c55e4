//! Frame splitting: however a stream is cut into reads, the same packets come out, and the same error ends them.
#![no_main]

use std::io::{self, Read};

use chatserver::protocol::{Frame, MIN_PACKET_BYTES, ProtocolError};
use chatserver::server::fuzzing::ReadBuffer;
use chatserver_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let max_packet_bytes = [24, 40, 1024, 65_536, usize::MAX][input.choice(5)];
    let cuts = input.string();
    let stream = input.rest();
    let whole = split(stream, max_packet_bytes);
    let cut = split_as_read(Cut { stream, cuts }, max_packet_bytes);
    assert_eq!(whole.packets, cut.packets);
    assert_eq!(whole.unread, cut.unread, "what is consumed does not depend on the cuts");
    assert_eq!(whole.error, cut.error);
    let mut before = None;
    for end in 0..=stream.len() {
        let parsed = agreeing(&stream[..end], max_packet_bytes);
        match before.replace(parsed.clone()) {
            Some(Ok(Some(packet))) => assert_eq!(parsed, Ok(Some(packet)), "more bytes change no packet"),
            Some(Err(error)) => assert!(parsed.is_err(), "more bytes mend nothing: {error}"),
            Some(Ok(None)) | None => {}
        }
    }
});

/// What became of a stream.
struct Split {
    packets: Vec<(u32, Vec<u8>)>,
    unread: usize,
    error: Option<Kind>,
}

/// Which error: the greeting of another protocol may be recognised later than its length is too long.
#[derive(Debug, PartialEq)]
enum Kind {
    TooShort(u32),
    TooLong,
    Unaligned(u32),
}

fn kind(error: &ProtocolError) -> Kind {
    match *error {
        ProtocolError::TooShort { length } => Kind::TooShort(length),
        ProtocolError::Unaligned { length } => Kind::Unaligned(length),
        ProtocolError::TooLong { .. } | ProtocolError::OtherProtocol { .. } => Kind::TooLong,
        ref other => panic!("splitting knows nothing of {other}"),
    }
}

fn split(mut stream: &[u8], max: usize) -> Split {
    let mut packets = Vec::new();
    loop {
        match agreeing(stream, max) {
            Ok(Some((kind, packet))) => {
                stream = &stream[packet.len()..];
                packets.push((kind, packet.to_vec()));
            }
            Ok(None) => return Split { packets, unread: stream.len(), error: None },
            Err(error) => return Split { packets, unread: 0, error: Some(kind(&error)) },
        }
    }
}

/// As a connection does it, with the connection's own buffer.
fn split_as_read(mut reads: Cut<'_>, max: usize) -> Split {
    let (mut buffer, mut packets) = (ReadBuffer::default(), Vec::new());
    loop {
        loop {
            match agreeing(buffer.unread(), max) {
                Ok(Some((kind, packet))) => {
                    let length = packet.len();
                    packets.push((kind, packet.to_vec()));
                    buffer.consume(length);
                }
                Ok(None) => break,
                Err(error) => return Split { packets, unread: 0, error: Some(kind(&error)) },
            }
        }
        let wanted = Frame::wanted(buffer.unread(), max).expect("the parser found nothing wrong").unwrap_or(0);
        if buffer.fill(&mut reads, wanted).expect("this reader has no errors") == 0 {
            return Split { packets, unread: buffer.unread().len(), error: None };
        }
    }
}

/// `Frame::parse`, and that `Frame::wanted` says the same.
fn agreeing(bytes: &[u8], max: usize) -> Result<Option<(u32, &[u8])>, ProtocolError> {
    let parsed = Frame::parse(bytes, max);
    match (&parsed, Frame::wanted(bytes, max)) {
        (Ok(Some(frame)), Ok(Some(wanted))) => {
            assert_eq!(frame.packet.len(), wanted);
            assert!((MIN_PACKET_BYTES..=max).contains(&wanted) && frame.body().len().is_multiple_of(16));
        }
        (Ok(None), Ok(Some(wanted))) => assert!(bytes.len() < wanted && wanted <= max),
        (Ok(None), Ok(None)) => assert!(bytes.len() < 4, "the length is judged as soon as it is there"),
        (Err(error), Err(same)) => assert_eq!(error, &same),
        other => panic!("parse and wanted disagree: {other:?}"),
    }
    Ok(parsed?.map(|frame| (frame.kind, frame.packet)))
}

/// Gives the stream in pieces.
struct Cut<'a> {
    stream: &'a [u8],
    cuts: &'a [u8],
}

impl Read for Cut<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = match self.cuts.split_first() {
            Some((&first, rest)) => {
                self.cuts = rest;
                usize::from(first) + 1
            }
            None => usize::MAX,
        };
        let count = most.min(out.len()).min(self.stream.len());
        let (now, later) = self.stream.split_at(count);
        out[..count].copy_from_slice(now);
        self.stream = later;
        Ok(count)
    }
}
