//! Logins, and texts between people who are there.

use super::{Promise, numbered};
use crate::conformance::bytes::TIME;
use crate::conformance::ground::Ground;
use crate::conformance::wire::{Fault, Got};
use crate::protocol::{Chat, Message};

pub const PROMISES: &[Promise] = &[
    Promise(
        "a login is answered with a type 2 that has the fields 1 to 3 alone",
        "A client that did not ask for level 2 never sees a field of it; old parsers may choke on one.",
        login_answer,
    ),
    Promise(
        "a login that asks for level 7 is granted 2 at most",
        "A server grants what it speaks, not what it is asked for.",
        login_of_the_future,
    ),
    Promise(
        "a text reaches its recipient with its sender, text and time unchanged",
        "The server relays; it does not edit.",
        text_arrives,
    ),
    Promise(
        "a text is passed on byte for byte",
        "All clients share one key and one IV, so the forwarded packet can be the received one.",
        text_is_the_same,
    ),
    Promise(
        "a text to oneself comes back",
        "Writing to oneself is legal, and the shortest test of a server.",
        text_to_oneself,
    ),
    Promise(
        "a sender at level 1 is told nothing",
        "Level 1 has no receipts: an answer would be taken for something else.",
        sender_hears_nothing,
    ),
    Promise("a ping at level 1 is not answered", "Old clients do not expect an answer to a ping.", ping_hears_nothing),
    Promise(
        "a text of 60,000 bytes arrives",
        "Read until the packet is complete: one read brings a part of it. PROTOCOL.md: max_text_bytes is 60,000.",
        long_text,
    ),
    Promise(
        "a packet of 2,152 bytes arrives",
        "Existing clients send such packets; a buffer of 1,024 or 2,048 bytes cuts them.",
        packet_of_2014,
    ),
    Promise(
        "a thousand texts in one write arrive in order",
        "Ten packets can come with one read. A thread per packet loses the order.",
        thousand_in_order,
    ),
    Promise(
        "two senders at once: each one's texts stay in order, none is lost or mixed",
        "Two threads that write to one socket without a lock mix their packets.",
        two_senders,
    ),
    Promise(
        "two users who write to each other at once lose nothing",
        "A thread that waits for its peer's lock while holding its own stands still.",
        both_ways,
    ),
    Promise(
        "é written as one code point and as two is the same user",
        "Names are compared as normalised (NFC): otherwise two people look the same to everybody.",
        same_name,
    ),
    Promise("upper and lower case are different users", "Only normalisation makes names equal.", case_matters),
    Promise(
        "a user whose connection a fault has ended is offline, and its next text waits",
        "A connection that was given up must leave the table of users, or texts for it are lost.",
        fault_makes_offline,
    ),
    Promise(
        "a recipient that vanishes does not end its sender's connection",
        "Writing to a dead socket fails; that is the recipient's affair, not the sender's.",
        recipient_vanishes,
    ),
    Promise(
        "a recipient that does not read holds up nobody else, and gets everything later",
        "A write that waits for one slow socket must not happen on the sender's thread.",
        slow_reader,
    ),
    Promise(
        "twenty strangers with garbage disturb nobody",
        "A panic or a leaked lock in one connection must not reach another.",
        garbage_disturbs_nobody,
    ),
    Promise(
        "bytes left over from one connection do not reach the next",
        "A buffer that is used again must be empty first.",
        no_leftovers,
    ),
];

fn login_answer(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.connect("me")?;
    let answer = ground.log_in(&mut me, None)?;
    let mut numbers = answer.numbers();
    numbers.sort_unstable();
    if numbers == [1, 2, 3] { Ok(()) } else { Err(format!("the answer has the fields {numbers:?}").into()) }
}

fn login_of_the_future(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.connect("me")?;
    match ground.log_in(&mut me, Some(7))?.number(4) {
        None | Some(1 | 2) => Ok(()),
        Some(level) => Err(format!("level {level} was granted").into()),
    }
}

fn text_arrives(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    let (from, to) = (me.name.clone(), you.name.clone());
    for (text, time) in [("hello, 世界 🌍", 1), ("", 0), ("a\0b\r\n", i64::MAX), ("past", i64::MIN)] {
        me.send(&Message::Chat(Chat { from: &from, to: &to, text, time, ..Chat::default() }));
        let packet = you.packet_of(5, "a text", ground.patience())?;
        let got = (packet.text(1), packet.text(2), packet.text(3), packet.number(4));
        if got != (Some(from.clone()), Some(to.clone()), Some(text.to_owned()), Some(time as u64)) {
            return Err(format!("{text:?} of the time {time} arrived as {got:?}").into());
        }
    }
    Ok(())
}

fn text_is_the_same(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    ground.say(&mut me, &you.name, "the same");
    let packet = you.packet_of(5, "a text", ground.patience())?;
    let sent = ground
        .transcript()
        .borrow()
        .iter()
        .rev()
        .find(|said| said.who == "me" && said.is_sent)
        .map(|said| said.bytes.clone());
    let sent = sent.unwrap_or_default();
    if sent.ends_with(&packet.bytes) {
        Ok(())
    } else {
        Err("the packet that arrived is not the one that was sent".into())
    }
}

fn text_to_oneself(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    ground.hear_nothing(&mut me)
}

