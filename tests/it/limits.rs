//! What is bounded, and what happens past it: what is refused is refused clearly, what was accepted stays, nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::params;

use crate::hardening::deaf;
use crate::harness::*;
use crate::wire;

/// Threads of connections that have not logged in: they are called c1, c2, …
fn stranger_threads(server: &Server) -> usize {
    let is_stranger = |name: &String| name.strip_prefix('c').is_some_and(|id| id.parse::<u64>().is_ok());
    server.threads().into_iter().filter(is_stranger).count()
}

/// The server closes without an answer.
fn expect_refused(server: &Server, why: &str) {
    let mut socket = server.socket();
    // The write may meet the reset already.
    let _ = socket.write_all(&wire::login("one too many"));
    assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0);
    server.wait_for_log(&format!("refused, {why} is reached"));
}

#[test]
fn max_connections_refuses_the_next_and_a_leaver_makes_room() {
    let server = Server::start(|setup| setup.set("max_connections", "3"));
    let mut pair = Pair::of(&server, "ann", "bob");
    let eve = server.login("eve");
    for _ in 0..5 {
        expect_refused(&server, "max_connections");
    }
    pair.chat();
    eve.logout().unwrap();
    eventually("there is room again", || server.connect().login("eve").is_ok());
    pair.chat();
    assert_eq!(server.logged("refused, max_connections"), 1, "one line for a burst");
}

#[test]
fn more_connections_than_the_machine_carries_are_a_warning_at_the_start() {
    let server = Server::start(|setup| setup.set("max_connections", "1000000"));
    eventually("the log warns", || server.logged("[WARN ] max_connections = 1000000 is more than") > 0);
    let server = Server::start(|setup| setup.set("max_connections", "1"));
    assert_eq!(server.logged("is more than"), 0);
}

#[test]
fn a_user_can_be_taken_over_at_the_cap() {
    let server = Server::start(|setup| setup.set("max_connections", "2"));
    let mut ann = server.login("ann");
    let _old = server.login("bob");
    // A new connection of bob's needs a place before it can replace the old one: it must be told so, not left hanging.
    expect_refused(&server, "max_connections");
    ann.roundtrip().unwrap();
}

#[test]
fn max_per_address_does_not_hold_for_exempt_addresses() {
    let server = Server::start(|setup| setup.set("max_per_address", "2").set("exempt_addresses", "192.0.2.1"));
    let mut pair = Pair::of(&server, "ann", "bob");
    expect_refused(&server, "max_per_address");
    pair.chat();
    let server = Server::start(|setup| setup.set("max_per_address", "2"));
    let _clients: Vec<_> = (0..10).map(|number| server.login(&number.to_string())).collect();
}

#[test]
fn strangers_are_limited_and_do_not_keep_users_out() {
    let server = Server::start(|setup| setup.set("max_strangers", "5"));
    let mut pair = Pair::of(&server, "ann", "bob");
    let mut strangers: Vec<TcpStream> = (0..5).map(|_| server.socket()).collect();
    eventually("they are there", || stranger_threads(&server) == 5);
    expect_refused(&server, "max_strangers");
    pair.chat();
    strangers.pop();
    eventually("there is room again", || server.connect().login("eve").is_ok());
    // Who logs in is no stranger any more.
    strangers[0].write_all(&wire::login("known")).unwrap();
    strangers[0].read_exact(&mut [0; 8]).unwrap();
    let _more: Vec<_> = (0..10).map(|number| server.login(&number.to_string())).collect();
}

#[test]
fn strangers_of_one_address_are_limited() {
    let server =
        Server::start(|setup| setup.set("max_strangers_per_address", "2").set("exempt_addresses", "192.0.2.1"));
    let mut pair = Pair::of(&server, "ann", "bob");
    let _strangers = (server.socket(), server.socket());
    eventually("they are there", || stranger_threads(&server) == 2);
    expect_refused(&server, "max_strangers_per_address");
    pair.chat();
}

