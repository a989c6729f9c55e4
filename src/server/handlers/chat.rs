//! PK_C2CTextChat: a text for somebody, who may be there, elsewhere, slow, or the sender.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::delivery::{Accepted, Delivery, Known, Mailbox, Numbered, Owed};
use crate::faults;
use crate::health::{Counter, Counters};
use crate::limits;
use crate::protocol::{Chat, Cipher, MAX_NUMBER, Message, PacketType, ProtocolError, Reason, UserName};
use crate::server::peer::{Ending, Flow, Peer, Touched};
use crate::storage::StorageError;

/// Takes the message in, or refuses it: with a receipt where it has a number, silently at level 1, which has no way to tell. `packet` is the packet as
/// received when it may be forwarded as it is. `before` are the packets of the present run: the message joins it if it can, or comes after it.
pub fn handle_chat(peer: &mut Peer, chat: Chat<'_>, packet: Option<&[u8]>, before: &[u8]) -> Flow {
    faults::point("chat");
    if let Some(packet) = packet
        && joins(peer, &chat)
    {
        peer.run.join(packet.len(), chat.text.len());
        return Flow::Next;
    }
    match accept_run(peer, before) {
        Flow::Next => {}
        other => return other,
    }
    let Peer { shared, config, session: Some(session), recipient, touched, now, .. } = peer else {
        return Flow::End(ProtocolError::NotLoggedIn { kind: PacketType::C2CTextChat as u32 }.into());
    };
    if !is_sender(chat.from, &session.name) {
        return Flow::End(ProtocolError::ForgedSender.into());
    }
    let delivery = &shared.delivery;
    let numbered = match (&session.ledger, chat.msg_id) {
        (Some(_), Some(0 | MAX_NUMBER_AND_MORE..)) => return Flow::End(ProtocolError::BadBody.into()),
        (Some(ledger), Some(msg_id)) => Some(Numbered { ledger: ledger.clone(), msg_id, hash: hash(&chat) }),
        _ => None,
    };
    let refusal = match find(recipient, chat.to, delivery) {
        _ if chat.text.len() > config.max_text_bytes => Some(Refused::Text),
        Ok(()) => None,
        Err(Lookup::BadName) => Some(Refused::Name),
        Err(Lookup::Disk(error)) => return wait_for_disk(peer, &error),
    };
    let canonical;
    let packet = match packet {
        Some(packet) => packet,
        None => {
            canonical = encode(Chat { msg_id: None, seq: None, ..chat }, &delivery.cipher);
            &canonical
        }
    };
    let text_bytes = chat.text.len() as u32;
    // One section: a takeover comes before all of it or after all of it, so that a resend on the new connection finds what this one did.
    let take = |owed: &mut Owed| {
        if let Some(Numbered { ledger, msg_id, hash }) = &numbered {
            match ledger.check(*msg_id, *hash, owed) {
                Known::New => {}
                Known::Same => return Taken::Before,
                Known::Full => return Taken::Accept(Accepted::NoRoom),
                Known::Used => return Taken::Refuse(Refused::IdUsed),
                Known::TooOld => return Taken::Refuse(Refused::IdTooOld),
            }
        }
        match (refusal, &recipient) {
            (None, Some((_, mailbox))) => {
                Taken::of(mailbox.accept(packet, text_bytes, numbered.as_ref(), *now, delivery, owed))
            }
            (refusal, _) => Taken::Refuse(refusal.unwrap_or(Refused::Name)),
        }
    };
    let taken = session.enter(|| {
        let taken = take(&mut touched.owed);
        if let (Taken::Refuse(refused), Some(Numbered { ledger, msg_id, .. })) = (&taken, &numbered) {
            ledger.refuse(*msg_id, Some(refused.reason()), &mut touched.owed);
        }
        taken
    });
    faults::point("accepted");
    match taken.map(|taken| taken.count(touched)) {
        None => Flow::End(Ending::of_closed(session)),
        Some(Ok(flow)) => flow,
        Some(Err(refused)) => {
            note(peer, refused);
            Flow::Next
        }
    }
}

const MAX_NUMBER_AND_MORE: u64 = MAX_NUMBER + 1;

/// Whether it is one more to the same recipient, with nothing about it that wants a closer look: nearly every message of a stream is.
fn joins(peer: &Peer, chat: &Chat<'_>) -> bool {
    let Peer { session: Some(session), recipient: Some((name, _)), config, run, .. } = peer else { return false };
    !session.is_level_2()
        && chat.to == name
        && chat.from == session.name.as_written()
        && chat.text.len() <= config.max_text_bytes
        && !run.is_full()
}

/// Accepts the messages of the present run, whose packets are `packets`. Those that cannot be accepted now stay in it.
pub fn accept_run(peer: &mut Peer, packets: &[u8]) -> Flow {
    if peer.run.is_empty() {
        return Flow::Next;
    }
    let Peer { shared, session: Some(session), recipient: Some((_, mailbox)), touched, now, .. } = peer else {
        return Flow::Next;
    };
    // Should it end in a panic, none of them is tried again.
    let mut run = std::mem::take(&mut peer.run);
    let delivery = &shared.delivery;
    let (mut done, mut refused) = (0, Vec::new());
    let entered = session.enter(|| {
        let live = mailbox.accept_live(run.messages(packets), *now, delivery, &mut touched.owed);
        touched.relayed += live;
        done = live as usize;
        for (packet, text_bytes) in run.messages(packets).skip(done) {
            let accepted = mailbox.accept(packet, text_bytes, None, *now, delivery, &mut touched.owed);
            match Taken::of(accepted).count(touched) {
                Ok(Flow::Next) => {}
                Ok(other) => return other,
                Err(refusal) => refused.push(refusal),
            }
            done += 1;
        }
        Flow::Next
    });
    let flow = entered.unwrap_or_else(|| Flow::End(Ending::of_closed(session)));
    run.leave(done);
    peer.run = run;
    faults::point("accepted");
    refused.into_iter().for_each(|refused| note(peer, refused));
    flow
}

