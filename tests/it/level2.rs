//! Level 2 on the wire: receipts, acks, notices, pongs, numbers. Packets are written and read here one by one, without the client library's
//! own memory of what it has sent and seen.

use std::io::{Read, Write};
use std::time::Duration;

use chatserver::client::{Connection, Incoming};
use chatserver::protocol::{Chat, Granted, LoginAnswer, Message, NoticeCode, Reason, Status};
use rustix::process::Signal;

use crate::control::{number, status};
use crate::hardening::Fault;
use crate::harness::*;
use crate::network::*;
use crate::wire;

/// Longer than any test: receipts fall due at once, or never.
const NEVER: &str = "1 h";

/// A level-2 client that does nothing by itself.
struct Two {
    name: String,
    connection: Connection,
    granted: Granted,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Text(String, Option<u64>, u64),
    Receipt(Vec<u64>, Status, Option<Reason>),
    Notice(NoticeCode),
    Pong(i64),
}

fn stored(id: u64) -> Got {
    Got::Receipt(vec![id], Status::Stored, None)
}

fn delivered(id: u64) -> Got {
    Got::Receipt(vec![id], Status::Delivered, None)
}

fn refused(id: u64, reason: Reason) -> Got {
    Got::Receipt(vec![id], Status::Refused, Some(reason))
}

impl Two {
    fn login(server: &Server, name: &str) -> Two {
        Two::resume(server, name, None)
    }

    fn resume(server: &Server, name: &str, last_seq: Option<u64>) -> Two {
        let mut connection = server.connect().open().unwrap();
        let login = Message::ClientLogin { name, version: 1.0, time: 7, level: Some(2), last_seq };
        connection.write_message(&login).unwrap();
        let granted = connection.read_message(PATIENCE, |message| match message {
            Message::ServerAcceptLogin(LoginAnswer { login: true, granted, .. }) => granted,
            other => panic!("{other:?}"),
        });
        Two { name: name.into(), connection, granted: granted.unwrap().unwrap().expect("level 2 is granted") }
    }

    fn send(&mut self, id: u64, to: &str, text: &str) {
        let chat = Chat { from: &self.name, to, text, time: 7, msg_id: Some(id), seq: None };
        self.connection.write_message(&Message::Chat(chat)).unwrap();
    }

    fn ack(&mut self, seq: u64) {
        self.connection.write_message(&Message::ClientAck { seq }).unwrap();
    }

    fn next_within(&mut self, timeout: Duration) -> Option<Got> {
        let got = self.connection.read_message(timeout, |message| match message {
            Message::Chat(chat) => Got::Text(chat.text.into(), chat.msg_id, chat.seq.expect("a seq for level 2")),
            Message::ServerReceipt(receipt) => {
                assert_eq!(receipt.text.is_some(), receipt.reason.is_some());
                Got::Receipt(receipt.msg_ids.into(), receipt.status, receipt.reason)
            }
            Message::ServerNotice { code, text } => {
                assert!(!text.is_empty());
                Got::Notice(code)
            }
            Message::ServerPong { time } => Got::Pong(time),
            other => panic!("{other:?}"),
        });
        got.unwrap()
    }

    #[track_caller]
    fn next(&mut self) -> Got {
        self.next_within(PATIENCE).expect("nothing came")
    }

    /// The next one, which is a text: its seq.
    #[track_caller]
    fn text(&mut self, expected: &str) -> u64 {
        match self.next() {
            Got::Text(text, _, seq) if text == expected => seq,
            other => panic!("{other:?} instead of {expected}"),
        }
    }

    /// Everything that the server had for this client when it executed what was sent before.
    fn all(&mut self) -> Vec<Got> {
        self.ping(4242);
        let mut got = Vec::new();
        loop {
            match self.next() {
                Got::Pong(4242) => return got,
                other => got.push(other),
            }
        }
    }

    fn ping(&mut self, time: i64) {
        self.connection.write_message(&Message::ClientPing { ping: true, time }).unwrap();
    }

    /// The receipts of so many messages: how many ended how.
    fn receipts(&mut self, mut count: usize) -> Vec<(u64, Status)> {
        let mut receipts = Vec::new();
        while count > 0 {
            if let Got::Receipt(ids, status, _) = self.next() {
                count -= ids.len().min(count);
                receipts.extend(ids.into_iter().map(|id| (id, status)));
            }
        }
        receipts
    }

    /// The notices up to the close.
    #[track_caller]
    fn until_close(&mut self) -> Vec<Got> {
        notices(&mut self.connection)
    }
}

