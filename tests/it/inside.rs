//! Who is there, and what an operator does about it: `sessions`, `session`, `kick`, `log`, `drain`.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use chatserver::client::{Client, Event, Level};
use chatserver::protocol::NoticeCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::control::{Ctl, number, status};
use crate::harness::*;
use crate::wire;

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

fn login_2(server: &Server, name: &str) -> Client {
    server.connect().level(Level::Two).login(name).unwrap()
}

/// The session of one user among all.
fn session(ctl: &mut Ctl, name: &str) -> Value {
    let all = ctl.ask("sessions");
    let found = all["sessions"].as_array().unwrap().iter().find(|session| session["user"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
}

#[test]
fn sessions_tells_of_each_where_from_since_when_and_what_passed() {
    let server = Server::start(|setup| setup.set("save_interval", "1 h"));
    let mut ctl = Ctl::of(&server);
    assert_eq!(ctl.ask("sessions")["sessions"], Value::Array(Vec::new()));
    let mut ann = server.login("ann");
    let mut bob = login_2(&server, "[38121920]--> 7");
    for _ in 0..5 {
        ann.send("[38121920]--> 7", "hello").unwrap();
    }
    ann.roundtrip().unwrap();
    assert_eq!(texts(&mut bob, 5).len(), 5);
    bob.ping().unwrap();
    eventually("every packet is counted", || {
        let (ann, bob) = (session(&mut ctl, "ann"), session(&mut ctl, "[38121920]--> 7"));
        // Ann: login, five texts, a barrier to herself; out: the answer and the barrier. The other: login, ping, acks; out: the answer, five texts, the pong.
        number(&ann, "packets_in") == 7
            && number(&ann, "packets_out") == 2
            && number(&bob, "packets_in") >= 2
            && number(&bob, "packets_out") == 7
            && number(&ann, "unacknowledged_bytes") == 0
    });
    let (one, two) = (session(&mut ctl, "ann"), session(&mut ctl, "[38121920]--> 7"));
    assert_eq!((number(&one, "level"), number(&two, "level")), (1, 2));
    assert!(one["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{one}");
    assert!(number(&one, "since") > 1_700_000_000_000 && number(&one, "last_packet_at") >= number(&one, "since"));
    assert_eq!((&one["live"], &one["writer"], &one["traced"]), (&true.into(), &false.into(), &false.into()));
    let cursors =
        |session: &Value| ["acked", "evicted", "saved", "sent", "last"].map(|name| number(&session["window"], name));
    let [acked, evicted, saved, sent, last] = cursors(&two);
    assert!(acked <= evicted && evicted <= saved && saved <= last && acked <= sent && sent == last, "{two}");
    // The same of one, whose name has spaces.
    let alone = ctl.ask("session [38121920]--> 7");
    assert_eq!((number(&alone, "connection"), &alone["user"]), (number(&two, "connection"), &two["user"]));
    // And of one who is not there.
    send_all(&mut ann, "carol", &numbered("kept", 3));
    let carol = ctl.ask("session carol");
    assert_eq!((&carol["connected"], number(&carol, "waiting"), &carol["address"]), (&false.into(), 3, &Value::Null));
    assert!(error(&ctl.ask("session no\u{7}body")).contains("invisible"));
    assert_eq!(carol["live"], Value::Null);
}

#[test]
fn a_name_that_was_never_here_is_an_error() {
    let server = Server::start(|setup| setup.set("save_interval", "1 h"));
    let mut ctl = Ctl::of(&server);
    assert_eq!(error(&ctl.ask("session nosuch")), "nosuch was never here");
    // Who has logged in was here, on disk or not yet; so was one for whom something waits.
    let mut ann = server.login("ann");
    send_all(&mut ann, "carol", &["kept"]);
    ann.logout().unwrap();
    eventually("she is gone", || ctl.ask("session ann")["connected"] == false);
    assert_eq!(number(&ctl.ask("session carol"), "waiting"), 1);
    ctl.ask("save");
    assert_eq!(ctl.ask("session ann")["live"], Value::Null);
    assert_eq!(error(&ctl.ask("session nosuch")), "nosuch was never here", "asking makes nobody");
    for word in ["session", "kick", "trace"] {
        assert_eq!(error(&ctl.ask(word)), format!("{word} needs a NAME"));
    }
    let ctl = |arguments: &[&str]| {
        let mut command = program();
        command.arg("ctl").args(arguments).arg("--data").arg(server.data()).env("LANG", "C");
        let output = run(command, "");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(ctl(&["session", "nosuch"]), (Some(3), "{\"error\":\"nosuch was never here\"}\n".into(), "".into()));
    let (code, absent, _) = ctl(&["session", "ann"]);
    assert!(code == Some(0) && absent.contains("\nlive                  -\n"), "{absent}");
    for word in ["session", "kick", "trace"] {
        let (code, _, why) = ctl(&[word]);
        assert!(code == Some(2) && why.contains(&format!("{word} needs a NAME")), "{code:?} {why}");
    }
}

#[test]
fn a_slow_reader_shows_in_its_session() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let mut ctl = Ctl::of(&server);
    let mut ann = server.login("ann");
    let _bob = server.login("bob");
    send_all(&mut ann, "bob", &(0..4000).map(|number| format!("{number} {}", "x".repeat(1500))).collect::<Vec<_>>());
    eventually("what does not fit waits on disk, and a writer for the socket", || {
        let bob = session(&mut ctl, "bob");
        bob["live"] == false
            && bob["writer"] == true
            && number(&bob, "unacknowledged_bytes") > 10_000
            && number(&bob, "outbox_bytes") > 0
            && number(&bob, "waiting") > 100
    });
}

/// In a storm of takeovers every answer is of one moment of each user: nobody is there twice.
#[test]
fn sessions_in_a_storm_of_takeovers_names_each_user_once() {
    let server = Server::start(|setup| setup.set("max_logins_per_address", "1000000"));
    let is_over = AtomicBool::new(false);
    let packet = |name: &str| wire::login(name);
    std::thread::scope(|scope| {
        for user in ["ann", "bob"] {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        let mut socket = server.socket();
                        let _ = socket.write_all(&packet(user));
                        let _ = socket.read(&mut [0; 100]);
                    }
                });
            }
        }
        let (mut ctl, mut last) = (Ctl::of(&server), 0);
        for _ in 0..300 {
            let answer = ctl.ask("sessions");
            let users: Vec<&str> = answer["sessions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|session| session["user"].as_str().unwrap())
                .collect();
            assert!(users.is_sorted() && users.windows(2).all(|two| two[0] != two[1]) && users.len() <= 2, "{answer}");
            let connections =
                answer["sessions"].as_array().unwrap().iter().map(|session| number(session, "connection"));
            last = connections.max().unwrap_or(0).max(last);
        }
        is_over.store(true, Relaxed);
        assert!(last > 10, "{last} logins are no storm");
    });
    Pair::of(&server, "carol", "dave").chat();
}

