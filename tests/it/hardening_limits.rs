//! A machine that has no more to give: descriptors, threads. One connection is lost, the server and all others go on.

use std::io::Read;
use std::net::TcpStream;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::hardening::*;
use crate::harness::*;
use crate::network::is_silent;
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
    server.wait_for_log("no thread for it, so it is closed");
    assert_eq!(server.logged("no thread for it, so it is closed"), 1, "one line for the burst");
    pair.chat();
    fault.end();
    let mut late = server.login("late");
    late.roundtrip().unwrap();
    drop(late);
    pair.chat();
    until_at_rest(&server, &before);
}

/// What a thread cannot be started without: a stack, its guard, and whatever else it maps as it begins.
#[test]
fn a_mapping_that_cannot_be_had_costs_one_connection() {
    let server = Server::start_default();
    let mut pair = Pair::of(&server, "healthy", "happy");
    let before = at_rest(&server);
    let test = "a_mapping_that_cannot_be_had_costs_one_connection";
    for (calls, when) in
        [("mmap", ""), ("mprotect", ""), ("mmap", ":when=1"), ("mmap", ":when=2"), ("mprotect", ":when=2")]
    {
        let Some(fault) = Fault::inject(&server, test, calls, &format!("error=ENOMEM{when}")) else { return };
        let threads = server.threads().len();
        let knocked: Vec<TcpStream> = (0..5).map(|_| server.socket()).collect();
        eventually("each has a thread or is closed", || {
            let closed = knocked.iter().filter(|socket| !is_silent(socket)).count();
            server.threads().len() + closed == threads + knocked.len()
        });
        pair.chat();
        fault.end();
        drop(knocked);
        server.login("late").roundtrip().unwrap();
        until_at_rest(&server, &before);
    }
    // Some have the stack of a thread that has ended; others have none.
    server.wait_for_log("no thread for it, so it is closed");
    assert_eq!(server.logged("no thread for it, so it is closed"), 1, "one line for all of them");
}

#[test]
fn writers_that_cannot_be_started_lose_no_backlog() {
    let names = ["bob", "bea", "ben"];
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let mut ann = server.login("ann");
    names.iter().for_each(|name| send_all(&mut ann, name, &numbered("waiting", 20)));
    eventually("the backlog is on disk", || server.rows() == 60);
    let test = "writers_that_cannot_be_started_lose_no_backlog";
    // The connections have their threads, their writers will have none.
    let before = server.threads().len();
    let mut connections = names.map(|_| server.connect().open().unwrap());
    eventually("the connections have their threads", || server.threads().len() == before + names.len());
    let Some(fault) = Fault::inject(&server, test, "clone3,clone", "error=EAGAIN") else { return };
    for (connection, name) in connections.iter_mut().zip(names) {
        connection.write_raw(&wire::login(name)).unwrap();
        assert!(connection.read_to_close(PATIENCE).is_ok());
    }
    server.wait_for_log("no thread for its writer");
    fault.end();
    for name in names {
        assert_eq!(all_texts(&mut server.login(name)), numbered("waiting", 20));
    }
    assert_eq!(server.logged("no thread for its writer"), 1, "one line for the burst");
}

#[test]
fn at_its_computed_cap_the_server_stands_with_every_writer_at_work() {
    let names = numbered("deaf", 6);
    // 80 % of 90 descriptors, less the 64 that are no connections.
    let server = Server::start(|setup| {
        setup.wrapper(&["sh", "-c", "ulimit -n 90; exec \"$@\"", "sh"]).set("save_interval", "100 ms")
    });
    server.wait_for_log("up to 8 connections (80 % of the descriptor limit");
    let texts: Vec<String> = (0..6).map(|number| format!("{number:<60000}")).collect();
    let mut ann = server.login("ann");
    names.iter().for_each(|name| send_all(&mut ann, name, &texts));
    drop(ann);
    eventually("the backlogs are on disk", || server.rows() == 36);
    let mut pair = Pair::of(&server, "healthy", "happy");
    eventually("nobody else is in", || server.connection_threads().len() == 2);
    let deaf: Vec<TcpStream> = names.iter().map(|name| deaf(&server, name)).collect();
    let writers = || server.threads().iter().filter(|name| name.starts_with("w:")).count();
    eventually("each has its writer", || writers() == names.len());
    for _ in 0..10 {
        assert!(is_refused(server.socket()), "it is one more than the cap");
        pair.chat();
    }
    server.wait_for_log("refused, max_connections is reached");
    assert_eq!((writers(), server.logged("max_connections is reached")), (names.len(), 1));
    drop(deaf);
    eventually("their threads are gone", || server.connection_threads().len() == 2);
    assert_eq!(all_texts(&mut server.login(&names[0])), texts);
}
