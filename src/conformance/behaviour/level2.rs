//! Level 2: receipts, acks, what comes again and what does not. PROTOCOL.md, "Level 2".

use super::{Promise, numbered};
use crate::conformance::bytes::TIME;
use crate::conformance::ground::Ground;
use crate::conformance::wire::{Fault, Got, Line, Packet};
use crate::protocol::{Chat, Message};

pub const PROMISES: &[Promise] = &[
    Promise(
        "the grant says level 2, a read timeout, a packet length and last_msg_id",
        "A client chooses its pings and its numbers by them.",
        grant,
    ),
    Promise(
        "a login for level 7 is granted 2",
        "A client that asks for more than there is gets what there is.",
        more_than_there_is,
    ),
    Promise(
        "a ping is answered with its own timestamp",
        "No pong within a few seconds means that the connection is gone.",
        pong,
    ),
    Promise(
        "a text has the sender's msg_id and a seq that grows",
        "seq is what the recipient acknowledges.",
        seq_grows,
    ),
    Promise(
        "a recipient of level 1 gets the fields 1 to 4 alone",
        "Old parsers must not see new fields.",
        level_1_recipient,
    ),
    Promise(
        "a text of a sender of level 1 has a seq for a recipient of level 2",
        "Whoever wrote it, it has to be acknowledged.",
        level_1_sender,
    ),
    Promise(
        "a text for somebody who is not there is STORED",
        "Committed to disk: now the sender may forget it.",
        stored,
    ),
    Promise("a text that its recipient acknowledges is DELIVERED", "The recipient's ack, and nothing else.", delivered),
    Promise(
        "a text that a recipient of level 1 has got is DELIVERED",
        "A level-1 client's TCP has acknowledged every byte.",
        delivered_to_level_1,
    ),
    Promise(
        "a text that is not acknowledged comes again after the next login, under the same seq",
        "Only acks count: neither TCP, nor a ping, nor a logout says that a text was read.",
        comes_again,
    ),
    Promise("a text that was acknowledged does not come again", "An ack is for ever.", acked_does_not),
    Promise("an ack is cumulative", "It says: I have taken in everything up to this.", cumulative),
    Promise("last_seq in a login is an ack", "What is above it comes again, what is not does not.", last_seq_acks),
    Promise(
        "a text that is sent again under its number arrives once, and has a receipt again",
        "A sender without a receipt sends again: that must not make two texts of one.",
        sent_again,
    ),
    Promise(
        "a text that is sent again after a new login arrives once",
        "The numbers are remembered over the connection's end.",
        sent_again_later,
    ),
    Promise(
        "another text under a used number is refused with ID_USED",
        "The sender has mixed up its numbers, and must learn it.",
        id_used,
    ),
    Promise(
        "a number far below the newest is refused with ID_TOO_OLD",
        "The server remembers 1,024 numbers and cannot know about older ones.",
        id_too_old,
    ),
    Promise(
        "last_msg_id is at least the highest number that was used",
        "A client that lost its state chooses new numbers above it.",
        last_msg_id,
    ),
    Promise(
        "an ack above everything sent is answered with ACK_TOO_HIGH, and the session goes on",
        "It means that an older backup is in use; it must not delete what comes later.",
        ack_too_high,
    ),
    Promise(
        "a hundred texts have a hundred receipts",
        "A receipt may name many; none may be forgotten.",
        hundred_receipts,
    ),
    Promise(
        "the replaced connection is told REPLACED",
        "Otherwise two programs of one name throw each other out for ever.",
        replaced,
    ),
];

fn grant(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.connect("me")?;
    let answer = ground.log_in(&mut me, Some(2))?;
    let (level, timeout, length) = (answer.number(4), answer.number(5), answer.number(6));
    let missing = match (level, timeout, length, answer.number(7)) {
        (Some(2), Some(1..), Some(24..), Some(_)) => return Ok(()),
        (level, ..) if level != Some(2) => "4, level, is not 2",
        (_, None | Some(0), ..) => "5, read_timeout_secs, is missing or 0",
        (_, _, None | Some(..24), _) => "6, max_packet_bytes, is missing or below 24",
        _ => "7, last_msg_id, is missing",
    };
    Err(format!("of the answer the field {missing}").into())
}