#[test]
fn a_full_backlog_refuses_the_newest_and_keeps_the_old() {
    let server = Server::start(|setup| setup.set("backlog_messages", "3").set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &numbered("message", 5));
    server.wait_for_log("message dropped: its recipient's backlog is full");
    // Saved or not makes no difference.
    eventually("three are saved", || server.rows_of("bob") == 3);
    send_all(&mut ann, "bob", &["one more"]);
    send_all(&mut ann, "eve", &["others are not concerned"]);
    let mut bob = server.login("bob");
    assert_eq!(texts(&mut bob, 3), numbered("message", 3));
    eventually("what bob has read leaves the backlog", || {
        bob.ping().unwrap();
        server.rows_of("bob") == 0
    });
    send_all(&mut ann, "bob", &numbered("live", 10));
    assert_eq!(all_texts(&mut bob), numbered("live", 10), "who is there has no backlog");
    bob.logout().unwrap();
    send_all(&mut ann, "bob", &["room again"]);
    assert_eq!(all_texts(&mut server.login("bob")), ["room again"]);
    assert_eq!(all_texts(&mut server.login("eve")), ["others are not concerned"]);
}

#[test]
fn a_backlog_is_limited_in_bytes_too() {
    let server = Server::start(|setup| {
        setup.set("max_text_bytes", "1000").set("backlog_bytes", "2500").set("save_interval", "20 ms")
    });
    let mut ann = server.login("ann");
    let texts: Vec<String> = ["a", "b", "c"].iter().map(|letter| letter.repeat(1000)).collect();
    send_all(&mut ann, "bob", &texts);
    eventually("two are saved and counted once", || server.rows_of("bob") == 2);
    ann.roundtrip().unwrap();
    send_all(&mut ann, "bob", &["x".repeat(501)]);
    let fits = "y".repeat(500);
    eventually("a shorter one has room", || {
        send_all(&mut ann, "bob", &[&fits]);
        happens_within(Duration::from_secs(1), || server.rows_of("bob") == 3)
    });
    let bob = &mut server.login("bob");
    assert_eq!([0, 1, 2].map(|_| next(bob).text), [texts[0].clone(), texts[1].clone(), fits.clone()]);
}

#[test]
fn a_full_database_refuses_what_would_have_to_wait_and_lets_the_rest_pass() {
    let server = Server::start(|setup| setup.set("data_bytes", "1 MiB").set("save_interval", "20 ms"));
    let mut pair = Pair::of(&server, "ann", "eve");
    let mut sender = server.login("sender");
    let text = "x".repeat(50_000);
    let mut sent = 0;
    eventually("the database is full", || {
        send_all(&mut sender, "bob", &[&text]);
        sent += 1;
        server.logged("message dropped: the database has reached data_bytes") > 0
    });
    assert!((10..40).contains(&sent), "{sent}");
    pair.chat();
    // No round trip: a message to oneself would have to wait too, behind the backlog.
    let mut bob = server.login("bob");
    let mut kept = 0;
    eventually("what was kept arrives, and leaves the disk", || {
        while bob.recv(Duration::from_millis(50)).unwrap().is_some() {
            kept += 1;
        }
        bob.ping().unwrap();
        server.rows() == 0
    });
    assert!(kept >= 10 && kept < sent, "{kept} of {sent}");
    bob.logout().unwrap();
    eventually("there is room again", || {
        send_all(&mut sender, "bob", &["room again"]);
        happens_within(Duration::from_millis(500), || server.rows_of("bob") > 0)
    });
}

#[test]
fn a_slow_reader_costs_disk_not_memory_and_gets_everything_in_order() {
    const MESSAGES: usize = 350;
    let server = Server::start(|setup| {
        setup.set("outbox_bytes", "128 KiB").set("memory_bytes", "1 MiB").set("save_interval", "50 ms")
    });
    let mut pair = Pair::of(&server, "ann", "eve");
    let mut sender = server.login("sender");
    let mut slow = server.login("slow");
    // One wave through everything, so that the buffers have their size.
    let text = |number: usize| format!("{number} {}", "x".repeat(20_000));
    let wave: Vec<String> = (0..60).map(text).collect();
    send_all(&mut sender, "slow", &wave);
    assert!(texts(&mut slow, 60) == wave);
    slow.ping().unwrap();
    let before = server.rss_kib();
    let sent: Vec<String> = (0..MESSAGES).map(text).collect();
    for part in sent.chunks(50) {
        send_all(&mut sender, "slow", part);
        pair.chat();
    }
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "7 MB sent to one who does not read: {grown} KiB more");
    for text in &sent {
        assert!(next(&mut slow).text == *text);
    }
    assert_eq!(all_texts(&mut slow), [""; 0]);
    eventually("nothing is left on disk", || {
        slow.ping().unwrap();
        server.rows() == 0
    });
}

