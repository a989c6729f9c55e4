//! How this process stands with the machine: memory, threads, descriptors, load.

use std::fs;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

/// One reading. What the kernel does not tell is `None`.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Resident memory of this process, in bytes.
    pub resident_bytes: Option<u64>,
    /// Processor time that it has used, in microseconds.
    pub cpu_us: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
    /// Threads that it may have, by the lowest of the machine's limits.
    pub thread_limit: Option<u64>,
    /// Its open descriptors.
    pub descriptors: Option<u64>,
    /// Descriptors that it may have.
    pub descriptor_limit: Option<u64>,
    /// Runnable tasks of the machine, averaged over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Processors that this process may use.
    pub processors: Option<usize>,
}

impl Machine {
    /// Reads it now; `thread_limit` was found out at start.
    pub fn read(thread_limit: Option<u64>) -> Machine {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
        };
        Machine {
            resident_bytes: field("VmRSS:").map(|kib| kib * 1024),
            cpu_us: fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_us(&stat)),
            threads: field("Threads:"),
            thread_limit,
            descriptors: descriptors(),
            descriptor_limit: getrlimit(Resource::Nofile).current,
            load: fs::read_to_string("/proc/loadavg").ok().and_then(|text| load(&text)),
            processors: std::thread::available_parallelism().ok().map(Into::into),
        }
    }

    /// The share of its descriptors that is in use, from 0 to 1.
    pub fn descriptor_use(&self) -> f64 {
        share(self.descriptors, self.descriptor_limit)
    }

    /// The share of its threads that is in use, from 0 to 1.
    pub fn thread_use(&self) -> f64 {
        share(self.threads, self.thread_limit)
    }
}

/// The kernel tells it in ticks, of which a second has 100 on every Linux of today.
fn cpu_us(stat: &str) -> Option<u64> {
    const TICK_US: u64 = 10_000;
    // The name, in parentheses, may have spaces; behind it utime and stime are the 12th and 13th words.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<u64>);
    Some((words.next()?.ok()? + words.next()?.ok()?) * TICK_US)
}

/// Linux 6.2 and later give the number as the directory's size; a list costs a microsecond for each.
fn descriptors() -> Option<u64> {
    let told = fs::metadata("/proc/self/fd").ok().map(|directory| directory.len()).filter(|count| *count > 0);
    // The listing has a descriptor of its own.
    told.or_else(|| fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)))
}

fn share(used: Option<u64>, limit: Option<u64>) -> f64 {
    match (used, limit) {
        (Some(used), Some(limit)) if limit > 0 => used as f64 / limit as f64,
        _ => 0.0,
    }
}

fn load(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_whitespace().map(str::parse);
    Some([words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let machine = Machine::read(Some(1000));
        assert!(
            machine.resident_bytes.unwrap() > 1 << 20 && machine.threads.unwrap() >= 1 && machine.cpu_us.is_some(),
            "{machine:?}"
        );
        assert!(machine.descriptors.unwrap() >= 4 && machine.descriptor_use() > 0.0, "{machine:?}");
        assert!(machine.thread_use() > 0.0 && machine.load.is_some(), "{machine:?}");
        drop(file);
        assert_eq!(Machine::default().thread_use(), 0.0);
        let stat = "7 (chat) server) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 11 0 1 2 3";
        assert_eq!((cpu_us(stat), cpu_us("7 (x) S")), (Some(1_680_000), None));
        assert_eq!(load("0.10 0.20 0.30 1/200 4711\n"), Some([0.1, 0.2, 0.3]));
    }
}
