//! `ctl.sock`, SIGHUP, and reports: how a running server is asked, told and mailed about.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::*;
use crate::network::reset_client;
use crate::smtp::{Behaviour, SmtpServer, silent};

/// A conversation with a server over its socket.
pub struct Ctl(BufReader<UnixStream>);

impl Ctl {
    pub fn of(server: &Server) -> Ctl {
        let socket = UnixStream::connect(server.data().join("ctl.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Ctl(BufReader::new(socket))
    }

    pub fn ask(&mut self, request: &str) -> Value {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

/// The server's status.
pub fn status(server: &Server) -> Value {
    Ctl::of(server).ask("status")
}

/// One number of it: `"counts.logins"`.
#[track_caller]
pub fn number(status: &Value, path: &str) -> i64 {
    let value = path.split('.').fold(status, |value, name| &value[name]);
    value.as_i64().unwrap_or_else(|| panic!("no number {path} in {status}"))
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[test]
fn status_tells_what_has_happened() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    let mut bob = server.login("bob");
    let _stranger = server.socket();
    send_all(&mut ann, "bob", &numbered("live", 3));
    assert_eq!(texts(&mut bob, 3).len(), 3);
    send_all(&mut ann, "carol", &numbered("kept", 2));
    send_all(&mut ann, "no\u{7}body", &["refused"]);
    let mut again = server.login("ann");
    server.socket().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut ctl = Ctl::of(&server);
    let mut last = Value::Null;
    let is_told = happens_within(PATIENCE, || {
        // Signs of life: what the first connection was handed, and TCP had not acknowledged yet, has come to this one.
        again.ping().unwrap();
        last = ctl.ask("status");
        let status = &last;
        let is = |path, expected| number(status, path) == expected;
        // Three barriers of Ann's own are live messages too.
        is("counts.relayed", 6)
            && is("counts.waiting", 2)
            && is("counts.refused_name", 1)
            && is("counts.logins", 3)
            && is("counts.takeovers", 1)
            && is("counts.error_other_protocol", 1)
            && is("users.present", 2)
            && is("users.peak", 2)
            && is("connections.open", 3)
            && is("connections.strangers", 1)
            && is("backlog.messages", 2)
    });
    assert!(is_told, "{last}");
    let status = ctl.ask("status");
    assert!(number(&status, "backlog.oldest_at") > 1_700_000_000_000, "{status}");
    assert!(number(&status, "database.last_save_us") > 0 && number(&status, "database.used_bytes") > 0, "{status}");
    assert_eq!(number(&status, "pid"), i64::from(server.pid()));
    let machine = |name: &str| number(&status, &format!("machine.{name}"));
    assert!(machine("resident_bytes") > 1 << 20 && machine("threads") >= 8 && machine("descriptors") >= 10, "{status}");
    assert!(machine("thread_limit") > 100 && machine("descriptor_limit") > 100, "{status}");
}

#[test]
fn save_answers_when_everything_accepted_before_is_on_disk() {
    let server = Server::start(|setup| setup.set("save_interval", "1 h"));
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &numbered("m", 10_000));
    assert!(server.rows_of("bob") < 10_000);
    let mut ctl = Ctl::of(&server);
    let saved = number(&ctl.ask("save"), "saved");
    assert_eq!(server.rows_of("bob"), 10_000);
    assert!((1..=10_001).contains(&saved), "{saved}");
    assert_eq!(number(&ctl.ask("save"), "saved"), 0);
}

#[test]
fn what_is_no_request_is_answered_in_words_and_harms_nobody() {
    let server = Server::start_default();
    let mode = std::fs::metadata(server.data().join("ctl.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut ctl = Ctl::of(&server);
    for request in ["", "nonsense", "report fr", "status now"] {
        assert!(error(&ctl.ask(request)).contains("these are known: status, report"), "{request}");
    }
    assert!(ctl.ask("help")["save"].is_string());
    assert!(error(&ctl.ask("report send")).contains("mail_to names nobody"));
    ctl.0.get_mut().write_all(b"\xff\n").unwrap();
    assert!(error(&ctl.answer()).contains("UTF-8"));
    // A line without an end.
    let mut long = Ctl::of(&server);
    long.0.get_mut().write_all(&[b'x'; 5000]).unwrap();
    assert!(error(&long.answer()).contains("at most 1024 bytes"));
    let mut rest = Vec::new();
    // Closed, by a reset since there was more to read.
    let _ = long.0.read_to_end(&mut rest);
    assert!(rest.is_empty());
    // As many as may be, silent ones: one more is closed, and the clients of the chat do not notice.
    let open: Vec<Ctl> = (0..chatserver::limits::CTL_CONNECTIONS).map(|_| Ctl::of(&server)).collect();
    server.wait_for_log("ctl.sock: refused");
    Pair::of(&server, "ann", "bob").chat();
    drop((ctl, open));
    // A request without a line's end, as `printf status | nc -U` sends it.
    eventually("there is room again", || {
        let mut socket = UnixStream::connect(server.data().join("ctl.sock")).unwrap();
        let mut answer = String::new();
        let asked = socket.write_all(b"status").and_then(|()| socket.shutdown(Shutdown::Write));
        asked.and_then(|()| socket.read_to_string(&mut answer)).is_ok() && answer.contains("\"counts\"")
    });
}

#[test]
fn the_socket_of_a_killed_server_is_replaced_and_a_stop_removes_it() {
    let mut server = Server::start_default();
    let idle = Ctl::of(&server);
    server.kill9();
    assert!(server.data().join("ctl.sock").exists());
    let mut server = server.restart();
    assert_eq!(number(&status(&server), "counts.logins"), 0);
    let _idle = (idle, Ctl::of(&server));
    assert_eq!(server.sigterm().code(), Some(0));
    assert!(!server.data().join("ctl.sock").exists());
}

fn ask_by_command(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = program();
    command.args(arguments).arg("--data").arg(server.data()).env("LANG", "C");
    let output = run(command, "");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn ctl_and_report_ask_a_running_server() {
    let mut server = Server::start(|setup| setup.set("mail_to", "ops@example.org").set("language", "zh"));
    server.login("ann").logout().unwrap();
    let (code, out, _) = ask_by_command(&server, &["ctl", "status"]);
    assert_eq!((code, number(&serde_json::from_str(&out).unwrap(), "counts.logouts")), (Some(0), 1));
    let (code, out, _) = ask_by_command(&server, &["ctl", "nonsense"]);
    assert_eq!(code, Some(3), "{out}");
    let (code, chinese, _) = ask_by_command(&server, &["report"]);
    assert!(code == Some(0) && chinese.contains("一切正常") && chinese.contains("主动登出"), "{chinese}");
    let (_, english, _) = ask_by_command(&server, &["report", "--language", "en"]);
    assert!(english.contains("all well") && english.contains("logouts"), "{english}");
    let (page, mail) = (server.data().join("page.html"), server.data().join("mail.eml"));
    let files = ["report", "--html", page.to_str().unwrap(), "--eml", mail.to_str().unwrap()];
    assert_eq!(ask_by_command(&server, &files), (Some(0), String::new(), String::new()));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("lang=\"zh-CN\"") && page.contains("src=\"data:image/png;base64,"), "{page}");
    let mail = std::fs::read(mail).unwrap();
    let mail = mail_parser::MessageParser::default().parse(&mail).unwrap();
    assert!(mail.subject().unwrap().contains("一切正常"));
    server.sigterm();
    let (code, _, why) = ask_by_command(&server, &["report"]);
    assert!(code == Some(1) && why.contains("no server runs on the data directory"), "{why}");
}

/// Sends SIGHUP and waits until it is done: `count` of its last lines are in the log.
fn hang_up(server: &Server, last: &str, count: usize) {
    server.signal(Signal::HUP);
    eventually(last, || server.logged(last) == count);
}

#[test]
fn sighup_opens_the_log_anew_and_takes_over_what_can_change() {
    let server = Server::start_default();
    let (log, config) = (server.data().join("chatserver.log"), server.data().join("chatserver.toml"));
    let mut before = server.login("before");
    std::fs::rename(&log, server.data().join("chatserver.log.1")).unwrap();
    let settings = "read_timeout = \"300 ms\"\nlanguage = \"zh\"\nlog_level = \"debug\"\nsave_interval = \"7 s\"\n";
    std::fs::write(&config, settings).unwrap();
    hang_up(&server, "configuration read again", 1);
    let new_log = || std::fs::read_to_string(&log).unwrap();
    eventually("the new file has the lines", || new_log().contains("configuration read again"));
    assert!(new_log().contains("read_timeout = 300 ms") && new_log().contains("was 2 min"), "{}", new_log());
    assert!(new_log().contains("save_interval = 7 s") && new_log().contains("takes effect at the next start"));
    assert!(!std::fs::read_to_string(server.data().join("chatserver.log.1")).unwrap().contains("SIGHUP"));
    // For those who come from now on.
    let refusal = server.connect().login("no\u{7}body").unwrap_err().to_string();
    assert!(refusal.contains("用户名不能包含"), "{refusal}");
    let _after = server.login("after");
    server.wait_for_log("after: silent for too long");
    server.wait_for_log("[DEBUG]");
    before.roundtrip().unwrap();
}

/// Hardening: reload weakens security (Mosquitto CVE-2017-7652, CVE-2018-12550).
#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("my.toml");
    std::fs::write(&config, "read_timeout = \"300 ms\"\n").unwrap();
    let server = Server::start(|setup| setup.argument("--config").argument(config.to_str().unwrap()));
    let attempts: [(&str, &dyn Fn()); 6] = [
        ("unknown setting", &|| std::fs::write(&config, "nonsense = 1\n").unwrap()),
        ("is empty", &|| std::fs::write(&config, "").unwrap()),
        ("is empty", &|| std::fs::write(&config, " \n\n").unwrap()),
        ("not UTF-8", &|| std::fs::write(&config, b"# \xff").unwrap()),
        ("outbox_bytes", &|| {
            std::fs::write(&config, "max_packet_bytes = \"1 MiB\"\noutbox_bytes = \"4 MiB\"\n").unwrap()
        }),
        ("cannot be read", &|| std::fs::remove_file(&config).unwrap()),
    ];
    for (count, (why, spoil)) in attempts.iter().enumerate() {
        spoil();
        hang_up(&server, "the configuration stays as it was", count + 1);
        server.wait_for_log(why);
    }
    // A directory in its place cannot be read by anybody, not even root.
    std::fs::create_dir(&config).unwrap();
    hang_up(&server, "the configuration stays as it was", attempts.len() + 1);
    let _silent = server.login("silent");
    server.wait_for_log("silent: silent for too long");
    std::fs::remove_dir(&config).unwrap();
    std::fs::write(&config, "read_timeout = \"5 min\"\n").unwrap();
    hang_up(&server, "configuration read again", 1);
}

fn mails_to<'s>(setup: &'s mut Setup, port: u16, interval: &str) -> &'s mut Setup {
    setup
        .set("mail_to", "ops@example.org")
        .set("smtp_host", "127.0.0.1")
        .set("smtp_port", &port.to_string())
        .set("smtp_tls", "none")
        .set("report_interval", interval)
}

/// A received mail's subject, text and HTML, and the picture in it.
fn parts(mail: &[u8]) -> (String, String, String, Vec<u8>) {
    let mail = mail_parser::MessageParser::default().parse(mail).unwrap();
    let text = |body: Option<std::borrow::Cow<'_, str>>| body.unwrap_or_default().into_owned();
    let picture = mail.attachments().next().map(|picture| picture.contents().to_vec()).unwrap_or_default();
    (mail.subject().unwrap().to_owned(), text(mail.body_text(0)), text(mail.body_html(0)), picture)
}

#[test]
fn reports_go_out_by_themselves_and_each_tells_of_its_own_period() {
    let smtp = SmtpServer::start(Behaviour::default());
    let server = Server::start(|setup| mails_to(setup, smtp.port, "1 s"));
    for name in ["ann", "bob", "carol"] {
        server.login(name).logout().unwrap();
    }
    eventually("reports arrive", || smtp.received().len() >= 3);
    let logouts = |mail: &[u8]| -> u64 {
        let text = parts(mail).1;
        let line = text.lines().find(|line| line.trim_start().starts_with("logouts"));
        line.map_or(0, |line| line.split_whitespace().last().unwrap().parse().unwrap())
    };
    let told: Vec<u64> = smtp.received().iter().map(|received| logouts(&received.mail)).collect();
    assert_eq!(told.iter().sum::<u64>(), 3, "{told:?}");
    let last = smtp.received().pop().unwrap();
    assert_eq!(last.to, ["ops@example.org"]);
    let (subject, text, html, picture) = parts(&last.mail);
    assert!(subject.starts_with("chatserver on ") && subject.ends_with(": all well"), "{subject}");
    assert!(
        text.contains("nothing") && html.contains("All well") && html.contains("src=\"cid:chart\""),
        "{text}\n{html}"
    );
    assert!(picture.starts_with(b"\x89PNG"), "{} bytes", picture.len());
}

#[test]
fn what_a_failed_report_told_of_is_in_the_next_one() {
    let smtp = SmtpServer::start(Behaviour { no_text: true, ..Behaviour::default() });
    let server = Server::start(|setup| mails_to(setup, smtp.port, "1 s"));
    server.login("ann").logout().unwrap();
    eventually("reports are refused, and kept", || {
        number(&status(&server), "counts.mails_failed") >= 2 && kept(&server.data()) >= 2
    });
    let report = Ctl::of(&server).ask("report");
    let text = report["text"].as_str().unwrap();
    assert!(text.contains("logouts") && text.contains("mails could not be sent"), "{text}");
    assert!(report["subject"].as_str().unwrap().contains("mails could not be sent"), "{report}");
}

fn kept(data: &Path) -> usize {
    std::fs::read_dir(data.join("mail")).map_or(0, Iterator::count)
}

#[test]
fn a_relay_that_says_nothing_holds_up_no_message_no_save_and_no_stop() {
    let port = silent();
    let mut server = Server::start(|setup| mails_to(setup, port, "1 s").set("save_interval", "50 ms"));
    eventually("a report is on its way", || server.has_thread("mail"));
    let mut pair = Pair::of(&server, "ann", "bob");
    let mut carol = server.login("carol");
    for round in 1..=20 {
        pair.chat();
        send_all(&mut carol, "absent", &["x"]);
        eventually("it is saved", || server.rows_of("absent") == round);
    }
    assert!(server.has_thread("mail"), "the relay has held the report all the time");
    assert_eq!(server.sigterm().code(), Some(0));
    assert_eq!(kept(&server.data()), 1, "what was on its way at the stop is kept");
}

#[test]
fn an_alert_is_mailed_at_once() {
    let smtp = SmtpServer::start(Behaviour::default());
    let server =
        Server::start(|setup| mails_to(setup, smtp.port, "12 h").set("max_connections", "1").set("language", "zh"));
    let _one = server.login("ann");
    let mut refused = server.socket();
    let mut rest = Vec::new();
    refused.read_to_end(&mut rest).unwrap();
    eventually("an alert arrives", || !smtp.received().is_empty());
    let (subject, text, ..) = parts(&smtp.the_mail().mail);
    assert!(subject.contains("告警：1 个连接已全部占用"), "{subject}");
    assert!(text.contains("config check"), "{text}");
    server.wait_for_log("alert: all 1 connections were taken");
}

#[test]
fn a_report_can_be_sent_by_hand_and_says_why_not() {
    let smtp = SmtpServer::start(Behaviour { no_recipients: vec!["eve@example.org"], ..Behaviour::default() });
    let server =
        Server::start(|setup| mails_to(setup, smtp.port, "0 s").set("mail_to", "ops@example.org, eve@example.org"));
    let (code, out, err) = ask_by_command(&server, &["report", "--send"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("The report is sent.") && out.contains("eve@example.org"), "{out}");
    assert_eq!(smtp.the_mail().to, ["ops@example.org"]);
    let server = server.restart_with(|setup| setup.set("mail_to", "eve@example.org"));
    let (code, _, why) = ask_by_command(&server, &["report", "--send"]);
    assert!(code == Some(3) && why.contains("eve@example.org"), "{why}");
}

#[test]
fn a_name_made_for_another_protocol_stays_text_in_a_report() {
    let smtp = SmtpServer::start(Behaviour::default());
    let server = Server::start(|setup| mails_to(setup, smtp.port, "0 s"));
    let evil = "x\r\n.\r\nMAIL FROM:<eve@example.org>\r\n";
    assert!(server.connect().login(evil).is_err());
    let mut ann = server.login("ann <b>&.");
    send_all(&mut ann, "bob", &[evil, ".", "..\r\n.\r\n"]);
    reset_client(ann);
    assert_eq!(ask_by_command(&server, &["report", "--send"]).0, Some(0));
    let received = smtp.the_mail();
    assert_eq!((received.to.len(), smtp.received().len()), (1, 1));
    assert!(!String::from_utf8_lossy(&received.mail).contains("eve@"));
}