fn more_than_there_is(ground: &Ground<'_>) -> Result<(), Fault> {
    match ground.log_in(&mut ground.connect("me")?, Some(7))?.number(4) {
        Some(2) => Ok(()),
        level => Err(format!("granted was {level:?}").into()),
    }
}

fn pong(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login_2("me")?;
    for time in [0, TIME, -1, i64::MAX] {
        me.send(&Message::ClientPing { ping: true, time });
        let pong = me.packet_of(104, "a pong", ground.patience())?;
        if pong.number(1) != Some(time as u64) {
            return Err(format!("the pong to a ping of the time {time} has {:?}", pong.number(1)).into());
        }
    }
    Ok(())
}

/// Sends a text with a number.
fn say(from: &mut Line, to: &str, text: &str, msg_id: u64) {
    let name = from.name.clone();
    from.send(&Message::Chat(Chat { from: &name, to, text, time: TIME, msg_id: Some(msg_id), seq: None }));
}

/// The next text and its seq.
fn hear(line: &mut Line, ground: &Ground<'_>) -> Result<(String, u64), Fault> {
    let packet = text_packet(line, ground)?;
    let seq = packet.number(6).ok_or("a text for a recipient of level 2 has no seq, field 6")?;
    Ok((packet.text(3).unwrap_or_default(), seq))
}

/// The next text as a packet; receipts and pongs are another matter.
fn text_packet(line: &mut Line, ground: &Ground<'_>) -> Result<Packet, Fault> {
    loop {
        let packet = line.packet("a text", ground.patience())?;
        if packet.kind == 5 {
            return Ok(packet);
        }
    }
}

fn acknowledge(line: &mut Line, seq: u64) {
    line.send(&Message::ClientAck { seq });
}

/// Waits until the message has this status; STORED may come before DELIVERED.
fn receipt(line: &mut Line, msg_id: u64, status: u64, ground: &Ground<'_>) -> Result<Packet, Fault> {
    let words = |status| match status {
        1 => "STORED",
        2 => "DELIVERED",
        3 => "REFUSED",
        _ => "of an unknown status",
    };
    let what = format!("a receipt {} for the number {msg_id}", words(status));
    loop {
        let packet = line.packet(&what, ground.patience())?;
        let wanted = crate::conformance::wire::Field {
            number: 1,
            value: crate::conformance::wire::Value::Varint(msg_id),
            bytes: 0,
        };
        if packet.kind != 101 || !packet.has(&[wanted]) {
            continue;
        }
        match packet.number(2) {
            Some(found) if found == status => return Ok(packet),
            Some(1) if status == 2 => {}
            found => return Err(format!("{what} was expected, but it is {}", words(found.unwrap_or_default())).into()),
        }
    }
}

/// Nothing waits for this user: a pong comes next.
fn hear_nothing(line: &mut Line, ground: &Ground<'_>) -> Result<(), Fault> {
    line.send(&Message::ClientPing { ping: true, time: 4711 });
    loop {
        let packet = line.packet("a pong", ground.patience())?;
        match packet.kind {
            104 => return Ok(()),
            5 => return Err(format!("{:?} came, and should not", packet.text(3).unwrap_or_default()).into()),
            _ => {}
        }
    }
}

fn seq_grows(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login_2("you")?);
    let mut last = 0;
    for number in 1..=20 {
        say(&mut me, &you.name, "hello", number);
        let packet = text_packet(&mut you, ground)?;
        let seq = packet.number(6).unwrap_or_default();
        if packet.number(5) != Some(number) {
            return Err(format!("msg_id {number} arrived as {:?}", packet.number(5)).into());
        }
        if seq <= last || seq >= 1 << 53 {
            return Err(format!("seq {seq} after {last}: it must grow, and stay below 2^53").into());
        }
        last = seq;
    }
    acknowledge(&mut you, last);
    receipt(&mut me, 20, 2, ground).map(drop)
}

