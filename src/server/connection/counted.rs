//! A door for the program that counts instructions (`tests/bench/path.rs`), and for nobody else: a connection without a thread, whose bytes the
//! caller brings. Everything between its reads and its writes is the server's own.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use super::Connection;
use crate::protocol::Frame;
use crate::server::Server;

/// Only for one thread.
pub struct Counted {
    connection: Connection,
}

impl Counted {
    /// A connection that was just accepted, and of which the caller has the other end.
    ///
    /// # Errors
    /// The socket is not connected.
    ///
    /// # Panics
    /// If the server lets nobody in any more.
    pub fn new(server: &Server, id: u64, socket: TcpStream) -> io::Result<Counted> {
        let shared = server.shared.clone();
        let address = socket.peer_addr()?;
        let ticket = shared.admission.admit(address.ip()).expect("the server has room");
        Ok(Counted { connection: Connection::new(shared, id, Arc::new(socket), address, ticket) })
    }

    /// What a read brings: at most so many of `bytes` as the read buffer takes. Gives their number.
    ///
    /// # Panics
    /// If a packet is not one.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let connection = &mut self.connection;
        let unread = connection.buffer.unread();
        let wanted = Frame::wanted(unread, connection.max_packet_bytes()).expect("a packet").unwrap_or(0);
        let count = connection.buffer.fill(bytes, wanted).expect("bytes can be read");
        connection.read_bytes += count as u64;
        connection.peer.now = connection.shared.delivery.now();
        count
    }

    /// Executes all complete packets that were read. This is what is counted, by its name.
    ///
    /// # Panics
    /// If that ends the connection.
    #[inline(never)]
    pub fn execute_counted(&mut self) {
        let ending = self.connection.execute_all();
        assert_eq!(ending, None, "nothing ends this connection");
    }

    /// The same, not counted.
    ///
    /// # Panics
    /// If that ends the connection.
    #[inline(never)]
    pub fn execute(&mut self) {
        let ending = self.connection.execute_all();
        assert_eq!(ending, None, "nothing ends this connection");
    }

    /// Flushes the outboxes that were pushed to.
    pub fn flush(&mut self) {
        self.connection.peer.touched.flush();
    }

    /// Asks TCP what this user's client has acknowledged; `true`: messages of all users in memory are charged no more than `bytes`.
    ///
    /// # Panics
    /// If nobody has logged in.
    pub fn has_settled(&mut self, bytes: usize) -> bool {
        let Connection { shared, peer, .. } = &mut self.connection;
        let session = peer.session.as_ref().expect("somebody has logged in");
        session.mailbox.collect_acks(&shared.delivery, &mut peer.touched.owed);
        shared.delivery.memory.used_bytes() <= bytes
    }

    /// What messages of all users in memory are charged, in bytes.
    pub fn charged_bytes(&self) -> usize {
        self.connection.shared.delivery.memory.used_bytes()
    }
}
