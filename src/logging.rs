//! The log: one event is one line, written by one thread, and nobody who logs ever waits for it.
//!
//! ```text
//! log::info!() ─▶ escape ─▶ simplelog: time, level ─▶ bounded queue ─▶ thread "log" ─▶ DIR/chatserver.log
//!   any thread                                        full: counted                └─▶ standard error
//! ```
//!
//! A full disk or a stopped terminal (Ctrl-S, a reader that sleeps) costs log lines, which are counted, and nothing else. This room knows nothing of
//! connections: whoever logs begins the message with the connection's id. Only records of this crate are written, so that no dependency can log what
//! it was given.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};
use time::macros::format_description;

use crate::limits::LOG_QUEUE_LINES;

/// The log's name in the data directory.
pub const FILE_NAME: &str = "chatserver.log";

/// How long `log::logger().flush()` waits at most: a stop must not hang on a stopped terminal.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// After so many writes in this time the lines wait for its end, and are written together.
const WRITES_AT_ONCE: u32 = 8;
const GATHERING: Duration = Duration::from_millis(10);

/// How long the terminal may take nothing before it counts as stopped.
const TERMINAL_PATIENCE: Duration = Duration::from_secs(1);

/// A pipe that reports room has room for this much; more at once might block.
const TERMINAL_WRITE_BYTES: usize = 4096;

/// Makes the log of this process: standard error, and `file`, which is created with mode 0600 and appended to. Once per process, from `main`.
///
/// `log::logger().flush()` waits until everything logged before is written, at most 2 s.
///
/// # Errors
/// The file cannot be opened, the thread cannot be started, or the process has a log already.
pub fn start(level: LevelFilter, file: &Path) -> io::Result<Logging> {
    let outputs = Outputs { file: LogFile::open(file)?, terminal: Terminal::new(io::stderr()) };
    let log = QueuedLog::new(level, LOG_QUEUE_LINES);
    let queue = log.queue.clone();
    let writer = log.clone();
    std::thread::Builder::new().name("log".to_owned()).spawn(move || log_loop(&writer, outputs))?;
    log::set_boxed_logger(Box::new(log)).map_err(io::Error::other)?;
    let logging = Logging { queue };
    logging.set_level(level);
    // Nobody has set it: there is one log in a process.
    let _ = THIS.set(logging.clone());
    Ok(logging)
}

/// The log of this process, if it is this room's.
static THIS: OnceLock<Logging> = OnceLock::new();

/// From now on only records up to this level, whoever the log of this process belongs to.
pub fn set_level(level: LevelFilter) {
    match THIS.get() {
        Some(logging) => logging.set_level(level),
        None => log::set_max_level(level),
    }
}

/// The log of this process, to change it while it runs. Safe from any thread.
#[derive(Clone)]
pub struct Logging {
    queue: Arc<Queue>,
}

impl Logging {
    /// Has the file opened anew under its name before the next line is written: whoever rotates logs has renamed it. If it cannot be opened, the old one
    /// stays in use, and a line says so.
    pub fn reopen(&self) {
        self.queue.state.lock().reopen = true;
        self.queue.changed.notify_one();
    }

    /// From now on only records up to this level.
    pub fn set_level(&self, level: LevelFilter) {
        self.queue.level.store(level as usize, Relaxed);
        log::set_max_level(level);
    }
}

/// A message as it may stand in a line: control characters, line ends above all, are written as escapes.
pub fn one_line(message: &str) -> Cow<'_, str> {
    if !message.contains(char::is_control) {
        return Cow::Borrowed(message);
    }
    let mut escaped = String::with_capacity(message.len() + 8);
    for c in message.chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// What `log::info!()` and the others reach. Safe from any thread; never waits for an output.
#[derive(Clone)]
struct QueuedLog {
    queue: Arc<Queue>,
    /// Formats, and puts the line into the queue.
    lines: Arc<WriteLogger<LineWriter>>,
}

