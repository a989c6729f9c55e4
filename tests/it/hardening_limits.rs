//! A machine that has no more to give: descriptors, threads. One connection is lost, the server and all others go on.

use std::io::Read;
use std::net::TcpStream;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::hardening::*;
use crate::harness::*;
use crate::wire;

/// Whether the server closes this connection rather than waiting for its login.
fn is_refused(mut socket: TcpStream) -> bool {
    matches!(socket.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn an_accept_that_fails_is_one_log_line_and_the_next_connections_are_served() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "healthy", "happy");
    let test = "an_accept_that_fails_is_one_log_line_and_the_next_connections_are_served";
    let Some(fault) = Fault::inject(&server, test, "accept4,accept", "error=EMFILE") else { return };
    // The kernel takes them; the server does not get to see them yet.
    let waiting: Vec<TcpStream> = (0..10).map(|_| server.socket()).collect();
    server.wait_for_log("] accept: ");
    for _ in 0..50 {
        pair.chat();
    }
    assert_eq!(server.logged("] accept: "), 1, "one line for the burst");
    fault.end();
    let mut late = server.login("late");
    late.roundtrip().unwrap();
    drop(waiting);
    pair.chat();
    assert_eq!(server.logged("] accept: "), 1, "one line for the burst");
}

#[test]
fn a_server_without_descriptors_serves_those_who_are_in_and_then_the_others() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "healthy", "happy");
    let pid = Pid::from_raw(server.pid().cast_signed());
    let limit = |current| prlimit(pid, Resource::Nofile, current).unwrap();
    let used = server.descriptors() as u64;
    let normal =
        limit(Rlimit { current: Some(used + 3), maximum: rustix::process::getrlimit(Resource::Nofile).maximum });
    let crowd: Vec<TcpStream> = (0..20).map(|_| server.socket()).collect();
    assert!(server.wait_for_log("] accept: ").contains("Too many open files"));
    for _ in 0..50 {
        pair.chat();
    }
    limit(normal);
    let mut late = server.login("late");
    late.roundtrip().unwrap();
    assert_eq!(server.logged("] accept: "), 1, "one line for the burst");
    drop(crowd);
    drop(late);
    // Three more readers of the database may have come, with three descriptors each; the crowd had twenty.
    eventually("all descriptors are back", || server.descriptors() as u64 <= used + 9);
}

#[test]
fn a_thread_that_cannot_be_started_costs_one_connection() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "healthy", "happy");
    let before = at_rest(&server);
    let test = "a_thread_that_cannot_be_started_costs_one_connection";
    let Some(fault) = Fault::inject(&server, test, "clone3,clone", "error=EAGAIN") else { return };
    for _ in 0..20 {
        assert!(is_refused(server.socket()), "there is no thread for it");
    }
    assert_eq!(server.logged("no thread for it, so it is closed"), 1, "one line for the burst");
    pair.chat();
    fault.end();
    let mut late = server.login("late");
    late.roundtrip().unwrap();
    drop(late);
    pair.chat();
    until_at_rest(&server, &before);
}

#[test]
fn a_writer_that_cannot_be_started_loses_no_backlog() {
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &numbered("waiting", 20));
    eventually("the backlog is on disk", || server.rows_of("bob") == 20);
    let test = "a_writer_that_cannot_be_started_loses_no_backlog";
    // The connection has its thread, its writer will have none.
    let before = server.threads().len();
    let mut bob = server.connect().open().unwrap();
    eventually("the connection has its thread", || server.threads().len() > before);
    let Some(fault) = Fault::inject(&server, test, "clone3,clone", "error=EAGAIN") else { return };
    bob.write_raw(&wire::login("bob")).unwrap();
    assert!(bob.read_to_close(PATIENCE).is_ok());
    server.wait_for_log("no thread for its writer");
    fault.end();
    assert_eq!(all_texts(&mut server.login("bob")), numbered("waiting", 20));
}
