//! `DIR/ctl.sock`: a line of text asks, a line of JSON answers. `nc -U DIR/ctl.sock` is enough to talk to it.
//!
//! The socket's mode is 0600: whoever may read the database may ask.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::side_door::{Room, SideDoor};
use super::{Shared, inside, tracing};
use crate::jobs::report;
use crate::jobs::watch::Reporter;
use crate::language::Language;
use crate::limits;

/// The socket's name in the data directory.
pub const SOCKET: &str = "ctl.sock";

/// The requests, as `help` tells them.
const REQUESTS: &[(&str, &str)] = &[
    ("status", "everything that a report counts, and how the server stands"),
    ("report [en|zh]", "the present report: its subject, its text, its HTML"),
    ("report send", "sends the present report by mail now, and says how that went"),
    ("save", "saves everything that was accepted until now, and answers when it is on disk"),
    ("sessions", "who is there: where from, since when, what waits, what passed"),
    ("session NAME", "the same of one user, also of one who is not there"),
    ("kick NAME", "ends that user's connection; what it has not acknowledged waits"),
    ("trace NAME", "that user's packets, decoded, a line each, until you close the connection"),
    ("log", "what goes into the log now: the level in force"),
    ("log off|error|warn|info|debug|trace", "what goes into the log, until the next SIGHUP or start"),
    ("drain", "accepts no connection any more; those who are there go on"),
    ("drain off", "accepts connections again"),
    ("help", "this list"),
];

/// The socket, and the file that is its name.
pub struct Control {
    path: PathBuf,
    door: SideDoor<UnixStream>,
}

impl Control {
    /// Listens in `dir`. A socket that another server has left there is replaced: the caller sees to it that none is running.
    ///
    /// # Errors
    /// The socket cannot be made, for example since its path is longer than the kernel takes (107 bytes).
    pub fn start(shared: &Arc<Shared>, dir: &Path) -> io::Result<Control> {
        let path = dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let room = Room {
            name: SOCKET,
            threads: "ctl",
            places: limits::CTL_CONNECTIONS,
            refuse,
            serve: |socket, _, shared| serve(socket, shared),
        };
        Ok(Control { path, door: SideDoor::open(listener, room, shared)? })
    }

    /// Takes no more requests, and ends the connections.
    pub fn stop(self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
        self.door.close();
    }
}

fn refuse(mut socket: &UnixStream) {
    let why = format!("{} connections are open already; close one", limits::CTL_CONNECTIONS);
    log::warn!("{SOCKET}: refused, {why}");
    // A fresh socket takes so few bytes at once.
    let _ = socket.write_all(format!("{}\n", json!({ "error": why })).as_bytes());
}

/// One line, one answer, until the other side has no more to ask.
fn serve(socket: &UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    socket.set_read_timeout(Some(limits::CTL_TIMEOUT))?;
    socket.set_write_timeout(Some(limits::CTL_TIMEOUT))?;
    let mut lines = BufReader::with_capacity(limits::CTL_LINE_BYTES, socket);
    loop {
        let mut line = Vec::new();
        (&mut lines).take(limits::CTL_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n") || line.len() < limits::CTL_LINE_BYTES;
        if let Some(name) = std::str::from_utf8(&line).ok().filter(|_| is_whole).and_then(|line| named(line, "trace")) {
            match tracing::stream(socket, name, shared) {
                Ok(()) => return Ok(()),
                Err(why) => (&*socket).write_all(format!("{}\n", json!({ "error": why })).as_bytes())?,
            }
            continue;
        }
        let answer = match std::str::from_utf8(&line) {
            Ok(line) if is_whole => answer(line, shared),
            Ok(_) => Err(format!("a request has at most {} bytes", limits::CTL_LINE_BYTES)),
            Err(_) => Err("a request is UTF-8 text".into()),
        };
        let is_error = answer.is_err();
        let answer = answer.unwrap_or_else(|why| json!({ "error": why }));
        (&*socket).write_all(format!("{answer}\n").as_bytes())?;
        if is_error && !is_whole {
            return Ok(());
        }
    }
}

/// The user's name in a request `WORD NAME`: the rest of the line, for a name may have spaces.
fn named<'l>(line: &'l str, word: &str) -> Option<&'l str> {
    let name = line.strip_prefix(word)?.strip_prefix(' ')?;
    let name = name.strip_suffix('\n').unwrap_or(name);
    let name = name.strip_suffix('\r').unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

fn answer(request: &str, shared: &Arc<Shared>) -> Result<Value, String> {
    if let Some(name) = named(request, "session") {
        return inside::session(name, shared);
    }
    if let Some(name) = named(request, "kick") {
        return inside::kick(name, shared);
    }
    let words: Vec<&str> = request.split_whitespace().collect();
    match words.as_slice() {
        ["status"] => serde_json::to_value(shared.status()).map_err(|error| error.to_string()),
        ["report"] => Ok(present_report(shared, shared.config().language)),
        ["report", "send"] => send_report(shared),
        ["report", code] => match Language::of_code(code) {
            Some(language) => Ok(present_report(shared, language)),
            None => Err(unknown(request)),
        },
        ["save"] => {
            let counters = &shared.delivery.counters;
            let before = counters.stored.total();
            shared.delivery.agenda.save(limits::CTL_SAVE_TIMEOUT)?;
            Ok(json!({ "saved": counters.stored.total() - before }))
        }
        ["sessions"] => inside::sessions(shared),
        ["log"] => Ok(inside::log_level()),
        ["log", level] => inside::log(level),
        ["drain"] => Ok(inside::drain(true, shared)),
        ["drain", "off"] => Ok(inside::drain(false, shared)),
        ["help"] => Ok(REQUESTS.iter().map(|(request, meaning)| ((*request).to_owned(), json!(meaning))).collect()),
        [word @ ("session" | "kick" | "trace")] => Err(format!("{word} needs a NAME")),
        _ => Err(unknown(request)),
    }
}

fn unknown(request: &str) -> String {
    let known: Vec<&str> = REQUESTS.iter().map(|(request, _)| *request).collect();
    format!("unknown request {:?}; these are known: {}", request.trim(), known.join(", "))
}

fn present_report(shared: &Arc<Shared>, language: Language) -> Value {
    let report = shared.reporter.report(shared.status(), language);
    let letter = report.letter();
    let eml = letter.message(&shared.config().mail, std::time::SystemTime::now());
    let eml = eml.map(|message| String::from_utf8_lossy(&message.formatted()).into_owned());
    json!({
        "subject": letter.subject,
        "text": letter.text,
        "html": report::page(&letter),
        "eml": eml.as_ref().ok(),
        "eml_error": eml.as_ref().err().map(|error| error.describe(language)),
    })
}

fn send_report(shared: &Arc<Shared>) -> Result<Value, String> {
    let config = shared.config();
    if config.mail.to.is_empty() {
        return Err("mail_to names nobody; add it to the configuration and send the server SIGHUP".into());
    }
    let (done, result) = std::sync::mpsc::channel();
    Reporter::send(shared, move |result| {
        // Whoever asked may have gone.
        let _ = done.send(result);
    })?;
    match result.recv() {
        Ok(Ok(sent)) => Ok(json!({
            "sent": sent.reply.to_string(),
            "refused": sent.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })),
        Ok(Err(error)) => Err(error.describe(config.language)),
        Err(_) => Err("the thread that sent it has ended; the log says why".into()),
    }
}
