//! A door for the fuzz targets (`tests/fuzz`), and for nobody else: it is there only when they are built.

use super::Server;

pub use super::buffer::ReadBuffer;

/// What must be 0 when nobody is connected.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Open connections.
    pub open: usize,
    /// Those that have not logged in.
    pub strangers: usize,
    /// Users who are there.
    pub present: u64,
    /// Threads that bring a backlog or wait for a full socket.
    pub writers: usize,
    /// Senders that wait for memory.
    pub waiting_senders: usize,
    /// Threads that panicked, ever.
    pub panics: u64,
}

/// Reads them all. Waits for no disk, and asks the kernel nothing.
pub fn gauges(server: &Server) -> Gauges {
    let (shared, delivery) = (&server.shared, &server.shared.delivery);
    let (open, strangers, _) = shared.admission.count();
    Gauges {
        open,
        strangers,
        present: delivery.counters.present.now(),
        writers: shared.writers.running(),
        waiting_senders: delivery.memory.waiting(),
        panics: delivery.counters.panics.total(),
    }
}