impl QueuedLog {
    fn new(level: LevelFilter, max_lines: usize) -> QueuedLog {
        let mut config = ConfigBuilder::new();
        config
            .set_time_format_custom(format_description!(
                "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
            ))
            .set_level_padding(LevelPadding::Right)
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .add_filter_allow_str(env!("CARGO_CRATE_NAME"));
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
            written: Condvar::new(),
            level: AtomicUsize::new(level as usize),
            max_lines,
        });
        let writer = LineWriter { queue: Arc::clone(&queue), line: Vec::new() };
        QueuedLog { queue, lines: Arc::from(WriteLogger::new(LevelFilter::Trace, config.build(), writer)) }
    }

    /// A line of the log's own.
    fn note(&self, level: Level, message: &str) {
        self.log(&Record::builder().level(level).target(module_path!()).args(format_args!("{message}")).build());
    }
}

impl Log for QueuedLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() as usize <= self.queue.level.load(Relaxed) && self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Formatted before simplelog takes its lock: a Display that panics must not poison it.
        let mut message = String::new();
        let _ = write!(message, "{}", record.args());
        let metadata = record.metadata().clone();
        self.lines.log(&Record::builder().metadata(metadata).args(format_args!("{}", one_line(&message))).build());
    }

    fn flush(&self) {
        self.queue.flush(FLUSH_TIMEOUT);
    }
}

/// Collects what simplelog writes piece by piece, and queues the whole line.
struct LineWriter {
    queue: Arc<Queue>,
    line: Vec<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            self.queue.push(std::mem::take(&mut self.line));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines on their way to the log's thread.
struct Queue {
    // lock: a leaf; held for a push or a swap only
    state: Mutex<QueueState>,
    /// There is something to do for the log's thread.
    changed: Condvar,
    /// What was taken is written.
    written: Condvar,
    /// The `LevelFilter` in force, which can change.
    level: AtomicUsize,
    max_lines: usize,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Vec<u8>>,
    /// Lines that found the queue full, since it was last taken.
    dropped: u64,
    /// The log's thread is writing what it took.
    writing: bool,
    /// The log's thread waits for the next line; it need not be told of one otherwise.
    waiting: bool,
    /// The lines that are there are not to wait for more.
    urgent: bool,
    /// The file is to be opened anew.
    reopen: bool,
}

impl Queue {
    fn push(&self, line: Vec<u8>) {
        let mut state = self.state.lock();
        if state.lines.len() >= self.max_lines {
            state.dropped += 1;
            return;
        }
        state.lines.push_back(line);
        state.urgent |= state.lines.len() > self.max_lines / 2;
        if state.waiting || state.urgent {
            self.changed.notify_one();
        }
    }

    /// Waits for lines, or the wish to open the file anew; takes all lines.
    fn take(&self) -> Taken {
        let mut state = self.state.lock();
        state.waiting = true;
        while state.lines.is_empty() && !state.reopen {
            self.changed.wait(&mut state);
        }
        (state.waiting, state.writing, state.urgent) = (false, true, false);
        Taken {
            lines: std::mem::take(&mut state.lines),
            dropped: std::mem::take(&mut state.dropped),
            reopen: std::mem::take(&mut state.reopen),
        }
    }

    /// What was taken is written.
    fn done(&self) {
        self.state.lock().writing = false;
        self.written.notify_all();
    }

    /// Lets lines wait for each other until then, unless somebody waits for them.
    fn gather(&self, until: Instant) {
        let mut state = self.state.lock();
        while !state.urgent && !state.reopen && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    /// Waits until everything is written, but no longer than `timeout`.
    fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        while state.writing || !state.lines.is_empty() {
            state.urgent = true;
            self.changed.notify_one();
            if self.written.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }
}

/// What the log's thread has to do.
struct Taken {
    lines: VecDeque<Vec<u8>>,
    /// Lines that found the queue full.
    dropped: u64,
    /// Open the file anew first.
    reopen: bool,
}

/// The log's thread. It lives as long as the process.
fn log_loop<T: Write + AsFd>(log: &QueuedLog, mut outputs: Outputs<T>) {
    let (mut began, mut writes) = (Instant::now(), 0);
    loop {
        let Taken { lines, dropped, reopen } = log.queue.take();
        if reopen {
            outputs.reopen(log);
        }
        if dropped > 0 {
            log.note(
                Level::Warn,
                &format!("log: {dropped} lines were dropped here, the log could not be written fast enough"),
            );
        }
        outputs.write(log, &lines);
        log.queue.done();
        writes += 1;
        if began.elapsed() >= GATHERING {
            (began, writes) = (Instant::now(), 1);
        } else if writes >= WRITES_AT_ONCE {
            log.queue.gather(began + GATHERING);
        }
    }
}

/// Where lines go.
struct Outputs<T> {
    file: LogFile,
    terminal: Terminal<T>,
}

impl<T: Write + AsFd> Outputs<T> {
    fn reopen(&mut self, log: &QueuedLog) {
        match LogFile::open(&self.file.path) {
            Ok(file) => self.file = file,
            Err(error) => log.note(
                Level::Error,
                &format!(
                    "log: {} cannot be opened anew ({error}); the file that was open stays in use",
                    self.file.path.display()
                ),
            ),
        }
    }

