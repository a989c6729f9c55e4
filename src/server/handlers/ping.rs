//! PK_ClientPing: a client is still there.

use crate::faults;
use crate::protocol::Message;
use crate::server::peer::{Flow, Peer};

/// That a packet came has restarted the read timeout already. A level-1 client gets no answer, a level-2 client a pong with its own time.
pub fn handle_ping(peer: &mut Peer, time: i64) -> Flow {
    faults::point("ping");
    if let Some(session) = peer.session.as_ref().filter(|session| session.is_level_2()) {
        let mut packet = Vec::new();
        Message::ServerPong { time }.encode(&peer.shared.delivery.cipher, &mut packet);
        session.outbox.push_answer(&packet);
        peer.touched.owed.add(session);
    }
    Flow::Next
}