fn level_1_recipient(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login("you")?);
    say(&mut me, &you.name, "hello", 1);
    let numbers = you.packet_of(5, "a text", ground.patience())?.numbers();
    if numbers == [1, 2, 3, 4] { Ok(()) } else { Err(format!("the fields {numbers:?} came").into()) }
}

fn level_1_sender(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login_2("you")?);
    ground.say(&mut me, &you.name, "hello");
    let (_, seq) = hear(&mut you, ground)?;
    acknowledge(&mut you, seq);
    hear_nothing(&mut you, ground)
}

fn stored(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login_2("me")?;
    say(&mut me, &ground.name("you"), "hello", 1);
    receipt(&mut me, 1, 1, ground)?;
    ground.hear_exactly(&mut ground.login("you")?, &["hello"])
}

fn delivered(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login_2("you")?);
    say(&mut me, &you.name, "hello", 1);
    let (_, seq) = hear(&mut you, ground)?;
    acknowledge(&mut you, seq);
    receipt(&mut me, 1, 2, ground).map(drop)
}

fn delivered_to_level_1(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login("you")?);
    say(&mut me, &you.name, "hello", 1);
    ground.hear_exactly(&mut you, &["hello"])?;
    receipt(&mut me, 1, 2, ground).map(drop)
}

fn comes_again(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login_2("you")?);
    say(&mut me, &you.name, "hello", 1);
    let first = hear(&mut you, ground)?;
    ground.ping_2(&mut you)?;
    ground.log_out(you)?;
    let mut you = ground.login_2("you")?;
    let again = hear(&mut you, ground)?;
    acknowledge(&mut you, again.1);
    if first == again { Ok(()) } else { Err(format!("{first:?} came again as {again:?}").into()) }
}

fn acked_does_not(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login_2("you")?);
    say(&mut me, &you.name, "hello", 1);
    let (_, seq) = hear(&mut you, ground)?;
    acknowledge(&mut you, seq);
    ground.ping_2(&mut you)?;
    drop(you);
    hear_nothing(&mut ground.login_2("you")?, ground)
}

/// `you` gets five texts; gives the seqs.
fn five(ground: &Ground<'_>) -> Result<(Line, Vec<u64>), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login_2("you")?);
    let mut seqs = Vec::new();
    for (number, text) in (1..).zip(numbered("text", 5)) {
        say(&mut me, &you.name, &text, number);
        seqs.push(hear(&mut you, ground)?.1);
    }
    Ok((you, seqs))
}

/// Of five texts the last two come, and nothing else.
fn two_of_five(mut you: Line, seqs: &[u64], ground: &Ground<'_>) -> Result<(), Fault> {
    for number in [4, 5] {
        let (text, seq) = hear(&mut you, ground)?;
        if (text.as_str(), seq) != (&format!("text {number}"), seqs[number - 1]) {
            return Err(
                format!("{text:?} with seq {seq} came instead of text {number} with {}", seqs[number - 1]).into()
            );
        }
    }
    acknowledge(&mut you, seqs[4]);
    hear_nothing(&mut you, ground)
}

fn cumulative(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut you, seqs) = five(ground)?;
    acknowledge(&mut you, seqs[2]);
    ground.ping_2(&mut you)?;
    drop(you);
    two_of_five(ground.login_2("you")?, &seqs, ground)
}

fn last_seq_acks(ground: &Ground<'_>) -> Result<(), Fault> {
    let (you, seqs) = five(ground)?;
    ground.log_out(you)?;
    let mut you = ground.connect("you")?;
    let name = you.name.clone();
    ground.log_in_as(&mut you, &name, Some(2), Some(seqs[2]))?;
    two_of_five(you, &seqs, ground)
}

fn sent_again(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login_2("me")?;
    let to = ground.name("you");
    say(&mut me, &to, "once", 1);
    receipt(&mut me, 1, 1, ground)?;
    say(&mut me, &to, "once", 1);
    receipt(&mut me, 1, 1, ground)?;
    ground.hear_exactly(&mut ground.login("you")?, &["once"])
}

