//! Placeholder, replaced by the server's branch.
use std::net::{SocketAddr, TcpListener};

use crate::config::Config;

/// Placeholder.
pub struct Server(TcpListener);
/// Placeholder.
#[derive(Debug, thiserror::Error)]
#[error("cannot start: {0}")]
pub struct StartError(#[from] std::io::Error);
/// Placeholder.
pub struct Stopped {
    /// Placeholder.
    pub delivered: u64,
    /// Placeholder.
    pub saved: u64,
    /// Placeholder.
    pub unsaved: u64,
}
impl Server {
    /// Placeholder.
    pub fn start(config: Config) -> Result<Server, StartError> {
        Ok(Server(TcpListener::bind(config.listen)?))
    }
    /// Placeholder.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
    /// Placeholder.
    pub fn stop(self) -> Stopped {
        Stopped {
            delivered: 0,
            saved: 0,
            unsaved: 0,
        }
    }
}
