//! The side doors: `ctl.sock` and HTTP. Few come to them, and each has a thread of its own: one that dawdles keeps nobody else, least of all a client of the chat.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};

use super::Shared;
use crate::health::Counter;
use crate::{limits, threads};

/// A listening socket, and who is connected to it.
pub(super) struct SideDoor<S> {
    listener: Arc<OwnedFd>,
    inside: Inside<S>, // lock: a leaf
    thread: JoinHandle<()>,
}

/// Those who are connected.
type Inside<S> = Arc<Mutex<HashMap<u64, Arc<S>>>>;

/// What a door leads to.
pub(super) struct Room<S> {
    /// Its name in the log.
    pub name: &'static str,
    /// The name of its threads.
    pub threads: &'static str,
    /// So many may be connected at once.
    pub places: usize,
    /// Logs that there was no place for one more, and says so to it before it is closed. Must not wait.
    pub refuse: fn(&S),
    /// Serves one, on a thread of its own, to the end; told how many places others had when it came.
    pub serve: fn(&S, usize, &Arc<Shared>) -> io::Result<()>,
}

impl<S: AsFd + From<OwnedFd> + Send + Sync + 'static> SideDoor<S> {
    /// Lets in who comes to `listener`, until the server stops.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn open(listener: impl Into<OwnedFd>, room: Room<S>, shared: &Arc<Shared>) -> io::Result<SideDoor<S>> {
        let listener = Arc::new(listener.into());
        let inside = Inside::default();
        let (door, others, shared) = (listener.clone(), inside.clone(), shared.clone());
        let thread = threads::spawn(room.threads, limits::STACK_BYTES, move || {
            accept_loop(&door, &room, &others, &shared);
        })?;
        Ok(SideDoor { listener, inside, thread })
    }

    /// Takes no more requests, and waits for nothing that others have still to send.
    pub fn close(self) {
        // On Linux this wakes a thread that waits in accept.
        let _ = shutdown(&self.listener, Shutdown::Both);
        let _ = self.thread.join();
        for socket in self.inside.lock().values() {
            let _ = shutdown(socket, Shutdown::Read);
        }
    }
}

fn accept_loop<S>(listener: &OwnedFd, room: &Room<S>, inside: &Inside<S>, shared: &Arc<Shared>)
where
    S: From<OwnedFd> + Send + Sync + 'static,
{
    let (name, serve) = (room.name, room.serve);
    let (mut last_id, errors) = (0, Counter::default());
    while !shared.is_stopping() {
        let socket = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => Arc::new(S::from(socket)),
            Err(Errno::INTR) => continue,
            Err(_) if shared.is_stopping() => return,
            Err(error) => {
                if errors.note(shared.delivery.now().mono_ms).is_some() {
                    log::error!("{name}: accept: {}; going on", io::Error::from(error));
                }
                if shared.wait_for_stop(limits::DISK_RETRY) {
                    return;
                }
                continue;
            }
        };
        let taken = inside.lock().len();
        if taken >= room.places {
            (room.refuse)(&socket);
            continue;
        }
        last_id += 1;
        inside.lock().insert(last_id, socket.clone());
        let (place, shared) = (Place { id: last_id, inside: inside.clone() }, shared.clone());
        let served = threads::spawn(room.threads, limits::MAIL_STACK_BYTES, move || {
            let _place = place;
            if let Err(error) = serve(&socket, taken, &shared) {
                log::debug!("{name}: {error}");
            }
        });
        if let Err(error) = served {
            log::error!("{name}: no thread for a connection, so it is closed: {error}");
        }
    }
}

/// A connection's place; dropping it gives it back.
struct Place<S> {
    id: u64,
    inside: Inside<S>,
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        self.inside.lock().remove(&self.id);
    }
}
