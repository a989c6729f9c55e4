//! What is asked of a socket and the standard library does not ask: to send without waiting, to wait for it alone, and what Linux knows about the
//! connection, with the only `unsafe` of the server but two words to the allocator (`heap.rs`) and one to the runtime (`main.rs`).
//!
//! Read first: tcp(7), and RFC 9293 §3.4 on what an acknowledgement says.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::event::{PollFd, Timespec, poll};
use rustix::net::SendFlags;

pub use rustix::event::PollFlags;
pub use rustix::io::Errno;

/// A connection's socket.
pub type Socket = TcpStream;

/// Sends what the socket takes at once, and says how many bytes that was. Never blocks.
///
/// # Errors
/// `AGAIN`: the socket is full; `INTR`: nothing was sent yet; else the connection is gone.
pub fn send(socket: &Socket, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

/// Waits for `event` (none: for the connection's end) on this socket alone, and says whether it came within `timeout`.
///
/// # Errors
/// `INTR`: a signal came first; else the descriptor is no socket, or `timeout` is too long for the kernel.
pub fn wait(socket: &Socket, event: PollFlags, timeout: Duration) -> Result<bool, Errno> {
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    poll(&mut [PollFd::new(socket, event)], Some(&timeout)).map(|ready| ready > 0)
}

/// Bytes written to the socket that the peer's TCP has not acknowledged yet (`SIOCOUTQ`). Never blocks; still answers after a reset.
/// After `shutdown(SHUT_WR)` the FIN counts as one byte until it is acknowledged.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn unacknowledged(socket: &Socket) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int to the address given, which is valid for the call; the descriptor is open while we borrow its owner.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { Ok(bytes.max(0) as u64) } else { Err(io::Error::last_os_error()) }
}

/// Bytes of our stream that the peer's TCP has acknowledged (`TCP_INFO`); an acknowledged FIN counts as one more. Never blocks; still answers
/// after a reset.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn acknowledged(socket: &Socket) -> io::Result<u64> {
    Ok(info(socket)?.tcpi_bytes_acked)
}

/// The connection is over without the peer having ended its stream in order: it was reset, or given up. Never blocks.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn is_broken(socket: &Socket) -> io::Result<bool> {
    // TCP_CLOSE of linux/tcp_states.h; after the peer's FIN alone it would be CLOSE_WAIT.
    const CLOSED: u8 = 7;
    Ok(info(socket)?.tcpi_state == CLOSED)
}

/// Bytes of the peer's stream that have arrived in this machine, whether read or not (`TCP_INFO`). Never blocks.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn received(socket: &Socket) -> io::Result<u64> {
    Ok(info(socket)?.tcpi_bytes_received)
}

fn info(socket: &Socket) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of the structure; the descriptor is open while we borrow its owner.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, all its fields are integers, and any bit pattern is an integer.
    Ok(unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    // Outboxes over real sockets.
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;
    use crate::delivery::{Flushed, Outbox};

    fn pair() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(listener.accept().unwrap().0), far)
    }

    /// Closes with something unread, which resets the connection.
    fn reset(near: &TcpStream, far: TcpStream) {
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(far.peek(&mut [0]).unwrap(), 1, "there is something to leave unread");
        drop(far);
        while !is_broken(near).unwrap() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_reset_is_told_from_an_end_also_when_a_write_took_its_error_away() {
        let (near, far) = pair();
        let outbox = Outbox::new(1, near.clone(), 1024);
        assert!(outbox.push(b"unread", 1) && !outbox.is_broken());
        outbox.flush(&mut Vec::new());
        reset(&near, far);
        assert!(outbox.push(b"more", 2));
        outbox.flush(&mut Vec::new());
        assert_eq!((&*near).read(&mut [0; 8]).unwrap(), 0, "what the reader sees looks like an end");
        assert!(outbox.is_broken());
    }

    #[test]
    fn an_end_in_order_is_no_reset() {
        let (near, far) = pair();
        let outbox = Outbox::new(1, near.clone(), 1024);
        drop(far);
        assert_eq!((&*near).read(&mut [0; 8]).unwrap(), 0);
        assert!(!outbox.is_broken());
    }

    #[test]
    fn an_empty_outbox_takes_a_packet_of_any_length_and_a_full_one_none() {
        let (near, _far) = pair();
        let outbox = Outbox::new(1, near, 10);
        assert!(outbox.push(&[0; 50], 1));
        assert!(!outbox.push(&[0; 1], 2));
        assert_eq!(outbox.flush(&mut Vec::new()), Flushed::NeedsWriter, "somebody must bring the second");
    }

    #[test]
    fn what_was_acknowledged_is_told_once() {
        let (near, mut far) = pair();
        let outbox = Outbox::new(1, near, 1024);
        assert!(outbox.push(b"one", 1) && outbox.push(b"two", 2));
        assert_eq!(outbox.acknowledged(), None);
        outbox.flush(&mut Vec::new());
        far.read_exact(&mut [0; 6]).unwrap();
        let mut told = (0, 0);
        while told.0 < 2 {
            told = outbox.acknowledged().map_or(told, |(seq, count)| (seq, told.1 + count));
        }
        assert_eq!((told, outbox.acknowledged()), ((2, 2), None));
    }
}
