//! The recipient is not there: messages wait, in order, through restarts and crashes, and come once.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::*;
use crate::wire;

#[test]
fn messages_wait_for_their_recipient_in_order() {
    let server = Server::start_default();
    let sent = numbered("waiting", 3000);
    send_all(&mut server.login("ann"), "bob", &sent);
    let mut bob = server.login("bob");
    assert!(all_texts(&mut bob) == sent);
}

#[test]
fn a_recipient_who_never_logged_in_gets_what_waits() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    send_all(&mut server.login("ann"), "[38121920]--> 7", &["first"]);
    eventually("it is saved", || server.rows_of("[38121920]--> 7") == 1);
    send_all(&mut server.login("ann"), "[38121920]--> 7", &["second"]);
    assert_eq!(all_texts(&mut server.login("[38121920]--> 7")), ["first", "second"]);
}

#[test]
fn waiting_messages_survive_a_stop() {
    let server = Server::start_default();
    let sent = numbered("across a stop", 5000);
    send_all(&mut server.login("ann"), "bob", &sent);
    let server = server.restart();
    let mut bob = server.login("bob");
    assert!(all_texts(&mut bob) == sent);
}

#[test]
fn waiting_messages_survive_a_crash_after_the_save_interval() {
    let mut server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let sent = numbered("across a crash", 1000);
    send_all(&mut server.login("ann"), "bob", &sent);
    eventually("all are saved", || server.rows_of("bob") == 1000);
    server.kill9();
    let server = server.restart();
    let mut bob = server.login("bob");
    assert!(all_texts(&mut bob) == sent);
}

#[test]
fn old_and_new_messages_keep_their_order_across_restarts() {
    let mut server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    for round in 0..4 {
        let mut ann = server.login("ann");
        send_all(&mut ann, "bob", &numbered(&format!("round {round},"), 100));
        drop(ann);
        if round % 2 == 0 {
            server = server.restart();
        } else {
            eventually("all are saved", || server.rows_of("bob") == 100 * (round + 1));
            server.kill9();
            server = server.restart();
        }
    }
    let expected: Vec<String> = (0..4).flat_map(|round| numbered(&format!("round {round},"), 100)).collect();
    let mut bob = server.login("bob");
    assert_eq!(all_texts(&mut bob), expected);
}

#[test]
fn delivered_messages_do_not_come_again() {
    let mut server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let sent = numbered("once", 500);
    send_all(&mut server.login("ann"), "bob", &sent);
    eventually("all are on disk", || server.rows_of("bob") == 500);
    let mut bob = server.login("bob");
    assert_eq!(all_texts(&mut bob), sent);
    bob.logout().unwrap();
    eventually("they have left the disk", || server.rows() == 0);
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0], "at the next login");
    server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0], "after a stop");
    server.kill9();
    let server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0], "after a crash");
}

#[test]
fn what_was_delivered_while_the_recipient_was_there_never_touches_the_disk() {
    let server = Server::start(|setup| setup.set("log_level", "debug"));
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    let sent = numbered("live", 500);
    send_all(&mut ann, "bob", &sent);
    assert_eq!(texts(&mut bob, 500), sent);
    // The registrations are saved by the same pass that would save messages.
    eventually("the users are saved", || {
        server.db().query_row("select count(*) from users", [], |row| row.get::<_, i64>(0)).unwrap() == 2
    });
    assert_eq!((server.rows(), server.logged("saved")), (0, 0));
}

#[test]
fn a_backlog_and_live_messages_do_not_overtake_each_other() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    let sent = numbered("n", 6000);
    send_all(&mut ann, "bob", &sent[..3000]);
    eventually("the backlog is on disk", || server.rows_of("bob") == 3000);
    std::thread::scope(|scope| {
        scope.spawn(|| send_all(&mut ann, "bob", &sent[3000..]));
        let mut bob = server.login("bob");
        assert!(texts(&mut bob, 6000) == sent);
    });
}

#[test]
fn a_message_to_oneself_may_wait_too() {
    let server = Server::start_default();
    let mut ann = server.login("ann");
    // The logout ends the session before these were read: what was not acknowledged stays.
    let stream = [wire::chat("ann", "ann", "note"), wire::chat("ann", "bob", "done")].concat();
    ann.connection().write_raw(&stream).unwrap();
    assert_eq!(texts(&mut server.login("bob"), 1), ["done"]);
    assert_eq!(texts(&mut ann, 1), ["note"]);
}

/// Logs in, waits until the kernel has something beyond the answer, reads none of it, and closes: a reset.
pub fn log_in_and_close_without_reading(server: &Server, name: &str) {
    let mut socket: TcpStream = server.socket();
    socket.write_all(&wire::login(name)).unwrap();
    let mut header = [0; 4];
    eventually("the answer has arrived", || socket.peek(&mut header).unwrap() == 4);
    let answer = u32::from_be_bytes(header) as usize;
    let mut peeked = vec![0; answer + 1];
    eventually("a message has arrived", || socket.peek(&mut peeked).unwrap() > answer);
    drop(socket);
    server.wait_for_log(&format!("{name}: connection lost"));
}

#[test]
fn a_client_that_reads_nothing_and_closes_keeps_what_waits_on_disk() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let sent = numbered("on disk", 300);
    send_all(&mut server.login("ann"), "bob", &sent);
    eventually("all are saved", || server.rows_of("bob") == 300);
    log_in_and_close_without_reading(&server, "bob");
    eventually("its thread ends", || !server.has_thread("bob"));
    assert_eq!(all_texts(&mut server.login("bob")), sent);
}

#[test]
fn a_client_that_reads_nothing_and_closes_keeps_what_waits_in_memory() {
    let server = Server::start(|setup| setup.set("save_interval", "1 h"));
    let sent = numbered("in memory", 300);
    send_all(&mut server.login("ann"), "bob", &sent);
    log_in_and_close_without_reading(&server, "bob");
    eventually("its thread ends", || !server.has_thread("bob"));
    let server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), sent);
}

#[test]
fn a_client_that_reads_everything_before_a_clean_close_gets_nothing_again() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let sent = numbered("read", 50);
    send_all(&mut server.login("ann"), "bob", &sent);
    let mut socket = server.socket();
    socket.write_all(&wire::login("bob")).unwrap();
    let expected: usize = sent.iter().map(|text| wire::chat("ann", "bob", text).len()).sum();
    let mut header = [0; 4];
    socket.read_exact(&mut header).unwrap();
    let mut rest = vec![0; u32::from_be_bytes(header) as usize - 4 + expected];
    socket.read_exact(&mut rest).unwrap();
    drop(socket);
    server.wait_for_log("bob: closed by the client");
    eventually("its thread ends", || !server.has_thread("bob"));
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0]);
}

#[test]
fn twenty_thousand_messages_for_a_hundred_absent_users_are_all_there() {
    const USERS: usize = 100;
    const EACH: usize = 200;
    let server = Server::start_default();
    let mut ann = server.login("ann");
    for number in 0..EACH {
        (0..USERS).for_each(|user| ann.queue(&format!("user {user}"), &number.to_string()));
        ann.flush().unwrap();
    }
    ann.roundtrip().unwrap();
    let server = server.restart();
    let expected: Vec<String> = (0..EACH).map(|number| number.to_string()).collect();
    for user in 0..USERS {
        let mut client = server.login(&format!("user {user}"));
        assert_eq!(all_texts(&mut client), expected, "of user {user}");
        client.logout().unwrap();
    }
    eventually("nothing waits any more", || server.rows() == 0);
}
