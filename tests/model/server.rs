//! What the real writers, handlers and peers need of a server: the same names, and no more.

use std::sync::Arc;

use crate::config::Config;
use crate::delivery::{Delivery, Session};
use crate::jobs::timer::StartWriter;
use crate::sync::{AtomicBool, Ordering::SeqCst};

#[path = "../../src/server/handlers/mod.rs"]
pub mod handlers;
#[path = "../../src/server/peer.rs"]
pub mod peer;
#[path = "../../src/server/writer.rs"]
pub mod writer;

/// Strangers are not counted in the model.
pub mod admission {
    use std::time::{Duration, Instant};

    pub struct Ticket;

    impl Ticket {
        pub fn logged_in(&self) {}

        pub fn may_log_in(&self, _now: Instant) -> Result<(), Duration> {
            Ok(())
        }
    }
}

pub struct Shared {
    pub config: Arc<Config>,
    pub delivery: Arc<Delivery>,
    pub writers: writer::Writers,
    pub is_stopping: AtomicBool,
}

impl Shared {
    pub fn config(&self) -> Arc<Config> {
        self.config.clone()
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(SeqCst)
    }
}

impl StartWriter for Arc<Shared> {
    fn start_writer(&self, session: Arc<Session>) {
        self.writers.start(session, self);
    }
}