/// The notices up to the close.
#[track_caller]
fn notices(connection: &mut Connection) -> Vec<Got> {
    let (packets, _) = connection.read_to_close(PATIENCE).unwrap_or_else(|error| panic!("it did not close: {error}"));
    packets.iter().filter_map(|packet| notice(&packet.bytes)).collect()
}

/// A notice in a packet.
fn notice(packet: &[u8]) -> Option<Got> {
    use chatserver::protocol::{Cipher, Decoder, Frame, PUBLISHED_KEY};
    let frame = Frame::parse(packet, usize::MAX).unwrap().unwrap();
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    match Decoder::default().decode(&cipher, frame).unwrap().message {
        Message::ServerNotice { code, .. } => Some(Got::Notice(code)),
        _ => None,
    }
}

/// Up to where a sender's numbers are reserved on disk.
fn reserved(server: &Server, name: &str) -> i64 {
    let found = server.db().query_row("select reserved_upto from senders where sender = ?", [name], |row| row.get(0));
    found.unwrap_or(0)
}

fn incoming(client: &mut chatserver::client::Client) -> Incoming {
    next(client)
}

#[test]
fn the_grant_says_what_a_client_should_know() {
    let server = Server::start(|setup| setup.set("read_timeout", "77 s").set("max_packet_bytes", "70000 B"));
    let ann = Two::login(&server, "ann");
    let expected = Granted { level: 2, read_timeout_secs: 77, max_packet_bytes: 70_000, last_msg_id: 0 };
    assert_eq!(ann.granted, expected);
    server.wait_for_log(" at level 2");
    for (asked, granted) in [(None, None), (Some(0), None), (Some(1), None), (Some(2), Some(2)), (Some(99), Some(2))] {
        let mut connection = server.connect().open().unwrap();
        let login = Message::ClientLogin { name: "bob", version: 1.0, time: 7, level: asked, last_seq: None };
        connection.write_message(&login).unwrap();
        let answer = connection.read_message(PATIENCE, |message| match message {
            Message::ServerAcceptLogin(answer) => answer.granted.map(|granted| granted.level),
            other => panic!("{other:?}"),
        });
        assert_eq!(answer.unwrap().unwrap(), granted, "asked for {asked:?}");
    }
}

#[test]
fn a_ping_is_answered_with_its_own_time() {
    let server = Server::start_default();
    let mut ann = Two::login(&server, "ann");
    for time in [0, 1, -5, i64::MAX] {
        ann.ping(time);
        assert_eq!(ann.next(), Got::Pong(time));
    }
}

