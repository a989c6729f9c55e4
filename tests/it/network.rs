//! What a network does to a connection: it falls silent, it resets; and what the kernel says about one. Linux only, no rights needed.
//!
//! A network that is gone acknowledges nothing. A program that merely stops reading is something else: its kernel goes on acknowledging.
//! So `Silence` has the *client's* kernel drop everything that arrives for one socket, before TCP sees it.
//! Read first: socket(7) on `SO_ATTACH_FILTER` and `SO_LINGER`, proc_net_tcp(5) of the kernel's documentation.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use chatserver::client::Client;
use chatserver::protocol::{Chat, Message};
use rustix::net::sockopt;

use crate::harness::*;

/// A socket whose network is gone. It holds the socket: a client that is dropped meanwhile sends no FIN, as a phone in a tunnel sends none.
/// What the socket's own side writes still leaves it.
#[must_use]
pub struct Silence {
    socket: TcpStream,
}

impl Silence {
    /// From now on this socket's kernel sees nothing that arrives, and so acknowledges nothing.
    pub fn begin(socket: &TcpStream) -> Silence {
        // One instruction of classic BPF: return 0, which keeps zero bytes of a packet.
        let mut drop_all = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
        let filter = libc::sock_fprog { len: 1, filter: drop_all.as_mut_ptr() };
        set_option(socket, libc::SO_ATTACH_FILTER, &filter).expect("a socket filter needs no rights");
        Silence { socket: socket.try_clone().unwrap() }
    }

    /// The network is back.
    pub fn end(self) {
        set_option(&self.socket, libc::SO_DETACH_FILTER, &0_i32).unwrap();
    }
}

fn set_option<T>(socket: &TcpStream, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, the size of the value, and for a filter the instructions that it points to; all outlive the
    // call, and the descriptor is open while we borrow its owner.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes the socket with a reset, whatever was read of it.
pub fn reset(socket: TcpStream) {
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
}

/// The same for a client: no FIN, no logout.
pub fn reset_client(mut client: Client) {
    sockopt::set_socket_linger(client.connection().stream(), Some(Duration::ZERO)).unwrap();
}

/// Bytes that have arrived at this socket and were not read.
pub fn unread(socket: &TcpStream) -> u64 {
    rustix::io::ioctl_fionread(socket).unwrap()
}

/// Neither bytes nor an end have come that were not read.
pub fn is_silent(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let peeked = socket.peek(&mut [0; 1]);
    socket.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Bytes that the server has written to this client and that the client's kernel has not acknowledged; 0 also when the connection is gone.
pub fn unacknowledged(client: &TcpStream) -> u64 {
    let (Ok(server), Ok(client)) = (client.peer_addr(), client.local_addr()) else { return 0 };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some(&hex(server)) && columns.next() == Some(&hex(client))
    });
    line.map_or(0, |line| {
        let queues = line.split_whitespace().nth(4).unwrap();
        u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
    })
}

/// An address as the kernel's table writes it: the four bytes as a number of this machine, then the port.
fn hex(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("IPv4 only: {address}") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

/// Waits until the client's kernel has acknowledged everything that the server wrote.
#[track_caller]
pub fn until_acknowledged(client: &TcpStream) {
    eventually("everything written is acknowledged", || unacknowledged(client) == 0);
}

/// Bytes of a message's packet.
pub fn packet_bytes(from: &str, to: &str, text: &str) -> u64 {
    packet(&Message::Chat(Chat { from, to, text, time: unix_time(), ..Chat::default() })).len() as u64
}

/// Unix seconds, now: all times of a test have encodings of the same length.
fn unix_time() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed()
}
