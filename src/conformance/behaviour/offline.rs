//! Texts for people who are not there: nothing lost, nothing twice, nothing out of order.

use super::{Promise, numbered};
use crate::conformance::bytes::TIME;
use crate::conformance::ground::Ground;
use crate::conformance::wire::{Fault, Line};
use crate::protocol::{Chat, Message};

pub const PROMISES: &[Promise] = &[
    Promise(
        "a text for somebody who is not there waits, and comes right after the login",
        "That is what the server is for.",
        text_waits,
    ),
    Promise(
        "a text for a name that never logged in waits",
        "Any name is legal; it may log in later.",
        text_for_nobody_yet,
    ),
    Promise(
        "a waiting text keeps its sender, text and time",
        "It is delivered as an ordinary type 5.",
        text_is_unchanged,
    ),
    Promise(
        "a text to oneself waits when one has left",
        "A FIN or a logout says: nothing more is to be sent to me.",
        text_to_oneself_after_logout,
    ),
    Promise(
        "five hundred waiting texts come in the order in which they were sent",
        "A stack, a map or a query without an order loses it.",
        order_of_the_backlog,
    ),
    Promise(
        "texts sent while the backlog is being delivered come after it",
        "Live texts must not overtake those that wait.",
        live_after_backlog,
    ),
    Promise(
        "waiting texts of two senders keep the order of each",
        "The order of acceptance is the order of delivery.",
        two_senders,
    ),
    Promise(
        "what was delivered and read does not come again",
        "Delivered texts leave the store: once the client has said something after them, they are read.",
        not_again,
    ),
    Promise(
        "what was waiting comes again to somebody who closed without reading it",
        "The client's kernel had the bytes, the client did not. Delete when it has said something more, or left in order.",
        closed_without_reading,
    ),
    Promise(
        "the same, when the connection was reset right after the login",
        "A login whose answer nobody reads has delivered nothing.",
        reset_after_login,
    ),
    Promise(
        "twenty texts sent right before a close all arrive",
        "What the server's TCP has received it must execute before it looks at the close.",
        send_and_close,
    ),
    Promise(
        "twenty texts sent right before a logout all arrive",
        "Packets before the logout are executed, in order.",
        send_and_logout,
    ),
    Promise(
        "after a logout the server closes the connection",
        "The client reads until then, and knows that everything was executed.",
        logout_closes,
    ),
    Promise("after a logout texts wait", "A user who logged out is offline at once.", logout_is_offline),
    Promise("after a FIN texts wait", "A client that closes its sending side has left as well.", fin_is_offline),
];

fn text_waits(ground: &Ground<'_>) -> Result<(), Fault> {
    ground.log_out(ground.login("you")?)?;
    let mut me = ground.login("me")?;
    ground.say(&mut me, &ground.name("you"), "are you there?");
    ground.barrier(&mut me)?;
    ground.hear_exactly(&mut ground.login("you")?, &["are you there?"])
}

fn text_for_nobody_yet(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    ground.say(&mut me, &ground.name("you"), "welcome");
    ground.barrier(&mut me)?;
    ground.hear_exactly(&mut ground.login("you")?, &["welcome"])
}

fn text_is_unchanged(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    let (from, to) = (me.name.clone(), ground.name("you"));
    let text = "'); DROP TABLE messages;-- \0 世界 \r\n.\r\n";
    me.send(&Message::Chat(Chat { from: &from, to: &to, text, time: -1, ..Chat::default() }));
    ground.barrier(&mut me)?;
    let packet = ground.login("you")?.packet_of(5, "the text that waits", ground.patience())?;
    let got = (packet.text(1), packet.text(2), packet.text(3), packet.number(4));
    if got == (Some(from), Some(to), Some(text.to_owned()), Some(-1_i64 as u64)) {
        Ok(())
    } else {
        Err(format!("{text:?} of the time -1 arrived as {got:?}").into())
    }
}

fn text_to_oneself_after_logout(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    ground.log_out(ground.login("you")?)?;
    ground.say(&mut me, &ground.name("you"), "one");
    ground.log_out(me)?;
    ground.hear_exactly(&mut ground.login("you")?, &["one"])
}

/// `you` is not there, `me` writes to it.
fn backlog(ground: &Ground<'_>, texts: &[String]) -> Result<Line, Fault> {
    let mut me = ground.login("me")?;
    ground.say_all(&mut me, &ground.name("you"), texts);
    ground.barrier(&mut me)?;
    Ok(me)
}