#[test]
fn stored_means_that_the_message_and_its_number_are_on_disk() {
    let server = Server::start(|setup| setup.set("save_interval", NEVER));
    let mut ann = Two::login(&server, "ann");
    for id in 1..=20 {
        ann.send(id, "bob", &format!("text {id}"));
        assert_eq!(ann.next(), stored(id));
        // Looked at beside the server, at once.
        let found: (i64, i64) = server
            .db()
            .query_row("select count(*), max(msg_id) from messages where recipient = 'bob'", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(found, (id as i64, id as i64));
        let ids: i64 = server.db().query_row("select sum(length(ids)) / 17 from sent", [], |row| row.get(0)).unwrap();
        assert_eq!(ids, id as i64);
    }
}

#[test]
fn many_senders_share_a_save() {
    let server = Server::start(|setup| setup.set("receipt_interval", "200 ms"));
    let mut senders: Vec<Two> = (0..20).map(|number| Two::login(&server, &format!("s{number}"))).collect();
    let saves = || number(&status(&server), "counts.saves");
    eventually("the logins are saved", || {
        server.db().query_row("select count(*) from senders", [], |row| row.get(0)) == Ok(20)
    });
    let before = saves();
    for id in 1..=10 {
        senders.iter_mut().for_each(|sender| sender.send(id, "bob", "hello"));
    }
    for sender in &mut senders {
        assert_eq!(sender.receipts(10).len(), 10);
    }
    let took = saves() - before;
    assert!((1..=10).contains(&took), "{took} saves for 200 receipts");
}

#[test]
fn what_is_acknowledged_in_time_is_delivered_and_never_touches_the_disk() {
    let server = Server::start(|setup| setup.set("receipt_interval", NEVER));
    let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
    eventually("ann's numbers are reserved", || reserved(&server, "ann") >= 1000);
    for id in 1..=50 {
        ann.send(id, "bob", &format!("text {id}"));
        let seq = bob.text(&format!("text {id}"));
        bob.ack(seq);
        assert_eq!(ann.next(), delivered(id));
    }
    assert_eq!(server.rows(), 0);
}

#[test]
fn a_live_message_without_an_ack_is_saved_when_its_receipt_falls_due_and_delivered_later() {
    let server = Server::start(|setup| setup.set("save_interval", "100 ms"));
    let mut old = server.login("carl");
    let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
    // Of a level-1 sender, before it: it is saved with it.
    old.send("bob", "earlier").unwrap();
    let earlier = bob.text("earlier");
    ann.send(1, "bob", "live");
    let seq = bob.text("live");
    assert_eq!(ann.next(), stored(1));
    assert_eq!(server.rows_of("bob"), 2, "with everything before it");
    bob.ack(earlier);
    eventually("the first is deleted", || server.rows_of("bob") == 1);
    bob.ack(seq);
    assert_eq!(ann.next(), delivered(1));
    assert_eq!(server.rows_of("bob"), 0);
}

#[test]
fn a_level_1_recipient_delivers_by_its_tcp_and_sees_nothing_of_level_2() {
    let server = Server::start_default();
    let mut ann = Two::login(&server, "ann");
    let mut bob = server.login("bob");
    eventually("ann's numbers are reserved", || reserved(&server, "ann") >= 1000);
    ann.send(1, "bob", "hello");
    let packet = bob.connection().read_packet(PATIENCE).unwrap().unwrap();
    let chat = Chat { from: "ann", to: "bob", text: "hello", time: 7, ..Chat::default() };
    assert_eq!(packet.bytes, crate::harness::packet(&Message::Chat(chat)), "fields 1 to 4, to the byte");
    assert_eq!(ann.next(), delivered(1));
    // Also from disk.
    bob.logout().unwrap();
    ann.send(2, "bob", "later");
    assert_eq!(ann.next(), stored(2));
    let mut bob = server.login("bob");
    let packet = bob.connection().read_packet(PATIENCE).unwrap().unwrap();
    let chat = Chat { text: "later", ..chat };
    assert_eq!(packet.bytes, crate::harness::packet(&Message::Chat(chat)));
    // A sign of life after TCP's acknowledgement confirms what came from disk.
    let mut got = None;
    eventually("it is delivered", || {
        bob.ping().unwrap();
        got = ann.next_within(Duration::from_millis(50));
        got.is_some()
    });
    assert_eq!(got, Some(delivered(2)));
}

#[test]
fn a_silent_level_1_recipient_delivers_nothing() {
    let server = Server::start_default();
    let mut ann = Two::login(&server, "ann");
    let mut bob = server.login("bob");
    let _silence = Silence::begin(bob.connection().stream());
    ann.send(1, "bob", "into the void");
    assert_eq!(ann.next(), stored(1), "not delivered: its TCP has not acknowledged it");
    let mut bob = server.login("bob");
    assert_eq!(incoming(&mut bob).text, "into the void");
}

#[test]
fn numbers_of_a_level_1_sender_are_ignored() {
    let server = Server::start_default();
    let mut bob = Two::login(&server, "bob");
    let mut ann = server.login("ann");
    let chat = Chat { from: "ann", to: "bob", text: "hello", time: 7, msg_id: Some(5), seq: Some(6) };
    ann.connection().write_message(&Message::Chat(chat)).unwrap();
    ann.connection().write_message(&Message::Chat(chat)).unwrap();
    let one = bob.next();
    let two = bob.next();
    let seqs: Vec<u64> = [&one, &two]
        .map(|got| match got {
            Got::Text(text, None, seq) if text == "hello" => *seq,
            other => panic!("{other:?}"),
        })
        .into();
    assert_eq!(seqs[1], seqs[0] + 1);
    ann.roundtrip().unwrap();
    assert_eq!(ann.recv(Duration::ZERO).unwrap(), None, "and there is no receipt");
}

#[test]
fn a_number_that_comes_again_is_the_same_message_or_a_fault() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
    ann.send(7, "bob", "once");
    let seq = bob.text("once");
    assert_eq!(ann.next(), stored(7));
    ann.send(7, "bob", "once");
    assert_eq!(ann.next(), stored(7));
    for (to, text) in [("bob", "twice"), ("carl", "once")] {
        ann.send(7, to, text);
        assert_eq!(ann.next(), refused(7, Reason::IdUsed));
    }
    bob.ack(seq);
    assert_eq!(ann.next(), delivered(7));
    ann.send(7, "bob", "once");
    assert_eq!(ann.next(), delivered(7), "its present state");
    assert_eq!(bob.all(), [], "and it came once");
    assert_eq!(Two::login(&server, "ann").granted.last_msg_id, 7);
}

