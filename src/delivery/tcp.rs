//! What Linux knows about a connection and the standard library does not ask: the only `unsafe` of the server.
//!
//! Read first: tcp(7), and RFC 9293 §3.4 on what an acknowledgement says.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Bytes written to the socket that the peer's TCP has not acknowledged yet (`SIOCOUTQ`). Never blocks; still answers after a reset.
/// After `shutdown(SHUT_WR)` the FIN counts as one byte until it is acknowledged.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn unacknowledged(socket: &TcpStream) -> io::Result<u64> {
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
pub fn acknowledged(socket: &TcpStream) -> io::Result<u64> {
    Ok(info(socket)?.tcpi_bytes_acked)
}

/// The connection is over without the peer having ended its stream in order: it was reset, or given up. Never blocks.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn is_broken(socket: &TcpStream) -> io::Result<bool> {
    // TCP_CLOSE of linux/tcp_states.h; after the peer's FIN alone it would be CLOSE_WAIT.
    const CLOSED: u8 = 7;
    Ok(info(socket)?.tcpi_state == CLOSED)
}

/// Bytes of the peer's stream that have arrived in this machine, whether read or not (`TCP_INFO`). Never blocks.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn received(socket: &TcpStream) -> io::Result<u64> {
    Ok(info(socket)?.tcpi_bytes_received)
}

fn info(socket: &TcpStream) -> io::Result<libc::tcp_info> {
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
