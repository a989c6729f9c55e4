//! PK_ClientLogout: a client says good-bye.

use crate::faults;
use crate::server::peer::{Ending, Flow};

/// The connection ends; what follows in the stream is not executed. The message's fields change nothing.
pub fn handle_logout() -> Flow {
    faults::point("logout");
    Flow::End(Ending::Logout)
}
