//! Before the login: the address, the first line, strangers that come and go.

use std::net::Shutdown;

use crate::harness::*;

#[test]
fn a_stranger_that_leaves_leaves_nothing_behind() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "ann", "bob");
    let before = (server.descriptors(), server.threads());
    for _ in 0..300 {
        let socket = server.socket();
        socket.shutdown(Shutdown::Both).unwrap();
    }
    eventually("descriptors and threads are back at the start", || (server.descriptors(), server.threads()) == before);
    pair.chat();
}
