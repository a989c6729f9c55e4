//! The one at the other end, as its connection's thread knows it: a stranger or a user, and whose outboxes its packets have touched.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Shared;
use super::admission::Ticket;
use super::handlers::login::Refusal;
use crate::clock::Stamp;
use crate::config::Config;
use crate::delivery::{HungUp, Mailbox, Owed, Session};
use crate::health::{Counter, Counters};
use crate::language::{Language, say};
use crate::limits;
use crate::protocol::{NoticeCode, ProtocolError};
use crate::socket::Socket;

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The client closed its side in order.
    #[error("closed by the client")]
    Fin,
    /// The client said good-bye.
    #[error("logged out")]
    Logout,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// Its writer gave it up: it took nothing, or there was no thread to write to it.
    #[error("hung up on")]
    HungUp(HungUp),
    /// The operator ended it.
    #[error("kicked by the operator")]
    Kicked,
    /// Another login of the same user took over.
    #[error("replaced by another login")]
    Replaced,
    /// The login was refused.
    #[error("login refused: {0}")]
    Refused(Refusal),
    /// No login came in time.
    #[error("no login within the time limit")]
    LoginTimeout,
    /// Nothing came within the read timeout.
    #[error("silent for too long")]
    Idle,
    /// A packet was begun and not completed in time.
    #[error("a packet was begun and not completed in time")]
    PacketTimeout,
    /// There was no room for a message within the time limit.
    #[error("no memory for its messages within the time limit")]
    NoRoom,
    /// It broke a rule.
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    /// A handler of the embedding program returned an error or panicked.
    #[error("the handler of packet type {kind} failed: {why}")]
    HandlerFailed {
        /// The packet type.
        kind: u32,
        /// The error's or the panic's words.
        why: String,
    },
    /// The server stops.
    #[error("the server stops")]
    Stopping,
}

impl Ending {
    /// What counts it, if anything does.
    pub fn counter<'c>(&self, counters: &'c Counters) -> Option<&'c Counter> {
        Some(match self {
            Ending::Fin => &counters.closed_by_client,
            Ending::Logout => &counters.logouts,
            Ending::Lost(_) => &counters.lost,
            Ending::HungUp(_) => &counters.hung_up,
            Ending::Kicked => &counters.kicked,
            Ending::LoginTimeout => &counters.login_timeouts,
            Ending::Idle => &counters.idle,
            Ending::PacketTimeout => &counters.packet_timeouts,
            Ending::NoRoom => &counters.no_room,
            Ending::Protocol(error) => counters.protocol_error(error),
            Ending::HandlerFailed { .. } => &counters.panics,
            // Takeovers and refusals are counted where they are decided; a stop is no event.
            Ending::Replaced | Ending::Refused(_) | Ending::Stopping => return None,
        })
    }

    /// How a session was ended from outside, if it was.
    pub fn from_outside(session: &Session) -> Option<Ending> {
        // In this order: a takeover closes the session before it hangs up.
        let hung_up = session.outbox.hung_up();
        if session.is_closed() { Some(Ending::of_closed(session)) } else { hung_up.map(Ending::of_hung_up) }
    }

    /// Why a session's gate is closed: a takeover closes it before it hangs up, a kick after.
    pub fn of_closed(session: &Session) -> Ending {
        match session.outbox.hung_up() {
            Some(HungUp::Kicked) => Ending::Kicked,
            _ => Ending::Replaced,
        }
    }

    /// Why somebody else hung up.
    pub fn of_hung_up(why: HungUp) -> Ending {
        if why == HungUp::Kicked { Ending::Kicked } else { Ending::HungUp(why) }
    }

    /// What a level-2 client is told; `None`: it ends by itself, or cannot be told.
    pub fn notice(&self, language: Language) -> Option<(NoticeCode, String)> {
        Some(match self {
            Ending::Fin | Ending::Logout | Ending::Lost(_) | Ending::Refused(_) | Ending::LoginTimeout => return None,
            Ending::HungUp(HungUp::TooSlow) => (
                NoticeCode::TooSlow,
                say!(language, "you have not taken what was ready for you", "您没有接收已为您准备好的数据"),
            ),
            Ending::HungUp(HungUp::Kicked) | Ending::Kicked => {
                (NoticeCode::Kicked, say!(language, "the operator has ended your connection", "管理员已断开您的连接"))
            }
            Ending::HungUp(HungUp::NoThread) => (
                NoticeCode::Overloaded,
                say!(language, "the server has no thread for this connection", "服务器没有线程可用于此连接"),
            ),
            Ending::Replaced => (
                NoticeCode::Replaced,
                say!(language, "another login with your name took over", "您的用户名已在别处登录"),
            ),
            Ending::Idle => {
                (NoticeCode::Idle, say!(language, "you were silent for too long", "您太久没有发送任何数据"))
            }
            Ending::PacketTimeout => (
                NoticeCode::Idle,
                say!(language, "a packet was begun and not completed in time", "有数据包未能按时发送完毕"),
            ),
            Ending::NoRoom => (
                NoticeCode::Overloaded,
                say!(language, "the server has no room for your messages", "服务器没有空间接收您的消息"),
            ),
            Ending::Protocol(ProtocolError::ForgedSender) => {
                (NoticeCode::ForgedSender, ProtocolError::ForgedSender.describe(language))
            }
            Ending::Protocol(error) => (NoticeCode::BadPacket, error.describe(language)),
            Ending::HandlerFailed { kind, .. } => (
                NoticeCode::BadPacket,
                say!(
                    language,
                    "the server could not handle a packet of type {kind}",
                    "服务器无法处理类型 {kind} 的数据包"
                ),
            ),
            Ending::Stopping => (NoticeCode::Stopping, say!(language, "the server stops", "服务器正在停止")),
        })
    }
}

