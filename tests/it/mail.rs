//! Mail to the operators: what an SMTP server gets, what is said about one that does not take it, and that none holds anything up.

use std::io::Write;
use std::path::Path;
use std::process::Output;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatserver::config::{MailConfig, Tls};
use chatserver::language::Language;
use chatserver::limits;
use chatserver::mail::{Fault, Letter, MailError, Phase, Post, Sent, send_once};
use mail_parser::{MessageParser, MimeHeaders};
use mailin::AuthMechanism;

use crate::harness::*;
use crate::smtp::*;

/// Long enough for a conversation on this machine, short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);

fn send(letter: &Letter, config: &MailConfig) -> Result<Sent, MailError> {
    send_once(&letter.message(config, SystemTime::now()).unwrap(), config)
}

fn letter() -> Letter {
    Letter { subject: "report".into(), text: "all well\n".into(), ..Letter::default() }
}

#[track_caller]
fn fault(config: &MailConfig) -> Fault {
    let error = send(&letter(), config).expect_err("no mail can be sent there");
    for language in [Language::English, Language::Chinese] {
        assert!(error.describe(language).len() > 40, "{error:?}");
    }
    error.fault
}

/// The files in DIR/mail/.
fn kept(data: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(data.join("mail")) else { return Vec::new() };
    files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_letter_arrives_as_it_was_written() {
    let server = SmtpServer::start(Behaviour::default());
    let png: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let letter = Letter {
        subject: "聊天服务器报告：一切正常 — all well, with a subject that is much longer than a line of a mail".into(),
        text: "用户 12\r\n.\r\nlast line".into(),
        html: Some("<p>用户 12</p><img src=\"cid:chart\">".into()),
        image: Some(png.clone()),
    };
    let sent = send(&letter, &config(server.port, Tls::None)).unwrap();
    assert_eq!((sent.reply.code, sent.reply.text.as_str(), sent.refused.len()), (250, "OK id=1", 0));

    let received = server.the_mail();
    assert_eq!((received.from.as_str(), received.user.as_deref()), ("chat@example.org", None));
    assert_eq!(received.to, ["ann@example.org", "bob@example.org"]);
    let mail = MessageParser::default().parse(&received.mail).unwrap();
    assert_eq!(mail.subject(), Some(letter.subject.as_str()));
    assert_eq!(mail.body_text(0).unwrap().replace("\r\n", "\n"), letter.text.replace("\r\n", "\n"));
    assert_eq!(mail.body_html(0).unwrap(), letter.html.unwrap());
    let image = mail.attachment(0).unwrap();
    assert_eq!((image.contents(), image.content_id()), (png.as_slice(), Some("chart")));
    assert_eq!(mail.from().unwrap().first().unwrap().address(), Some("chat@example.org"));
    assert_eq!(mail.to().unwrap().first().unwrap().name(), Some("Ann"));
    assert_eq!(mail.header_raw("Auto-Submitted").map(str::trim), Some("auto-generated"));
    assert!(mail.message_id().is_some() && mail.date().is_some());
    let longest = received.mail.split(|&byte| byte == b'\n').map(<[u8]>::len).max().unwrap();
    assert!(received.mail.is_ascii() && longest < 1000, "longest line: {longest} bytes");
}

/// Hardening: SMTP and header injection (lettre RUSTSEC-2021-0069).
#[test]
fn a_text_that_looks_like_smtp_stays_text() {
    let server = SmtpServer::start(Behaviour::default());
    let evil = "a\r\n.\r\nMAIL FROM:<x@y.z>\r\nRCPT TO:<x@y.z>\r\nDATA\r\n\r\n.\r\n..\r\n.\n\r.\rQUIT";
    let letter = Letter { subject: evil.into(), text: evil.into(), html: Some(evil.into()), image: None };
    send(&letter, &config(server.port, Tls::None)).unwrap();
    let received = server.the_mail();
    assert_eq!(received.to, ["ann@example.org", "bob@example.org"]);
    let mail = MessageParser::default().parse(&received.mail).unwrap();
    let lines = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(lines(&mail.body_text(0).unwrap()), lines(evil));
    assert_eq!(lines(&mail.body_html(0).unwrap()), lines(evil));
    assert!(mail.subject().unwrap().contains("MAIL FROM:<x@y.z>"), "{:?}", mail.subject());
}

#[test]
fn a_login_is_in_tls_by_either_way_and_mechanism() {
    let dir = tempfile::tempdir().unwrap();
    for (tls, mechanism) in [(Tls::StartTls, AuthMechanism::Plain), (Tls::Tls, AuthMechanism::Login)] {
        let certificate = Certificate::new(dir.path(), "localhost", Flaw::None);
        let ca_file = Some(certificate.file.clone());
        let server = SmtpServer::start(Behaviour {
            tls: Some(tls),
            certificate: Some(certificate),
            login: vec![mechanism],
            ..Behaviour::default()
        });
        let config = MailConfig { ca_file, ..config(server.port, tls) };
        let Fault::Login(reply) = fault(&with_login(config.clone(), "wrong")) else { panic!("the password is wrong") };
        assert_eq!(reply.code, 535);
        assert_eq!(server.received(), []);
        send(&letter(), &with_login(config, PASSWORD)).unwrap();
        assert_eq!(server.the_mail().user.as_deref(), Some(USER));
    }
}

#[test]
fn a_certificate_that_is_not_good_gets_no_mail() {
    let dir = tempfile::tempdir().unwrap();
    let fault_of = |name: &str, flaw, is_known| {
        let certificate = Certificate::new(dir.path(), name, flaw);
        let ca_file = Some(certificate.file.clone()).filter(|_| is_known);
        let behaviour = Behaviour { tls: Some(Tls::Tls), certificate: Some(certificate), ..Behaviour::default() };
        let server = SmtpServer::start(behaviour);
        let fault = fault(&MailConfig { ca_file, ..config(server.port, Tls::Tls) });
        assert_eq!(server.received(), []);
        fault
    };
    assert_eq!(fault_of("localhost", Flaw::None, false), Fault::UnknownIssuer);
    let other = Fault::OtherName { host: "localhost".into(), names: vec!["mail.example.org".into()] };
    assert_eq!(fault_of("mail.example.org", Flaw::None, true), other);
    assert_eq!(fault_of("localhost", Flaw::Expired, true), Fault::Expired);
    assert_eq!(fault_of("localhost", Flaw::Authority, true), Fault::Authority);
}

#[test]
fn a_file_of_certificates_that_is_no_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let server = SmtpServer::start(Behaviour { tls: Some(Tls::Tls), ..Behaviour::default() });
    for (path, word) in [(empty, "no certificate"), (dir.path().join("none.pem"), "No such file")] {
        let config = MailConfig { ca_file: Some(path.clone()), ..config(server.port, Tls::Tls) };
        let Fault::CaFile { path: named, why } = fault(&config) else { panic!("{path:?} is no use") };
        assert!(named == path && why.contains(word), "{why}");
    }
}