#[test]
fn who_is_kicked_is_gone_and_finds_everything_again() {
    let server = Server::start_default();
    let mut ctl = Ctl::of(&server);
    assert_eq!(error(&ctl.ask("kick ann")), "ann is not there");
    let (mut ann, mut bob) = (server.login("ann"), login_2(&server, "bob"));
    ann.send("bob", "before").unwrap();
    assert_eq!(next(&mut bob).text, "before");
    // Level 2 is told why.
    let kicked = ctl.ask("kick bob");
    assert_eq!(kicked["kicked"], "bob", "{kicked}");
    let told = std::iter::from_fn(|| bob.next_event(PATIENCE).ok().flatten());
    let notice = told.filter_map(|event| if let Event::Notice(notice) = event { Some(notice) } else { None }).next();
    let notice = notice.expect("a notice");
    assert_eq!((notice.code, notice.text.as_str()), (NoticeCode::Kicked, "the operator has ended your connection"));
    server.wait_for_log("bob is kicked");
    server.wait_for_log("bob: kicked by the operator");
    // Level 1 sees the end of the stream.
    ctl.ask("kick ann");
    expect_close(&mut ann);
    server.wait_for_log("ann: kicked by the operator");
    eventually("nobody is there", || ctl.ask("sessions")["sessions"].as_array().unwrap().is_empty());
    assert_eq!(error(&ctl.ask("kick ann")), "ann is not there");
    assert_eq!(number(&status(&server), "counts.kicked"), 2);
    // Nothing is lost by it: what was not acknowledged comes again, and both may come back.
    let mut ann = server.login("ann");
    ann.send("bob", "while you were away").unwrap();
    let mut bob = login_2(&server, "bob");
    let mut got = next(&mut bob).text;
    if got == "before" {
        got = next(&mut bob).text;
    }
    assert_eq!(got, "while you were away");
}

