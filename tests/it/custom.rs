//! Packets of an embedding program: its handlers, which may fail or be slow without harm to anybody but their own client.
//!
//! The servers of this module run in the test's own process, since the program itself has no handlers.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use chatserver::client::{Client, CustomPacket};
use chatserver::config::Config;
use chatserver::protocol::{PUBLISHED_KEY, encode_packet};
use chatserver::server::{Handlers, ReplyError, Server, Stopped};

use crate::harness::{PATIENCE, all_texts, eventually, expect_close, next, numbered, texts};

#[allow(dead_code)]
#[path = "../../examples/custom_packet.rs"]
mod example;

const ASK: u32 = 1000;
const ANSWER: u32 = 1001;

/// A server with handlers, in a directory of its own.
struct Custom {
    server: Server,
    _data: tempfile::TempDir,
}

impl Custom {
    #[track_caller]
    fn start(handlers: Handlers) -> Custom {
        Custom::start_with(Config::default(), handlers)
    }

    #[track_caller]
    fn start_with(config: Config, handlers: Handlers) -> Custom {
        let data = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = Config { listen, data: data.path().to_owned(), ..config };
        config.check().unwrap();
        Custom { server: Server::start_with(config, handlers).unwrap(), _data: data }
    }

    #[track_caller]
    fn login(&self, name: &str) -> Client {
        Client::connect(self.server.local_addr().to_string(), PUBLISHED_KEY).timeout(PATIENCE).login(name).unwrap()
    }

    fn stop(self) -> Stopped {
        self.server.stop()
    }
}

/// A handler that sends back what it got.
fn echo() -> Handlers {
    Handlers::new().on(ASK, |call| Ok(call.reply(ANSWER, call.body())?)).unwrap()
}

#[track_caller]
fn answer(client: &mut Client) -> CustomPacket {
    client.recv_custom(PATIENCE).unwrap().expect("an answer")
}

#[test]
fn the_example_runs() {
    example::play().unwrap();
}

#[test]
fn a_handler_gets_the_body_and_its_reply_arrives() {
    let handlers = Handlers::new()
        .on(ASK, |call| {
            assert_eq!(call.kind(), ASK);
            call.reply(ANSWER, format!("{} sent {}", call.user(), call.body().len()).as_bytes())?;
            Ok(call.reply(2000, call.body())?)
        })
        .unwrap();
    let server = Custom::start(handlers);
    let mut client = server.login("小红");
    for body in [&b""[..], b"short", &[7; 16], &[9; 60_000]] {
        client.send_custom(ASK, body).unwrap();
        let (first, second) = (answer(&mut client), answer(&mut client));
        assert_eq!((first.kind, first.body), (ANSWER, format!("小红 sent {}", body.len()).into_bytes()));
        assert_eq!((second.kind, second.body.as_slice()), (2000, body));
    }
    server.stop();
}

#[test]
fn messages_and_custom_packets_keep_their_order_and_do_not_disturb_each_other() {
    let server = Custom::start(echo());
    let (mut ann, mut bob) = (server.login("ann"), server.login("bob"));
    for number in 0..500_u32 {
        ann.queue("bob", &number.to_string());
        ann.send_custom(ASK, &number.to_be_bytes()).unwrap();
        ann.queue("ann", &number.to_string());
    }
    ann.roundtrip().unwrap();
    let expected: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(texts(&mut bob, 500), expected);
    assert_eq!(texts(&mut ann, 500), expected);
    assert!((0..500_u32).all(|number| answer(&mut ann).body == number.to_be_bytes()));
    server.stop();
}

