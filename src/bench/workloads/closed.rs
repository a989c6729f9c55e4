//! So many messages on their way and no more: when one arrives the next is sent. `pingpong`, `stream`, `fanin`, `fanout`.

use std::time::Duration;

use crate::bench::Failure;
use crate::bench::load::{Load, Measured};
use crate::bench::report::Report;

/// Pairs, one message in flight: who gets it sends the next one back.
pub fn pingpong(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let pairs = pairs(load)?;
    let measured = play(load, &pairs, 1, load.settings.time, Next::Back)?;
    Ok(load.report("messages", measured))
}

/// Pairs, a window in flight in one direction.
pub fn stream(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let pairs = pairs(load)?;
    let there: Vec<u32> = pairs.into_iter().step_by(2).collect();
    go(load, &there)
}

/// Many write to one.
pub fn fanin(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let senders = load.settings.pairs;
    let one = load.crowd.len() as u32;
    load.log_in(senders + 1)?;
    let flows: Vec<u32> = (1..=senders).map(|sender| load.flow(one + sender, one)).collect();
    go(load, &flows)
}

/// One writes to many.
pub fn fanout(load: &mut Load<'_, '_>) -> Result<Report, Failure> {
    let recipients = load.settings.pairs;
    let one = load.crowd.len() as u32;
    load.log_in(recipients + 1)?;
    let flows: Vec<u32> = (1..=recipients).map(|recipient| load.flow(one, one + recipient)).collect();
    go(load, &flows)
}

fn go(load: &mut Load<'_, '_>, flows: &[u32]) -> Result<Report, Failure> {
    let measured = play(load, flows, load.settings.window, load.settings.time, Next::Same)?;
    Ok(load.report("messages", measured))
}

/// Lets the users of `pairs` in and gives their flows, there and back by turns: of pair n they have the numbers 2n and 2n + 1.
pub fn pairs(load: &mut Load<'_, '_>) -> Result<Vec<u32>, Failure> {
    let first = load.crowd.len() as u32;
    load.log_in(2 * load.settings.pairs)?;
    Ok((0..load.settings.pairs)
        .flat_map(|pair| [(first + 2 * pair, first + 2 * pair + 1), (first + 2 * pair + 1, first + 2 * pair)])
        .map(|(from, to)| load.flow(from, to))
        .collect())
}

/// What an arrival makes somebody send.
#[derive(Clone, Copy, PartialEq)]
pub enum Next {
    /// The same user the next one.
    Same,
    /// The recipient one back. The flows are there and back by turns, and only those there begin.
    Back,
}

/// Keeps `window` messages of each flow on their way for `time`, and then waits for the last of them.
pub fn play(
    load: &mut Load<'_, '_>,
    flows: &[u32],
    window: u32,
    time: Duration,
    next: Next,
) -> Result<Measured, Failure> {
    let now = load.crowd.now();
    for flow in flows.iter().step_by(if next == Next::Back { 2 } else { 1 }) {
        (0..window).for_each(|_| load.send(*flow, now));
    }
    let first = flows.first().copied().unwrap_or(0);
    let mut due = Vec::new();
    let measured = load.measure(time, false, |load, now| {
        due.clear();
        due.extend(load.came());
        for flow in &due {
            let answer = if next == Next::Back { first + ((flow - first) ^ 1) } else { *flow };
            load.send(answer, now);
        }
        Ok(Duration::MAX)
    })?;
    load.drain(flows)?;
    Ok(measured)
}
