//! The byte streams of a capture: pieces of each direction of each TCP connection, in the order in which they can be known. On a pipe that is being
//! written a piece comes out as soon as the frame that completes it is in.
//!
//! Memory is bounded by [`Options`], whatever the input. Read first: `stream.rs`.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::file::CaptureFile;
use super::frame::{Segment, segment};
use super::stream::{Out, Stream};
use super::{Connection, Content, Direction, Piece, ReadError};

/// What to look for, and how much memory that may take.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only connections with this port at one end, which is the server. Without it: all, and the server is who answers a SYN; where the capture has
    /// none, who has the lower port.
    pub server_port: Option<u16>,
    /// What may wait for missing segments in each direction of a connection, bytes. Past it the hole is taken for a gap.
    pub waiting_bytes: usize,
    /// The same for all connections together. Past it the hole of whoever asks for more is taken for a gap.
    pub total_waiting_bytes: usize,
    /// How many connections are remembered. Past it the one that was silent for longest is forgotten; what comes of it later is another connection, which
    /// begins in the middle.
    pub connections: usize,
}

impl Default for Options {
    /// All connections; as much as TCP itself lets be on the way: 4 MiB each, 64 MiB and 65,536 connections in all.
    fn default() -> Options {
        Options { server_port: None, waiting_bytes: 4 << 20, total_waiting_bytes: 64 << 20, connections: 65_536 }
    }
}

/// Reads the byte streams in a capture, a pcap or a pcapng file. Nothing is read before the first `next`.
pub fn streams<R: Read>(input: R, options: Options) -> Streams<R> {
    Streams {
        file: CaptureFile::new(input),
        book: Book {
            options,
            known: HashMap::new(),
            ready: VecDeque::new(),
            met: 0,
            frames: 0,
            now: SystemTime::UNIX_EPOCH,
            waiting_bytes: 0,
        },
        error: None,
        is_at_end: false,
    }
}

/// The pieces; after an error, nothing. What was captured before the error comes before it.
pub struct Streams<R> {
    file: CaptureFile<R>,
    book: Book,
    error: Option<ReadError>,
    is_at_end: bool,
}

impl<R: Read> Iterator for Streams<R> {
    type Item = Result<Piece, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(piece) = self.book.ready.pop_front() {
                return Some(Ok(piece));
            }
            if self.is_at_end {
                return self.error.take().map(Err);
            }
            let ended = match self.file.next() {
                Ok(None) => None,
                Err(error) => Some(error),
                Ok(Some(frame)) => match segment(&frame) {
                    Ok(segment) => {
                        if let Some(segment) = segment {
                            self.book.enter(&segment, frame.time);
                        }
                        continue;
                    }
                    Err(_) => Some(ReadError::LinkType { offset: frame.offset, link_type: frame.link_type }),
                },
            };
            (self.error, self.is_at_end) = (ended, true);
            self.book.finish_all();
        }
    }
}

/// Both ends, the lower one first: the same for both directions.
type Ends = (SocketAddr, SocketAddr);

struct Known {
    connection: Arc<Connection>,
    /// To the server, to the client.
    streams: [Stream; 2],
    /// The number of the last frame of it.
    last_frame: u64,
}

/// The connections.
struct Book {
    options: Options,
    known: HashMap<Ends, Known>,
    ready: VecDeque<Piece>,
    met: u64,
    frames: u64,
    /// The time of the last frame.
    now: SystemTime,
    waiting_bytes: usize,
}

impl Book {
    fn enter(&mut self, segment: &Segment<'_>, time: SystemTime) {
        let ports = [segment.from.port(), segment.to.port()];
        if self.options.server_port.is_some_and(|port| !ports.contains(&port)) {
            return;
        }
        self.now = time;
        let ends = (segment.from.min(segment.to), segment.from.max(segment.to));
        let opens = segment.syn && !segment.rst;
        if opens && self.known.get(&ends).is_some_and(|known| known.is_replaced_by(segment)) {
            self.forget(ends, true);
        }
        if !self.known.contains_key(&ends) {
            self.meet(ends, segment);
        }
        self.frames += 1;
        let known = self.known.get_mut(&ends).expect("it was just met");
        known.last_frame = self.frames;
        let direction = known.direction(segment);
        let before = known.waiting_bytes();
        let mut out = Vec::new();
        let [mine, other] = known.both(direction);
        let mut others = Vec::new();
        if let Some(ack) = segment.ack {
            other.acknowledge(ack, &mut others);
        }
        let mut seq = segment.seq;
        if segment.syn {
            mine.open(seq);
            seq = seq.wrapping_add(1);
        }
        if segment.rst {
            mine.reset(time, &mut out);
            other.reset(time, &mut others);
        } else {
            mine.take(seq, segment.bytes, segment.cut, segment.fin, time, &mut out);
        }
        let mut waiting = self.waiting_bytes - before;
        while mine.waiting_bytes() > 0
            && (mine.waiting_bytes() > self.options.waiting_bytes
                || waiting + mine.waiting_bytes() > self.options.total_waiting_bytes)
        {
            mine.give_up_hole(&mut out);
        }
        waiting += known.waiting_bytes();
        self.waiting_bytes = waiting;
        let connection = known.connection.clone();
        self.hand_out(&connection, direction.reverse(), others);
        self.hand_out(&connection, direction, out);
    }

