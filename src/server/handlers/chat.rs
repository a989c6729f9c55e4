//! PK_C2CTextChat: a text for somebody, who may be there, elsewhere, slow, or the sender.

use std::sync::Arc;

use crate::delivery::{Accepted, Delivery, Mailbox};
use crate::health::{Counter, Counters};
use crate::limits;
use crate::protocol::{Chat, Cipher, Message, PacketType, ProtocolError, UserName};
use crate::server::peer::{Ending, Flow, Peer};
use crate::storage::StorageError;

/// Takes the message in, or drops it silently where level 1 has no way to tell. `packet` is the packet as received when it may be forwarded
/// as it is.
pub fn handle_chat(peer: &mut Peer, chat: Chat<'_>, packet: Option<&[u8]>) -> Flow {
    let Peer { shared, config, session: Some(session), recipient, touched, .. } = peer else {
        return Flow::End(ProtocolError::NotLoggedIn { kind: PacketType::C2CTextChat as u32 }.into());
    };
    if !is_sender(chat.from, &session.name) {
        return Flow::End(ProtocolError::ForgedSender.into());
    }
    if chat.text.len() > config.max_text_bytes {
        return dropped(peer, |counters| &counters.refused_text, "its text is longer than max_text_bytes");
    }
    match find(recipient, chat.to, &shared.delivery) {
        Ok(()) => {}
        Err(Lookup::BadName) => {
            return dropped(peer, |counters| &counters.refused_name, "nobody can have its recipient's name");
        }
        Err(Lookup::Disk(error)) => return wait_for_disk(peer, &error),
    }
    let Some((_, mailbox)) = recipient else { return Flow::Next };
    let canonical;
    let packet = match packet {
        Some(packet) => packet,
        None => {
            canonical = encode(chat, &shared.cipher);
            &canonical
        }
    };
    let text_bytes = chat.text.len() as u32;
    let accept = || mailbox.accept(packet, text_bytes, peer.now, &shared.delivery, |session| touched.add(session));
    match session.enter(accept) {
        None => Flow::End(Ending::Replaced),
        Some(Accepted::Live) => {
            touched.relayed += 1;
            Flow::Next
        }
        Some(Accepted::Waiting) => {
            touched.waiting += 1;
            Flow::Next
        }
        Some(Accepted::NoRoom) => Flow::Wait,
        Some(Accepted::Stopped) => Flow::End(Ending::Stopping),
        Some(Accepted::BacklogFull) => {
            dropped(peer, |counters| &counters.refused_backlog, "its recipient's backlog is full")
        }
        Some(Accepted::NoSpace) => {
            dropped(peer, |counters| &counters.refused_database, "the database has reached data_bytes")
        }
    }
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

fn dropped(peer: &Peer, counter: fn(&Counters) -> &Counter, why: &str) -> Flow {
    if let Some(count) = counter(&peer.shared.delivery.counters).note(peer.now.mono_ms) {
        log::warn!("c{}: message dropped: {why} ({count} since the last such line)", peer.id);
    }
    Flow::Next
}
