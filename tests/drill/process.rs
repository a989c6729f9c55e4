//! A server that dies and lives again, and what it says of itself.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use chatserver::client::{ClientError, Connect};
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use crate::harness::{PATIENCE, Server, Setup};

/// A server under one roof after another: it is killed and started again, and who lost it waits here for the next.
pub struct Lives {
    state: Mutex<State>, // lock: by itself, and never while the server is killed or started
    changed: Condvar,
}

struct State {
    /// Where to connect; `None` while there is no server.
    connect: Option<Connect>,
    /// How many servers there were.
    life: u32,
    is_last: bool,
    surprises: Vec<String>,
}

/// So many surprises are told one by one.
const NAMED: usize = 5;

impl Lives {
    /// Nobody lives yet.
    pub fn new() -> Lives {
        let state = State { connect: None, life: 0, is_last: false, surprises: Vec::new() };
        Lives { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// This server listens.
    pub fn begin(&self, server: &Server) {
        let mut state = self.state.lock();
        state.life += 1;
        state.connect = Some(server.connect());
        self.changed.notify_all();
    }

    /// It is about to be killed: what ends from now on ends for that.
    pub fn end(&self) {
        self.state.lock().connect = None;
    }

    /// The present life is the last: nobody is killed any more.
    pub fn wind_up(&self) {
        self.state.lock().is_last = true;
        self.changed.notify_all();
    }

    /// Whether the present life is the last.
    pub fn is_winding_up(&self) -> bool {
        self.state.lock().is_last
    }

    /// How many servers there were.
    pub fn count(&self) -> u32 {
        self.state.lock().life
    }

    /// Whether a server has ended, or is about to.
    pub fn has_one_ended(&self) -> bool {
        let state = self.state.lock();
        state.life > 1 || state.connect.is_none()
    }

    /// Where to connect, as soon as there is a server, and the number of its life.
    pub fn connect(&self) -> (Connect, u32) {
        let mut state = self.state.lock();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(connect) = &state.connect {
                return (connect.clone(), state.life);
            }
            let waited = self.changed.wait_until(&mut state, deadline);
            assert!(!waited.timed_out(), "no server came within {PATIENCE:?}");
        }
    }

    /// Whether the server of this life has not been killed.
    pub fn is_still(&self, life: u32) -> bool {
        let state = self.state.lock();
        state.life == life && state.connect.is_some()
    }

    /// Stays away for this time, or until the last life has begun.
    pub fn stay_away(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.is_last && !self.changed.wait_until(&mut state, deadline).timed_out() {}
    }

    /// Waits for the last life.
    pub fn wait_for_the_last(&self) {
        let mut state = self.state.lock();
        while !state.is_last {
            self.changed.wait(&mut state);
        }
    }

    /// Somebody's connection ended in this life: a surprise, unless the server was killed.
    pub fn lost(&self, life: u32, who: &str, error: &ClientError) {
        if self.is_still(life) {
            self.surprise(format!("{who}, of server {life}, which was not killed: {error}"));
        }
    }

    /// Something that should not have happened.
    pub fn surprise(&self, what: String) {
        self.state.lock().surprises.push(what);
    }

    /// What should not have happened.
    pub fn surprises(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut told: Vec<String> = state.surprises.iter().take(NAMED).cloned().collect();
        if state.surprises.len() > NAMED {
            told.push(format!("{} such surprises in all", state.surprises.len()));
        }
        told
    }
}

/// Starts the server of a drill on this directory.
pub fn start(data: &Path, prepare: impl FnOnce(&mut Setup) -> &mut Setup) -> Server {
    Server::start(|setup| prepare(setup.data(data).set("log_level", "warn")))
}

/// Asks a server over its socket: one line, one answer.
pub fn ask(data: &Path, request: &str) -> io::Result<Value> {
    let mut socket = UnixStream::connect(data.join("ctl.sock"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// One number of a status: `"counts.logins"`.
pub fn number(status: &Value, path: &str) -> i64 {
    let value = path.split('.').fold(status, |value, name| &value[name]);
    value.as_i64().unwrap_or_else(|| panic!("no number {path} in {status}"))
}

/// What SQLite says of the database in this directory: `ok`. A copy is asked, so that the recovery from the log is still the server's.
pub fn integrity(data: &Path) -> String {
    let place = tempfile::tempdir().expect("a temporary directory");
    for name in ["chatserver.db", "chatserver.db-wal", "chatserver.db-journal"] {
        if data.join(name).exists() {
            std::fs::copy(data.join(name), place.path().join(name)).expect("the database is copied");
        }
    }
    let checked = rusqlite::Connection::open(place.path().join("chatserver.db")).and_then(|database| {
        let rows = database.prepare("pragma integrity_check")?.query_map([], |row| row.get(0))?.collect();
        let rows: rusqlite::Result<Vec<String>> = rows;
        rows
    });
    checked.map_or_else(|error| error.to_string(), |rows| rows.join("; "))
}