#[test]
fn before_the_login_and_without_a_handler_the_connection_ends() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let handlers = Handlers::new().on(ASK, move |_| {
        count.fetch_add(1, SeqCst);
        Ok(())
    });
    let server = Custom::start(handlers.unwrap());
    let mut stranger = Client::connect(server.server.local_addr().to_string(), PUBLISHED_KEY).open().unwrap();
    let (cipher, mut packet) = (chatserver::protocol::Cipher::new(PUBLISHED_KEY).unwrap(), Vec::new());
    encode_packet(ASK, b"hello", &cipher, &mut packet);
    stranger.write_raw(&packet).unwrap();
    assert!(stranger.read_to_close(PATIENCE).unwrap().0.is_empty(), "no answer, just a close");
    for unknown in [0, 6, 101, ANSWER] {
        let mut ann = server.login("ann");
        ann.send_custom(unknown, b"hello").unwrap();
        expect_close(&mut ann);
    }
    let mut ann = server.login("ann");
    // The right type, but not a body that can be opened.
    let mut broken = packet.clone();
    *broken.last_mut().unwrap() ^= 1;
    ann.connection().write_raw(&broken).unwrap();
    expect_close(&mut ann);
    assert_eq!(calls.load(SeqCst), 0);
    server.stop();
}

/// Hardening: panic ends the process (NATS CVE-2026-27889).
#[test]
fn an_error_or_a_panic_ends_one_connection_and_what_came_before_it_arrives() {
    let handlers = echo()
        .on(2000, |_| Err("there are no such dice".into()))
        .and_then(|handlers| handlers.on(2001, |call| panic!("on purpose, for {}", call.user())))
        .unwrap();
    let server = Custom::start(handlers);
    let (mut bob, mut eve) = (server.login("bob"), server.login("eve"));
    for fault in [2000, 2001] {
        let mut ann = server.login("ann");
        // All in one write: the fault comes while the rest is still to be flushed.
        let mut sender = ann.sender();
        numbered("before", 50).iter().for_each(|text| {
            sender.queue("bob", text);
            sender.queue("absent", text);
        });
        sender.queue_custom(ASK, b"answered");
        sender.queue_custom(fault, b"");
        sender.queue("bob", "after");
        sender.flush().unwrap();
        assert_eq!(answer(&mut ann).body, b"answered", "before the close");
        expect_close(&mut ann);
        assert_eq!(texts(&mut bob, 50), numbered("before", 50));
        eve.send("bob", "the others go on").unwrap();
        assert_eq!(next(&mut bob).text, "the others go on");
    }
    let waiting = [numbered("before", 50), numbered("before", 50)].concat();
    assert_eq!(all_texts(&mut server.login("absent")), waiting);
    server.login("ann").roundtrip().unwrap();
    server.stop();
}

#[test]
fn replies_have_a_bound_and_types_that_they_may_not_have() {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = errors.clone();
    let config = Config { outbox_bytes: 200_000, ..Config::default() };
    let handlers = Handlers::new().on(ASK, move |call| {
        for (kind, length) in [(5, 0), (2, 0), (104, 0), (ANSWER, 200_000), (ANSWER, 150_000), (ANSWER, 60_000)] {
            seen.lock().unwrap().push(call.reply(kind, &vec![1; length]).err());
        }
        Ok(call.reply(ANSWER, b"the end")?)
    });
    let server = Custom::start_with(config, handlers.unwrap());
    let mut ann = server.login("ann");
    ann.send_custom(ASK, b"").unwrap();
    assert_eq!((answer(&mut ann).body.len(), answer(&mut ann).body), (150_000, b"the end".to_vec()));
    let too_much = |bytes| Some(ReplyError::TooMuch { bytes, limit: 200_000 });
    let reserved = |kind| Some(ReplyError::Reserved(kind));
    let expected = [reserved(5), reserved(2), reserved(104), too_much(200_024), None, too_much(210_048)];
    assert_eq!(*errors.lock().unwrap(), expected);
    server.stop();
}

/// A handler that counts its calls and answers each with 50,000 bytes.
fn long_answers() -> (Handlers, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let handlers = Handlers::new().on(ASK, move |call| {
        count.fetch_add(1, SeqCst);
        Ok(call.reply(ANSWER, &[1; 50_000])?)
    });
    (handlers.unwrap(), calls)
}

/// Far more than the sockets between the two take, 20 MB.
const ASKED: usize = 400;