#[test]
fn numbers_survive_a_kill_with_their_messages() {
    let mut server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
    ann.send(1, "bob", "one");
    let seq = bob.text("one");
    assert_eq!(ann.next(), stored(1));
    ann.send(2, "carl", "two");
    assert_eq!(ann.next(), stored(2));
    server.kill9();
    let server = server.restart();
    let mut ann = Two::login(&server, "ann");
    for (id, to, text) in [(1, "bob", "one"), (2, "carl", "two")] {
        ann.send(id, to, text);
        assert_eq!(ann.next(), stored(id));
    }
    ann.send(2, "carl", "something else");
    assert_eq!(ann.next(), refused(2, Reason::IdUsed));
    // He has it already, and says so: what is on disk is not sent to him again.
    let mut bob = Two::resume(&server, "bob", Some(seq));
    assert_eq!(ann.next(), delivered(1));
    assert_eq!(bob.all(), []);
    let mut carl = Two::login(&server, "carl");
    carl.text("two");
    assert_eq!(carl.all(), []);
}

#[test]
fn an_absent_sender_learns_of_a_delivery_by_sending_again() {
    let mut server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = Two::login(&server, "ann");
    ann.send(1, "bob", "hello");
    assert_eq!(ann.next(), stored(1));
    drop(ann);
    server.wait_for_log("ann: closed by the client");
    let mut bob = Two::login(&server, "bob");
    let seq = bob.text("hello");
    bob.ack(seq);
    eventually("it is deleted", || server.rows() == 0);
    for is_restarted in [false, true] {
        if is_restarted {
            server = server.restart();
        }
        let mut ann = Two::login(&server, "ann");
        ann.send(1, "bob", "hello");
        assert_eq!(ann.next(), delivered(1));
    }
}

#[test]
fn an_old_number_is_too_old() {
    let server = Server::start_default();
    let mut ann = Two::login(&server, "ann");
    for id in 1..=1100 {
        ann.send(id, "bob", "hello");
    }
    assert_eq!(ann.receipts(1100).len(), 1100);
    for id in [1, 50, 76] {
        ann.send(id, "bob", "hello");
        assert_eq!(ann.next(), refused(id, Reason::IdTooOld));
    }
    ann.send(77, "bob", "hello");
    assert_eq!(ann.next(), stored(77), "1,024 are remembered");
    assert_eq!(server.rows_of("bob"), 1100);
    let server = server.restart();
    let mut ann = Two::login(&server, "ann");
    assert_eq!(ann.granted.last_msg_id, 1100);
    ann.send(76, "bob", "hello");
    assert_eq!(ann.next(), refused(76, Reason::IdTooOld));
    ann.send(77, "bob", "hello");
    assert_eq!(ann.next(), stored(77));
}

#[test]
fn the_server_reads_no_further_from_one_with_1024_messages_without_a_receipt() {
    let server = Server::start(|setup| setup.set("receipt_interval", NEVER).set("save_interval", NEVER));
    let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
    // Nothing saves: only what somebody waits for is saved at once, and then there is room again.
    let mut packets = Vec::new();
    for id in 1..=1025 {
        let chat = Chat { from: "ann", to: "bob", text: "x", time: 7, msg_id: Some(id), seq: None };
        packets.extend(packet(&Message::Chat(chat)));
    }
    ann.connection.write_raw(&packets).unwrap();
    for _ in 0..1025 {
        assert!(matches!(bob.next(), Got::Text(..)));
    }
    let receipts = ann.receipts(1024);
    assert!(receipts.iter().all(|(_, status)| *status == Status::Stored));
    assert_eq!(server.rows_of("bob"), 1024, "the one that had to wait is not among them");
}

