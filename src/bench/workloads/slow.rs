//! One recipient that never reads, beside a pair that does: what a stranger's socket costs the others.

use std::time::Duration;

use super::closed;
use super::open::Pacer;
use crate::bench::Failure;
use crate::bench::load::{Load, Measured};
use crate::bench::report::{Latency, Report};

/// What waits unsent in the load generator while the server lets the sender wait, bytes.
const UNSENT_BYTES: usize = 256 * 1024;

/// Pairs in ping-pong: alone, beside a stream to somebody who reads it, and beside the same stream to somebody who does not; the last is the
/// report's latency and cost. A third of the time each.
pub fn slow(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let pairs = closed::pairs(load)?;
    let first = load.crowd.len() as u32;
    load.log_in(3)?;
    let (to_reader, to_deaf) = (load.flow(first, first + 1), load.flow(first, first + 2));
    // Its latency is its own: what is measured is the pairs'.
    load.flows[to_reader as usize].is_aside = true;
    let alone = beside(load, &pairs, None)?;
    let beside_reader = beside(load, &pairs, Some(to_reader))?;
    load.drain(&[to_reader])?;
    load.crowd.stop_reading(first + 2);
    let beside_deaf = beside(load, &pairs, Some(to_deaf))?;
    let waiting = load.flows[to_deaf as usize].missing();
    let p99 = [&alone, &beside_reader, &beside_deaf].map(|measured| Latency::of(&measured.histogram).p99);
    // What nobody reads is not lost.
    load.flows[to_deaf as usize] = crate::bench::flow::Flow::new(first, first + 2);
    let mut report = load.report("messages", beside_deaf);
    report.note("p99_alone_us", p99[0]);
    report.note("p99_beside_reader_us", p99[1]);
    report.note("p99_ratio", p99[2] / p99[1]);
    report.note("p99_ratio_to_alone", p99[2] / p99[0]);
    report.note("sent_to_the_slow_one", waiting as f64);
    Ok(report)
}

/// The pairs' ping-pong, beside a stream at the given rate.
fn beside(load: &mut Load<'_, '_>, pairs: &[u32], stream: Option<u32>) -> Result<Measured, Failure> {
    let first = pairs[0];
    let now = load.crowd.now();
    pairs.iter().step_by(2).for_each(|flow| load.send(*flow, now));
    let mut pacer = Pacer::new(load.settings.rate, now);
    let mut due = Vec::new();
    let measured = load.measure(load.settings.time / 3, false, |load, now| {
        due.clear();
        due.extend(load.came().filter(|flow| Some(*flow) != stream));
        for flow in &due {
            load.send(first + ((flow - first) ^ 1), now);
        }
        let Some(stream) = stream else { return Ok(Duration::MAX) };
        let sender = load.flows[stream as usize].from;
        while load.crowd.unsent_bytes(sender) < UNSENT_BYTES
            && let Some(at) = pacer.due(now)
        {
            load.send(stream, at);
        }
        Ok(pacer.next_at().max(now + Duration::from_millis(1)))
    })?;
    load.drain(pairs)?;
    Ok(measured)
}
