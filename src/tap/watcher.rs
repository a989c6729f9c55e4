//! What passes a tap, shown and written to a capture. One lock for both directions of all connections: lines come whole, and in the order of their bytes.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde_json::json;

use crate::capture::{ConnectionId, Direction, Resolution, Writer};
use crate::decode::{About, Look, Seen, Stream, Style, clock, show};
use crate::protocol::Cipher;
use crate::terminal::{Style as Paint, paint, print_note};

/// Which direction of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Report {
    /// The connection's number, from 1.
    pub connection: u64,
    /// The direction.
    pub direction: Direction,
}

/// Safe from any thread. Whoever reports waits while the output takes a line: a tap whose reader stands still stands still.
pub struct Watcher {
    state: Mutex<State>, // lock: a leaf; held while the output is written to
}

struct State {
    cipher: Arc<Cipher>,
    max_packet_bytes: usize,
    look: Look,
    shows_reads: bool,
    out: Box<dyn Write + Send>,
    /// It has been said that `out` cannot be written.
    has_said_so: bool,
    capture: Option<Writer<Box<dyn Write + Send>>>,
    met: u64,
    streams: HashMap<Report, (Stream, About)>,
    captured: HashMap<u64, ConnectionId>,
}

impl Watcher {
    /// Shows on `out`, and writes to `capture` what is not wrong.
    ///
    /// # Errors
    /// The capture cannot be begun.
    pub fn new(
        cipher: Cipher,
        max_packet_bytes: usize,
        look: Look,
        shows_reads: bool,
        out: Box<dyn Write + Send>,
        capture: Option<Box<dyn Write + Send>>,
    ) -> std::io::Result<Watcher> {
        let capture = capture
            .map(|file| Writer::new(file, Resolution::Microseconds).map(|writer| writer.segment_bytes(usize::MAX)));
        let state = State {
            cipher: Arc::new(cipher),
            max_packet_bytes,
            look,
            shows_reads,
            out,
            has_said_so: false,
            capture: capture.transpose()?,
            met: 0,
            streams: HashMap::new(),
            captured: HashMap::new(),
        };
        Ok(Watcher { state: Mutex::new(state) })
    }

    /// Text as it is, for before the first connection.
    pub fn print(&self, text: &str) {
        self.state.lock().write(text);
    }

    /// A connection is there; gives its number.
    pub fn opened(&self, client: SocketAddr, server: SocketAddr) -> u64 {
        let mut state = self.state.lock();
        state.met += 1;
        let id = state.met;
        for direction in [Direction::ToServer, Direction::ToClient] {
            let stream = Stream::new(state.cipher.clone(), state.max_packet_bytes).of_segments();
            let about = About { connection: Some(id), ..About::from(direction) };
            state.streams.insert(Report { connection: id, direction }, (stream, about));
        }
        let opened = state.capture.as_mut().map(|capture| capture.open(client, server, SystemTime::now()));
        match opened {
            Some(Ok(connection)) => drop(state.captured.insert(id, connection)),
            Some(Err(error)) => state.give_up_capture(&error),
            None => {}
        }
        state.say(Some(id), &format!("{client} has connected, passed on to {server}"));
        id
    }

    /// A line of the tap's own.
    pub fn say(&self, connection: Option<u64>, words: &str) {
        self.state.lock().say(connection, words);
    }

    /// The same, about a direction.
    pub fn tell(&self, report: Report, words: &str) {
        self.state.lock().tell(report, words);
    }

    /// So many bytes came in one read.
    pub fn read(&self, report: Report, bytes: usize) {
        let mut state = self.state.lock();
        if state.shows_reads {
            state.tell(report, &format!("read {bytes} bytes"));
        }
    }

    /// These bytes go out in one write.
    pub fn passed(&self, report: Report, bytes: &[u8]) {
        let mut state = self.state.lock();
        if state.shows_reads {
            state.tell(report, &format!("write {} bytes", bytes.len()));
        }
        state.record(report, |capture, id| capture.data(id, report.direction, bytes, SystemTime::now()));
        state.decode(report, |stream, see| stream.push(bytes, see));
    }