#[test]
fn a_server_without_tls_gets_nothing_that_was_to_be_in_tls() {
    let server = SmtpServer::start(Behaviour { login: vec![AuthMechanism::Plain], ..Behaviour::default() });
    assert_eq!(fault(&with_login(config(server.port, Tls::StartTls), PASSWORD)), Fault::NoStartTls);
    assert!(matches!(fault(&with_login(config(server.port, Tls::Tls), PASSWORD)), Fault::Tls(_)));
    assert_eq!(server.received(), []);
    let server = SmtpServer::start(Behaviour::default());
    assert_eq!(fault(&with_login(config(server.port, Tls::None), PASSWORD)), Fault::NoLogin);
}

#[test]
fn what_is_put_behind_starttls_in_the_clear_is_not_believed() {
    let port = parrot(&["220 mail.test\r\n", "250-mail.test\r\n250 STARTTLS\r\n", "220 go\r\n250 injected\r\n"]);
    assert!(matches!(fault(&config(port, Tls::StartTls)), Fault::NotSmtp { phase: Phase::Tls, .. }));
}

#[test]
fn a_refused_recipient_does_not_keep_the_mail_from_the_other() {
    let no_recipients = vec!["ann@example.org"];
    let server = SmtpServer::start(Behaviour { no_recipients, ..Behaviour::default() });
    let sent = send(&letter(), &config(server.port, Tls::None)).unwrap();
    assert_eq!(sent.refused[0].to_string(), "ann@example.org (550 no such user here)");
    assert_eq!((sent.refused.len(), server.the_mail().to), (1, vec!["bob@example.org".to_owned()]));

    let no_recipients = vec!["ann@example.org", "bob@example.org"];
    let server = SmtpServer::start(Behaviour { no_recipients, ..Behaviour::default() });
    let Fault::Recipients(refused) = fault(&config(server.port, Tls::None)) else { panic!("nobody is left") };
    assert_eq!(refused.len(), 2);
}