#[test]
fn what_was_taken_in_is_not_sent_again_and_what_was_not_keeps_its_seq() {
    let mut server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let mut ann = Two::login(&server, "ann");
    let mut bob = Two::login(&server, "bob");
    for id in 1..=10 {
        ann.send(id, "bob", &id.to_string());
    }
    let seqs: Vec<u64> = (1..=10).map(|id| bob.text(&id.to_string())).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next));
    ann.receipts(10);
    // Not acknowledged; then over a takeover, a kill and an order of its own.
    for round in 0..4 {
        let taken_in = round * 2;
        let mut bob = Two::resume(&server, "bob", (taken_in > 0).then(|| seqs[taken_in - 1]));
        let again: Vec<u64> = (taken_in + 1..=10).map(|id| bob.text(&id.to_string())).collect();
        assert_eq!(again, seqs[taken_in..], "round {round}");
        assert_eq!(bob.all(), []);
        if round == 1 {
            server.kill9();
            server = server.restart();
        }
    }
    let mut bob = Two::resume(&server, "bob", Some(seqs[9]));
    assert_eq!(bob.all(), []);
    eventually("everything is deleted", || server.rows() == 0);
}

#[test]
fn an_ack_of_more_than_was_sent_is_clamped_and_corrected() {
    let server = Server::start_default();
    let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
    ann.send(1, "bob", "one");
    let seq = bob.text("one");
    bob.ack(seq + 1);
    assert_eq!(bob.next(), Got::Notice(NoticeCode::AckTooHigh));
    ann.send(2, "bob", "two");
    bob.text("two");
    bob.ack(u64::MAX);
    assert_eq!(bob.next(), Got::Notice(NoticeCode::AckTooHigh));
    drop(bob);
    server.wait_for_log("bob: closed by the client");
    ann.send(3, "bob", "three");
    ann.receipts(3);
    let mut bob = Two::resume(&server, "bob", Some(u64::MAX));
    assert_eq!(bob.next(), Got::Notice(NoticeCode::AckTooHigh));
    bob.text("three");
}

#[test]
fn refusals_are_receipts_with_a_reason() {
    let server = Server::start(|setup| {
        setup.set("max_text_bytes", "10 B").set("backlog_messages", "2").set("save_interval", "20 ms")
    });
    let mut ann = Two::login(&server, "ann");
    ann.send(1, "bad\nname", "hello");
    assert_eq!(ann.next(), refused(1, Reason::BadName));
    ann.send(2, "bob", "01234567890");
    assert_eq!(ann.next(), refused(2, Reason::TooLong));
    for id in 3..=4 {
        ann.send(id, "bob", "hello");
        assert_eq!(ann.next(), stored(id));
    }
    ann.send(5, "bob", "hello");
    assert_eq!(ann.next(), refused(5, Reason::BacklogFull));
    ann.send(3, "bob", "hello");
    assert_eq!(ann.next(), stored(3), "what was taken before is known, however full it is now");
    let mut bob = Two::login(&server, "bob");
    bob.text("hello");
    let seq = bob.text("hello");
    bob.ack(seq);
    ann.receipts(2);
    ann.send(6, "bob", "hello");
    bob.text("hello");
    assert_eq!(ann.receipts(1).len(), 1);
}

#[test]
fn a_full_database_is_a_refusal() {
    let server = Server::start(|setup| setup.set("data_bytes", "1 MiB"));
    let mut ann = Two::login(&server, "ann");
    let text = "x".repeat(50_000);
    for id in 1.. {
        ann.send(id, "bob", &text);
        match ann.next() {
            Got::Receipt(_, Status::Stored, _) if id < 100 => {}
            other => {
                assert_eq!(other, refused(id, Reason::NoSpace));
                break;
            }
        }
    }
    let mut bob = Two::login(&server, "bob");
    assert!(matches!(bob.next(), Got::Text(..)));
}

#[test]
fn a_number_out_of_range_is_a_bad_packet() {
    for id in [0, 1 << 53, u64::MAX] {
        let server = Server::start_default();
        let mut ann = Two::login(&server, "ann");
        ann.send(id, "bob", "hello");
        assert_eq!(ann.until_close(), [Got::Notice(NoticeCode::BadPacket)]);
    }
    let server = Server::start_default();
    let mut ann = Two::login(&server, "ann");
    ann.send((1 << 53) - 1, "bob", "hello");
    assert_eq!(ann.next(), stored((1 << 53) - 1));
}

