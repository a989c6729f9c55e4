//! What a process under test has used, as the kernel counts it: processor time, context switches, resident memory.

use std::net::SocketAddr;
use std::time::Duration;

use procfs::process::{FDTarget, Process, all_processes};
use procfs::{ProcResult, net};

/// What a process has used since it started, and what it holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Its own instructions.
    pub user: Duration,
    /// The kernel's, on its behalf.
    pub system: Duration,
    /// Context switches of the threads that it has now, wanted or not.
    pub switches: u64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

impl Usage {
    /// Reads it now.
    ///
    /// # Errors
    /// The process is gone, or somebody else's.
    pub fn read(pid: i32) -> ProcResult<Usage> {
        let mut usage = Usage::read_times(pid)?;
        for task in Process::new(pid)?.tasks()? {
            // A thread may end at any moment.
            let Ok(status) = task.and_then(|task| task.status()) else { continue };
            let [wanted, unwanted] = [status.voluntary_ctxt_switches, status.nonvoluntary_ctxt_switches];
            usage.switches += wanted.unwrap_or(0) + unwanted.unwrap_or(0);
        }
        Ok(usage)
    }

    /// The same without the switches, which take a while to read of thousands of threads. Times come in ticks, of which there are 100 a second.
    ///
    /// # Errors
    /// As [`Usage::read`].
    pub fn read_times(pid: i32) -> ProcResult<Usage> {
        let process = Process::new(pid)?;
        let stat = process.stat()?;
        let tick = Duration::from_secs(1) / u32::try_from(procfs::ticks_per_second()).unwrap_or(100);
        Ok(Usage {
            user: tick * u32::try_from(stat.utime).unwrap_or(u32::MAX),
            system: tick * u32::try_from(stat.stime).unwrap_or(u32::MAX),
            switches: 0,
            resident_bytes: process.status()?.vmrss.unwrap_or(0) * 1024,
        })
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            switches: self.switches.saturating_sub(before.switches),
            resident_bytes: self.resident_bytes,
        }
    }

    /// User and system.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// The process of this machine that listens at `address`, if we may look.
pub fn listener(address: SocketAddr) -> Option<i32> {
    let tables = [net::tcp(), net::tcp6()];
    let mut entries = tables.into_iter().flatten().flatten();
    let inode = entries.find(|entry| {
        let local = entry.local_address;
        let is_there = local.ip().to_canonical() == address.ip().to_canonical() || local.ip().is_unspecified();
        entry.state == net::TcpState::Listen && local.port() == address.port() && is_there
    })?;
    let mut processes = all_processes().ok()?.flatten();
    let owns = |process: &Process| {
        let mut descriptors = process.fd().ok().into_iter().flatten().flatten();
        descriptors.any(|descriptor| descriptor.target == FDTarget::Socket(inode.inode))
    };
    address.ip().is_loopback().then(|| processes.find(owns).map(|process| process.pid()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_and_has_used_something() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let pid = super::listener(listener.local_addr().unwrap()).expect("it is us");
        assert_eq!(pid, std::process::id() as i32);
        let usage = Usage::read(pid).unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.switches > 0, "{usage:?}");
    }
}
