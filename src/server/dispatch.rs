//! From a frame to its handler. Which packets are legal when is said here and nowhere else.

use super::handlers::{chat, login, logout, ping};
use super::peer::{Flow, Peer};
use crate::protocol::{Cipher, Decoder, Frame, Message, PacketType, ProtocolError};

/// When a packet type is legal from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Legal {
    BeforeLogin,
    AfterLogin,
    Never,
}

/// The table.
fn legal(kind: PacketType) -> Legal {
    match kind {
        PacketType::ClientLogin => Legal::BeforeLogin,
        PacketType::ServerAcceptLogin => Legal::Never,
        PacketType::ClientLogout => Legal::AfterLogin,
        PacketType::ClientPing => Legal::AfterLogin,
        PacketType::C2CTextChat => Legal::AfterLogin,
    }
}

fn check(kind: u32, is_logged_in: bool) -> Result<(), ProtocolError> {
    match (legal(PacketType::parse(kind)?), is_logged_in) {
        (Legal::BeforeLogin, false) | (Legal::AfterLogin, true) => Ok(()),
        (Legal::BeforeLogin, true) => Err(ProtocolError::SecondLogin),
        (Legal::AfterLogin, false) => Err(ProtocolError::NotLoggedIn { kind }),
        (Legal::Never, _) => Err(ProtocolError::WrongDirection { kind }),
    }
}

/// Checks, opens, decodes and executes one packet.
pub fn dispatch(peer: &mut Peer, decoder: &mut Decoder, cipher: &Cipher, frame: Frame<'_>) -> Flow {
    if let Err(error) = check(frame.kind, peer.session.is_some()) {
        return Flow::End(error.into());
    }
    let decoded = match decoder.decode(cipher, frame) {
        Ok(decoded) => decoded,
        Err(error) => return Flow::End(error.into()),
    };
    match decoded.message {
        Message::ClientLogin { name, .. } => login::handle_login(peer, name),
        Message::ClientLogout { .. } => logout::handle_logout(),
        Message::ClientPing { .. } => ping::handle_ping(),
        Message::Chat(chat) => chat::handle_chat(peer, chat, decoded.exact.then_some(frame.packet)),
        Message::ServerAcceptLogin(_) => Flow::End(ProtocolError::WrongDirection { kind: frame.kind }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_legal_when() {
        let before: Vec<_> = (0..8).map(|kind| check(kind, false)).collect();
        let after: Vec<_> = (0..8).map(|kind| check(kind, true)).collect();
        let unknown = |kind| Err(ProtocolError::UnknownType { kind });
        let early = |kind| Err(ProtocolError::NotLoggedIn { kind });
        let wrong = Err(ProtocolError::WrongDirection { kind: 2 });
        assert_eq!(before, [unknown(0), Ok(()), wrong.clone(), early(3), early(4), early(5), unknown(6), unknown(7)]);
        assert_eq!(
            after,
            [unknown(0), Err(ProtocolError::SecondLogin), wrong, Ok(()), Ok(()), Ok(()), unknown(6), unknown(7)]
        );
    }
}
