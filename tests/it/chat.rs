//! Two users who are there: texts arrive as they were sent, in order, and only where they should.

use chatserver::protocol::{Chat, Message};

use crate::harness::*;
use crate::wire;

#[test]
fn a_text_arrives_as_it_was_sent() {
    let server = Server::start_default();
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    let longest = "x".repeat(60_000);
    for text in ["hello", "", "\0", " \t\r\n", "你好 🙂", "e\u{301}\u{202e}", "'); DROP TABLE messages; --", &longest]
    {
        for time in [0, -1, i64::MIN, i64::MAX, 1_400_000_000] {
            ann.send_at("bob", text, time).unwrap();
            let message = next(&mut bob);
            assert_eq!((message.from.as_str(), message.to.as_str()), ("ann", "bob"));
            assert_eq!((message.text.as_str(), message.time), (text, time));
        }
    }
}

#[test]
fn a_packet_is_forwarded_byte_for_byte() {
    let server = Server::start_default();
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    for text in ["", "a", "fifteen bytes!!", &"x".repeat(2152)] {
        let packet = wire::chat("ann", "bob", text);
        ann.connection().write_raw(&packet).unwrap();
        assert_eq!(bob.connection().read_packet(PATIENCE).unwrap().unwrap().bytes, packet);
    }
}

#[test]
fn a_recipient_gets_exactly_the_four_fields_of_level_1() {
    let server = Server::start_default();
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    let fields = [wire::string(1, b"ann"), wire::string(2, b"bob"), wire::string(3, b"hello"), wire::integer(4, 7)];
    let plain = packet(&Message::Chat(Chat { from: "ann", to: "bob", text: "hello", time: 7, ..Chat::default() }));
    for others in [
        [fields.concat(), wire::integer(5, 1), wire::integer(6, 2)].concat(), // level 2's fields, which nobody granted
        [fields.concat(), wire::string(15, b"unknown")].concat(),
        [fields[3].clone(), fields[2].clone(), fields[1].clone(), fields[0].clone()].concat(), // another order
        [wire::string(3, b"replaced"), fields.concat()].concat(), // of a field that comes twice the last counts
    ] {
        ann.connection().write_raw(&wire::sealed(5, &others)).unwrap();
        assert_eq!(bob.connection().read_packet(PATIENCE).unwrap().unwrap().bytes, plain);
    }
}

#[test]
fn order_is_kept_between_two_users() {
    let server = Server::start_default();
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    let sent = numbered("message", 5000);
    let reader = std::thread::spawn(move || texts(&mut bob, 5000));
    send_all(&mut ann, "bob", &sent);
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn order_is_kept_for_each_of_many_senders() {
    const SENDERS: usize = 8;
    const EACH: usize = 500;
    let server = Server::start_default();
    let mut bob = server.login("bob");
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let mut client = server.login(&format!("sender {sender}"));
            scope.spawn(move || send_all(&mut client, "bob", &numbered("", EACH)));
        }
        let mut next_of = [0; SENDERS];
        for _ in 0..SENDERS * EACH {
            let message = next(&mut bob);
            let sender: usize = message.from.strip_prefix("sender ").unwrap().parse().unwrap();
            assert_eq!(message.text, format!(" {}", next_of[sender]), "of {}", message.from);
            next_of[sender] += 1;
        }
    });
}

#[test]
fn one_may_write_to_oneself() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    let sent = numbered("note", 300);
    send_all(&mut ann, "ann", &sent);
    assert_eq!(texts(&mut ann, 300), sent);
}

#[test]
fn a_text_reaches_nobody_else() {
    let server = Server::start_default();
    let (mut ann, mut bob, mut eve) = (server.login("ann"), server.login("bob"), server.login("eve"));
    send_all(&mut ann, "bob", &["for bob"]);
    assert_eq!(all_texts(&mut bob), ["for bob"]);
    assert_eq!(all_texts(&mut eve), [""; 0]);
    assert_eq!(all_texts(&mut ann), [""; 0]);
}

#[test]
fn what_precedes_a_logout_is_executed_and_what_follows_is_not() {
    let server = Server::start_default();
    let mut bob = server.login("bob");
    let mut ann = server.login("ann");
    let stream = [wire::chat("ann", "bob", "before"), wire::logout(), wire::chat("ann", "bob", "after")].concat();
    ann.connection().write_raw(&stream).unwrap();
    expect_close(&mut ann);
    assert_eq!(all_texts(&mut bob), ["before"]);
    server.wait_for_log("ann: logged out");
}