#[test]
fn sender_text_and_machine_are_refused_each_in_its_words() {
    let no_sender = Some("chat@example.org");
    let server = SmtpServer::start(Behaviour { no_sender, ..Behaviour::default() });
    assert!(matches!(fault(&config(server.port, Tls::None)), Fault::Sender { reply, .. } if reply.code == 553));
    let server = SmtpServer::start(Behaviour { no_text: true, ..Behaviour::default() });
    assert!(matches!(fault(&config(server.port, Tls::None)), Fault::Text(reply) if reply.code == 554));
    let port = parrot(&["554-go\r\n554 away\x1b[2J\r\n"]);
    let Fault::Greeting(reply) = fault(&config(port, Tls::None)) else { panic!("it says 554") };
    assert_eq!(reply.to_string(), "554 go away\\u{1b}[2J", "and a terminal is safe from it");
}

#[test]
fn a_server_that_is_none_is_told_from_one_that_breaks_off_or_hangs() {
    let port = parrot(&["HTTP/1.1 400 Bad Request\r\n"]);
    assert!(matches!(fault(&config(port, Tls::None)), Fault::NotSmtp { phase: Phase::Greeting, .. }));
    let endless = script(|mut tcp| while tcp.write_all(&[b'2'; 4096]).is_ok() {});
    assert!(matches!(fault(&config(endless, Tls::None)), Fault::NotSmtp { phase: Phase::Greeting, .. }));

    assert_eq!(fault(&config(script(drop), Tls::None)), Fault::Closed(Phase::Greeting));
    // Up to DATA, and then one line of the text. It may end by a reset, because the rest of the text is unread.
    const UP_TO_DATA: [&str; 6] = ["220 hi\r\n", "250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"];
    match fault(&config(parrot(&UP_TO_DATA), Tls::None)) {
        Fault::Closed(phase) | Fault::Lost { phase, .. } => assert!(matches!(phase, Phase::Text | Phase::Answer)),
        other => panic!("{other:?}"),
    }
    // Who says yes to everything would take the text for commands.
    let port = parrot(&["220 hi\r\n", "250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n"]);
    assert!(matches!(fault(&config(port, Tls::None)), Fault::NotSmtp { phase: Phase::Text, .. }));

    let short = |port, tls| MailConfig { timeout: SHORT, ..config(port, tls) };
    assert_eq!(fault(&short(silent(), Tls::None)), Fault::TimedOut(Phase::Greeting));
    assert_eq!(fault(&short(silent(), Tls::Tls)), Fault::TimedOut(Phase::Tls));
    let more_than_sockets_hold = vec![0; 12 << 20];
    let long = Letter { html: Some(String::new()), image: Some(more_than_sockets_hold), ..Letter::default() };
    let error = send(&long, &MailConfig { timeout: SHORT * 5, ..config(stuck(&UP_TO_DATA), Tls::None) }).unwrap_err();
    assert_eq!(error.fault, Fault::TimedOut(Phase::Text));
    let drips = || {
        script(|mut tcp| {
            while tcp.write_all(b"2").is_ok() {
                std::thread::sleep(SHORT / 20);
            }
        })
    };
    assert_eq!(fault(&short(drips(), Tls::None)), Fault::TimedOut(Phase::Greeting));
}