fn sender_hears_nothing(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    ground.say(&mut me, &you.name, "hello");
    ground.hear_exactly(&mut you, &["hello"])?;
    ground.say(&mut me, &ground.name("absent"), "hello");
    ground.hear_nothing(&mut me)
}

fn ping_hears_nothing(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    me.send(&Message::ClientPing { ping: true, time: TIME });
    ground.hear_nothing(&mut me)
}

fn long_text(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    let text = "x".repeat(60_000);
    ground.say(&mut me, &you.name, &text);
    let heard = ground.hear(&mut you)?;
    if heard == text {
        Ok(())
    } else {
        Err(format!("a text of {} bytes arrived, and not the one that was sent", heard.len()).into())
    }
}

fn packet_of_2014(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    // The fields around the text: three keys, the text's length in two bytes, the names with theirs, and the time.
    let around = 1 + 1 + me.name.len() + 1 + 1 + you.name.len() + 1 + 2 + 2;
    let text = "y".repeat(2_152 - 8 - 1 - around);
    ground.say(&mut me, &you.name, &text);
    ground.hear_exactly(&mut you, &[text])
}

fn thousand_in_order(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    let texts = numbered("text", 1_000);
    ground.say_all(&mut me, &you.name, &texts);
    ground.hear_exactly(&mut you, &texts)
}

fn two_senders(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut other) = (ground.login("me")?, ground.login("other")?);
    let mut you = ground.login("you")?;
    let (mine, others) = (numbered("mine", 300), numbered("other", 300));
    for (mine, others) in mine.chunks(10).zip(others.chunks(10)) {
        ground.say_all(&mut me, &you.name, mine);
        ground.say_all(&mut other, &you.name, others);
    }
    let (mut mine, mut others) = (mine.into_iter(), others.into_iter());
    for _ in 0..600 {
        let text = ground.hear(&mut you)?;
        let expected = if text.starts_with("mine") { mine.next() } else { others.next() };
        if expected.as_deref() != Some(text.as_str()) {
            return Err(format!("{text:?} came where {expected:?} should").into());
        }
    }
    ground.hear_nothing(&mut you)
}

fn both_ways(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    let texts = numbered("text", 200);
    for batch in texts.chunks(20) {
        ground.say_all(&mut me, &you.name, batch);
        ground.say_all(&mut you, &me.name, batch);
    }
    ground.hear_exactly(&mut you, &texts)?;
    ground.hear_exactly(&mut me, &texts)
}

fn same_name(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.connect("you")?);
    let name = ground.name("André");
    ground.log_in_as(&mut you, &name, None, None)?;
    ground.say(&mut me, &name.replace('é', "e\u{301}"), "hello");
    ground.hear_exactly(&mut you, &["hello"])
}

fn case_matters(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    ground.say(&mut me, &you.name.replace("you", "You"), "for somebody else");
    ground.barrier(&mut me)?;
    ground.hear_nothing(&mut you)
}

fn fault_makes_offline(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    me.write(&[0, 0, 0, 7, 0, 0, 0, 5]);
    me.closed(ground.patience())?;
    drop(me);
    ground.say(&mut you, &ground.name("me"), "are you there?");
    ground.barrier(&mut you)?;
    let mut me = ground.login("me")?;
    ground.hear_exactly(&mut me, &["are you there?"])
}

fn recipient_vanishes(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    for round in 0..10 {
        let you = ground.login("you")?;
        ground.say_all(&mut me, &you.name, &numbered("text", 20));
        // With texts unread a close is a reset.
        drop(you);
        if let Err(Fault::Broken(why)) = ground.barrier(&mut me) {
            return Err(format!("in round {round} of 10 the sender's connection did not go on: {why}").into());
        }
    }
    Ok(())
}

fn slow_reader(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut slow) = (ground.login("me")?, ground.login("other")?);
    let mut you = ground.login("you")?;
    // More than the sockets on the way take: 12 MB.
    let texts = vec!["z".repeat(50_000); 16];
    for _ in 0..15 {
        ground.say_all(&mut me, &slow.name, &texts);
    }
    ground.say(&mut me, &you.name, "still here");
    ground.hear_exactly(&mut you, &["still here"])?;
    // What it had not read is not lost, and is not left behind on the server.
    for number in 1..=240 {
        if ground.hear(&mut slow)? != texts[0] {
            return Err(format!("text number {number} of the slow reader is not the one that was sent").into());
        }
    }
    ground.hear_nothing(&mut slow)
}

fn garbage_disturbs_nobody(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    for round in 0..20_u8 {
        let mut stranger = ground.connect("stranger")?;
        stranger.write(&[round.wrapping_mul(37); 100]);
        drop(stranger);
        let text = format!("round {round}");
        ground.say(&mut me, &you.name, &text);
        ground.hear_exactly(&mut you, &[text])?;
    }
    Ok(())
}

fn no_leftovers(ground: &Ground<'_>) -> Result<(), Fault> {
    for _ in 0..10 {
        let mut stranger = ground.connect("stranger")?;
        // A packet that is begun and not ended.
        stranger.write(&[0, 0, 0, 40, 0, 0, 0, 1, 9, 9, 9, 9, 9]);
        stranger.finish();
        if let Got::Packet(packet) = stranger.next(ground.patience())? {
            return Err(format!("half a packet was answered with a type {}", packet.kind).into());
        }
        ground.log_out(ground.login("me")?)?;
    }
    Ok(())
}
