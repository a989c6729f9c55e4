//! How many connections this machine carries, and which of its limits says so.
//!
//! A connection is a descriptor, a thread, and the thread's four memory mappings (stack, guard, alternate signal stack, its guard). Past the
//! kernel's limits a thread does not just fail to start: the process can abort (rust-lang/rust#78497). Our own program keeps its runtime from that, and
//! its threads have two mappings each (`src/main.rs`); a program that embeds the server does not. So the cap is computed at start, at most
//! 80 % of the lowest limit, and nobody relies on a failing spawn. `chatserver config check` shows the same computation.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use crate::config::Config;

/// Memory mappings of one thread.
const MAPPINGS_PER_THREAD: u64 = 4;

/// Descriptors that are no connections: database, log, listener, configuration.
const OTHER_DESCRIPTORS: u64 = 64;

/// Threads that are neither connections nor writers, as they usually are: main, accept, timer, watch, log, signals; readers, mails, `ctl`, HTTP. All of these at their
/// most are some more, for which a fifth of each limit is left.
const OTHER_THREADS: u64 = 32;

/// Connections that a MiB of memory carries: an idle one takes about 40 KiB, its part of the kernel's memory included.
const CONNECTIONS_PER_MEBIBYTE: u64 = 16;

/// How many connections the machine carries at one time, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// The limits that could be read, the one that binds first; never empty.
    pub limits: Vec<Limit>,
    /// `max_connections`; 0 = as many as fit.
    asked: u64,
}

/// One limit, of the machine or of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What is limited, and how much of it connections get: "80 % of vm.max_map_count".
    pub name: &'static str,
    /// The limit as it is in force.
    pub value: u64,
    /// The connections that it allows, at least 1.
    pub connections: u64,
    /// The threads that it allows, if it is one on threads.
    pub threads: Option<u64>,
    /// What it would have to be for `max_connections`, if it allows fewer.
    pub needed: Option<u64>,
    /// How to raise it, to a NUMBER.
    pub remedy: &'static str,
}

/// What of a limit a connection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// A descriptor.
    Descriptor,
    /// A thread, which takes so many of what is limited.
    Thread(u64),
    /// Its part of a MiB of memory.
    Memory,
}

impl Takes {
    /// The connections that fit into 80 % of `value`, or into half of the memory, beside what else a server with so many writers has; at least 1.
    fn allowed(self, value: u64, writers: u64) -> u64 {
        let (most, others) = match self {
            Takes::Descriptor => (value / 5 * 4 + value % 5 * 4 / 5, OTHER_DESCRIPTORS),
            Takes::Thread(each) => (value / each * 4 / 5, writers + OTHER_THREADS),
            Takes::Memory => (value / 2 * CONNECTIONS_PER_MEBIBYTE, 0),
        };
        most.saturating_sub(others).max(1)
    }

    /// The least value that allows so many connections.
    fn needed(self, connections: u64, writers: u64) -> u64 {
        match self {
            Takes::Descriptor => ((connections + OTHER_DESCRIPTORS) * 5).div_ceil(4),
            Takes::Thread(each) => ((connections + writers + OTHER_THREADS) * 5).div_ceil(4) * each,
            Takes::Memory => connections.div_ceil(CONNECTIONS_PER_MEBIBYTE) * 2,
        }
    }
}

impl Capacity {
    /// For this process on this machine. Raises the process's descriptor limit to its hard limit, as the server does.
    pub fn compute(config: &Config) -> Capacity {
        let asked = config.max_connections as u64;
        let mut limits = machine_limits(config.max_writers as u64, asked);
        limits.extend(configured_limit(asked));
        Capacity::of(limits, asked)
    }

    fn of(mut limits: Vec<Limit>, asked: u64) -> Capacity {
        limits.sort_by_key(|limit| limit.connections);
        Capacity { limits, asked }
    }

    /// Connections at one time.
    pub fn connections(&self) -> usize {
        usize::try_from(self.limits[0].connections).unwrap_or(usize::MAX)
    }

    /// The limit that binds, in words: "80 % of vm.max_map_count = 65530".
    pub fn bound_by(&self) -> String {
        format!("{} = {}", self.limits[0].name, self.limits[0].value)
    }

    /// Threads that this process may have, by the lowest of the limits.
    pub fn threads(&self) -> Option<u64> {
        self.limits.iter().filter_map(|limit| limit.threads).min()
    }

