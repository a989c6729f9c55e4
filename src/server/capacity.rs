//! How many connections this machine carries, and which of its limits says so.
//!
//! A connection is a descriptor, a thread, and the thread's four memory mappings (stack, guard, alternate signal stack, its guard). Past the
//! kernel's limits a thread does not just fail to start: the process can abort (rust-lang/rust#78497). So the cap is computed at start, at most
//! 80 % of the lowest limit, and nobody relies on a failing spawn.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Memory mappings of one thread.
const MAPPINGS_PER_THREAD: u64 = 4;

/// Descriptors that are no connections: database, log, listener, configuration.
const OTHER_DESCRIPTORS: u64 = 64;

/// Threads that are neither connections nor writers: main, accept, timer, log, signals.
const OTHER_THREADS: u64 = 16;

/// The cap on connections and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Connections at one time.
    pub connections: usize,
    /// The limit that binds, in words.
    pub bound_by: String,
}

/// One limit of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    name: String,
    value: u64,
    connections: u64,
}

/// Raises RLIMIT_NOFILE to its hard limit and gives it; `None` = unlimited.
pub fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the lower limit in force, and that one is counted with.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current
}

/// The cap for this machine, where `asked` (0 = as many as fit) and `writers` are configured.
pub fn capacity(asked: usize, writers: usize) -> Capacity {
    lowest(&machine_limits(writers as u64), asked)
}

fn lowest(limits: &[Limit], asked: usize) -> Capacity {
    let lowest = limits.iter().min_by_key(|limit| limit.connections);
    match lowest {
        Some(limit) if asked == 0 || limit.connections < asked as u64 => Capacity {
            connections: limit.connections as usize,
            bound_by: format!("80 % of {} = {}", limit.name, limit.value),
        },
        _ => Capacity { connections: asked, bound_by: format!("max_connections = {asked}") },
    }
}

fn machine_limits(writers: u64) -> Vec<Limit> {
    let threads = |value: u64| (value * 4 / 5).saturating_sub(writers + OTHER_THREADS).max(1);
    let descriptors = |value: u64| (value * 4 / 5).saturating_sub(OTHER_DESCRIPTORS).max(1);
    let of_threads = |name: &str, value: Option<u64>| {
        value.map(|value| Limit { name: name.into(), value, connections: threads(value) })
    };
    let nofile = raise_descriptors().map(|value| Limit {
        name: "the descriptor limit (ulimit -n, LimitNOFILE=)".into(),
        value,
        connections: descriptors(value),
    });
    let mappings = number("/proc/sys/vm/max_map_count").map(|value| Limit {
        name: "vm.max_map_count".into(),
        value,
        connections: threads(value / MAPPINGS_PER_THREAD),
    });
    [
        nofile,
        mappings,
        of_threads("kernel.threads-max", number("/proc/sys/kernel/threads-max")),
        of_threads("kernel.pid_max", number("/proc/sys/kernel/pid_max")),
        of_threads("the user's process limit (ulimit -u)", getrlimit(Resource::Nproc).current),
        of_threads("the control group's pids.max (TasksMax=)", cgroup_pids_max()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Threads that this process may have, by the lowest of the limits that can be read.
pub fn thread_limit() -> Option<u64> {
    let mappings = number("/proc/sys/vm/max_map_count").map(|mappings| mappings / MAPPINGS_PER_THREAD);
    [
        mappings,
        number("/proc/sys/kernel/threads-max"),
        number("/proc/sys/kernel/pid_max"),
        getrlimit(Resource::Nproc).current,
        cgroup_pids_max(),
    ]
    .into_iter()
    .flatten()
    .min()
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The lowest `pids.max` from our control group up to the root.
fn cgroup_pids_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut lowest: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, mut path) = (parts.next()?, parts.next()?);
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            "pids" => "/sys/fs/cgroup/pids",
            _ => continue,
        };
        loop {
            let limit = number(&format!("{root}{path}/pids.max"));
            lowest = lowest.into_iter().chain(limit).min();
            match path.rfind('/') {
                Some(slash) => path = &path[..slash],
                None => break,
            }
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, value: u64, connections: u64) -> Limit {
        Limit { name: name.into(), value, connections }
    }

    #[test]
    fn the_lowest_limit_binds_and_is_named() {
        let limits = [limit("a", 100, 80), limit("b", 50, 40), limit("c", 1000, 800)];
        assert_eq!(lowest(&limits, 0), Capacity { connections: 40, bound_by: "80 % of b = 50".into() });
        assert_eq!(lowest(&limits, 10), Capacity { connections: 10, bound_by: "max_connections = 10".into() });
        assert_eq!(lowest(&limits, 60).connections, 40);
    }

    #[test]
    fn this_machine_carries_some() {
        let limits = machine_limits(10);
        assert!(limits.len() >= 4, "{limits:?}");
        assert!(
            limits.iter().all(|limit| limit.connections >= 1 && limit.connections * 5 <= limit.value.max(1) * 4
                || limit.connections == 1)
        );
    }
}
