//! Users who are there and say nothing: how fast they come, what each takes, what they cost while nothing happens, and whether a pair that talks
//! notices them.

use std::time::{Duration, Instant};

use super::closed::{self, Next};
use crate::bench::Failure;
use crate::bench::load::Load;
use crate::bench::report::{Latency, Report};

/// One pair in ping-pong alone, then with the idle users present; the latter is the report's latency and cost.
pub fn idle(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let users = load.settings.users;
    let pairs = closed::pairs(load)?;
    let time = load.settings.time;
    let alone = closed::play(load, &pairs, 1, time, Next::Back)?;
    let before = load.usage();

    let began = Instant::now();
    load.log_in(users)?;
    let took = began.elapsed();
    let (after, rested) = (load.usage(), rest(load, time)?);

    let beside = closed::play(load, &pairs, 1, time, Next::Back)?;
    let [p99_alone, p99_beside] = [&alone, &beside].map(|measured| Latency::of(&measured.histogram).p99);
    let mut report = load.report("messages", beside);
    report.note("logins_per_second", f64::from(users) / took.as_secs_f64());
    report.note("p99_alone_us", p99_alone);
    report.note("p99_ratio", p99_beside / p99_alone);
    if let Some((before, after)) = before.zip(after) {
        let grown = after.resident_bytes.saturating_sub(before.resident_bytes) as f64;
        report.note("kib_per_user", grown / 1024.0 / f64::from(users.max(1)));
    }
    if let Some(rested) = rested {
        report.note("idle_cpu_ms_per_second", rested.as_secs_f64() * 1e3 / time.as_secs_f64());
    }
    Ok(report)
}

/// Lets nothing happen for a while; gives the processor time that the server spent on it.
fn rest(load: &mut Load<'_, '_>, time: Duration) -> Result<Option<Duration>, Failure> {
    // What the logins have left to do is not idleness.
    let settled = load.crowd.now() + load.settings.warm_up.max(Duration::from_secs(2));
    while load.crowd.now() < settled {
        load.turn(Duration::from_millis(100))?;
    }
    let (before, until) = (load.usage(), load.crowd.now() + time);
    while load.crowd.now() < until {
        load.turn(Duration::from_millis(100))?;
        load.progress(1.0 - (until.saturating_sub(load.crowd.now())).as_secs_f64() / time.as_secs_f64(), "resting");
    }
    Ok(load.usage().zip(before).map(|(after, before)| after.since(&before).cpu()))
}
