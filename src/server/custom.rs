//! Packet types that an embedding program adds, each with a handler of its own.
//!
//! The server opens the packet and hands over its body as bytes; what they mean is the program's. Legal after the login only: `dispatch` says so.
//!
//! A handler must not be able to harm anybody but its own client. So it runs on that client's thread with no lock held, its replies have a bound, a
//! client that does not read them is not read from either, and an error or a panic ends that one connection.

use std::cell::Cell;
use std::collections::HashMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Shared;
use super::peer::{Ending, Flow, Peer, Touched};
use crate::delivery::{Outbox, Session};
use crate::faults;
use crate::limits;
use crate::protocol::{Cipher, Decoder, Frame, MIN_PACKET_BYTES, PacketType, ProtocolError, encode_packet};
use crate::threads;

/// Why a handler failed, for the log: any error, or a sentence, as in `Err("there are no such dice".into())`.
pub type HandlerError = Box<dyn Error + Send + Sync>;

type Handler = Box<dyn Fn(&Call<'_>) -> Result<(), HandlerError> + Send + Sync>;

/// Why a handler cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The protocol has this type or reserves it.
    #[error("packet type {0} is the protocol's (0 to 21 and 101 to 104 are); choose another one, best from 1000 on")]
    Reserved(u32),
    /// There is a handler for this type.
    #[error("packet type {0} has a handler already; choose another one, or do both in one handler")]
    Taken(u32),
}

/// Why a reply was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The protocol has this type or reserves it.
    #[error("packet type {0} is the protocol's (0 to 21 and 101 to 104 are); reply with another one")]
    Reserved(u32),
    /// With this one the replies to one packet would exceed `outbox_bytes`.
    #[error(
        "the replies to one packet may have {limit} bytes in all (outbox_bytes), these have {bytes}; reply with less"
    )]
    TooMuch {
        /// Bytes of all replies in this call, this one included.
        bytes: usize,
        /// `outbox_bytes`.
        limit: usize,
    },
    /// The connection is not the user's any more: another login has taken over, or the server stops. Nothing needs to be done.
    #[error("the connection has been taken over, so nobody gets the reply")]
    Gone,
}

/// What a server does with packet types that are not the protocol's. `examples/custom_packet.rs` has a whole one.
///
/// ```no_run
/// use chatserver::{config::Config, server::{Handlers, Server}};
///
/// let handlers = Handlers::new().on(1000, |call| {
///     println!("{} sent {} bytes", call.user(), call.body().len());
///     Ok(call.reply(1001, b"thank you")?)
/// })?;
/// let server = Server::start_with(Config::default(), handlers)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Handlers {
    by_kind: HashMap<u32, Handler>,
}

impl Handlers {
    /// None yet: the server refuses every type that the protocol does not have.
    pub fn new() -> Handlers {
        Handlers::default()
    }

    /// Registers what is done with packets of type `kind` from logged-in clients. Before its login a client that sends one is disconnected.
    ///
    /// The handler runs on its client's own thread, for one packet of this client after the other, and for several clients at the same time. As long as
    /// it runs nothing else that this client sends is executed, a takeover by another login does not wait for it, and a stop waits up to
    /// `shutdown_timeout`: so it must not block for long. The thread's stack has 256 KiB.
    ///
    /// An error or a panic ends this one connection, with a line in the log. What the client sent before is executed and arrives.
    ///
    /// # Errors
    /// The type is the protocol's, or has a handler already.
    pub fn on(
        mut self,
        kind: u32,
        handler: impl Fn(&Call<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Result<Handlers, RegisterError> {
        if !PacketType::is_free(kind) {
            return Err(RegisterError::Reserved(kind));
        }
        if self.by_kind.contains_key(&kind) {
            return Err(RegisterError::Taken(kind));
        }
        self.by_kind.insert(kind, Box::new(handler));
        Ok(self)
    }

    pub(super) fn find(&self, kind: u32) -> Option<&Handler> {
        self.by_kind.get(&kind)
    }
}

/// One packet of a client, as its handler sees it.
pub struct Call<'a> {
    session: &'a Session,
    cipher: &'a Cipher,
    kind: u32,
    body: &'a [u8],
    limit_bytes: usize,
    reply_bytes: Cell<usize>,
}

impl Call<'_> {
    /// The name of the user who sent it, as written at the login.
    pub fn user(&self) -> &str {
        self.session.name.as_written()
    }

    /// The packet's type.
    pub fn kind(&self) -> u32 {
        self.kind
    }