fn order_of_the_backlog(ground: &Ground<'_>) -> Result<(), Fault> {
    let texts = numbered("text", 500);
    backlog(ground, &texts)?;
    ground.hear_exactly(&mut ground.login("you")?, &texts)
}

fn live_after_backlog(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut texts = numbered("waiting", 500);
    let mut me = backlog(ground, &texts)?;
    let live = numbered("live", 300);
    let mut you = ground.connect("you")?;
    ground.say_all(&mut me, &you.name, &live[..100]);
    ground.log_in(&mut you, None)?;
    live[100..].chunks(20).for_each(|live| ground.say_all(&mut me, &ground.name("you"), live));
    texts.extend(live);
    for (index, expected) in texts.iter().enumerate() {
        let text = ground.hear(&mut you)?;
        if &text != expected {
            return Err(format!("text number {} should be {expected:?}, but {text:?} came", index + 1).into());
        }
    }
    ground.hear_nothing(&mut you)
}

fn two_senders(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut other) = (ground.login("me")?, ground.login("other")?);
    let to = ground.name("you");
    let mut expected = Vec::new();
    for round in 0..20 {
        for (line, who) in [(&mut me, "me"), (&mut other, "other")] {
            let text = format!("{who} {round}");
            ground.say(line, &to, &text);
            ground.barrier(line)?;
            expected.push(text);
        }
    }
    ground.hear_exactly(&mut ground.login("you")?, &expected)
}

fn not_again(ground: &Ground<'_>) -> Result<(), Fault> {
    let texts = numbered("text", 10);
    backlog(ground, &texts)?;
    let mut you = ground.login("you")?;
    ground.hear_exactly(&mut you, &texts)?;
    ground.log_out(you)?;
    ground.hear_nothing(&mut ground.login("you")?)
}

fn closed_without_reading(ground: &Ground<'_>) -> Result<(), Fault> {
    let texts = numbered("text", 50);
    backlog(ground, &texts)?;
    let mut you = ground.connect("you")?;
    you.read_sparingly();
    ground.log_in(&mut you, None)?;
    // The texts are in this machine's kernel, acknowledged by its TCP, and nobody has read them.
    you.wait_for_unread(ground.patience())?;
    drop(you);
    ground.hear_exactly(&mut ground.login("you")?, &texts)
}

fn reset_after_login(ground: &Ground<'_>) -> Result<(), Fault> {
    let texts = numbered("text", 50);
    backlog(ground, &texts)?;
    for _ in 0..5 {
        let mut you = ground.connect("you")?;
        let name = you.name.clone();
        you.send(&Message::ClientLogin { name: &name, version: 1.0, time: TIME, level: None, last_seq: None });
        // With the answer not read yet.
        drop(you);
    }
    // The last of them may be executed after this one: it takes over, then, perhaps before this one is answered.
    for _ in 0..20 {
        match ground.login("you").and_then(|mut you| ground.hear_exactly(&mut you, &texts)) {
            Err(Fault::Broken(why)) if why.contains("closed") => {}
            heard => return heard,
        }
    }
    Err("every login was thrown out by a connection that had been closed long before".into())
}

fn send_and_close(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    let texts = numbered("text", 20);
    ground.say_all(&mut me, &you.name, &texts);
    drop(me);
    for expected in &texts {
        let text = ground.hear(&mut you)?;
        if &text != expected {
            return Err(format!("{text:?} came where {expected:?} should").into());
        }
    }
    ground.hear_nothing(&mut you)
}

fn send_and_logout(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    let texts = numbered("text", 20);
    ground.say_all(&mut me, &ground.name("you"), &texts);
    ground.log_out(me)?;
    ground.hear_exactly(&mut ground.login("you")?, &texts)
}

fn logout_closes(ground: &Ground<'_>) -> Result<(), Fault> {
    ground.log_out(ground.login("me")?)
}

fn logout_is_offline(ground: &Ground<'_>) -> Result<(), Fault> {
    let mut me = ground.login("me")?;
    ground.log_out(ground.login("you")?)?;
    ground.say_all(&mut me, &ground.name("you"), &numbered("text", 3));
    ground.barrier(&mut me)?;
    ground.hear_exactly(&mut ground.login("you")?, &numbered("text", 3))
}

fn fin_is_offline(ground: &Ground<'_>) -> Result<(), Fault> {
    let (mut me, mut you) = (ground.login("me")?, ground.login("you")?);
    you.finish();
    you.closed(ground.patience())?;
    ground.say_all(&mut me, &you.name, &numbered("text", 3));
    ground.barrier(&mut me)?;
    ground.hear_exactly(&mut ground.login("you")?, &numbered("text", 3))
}