#[test]
fn who_takes_nothing_for_the_stall_timeout_is_closed_and_keeps_what_it_did_not_take() {
    let server = Server::start(|setup| setup.set("write_stall_timeout", "500 ms").set("save_interval", "50 ms"));
    let mut ann = server.login("ann");
    let mut stuck = server.login("stuck");
    let sent: Vec<String> = (0..1500).map(|number| format!("{number} {}", "x".repeat(2000))).collect();
    send_all(&mut ann, "stuck", &sent);
    server.wait_for_log("stuck has taken nothing for write_stall_timeout, so its connection ends");
    let (packets, _) = stuck.connection().read_to_close(PATIENCE).unwrap();
    let mut again = server.login("stuck");
    let rest = all_texts(&mut again);
    assert!(!rest.is_empty() && sent.ends_with(&rest), "the end of the stream comes, in order and whole");
    assert!(packets.len() + rest.len() >= sent.len(), "{} and {}", packets.len(), rest.len());
}

/// Slower than a third of a socket's buffer in `write_stall_timeout`, which is when Linux says that there is room again.
#[test]
fn who_takes_little_but_steadily_is_not_closed() {
    let server = Server::start(|setup| setup.set("write_stall_timeout", "1 s").set("save_interval", "50 ms"));
    let mut ann = server.login("ann");
    let mut slow = deaf(&server, "slow");
    send_all(&mut ann, "slow", &vec!["x".repeat(10_000); 100]);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        slow.read_exact(&mut [0; 1000]).unwrap();
        // As slow as a thin line.
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.logged("has taken nothing for write_stall_timeout"), 0);
}

#[test]
fn old_messages_expire_and_are_counted() {
    let server = Server::start(|setup| setup.set("expire_after", "2 s").set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    let sent_at = Instant::now();
    send_all(&mut ann, "bob", &numbered("perishable", 3));
    eventually("they are saved", || server.rows() == 3);
    server.wait_for_log("3 messages expired");
    assert!(sent_at.elapsed() >= Duration::from_millis(1900), "{:?}", sent_at.elapsed());
    assert_eq!(server.rows(), 0);
    send_all(&mut ann, "bob", &["fresh"]);
    assert_eq!(all_texts(&mut server.login("bob")), ["fresh"]);
}

/// Messages of 1970, as if the server had been off for very long.
fn with_very_old_messages(expire_after: &str) -> Server {
    let mut server = Server::start(|setup| setup.set("expire_after", expire_after).set("save_interval", "20 ms"));
    assert_eq!(server.sigterm().code(), Some(0));
    let db = rusqlite::Connection::open(server.db_path()).unwrap();
    for seq in 1..=3 {
        let row = params!["bob", seq, "ann", format!("old {seq}"), 0, 1000];
        let sql =
            "insert into messages (recipient, seq, sender, text, client_time, accepted_at) values (?, ?, ?, ?, ?, ?)";
        db.execute(sql, row).unwrap();
    }
    db.close().unwrap();
    server.restart()
}

#[test]
fn zero_means_that_messages_never_expire() {
    let server = with_very_old_messages("0 s");
    assert_eq!(all_texts(&mut server.login("bob")), ["old 1", "old 2", "old 3"]);
}

#[test]
fn what_expired_while_the_server_was_off_is_given_up_at_the_start() {
    let server = with_very_old_messages("7 days");
    server.wait_for_log("3 messages expired");
    assert_eq!(all_texts(&mut server.login("bob")), [""; 0]);
}

#[test]
fn the_file_limit_is_raised_and_the_start_says_which_limit_binds() {
    let server = Server::start(|setup| setup.wrapper(&["prlimit", "--nofile=200:1000"]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("1000"), "raised to the hard limit: {line}");
    let told = server.wait_for_log("up to ");
    assert!(told.contains("80 % of the descriptor limit (ulimit -n, LimitNOFILE=) = 1000"), "{told}");
}