/// Hardening: packets of a closed session still executed (Mosquitto CVE-2021-34434).
#[test]
fn nothing_of_a_kicked_connection_is_executed() {
    let server = Server::start_default();
    let (mut ctl, mut ann) = (Ctl::of(&server), server.login("ann"));
    for _ in 0..30 {
        let mut bob = server.login("bob");
        ctl.ask("kick bob");
        let _ = bob.connection().write_raw(&wire::chat("bob", "ann", "too late").repeat(3));
        expect_close(&mut bob);
        assert_eq!(all_texts(&mut ann), Vec::<String>::new());
    }
}

#[test]
fn the_logs_level_changes_until_the_next_sighup() {
    let server = Server::start_default();
    let mut ctl = Ctl::of(&server);
    assert!(error(&ctl.ask("log loud")).contains("off, error, warn, info, debug, trace"));
    assert_eq!(ctl.ask("log").to_string(), r#"{"log":"info"}"#);
    assert_eq!(ctl.ask("log debug").to_string(), r#"{"log":"debug","was":"info"}"#);
    assert_eq!(ctl.ask("log")["log"], "debug");
    let socket = server.socket();
    server.wait_for_log("connected");
    drop(socket);
    ctl.ask("log off");
    server.wait_for_log("the log's level is off until the next SIGHUP, was debug");
    server.login("silent").logout().unwrap();
    eventually("all is said and done", || server.connection_threads().is_empty());
    server.signal(Signal::HUP);
    // Said at info: the configuration's level is back.
    server.wait_for_log("configuration read again");
    server.login("told").logout().unwrap();
    server.wait_for_log("told: logged out");
    assert_eq!(server.logged("silent: logged out"), 0);
}

#[test]
fn a_server_that_drains_lets_nobody_in_and_those_inside_go_on() {
    let server = Server::start_default();
    let (mut ctl, mut pair) = (Ctl::of(&server), Pair::of(&server, "ann", "bob"));
    let waits_outside = |server: &Server| {
        let mut socket = server.socket();
        // A login on its way is not read: the end comes all the same, perhaps as a reset.
        let _ = socket.write_all(&wire::login("carol"));
        socket.read(&mut [0; 1]).map_or(true, |count| count == 0)
    };
    let drained = ctl.ask("drain");
    assert_eq!((&drained["draining"], number(&drained, "open")), (&true.into(), 2));
    ctl.ask("drain");
    assert!(waits_outside(&server) && waits_outside(&server));
    pair.chat();
    let status = ctl.ask("status");
    assert_eq!((&status["connections"]["draining"], number(&status, "counts.refused_draining")), (&true.into(), 2));
    server.wait_for_log("refused, the server drains");
    assert_eq!(ctl.ask("drain off")["draining"], false);
    server.wait_for_log("connections are accepted again");
    assert_eq!(server.logged("drain: no more connections are accepted; 2 are open"), 1, "said once");
    server.login("carol").roundtrip().unwrap();
    pair.chat();
    assert_eq!(ctl.ask("status")["connections"]["draining"], false);
}

#[test]
fn the_command_prints_tables() {
    let server = Server::start_default();
    let (_ann, _long) = (server.login("小红"), server.login("[38121920]--> 7"));
    let ctl = |arguments: &[&str]| {
        let mut command = program();
        command.arg("ctl").args(arguments).arg("--data").arg(server.data()).env("LANG", "C");
        let output = run(command, "");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, table) = ctl(&["sessions"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(code == Some(0) && lines.len() == 3 && lines[0].starts_with("USER             ADDRESS "), "{table}");
    assert!(
        lines[1].starts_with("[38121920]--> 7  127.0.0.1:") && lines[2].starts_with("小红             127.0.0.1:"),
        "{table}"
    );
    let (code, json) = ctl(&["sessions", "--json"]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&json).unwrap()["sessions"].as_array().unwrap().len()),
        (Some(0), 2)
    );
    let (code, one) = ctl(&["session", "小红"]);
    assert!(code == Some(0) && one.contains("user                  小红\n") && one.contains("window.last "), "{one}");
    let (code, refused) = ctl(&["kick", "nobody"]);
    assert_eq!((code, &*refused), (Some(3), "{\"error\":\"nobody is not there\"}\n"));
    assert_eq!(ctl(&["kick", "小红"]).0, Some(0));
    // What `help` lists is what `--help` lists.
    let help: Value = serde_json::from_str(&ctl(&["help"]).1).unwrap();
    let told = ctl(&["--help"]).1;
    assert!(told.contains("\n                       passed; on a narrow") && told.contains("Exit codes:"), "{told}");
    for request in help.as_object().unwrap().keys() {
        let first = request.split(' ').next().unwrap();
        assert!(told.contains(&format!("\n  {first}")), "--help does not tell of {request}:\n{told}");
    }
}
