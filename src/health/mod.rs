//! What the server knows of itself: what it has counted, how the machine stands, what of it is bad news.
//!
//! * `counters` — the table of everything that is counted, in both languages.
//! * `saves` — how the saves go; `status` — one reading of counts and gauges; `machine` — memory, threads, descriptors, load.
//! * `history` — the last hours, for the chart of a report; `findings` — what of a reading needs a hand, and which.
//! * `alarm` — when a finding is worth an alert, and when that is over.
//!
//! Invariant: this room asks the kernel about this process and nobody else; it waits for nothing.

mod alarm;
pub mod counters;
mod findings;
mod history;
mod machine;
mod saves;
mod status;

pub use alarm::{Alarm, News};
pub use counters::{Counter, Counters, Counts, Gauge};
pub use findings::{Finding, findings, urgent};
pub use history::{History, Sample};
pub use machine::Machine;
pub use saves::Saves;
pub use status::{BacklogStatus, ConnectionStatus, DatabaseStatus, MemoryStatus, Status, UserStatus};

/// A number of bytes as people read it: "17.2 MiB".
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    let amount = bytes as f64 / (1u64 << (10 * power)) as f64;
    let digits = usize::from(power > 0 && amount < 100.0 && amount.fract() >= 0.05);
    format!("{amount:.digits$} {}", UNITS[power as usize])
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_told_as_people_read_them() {
        let told = [0, 1023, 1024, 18_000_000, 256 << 20, (10 << 30) + (1 << 29), u64::MAX].map(size);
        assert_eq!(told, ["0 B", "1023 B", "1 KiB", "17.2 MiB", "256 MiB", "10.5 GiB", "16777216 TiB"]);
    }
}
