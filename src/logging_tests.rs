//! One event one line; nobody waits; nothing is lost without being counted.

use super::*;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

fn record(log: &QueuedLog, level: Level, target: &str, message: &str) {
    log.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
}

/// What is in the queue, taken without waiting.
fn queued(log: &QueuedLog) -> Vec<String> {
    std::mem::take(&mut log.queue.state.lock().lines).into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

#[test]
fn a_line_has_time_level_and_message() {
    let log = QueuedLog::new(LevelFilter::Info, 8);
    record(&log, Level::Info, "chatserver::server", "#7 hello");
    record(&log, Level::Error, "chatserver", "#8 oh");
    record(&log, Level::Debug, "chatserver", "below the level");
    record(&log, Level::Error, "rustyline", "another crate's");
    let lines = queued(&log);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (time, rest) = lines[0].split_once(' ').unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!((shape.as_str(), rest), ("9999-99-99T99:99:99.999Z", "[INFO ] #7 hello\n"));
    assert!(lines[1].ends_with("Z [ERROR] #8 oh\n"));
}

#[test]
fn control_characters_cannot_make_a_second_line() {
    let log = QueuedLog::new(LevelFilter::Info, 8);
    record(&log, Level::Info, "chatserver", "a\nb\r\n\x1b[2J\0\u{85}\u{7f}\t你好 \\n");
    let lines = queued(&log);
    assert!(lines[0].ends_with("] a\\nb\\r\\n\\u{1b}[2J\\u{0}\\u{85}\\u{7f}\\t你好 \\n\n"), "{lines:?}");
    assert_eq!(lines[0].matches('\n').count(), 1);
    assert!(matches!(one_line("nothing to escape"), Cow::Borrowed(_)));
}

#[test]
fn a_full_queue_drops_and_counts() {
    let log = QueuedLog::new(LevelFilter::Info, 2);
    for n in 0..5 {
        record(&log, Level::Info, "chatserver", &format!("line {n}"));
    }
    let Taken { lines, dropped, .. } = log.queue.take();
    assert_eq!((lines.len(), dropped), (2, 3));
    record(&log, Level::Info, "chatserver", "room again");
    assert_eq!(log.queue.take().dropped, 0);
}

#[test]
fn the_threads_lines_reach_file_and_terminal_and_the_dropped_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let (mut shown, terminal) = io::pipe().unwrap();
    let log = QueuedLog::new(LevelFilter::Info, 2);
    for n in 0..3 {
        record(&log, Level::Info, "chatserver", &format!("line {n}"));
    }
    let writer = log.clone();
    let outputs = Outputs { file: LogFile::open(&path).unwrap(), terminal: Terminal::new(terminal) };
    std::thread::spawn(move || log_loop(&writer, outputs));
    log.flush();
    let file = fs::read_to_string(&path).unwrap();
    let messages: Vec<&str> = file.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(
        messages,
        ["line 0", "line 1", "log: 1 lines were dropped here, the log could not be written fast enough"]
    );
    let mut same = vec![0; file.len()];
    shown.read_exact(&mut same).unwrap();
    assert_eq!(same, file.as_bytes());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    for line in [b"one\n", b"two\n"] {
        assert_eq!(LogFile::open(&path).unwrap().write(line), None);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
}

#[test]
fn a_stopped_terminal_costs_lines_there_and_is_told_so_afterwards() {
    let (mut shown, pipe) = io::pipe().unwrap();
    let mut terminal = Terminal::new(pipe);
    let mut line = [b'x'; 1000];
    line[999] = b'\n';
    let mut written = 0;
    while terminal.missing == 0 {
        assert_eq!(terminal.write(&line), None);
        written += 1;
        assert!(written < 10_000, "a pipe without a reader takes everything");
    }
    assert_eq!(terminal.write(&line), None);
    assert_eq!(terminal.missing, 2);
    let mut all = vec![0; 1000 * (written - 1)];
    shown.read_exact(&mut all).unwrap();
    let note = terminal.write(&line).unwrap();
    assert!(note.starts_with("log: 2 lines were not shown"), "{note}");
    assert_eq!(terminal.write(&line), None);
}

#[test]
fn a_terminal_that_is_gone_disturbs_nobody() {
    let (shown, pipe) = io::pipe().unwrap();
    drop(shown);
    assert_eq!(Terminal::new(pipe).write(b"line\n"), None);
}

/// A file on a disk with room for so many bytes.
struct Disk {
    room: usize,
    written: Vec<u8>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room);
        if fits == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= fits;
        self.written.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_once_and_what_is_missing_is_counted() {
    let disk = Disk { room: 7, written: Vec::new() };
    let mut file = LogFile { path: "a.log".into(), file: disk, missing: 0, torn: false };
    assert_eq!(file.write(b"one\n"), None);
    let (level, note) = file.write(b"two two\n").unwrap();
    assert!(level == Level::Error && note.starts_with("log: a.log cannot be written ("), "{note}");
    assert_eq!(file.write(b"three\n"), None);
    file.file.room = 100;
    let (_, note) = file.write(b"four\n").unwrap();
    assert_eq!(note, "log: a.log can be written again; 2 lines are missing in it");
    assert_eq!(file.write(b"five\n"), None);
    assert_eq!(String::from_utf8(file.file.written).unwrap(), "one\ntwo\nfour\nfive\n");
}

#[test]
fn a_flush_is_bounded() {
    let log = QueuedLog::new(LevelFilter::Info, 8);
    record(&log, Level::Info, "chatserver", "nobody writes this");
    log.queue.flush(Duration::from_millis(1));
    assert_eq!(queued(&log).len(), 1);
}
