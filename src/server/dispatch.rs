//! From a frame to its handler. Which packets are legal when is said here and nowhere else.

use super::Shared;
use super::custom::{self, Handlers};
use super::handlers::{ack, chat, login, logout, ping};
use super::peer::{Ending, Flow, Peer};
use crate::delivery::Outbox;
use crate::protocol::{Decoder, Frame, Message, PacketType, ProtocolError};

/// When a packet type is legal from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Legal {
    BeforeLogin,
    AfterLogin,
    Never,
}

/// Who sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Stranger,
    Level1,
    Level2,
}

/// The table: the protocol's own types, and those for which the embedding program has a handler.
fn legal(kind: u32, sender: Sender, handlers: &Handlers) -> Result<Legal, ProtocolError> {
    match PacketType::parse(kind) {
        // Without the grant there is no level 2.
        Ok(known) if known.is_level_2() && sender != Sender::Level2 => Err(ProtocolError::UnknownType { kind }),
        Ok(PacketType::ClientLogin) => Ok(Legal::BeforeLogin),
        Ok(PacketType::ServerAcceptLogin) => Ok(Legal::Never),
        Ok(PacketType::ClientLogout) => Ok(Legal::AfterLogin),
        Ok(PacketType::ClientPing) => Ok(Legal::AfterLogin),
        Ok(PacketType::C2CTextChat) => Ok(Legal::AfterLogin),
        Ok(PacketType::ClientAck) => Ok(Legal::AfterLogin),
        Ok(PacketType::ServerReceipt | PacketType::ServerNotice | PacketType::ServerPong) => Ok(Legal::Never),
        Err(_) if handlers.find(kind).is_some() => Ok(Legal::AfterLogin),
        Err(unknown) => Err(unknown),
    }
}

fn check(kind: u32, sender: Sender, handlers: &Handlers) -> Result<(), ProtocolError> {
    match (legal(kind, sender, handlers)?, sender) {
        (Legal::BeforeLogin, Sender::Stranger) | (Legal::AfterLogin, Sender::Level1 | Sender::Level2) => Ok(()),
        (Legal::BeforeLogin, _) => Err(ProtocolError::SecondLogin),
        (Legal::AfterLogin, Sender::Stranger) => Err(ProtocolError::NotLoggedIn { kind }),
        (Legal::Never, _) => Err(ProtocolError::WrongDirection { kind }),
    }
}

/// Checks, opens, decodes and executes one packet. `before` are the packets of the run that it may join; else they are executed first.
pub fn dispatch(peer: &mut Peer, decoder: &mut Decoder, shared: &Shared, before: &[u8], frame: Frame<'_>) -> Flow {
    let sender = match &peer.session {
        None => Sender::Stranger,
        // Also a packet that takes no gate: it could go on like that for ever.
        Some(session) if session.is_closed() => return Flow::End(Ending::of_closed(session)),
        Some(session) if session.is_level_2() => Sender::Level2,
        Some(_) => Sender::Level1,
    };
    if let Err(error) = check(frame.kind, sender, &shared.handlers) {
        return Flow::End(error.into());
    }
    if let Some(session) = peer.session.as_ref().filter(|session| session.is_level_2()) {
        // Its reading side is shut, which does not stop what comes in.
        if let Some(ending) = Ending::from_outside(session) {
            return Flow::End(ending);
        }
        // It is answered to every packet, so it must take its answers.
        if session.outbox.is_overfull()
            && let Some(ending) = custom::wait_for_client(session, &mut peer.touched, shared, Outbox::is_overfull)
        {
            return Flow::End(ending);
        }
    }
    if frame.kind != PacketType::C2CTextChat as u32 {
        match chat::accept_run(peer, before) {
            Flow::Next => {}
            other => return other,
        }
    }
    if PacketType::parse(frame.kind).is_err() {
        return custom::handle_custom(peer, decoder, shared, frame);
    }
    let decoded = match decoder.decode(&shared.delivery.cipher, frame) {
        Ok(decoded) => decoded,
        Err(error) => return Flow::End(error.into()),
    };
    match decoded.message {
        Message::ClientLogin { name, level, last_seq, .. } => login::handle_login(peer, name, level, last_seq),
        Message::ClientLogout { .. } => logout::handle_logout(),
        Message::ClientPing { time, .. } => ping::handle_ping(peer, time),
        Message::ClientAck { seq } => ack::handle_ack(peer, seq),
        Message::Chat(chat) => chat::handle_chat(peer, chat, decoded.exact.then_some(frame.packet), before),
        _ => Flow::End(ProtocolError::WrongDirection { kind: frame.kind }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_legal_when() {
        let handlers = Handlers::new().on(1000, |_| Ok(())).unwrap();
        let before: Vec<_> = (0..8).map(|kind| check(kind, Sender::Stranger, &handlers)).collect();
        let after: Vec<_> = (0..8).map(|kind| check(kind, Sender::Level1, &handlers)).collect();
        let unknown = |kind| Err(ProtocolError::UnknownType { kind });
        let early = |kind| Err(ProtocolError::NotLoggedIn { kind });
        let wrong = Err(ProtocolError::WrongDirection { kind: 2 });
        assert_eq!(before, [unknown(0), Ok(()), wrong.clone(), early(3), early(4), early(5), unknown(6), unknown(7)]);
        assert_eq!(
            after,
            [unknown(0), Err(ProtocolError::SecondLogin), wrong, Ok(()), Ok(()), Ok(()), unknown(6), unknown(7)]
        );
        assert_eq!(check(1000, Sender::Stranger, &handlers), early(1000));
        assert_eq!(check(1000, Sender::Level1, &handlers), Ok(()));
        assert_eq!(check(1001, Sender::Level1, &handlers), unknown(1001));
        let at_level_2: Vec<_> = (1..8).map(|kind| check(kind, Sender::Level2, &handlers)).collect();
        assert_eq!(at_level_2, after[1..], "level 2 takes what level 1 takes, and acks");
        let acks = [Sender::Stranger, Sender::Level1, Sender::Level2].map(|sender| check(102, sender, &handlers));
        assert_eq!(acks, [unknown(102), unknown(102), Ok(())]);
        for kind in [101, 103, 104] {
            assert_eq!(check(kind, Sender::Level1, &handlers), unknown(kind));
            assert_eq!(check(kind, Sender::Level2, &handlers), Err(ProtocolError::WrongDirection { kind }));
        }
        assert_eq!(check(105, Sender::Level2, &handlers), unknown(105));
    }
}
