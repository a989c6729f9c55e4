//! The floor: a relay that does what no thread-per-connection relay can do without, and nothing else. A thread for each connection, blocking
//! sockets, the header read and its recipient looked up in a table; no crypto, no protobuf, no accounts, no limits, nothing kept.
//!
//! Packets for one recipient that came in one read leave in one write: the kernel sets the limit, not the number of calls.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::{Mutex, RwLock};

use super::dialect::LOGIN;
use crate::limits;
use crate::protocol::{Frame, HEADER_BYTES};

/// Who is there.
#[derive(Default)]
struct Table(RwLock<HashMap<u32, Arc<Recipient>>>); // lock: table, then let go; writing

/// One descriptor for each user: twelve thousand of them fit where a process may have twenty thousand.
struct Recipient {
    socket: TcpStream,
    /// A packet must not be mixed with another sender's.
    writing: Mutex<()>, // lock: writing
}

impl Recipient {
    fn new(socket: TcpStream) -> Arc<Recipient> {
        Arc::new(Recipient { socket, writing: Mutex::new(()) })
    }

    fn write(&self, packets: &[u8]) {
        let _one_at_a_time = self.writing.lock();
        // That it has gone is its own thread's business.
        let _ = (&self.socket).write_all(packets);
    }
}

/// Serves until the process ends.
///
/// # Errors
/// No connection can be accepted.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    let table = Arc::new(Table::default());
    loop {
        let (socket, _) = listener.accept()?;
        let table = table.clone();
        // The smallest stack with which it does its work: the floor for memory, too.
        let thread = thread::Builder::new().stack_size(limits::STACK_BYTES);
        thread.spawn(move || {
            // Whatever ends a connection, the others go on.
            let _ = connection(socket, &table);
        })?;
    }
}

const BUFFER_BYTES: usize = 64 * 1024;

/// What an idle connection keeps, in bytes.
const IDLE_BYTES: usize = 512;

fn connection(mut socket: TcpStream, table: &Table) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut login = [0; HEADER_BYTES + 4];
    socket.read_exact(&mut login)?;
    let user = u32::from_be_bytes(login[HEADER_BYTES..].try_into().expect("4 bytes"));
    let own = Recipient::new(socket);
    table.0.write().insert(user, own.clone());
    // Who has the answer can be written to.
    own.write(&answer());
    let result = relay(&own.socket, table);
    let mut present = table.0.write();
    if present.get(&user).is_some_and(|present| Arc::ptr_eq(present, &own)) {
        present.remove(&user);
    }
    result
}

fn answer() -> Vec<u8> {
    let mut answer = Vec::new();
    Frame::write(LOGIN, &mut answer, |_| {});
    answer
}

fn relay(mut socket: &TcpStream, table: &Table) -> io::Result<()> {
    let mut buffer = vec![0; IDLE_BYTES];
    let mut held = 0;
    loop {
        let count = socket.read(&mut buffer[held..])?;
        if count == 0 {
            return Ok(());
        }
        held += count;
        let done = forward(&buffer[..held], table);
        let is_busy = held == buffer.len();
        buffer.copy_within(done..held, 0);
        held -= done;
        if is_busy {
            buffer.resize(BUFFER_BYTES, 0);
        }
    }
}

/// Looks each complete packet's recipient up, and writes those that follow one another for the same one at once; gives the bytes that are done.
fn forward(bytes: &[u8], table: &Table) -> usize {
    let (mut begin, mut end) = (0, 0);
    let mut present: Option<Arc<Recipient>> = None;
    let write = |recipient: &Option<Arc<Recipient>>, packets: &[u8]| {
        if let Some(recipient) = recipient {
            recipient.write(packets);
        }
    };
    while let Some((to, length)) = packet(&bytes[end..]) {
        let recipient = table.0.read().get(&to).cloned();
        if recipient.as_ref().map(Arc::as_ptr) != present.as_ref().map(Arc::as_ptr) {
            write(&present, &bytes[begin..end]);
            (present, begin) = (recipient, end);
        }
        end += length;
    }
    write(&present, &bytes[begin..end]);
    end
}

/// The first packet: for whom it is, and its length. `None`: it is not complete.
fn packet(bytes: &[u8]) -> Option<(u32, usize)> {
    let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [length, to] = [0, 4].map(|at| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes")));
    let length = (length as usize).max(HEADER_BYTES);
    (length <= bytes.len()).then_some((to, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_for_one_recipient_leave_together_and_half_a_packet_waits() {
        let (table, listener) = (Table::default(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut recipients: Vec<TcpStream> = [5, 6]
            .map(|user| {
                let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                table.0.write().insert(user, Recipient::new(socket));
                listener.accept().unwrap().0
            })
            .into();
        let mut bytes = Vec::new();
        for to in [5, 5, 7, 6, 5] {
            Frame::write(to, &mut bytes, |out| out.extend([1, 2, 3]));
        }
        assert_eq!(forward(&bytes[..54], &table), 44);
        assert_eq!(forward(&bytes[44..], &table), 11);
        drop(table);
        let mut came = [Vec::new(), Vec::new()];
        for (socket, came) in recipients.iter_mut().zip(&mut came) {
            socket.read_to_end(came).unwrap();
        }
        assert_eq!(came.map(|came| came.len()), [33, 11]);
    }
}