#[test]
fn before_every_close_there_is_a_notice_that_says_why() {
    let server = Server::start(|setup| setup.set("read_timeout", "1 s").set("packet_timeout", "300 ms"));
    let mut old = Two::login(&server, "ann");
    let mut new = Two::login(&server, "ann");
    assert_eq!(old.until_close(), [Got::Notice(NoticeCode::Replaced)]);
    let _level_1 = server.login("ann");
    assert_eq!(new.until_close(), [Got::Notice(NoticeCode::Replaced)]);
    let mut idle = Two::login(&server, "idle");
    let mut slow = Two::login(&server, "slow");
    slow.connection.write_raw(&wire::chat("slow", "bob", "hello")[..20]).unwrap();
    let mut forger = Two::login(&server, "forger");
    forger.connection.write_raw(&wire::chat("ann", "bob", "hello")).unwrap();
    assert_eq!(forger.until_close(), [Got::Notice(NoticeCode::ForgedSender)]);
    for packet in [wire::login("again"), wire::sealed(101, b""), wire::sealed(7, b""), wire::with_body(5, &[9; 32])] {
        let mut bad = Two::login(&server, "bad");
        bad.connection.write_raw(&packet).unwrap();
        assert_eq!(bad.until_close(), [Got::Notice(NoticeCode::BadPacket)]);
    }
    assert_eq!(slow.until_close(), [Got::Notice(NoticeCode::Idle)]);
    assert_eq!(idle.until_close(), [Got::Notice(NoticeCode::Idle)]);
    let mut last = Two::login(&server, "last");
    server.signal(Signal::TERM);
    assert_eq!(last.until_close(), [Got::Notice(NoticeCode::Stopping)]);
}

#[test]
fn one_who_takes_nothing_is_told_so_when_it_looks_at_last() {
    let server = Server::start(|setup| setup.set("write_stall_timeout", "300 ms").set("outbox_bytes", "128 KiB"));
    let mut ann = server.login("ann");
    let told = (0..5).find_map(|round| {
        let name = format!("bob {round}");
        let mut bob = Two::login(&server, &name);
        send_all(&mut ann, &name, &vec!["x".repeat(50_000); 200]);
        server.wait_for_log(&format!("{name} has taken nothing for write_stall_timeout"));
        // None: we were to look within `LINGER_TIMEOUT`, and this machine let us look later.
        bob.until_close().pop()
    });
    assert_eq!(told, Some(Got::Notice(NoticeCode::TooSlow)));
}

#[test]
fn one_for_whose_backlog_there_is_no_thread_is_told_so() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    send_all(&mut server.login("ann"), "bob", &["waiting"]);
    eventually("it is on disk", || server.rows() == 1);
    // The connection has its thread, its writer will have none.
    let before = server.threads().len();
    let mut connection = server.connect().open().unwrap();
    eventually("the connection has its thread", || server.threads().len() == before + 1);
    let test = "one_for_whose_backlog_there_is_no_thread_is_told_so";
    let Some(_fault) = Fault::inject(&server, test, "clone3,clone", "error=EAGAIN") else { return };
    let login = Message::ClientLogin { name: "bob", version: 1.0, time: 7, level: Some(2), last_seq: None };
    connection.write_message(&login).unwrap();
    assert_eq!(notices(&mut connection).last(), Some(&Got::Notice(NoticeCode::Overloaded)));
}

#[test]
fn a_sender_that_takes_no_receipts_is_not_read_from() {
    let server = Server::start(|setup| setup.set("write_stall_timeout", "2 s").set("outbox_bytes", "128 KiB"));
    let ann = Two::login(&server, "ann");
    let before = server.rss_kib();
    let ping = packet(&Message::ClientPing { ping: true, time: 1 }).repeat(1000);
    // Pongs that nobody reads: in the end the server does not read either, and our socket is full.
    ann.connection.stream().set_nonblocking(true).unwrap();
    let mut written = 0;
    let is_full = happens_within(PATIENCE, || match ann.connection.stream().write(&ping) {
        Ok(count) => {
            written += count;
            false
        }
        Err(error) => {
            error.kind() != std::io::ErrorKind::WouldBlock
                || server.logged("has taken nothing for write_stall_timeout") > 0
        }
    });
    assert!(is_full);
    assert!(server.rss_kib() - before < 16 * 1024, "{written} bytes of pings cost {} KiB", server.rss_kib() - before);
}

#[test]
fn a_takeover_between_a_message_and_its_resend_takes_it_once() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut bob = Two::login(&server, "bob");
    let mut ann = Two::login(&server, "ann");
    for id in 1..=200 {
        // The old connection's packet may be executed or not; the new one sends it again in any case.
        ann.send(id, "bob", &id.to_string());
        let mut again = Two::login(&server, "ann");
        again.send(id, "bob", &id.to_string());
        let seq = bob.text(&id.to_string());
        bob.ack(seq);
        assert_eq!(again.receipts(1)[0].0, id);
        ann = again;
    }
    assert_eq!(bob.all(), []);
}

