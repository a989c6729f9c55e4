//! PK_C2CTextChat: a text for somebody, who may be there, elsewhere, slow, or the sender.

use std::sync::Arc;

use crate::delivery::{Accepted, Entry, Mailbox};
use crate::limits;
use crate::protocol::{Chat, Message, ProtocolError, UserName};
use crate::server::peer::{Ending, Flow, Peer};
use crate::server::tally::Burst;

/// Takes the message in, or drops it silently where level 1 has no way to tell. `packet` is the packet as received when it may be forwarded as it is.
pub fn handle_chat(peer: &mut Peer, chat: Chat<'_>, packet: Option<&[u8]>) -> Flow {
    let Some(session) = peer.session.clone() else {
        return Flow::End(ProtocolError::NotLoggedIn { kind: 5 }.into());
    };
    if !is_sender(chat.from, &session.name) {
        return Flow::End(ProtocolError::ForgedSender.into());
    }
    if chat.text.len() > peer.shared.config.max_text_bytes {
        note(peer, &peer.shared.tally.long_texts, "message dropped: its text is longer than max_text_bytes");
        return Flow::Next;
    }
    let mailbox = match recipient(peer, chat.to) {
        Ok(Some(mailbox)) => mailbox,
        Ok(None) => {
            note(peer, &peer.shared.tally.bad_recipients, "message dropped: nobody can have its recipient's name");
            return Flow::Next;
        }
        Err(()) => return Flow::Wait,
    };
    let packet: Arc<[u8]> = match packet {
        Some(packet) => packet.into(),
        None => {
            let mut packet = Vec::new();
            Message::Chat(chat).encode(&peer.shared.cipher, &mut packet);
            packet.into()
        }
    };
    let entry = Entry { packet, text_bytes: chat.text.len() as u32, accepted: peer.now };
    let Some((accepted, recipient)) = session.enter(|| mailbox.accept(entry, &peer.shared.delivery)) else {
        return Flow::End(Ending::Replaced);
    };
    if let Some(recipient) = recipient {
        peer.touched.add(recipient);
    }
    match accepted {
        Accepted::Live | Accepted::Waiting => {}
        Accepted::BacklogFull => {
            note(peer, &peer.shared.tally.full_backlogs, "message dropped: its recipient's backlog is full")
        }
        Accepted::NoSpace => {
            note(peer, &peer.shared.tally.full_databases, "message dropped: the database has reached data_bytes")
        }
        Accepted::NoRoom => return Flow::Wait,
        Accepted::Stopped => return Flow::End(Ending::Stopping),
    }
    Flow::Next
}

fn is_sender(from: &str, user: &UserName) -> bool {
    from == user.as_written() || UserName::parse(from).is_ok_and(|from| from.key() == user.key())
}

/// The recipient's mailbox; `None` when the name is not legal, `Err` when the disk cannot say now.
fn recipient(peer: &mut Peer, to: &str) -> Result<Option<Arc<Mailbox>>, ()> {
    if let Some((known, mailbox)) = &peer.recipient
        && known == to
    {
        return Ok(Some(mailbox.clone()));
    }
    let Ok(name) = UserName::parse(to) else { return Ok(None) };
    match peer.shared.delivery.mailbox(name.key()) {
        Ok(mailbox) => {
            peer.recipient = Some((to.to_owned(), mailbox.clone()));
            Ok(Some(mailbox))
        }
        Err(error) => {
            note(
                peer,
                &peer.shared.tally.disk_errors,
                &format!("a recipient's mailbox cannot be read, trying again: {error}"),
            );
            peer.touched.flush();
            if let Some(session) = &peer.session {
                session.outbox.pause(limits::DISK_RETRY);
            }
            Err(())
        }
    }
}

fn note(peer: &Peer, burst: &Burst, what: &str) {
    if let Some(count) = burst.note(peer.now.mono_ms) {
        log::warn!("c{}: {what} ({count} since the last such line)", peer.id);
    }
}
