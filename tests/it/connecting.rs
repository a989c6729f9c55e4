//! Before the login: the address, strangers that come and go, and a stream that comes in any pieces.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::harness::*;
use crate::wire;

#[test]
fn a_stranger_that_leaves_leaves_nothing_behind() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "ann", "bob");
    let before = (server.sockets(), server.connection_threads());
    for round in 0..300 {
        let mut socket = server.socket();
        if round % 3 == 0 {
            socket.write_all(&wire::login("nobody")[..round % 24]).unwrap();
        }
        if round % 2 == 0 {
            socket.shutdown(Shutdown::Both).unwrap();
        }
    }
    eventually("sockets and threads are back at the start", || {
        (server.sockets(), server.connection_threads()) == before
    });
    pair.chat();
}

#[test]
fn a_thousand_connects_at_once_are_all_let_in() {
    let server = Server::start(|setup| setup.set("max_strangers", "2000"));
    let sockets: Vec<TcpStream> = (0..1000).map(|_| server.socket()).collect();
    for (number, mut socket) in sockets.iter().enumerate() {
        socket.write_all(&wire::login(&format!("user {number}"))).unwrap();
    }
    for mut socket in &sockets {
        let mut answer = [0; 8];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer[4..], [0, 0, 0, 2]);
    }
}

#[test]
fn packets_may_come_in_any_pieces() {
    let server = Server::start_default();
    let mut bob = server.login("bob");
    let stream =
        [wire::login("ann"), wire::chat("ann", "bob", "one"), wire::chat("ann", "bob", "two"), wire::logout()].concat();
    for size in [1, 7, 8, 9, 23, 25, stream.len()] {
        let mut socket = server.socket();
        for piece in stream.chunks(size) {
            socket.write_all(piece).unwrap();
        }
        let mut answers = Vec::new();
        socket.read_to_end(&mut answers).unwrap();
        assert!(wire::meaning(&answers).contains("login: true"), "pieces of {size}");
        assert_eq!(texts(&mut bob, 2), ["one", "two"], "pieces of {size}");
    }
}

#[test]
fn it_listens_on_ipv6_too() {
    let server = Server::start(|setup| setup.listen("[::1]:0"));
    assert!(server.addr().starts_with("[::1]:"));
    Pair::of(&server, "ann", "bob").chat();
}

#[test]
fn two_sides_with_different_keys_part_at_the_first_packet() {
    let server = Server::start(|setup| setup.set("key", "0123456789abcdef"));
    let error = server.connect().login("ann").unwrap_err();
    assert!(matches!(error, chatserver::client::ClientError::Closed { .. }), "{error}");
    server.wait_for_log("the body cannot be read (wrong key, or a malformed message)");
}

#[test]
fn keys_of_24_and_32_bytes_work() {
    for key in ["0123456789abcdef01234567", "0123456789abcdef0123456789abcdef"] {
        let server = Server::start(|setup| setup.set("key", key));
        let connect = chatserver::client::Client::connect(server.addr(), key.as_bytes());
        let mut ann = connect.login("ann").unwrap();
        ann.send("ann", "to myself").unwrap();
        assert_eq!(next(&mut ann).text, "to myself");
    }
}