/// A level-2 client begins above `last_msg_id`. After a crash the server does not know a number that was delivered and never had to be saved; were
/// it given to another message, a recipient that remembers it would drop that.
#[test]
fn after_a_kill_no_number_that_was_told_as_delivered_is_free_again() {
    let mut server = Server::start(|setup| setup.set("receipt_interval", NEVER));
    for round in 0..3 {
        let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
        let id = ann.granted.last_msg_id + 1 + round * 5000;
        ann.send(id, "bob", "live");
        let seq = bob.text("live");
        bob.ack(seq);
        // At once after the login, so nothing is reserved yet.
        assert_eq!(ann.next(), delivered(id));
        assert_eq!(server.rows(), 0, "it was never saved");
        server.kill9();
        server = server.restart();
        assert!(Two::login(&server, "ann").granted.last_msg_id >= id);
    }
    let ann = Two::login(&server, "ann").granted.last_msg_id;
    let server = server.restart();
    assert_eq!(Two::login(&server, "ann").granted.last_msg_id, ann, "a stop in order gives the reserve back");
}

#[test]
fn an_older_backup_hands_no_seq_out_twice_and_loses_nothing_for_newer_clients() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let place = tempfile::tempdir().unwrap();
    let kept = place.path().join("kept.db");
    let mut ann = Two::login(&server, "ann");
    for id in 1..=4 {
        ann.send(id, "bob", &id.to_string());
    }
    ann.receipts(4);
    let mut backup = program();
    backup.args(["backup", kept.to_str().unwrap(), "--data"]).arg(server.data());
    assert!(run(backup, "").status.success());
    // After the backup: everything is delivered, and more.
    let mut bob = Two::login(&server, "bob");
    ann.send(5, "bob", "5");
    let seqs: Vec<u64> = (1..=5).map(|id| bob.text(&id.to_string())).collect();
    bob.ack(seqs[4]);
    ann.receipts(5);
    eventually("everything is deleted", || server.rows() == 0);
    let mut server = server;
    assert_eq!(server.sigterm().code(), Some(0));
    let mut restore = program();
    restore.args(["restore", kept.to_str().unwrap(), "--data"]).arg(server.data());
    assert!(run(restore, "").status.success());
    let server = server.restart();
    let mut ann = Two::login(&server, "ann");
    ann.send(6, "bob", "6");
    ann.receipts(1);
    // He has seen all five; the backup has four of them. He gets the sixth, under a number that he has not seen.
    let mut bob = Two::resume(&server, "bob", Some(seqs[4]));
    assert!(bob.text("6") > seqs[4]);
    assert_eq!(bob.all(), []);
}

#[test]
fn every_pair_of_levels_talks_live_and_later() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    for (from_level, to_level) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let (from, to) = (format!("f{from_level}{to_level}"), format!("t{from_level}{to_level}"));
        let send = |texts: &[&str], first_id: u64| match from_level {
            1 => send_all(&mut server.login(&from), &to, texts),
            _ => {
                let mut sender = Two::login(&server, &from);
                for (id, text) in (first_id..).zip(texts) {
                    sender.send(id, &to, text);
                }
                assert_eq!(sender.receipts(texts.len()).len(), texts.len());
            }
        };
        send(&["waits", "too"], 1);
        match to_level {
            1 => {
                let mut recipient = server.login(&to);
                send(&["live"], 3);
                assert_eq!(texts(&mut recipient, 3), ["waits", "too", "live"]);
                recipient.logout().unwrap();
            }
            _ => {
                let mut recipient = Two::login(&server, &to);
                send(&["live"], 3);
                let seqs = ["waits", "too", "live"].map(|text| recipient.text(text));
                assert!(seqs.is_sorted());
                recipient.ack(seqs[2]);
                assert_eq!(recipient.all(), []);
            }
        }
    }
    eventually("nothing waits", || server.rows() == 0);
}

/// A mailbox that is due on both of the timer's lists is in a save once.
#[test]
fn rows_are_counted_once() {
    let server = Server::start(|setup| setup.set("save_interval", "4 ms").set("receipt_interval", "3 ms"));
    let mut ann = Two::login(&server, "ann");
    let mut passes = 0;
    for id in 1..=1500 {
        ann.send(id, "bob", "hello");
        // Now and then a pass comes in between.
        if id % 3 == 0 {
            passes += ann.receipts(3).len();
        }
    }
    assert_eq!(passes, 1500);
    assert_eq!((server.rows(), number(&status(&server), "counts.stored")), (1500, 1500));
}

