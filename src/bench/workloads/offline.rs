//! Messages for somebody who is not there: how fast they are taken and saved, and how fast they come when the recipient does.
//!
//! Against a server of our own the same rows are also written and read with SQLite alone, in the same run and file system.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, params};

use crate::bench::Failure;
use crate::bench::crowd::What;
use crate::bench::load::Load;
use crate::bench::report::Report;
use crate::storage::{DATABASE, Storage};

/// What waits unsent in the load generator, bytes.
const UNSENT_BYTES: usize = 256 * 1024;

const SENDER: u32 = 0;
const RECIPIENT: u32 = 1;

/// Stores, then collects. `data` is the server's directory, where that is known: then it is not over before all rows are on disk.
pub fn offline(load: &mut Load<'_, '_>, data: Option<&Path>) -> Result<Report, Failure> {
    let messages = load.settings.messages;
    load.log_in(1)?;
    let (there, back) = (load.flow(SENDER, RECIPIENT), load.flow(SENDER, SENDER));

    let (began, before) = (load.crowd.now(), load.usage());
    store(load, there, messages)?;
    // A message to oneself comes when all before it are taken.
    let now = load.crowd.now();
    load.send(back, now);
    load.drain(&[back])?;
    let accepted = load.crowd.now() - began;
    let saved = match data {
        Some(data) => Some(save(load, data, messages)? - began),
        None => None,
    };
    let used = load.usage().zip(before).map(|(after, before)| after.since(&before));

    let mut is_open = false;
    let settings = load.settings;
    let collecting = load.crowd.now();
    load.crowd.join(RECIPIENT)?;
    let mut took = Duration::ZERO;
    let mut left = messages as usize;
    let mut heard_at = collecting;
    while left > 0 && load.crowd.now() - heard_at < Duration::from_secs(10) {
        load.crowd.flush();
        load.turn(Duration::from_millis(50))?;
        is_open |= load.happened().iter().any(|happening| happening.what == What::LoggedIn);
        let came = load.came().count();
        if came > 0 {
            left = left.saturating_sub(came);
            heard_at = load.crowd.now();
            took = heard_at - collecting;
            load.progress(1.0 - left as f64 / f64::from(messages), "collecting");
        }
    }
    if !is_open {
        return Err(Failure::Silent("a login"));
    }
    let per_second = |time: Duration| f64::from(messages) / time.as_secs_f64();
    let mut report = load.counted("messages", saved.unwrap_or(accepted), u64::from(messages), used);
    report.note("accepted_per_second", per_second(accepted));
    report.note("collected_per_second", per_second(took));
    if let (Some(saved), Some(data)) = (saved, data) {
        let raw = Raw::measure(data, messages, settings.text_bytes)?;
        report.note("saved_per_second", per_second(saved));
        report.note("raw_inserted_per_second", per_second(raw.inserted));
        report.note("raw_selected_per_second", per_second(raw.selected));
        report.note("saved_ratio", raw.inserted.as_secs_f64() / saved.as_secs_f64());
        report.note("collected_ratio", raw.selected.as_secs_f64() / took.as_secs_f64());
    }
    Ok(report)
}

fn store(load: &mut Load<'_, '_>, flow: u32, messages: u32) -> Result<(), Failure> {
    let mut sent = 0;
    while sent < messages {
        let now = load.crowd.now();
        while sent < messages && load.crowd.unsent_bytes(SENDER) < UNSENT_BYTES {
            load.send(flow, now);
            sent += 1;
        }
        load.crowd.flush();
        if load.crowd.unsent_bytes(SENDER) >= UNSENT_BYTES {
            load.turn(Duration::from_millis(50))?;
        }
        load.progress(f64::from(sent) / f64::from(messages), "storing");
    }
    Ok(())
}

/// Has the server save at once, as `chatserver ctl save` does, instead of waiting for more as it would; gives when all rows were on disk.
fn save(load: &mut Load<'_, '_>, data: &Path, messages: u32) -> Result<Duration, Failure> {
    load.progress(0.0, "saving");
    let mut socket = UnixStream::connect(data.join("ctl.sock"))?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    socket.write_all(b"save\n")?;
    BufReader::new(socket).read_line(&mut String::new())?;
    let saved_at = load.crowd.now();
    let connection = Connection::open_with_flags(data.join(DATABASE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let saved: u32 = connection.query_row("SELECT ifnull(sum(messages), 0) FROM backlog", [], |row| row.get(0))?;
    if saved < messages { Err(Failure::Silent("a save")) } else { Ok(saved_at) }
}

/// What SQLite takes for the same rows, in one transaction, with the server's schema and its promises: durable when committed.
struct Raw {
    inserted: Duration,
    selected: Duration,
}

impl Raw {
    fn measure(data: &Path, messages: u32, text_bytes: usize) -> Result<Raw, Failure> {
        let directory = data.join("raw");
        std::fs::create_dir(&directory)?;
        // Makes the schema.
        let made = Storage::open(&directory).and_then(|storage| storage.close());
        made.map_err(|error| std::io::Error::other(error.to_string()))?;
        let mut connection = Connection::open(directory.join(DATABASE))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let text = ".".repeat(text_bytes);

        let began = Instant::now();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)")?;
            for seq in 1..=messages {
                let none: Option<i64> = None;
                insert.execute(params![
                    "bench-000001",
                    seq,
                    "bench-000000",
                    text,
                    1_700_000_000,
                    1_700_000_000_000_i64,
                    none
                ])?;
            }
        }
        transaction.commit()?;
        let inserted = began.elapsed();

        let began = Instant::now();
        let mut select = connection.prepare(
            "SELECT seq, sender, text, client_time, accepted_at, msg_id FROM messages WHERE recipient = ? ORDER BY seq",
        )?;
        let mut rows = select.query(["bench-000001"])?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(row) = rows.next()? {
            // Read as the server reads it: an own copy of each column.
            let (_, sender, text): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let _: (i64, i64, Option<i64>) = (row.get(3)?, row.get(4)?, row.get(5)?);
            count += 1;
            bytes += sender.len() + text.len();
        }
        let selected = began.elapsed();
        assert!(count == messages && bytes > 0, "all rows are there");
        Ok(Raw { inserted, selected })
    }
}
