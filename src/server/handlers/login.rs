//! PK_ClientLogin: a stranger becomes a user, and takes over from the connection that the user had before.

use std::sync::Arc;
use std::time::Instant;

use crate::delivery::{Arrival, HungUp, Ledger, Outbox, Session, Welcome};
use crate::faults;
use crate::language::{Language, say};
use crate::limits;
use crate::protocol::{Granted, LoginAnswer, Message, NameError, UserName};
use crate::server::handlers::ack::correction;
use crate::server::peer::{Ending, Flow, Peer};
use crate::socket;
use crate::storage::StorageError;
use crate::threads;

/// Why a login is refused; `Display` is English, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe(Language::English))]
pub enum Refusal {
    /// Nobody can have this name.
    Name(#[from] NameError),
    /// Too many logins came from this address.
    TooOften {
        /// How long until the next one may, seconds.
        wait_secs: u64,
    },
    /// There is no memory for another mailbox now.
    NoMemory,
    /// The user's mailbox cannot be read now.
    Disk,
}

impl Refusal {
    /// What the user is told.
    pub fn describe(&self, language: Language) -> String {
        match self {
            Refusal::Name(error) => error.describe(language),
            Refusal::TooOften { wait_secs } => say!(
                language,
                "too many logins from your address, please try again in {wait_secs} s",
                "来自您的地址的登录过于频繁，请在 {wait_secs} 秒后再试"
            ),
            Refusal::NoMemory => say!(
                language,
                "the server is short of memory, please try again in a minute",
                "服务器内存不足，请过一分钟再试"
            ),
            Refusal::Disk => say!(
                language,
                "the server cannot read its database, please try again in a minute",
                "服务器暂时无法读取数据库，请过一分钟再试"
            ),
        }
    }
}

/// Answers the login; the connection ends when the answer is no.
pub fn handle_login(peer: &mut Peer, name: &str, level: Option<u32>, last_seq: Option<u64>) -> Flow {
    faults::point("login");
    let language = peer.config.language;
    let is_level_2 = level.is_some_and(|level| level >= 2);
    match log_in(peer, name, is_level_2, last_seq.filter(|_| is_level_2), language) {
        Ok(()) => Flow::Next,
        Err(refusal) => {
            refuse(peer, &refusal.describe(language));
            Flow::End(Ending::Refused(refusal))
        }
    }
}

fn log_in(
    peer: &mut Peer,
    name: &str,
    is_level_2: bool,
    last_seq: Option<u64>,
    language: Language,
) -> Result<(), Refusal> {
    let shared = peer.shared.clone();
    let delivery = &shared.delivery;
    let counters = &delivery.counters;
    peer.ticket.may_log_in(Instant::now()).map_err(|wait| {
        counters.logins_refused_rate.add(1);
        Refusal::TooOften { wait_secs: wait.as_secs() + 1 }
    })?;
    let name = UserName::parse(name).inspect_err(|_| counters.logins_refused_name.add(1))?;
    if !delivery.memory.has_room(limits::MAILBOX_BYTES) {
        counters.logins_refused_memory.add(1);
        return Err(Refusal::NoMemory);
    }
    let disk_failed = |error: StorageError| {
        if let Some(count) = counters.logins_refused_disk.note(peer.now.mono_ms) {
            log::error!("c{}: login: {error} ({count} since the last such line)", peer.id);
        }
        Refusal::Disk
    };
    let mailbox = delivery.mailbox(name.key()).map_err(disk_failed)?;
    let ledger = match is_level_2.then(|| mailbox.ledger(delivery)).transpose() {
        Ok(ledger) => ledger,
        Err(error) => {
            delivery.release(mailbox);
            return Err(disk_failed(error));
        }
    };
    let outbox = Outbox::new(peer.id, peer.socket.clone(), delivery.limits.outbox_bytes);
    let generation = delivery.next_generation();
    let arrival = Arrival { id: peer.id, address: peer.address, at: peer.now.unix_ms };
    let session = Session::new(arrival, generation, name, mailbox.clone(), outbox, ledger, language);
    let session = Arc::new(session);
    if delivery.traces.is_any() {
        session.retrace(&delivery.traces);
    }
    let correction = correction(peer);
    let mut is_takeover = false;
    let attached = loop {
        // Told anew each time: what the old session has sent meanwhile counts.
        let granted = session.ledger.as_ref().map(|ledger| granted(peer, ledger));
        let answer = answer(peer, true, language.pick("welcome", "欢迎"), granted);
        let owed = &mut peer.touched.owed;
        let welcome = Welcome { answer: &answer, last_seq, correction: &correction };
        match mailbox.attach(&session, &welcome, peer.now, delivery, owed) {
            Ok(attached) => break attached,
            // When `close` returns nothing of the old session is executed any more. Then it can be replaced.
            Err(present) => {
                if present.close() {
                    counters.takeovers.add(1);
                    is_takeover = true;
                }
            }
        }
    };
    // Whoever began to look on, or ceased to, and did not find this session is found now.
    if delivery.traces.is_any() || session.is_traced() {
        session.retrace(&delivery.traces);
    }
    peer.session = Some(session.clone());
    peer.ticket.logged_in();
    counters.logins.add(1);
    threads::rename(session.name.as_written());
    // One that had ended by itself, and whose thread has not come to say so, is replaced too, but taken over is nothing.
    if let Some(replaced) = attached.replaced {
        // It is closed already, so that it is told of the takeover and not of this reason.
        replaced.hang_up(HungUp::TooSlow);
        delivery.memory.wake_all();
    }
    let note = if is_takeover { ", replacing an older connection" } else { "" };
    let level = if is_level_2 { " at level 2" } else { "" };
    log::info!("c{}: {} logged in from {}{level}{note}", peer.id, session.name.as_written(), peer.address);
    faults::point("logged in");
    Ok(())
}

fn refuse(peer: &Peer, tips: &str) {
    // A fresh socket takes so few bytes at once; if it does not, the client is gone.
    let _ = socket::send(&peer.socket, &answer(peer, false, tips, None));
}

fn answer(peer: &Peer, login: bool, tips: &str, granted: Option<Granted>) -> Vec<u8> {
    let mut packet = Vec::new();
    let time = peer.now.unix_ms.div_euclid(1000);
    let answer = LoginAnswer { login, tips, time, granted };
    Message::ServerAcceptLogin(answer).encode(&peer.shared.delivery.cipher, &mut packet);
    packet
}

fn granted(peer: &Peer, ledger: &Ledger) -> Granted {
    let limited = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Granted {
        level: 2,
        read_timeout_secs: limited(peer.config.read_timeout.as_secs()).max(1),
        max_packet_bytes: limited(peer.config.max_packet_bytes as u64),
        last_msg_id: ledger.highest(),
    }
}
