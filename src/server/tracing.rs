//! `trace NAME`: what passes of one user, decoded, a line of JSON each, until the asker closes or the server stops.
//!
//! One thread, the asker's own, waits for three things at once: a packet, room in the asker's socket, and the asker's end. Packets are opened here and nowhere
//! else; an asker that does not read fills its own queue (`delivery/trace.rs`), and is told how many lines it has lost.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde_json::{Value, json};

use super::{Shared, inside};
use crate::delivery::{Direction, Noted, Trace};
use crate::limits;
use crate::protocol::{Cipher, UserName, explain};

/// Lines are made as long as fewer bytes of them wait for the asker's socket.
const READY_BYTES: usize = 64 * 1024;

/// Streams to the end.
///
/// # Errors
/// In words: nothing was begun.
pub(super) fn stream(socket: &UnixStream, name: &str, shared: &Arc<Shared>) -> Result<(), String> {
    let name = inside::user(name)?;
    let trace = shared.delivery.traces.begin(name.key()).map_err(|error| format!("no trace can be begun: {error}"))?;
    let looking = Looking { shared, name: &name, trace };
    looking.retrace();
    log::info!("ctl.sock: a trace of {} begins", name.as_written());
    let mut stream =
        Stream { socket, bytes: VecDeque::new(), noted: VecDeque::new(), lost: 0, taken_at: Instant::now() };
    // Where the disk cannot be read now, the trace goes on without knowing.
    let is_connected = inside::present(&name, shared).is_some();
    let is_known = is_connected || inside::known(&name, &shared.delivery).map_or(true, |known| known.is_some());
    stream.put(&json!({ "trace": name.as_written(), "connected": is_connected, "known": is_known }));
    let why = stream.run(&looking);
    drop(looking);
    log::info!("ctl.sock: the trace of {} ends: {why}", name.as_written());
    Ok(())
}

/// A trace that ends with its value, also in a panic.
struct Looking<'s> {
    shared: &'s Arc<Shared>,
    name: &'s UserName,
    trace: Arc<Trace>,
}

impl Looking<'_> {
    /// The session that is there is told; one that begins later asks by itself.
    fn retrace(&self) {
        if let Some(session) = inside::present(self.name, self.shared) {
            session.retrace(&self.shared.delivery.traces);
        }
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.shared.delivery.traces.end(&self.trace);
        self.retrace();
    }
}

struct Stream<'s> {
    socket: &'s UnixStream,
    /// Lines on their way.
    bytes: VecDeque<u8>,
    /// Packets that are no lines yet.
    noted: VecDeque<Noted>,
    /// Packets that were lost after them.
    lost: u64,
    /// When the asker last took something.
    taken_at: Instant,
}

impl Stream<'_> {
    /// Until the end; says why it came.
    fn run(&mut self, looking: &Looking<'_>) -> &'static str {
        let (shared, trace) = (looking.shared, &looking.trace);
        loop {
            if shared.is_stopping() {
                return "the server stops";
            }
            self.explain(&shared.delivery.cipher);
            if !self.send() {
                return "its reader is gone";
            }
            // While lines wait for the socket, packets wait in the bounded queue; before this thread sleeps it looks there.
            if self.bytes.is_empty() {
                if self.noted.is_empty() {
                    let (noted, lost) = trace.take();
                    self.noted.extend(noted);
                    self.lost += lost;
                }
                // `take` may have swallowed the wake-up of the stop.
                if !self.noted.is_empty() || self.lost > 0 || shared.is_stopping() {
                    continue;
                }
            }
            let left = match self.bytes.is_empty() {
                true => Duration::from_secs(3600),
                false => limits::CTL_TIMEOUT.saturating_sub(self.taken_at.elapsed()),
            };
            if left.is_zero() {
                return "its reader takes nothing";
            }
            // That it has no more to ask is no end; that it has closed both ways is, and is told unasked.
            let room = if self.bytes.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            let mut sources = [PollFd::new(self.socket, room), PollFd::from_borrowed_fd(trace.ready(), PollFlags::IN)];
            match poll(&mut sources, Timespec::try_from(left).ok().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return "its socket fails",
            }
            if sources[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                return "its reader closed";
            }
            if !sources[1].revents().is_empty() {
                trace.calm();
            }
        }
    }

    /// Makes lines of packets, not too many at once.
    fn explain(&mut self, cipher: &Cipher) {
        if self.bytes.is_empty() {
            // It waits from now on.
            self.taken_at = Instant::now();
        }
        while self.bytes.len() < READY_BYTES {
            let Some(noted) = self.noted.pop_front() else { break };
            self.put(&line(&noted, cipher));
        }
        if self.noted.is_empty() && self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.put(&json!({ "lost": lost }));
        }
    }

    fn put(&mut self, line: &Value) {
        self.bytes.extend(line.to_string().as_bytes());
        self.bytes.push_back(b'\n');
    }

    /// Sends what the socket takes at once; `false`: nobody is there.
    fn send(&mut self) -> bool {
        while !self.bytes.is_empty() {
            match rustix::net::send(self.socket, self.bytes.as_slices().0, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.bytes.drain(..count);
                    self.taken_at = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return false,
            }
        }
        true
    }
}

/// A packet as a line.
fn line(noted: &Noted, cipher: &Cipher) -> Value {
    let mut line = explained(&noted.packet, cipher);
    line["time"] = json!(noted.at);
    line["connection"] = json!(noted.connection);
    line["direction"] = json!(if noted.direction == Direction::In { "in" } else { "out" });
    line["offset"] = json!(noted.offset);
    line["bytes"] = json!(noted.packet.len());
    line
}

/// {type, name, fields, error}, as `decode --json` says it, and the fields in a line, as `decode --short` does.
fn explained(packet: &[u8], cipher: &Cipher) -> Value {
    let it = explain(packet, cipher, packet.len());
    json!({ "type": it.kind, "name": it.name(), "fields": it.json(), "summary": it.summary(), "error": it.fault.as_ref().map(ToString::to_string) })
}
