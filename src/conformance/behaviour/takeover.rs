//! One connection per user: the newest.

use std::collections::BTreeSet;

use super::{Promise, numbered};
use crate::conformance::ground::Ground;
use crate::conformance::wire::{Fault, Got, Line};

pub const PROMISES: &[Promise] = &[
    Promise(
        "a second login closes the first connection",
        "Two connections of one user would each get half of the texts.",
        first_is_closed,
    ),
    Promise(
        "texts reach the connection that has taken over",
        "The table of users must name the newest connection.",
        newest_hears,
    ),
    Promise(
        "the close of the replaced connection does not make the new one offline",
        "The end of a connection must remove its own entry only: compare before removing.",
        old_close_is_harmless,
    ),
    Promise(
        "a text that the replaced connection sends afterwards is not taken",
        "After the takeover nothing of the loser is executed.",
        loser_is_not_heard,
    ),
    Promise(
        "ten takeovers in a row: the newest hears, the others are closed",
        "Each takeover is a race between an end and a beginning.",
        ten_in_a_row,
    ),
    Promise(
        "simultaneous logins of one name leave exactly one connection",
        "The check and the entry in the table of users must be one step.",
        simultaneous,
    ),
    Promise(
        "what was waiting comes again to the connection that takes over, if the first had said nothing since",
        "The replaced client may not have read it.",
        backlog_is_not_forgotten,
    ),
    Promise(
        "texts sent during takeovers arrive, in order, once each at least",
        "Between two connections a user is offline for a moment: its texts wait.",
        texts_during_takeovers,
    ),
];

/// Whatever a replaced connection was still sent, and then the close.
fn drained(line: &mut Line, ground: &Ground<'_>) -> Result<usize, Fault> {
    for count in 0.. {
        match line.next(ground.patience())? {
            Got::Closed => return Ok(count),
            Got::Packet(_) => {}
            Got::Silence => break,
        }
    }
    Err(format!("the replaced connection was still open after {:?}", ground.patience()).into())
}

fn first_is_closed(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut old = ground.login("me")?;
    let mut new = ground.login("me")?;
    old.closed(ground.patience())?;
    ground.hear_nothing(&mut new)
}

fn newest_hears(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut you, mut old) = (ground.login("you")?, ground.login("me")?);
    let mut new = ground.login("me")?;
    ground.say_all(&mut you, &new.name, &numbered("text", 5));
    ground.hear_exactly(&mut new, &numbered("text", 5))?;
    old.closed(ground.patience())
}

fn old_close_is_harmless(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut you, mut old) = (ground.login("you")?, ground.login("me")?);
    let mut new = ground.login("me")?;
    old.closed(ground.patience())?;
    drop(old);
    ground.barrier(&mut you)?;
    ground.say(&mut you, &new.name, "still here?");
    ground.hear_exactly(&mut new, &["still here?"])
}

fn loser_is_not_heard(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut you, mut old) = (ground.login("you")?, ground.login("me")?);
    let mut new = ground.login("me")?;
    ground.say(&mut old, &you.name, "from the replaced one");
    drained(&mut old, ground)?;
    ground.say(&mut new, &you.name, "from the new one");
    ground.hear_exactly(&mut you, &["from the new one"])
}

fn ten_in_a_row(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut you = ground.login("you")?;
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..10 {
        lines.push(ground.login("me")?);
    }
    let mut newest = lines.pop().ok_or("no connection")?;
    for old in &mut lines {
        old.closed(ground.patience())?;
    }
    drop(lines);
    ground.say(&mut you, &newest.name, "hello");
    ground.hear_exactly(&mut newest, &["hello"])
}

fn simultaneous(ground: &Ground<'_>) -> Result<(), Fault> {
    for _ in 0..10 {
        let mut you = ground.login("you")?;
        let mut lines = Vec::new();
        for _ in 0..4 {
            lines.push(ground.connect("me")?);
        }
        let name = ground.name("me");
        for line in &mut lines {
            line.write(&ground.login_packet(&name));
        }
        // Each is answered, or closed before it came to that. Then all four are executed.
        let mut candidates = Vec::new();
        for mut line in lines {
            match line.next(ground.patience())? {
                Got::Packet(_) => candidates.push(line),
                Got::Closed => {}
                Got::Silence => return Err("one of 4 logins was neither answered nor closed".into()),
            }
        }
        ground.say(&mut you, &name, "who is there?");
        ground.barrier(&mut you)?;
        let mut open = 0;
        for line in &mut candidates {
            open += usize::from(stays(line, ground)?);
        }
        if open != 1 {
            return Err(format!("{open} of 4 connections stayed").into());
        }
    }
    Ok(())
}

/// Whether a connection is open, and a text reaches it.
fn stays(line: &mut Line, ground: &Ground<'_>) -> Result<bool, Fault> {
    let name = line.name.clone();
    ground.say(line, &name, "to myself");
    loop {
        match line.next(ground.patience())? {
            Got::Closed => return Ok(false),
            Got::Packet(packet) if packet.text(3).as_deref() == Some("to myself") => return Ok(true),
            Got::Packet(_) => {}
            Got::Silence => return Err("a connection was left that is open and deaf".into()),
        }
    }
}

fn backlog_is_not_forgotten(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut you = ground.login("you")?;
    let texts = numbered("text", 20);
    ground.say_all(&mut you, &ground.name("me"), &texts);
    ground.barrier(&mut you)?;
    let mut old = ground.login("me")?;
    ground.hear(&mut old)?;
    let mut new = ground.login("me")?;
    ground.hear_exactly(&mut new, &texts)?;
    drained(&mut old, ground)?;
    Ok(())
}

fn texts_during_takeovers(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut you = ground.login("you")?;
    let mut line = ground.login("me")?;
    let name = line.name.clone();
    let mut sent = 0;
    let mut say = |you: &mut Line| {
        let texts = [sent + 1, sent + 2].map(|number: u32| number.to_string());
        sent += 2;
        ground.say_all(you, &name, &texts);
        sent
    };
    let mut heard = BTreeSet::new();
    for _ in 0..10 {
        say(&mut you);
        let mut new = ground.connect("me")?;
        new.write(&ground.login_packet(&name));
        say(&mut you);
        new.packet_of(2, "the answer to a login", ground.patience())?;
        let last = say(&mut you);
        // What the old connection was still given, it has.
        growing(&mut line, ground, None, &mut heard)?;
        growing(&mut new, ground, Some(last), &mut heard)?;
        line = new;
    }
    match (1..=20 * 3).find(|number| !heard.contains(number)) {
        Some(lost) => Err(format!("text {lost} never came").into()),
        None => ground.hear_nothing(&mut line),
    }
}

/// Reads numbers, which grow on one connection, up to `last`, or to the close if there is none.
fn growing(line: &mut Line, ground: &Ground<'_>, last: Option<u32>, heard: &mut BTreeSet<u32>) -> Result<(), Fault> {
    let mut before = 0;
    while last != Some(before) {
        match line.next(ground.patience())? {
            Got::Closed if last.is_none() => return Ok(()),
            Got::Packet(packet) if packet.kind == 5 => {
                let text = packet.text(3).unwrap_or_default();
                let number: u32 = text.parse().map_err(|_| format!("{text:?} came, which nobody sent"))?;
                if number <= before {
                    return Err(format!("text {number} came after text {before}").into());
                }
                heard.insert(number);
                before = number;
            }
            other => return Err(format!("{other:?} came where texts or a close should").into()),
        }
    }
    Ok(())
}