    /// A line for each limit that allows fewer connections than `max_connections` asks for, with what raises it; the lowest first.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |limit: &Limit| {
            let needed = limit.needed?.to_string();
            let Limit { name, value, connections, remedy, .. } = limit;
            Some(format!(
                "max_connections = {} is more than {name} = {value} allows, which is {connections}; it needs {needed}: {}",
                self.asked,
                remedy.replace("NUMBER", &needed)
            ))
        };
        self.limits.iter().filter_map(warning).collect()
    }
}

/// `max_connections`, unless it is 0: as many as fit.
fn configured_limit(connections: u64) -> Option<Limit> {
    (connections > 0).then_some(Limit {
        name: "max_connections",
        value: connections,
        connections,
        threads: None,
        needed: None,
        remedy: "max_connections in the configuration; 0 = as many as the other limits allow",
    })
}

/// A limit of the machine, and whether it allows as many connections as are asked for.
fn machine_limit(
    name: &'static str,
    value: u64,
    takes: Takes,
    remedy: &'static str,
    (writers, asked): (u64, u64),
) -> Limit {
    let connections = takes.allowed(value, writers);
    let threads = match takes {
        Takes::Thread(each) => Some(value / each),
        Takes::Descriptor | Takes::Memory => None,
    };
    let needed = (connections < asked).then(|| takes.needed(asked, writers));
    Limit { name, value, connections, threads, needed, remedy }
}

/// The limits of this machine that can be read; the descriptor limit or the memory always can.
fn machine_limits(writers: u64, asked: u64) -> Vec<Limit> {
    let table = [
        (
            "80 % of the descriptor limit (ulimit -n, LimitNOFILE=)",
            raise_descriptors(),
            Takes::Descriptor,
            "LimitNOFILE=NUMBER in the service's unit; in a shell, ulimit -n NUMBER before the start",
        ),
        (
            "80 % of vm.max_map_count",
            number("/proc/sys/vm/max_map_count"),
            Takes::Thread(MAPPINGS_PER_THREAD),
            "sysctl vm.max_map_count=NUMBER, a connection needs 4; vm.max_map_count=NUMBER in /etc/sysctl.d/chatserver.conf keeps it",
        ),
        (
            "80 % of kernel.threads-max",
            number("/proc/sys/kernel/threads-max"),
            Takes::Thread(1),
            "sysctl kernel.threads-max=NUMBER; kernel.threads-max=NUMBER in /etc/sysctl.d/chatserver.conf keeps it",
        ),
        (
            "80 % of kernel.pid_max",
            number("/proc/sys/kernel/pid_max"),
            Takes::Thread(1),
            "sysctl kernel.pid_max=NUMBER; kernel.pid_max=NUMBER in /etc/sysctl.d/chatserver.conf keeps it",
        ),
        (
            "80 % of the user's process limit (ulimit -u, LimitNPROC=)",
            process_limit(),
            Takes::Thread(1),
            "LimitNPROC=NUMBER in the service's unit; in a shell, ulimit -u NUMBER before the start",
        ),
        (
            "80 % of the control group's pids.max (TasksMax=)",
            lowest_of_control_groups("pids", "pids.max", "pids.max"),
            Takes::Thread(1),
            "TasksMax=NUMBER in the service's unit",
        ),
        (
            "half of the memory in MiB (MemoryMax=)",
            memory_mebibytes(),
            Takes::Memory,
            "NUMBER MiB of memory, or MemoryMax=NUMBERM in the service's unit if that is what is set",
        ),
    ];
    let read = |(name, value, takes, remedy): (_, Option<u64>, _, _)| {
        value.map(|value| machine_limit(name, value, takes, remedy, (writers, asked)))
    };
    table.into_iter().filter_map(read).collect()
}

/// Processes and threads of this user. The kernel does not hold root to it.
fn process_limit() -> Option<u64> {
    (!getuid().is_root()).then(|| getrlimit(Resource::Nproc).current).flatten()
}

/// Raises RLIMIT_NOFILE to its hard limit and gives it; `None` = unlimited.
fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the lower limit in force, and that one is counted with.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current
}

