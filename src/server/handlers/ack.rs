//! PK_ClientAck: a level-2 client has taken in everything up to a seq.

use crate::faults;
use crate::protocol::{Message, NoticeCode, ProtocolError};
use crate::server::peer::{Flow, Peer};

/// What it acknowledges is forgotten, and its senders are told.
pub fn handle_ack(peer: &mut Peer, seq: u64) -> Flow {
    faults::point("ack");
    let Some(session) = &peer.session else {
        return Flow::End(ProtocolError::NotLoggedIn { kind: 102 }.into());
    };
    let delivery = &peer.shared.delivery;
    if !session.mailbox.ack(session, seq, peer.now, delivery, &mut peer.touched.owed) {
        session.outbox.push_answer(&correction(peer));
        peer.touched.owed.add(session);
    }
    Flow::Next
}

/// The notice for a client that acknowledges more than was ever sent to it.
pub fn correction(peer: &Peer) -> Vec<u8> {
    let text = peer
        .config
        .language
        .pick("you have acknowledged more than was ever sent to you", "您确认的序号超过了曾经发给您的最大序号");
    let mut packet = Vec::new();
    Message::ServerNotice { code: NoticeCode::AckTooHigh, text }.encode(&peer.shared.delivery.cipher, &mut packet);
    packet
}
