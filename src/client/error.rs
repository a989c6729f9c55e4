//! What can go wrong for a client, and what to do then.

use std::io;

use crate::protocol::{KeyError, ProtocolError};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection. Check the address and whether the server runs; try again later.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// As the caller wrote it.
        addr: String,
        /// What the kernel or the resolver says.
        source: io::Error,
    },
    /// The key has an illegal length.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The server answered the login with no. Trying again with the same name is useless, unless the reason says otherwise.
    #[error("the server refused the login: {tips}")]
    Refused {
        /// The server's words for a person.
        tips: String,
    },
    /// The connection has ended. Log in again.
    #[error("the server closed the connection{}", if *reset { " (reset: what was sent last may not have been read)" } else { "" })]
    Closed {
        /// It ended with a reset rather than with a clean close: the other end had not read everything, or is gone.
        reset: bool,
    },
    /// Nothing happened in time.
    #[error("timeout while waiting for {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
    },
    /// The server sent what cannot be read. Most often the two sides use different keys.
    #[error("cannot read what the server sent: {0}")]
    Protocol(#[from] ProtocolError),
    /// The server sent a legal packet at the wrong moment.
    #[error("the server sent {what}")]
    Unexpected {
        /// What came.
        what: &'static str,
    },
    /// Any other error of the kernel.
    #[error("network error: {0}")]
    Io(io::Error),
}

impl ClientError {
    /// Sorts an error of an open connection: its end is one thing, however it shows.
    pub(super) fn of_open_socket(error: io::Error) -> ClientError {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::BrokenPipe
            | Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::NotConnected
            | Kind::TimedOut => ClientError::Closed { reset: true },
            _ => ClientError::Io(error),
        }
    }
}