#[test]
fn a_server_that_is_not_there_is_named_with_its_addresses() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Fault::NoConnection { tried, timed_out } = fault(&config(free, Tls::None)) else { panic!("nobody is there") };
    assert!(!timed_out && tried.iter().any(|(address, _)| address.to_string() == format!("127.0.0.1:{free}")));
    let nowhere = MailConfig { host: "nowhere.invalid".into(), ..config(free, Tls::None) };
    assert!(matches!(fault(&nowhere), Fault::NoName { host, .. } if host == "nowhere.invalid"));
}

/// Posts a letter; its result comes through the channel.
fn post(post: &Post, config: &MailConfig) -> mpsc::Receiver<Result<Sent, MailError>> {
    let (done, result) = mpsc::channel();
    post.send(&letter(), config, move |result| done.send(result).unwrap()).unwrap();
    result
}

#[test]
fn a_server_that_is_busy_gets_the_letter_at_the_next_try() {
    let server = SmtpServer::start(Behaviour { busy: 2, ..Behaviour::default() });
    let data = tempfile::tempdir().unwrap();
    let office = Post::new(data.path(), &[Duration::ZERO; 2]);
    let result = post(&office, &config(server.port, Tls::None)).recv_timeout(PATIENCE).unwrap();
    assert_eq!(result.unwrap().reply.code, 250);
    server.the_mail();
    assert_eq!(kept(data.path()), [""; 0], "what was kept between the tries is removed");
}

#[test]
fn a_letter_that_cannot_be_sent_is_kept_and_tried_no_more_often_than_makes_sense() {
    let data = tempfile::tempdir().unwrap();
    let office = Post::new(data.path(), &[Duration::ZERO; 2]);
    let server = SmtpServer::start(Behaviour { busy: 3, ..Behaviour::default() });
    let result = post(&office, &config(server.port, Tls::None)).recv_timeout(PATIENCE).unwrap();
    let error = result.unwrap_err();
    assert!(error.is_transient() && error.to_string().ends_with("perhaps later"), "{error}");
    assert!(kept(data.path())[0].contains("\r\n\r\nall well"), "{:?}", kept(data.path()));
    assert_eq!(server.received(), [], "three tries, and no fourth");

    let refusals = vec!["ann@example.org", "bob@example.org"];
    let server = SmtpServer::start(Behaviour { no_recipients: refusals, busy: 0, ..Behaviour::default() });
    // One try only, or the pause would outlast the test's patience.
    let office = Post::new(data.path(), &[PATIENCE * 10]);
    let result = post(&office, &config(server.port, Tls::None)).recv_timeout(PATIENCE).unwrap();
    assert!(!result.unwrap_err().is_transient());
    assert_eq!(kept(data.path()).len(), 2);
}

#[test]
fn a_relay_that_hangs_gives_its_threads_back_and_takes_few() {
    let data = tempfile::tempdir().unwrap();
    let office = Post::new(data.path(), &[]);
    let config = MailConfig { timeout: SHORT * 5, ..config(silent(), Tls::None) };
    let results: Vec<_> = (0..limits::MAIL_THREADS).map(|_| post(&office, &config)).collect();
    let refused = office.send(&letter(), &config, |_| panic!("it was not begun")).unwrap_err();
    assert_eq!(refused.fault, Fault::TooMany);
    for result in results {
        let error = result.recv_timeout(PATIENCE).unwrap().unwrap_err();
        assert_eq!((error.fault.clone(), error.is_timeout()), (Fault::TimedOut(Phase::Greeting), true));
    }
    assert_eq!(kept(data.path()).len(), limits::MAIL_THREADS);
    post(&office, &config).recv_timeout(PATIENCE).unwrap().unwrap_err();
}

