//! One direction of one connection: reads from one side, does what is to be done wrong, writes to the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::mischief::{Deed, Stop, Wrong};
use super::{Report, Tap, Watcher};
use crate::capture::Direction;
use crate::{limits, threads};

/// How long packets that are to be joined wait for more, from the first of them on.
const JOIN_TIMEOUT: Duration = Duration::from_millis(200);

/// Between two bytes that go alone: the receiver should have read the one before.
const BYTE_PAUSE: Duration = Duration::from_millis(5);

/// What is read at once, bytes.
const READ_BYTES: usize = 64 << 10;

/// The same where it is delayed, so that at most a mebibyte is on its way.
const DELAYED_READ_BYTES: usize = 1 << 10;

/// What may be on its way when it is delayed: reads. Then the sender has to wait, as on a long line. Without a delay it waits for each write: who
/// reads slowly is a slow reader through the tap, too.
const DELAYED: usize = 1024;

/// A connection's two halves; kept by the threads that pass on. With the last of them it is gone.
pub struct Pair {
    id: u64,
    watcher: Arc<Watcher>,
    client: TcpStream,
    server: TcpStream,
    is_silent: AtomicBool,
    /// Somebody has ended it on purpose: what the ends say of it is no news.
    is_over: AtomicBool,
}

impl Pair {
    /// Of two connected sockets, after [`Watcher::opened`].
    pub fn new(id: u64, watcher: Arc<Watcher>, client: TcpStream, server: TcpStream) -> Pair {
        Pair { id, watcher, client, server, is_silent: AtomicBool::new(false), is_over: AtomicBool::new(false) }
    }

    /// Connecting to nobody is how Linux is asked for a reset at once; a close would send a FIN, and wait for whoever still reads.
    fn reset(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        for socket in [&self.client, &self.server] {
            // Gone already is as good.
            let _ = rustix::net::connect_unspec(socket);
        }
    }

    pub fn close(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.watcher.gone(self.id);
    }
}

/// What a direction's reader tells its writer.
enum Step {
    Bytes(Vec<u8>),
    Fin,
    Lost(ErrorKind),
}

/// Pumps until the direction ends.
pub fn run(tap: &Tap, pair: &Pair, direction: Direction) {
    let (from, to) = match direction {
        Direction::ToServer => (&pair.client, &pair.server),
        Direction::ToClient => (&pair.server, &pair.client),
    };
    let mut wrong = Wrong::new(&tap.mischief, direction);
    let (reads, read_bytes) = if wrong.delay().is_zero() { (0, READ_BYTES) } else { (DELAYED, DELAYED_READ_BYTES) };
    let (out, steps) = sync_channel(reads);
    let reader = match from.try_clone() {
        Ok(socket) => socket,
        Err(error) => {
            tap.watcher.say(Some(pair.id), &format!("no descriptor for it ({error}), so it is closed"));
            return pair.close();
        }
    };
    let name = format!("{} reads", pair.id);
    let reading = threads::spawn(&name, limits::MAIL_STACK_BYTES, move || read(reader, &out, read_bytes));
    if let Err(error) = reading {
        tap.watcher.say(Some(pair.id), &format!("no thread for it ({error}), so it is closed"));
        return pair.close();
    }
    let report = Report { connection: pair.id, direction };
    pump(tap, pair, report, &mut wrong, &steps, to);
}

