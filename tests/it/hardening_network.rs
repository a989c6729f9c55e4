//! Networks and programs that disappear: what a level-1 client did not get comes again, what it got does not.

use std::io::Write;
use std::net::TcpStream;

use chatserver::client::Client;

use crate::harness::*;
use crate::network::*;
use crate::wire;

/// Logs bob in and has him read 20 messages; then his network disappears, and ann sends him 200 more. She notices nothing.
fn bob_falls_silent(server: &Server) -> (Client, Client, Silence) {
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    send_all(&mut ann, "bob", &numbered("before", 20));
    assert_eq!(texts(&mut bob, 20), numbered("before", 20));
    until_acknowledged(bob.connection().stream());
    let silence = Silence::begin(bob.connection().stream());
    send_all(&mut ann, "bob", &numbered("lost", 200));
    (ann, bob, silence)
}

#[test]
fn what_a_silent_network_swallowed_comes_after_a_takeover() {
    let server = Server::start_default();
    let (mut ann, _deaf, _silence) = bob_falls_silent(&server);
    let mut bob = server.login("bob");
    send_all(&mut ann, "bob", &["after"]);
    let expected = [numbered("lost", 200), vec!["after".to_owned()]].concat();
    assert_eq!(all_texts(&mut bob), expected);
}

#[test]
fn what_a_silent_network_swallowed_comes_after_the_read_timeout() {
    let server = Server::start(|setup| setup.set("read_timeout", "1 s"));
    let (ann, _deaf, _silence) = bob_falls_silent(&server);
    assert!(ann.logout().is_ok());
    assert!(server.wait_for_log("bob: silent for too long").contains("waiting: 200"));
    let mut bob = server.login("bob");
    assert_eq!(all_texts(&mut bob), numbered("lost", 200));
}

#[test]
fn what_a_silent_network_swallowed_survives_a_kill() {
    let mut server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let (_ann, _deaf, _silence) = bob_falls_silent(&server);
    eventually("it is saved", || server.rows_of("bob") == 200);
    server.kill9();
    let server = server.restart();
    let mut bob = server.login("bob");
    assert_eq!(all_texts(&mut bob), numbered("lost", 200));
}

#[test]
fn a_network_that_comes_back_brings_everything_once() {
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let (mut ann, mut bob, silence) = bob_falls_silent(&server);
    eventually("it is saved", || server.rows_of("bob") == 200);
    silence.end();
    // TCP itself sends again what was not acknowledged.
    assert_eq!(texts(&mut bob, 200), numbered("lost", 200));
    eventually("it is acknowledged, and gone from the disk", || server.rows_of("bob") == 0);
    send_all(&mut ann, "bob", &["after"]);
    assert_eq!(all_texts(&mut bob), ["after"]);
    drop(bob);
    server.wait_for_log("bob: closed by the client");
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0]);
}

/// 50 messages wait for bob on disk.
fn backlog(server: &Server) -> Vec<String> {
    let expected = numbered("waiting", 50);
    send_all(&mut server.login("ann"), "bob", &expected);
    eventually("the backlog is on disk", || server.rows_of("bob") == 50);
    expected
}

/// Bob's kernel takes the whole backlog and acknowledges it; he himself reads nothing and sends nothing.
fn unread_backlog(server: &Server, texts: &[String]) -> TcpStream {
    let mut bob = server.socket();
    bob.write_all(&wire::login("bob")).unwrap();
    let bytes: u64 = texts.iter().map(|text| packet_bytes("ann", "bob", text)).sum();
    eventually("the backlog has arrived", || unread(&bob) > bytes);
    until_acknowledged(&bob);
    // Another user's message is saved, so the timer has looked at bob's meanwhile.
    let ticks = server.rows();
    send_all(&mut server.login("ann"), "carl", &["tick"]);
    eventually("the timer has passed", || server.rows() > ticks);
    bob
}

fn a_backlog_comes_again_after(end: impl FnOnce(TcpStream)) {
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let expected = backlog(&server);
    end(unread_backlog(&server, &expected));
    server.wait_for_log("bob: connection lost");
    let mut bob = server.login("bob");
    assert_eq!(texts(&mut bob, 50), expected);
    assert!(bob.logout().is_ok());
    eventually("what was read is gone", || server.rows_of("bob") == 0);
}

#[test]
fn a_backlog_that_only_the_kernel_took_comes_again_after_a_reset() {
    a_backlog_comes_again_after(reset);
}

#[test]
fn a_backlog_that_only_the_kernel_took_comes_again_after_a_close_without_reading() {
    // Unread bytes make a close a reset.
    a_backlog_comes_again_after(drop);
}

#[test]
fn a_backlog_that_only_the_kernel_took_comes_again_after_a_takeover_and_a_kill() {
    let mut server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let expected = backlog(&server);
    let _first = unread_backlog(&server, &expected);
    let second = unread_backlog(&server, &expected);
    server.kill9();
    drop(second);
    let server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), expected);
}

#[test]
fn a_backlog_does_not_come_again_once_its_reader_has_sent_a_packet() {
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let expected = backlog(&server);
    let mut bob = server.login("bob");
    assert_eq!(texts(&mut bob, 50), expected);
    eventually("a ping after the acknowledgement lets the rows go", || {
        bob.ping().unwrap();
        server.rows_of("bob") == 0
    });
    reset_client(bob);
    server.wait_for_log("bob: connection lost");
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0]);
}

#[test]
fn what_was_read_before_a_logout_does_not_come_to_a_login_that_is_faster_than_the_close() {
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let expected = backlog(&server);
    let mut bob = server.login("bob");
    assert_eq!(texts(&mut bob, 50), expected);
    bob.sender().logout().unwrap();
    expect_close(&mut bob);
    until_acknowledged(bob.connection().stream());
    // His end of the old connection is still open, so the server is not done with it.
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0]);
}