    /// One side has closed its half.
    pub fn fin(&self, report: Report, words: &str) {
        let mut state = self.state.lock();
        state.finish(report, words);
        state.record(report, |capture, id| capture.fin(id, report.direction, SystemTime::now()));
    }

    /// The connection is reset.
    pub fn reset(&self, report: Report, words: &str) {
        let mut state = self.state.lock();
        state.finish(report, words);
        state.record(report, |capture, id| capture.reset(id, report.direction, SystemTime::now()));
    }

    /// It ends with the other direction, which has said why.
    pub fn ended(&self, report: Report) {
        self.state.lock().end(report);
    }

    /// Nobody will report of the connection any more: nothing of it is kept.
    pub fn gone(&self, connection: u64) {
        let mut state = self.state.lock();
        for direction in [Direction::ToServer, Direction::ToClient] {
            state.end(Report { connection, direction });
        }
        if let (Some(captured), Some(capture)) = (state.captured.remove(&connection), state.capture.as_mut()) {
            capture.forget(captured);
        }
    }

    /// What is kept of connections: directions, connections, and those that the capture keeps.
    #[cfg(test)]
    pub fn kept(&self) -> [usize; 3] {
        let state = self.state.lock();
        [state.streams.len(), state.captured.len(), state.capture.as_ref().map_or(0, Writer::connections)]
    }
}

impl State {
    fn say(&mut self, connection: Option<u64>, words: &str) {
        self.line(None, connection, words);
    }

    fn tell(&mut self, report: Report, words: &str) {
        self.line(Some(report), Some(report.connection), words);
    }

    /// A line that is no packet.
    fn line(&mut self, report: Option<Report>, connection: Option<u64>, words: &str) {
        let time = SystemTime::now();
        let text = if self.look.style == Style::Json {
            let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let direction = report.map(|report| report.direction.words());
            json!({ "event": words, "direction": direction, "time": seconds, "connection": connection }).to_string()
        } else {
            let connection = connection.map_or(String::new(), |id| format!("#{id}  "));
            let direction = report.map_or(String::new(), |report| format!("{}  ", report.direction.arrow()));
            paint(&format!("{}  {connection}{direction}{words}", clock(time)), Paint::Dim, self.look.colours)
        };
        self.write(&format!("{text}\n"));
    }

    fn write(&mut self, text: &str) {
        let Err(error) = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) else { return };
        // The connections need not end for it, and the capture goes on. That nobody looks any more, as behind `head`, is no news.
        if error.kind() != ErrorKind::BrokenPipe && !self.has_said_so {
            self.has_said_so = true;
            print_note(&format!("standard output cannot be written ({error}); the connections go on"));
        }
    }

    fn decode(&mut self, report: Report, feed: impl FnOnce(&mut Stream, &mut dyn FnMut(Seen<'_>))) {
        let Some((mut stream, mut about)) = self.streams.remove(&report) else { return };
        about.time = Some(SystemTime::now());
        let mut text = String::new();
        feed(&mut stream, &mut |seen| text += &show(&seen, &about, self.look));
        self.streams.insert(report, (stream, about));
        self.write(&text);
    }

    /// No more comes of the direction.
    fn finish(&mut self, report: Report, words: &str) {
        self.end(report);
        self.tell(report, words);
    }

    fn end(&mut self, report: Report) {
        self.decode(report, |stream, see| stream.end(see));
        self.streams.remove(&report);
    }

    fn record(
        &mut self,
        report: Report,
        write: impl FnOnce(&mut Writer<Box<dyn Write + Send>>, ConnectionId) -> std::io::Result<()>,
    ) {
        let connection = self.captured.get(&report.connection).copied();
        if let (Some(capture), Some(connection)) = (self.capture.as_mut(), connection)
            && let Err(error) = write(capture, connection)
        {
            self.give_up_capture(&error);
        }
    }

    fn give_up_capture(&mut self, error: &std::io::Error) {
        self.capture = None;
        let words = format!("the capture cannot be written ({error}), so it ends here");
        print_note(&words);
        self.say(None, &words);
    }
}