    /// The packet's body, decrypted and without its padding: at most `max_packet_bytes`, and whatever the client has written there.
    pub fn body(&self) -> &[u8] {
        self.body
    }

    /// Sends a packet to the client who sent this one, after everything that is on its way to it. Never waits.
    ///
    /// A client that does not take its replies is not called for again until it does: its further packets wait, and after `write_stall_timeout` its
    /// connection ends. A reply is not kept: when the connection ends first, it is lost.
    ///
    /// # Errors
    /// Nothing was sent. The handler may go on, or return the error, which ends the connection.
    pub fn reply(&self, kind: u32, body: &[u8]) -> Result<(), ReplyError> {
        if !PacketType::is_free(kind) {
            return Err(ReplyError::Reserved(kind));
        }
        // A header and at most one block of padding are as long as the shortest packet.
        let (bytes, limit) = (self.reply_bytes.get() + body.len() + MIN_PACKET_BYTES, self.limit_bytes);
        if bytes > limit {
            return Err(ReplyError::TooMuch { bytes, limit });
        }
        let mut packet = Vec::new();
        encode_packet(kind, body, self.cipher, &mut packet);
        self.session.enter(|| self.session.outbox.push_answer(&packet)).ok_or(ReplyError::Gone)?;
        self.reply_bytes.set(bytes);
        Ok(())
    }
}

/// Opens the packet and calls its handler, which `dispatch` has found to be there.
pub(super) fn handle_custom(peer: &mut Peer, decoder: &mut Decoder, shared: &Shared, frame: Frame<'_>) -> Flow {
    faults::point("custom");
    let kind = frame.kind;
    let (Some(handler), Some(session)) = (shared.handlers.find(kind), &peer.session) else {
        return Flow::End(ProtocolError::UnknownType { kind }.into());
    };
    if session.outbox.is_full()
        && let Some(ending) = wait_for_client(session, &mut peer.touched, shared, Outbox::is_full)
    {
        return Flow::End(ending);
    }
    if session.is_closed() {
        return Flow::End(Ending::of_closed(session));
    }
    // It owes a flush for what the handler replies.
    peer.touched.owed.add(session);
    let body = match decoder.open(&shared.delivery.cipher, frame) {
        Ok(body) => body,
        Err(error) => return Flow::End(error.into()),
    };
    let limit_bytes = shared.delivery.limits.outbox_bytes;
    let call = Call { session, cipher: &shared.delivery.cipher, kind, body, limit_bytes, reply_bytes: Cell::new(0) };
    let why = match catch_unwind(AssertUnwindSafe(|| handler(&call))) {
        Ok(Ok(())) => return Flow::Next,
        Ok(Err(error)) => error.to_string(),
        Err(cause) => format!("it panicked: {}", threads::panic_words(&*cause)),
    };
    Flow::End(Ending::HandlerFailed { kind, why })
}

/// Waits until the client has taken so much of what is ready for it that there is not `too_much` any more. Only its own thread waits; its writer ends the
/// connection when it takes nothing for too long.
pub(super) fn wait_for_client(
    session: &Arc<Session>,
    touched: &mut Touched,
    shared: &Shared,
    too_much: impl Fn(&Outbox) -> bool,
) -> Option<Ending> {
    loop {
        touched.owed.add(session);
        touched.flush();
        if !too_much(&session.outbox) {
            return None;
        }
        let is_broken = session.outbox.pause(limits::REPLY_RETRY);
        if let Some(ending) = Ending::from_outside(session) {
            return Some(ending);
        }
        match () {
            () if shared.is_stopping() => return Some(Ending::Stopping),
            () if is_broken => return Some(Ending::Lost("before it had taken what was ready for it".into())),
            () => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_types_and_those_with_a_handler_are_refused_in_words() {
        let register = |handlers: Handlers, kind| handlers.on(kind, |_| Ok(()));
        for kind in (0..=21).chain(101..=104) {
            assert_eq!(register(Handlers::new(), kind).err(), Some(RegisterError::Reserved(kind)));
        }
        let mut handlers = Handlers::new();
        for kind in [22, 100, 105, 1000, u32::MAX] {
            handlers = register(handlers, kind).unwrap();
        }
        let taken = register(handlers, 1000).err().unwrap();
        assert_eq!(taken, RegisterError::Taken(1000));
        assert!(taken.to_string().contains("packet type 1000 has a handler already"), "{taken}");
    }
}