fn sent_again_later(ground: &Ground<'_>) -> Result<(), Fault> {
    let to = ground.name("you");
    for _ in 0..3 {
        let mut me = ground.login_2("me")?;
        say(&mut me, &to, "once", 1);
        receipt(&mut me, 1, 1, ground)?;
    }
    ground.hear_exactly(&mut ground.login("you")?, &["once"])
}

/// The text under this number must be refused for this reason.
fn refused(me: &mut Line, to: &str, msg_id: u64, reason: u64, ground: &Ground<'_>) -> Result<(), Fault> {
    say(me, to, "another", msg_id);
    let packet = receipt(me, msg_id, 3, ground)?;
    if packet.number(3) == Some(reason) {
        Ok(())
    } else {
        Err(format!("the reason of the refusal should be {reason}, it is {:?}", packet.number(3)).into())
    }
}

fn id_used(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login_2("me")?;
    let to = ground.name("you");
    say(&mut me, &to, "once", 1);
    receipt(&mut me, 1, 1, ground)?;
    refused(&mut me, &to, 1, 4, ground)?;
    ground.hear_exactly(&mut ground.login("you")?, &["once"])
}

fn id_too_old(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login("you")?);
    for number in 10..10 + 1_100 {
        say(&mut me, &you.name, "x", number);
        ground.hear(&mut you)?;
    }
    receipt(&mut me, 1_109, 2, ground)?;
    refused(&mut me, &you.name, 5, 5, ground)?;
    ground.hear_nothing(&mut you)
}

fn last_msg_id(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, you) = (ground.login_2("me")?, ground.login("you")?);
    say(&mut me, &you.name, "hello", 4_711);
    receipt(&mut me, 4_711, 2, ground)?;
    drop(me);
    let mut me = ground.connect("me")?;
    match ground.log_in(&mut me, Some(2))?.number(7) {
        Some(4_711..) => Ok(()),
        told => Err(format!("4711 was used, last_msg_id is {told:?}").into()),
    }
}

fn ack_too_high(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login_2("you")?);
    acknowledge(&mut you, (1 << 53) - 1);
    let notice = you.packet_of(103, "a notice", ground.patience())?;
    if notice.number(1) != Some(11) {
        return Err(format!("the notice should have the code 11, ACK_TOO_HIGH, it has {:?}", notice.number(1)).into());
    }
    say(&mut me, &you.name, "after it", 1);
    let (text, seq) = hear(&mut you, ground)?;
    acknowledge(&mut you, seq);
    if text == "after it" { Ok(()) } else { Err(format!("{text:?} came").into()) }
}

fn hundred_receipts(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login_2("me")?, ground.login("you")?);
    let name = me.name.clone();
    let texts = numbered("text", 100);
    let chats: Vec<Message<'_>> = (1..)
        .zip(&texts)
        .map(|(number, text)| {
            Message::Chat(Chat { from: &name, to: &you.name, text, time: TIME, msg_id: Some(number), seq: None })
        })
        .collect();
    me.send_all(&chats);
    drop(chats);
    ground.hear_exactly(&mut you, &texts)?;
    let mut missing: std::collections::BTreeSet<u64> = (1..=100).collect();
    while !missing.is_empty() {
        match me.next(ground.patience())? {
            Got::Packet(packet) if packet.kind == 101 && packet.number(2) == Some(2) => {
                for number in packet.all_numbers(1) {
                    missing.remove(&number);
                }
            }
            Got::Packet(_) => {}
            _ => return Err(format!("these have no receipt DELIVERED: {missing:?}").into()),
        }
    }
    Ok(())
}

fn replaced(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut old = ground.login_2("me")?;
    let _new = ground.login_2("me")?;
    let notice = old.packet_of(103, "a notice", ground.patience())?;
    if notice.number(1) != Some(1) {
        return Err(format!("the notice should have the code 1, REPLACED, it has {:?}", notice.number(1)).into());
    }
    old.closed(ground.patience())
}
