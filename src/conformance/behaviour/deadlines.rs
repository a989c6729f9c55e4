//! The server's own timeouts: strangers who stay strangers, and users who fall silent.

use std::thread;
use std::time::{Duration, Instant};

use super::Promise;
use crate::conformance::ground::Ground;
use crate::conformance::wire::{Fault, Got};

pub const PROMISES: &[Promise] = &[
    Promise(
        "a stranger who logs in after half a second is let in",
        "The time for a login is limited, but not so short.",
        late_login,
    ),
    Promise(
        "a stranger whose bytes dribble in is cut in time",
        "The time for a login is counted from the connection's beginning: bytes do not extend it (slow loris).",
        dribbling_login,
    ),
    Promise(
        "a user whose packet dribbles in is cut in time",
        "A packet that is begun has to be completed in time; single bytes do not count as life.",
        dribbling_packet,
    ),
    Promise(
        "a silent user is cut in time, and a text for it waits from then on",
        "A client that just disappeared is found by the read timeout.",
        silent_user,
    ),
];

pub const PROMISES_OF_LEVEL_2: &[Promise] = &[Promise(
    "pings keep a user who says nothing else, for longer than read_timeout_secs",
    "Any packet restarts the read timeout.",
    pings_keep,
)];

/// Between two single bytes.
const DRIBBLE: Duration = Duration::from_millis(200);

fn late_login(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.connect("me")?;
    if me.next(Duration::from_millis(500))? == Got::Closed {
        return Err("a stranger was cut within half a second".into());
    }
    ground.log_in(&mut me, None).map(drop)
}

/// One byte after the other of a packet that has many, until the server closes; all but the last, for the whole packet would be a bad one.
fn dribble(line: &mut crate::conformance::wire::Line, longest: Duration) -> Result<(), Fault> {
    let deadline = Instant::now() + longest;
    // Announces 1,000 bytes.
    let mut bytes = [0, 0, 3, 0xe8, 0, 0, 0, 1].into_iter().chain([7; 991]);
    while Instant::now() < deadline {
        if let Some(byte) = bytes.next() {
            line.write(&[byte]);
        }
        match line.next(DRIBBLE)? {
            Got::Closed => return Ok(()),
            Got::Silence => {}
            Got::Packet(packet) if packet.kind == 103 => {}
            Got::Packet(packet) => return Err(format!("a packet of type {} came", packet.kind).into()),
        }
    }
    Err(format!("a byte every {DRIBBLE:?} has kept the connection open for {longest:?}").into())
}

fn dribbling_login(ground: &Ground<'_>) -> Result<(), Fault> {
    dribble(&mut ground.connect("me")?, ground.longest_deadline())
}

fn dribbling_packet(ground: &Ground<'_>) -> Result<(), Fault> {
    dribble(&mut ground.login("me")?, ground.longest_deadline())
}

fn silent_user(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    me.closed(ground.longest_deadline())?;
    let mut you = ground.login("you")?;
    ground.say(&mut you, &me.name, "are you there?");
    ground.barrier(&mut you)?;
    drop(me);
    ground.hear_exactly(&mut ground.login("me")?, &["are you there?"])
}

fn pings_keep(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.connect("me")?;
    let answer = ground.log_in(&mut me, Some(2))?;
    let seconds = answer.number(5).ok_or("the grant has no read_timeout_secs")?;
    let read_timeout = Duration::from_secs(seconds);
    // As long as there is time for.
    let end = Instant::now() + (read_timeout + read_timeout / 4).min(ground.longest_deadline());
    while Instant::now() < end {
        thread::sleep(read_timeout / 4);
        ground.ping_2(&mut me)?;
    }
    Ok(())
}
