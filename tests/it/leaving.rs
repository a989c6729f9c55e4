//! A session ends: what its client has read and left in order does not come again, and what it has not read does.

use std::io::{Read, Write};

use chatserver::protocol::Message;

use crate::harness::*;

#[test]
fn a_message_that_was_read_before_a_logout_does_not_come_again() {
    const USERS: usize = 100;
    let server = Server::start_default();
    let mut ann = server.login("ann");
    (0..USERS).for_each(|user| ann.send(&format!("user{user}"), "once").unwrap());
    ann.logout().unwrap();
    let server = server.restart();
    let again = (0..USERS).filter(|user| {
        let name = format!("user{user}");
        let mut first = server.login(&name);
        assert_eq!(next(&mut first).text, "once");
        first.logout().unwrap();
        // The server may not have done with the first connection.
        !all_texts(&mut server.login(&name)).is_empty()
    });
    assert_eq!(again.count(), 0, "so many of {USERS} users got their message a second time");
}

#[test]
fn a_client_that_reads_nothing_until_it_is_hung_up_on_loses_nothing() {
    let server = Server::start(|setup| setup.set("write_stall_timeout", "1 s"));
    let sent: Vec<String> = (0..400).map(|n| format!("{n:050000}")).collect();
    send_all(&mut server.login("ann"), "sleepy", &sent);
    let deaf = server.login("sleepy");
    server.wait_for_log("sleepy has taken nothing");
    server.wait_for_log(": sleepy: hung up on");
    drop(deaf);
    assert!(all_texts(&mut server.login("sleepy")) == sent);
}

#[test]
fn who_logs_in_and_out_with_one_write_is_answered_also_when_something_waits() {
    const LOGIN: Message<'_> = Message::ClientLogin { name: "ann", version: 1.0, time: 7, level: None, last_seq: None };
    const LOGOUT: Message<'_> = Message::ClientLogout { logout: true, time: 7 };
    let server = Server::start_default();
    let mut bob = server.login("bob");
    let unanswered = (0..8).filter(|_| {
        bob.send("ann", "on disk").unwrap();
        bob.roundtrip().unwrap();
        eventually("it is saved", || server.rows_of("ann") > 0);
        let mut ann = server.socket();
        ann.write_all(&[packet(&LOGIN), packet(&LOGOUT)].concat()).unwrap();
        let mut answer = Vec::new();
        ann.read_to_end(&mut answer).unwrap();
        let reader = &mut server.login("ann");
        all_texts(reader);
        // TCP may acknowledge what came from disk with the client's next packet only; then the one after it is the sign of life.
        eventually("nothing waits", || {
            reader.ping().unwrap();
            server.rows_of("ann") == 0
        });
        answer.get(4..8) != Some(&[0, 0, 0, 2])
    });
    assert_eq!(unanswered.count(), 0, "so many of 8 logins had no answer");
}
