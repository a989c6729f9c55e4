//! A tap: stands between clients and a server, passes on what they say, and shows it. It can misbehave on purpose, as networks and broken programs do.
//!
//! Two threads a connection, one for each direction (`pump.rs`); what both see goes through one door, the [`Watcher`], so that lines and records come in the
//! order of their bytes. `mischief.rs` says what is done wrong, and to which bytes.
//!
//! It must not know how a session works: what it shows comes from `decode`, what it writes to a capture from `capture`.

mod mischief;
mod pump;
mod watcher;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;

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
    ///
    /// # Errors
    /// No connection can be accepted.
    pub fn serve(self, listener: &TcpListener, server: &str) -> io::Result<()> {
        let tap = Arc::new(self);
        loop {
            let (client, address) = listener.accept()?;
            let server = match connect(server) {
                Ok(server) => server,
                Err(error) => {
                    tap.watcher.say(
                        None,
                        &format!("{address}: {server} cannot be connected to ({error}), so this one is closed"),
                    );
                    continue;
                }
            };
            if let Err(error) = tap.join(client, server) {
                tap.watcher.say(None, &format!("{address}: not passed on ({error})"));
            }
        }
    }

    /// Passes on between the two, in two threads.
    fn join(self: &Arc<Tap>, client: TcpStream, server: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let id = self.watcher.opened(client.peer_addr()?, server.peer_addr()?);
        let pair = Arc::new(pump::Pair::new(id, client, server));
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (tap, pair) = (self.clone(), pair.clone());
            let name =
                if direction == Direction::ToServer { format!("{id} to server") } else { format!("{id} to client") };
            threads::spawn(&name, limits::MAIL_STACK_BYTES, move || pump::run(&tap, &pair, direction))?;
        }
        Ok(())
    }
}

fn connect(server: &str) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = server.to_socket_addrs()?.collect();
    TcpStream::connect(&addresses[..])
}
