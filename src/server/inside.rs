//! Who is there, one by one, as the operator asks on `ctl.sock`, and what the operator does about it: kick, log, drain.
//!
//! Each session is copied out by itself, under its own mailbox's lock for as long as that takes; JSON is made of the copies, with no lock held.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use log::LevelFilter;
use serde::Serialize;
use serde_json::{Value, json};

use super::Shared;
use crate::delivery::{Cursors, Delivery, MailboxReading, Session};
use crate::protocol::UserName;
use crate::storage::StorageError;
use crate::{logging, notify};

/// One session as `sessions` shows it. Times are Unix milliseconds.
#[derive(Debug, Serialize)]
struct SessionLine {
    user: String,
    connected: bool,
    /// The connection's id, as in the log.
    connection: Option<u64>,
    address: Option<String>,
    since: Option<i64>,
    level: Option<u32>,
    /// Everything unsent is in memory: no disk has to be read. Of a session only.
    live: Option<bool>,
    /// A writer brings it what waits, or waits for its socket.
    writer: bool,
    traced: bool,
    /// Messages that are not acknowledged.
    waiting: u64,
    outbox_bytes: usize,
    unacknowledged_bytes: u64,
    last_packet_at: Option<i64>,
    packets_in: u64,
    packets_out: u64,
    window: Cursors,
}

impl SessionLine {
    fn of(user: &str, reading: MailboxReading) -> SessionLine {
        let absent = SessionLine {
            user: user.to_owned(),
            connected: false,
            connection: None,
            address: None,
            since: None,
            level: None,
            live: None,
            writer: false,
            traced: false,
            waiting: reading.waiting,
            outbox_bytes: 0,
            unacknowledged_bytes: 0,
            last_packet_at: None,
            packets_in: 0,
            packets_out: 0,
            window: reading.cursors,
        };
        match reading.present {
            Some(session) => absent.with(&session, reading.is_live),
            None => absent,
        }
    }

    fn with(self, session: &Session, is_live: bool) -> SessionLine {
        let (outbox, (packets_in, last_packet_at)) = (session.outbox.reading(), session.heard());
        SessionLine {
            user: session.name.as_written().to_owned(),
            connected: true,
            connection: Some(session.id),
            address: Some(session.arrival.address.to_string()),
            since: Some(session.arrival.at),
            level: Some(if session.is_level_2() { 2 } else { 1 }),
            live: Some(is_live),
            writer: outbox.has_writer,
            traced: session.is_traced(),
            outbox_bytes: outbox.unwritten_bytes,
            unacknowledged_bytes: outbox.unacknowledged_bytes,
            last_packet_at: Some(last_packet_at),
            packets_in,
            packets_out: outbox.packets,
            ..self
        }
    }
}

fn json(line: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(line).map_err(|error| error.to_string())
}

/// Everybody who is there, by name.
pub(super) fn sessions(shared: &Arc<Shared>) -> Result<Value, String> {
    let delivery = &shared.delivery;
    let mut lines = Vec::new();
    for mailbox in delivery.registry.all() {
        let reading = mailbox.reading().filter(|reading| reading.present.is_some());
        lines.extend(reading.map(|reading| SessionLine::of(mailbox.key(), reading)));
        delivery.release(mailbox);
    }
    lines.sort_by(|one, other| one.user.cmp(&other.user));
    Ok(json!({ "sessions": json(&lines)? }))
}

/// One user, there or not. May read the disk.
pub(super) fn session(name: &str, shared: &Arc<Shared>) -> Result<Value, String> {
    let (name, delivery) = (user(name)?, &shared.delivery);
    match known(&name, delivery).map_err(|error| error.to_string())? {
        Some(reading) => json(&SessionLine::of(name.as_written(), reading)),
        None => Err(format!("{} was never here", name.as_written())),
    }
}

/// How the mailbox of a user stands; `None`: nobody of that name was ever here, and nothing waits for one. May read the disk.
pub(super) fn known(name: &UserName, delivery: &Delivery) -> Result<Option<MailboxReading>, StorageError> {
    let mailbox = delivery.mailbox(name.key())?;
    let reading = mailbox.reading().expect("`Delivery::mailbox` loads it");
    delivery.release(mailbox);
    // In this order: a login that is not in the mailbox any more is in the database.
    let is_known = reading.present.is_some() || reading.is_seen || reading.waiting > 0;
    Ok((is_known || delivery.storage.is_user(name.key())?).then_some(reading))
}

/// Ends the connection of a user.
pub(super) fn kick(name: &str, shared: &Arc<Shared>) -> Result<Value, String> {
    let name = user(name)?;
    let session = present(&name, shared).ok_or_else(|| format!("{} is not there", name.as_written()))?;
    if !session.kick() {
        return Err(format!("{}'s connection is ending already", name.as_written()));
    }
    // It may be waiting for room.
    shared.delivery.memory.wake_all();
    log::info!("ctl.sock: c{}: {} is kicked", session.id, session.name.as_written());
    Ok(
        json!({ "kicked": session.name.as_written(), "connection": session.id, "address": session.arrival.address.to_string() }),
    )
}

/// The present session of a user.
pub(super) fn present(name: &UserName, shared: &Shared) -> Option<Arc<Session>> {
    let mailbox = shared.delivery.registry.peek(name.key())?;
    let present = mailbox.reading().and_then(|reading| reading.present);
    shared.delivery.release(mailbox);
    present
}

/// A name that somebody could have.
pub(super) fn user(name: &str) -> Result<UserName, String> {
    UserName::parse(name).map_err(|error| error.to_string())
}

/// What goes into the log now.
pub(super) fn log_level() -> Value {
    json!({ "log": log::max_level().as_str().to_lowercase() })
}

/// What goes into the log from now on. The configuration is as it was: SIGHUP and the next start take its level again.
pub(super) fn log(level: &str) -> Result<Value, String> {
    let new: LevelFilter =
        level.parse().map_err(|_| format!("{level:?} is no level; these are: off, error, warn, info, debug, trace"))?;
    let name = |level: LevelFilter| level.as_str().to_lowercase();
    let old = log::max_level();
    // Said while one of the two levels still lets it through.
    let say = || log::info!("ctl.sock: the log's level is {} until the next SIGHUP, was {}", name(new), name(old));
    if new < old {
        say();
    }
    logging::set_level(new);
    if new >= old {
        say();
    }
    Ok(json!({ "log": name(new), "was": name(old) }))
}

/// Accepts no connection any more, or again.
pub(super) fn drain(is_draining: bool, shared: &Arc<Shared>) -> Value {
    let was = shared.is_draining.swap(is_draining, SeqCst);
    let (open, ..) = shared.admission.count();
    if was != is_draining {
        if is_draining {
            log::info!("ctl.sock: drain: no more connections are accepted; {open} are open");
            notify::status("draining: no more connections are accepted");
        } else {
            log::info!("ctl.sock: drain off: connections are accepted again");
            notify::status("serving");
        }
    }
    json!({ "draining": is_draining, "open": open })
}
