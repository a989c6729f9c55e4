//! A tap: stands between clients and a server, passes on what they say, and shows it. It can misbehave on purpose, as networks and broken programs do.
//!
//! Two threads a direction, one that reads and one that writes, for what is delayed must not hold up what comes (`pump.rs`). What all of them see goes through one
//! door, the [`Watcher`], so that lines and records come in the order of their bytes. `mischief.rs` says what is done wrong, and to which bytes.
//!
//! It must not know how a session works: what it shows comes from `decode`, what it writes to a capture from `capture`.

mod mischief;
mod pump;
#[cfg(test)]
mod tests;
mod watcher;

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

pub use mischief::{Flip, Mischief, Stop, Wrong};
pub use watcher::{Report, Watcher};

use crate::capture::Direction;
use crate::{limits, threads};

/// What a tap does.
pub struct Tap {
    /// What to do wrong.
    pub mischief: Mischief,
    /// Who sees it.
    pub watcher: Arc<Watcher>,
}

impl Tap {
    /// Serves `listener` until the process ends: each connection is passed on to `server`, which is looked up anew each time.
    pub fn serve(self, listener: &TcpListener, server: &str) {
        let tap = Arc::new(self);
        loop {
            let (client, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Of one connection, or of all for a while, as when descriptors run out: those that are there go on.
                    tap.watcher.say(None, &format!("no connection could be accepted ({error}); going on"));
                    std::thread::sleep(ACCEPT_RETRY);
                    continue;
                }
            };
            let (joined, server) = (tap.clone(), server.to_owned());
            let spawned = threads::spawn("joins", limits::MAIL_STACK_BYTES, move || {
                let joining = connect(&server).and_then(|server| joined.join(client, server));
                if let Err(error) = joining {
                    joined
                        .watcher
                        .say(None, &format!("{address}: not passed on to {server} ({error}), so it is closed"));
                }
            });
            if let Err(error) = spawned {
                tap.watcher.say(None, &format!("{address}: no thread for it ({error}), so it is closed"));
            }
        }
    }

    /// Passes on between the two, on threads of their own.
    fn join(self: &Arc<Tap>, client: TcpStream, server: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let id = self.watcher.opened(client.peer_addr()?, server.peer_addr()?);
        let pair = Arc::new(pump::Pair::new(id, self.watcher.clone(), client, server));
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (tap, passing) = (self.clone(), pair.clone());
            let name =
                if direction == Direction::ToServer { format!("{id} to server") } else { format!("{id} to client") };
            let spawned = threads::spawn(&name, limits::MAIL_STACK_BYTES, move || pump::run(&tap, &passing, direction));
            if let Err(error) = spawned {
                pair.close();
                return Err(error);
            }
        }
        Ok(())
    }
}

/// How long a server may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before another connection is accepted when one could not be.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

fn connect(server: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