#[test]
fn one_that_reads_and_never_acknowledges_is_bounded_by_its_backlog_and_by_the_disk() {
    for (limit, value) in [("backlog_messages", "100"), ("data_bytes", "1 MiB")] {
        let server = Server::start(|setup| setup.set("save_interval", "50 ms").set(limit, value));
        let (mut ann, mut bob) = (Two::login(&server, "ann"), Two::login(&server, "bob"));
        let text = "x".repeat(20_000);
        let (mut refused, mut read) = (0, 0);
        for id in 1..=200 {
            ann.send(id, "bob", &text);
            match ann.receipts(1)[0].1 {
                Status::Refused => refused += 1,
                _ => {
                    assert!(matches!(bob.next(), Got::Text(..)));
                    read += 1;
                }
            }
        }
        assert!(refused > 50 && read > 30, "{limit}: {read} read, {refused} refused");
        assert!(server.rows() <= 101);
    }
}

#[test]
fn a_notice_comes_also_while_a_backlog_is_under_way() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms").set("outbox_bytes", "128 KiB"));
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &vec!["x".repeat(50_000); 200]);
    eventually("it is saved", || server.rows_of("bob") == 200);
    let mut bob = Two::login(&server, "bob");
    eventually("a writer is at work", || server.has_thread("w:bob"));
    bob.connection.write_raw(&wire::chat("somebody", "bob", "forged")).unwrap();
    assert_eq!(bob.until_close(), [Got::Notice(NoticeCode::ForgedSender)]);
}

/// Some clients number by their clock: the distance of the first number from zero must not be taken for a step.
#[test]
fn a_crash_leaves_numbers_to_choose() {
    let mut server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let mut ann = Two::login(&server, "ann");
    let id = 1_700_000_000_000_000;
    for id in [id, id + 60_000_000] {
        ann.send(id, "bob", "hello");
        assert_eq!(ann.next(), stored(id));
    }
    server.kill9();
    let server = server.restart();
    let last = Two::login(&server, "ann").granted.last_msg_id;
    assert!(last >= id && last < id + (1 << 41), "{last}");
}

#[test]
fn a_message_that_the_database_refuses_is_refused_also_after_a_crash() {
    let mut server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let mut ann = Two::login(&server, "ann");
    let refuse =
        "create trigger bad before insert on messages when new.text = 'bad' begin select raise(abort, 'no'); end";
    rusqlite::Connection::open(server.db_path()).unwrap().execute_batch(refuse).unwrap();
    ann.send(1, "bob", "bad");
    assert_eq!(ann.next(), Got::Receipt(vec![1], Status::Refused, None));
    ann.send(2, "bob", "good");
    assert_eq!(ann.next(), stored(2));
    server.kill9();
    let server = server.restart();
    let mut ann = Two::login(&server, "ann");
    ann.send(1, "bob", "bad");
    assert_eq!(ann.next(), Got::Receipt(vec![1], Status::Refused, None), "it is on no disk");
    ann.send(2, "bob", "good");
    assert_eq!(ann.next(), stored(2));
}

#[test]
fn the_loser_of_a_takeover_is_closed_however_much_it_sends() {
    let server = Server::start_default();
    let old = Two::login(&server, "ann");
    let ping = packet(&Message::ClientPing { ping: true, time: 1 }).repeat(2000);
    let (mut out, mut back) = (old.connection.stream(), old.connection.stream());
    std::thread::scope(|scope| {
        // Until the server closes.
        scope.spawn(move || while out.write_all(&ping).is_ok() {});
        scope.spawn(move || while back.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
        eventually("it is at it", || server.cpu() > Duration::from_millis(20));
        let mut new = Two::login(&server, "ann");
        server.wait_for_log("replaced by another login");
        new.ping(1);
        assert_eq!(new.next(), Got::Pong(1));
    });
}

/// After a restart the server cannot know what a client was sent; a number that cannot be says nothing.
#[test]
fn an_impossible_last_seq_acknowledges_nothing() {
    let server = Server::start(|setup| setup.set("save_interval", "50 ms"));
    let mut ann = Two::login(&server, "ann");
    ann.send(1, "bob", "never sent to him");
    assert_eq!(ann.next(), stored(1));
    let server = server.restart();
    let mut bob = Two::resume(&server, "bob", Some((1 << 53) - 1));
    assert_eq!(bob.next(), Got::Notice(NoticeCode::AckTooHigh));
    bob.text("never sent to him");
}
