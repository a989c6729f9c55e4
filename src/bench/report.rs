//! What a run has shown, as numbers with their units in their names.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::process::Usage;

/// How long things took, in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50: f64,
    /// Of ten, nine.
    pub p90: f64,
    /// Of a hundred, all but one.
    pub p99: f64,
    /// Of a thousand, all but one.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Of a histogram in nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() as f64 / 1e3 }
    }
}

/// One in so many took longer than so many µs, from half of them to one of all.
pub fn distribution(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let all = histogram.len() as f64;
    let steps = histogram.iter_quantiles(4).map(|step| {
        let rare = 1.0 / (1.0 - step.quantile()).max(1.0 / all);
        (rare, step.value_iterated_to() as f64 / 1e3)
    });
    steps.collect()
}

/// What the server's process used for each message, login or whatever was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Processor time in its own code, µs.
    pub user_us: f64,
    /// Processor time in the kernel, µs.
    pub system_us: f64,
    /// Both, µs.
    pub cpu_us: f64,
    /// Context switches.
    pub switches: f64,
}

impl Cost {
    /// Of what was used for `count` of them.
    pub fn of(usage: &Usage, count: u64) -> Cost {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count.max(1) as f64;
        Cost {
            user_us: each(usage.user),
            system_us: each(usage.system),
            cpu_us: each(usage.cpu()),
            switches: usage.switches as f64 / count.max(1) as f64,
        }
    }
}

/// One workload against one server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was measured: `chatserver`, `floor`, …
    pub target: String,
    /// The workload.
    pub workload: String,
    /// As it was set.
    pub pairs: u32,
    /// As it was set.
    pub window: u32,
    /// As it was set.
    pub text_bytes: usize,
    /// Users who were there and said nothing.
    pub idle_users: u32,
    /// What is counted: `messages` or `logins`.
    pub unit: String,
    /// How long it was measured, seconds.
    pub seconds: f64,
    /// So many of them.
    pub count: u64,
    /// In a second.
    pub per_second: f64,
    /// How long each took.
    pub latency_us: Option<Latency>,
    /// What each cost the server, if its process can be seen.
    pub cost: Option<Cost>,
    /// The server's resident memory at the end, KiB.
    pub resident_kib: Option<u64>,
    /// Messages that were sent and never came.
    pub lost: u64,
    /// Messages that came again.
    pub duplicated: u64,
    /// Messages that others, sent later, overtook.
    pub reordered: u64,
    /// Texts that nobody wrote like that, or not to this user.
    pub strange: u64,
    /// What only this workload has to say; the names have units.
    pub more: BTreeMap<String, f64>,
    /// How the latencies are distributed: one in so many took longer than so many µs.
    pub distribution_us: Vec<(f64, f64)>,
    /// Counted in each tenth of a second.
    pub series: Vec<u64>,
}

impl Report {
    /// Every message came once and in its place.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.strange == 0
    }

    /// Adds what only this workload has to say; `name` ends in the unit.
    pub fn note(&mut self, name: &str, value: f64) {
        self.more.insert(name.into(), value);
    }

    /// The head of [`Report::csv`].
    pub const CSV_HEAD: &str = "target,workload,pairs,window,text_bytes,idle_users,unit,seconds,count,per_second,p50_us,p90_us,p99_us,\
        p999_us,max_us,user_us,system_us,cpu_us,switches,resident_kib,lost,duplicated,reordered,strange,more";

    /// One line; what is not known is empty.
    pub fn csv(&self) -> String {
        let of = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
        let (latency, cost) = (self.latency_us, self.cost);
        let mut fields = vec![self.target.clone(), self.workload.clone()];
        fields.extend([self.pairs, self.window, self.text_bytes as u32, self.idle_users].map(|n| n.to_string()));
        fields.extend([self.unit.clone(), format!("{:.3}", self.seconds), self.count.to_string()]);
        fields.push(of(Some(self.per_second)));
        fields.extend([
            of(latency.map(|latency| latency.p50)),
            of(latency.map(|latency| latency.p90)),
            of(latency.map(|latency| latency.p99)),
            of(latency.map(|latency| latency.p999)),
            of(latency.map(|latency| latency.max)),
            of(cost.map(|cost| cost.user_us)),
            of(cost.map(|cost| cost.system_us)),
            of(cost.map(|cost| cost.cpu_us)),
            of(cost.map(|cost| cost.switches)),
            self.resident_kib.map_or(String::new(), |kib| kib.to_string()),
        ]);
        fields.extend([self.lost, self.duplicated, self.reordered, self.strange].map(|n| n.to_string()));
        let more: Vec<String> = self.more.iter().map(|(name, value)| format!("{name}={value:.3}")).collect();
        fields.push(more.join(" "));
        fields.join(",")
    }

    /// For people: some lines.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{} {}: {} {} in {:.1} s, {:.0} a second\n",
            self.target, self.workload, self.count, self.unit, self.seconds, self.per_second
        );
        if let Some(latency) = self.latency_us {
            let [p50, p90, p99, p999, max] =
                [latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map(|us| format!("{us:.0}"));
            out += &format!("  latency     p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max} µs\n");
        }
        if let Some(cost) = self.cost {
            let one = self.unit.trim_end_matches('s');
            out += &format!(
                "  server      {:.2} µs of CPU a {one} ({:.2} user, {:.2} system), {:.2} context switches\n",
                cost.cpu_us, cost.user_us, cost.system_us, cost.switches
            );
        }
        if let Some(kib) = self.resident_kib {
            out += &format!("  memory      {:.1} MiB resident\n", kib as f64 / 1024.0);
        }
        out += &match self.is_clean() {
            true => "  checked     none lost, none twice, all in order\n".into(),
            false => format!(
                "  WRONG       {} lost, {} twice, {} out of order, {} that nobody wrote\n",
                self.lost, self.duplicated, self.reordered, self.strange
            ),
        };
        for (name, value) in &self.more {
            out += &format!("  {name:<28} {value:.2}\n");
        }
        out
    }
}