    fn meet(&mut self, ends: Ends, segment: &Segment<'_>) {
        if self.known.len() >= self.options.connections.max(1) {
            self.forget_the_oldest();
        }
        self.met += 1;
        let to_server = self.is_to_server(segment);
        let (client, server) = if to_server { (segment.from, segment.to) } else { (segment.to, segment.from) };
        let connection = Arc::new(Connection { id: self.met, client, server });
        self.known.insert(ends, Known { connection, streams: Default::default(), last_frame: self.frames });
    }

    fn is_to_server(&self, segment: &Segment<'_>) -> bool {
        let is_server = |end: SocketAddr| Some(end.port()) == self.options.server_port;
        if is_server(segment.from) != is_server(segment.to) {
            return is_server(segment.to);
        }
        if segment.syn {
            return segment.ack.is_none();
        }
        segment.to.port() <= segment.from.port()
    }

    /// A tenth at once: looking for them costs a look at all.
    fn forget_the_oldest(&mut self) {
        let mut by_age: Vec<(u64, Ends)> = self.known.iter().map(|(&ends, known)| (known.last_frame, ends)).collect();
        by_age.sort_unstable();
        let count = (by_age.len() / 10).max(1);
        by_age[..count].iter().for_each(|&(_, ends)| self.forget(ends, true));
    }

    fn finish_all(&mut self) {
        let mut by_id: Vec<(u64, Ends)> = self.known.iter().map(|(&ends, known)| (known.connection.id, ends)).collect();
        by_id.sort_unstable();
        by_id.into_iter().for_each(|(_, ends)| self.forget(ends, false));
    }

    /// Hands out what is left of it. `is_early`: the capture goes on.
    fn forget(&mut self, ends: Ends, is_early: bool) {
        let Some(mut known) = self.known.remove(&ends) else { return };
        self.waiting_bytes -= known.waiting_bytes();
        for direction in [Direction::ToServer, Direction::ToClient] {
            let mut out = Vec::new();
            let [stream, _] = known.both(direction);
            let is_over = stream.is_over();
            stream.finish(&mut out);
            if !is_over && is_early {
                out.push((self.now, stream.offset_bytes(), Content::Forgotten));
            }
            self.hand_out(&known.connection, direction, out);
        }
    }

    fn hand_out(&mut self, connection: &Arc<Connection>, direction: Direction, out: Vec<Out>) {
        self.ready.extend(out.into_iter().map(|(time, offset, content)| Piece {
            connection: connection.clone(),
            direction,
            time,
            offset,
            content,
        }));
    }
}

impl Known {
    fn direction(&self, segment: &Segment<'_>) -> Direction {
        if segment.from == self.connection.client { Direction::ToServer } else { Direction::ToClient }
    }

    /// The stream of this direction, and the other one.
    fn both(&mut self, direction: Direction) -> [&mut Stream; 2] {
        let [to_server, to_client] = &mut self.streams;
        match direction {
            Direction::ToServer => [to_server, to_client],
            Direction::ToClient => [to_client, to_server],
        }
    }

    /// Whether the segment, a SYN, begins another connection between the same ports.
    fn is_replaced_by(&self, segment: &Segment<'_>) -> bool {
        let [to_server, to_client] = &self.streams;
        let stream = if self.direction(segment) == Direction::ToServer { to_server } else { to_client };
        stream.is_other(segment.seq)
    }

    fn waiting_bytes(&self) -> usize {
        self.streams.iter().map(Stream::waiting_bytes).sum()
    }
}