/// What became of a packet behind the gate.
enum Taken {
    /// It was taken before; its sender hears of its present state.
    Before,
    Accept(Accepted),
    Refuse(Refused),
}

impl Taken {
    fn of(accepted: Accepted) -> Taken {
        match accepted {
            Accepted::BacklogFull => Taken::Refuse(Refused::Backlog),
            Accepted::NoSpace => Taken::Refuse(Refused::Database),
            other => Taken::Accept(other),
        }
    }

    /// Counts it, and says what follows the packet; `Err`: it was refused.
    fn count(self, touched: &mut Touched) -> Result<Flow, Refused> {
        match self {
            Taken::Before => {}
            Taken::Accept(Accepted::Live) => touched.relayed += 1,
            Taken::Accept(Accepted::NoRoom) => return Ok(Flow::Wait),
            Taken::Accept(Accepted::Stopped) => return Ok(Flow::End(Ending::Stopping)),
            Taken::Accept(_) => touched.waiting += 1,
            Taken::Refuse(refused) => return Err(refused),
        }
        Ok(Flow::Next)
    }
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Name,
    Text,
    Backlog,
    Database,
    IdUsed,
    IdTooOld,
}

impl Refused {
    fn reason(self) -> Reason {
        match self {
            Refused::Name => Reason::BadName,
            Refused::Text => Reason::TooLong,
            Refused::Backlog => Reason::BacklogFull,
            Refused::Database => Reason::NoSpace,
            Refused::IdUsed => Reason::IdUsed,
            Refused::IdTooOld => Reason::IdTooOld,
        }
    }

    fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Refused::Name => &counters.refused_name,
            Refused::Text => &counters.refused_text,
            Refused::Backlog => &counters.refused_backlog,
            Refused::Database => &counters.refused_database,
            Refused::IdUsed | Refused::IdTooOld => &counters.refused_id,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Refused::Name => "nobody can have its recipient's name",
            Refused::Text => "its text is longer than max_text_bytes",
            Refused::Backlog => "its recipient's backlog is full",
            Refused::Database => "the database has reached data_bytes",
            Refused::IdUsed => "another message has its msg_id",
            Refused::IdTooOld => "its msg_id is older than those that are remembered",
        }
    }
}

/// What is compared when a number comes again. It is on disk: another hash takes a new column. Not inlined: its half a KiB of stack is not to be
/// part of a frame in which a thread waits.
#[inline(never)]
fn hash(chat: &Chat<'_>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(chat.to.len() as u64).to_be_bytes());
    hash.update(chat.to.as_bytes());
    hash.update(&chat.time.to_be_bytes());
    hash.update(chat.text.as_bytes());
    hash.digest()
}

fn encode(chat: Chat<'_>, cipher: &Cipher) -> Vec<u8> {
    let mut packet = Vec::new();
    Message::Chat(chat).encode(cipher, &mut packet);
    packet
}

fn is_sender(from: &str, user: &UserName) -> bool {
    from == user.as_written() || UserName::parse(from).is_ok_and(|from| from.key() == user.key())
}

/// Why there is no mailbox.
enum Lookup {
    BadName,
    Disk(StorageError),
}

/// Makes `recipient` the mailbox of the user `to`: a conversation looks it up once.
fn find(recipient: &mut Option<(String, Arc<Mailbox>)>, to: &str, delivery: &Delivery) -> Result<(), Lookup> {
    if recipient.as_ref().is_some_and(|(known, _)| known == to) {
        return Ok(());
    }
    let name = UserName::parse(to).map_err(|_| Lookup::BadName)?;
    let mailbox = delivery.mailbox(name.key()).map_err(Lookup::Disk)?;
    if let Some((_, former)) = recipient.replace((to.to_owned(), mailbox)) {
        delivery.release(former);
    }
    Ok(())
}

fn wait_for_disk(peer: &mut Peer, error: &StorageError) -> Flow {
    if let Some(count) = peer.shared.delivery.counters.disk_errors.note(peer.now.mono_ms) {
        log::error!(
            "c{}: a recipient's mailbox cannot be read, trying again: {error} ({count} times since the last such line)",
            peer.id
        );
    }
    peer.touched.flush();
    match &peer.session {
        Some(session) if session.outbox.pause(limits::DISK_RETRY) => {
            Flow::End(Ending::Lost("while waiting for the disk".into()))
        }
        _ => Flow::Wait,
    }
}

fn note(peer: &Peer, refused: Refused) {
    if let Some(count) = refused.counter(&peer.shared.delivery.counters).note(peer.now.mono_ms) {
        log::warn!("c{}: message dropped: {} ({count} since the last such line)", peer.id, refused.words());
    }
}
