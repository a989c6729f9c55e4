//! From a frame to its handler. Which packets are legal when is said here and nowhere else.

use super::Shared;
use super::custom::{self, Handlers};
use super::handlers::{chat, login, logout, ping};
use super::peer::{Flow, Peer};
use crate::protocol::{Decoder, Frame, Message, PacketType, ProtocolError};

/// When a packet type is legal from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Legal {
    BeforeLogin,
    AfterLogin,
    Never,
}

/// The table: the protocol's own types, and those for which the embedding program has a handler.
fn legal(kind: u32, handlers: &Handlers) -> Result<Legal, ProtocolError> {
    match PacketType::parse(kind) {
        Ok(PacketType::ClientLogin) => Ok(Legal::BeforeLogin),
        Ok(PacketType::ServerAcceptLogin) => Ok(Legal::Never),
        Ok(PacketType::ClientLogout) => Ok(Legal::AfterLogin),
        Ok(PacketType::ClientPing) => Ok(Legal::AfterLogin),
        Ok(PacketType::C2CTextChat) => Ok(Legal::AfterLogin),
        Ok(_) => Err(ProtocolError::UnknownType { kind }),
        Err(_) if handlers.find(kind).is_some() => Ok(Legal::AfterLogin),
        Err(unknown) => Err(unknown),
    }
}

fn check(kind: u32, is_logged_in: bool, handlers: &Handlers) -> Result<(), ProtocolError> {
    match (legal(kind, handlers)?, is_logged_in) {
        (Legal::BeforeLogin, false) | (Legal::AfterLogin, true) => Ok(()),
        (Legal::BeforeLogin, true) => Err(ProtocolError::SecondLogin),
        (Legal::AfterLogin, false) => Err(ProtocolError::NotLoggedIn { kind }),
        (Legal::Never, _) => Err(ProtocolError::WrongDirection { kind }),
    }
}

/// Checks, opens, decodes and executes one packet.
pub fn dispatch(peer: &mut Peer, decoder: &mut Decoder, shared: &Shared, frame: Frame<'_>) -> Flow {
    if let Err(error) = check(frame.kind, peer.session.is_some(), &shared.handlers) {
        return Flow::End(error.into());
    }
    if PacketType::parse(frame.kind).is_err() {
        return custom::handle_custom(peer, decoder, shared, frame);
    }
    let decoded = match decoder.decode(&shared.cipher, frame) {
        Ok(decoded) => decoded,
        Err(error) => return Flow::End(error.into()),
    };
    match decoded.message {
        Message::ClientLogin { name, .. } => login::handle_login(peer, name),
        Message::ClientLogout { .. } => logout::handle_logout(),
        Message::ClientPing { .. } => ping::handle_ping(),
        Message::Chat(chat) => chat::handle_chat(peer, chat, decoded.exact.then_some(frame.packet)),
        _ => Flow::End(ProtocolError::WrongDirection { kind: frame.kind }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_legal_when() {
        let handlers = Handlers::new().on(1000, |_| Ok(())).unwrap();
        let before: Vec<_> = (0..8).map(|kind| check(kind, false, &handlers)).collect();
        let after: Vec<_> = (0..8).map(|kind| check(kind, true, &handlers)).collect();
        let unknown = |kind| Err(ProtocolError::UnknownType { kind });
        let early = |kind| Err(ProtocolError::NotLoggedIn { kind });
        let wrong = Err(ProtocolError::WrongDirection { kind: 2 });
        assert_eq!(before, [unknown(0), Ok(()), wrong.clone(), early(3), early(4), early(5), unknown(6), unknown(7)]);
        assert_eq!(
            after,
            [unknown(0), Err(ProtocolError::SecondLogin), wrong, Ok(()), Ok(()), Ok(()), unknown(6), unknown(7)]
        );
        assert_eq!(check(1000, false, &handlers), early(1000));
        assert_eq!(check(1000, true, &handlers), Ok(()));
        assert_eq!(check(1001, true, &handlers), unknown(1001));
    }
}