/// Reads until there is no more; what was read is told with its time.
fn read(mut socket: TcpStream, out: &SyncSender<(Instant, Step)>, bytes: usize) {
    let mut buffer = vec![0; bytes];
    loop {
        let step = match socket.read(&mut buffer) {
            Ok(0) => Step::Fin,
            Ok(count) => Step::Bytes(buffer[..count].to_vec()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Step::Lost(error.kind()),
        };
        let is_last = !matches!(step, Step::Bytes(_));
        if out.send((Instant::now(), step)).is_err() || is_last {
            return;
        }
    }
}

fn pump(tap: &Tap, pair: &Pair, report: Report, wrong: &mut Wrong, steps: &Receiver<(Instant, Step)>, to: &TcpStream) {
    let mut steps = Steps { steps, delay: wrong.delay(), early: None };
    let mut deadline = None;
    loop {
        deadline = wrong.holds().then(|| deadline.unwrap_or_else(|| Instant::now() + JOIN_TIMEOUT));
        let (deeds, end) = match steps.next(deadline) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => (wrong.let_go(), None),
            Ok(Step::Bytes(bytes)) => {
                tap.watcher.read(report, bytes.len());
                (wrong.take(&bytes), None)
            }
            Ok(end) => (wrong.let_go(), Some(end)),
        };
        if pair.is_silent.load(Ordering::Relaxed) {
            return stay_silent(steps.steps);
        }
        for (index, deed) in deeds.into_iter().enumerate() {
            if index > 0 && wrong.is_byte_by_byte() {
                std::thread::sleep(BYTE_PAUSE);
            }
            match deed {
                Deed::Flipped(flip) => {
                    tap.watcher.tell(report, &format!("turned over bit {} of byte {}", flip.bit, flip.offset));
                }
                Deed::Pass(bytes) => {
                    if pair.is_over.load(Ordering::Relaxed) {
                        return tap.watcher.ended(report);
                    }
                    tap.watcher.passed(report, &bytes);
                    if let Err(error) = write(to, &bytes) {
                        // Who takes no more has reset, or is gone, and the other side must learn of it as of a reset.
                        if !pair.is_over.load(Ordering::Relaxed) {
                            let other = Report { direction: report.direction.reverse(), ..report };
                            tap.watcher.ended(report);
                            tap.watcher.reset(other, &format!("takes no more ({})", error.kind()));
                        }
                        return pair.reset();
                    }
                }
                Deed::Stop(Stop::Cut) => {
                    tap.watcher.reset(report, "cut on purpose: reset towards both");
                    return pair.reset();
                }
                Deed::Stop(Stop::Close) => {
                    tap.watcher.fin(report, "closed on purpose, towards both");
                    return pair.close();
                }
                Deed::Stop(Stop::Silence) => {
                    tap.watcher
                        .tell(report, "silent on purpose: nothing more passes, either way, and nothing is closed");
                    pair.is_silent.store(true, Ordering::Relaxed);
                    return stay_silent(steps.steps);
                }
            }
        }
        match end {
            None => {}
            Some(_) if pair.is_over.load(Ordering::Relaxed) => return tap.watcher.ended(report),
            Some(Step::Lost(kind)) => {
                tap.watcher.reset(report, &format!("lost ({kind})"));
                return pair.reset();
            }
            Some(_) => {
                tap.watcher.fin(report, "closed");
                // The other direction goes on: a half-closed connection is one.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    }
}

/// A direction's steps, each when its time has come.
struct Steps<'r> {
    steps: &'r Receiver<(Instant, Step)>,
    delay: Duration,
    /// One that came while another deadline was nearer, and when its time comes.
    early: Option<(Instant, Step)>,
}

impl Steps<'_> {
    /// Waits for the next one, at most until `deadline`; past it a step that could be had must wait, too.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Step, RecvTimeoutError> {
        let (due, step) = match (self.early.take(), deadline) {
            (Some(early), _) => early,
            (None, Some(deadline)) => self.later(self.steps.recv_timeout(left(deadline))?),
            (None, None) => self.later(self.steps.recv().map_err(|_| RecvTimeoutError::Disconnected)?),
        };
        if let Some(deadline) = deadline
            && due.max(Instant::now()) > deadline
        {
            std::thread::sleep(left(deadline));
            self.early = Some((due, step));
            return Err(RecvTimeoutError::Timeout);
        }
        std::thread::sleep(left(due));
        Ok(step)
    }

    fn later(&self, (at, step): (Instant, Step)) -> (Instant, Step) {
        (at + self.delay, step)
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// What still comes is read and forgotten, so that it is not TCP that tells: a network that has gone silent takes everything.
fn stay_silent(steps: &Receiver<(Instant, Step)>) {
    while steps.recv().is_ok() {}
    // The sockets stay open until both ends have closed theirs.
}

fn write(mut to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_comes_too_late_for_a_deadline_waits_behind_it() {
        let (sender, receiver) = sync_channel(2);
        let began = Instant::now();
        let mut steps = Steps { steps: &receiver, delay: Duration::from_millis(80), early: None };
        sender.send((began, Step::Bytes(b"one".to_vec()))).unwrap();
        sender.send((began, Step::Fin)).unwrap();
        // There at once, but its time comes later than that of what is held.
        let deadline = began + Duration::from_millis(20);
        assert!(matches!(steps.next(Some(deadline)), Err(RecvTimeoutError::Timeout)));
        assert!(Instant::now() >= deadline);
        assert!(matches!(steps.next(None), Ok(Step::Bytes(bytes)) if bytes == b"one"));
        assert!(began.elapsed() >= steps.delay);
        // Its time has come, and so has the deadline before it.
        assert!(matches!(steps.next(Some(began)), Err(RecvTimeoutError::Timeout)));
        assert!(matches!(steps.next(Some(Instant::now() + JOIN_TIMEOUT)), Ok(Step::Fin)));
        assert!(matches!(steps.next(Some(began)), Err(RecvTimeoutError::Timeout)), "nothing is there");
        drop(sender);
        assert!(matches!(steps.next(None), Err(RecvTimeoutError::Disconnected)));
    }
}