/// Asks for so much.
fn ask_much(client: &mut Client) {
    let mut sender = client.sender();
    (0..ASKED).for_each(|_| sender.queue_custom(ASK, b""));
    sender.flush().unwrap();
}

#[test]
fn who_does_not_read_its_replies_waits_alone_and_gets_them_all_when_it_reads() {
    let (handlers, calls) = long_answers();
    let server = Custom::start(handlers);
    let (mut slow, mut bob) = (server.login("slow"), server.login("bob"));
    ask_much(&mut slow);
    // It is called for until the sockets and its outbox are full, and no further.
    let mut before = 0;
    eventually("the handler is not called any more", || {
        bob.roundtrip().unwrap();
        let now = calls.load(SeqCst);
        std::mem::replace(&mut before, now) == now && now > 20
    });
    assert!(calls.load(SeqCst) < ASKED * 3 / 4, "20 MB are not held for it: {}", calls.load(SeqCst));
    bob.send("slow", "meanwhile").unwrap();
    bob.roundtrip().unwrap();
    for _ in 0..ASKED {
        assert_eq!(answer(&mut slow).body.len(), 50_000);
    }
    assert_eq!(next(&mut slow).text, "meanwhile");
    assert_eq!(calls.load(SeqCst), ASKED);
    server.stop();
}

#[test]
fn who_never_reads_its_replies_is_closed_after_the_stall_timeout() {
    let (handlers, calls) = long_answers();
    let config = Config { write_stall_timeout: std::time::Duration::from_millis(300), ..Config::default() };
    let server = Custom::start_with(config, handlers);
    let (mut slow, mut bob) = (server.login("slow"), server.login("bob"));
    bob.send("slow", "hello").unwrap();
    assert_eq!(next(&mut slow).text, "hello");
    ask_much(&mut slow);
    // Its connection ends without a byte being read here: a write of its own finds out.
    eventually("it is closed", || slow.send_custom(ASK, b"").is_err());
    assert!(calls.load(SeqCst) < ASKED * 3 / 4, "{}", calls.load(SeqCst));
    server.login("slow").roundtrip().unwrap();
    server.stop();
}

#[test]
fn a_stop_does_not_wait_for_who_does_not_read_its_replies() {
    let (handlers, calls) = long_answers();
    let config = Config { shutdown_timeout: std::time::Duration::from_millis(300), ..Config::default() };
    let server = Custom::start_with(config, handlers);
    let mut slow = server.login("slow");
    ask_much(&mut slow);
    eventually("the handler is called", || calls.load(SeqCst) > 20);
    server.stop();
    assert!(calls.load(SeqCst) < ASKED * 3 / 4, "{}", calls.load(SeqCst));
}

#[test]
fn a_takeover_does_not_wait_for_a_handler_and_its_late_reply_goes_nowhere() {
    let (begun, has_begun) = mpsc::channel();
    let (finish, may_finish) = mpsc::channel::<()>();
    let (told, outcome) = mpsc::channel();
    let may_finish = Mutex::new(may_finish);
    let handlers = echo().on(2000, move |call| {
        begun.send(()).unwrap();
        may_finish.lock().unwrap().recv().unwrap();
        told.send(call.reply(ANSWER, b"too late")).unwrap();
        Ok(())
    });
    let server = Custom::start(handlers.unwrap());
    let mut old = server.login("ann");
    let mut sender = old.sender();
    sender.queue_custom(2000, b"");
    sender.queue_custom(2000, b"");
    sender.flush().unwrap();
    has_begun.recv_timeout(PATIENCE).unwrap();
    let mut new = server.login("ann");
    new.send_custom(ASK, b"in time").unwrap();
    assert_eq!(answer(&mut new).body, b"in time", "while the old handler still runs");
    finish.send(()).unwrap();
    assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Err(ReplyError::Gone));
    expect_close(&mut old);
    new.roundtrip().unwrap();
    assert!(new.recv_custom(std::time::Duration::ZERO).unwrap().is_none());
    server.stop();
    assert!(has_begun.try_recv().is_err(), "what the old connection had sent further is not executed");
}