/// What follows a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// The next one.
    Next,
    /// The same one again, when there is room for it.
    Wait,
    /// The end of the connection.
    End(Ending),
}

/// Only from the connection's own thread.
pub struct Peer {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// The configuration at the connection's beginning.
    pub config: Arc<Config>,
    /// The connection's id.
    pub id: u64,
    /// The other end's address.
    pub address: SocketAddr,
    /// The connection.
    pub socket: Arc<Socket>,
    /// Its place among the connections.
    pub ticket: Ticket,
    /// Who logged in.
    pub session: Option<Arc<Session>>,
    /// When the present bytes were read.
    pub now: Stamp,
    /// The mailbox that was written to last, under the name that was written: a conversation looks it up once.
    pub recipient: Option<(String, Arc<Mailbox>)>,
    /// Messages for `recipient` that were checked and are not accepted yet.
    pub run: Run,
    /// The outboxes that the present packets have pushed to.
    pub touched: Touched,
}

/// Messages that came one after another from a level-1 client for one recipient, to be accepted in one section: behind the gate, under the mailbox's lock,
/// and under the outbox's. Their packets stand where they were read, one after another.
#[derive(Default)]
pub struct Run {
    /// Bytes of each packet, and of its text.
    messages: VecDeque<(u32, u32)>,
    packets_bytes: usize,
}

/// Messages of a run: as long as they are accepted, nobody else gets at the mailbox.
const RUN_MESSAGES: usize = 64;

/// For so many the memory stays: a conversation goes on in it.
const KEPT_MESSAGES: usize = 8;

impl Run {
    /// Messages that have joined.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// None has.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// No more may join.
    pub fn is_full(&self) -> bool {
        self.len() >= RUN_MESSAGES
    }

    /// Bytes of all packets.
    pub fn packets_bytes(&self) -> usize {
        self.packets_bytes
    }

    /// One more, whose packet follows the others.
    pub fn join(&mut self, packet_bytes: usize, text_bytes: usize) {
        self.messages.push_back((packet_bytes as u32, text_bytes as u32));
        self.packets_bytes += packet_bytes;
    }

    /// Gives back the memory of a busy time.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.messages.capacity() > KEPT_MESSAGES {
            self.messages = VecDeque::new();
        }
    }

    /// The first `count` are accepted, or refused.
    pub fn leave(&mut self, count: usize) {
        self.packets_bytes -= self.messages.drain(..count).map(|(bytes, _)| bytes as usize).sum::<usize>();
    }

    /// Each with its text's bytes; `packets` are all of them.
    pub fn messages<'p>(&self, mut packets: &'p [u8]) -> impl Iterator<Item = (&'p [u8], u32)> {
        self.messages.iter().map(move |(bytes, text_bytes)| {
            let (packet, behind) = packets.split_at(*bytes as usize);
            packets = behind;
            (packet, *text_bytes)
        })
    }
}

impl Peer {
    /// Waits for room for a message, with no lock held and nothing left unflushed.
    pub fn wait_for_room(&mut self) -> Option<Ending> {
        self.touched.flush();
        let shared = &self.shared;
        let session = self.session.as_ref()?;
        let delivery = &shared.delivery;
        let is_stopping = || shared.is_stopping() || delivery.is_stopped();
        // A longest packet of room, so that a sender of long texts is not starved by senders of short ones.
        let needed = self.config.max_packet_bytes + limits::ENTRY_BYTES;
        let has_room = |fits| {
            let may_be_unreceipted = session.ledger.as_ref().is_none_or(|ledger| ledger.has_room());
            fits && delivery.seqs.has_reserve() && may_be_unreceipted
        };
        let is_ready = delivery.memory.wait_until(
            self.config.memory_wait_timeout,
            needed,
            || delivery.agenda.hurry(),
            |fits| session.is_closed() || session.outbox.hung_up().is_some() || is_stopping() || has_room(fits),
        );
        Ending::from_outside(session).or_else(|| match () {
            () if is_stopping() => Some(Ending::Stopping),
            () if !is_ready => Some(Ending::NoRoom),
            () => None,
        })
    }
}

/// The outboxes that a thread has pushed to and owes a flush. Dropping it pays the debt, also when a handler panics.
pub struct Touched {
    shared: Arc<Shared>,
    /// The sessions.
    pub owed: Owed,
    /// Messages that went straight into an outbox, not counted yet.
    pub relayed: u64,
    /// Messages that have to wait, not counted yet.
    pub waiting: u64,
}

impl Touched {
    /// None yet.
    pub fn new(shared: Arc<Shared>) -> Touched {
        Touched { shared, owed: Owed::default(), relayed: 0, waiting: 0 }
    }

    /// Flushes each of them once, and counts what they were pushed. Never waits.
    pub fn flush(&mut self) {
        if self.relayed + self.waiting > 0 {
            self.shared.delivery.counters.relayed.add(std::mem::take(&mut self.relayed));
            self.shared.delivery.counters.waiting.add(std::mem::take(&mut self.waiting));
        }
        let shared = &self.shared;
        self.owed.flush(&shared.delivery, |session| shared.writers.start(session, shared));
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        self.flush();
    }
}
