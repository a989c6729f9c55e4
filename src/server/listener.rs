//! The door: a listening socket with a long backlog, and an accept loop that survives every error.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::Shared;
use super::connection::Connection;
use crate::limits;
use crate::threads;

/// Pause after an error that more trying does not mend (no descriptors, no memory): the first, and the longest. Who waits for it is served within
/// a second once there is room again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// A listening socket with a backlog of `limits::LISTEN_BACKLOG`.
///
/// # Errors
/// The address cannot be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Each connection inherits these. Small packets, each wanted at once; the buffer's size is explained where it is defined. Neither failing
    // keeps anybody out.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    let _ = sockopt::set_socket_send_buffer_size(&socket, limits::SOCKET_BUFFER_BYTES);
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the server stops.
pub fn accept_loop(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pause = PAUSES.0;
    let mut last_id = 0;
    loop {
        match listener.accept() {
            Ok((socket, address)) => {
                pause = PAUSES.0;
                last_id += 1;
                welcome(shared, last_id, socket, address);
            }
            Err(_) if shared.is_stopping() => return,
            Err(error) => {
                let (counters, now_ms) = (&shared.delivery.counters, shared.delivery.now().mono_ms);
                let is_about_one = is_about_one_connection(&error);
                let counter = if is_about_one { &counters.gone } else { &counters.failed_accept };
                if let Some(count) = counter.note(now_ms) {
                    log::error!("accept: {error} ({count} since the last such line); going on");
                }
                if !is_about_one {
                    if shared.wait_for_stop(pause) {
                        return;
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
        if shared.is_stopping() {
            return;
        }
    }
}

/// The connection was gone before it was accepted: the next one may be fine.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
    )
}

/// Gives the connection its thread, or closes it.
fn welcome(shared: &Arc<Shared>, id: u64, socket: TcpStream, address: SocketAddr) {
    let now_ms = shared.delivery.now().mono_ms;
    if shared.is_draining() {
        if let Some(count) = shared.delivery.counters.refused_draining.note(now_ms) {
            log::info!("c{id}: {address}: refused, the server drains ({count} refused since the last such line)");
        }
        return;
    }
    let ticket = match shared.admission.admit(address.ip()) {
        Ok(ticket) => ticket,
        Err(full) => {
            if let Some(count) = full.counter(&shared.delivery.counters).note(now_ms) {
                log::warn!("c{id}: {address}: refused, {full} ({count} refused since the last such line)");
            }
            return;
        }
    };
    log::debug!("c{id}: {address}: connected");
    shared.delivery.counters.accepted.add(1);
    let socket = Arc::new(socket);
    let place = shared.connections.add(id, socket.clone());
    // On the heap, once: on its way to its thread it would be copied from frame to frame, and its stack is what an idle user costs most.
    let connection = Box::new(Connection::new(shared.clone(), id, socket, address, ticket));
    let served = threads::spawn(&format!("c{id}"), limits::STACK_BYTES, move || {
        let _place = place;
        connection.run();
    });
    if let Err(error) = served
        && let Some(count) = shared.delivery.counters.failed_thread.note(now_ms)
    {
        log::error!("c{id}: {address}: no thread for it, so it is closed: {error} ({count} since the last such line)");
    }
}