#[test]
fn a_stop_keeps_the_letter_and_does_not_wait_for_the_relay() {
    let data = tempfile::tempdir().unwrap();
    let office = Post::new(data.path(), &[PATIENCE * 10]);
    let hangs = MailConfig { timeout: PATIENCE * 10, ..config(silent(), Tls::None) };
    let hanging = post(&office, &hangs);
    office.stop();
    assert_eq!(kept(data.path()).len(), 1);
    assert!(hanging.try_recv().is_err(), "it still hangs");
    // And a pause between two tries ends with the stop.
    let server = SmtpServer::start(Behaviour { busy: 1, ..Behaviour::default() });
    post(&office, &config(server.port, Tls::None)).recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(kept(data.path()).len(), 2);
}

/// `chatserver mail test` with these settings, and what it ends with.
#[track_caller]
fn mail_test(settings: &[(&str, &str)], code: i32) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["mail", "test", "--data", dir.path().to_str().unwrap()]).env("LC_ALL", "C.UTF-8");
    command.envs(settings.iter().map(|(name, value)| (format!("CHATSERVER_{}", name.to_uppercase()), value)));
    let Output { status, stdout, stderr } = run(command, "");
    let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

#[test]
fn mail_test_tells_each_step() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(dir.path(), "localhost", Flaw::None);
    let file = certificate.file.to_str().unwrap().to_owned();
    let server = SmtpServer::start(Behaviour {
        tls: Some(Tls::StartTls),
        certificate: Some(certificate),
        login: vec![AuthMechanism::Plain],
        no_recipients: vec!["gone@example.org"],
        ..Behaviour::default()
    });
    let port = server.port.to_string();
    let mut settings = vec![
        ("mail_to", "ops@example.org"),
        ("mail_from", "chat@example.org"),
        ("smtp_port", &port),
        ("smtp_ca_file", &file),
        ("smtp_user", USER),
        ("smtp_password", PASSWORD),
    ];
    let (out, err) = mail_test(&settings, 0);
    for line in
        ["127.0.0.1", "certificate is good", "logged in as ops", "recipient ops@example.org: accepted", "250 OK"]
    {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    assert_eq!(err, "");
    assert!(!out.contains(PASSWORD));
    let mail = server.the_mail().mail;
    let mail = MessageParser::default().parse(&mail).unwrap();
    assert_eq!(mail.subject(), Some("chatserver: a test mail"));
    assert!(mail.date().unwrap().to_timestamp() > UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 - 3600);

    settings[0].1 = "ops@example.org,gone@example.org";
    let (out, _) = mail_test(&settings, 3);
    assert!(out.contains("recipient gone@example.org: refused (550 no such user here)"), "{out}");
    settings.push(("language", "zh"));
    let (out, _) = mail_test(&settings, 3);
    assert!(out.contains("已用 ops 登录") && out.contains("邮件服务器已收下邮件"), "{out}");
    settings[5].1 = "wrong";
    let (_, err) = mail_test(&settings, 3);
    assert!(err.contains("拒绝登录（535 Invalid credentials）"), "{err}");
}

#[test]
fn mail_test_ends_with_what_is_to_be_done() {
    let (_, err) = mail_test(&[], 1);
    assert!(err.contains("set mail_to to your mail address"), "{err}");
    let nowhere = [("mail_to", "ops@example.org"), ("smtp_host", "nowhere.invalid")];
    let (_, err) = mail_test(&nowhere, 1);
    assert!(err.contains("the mail server's name nowhere.invalid was not found"), "{err}");
    let port = silent().to_string();
    let silent = [("mail_to", "ops@example.org"), ("smtp_port", port.as_str()), ("smtp_timeout", "300 ms")];
    let (out, err) = mail_test(&silent, 4);
    assert!(out.contains("connected to") && err.contains("write smtp_tls = \"tls\""), "{out}{err}");
}
