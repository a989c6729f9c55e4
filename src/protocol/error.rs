//! What a peer can do wrong.

/// The peer broke a rule of the protocol. The connection it came on ends; no other does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The announced length is below the shortest legal packet.
    #[error("packet length {length} is below the minimum of {min}", min = super::MIN_PACKET_BYTES)]
    TooShort {
        /// Announced length in bytes.
        length: u32,
    },
    /// The announced length is above the configured maximum.
    #[error("packet length {length} is above the maximum of {max}")]
    TooLong {
        /// Announced length in bytes.
        length: u32,
        /// Greatest length taken, in bytes.
        max: u32,
    },
    /// The first bytes are the greeting of another protocol.
    #[error("this looks like {protocol}, not like a chat client")]
    OtherProtocol {
        /// "HTTP", "TLS", "SSH", …
        protocol: &'static str,
    },
    /// The body is not a multiple of the cipher's block.
    #[error("body of {length} bytes is not a multiple of 16")]
    Unaligned {
        /// Body length in bytes.
        length: u32,
    },
    /// The body cannot be opened: padding, protobuf, a missing field or invalid UTF-8. One error, so that nobody learns which.
    #[error("the body cannot be read (wrong key, or a malformed message)")]
    BadBody,
    /// A type that this protocol does not have.
    #[error("unknown packet type {kind}")]
    UnknownType {
        /// The type as received.
        kind: u32,
    },
    /// A type that only a server sends.
    #[error("packet type {kind} is the server's to send")]
    WrongDirection {
        /// The type as received.
        kind: u32,
    },
    /// Anything but a login on a connection that has not logged in.
    #[error("packet type {kind} before login")]
    NotLoggedIn {
        /// The type as received.
        kind: u32,
    },
    /// A login on a connection that has logged in already.
    #[error("second login on one connection")]
    SecondLogin,
    /// The sender of a message is not the user who logged in here.
    #[error("the sender is not the user who logged in here")]
    ForgedSender,
}
