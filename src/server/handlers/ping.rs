//! PK_ClientPing: a client is still there.

use crate::server::peer::Flow;

/// Nothing to do and nothing to answer: that a packet came has restarted the read timeout already.
pub fn handle_ping() -> Flow {
    Flow::Next
}