    fn write(&mut self, log: &QueuedLog, lines: &VecDeque<Vec<u8>>) {
        let lines = lines.iter().fold(Vec::new(), |mut all, line| {
            all.extend_from_slice(line);
            all
        });
        // The file first: a stopped terminal must not keep lines from it.
        if let Some((level, note)) = self.file.write(&lines) {
            log.note(level, &note);
        }
        if let Some(note) = self.terminal.write(&lines) {
            log.note(Level::Warn, &note);
        }
    }
}

/// Lines, by their ends.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The log file. Each write is tried; while that fails, the lines are counted and go to the terminal only.
struct LogFile<F = File> {
    path: PathBuf,
    file: F,
    missing: u64,
    /// The last write ended in the middle of a line.
    torn: bool,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(LogFile { path: path.to_owned(), file, missing: 0, torn: false })
    }
}

impl<F: Write> LogFile<F> {
    /// Writes lines; a change for the worse or the better is to be logged.
    fn write(&mut self, mut lines: &[u8]) -> Option<(Level, String)> {
        match self.append(&mut lines) {
            Ok(()) if self.missing == 0 => None,
            Ok(()) => {
                let missing = std::mem::take(&mut self.missing);
                Some((
                    Level::Warn,
                    format!("log: {} can be written again; {missing} lines are missing in it", self.path.display()),
                ))
            }
            Err(error) => {
                let is_first = self.missing == 0;
                self.missing += count(lines);
                is_first.then(|| {
                    (
                        Level::Error,
                        format!(
                            "log: {} cannot be written ({error}); what is missing in it is counted",
                            self.path.display()
                        ),
                    )
                })
            }
        }
    }

    /// After an error `lines` are those that are not in the file.
    fn append(&mut self, lines: &mut &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        while !lines.is_empty() {
            match self.file.write(lines) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.torn = lines[bytes - 1] != b'\n';
                    *lines = &lines[bytes..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Standard error: a terminal, a pipe or a file. One that takes nothing for a while counts as stopped and gets nothing until it takes again.
struct Terminal<T> {
    out: T,
    /// A real one says that it has room when there is some, however little: lines go to it one by one.
    is_tty: bool,
    stopped: bool,
    missing: u64,
}

impl<T: Write + AsFd> Terminal<T> {
    fn new(out: T) -> Terminal<T> {
        Terminal { is_tty: out.as_fd().is_terminal(), out, stopped: false, missing: 0 }
    }

    /// Writes lines; a gap is to be logged.
    fn write(&mut self, mut lines: &[u8]) -> Option<String> {
        while !lines.is_empty() {
            if !self.has_room() {
                self.stopped = true;
                self.missing += count(lines);
                return None;
            }
            self.stopped = false;
            // Whole lines, but for one that is too long.
            let most = &lines[..lines.len().min(TERMINAL_WRITE_BYTES)];
            let is_end = |byte: &u8| *byte == b'\n';
            let end = if self.is_tty { most.iter().position(is_end) } else { most.iter().rposition(is_end) };
            let end = end.map_or(most.len(), |end| end + 1);
            // A terminal that is gone is nothing to complain about, nor a place to do so.
            let _ = self.out.write_all(&lines[..end]);
            lines = &lines[end..];
        }
        let missing = std::mem::take(&mut self.missing);
        (missing > 0).then(|| {
            format!("log: {missing} lines were not shown here while this output was stopped; they are in the file")
        })
    }

    fn has_room(&self) -> bool {
        let patience = if self.stopped { Duration::ZERO } else { TERMINAL_PATIENCE };
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
        let mut terminal = [PollFd::new(&self.out, PollFlags::OUT)];
        !matches!(poll(&mut terminal, Some(&timeout)), Ok(0))
    }
}

#[cfg(test)]
#[path = "logging_tests.rs"]
mod tests;