/// The machine's memory, or what our control group may use of it.
fn memory_mebibytes() -> Option<u64> {
    let table = fs::read_to_string("/proc/meminfo").ok();
    let total = table.as_deref().and_then(|table| table.lines().find_map(|line| line.strip_prefix("MemTotal:")));
    let total = total.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let allowed = lowest_of_control_groups("memory", "memory.max", "memory.limit_in_bytes");
    total.map(|kibibytes| kibibytes >> 10).into_iter().chain(allowed.map(|bytes| bytes >> 20)).min()
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The lowest limit of `controller` from our control group up to the root; the file's name in version 2, and in version 1.
fn lowest_of_control_groups(controller: &str, file: &str, file_v1: &str) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut lowest: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, mut path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup".to_owned(), file),
            list if list.split(',').any(|one| one == controller) => (format!("/sys/fs/cgroup/{controller}"), file_v1),
            _ => continue,
        };
        loop {
            let limit = number(&format!("{root}{path}/{file}"));
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

    fn limit(name: &'static str, value: u64, connections: u64) -> Limit {
        Limit { name, value, connections, threads: None, needed: None, remedy: "" }
    }

    #[test]
    fn the_lowest_limit_binds_and_is_named() {
        let limits = || vec![limit("80 % of a", 100, 80), limit("80 % of b", 50, 40), limit("80 % of c", 1000, 800)];
        let with = |asked| Capacity::of(limits().into_iter().chain(configured_limit(asked)).collect(), asked);
        assert_eq!((with(0).connections(), with(0).bound_by()), (40, "80 % of b = 50".into()));
        assert_eq!((with(10).connections(), with(10).bound_by()), (10, "max_connections = 10".into()));
        assert_eq!(with(60).connections(), 40);
        let order: Vec<u64> = with(60).limits.iter().map(|limit| limit.connections).collect();
        assert_eq!(order, [40, 60, 80, 800]);
    }

    #[test]
    fn this_machine_carries_some_and_each_limit_can_be_raised() {
        let limits = machine_limits(10, 0);
        assert!(limits.len() >= 5, "{limits:?}");
        for limit in &limits {
            assert!(limit.remedy.contains("NUMBER") && limit.needed.is_none(), "{limit:?}");
            let cost = if limit.name.contains("MiB") { CONNECTIONS_PER_MEBIBYTE } else { 1 };
            assert!(limit.connections == 1 || limit.connections * 5 <= limit.value * cost * 4, "{limit:?}");
        }
    }

    #[test]
    fn what_is_needed_is_the_least_that_allows_it() {
        for takes in [Takes::Descriptor, Takes::Thread(1), Takes::Thread(MAPPINGS_PER_THREAD), Takes::Memory] {
            for connections in [2, 3, 99, 100, 101, 12_817, 50_000, 1_000_000] {
                let needed = takes.needed(connections, 256);
                assert!(takes.allowed(needed, 256) >= connections, "{takes:?} {connections}");
                assert!(takes.allowed(needed - 1, 256) < connections, "{takes:?} {connections}");
            }
            assert_eq!((takes.allowed(0, 256), takes.allowed(1, 256)), (1, 1), "{takes:?}");
        }
        assert!(Takes::Descriptor.allowed(u64::MAX, 256) > 1 << 60);
    }

    #[test]
    fn each_limit_that_is_too_low_is_told_with_its_value_and_what_raises_it() {
        let with = |asked| {
            let maps = machine_limit("80 % of maps", 65_530, Takes::Thread(4), "sysctl maps=NUMBER", (256, asked));
            let files = machine_limit("80 % of files", 20_000, Takes::Descriptor, "ulimit -n NUMBER", (256, asked));
            Capacity::of([maps, files].into_iter().chain(configured_limit(asked)).collect(), asked).warnings()
        };
        assert!(with(0).is_empty() && with(12_817).is_empty());
        let maps = "max_connections = 12818 is more than 80 % of maps = 65530 allows, which is 12817; it needs 65532: sysctl maps=65532";
        assert_eq!(with(12_818), [maps]);
        let both = with(50_000);
        assert!(
            both[0].contains("maps = 65530 allows, which is 12817; it needs 251440: sysctl maps=251440"),
            "{both:?}"
        );
        assert!(both[1].contains("files = 20000 allows, which is 15936; it needs 62580: ulimit -n 62580"), "{both:?}");
        assert_eq!(both.len(), 2);
    }
}
