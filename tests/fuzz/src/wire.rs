//! A client of few lines: it remembers what it has sent, so that a model can say what the server must make of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use chatserver::protocol::{Cipher, Decoder, Frame, Message, PUBLISHED_KEY};

/// What takes the server longer is a finding.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a server.
pub struct Wire {
    socket: TcpStream,
    received: Vec<u8>,
    decoder: Decoder,
    cipher: Cipher,
    /// The next write goes out in two parts, of which the first has so many bytes.
    pub cut: Option<usize>,
}

/// A packet that the server sent, or what came instead.
pub enum Event<R> {
    /// What the caller made of it.
    Packet(R),
    /// The server has closed.
    End,
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Wire {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_nodelay(true).expect("an open socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        let cipher = Cipher::new(PUBLISHED_KEY).expect("16 bytes");
        Wire { socket, received: Vec::new(), decoder: Decoder::default(), cipher, cut: None }
    }

    /// Sends bytes as they are. A server that has closed takes none, which is no fault.
    pub fn send(&mut self, bytes: &[u8]) {
        let (first, second) = bytes.split_at(self.cut.take().unwrap_or(0).min(bytes.len()));
        for part in [first, second] {
            match self.socket.write_all(part) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the server has read nothing for {PATIENCE:?}")
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// The packet that says `message`.
    pub fn packet(&self, message: &Message<'_>) -> Vec<u8> {
        let mut packet = Vec::new();
        message.encode(&self.cipher, &mut packet);
        packet
    }

    /// Waits for the next packet.
    pub fn next<R>(&mut self, read: impl FnOnce(&Message<'_>) -> R) -> Event<R> {
        loop {
            let parsed = Frame::parse(&self.received, usize::MAX).expect("the server sends packets");
            if let Some(frame) = parsed {
                let length = frame.packet.len();
                let decoded = self.decoder.decode(&self.cipher, frame).expect("the server sends good messages");
                let result = read(&decoded.message);
                self.received.drain(..length);
                return Event::Packet(result);
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Event::End,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the server has said nothing for {PATIENCE:?}")
                }
                // A reset is an end too.
                Err(_) => return Event::End,
            }
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&self) {
        // It may be gone.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Closes with a reset, as a client does that dies with its socket full.
    pub fn reset(self) {
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}
