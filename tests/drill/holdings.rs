//! What a server holds: descriptors, threads, memory. After a drill it must hold no more than before.

use std::thread;
use std::time::Duration;

use crate::harness::{PATIENCE, Server, happens_within};

/// What a server holds for its connections. Not among it: the database's readers, threads and files, which come when they are needed and stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// What the descriptors are of, sorted, the numbers of sockets left out.
    pub descriptors: Vec<String>,
    /// Names, sorted.
    pub threads: Vec<String>,
}

impl Holdings {
    /// At this moment.
    pub fn of(server: &Server) -> Holdings {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the server lives");
        // One may be closed between the two looks.
        let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
        let kinds = targets.map(|target| target.to_string_lossy().split(':').next().unwrap_or_default().to_owned());
        let mut descriptors: Vec<String> = kinds.filter(|kind| !kind.contains("chatserver.db")).collect();
        descriptors.sort();
        let threads = server.threads().into_iter().filter(|name| name != "reader").collect();
        Holdings { descriptors, threads }
    }

    /// When it has no more to do, and each thread has got its name.
    pub fn at_rest(server: &Server) -> Holdings {
        let is_at_rest = happens_within(PATIENCE, || {
            let before = server.cpu();
            // Its processor time has a resolution of 10 ms.
            thread::sleep(Duration::from_millis(50));
            server.cpu() == before
        });
        assert!(is_at_rest, "the server always has something to do");
        Holdings::of(server)
    }

    /// Waits until the server holds that again; else, in words, what it holds more or less.
    pub fn come_back(&self, server: &Server) -> Option<String> {
        let mut now = Holdings::of(server);
        let is_back = happens_within(PATIENCE, || {
            now = Holdings::of(server);
            now == *self
        });
        (!is_back).then(|| format!("at rest it held {self:?}, {PATIENCE:?} after everybody left {now:?}"))
    }

    /// `23 descriptors, 8 threads`.
    pub fn line(&self) -> String {
        format!("{} descriptors, {} threads", self.descriptors.len(), self.threads.len())
    }
}

/// The middle one of some numbers.
pub fn median(numbers: &mut [u64]) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// `12.3 MiB`.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
