//! Level 2 against scripted servers: what is sent again, what is dropped, what is acknowledged and when.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;

use super::super::inbox::Inbox;
use super::super::state::{Seen, Taken};
use super::*;
use crate::protocol::{Reason, Status};

const GRANTED: Granted = Granted { level: 2, read_timeout_secs: 30, max_packet_bytes: 65_536, last_msg_id: 0 };

impl Peer {
    /// Takes the login and grants level 2; gives the login, printed.
    fn grant(&mut self, granted: Granted) -> String {
        let login = self.message().unwrap();
        let answer = LoginAnswer { login: true, tips: "", time: 42, granted: Some(granted) };
        let answer = self.encoded(&Message::ServerAcceptLogin(answer));
        self.write(&answer);
        login
    }

    fn numbered(&self, from: &str, text: &str, msg_id: u64, seq: u64) -> Vec<u8> {
        let (msg_id, seq) = (Some(msg_id).filter(|id| *id > 0), Some(seq));
        self.encoded(&Message::Chat(Chat { from, to: "alice", text, time: 7, msg_id, seq }))
    }

    fn tell(&mut self, msg_ids: &[u64], status: Status) {
        let reason = Some(Reason::BacklogFull).filter(|_| status == Status::Refused);
        let receipt = crate::protocol::Receipt { msg_ids, status, reason, text: None };
        let packet = self.encoded(&Message::ServerReceipt(receipt));
        self.write(&packet);
    }

    fn notice(&mut self, code: NoticeCode) {
        let packet = self.encoded(&Message::ServerNotice { code, text: "words" });
        self.write(&packet);
    }

    /// The next ack's number; anything else is a failure.
    #[track_caller]
    fn ack(&mut self) -> u64 {
        let message = self.message().expect("the client has closed");
        let seq = message.strip_prefix("ClientAck { seq: ").unwrap_or_else(|| panic!("not an ack: {message}"));
        seq.trim_end_matches(" }").parse().unwrap()
    }

    /// Whether the client is silent for a while.
    fn is_quiet(&mut self) -> bool {
        self.stream.set_read_timeout(Some(SHORT)).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(None).unwrap();
        peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

fn two(connect: &Connect) -> Client {
    connect.clone().level(Level::Two).login("alice").unwrap()
}

fn resume(connect: &Connect, state: SessionState) -> Client {
    connect.resume(state).map_err(|failed| failed.1).unwrap()
}

/// What comes until the server is silent or closes.
fn texts(client: &mut Client) -> Vec<String> {
    let next = || match client.recv(SHORT) {
        Err(ClientError::Closed { .. }) => None,
        received => received.unwrap(),
    };
    std::iter::from_fn(next).map(|message| message.text).collect()
}

/// The next event, which must come.
#[track_caller]
fn event(client: &mut Client) -> Event {
    client.next_event(PATIENCE).unwrap().expect("an event")
}

#[track_caller]
fn receipt(client: &mut Client) -> (u64, Status, Option<String>) {
    match event(client) {
        Event::Receipt(receipt) => (receipt.msg_id, receipt.status, receipt.message.map(|message| message.text)),
        other => panic!("not a receipt: {other:?}"),
    }
}

#[test]
fn every_message_has_a_number_until_its_receipt_comes() {
    let (connect, served) = server(|peer| {
        assert!(peer.grant(Granted { last_msg_id: 40, ..GRANTED }).contains("level: Some(2), last_seq: None"));
        let received: Vec<String> = (0..4).map(|_| peer.message().unwrap()).collect();
        peer.tell(&[42, 41, 7], Status::Stored);
        peer.tell(&[42, 43], Status::Delivered);
        peer.tell(&[44], Status::Refused);
        received
    });
    let mut client = two(&connect);
    assert_eq!((client.level(), client.granted().unwrap().last_msg_id), (Level::Two, 40));
    assert_eq!(client.ping_interval(), Duration::from_secs(10));
    client.send("bob", "one").unwrap();
    client.queue("bob", "two");
    assert_eq!(client.unreceipted(), 2);
    assert_eq!(client.send_numbered("bob", "three").unwrap(), 43);
    client.sender().send_at("bob", "four", -1).unwrap();
    let received = served.join().unwrap();
    for (nth, text) in ["one", "two", "three", "four"].iter().enumerate() {
        let number = format!("msg_id: Some({}), seq: None", 41 + nth);
        assert!(received[nth].contains(&format!("{text:?}")) && received[nth].contains(&number), "{received:?}");
    }
    assert!(received[3].contains("time: -1"), "{received:?}");
    assert_eq!(receipt(&mut client), (42, Status::Stored, Some("two".into())));
    assert_eq!(receipt(&mut client), (41, Status::Stored, Some("one".into())));
    assert_eq!(receipt(&mut client), (7, Status::Stored, None));
    assert_eq!(receipt(&mut client), (42, Status::Delivered, None));
    assert_eq!(receipt(&mut client), (43, Status::Delivered, Some("three".into())));
    let Event::Receipt(refused) = event(&mut client) else { panic!("a refusal is a receipt") };
    assert_eq!((refused.status, refused.reason), (Status::Refused, Some(Reason::BacklogFull)));
    assert_eq!(client.unreceipted(), 0);
    assert!(matches!(client.next_event(PATIENCE), Err(ClientError::Closed { .. })));
    assert_eq!(client.into_state().last_msg_id(), 44);
}

#[test]
fn what_has_no_receipt_is_sent_again_as_it_was() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        let sent: Vec<Vec<u8>> = (0..3).map(|_| peer.packet().unwrap()).collect();
        peer.tell(&[2], Status::Stored);
        sent
    });
    let mut client = two(&connect);
    for text in ["one", "two", "three"] {
        client.send_at("bob", text, 1_400_000_000).unwrap();
    }
    let sent = served.join().unwrap();
    assert_eq!(receipt(&mut client).0, 2);
    assert!(matches!(client.recv(PATIENCE), Err(ClientError::Closed { .. })));
    // Either this fails or the kernel still takes it: it is remembered.
    let _ = client.send("bob", "after the end");
    client.queue("bob", "never flushed");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    client.into_state().save(&file).unwrap();
    let mut state = SessionState::load(&file).unwrap();
    let kept = |state: &SessionState| {
        let texts = state.unreceipted().map(|message| message.text.clone());
        texts.chain(state.drafts().map(|draft| draft.text.clone())).collect::<Vec<_>>()
    };
    assert_eq!(kept(&state), ["one", "three", "after the end", "never flushed"]);
    state.add("bob", "typed while offline", 5);

    // The first attempt is refused, and nothing is lost with it.
    let (connect, _) = server(|peer| {
        peer.message();
        let no = peer.encoded(&Message::ServerAcceptLogin(LoginAnswer { tips: "not now", ..LoginAnswer::default() }));
        peer.write(&no);
    });
    let failed = connect.resume(state).unwrap_err();
    assert!(matches!(failed.1, ClientError::Refused { .. }));

    let (connect, served) = server(|peer| {
        peer.grant(Granted { last_msg_id: 90, ..GRANTED });
        let again: Vec<Vec<u8>> = (0..2).map(|_| peer.packet().unwrap()).collect();
        let then: Vec<String> = (0..3).map(|_| peer.message().unwrap()).collect();
        peer.tell(&[1, 3, 4, 91, 92], Status::Stored);
        (again, then)
    });
    let mut client = resume(&connect, failed.0);
    let (again, then) = served.join().unwrap();
    assert_eq!(again, [sent[0].clone(), sent[2].clone()]);
    for (message, what) in then.iter().zip(["end\", time: ", "flushed\", time: ", "offline\", time: 5"]) {
        assert!(message.contains(what), "{then:?}");
    }
    assert!(then[0].contains("msg_id: Some(4)") && then[2].contains("msg_id: Some(92)"), "{then:?}");
    let receipts: Vec<u64> = (0..5).map(|_| receipt(&mut client).0).collect();
    assert_eq!((receipts, client.unreceipted()), (vec![1, 3, 4, 91, 92], 0));
}

#[test]
fn what_was_taken_in_is_dropped_when_it_comes_again() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        let stream = [
            peer.numbered("bob", "one", 1, 10),
            peer.numbered("bob", "one under a new seq", 1, 11),
            peer.numbered("bob", "two at an old place", 2, 11),
            peer.numbered("e\u{301}va", "hers has the same number", 1, 12),
            peer.numbered("zoe", "without a number", 0, 13),
            peer.numbered("zoe", "again without one", 0, 14),
        ];
        peer.write(&stream.concat());
        peer.ack()
    });
    let mut client = two(&connect);
    assert_eq!(texts(&mut client), ["one", "hers has the same number", "without a number", "again without one"]);
    assert_eq!(served.join().unwrap(), 14, "what is dropped is acknowledged, too");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    client.into_state().save(&file).unwrap();

    let (connect, served) = server(|peer| {
        let login = peer.grant(GRANTED);
        let stream = [
            peer.numbered("zoe", "an old seq", 0, 14),
            peer.numbered("bob", "one once more", 1, 15),
            peer.numbered("\u{e9}va", "the same person", 1, 16),
            peer.numbered("bob", "new", 3, 17),
        ];
        peer.write(&stream.concat());
        (login, peer.ack())
    });
    let mut client = resume(&connect, SessionState::load(&file).unwrap());
    assert_eq!(texts(&mut client), ["new"]);
    let (login, acked) = served.join().unwrap();
    assert!(login.contains("level: Some(2), last_seq: Some(14)"), "{login}");
    assert_eq!((acked, client.into_state().last_seq()), (17, 17));
}

#[test]
fn without_the_grant_everything_is_as_at_level_1() {
    let script = |peer: &mut Peer| {
        peer.answer(true, "");
        let stream = [peer.numbered("bob", "one", 1, 10), peer.numbered("bob", "one", 1, 10)].concat();
        peer.write(&stream);
        let mut received = vec![peer.message().unwrap()];
        while !received.last().unwrap().starts_with("ClientLogout") {
            received.push(peer.message().unwrap());
        }
        received
    };
    let (connect, served) = server(script);
    let mut client = two(&connect);
    assert_eq!((client.level(), client.granted()), (Level::One, None));
    assert_eq!(client.ping_interval(), Duration::from_secs(30));
    assert_eq!(texts(&mut client), ["one", "one"]);
    client.send("bob", "hello").unwrap();
    assert!(matches!(client.send_numbered("bob", "x"), Err(ClientError::NotNumbered { why: Unnumbered::LevelOne })));
    assert_eq!(client.unreceipted(), 0);
    client.logout().unwrap();
    let received = served.join().unwrap();
    assert_eq!(received.len(), 2, "no acks: {received:?}");
    assert!(received[0].contains("hello") && received[0].contains("msg_id: None"), "{received:?}");

    // What a session of level 2 has left is not sent, and not lost.
    let (connect, served) = server(script);
    let mut state = SessionState::new("alice");
    state.add("bob", "for level 2", 5);
    let client = resume(&connect, state);
    assert_eq!(client.unreceipted(), 1);
    let (state, left) = client.leave();
    assert_eq!(left.unwrap().len(), 2);
    assert_eq!(state.drafts().len(), 1);
    assert_eq!(served.join().unwrap().len(), 1);
}

#[test]
fn a_message_is_acknowledged_when_the_application_comes_back() {
    let (next, waiting) = std::sync::mpsc::channel::<()>();
    let (connect, served) = server(move |peer| {
        peer.grant(GRANTED);
        let one = peer.numbered("bob", "one", 1, 10);
        peer.write(&one);
        assert!(peer.message().unwrap().contains("the answer to it"));
        assert!(peer.is_quiet(), "sending is not coming back");
        next.send(()).unwrap();
        let two = peer.numbered("bob", "two", 2, 11);
        peer.write(&two);
        // The first one by itself, if the second was not there yet.
        let acked = (0..2).map(|_| peer.ack()).find(|seq| *seq == 11);
        (acked, peer.message().unwrap())
    });
    let mut client = two(&connect);
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "one");
    client.send("bob", "the answer to it").unwrap();
    assert_eq!(client.wait_for_receipt(1, SHORT).unwrap(), None);
    waiting.recv().unwrap();
    let Event::Message(two) = event(&mut client) else { panic!("a message comes") };
    assert_eq!((two.text.as_str(), two.msg_id, two.seq), ("two", Some(2), Some(11)));
    let (state, left) = client.leave();
    assert_eq!(left.unwrap(), []);
    assert_eq!((state.last_seq(), state.unreceipted().len()), (11, 1));
    let (acked, goodbye) = served.join().unwrap();
    assert_eq!(acked, Some(11));
    assert!(goodbye.starts_with("ClientLogout"), "{goodbye}");
}

#[test]
fn what_the_logout_finds_is_not_acknowledged_and_not_given() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        let stream = [peer.numbered("bob", "one", 1, 10), peer.numbered("bob", "two", 2, 11)].concat();
        peer.write(&stream);
        (peer.ack(), peer.message().unwrap())
    });
    let mut client = two(&connect);
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "one");
    let (state, left) = client.leave();
    assert_eq!((left.unwrap(), state.last_seq()), (Vec::new(), 10));
    assert_eq!(served.join().unwrap().0, 10);
}

#[test]
fn a_stream_is_acknowledged_in_steps_of_64() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        let stream: Vec<u8> = (1..=200).flat_map(|n| peer.numbered("bob", "x", n, n)).collect();
        peer.write(&stream);
        let mut acks = Vec::new();
        while acks.last() != Some(&200) {
            acks.push(peer.ack());
        }
        acks
    });
    let mut client = two(&connect);
    assert_eq!(texts(&mut client).len(), 200);
    let acks = served.join().unwrap();
    let steps = acks.iter().zip([0].iter().chain(&acks)).map(|(ack, before)| ack - before);
    assert!(steps.clone().all(|step| step <= 64), "{acks:?}");
    assert!(acks.len() < 100, "not one by one: {acks:?}");
}

#[test]
fn an_ack_waits_for_64_messages_or_a_second_and_only_while_more_comes() {
    let now = Instant::now();
    let mut inbox = Inbox::new(Taken::default(), true);
    let message = |seq| Incoming { from: "bob".into(), msg_id: Some(seq), seq: Some(seq), ..Incoming::default() };
    let second = Duration::from_secs(1);
    assert_eq!(inbox.ack_due(false, now), None);
    inbox.push_message(message(1));
    assert_eq!(inbox.ack_due(false, now), None, "not given out yet");
    inbox.next_message(now).unwrap();
    assert_eq!(inbox.ack_due(false, now), Some(1));
    assert_eq!(inbox.ack_due(true, now + second / 2), None);
    assert_eq!(inbox.ack_due(true, now + second), Some(1));
    (2..=63).for_each(|seq| inbox.push_message(message(seq)));
    while inbox.next_message(now + second / 2).is_some() {}
    assert_eq!(inbox.ack_due(true, now + second / 2), None, "63");
    inbox.push_message(message(64));
    inbox.next_message(now).unwrap();
    assert_eq!(inbox.ack_due(true, now), Some(64));
    inbox.acked();
    assert_eq!(inbox.ack_due(false, now + second), None);
}

#[test]
fn the_state_is_on_disk_before_the_ack_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("missing").join("state");
    let (connect, served) = server({
        let file = file.clone();
        move |peer| {
            peer.grant(GRANTED);
            let one = peer.numbered("bob", "one", 1, 10);
            peer.write(&one);
            let acked = peer.ack();
            let state = SessionState::load(&file).unwrap();
            let two = peer.numbered("bob", "two", 2, 11);
            peer.write(&two);
            (acked, state.last_seq())
        }
    });
    let mut client = two(&connect);
    client.keep_in(&file);
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "one");
    assert!(matches!(client.recv(PATIENCE), Err(ClientError::State(StateError::Write { .. }))));
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "two");
    assert_eq!(served.join().unwrap(), (10, 10));
    assert!(matches!(client.recv(PATIENCE), Err(ClientError::Closed { .. })));
    assert_eq!(SessionState::load(&file).unwrap().last_seq(), 11, "kept at the end, too");
}

#[test]
fn no_more_than_1024_messages_are_without_a_receipt() {
    let (give, wait) = std::sync::mpsc::channel::<()>();
    let (connect, served) = server(move |peer| {
        peer.grant(GRANTED);
        for nth in 1..=MAX_UNRECEIPTED as u64 {
            assert!(peer.message().unwrap().contains(&format!("msg_id: Some({nth})")));
        }
        assert!(peer.is_quiet());
        for () in wait {
            peer.tell(&[1, 2], Status::Stored);
        }
        (peer.message().unwrap(), peer.message().unwrap(), peer.message().unwrap())
    });
    let mut client = two(&connect.timeout(SHORT * 50));
    for _ in 0..MAX_UNRECEIPTED - 1 {
        client.queue("bob", "x");
    }
    client.send("bob", "the last that there is room for").unwrap();
    let full = client.send("bob", "not taken");
    assert!(matches!(full, Err(ClientError::Timeout { what: Awaited::Receipts })), "{full:?}");
    let full = client.sender().send("bob", "not taken either");
    assert!(matches!(full, Err(ClientError::Timeout { what: Awaited::Receipts })), "{full:?}");
    assert_eq!(client.unreceipted(), MAX_UNRECEIPTED);
    client.ping().unwrap();
    give.send(()).unwrap();
    assert_eq!(client.send_numbered("bob", "there is room").unwrap(), 1025);
    let mut sender = client.sender();
    sender.send("bob", "for another thread, too").unwrap();
    drop(give);
    let (ping, one, two) = served.join().unwrap();
    assert!(ping.starts_with("ClientPing"), "{ping}");
    assert!(one.contains("there is room") && two.contains("msg_id: Some(1026)"), "{one} {two}");
}

#[test]
fn a_sender_waits_for_the_receipts_that_another_thread_takes_in() {
    const ALL: u64 = 3000;
    let (connect, served) = server(move |peer| {
        peer.grant(GRANTED);
        for nth in 1..=ALL {
            assert!(peer.message().unwrap().contains(&format!("msg_id: Some({nth})")), "in growing order");
            peer.tell(&[nth], Status::Stored);
        }
    });
    let mut client = two(&connect);
    let (mut one, mut other) = (client.sender(), client.sender());
    thread::scope(|scope| {
        scope.spawn(move || (0..ALL / 2).for_each(|_| one.send("bob", "x").unwrap()));
        scope.spawn(move || {
            (0..ALL / 2).for_each(|_| other.queue("carl", "x"));
            other.flush().unwrap();
            assert_eq!(other.wait_for_receipts(PATIENCE), 0);
        });
        let ids: HashSet<u64> = (0..ALL).map(|_| receipt(&mut client).0).collect();
        assert_eq!(ids.len() as u64, ALL);
    });
    served.join().unwrap();
}

#[test]
fn whoever_takes_the_last_room_does_not_wait() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        std::iter::from_fn(|| peer.packet()).count()
    });
    let client = two(&connect);
    let mut sender = client.sender();
    let started = Instant::now();
    (0..MAX_UNRECEIPTED).for_each(|_| sender.send("bob", "x").unwrap());
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(client.into_state().unreceipted().len(), MAX_UNRECEIPTED);
    drop(sender);
    assert_eq!(served.join().unwrap(), MAX_UNRECEIPTED);
}

#[test]
fn what_waits_for_room_goes_out_as_receipts_come() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        (0..MAX_UNRECEIPTED).for_each(|_| drop(peer.packet().unwrap()));
        assert!(peer.is_quiet());
        peer.tell(&[1], Status::Stored);
        let next = peer.message().unwrap();
        // The second has none yet, and the server is to go on remembering it.
        peer.tell(&[3], Status::Stored);
        assert!(peer.is_quiet());
        peer.tell(&[2], Status::Stored);
        (next, peer.message().unwrap())
    });
    let mut state = SessionState::new("alice");
    (1..=MAX_UNRECEIPTED + 2).for_each(|nth| state.add("bob", &format!("text {nth}"), 5));
    let mut client = resume(&connect, state);
    assert_eq!(client.unreceipted(), MAX_UNRECEIPTED + 2);
    assert_eq!([1, 3, 2].map(|_| receipt(&mut client).0), [1, 3, 2]);
    let (next, last) = served.join().unwrap();
    assert!(next.contains("\"text 1025\"") && next.contains("msg_id: Some(1025)"), "{next}");
    assert!(last.contains("\"text 1026\"") && last.contains("msg_id: Some(1026)"), "{last}");
}

#[test]
fn a_server_with_older_numbers_is_counted_from_anew() {
    let mut taken = Taken { last_seq: 1000, seen: Seen::default() };
    taken.seen.insert("bob", 5);
    let state = SessionState { taken, ..SessionState::new("alice") };
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        peer.notice(NoticeCode::AckTooHigh);
        let stream =
            [peer.numbered("bob", "seen before", 5, 20), peer.numbered("bob", "new", 6, 21), peer.chat("no seq")];
        peer.write(&stream.concat());
        peer.ack()
    });
    let mut client = resume(&connect, state);
    let notice = Notice { code: NoticeCode::AckTooHigh, text: "words".into() };
    assert_eq!(event(&mut client), Event::Notice(notice));
    assert_eq!(texts(&mut client), ["new", "no seq"]);
    assert_eq!(served.join().unwrap(), 21);
    assert_eq!(client.into_state().last_seq(), 21);
}

#[test]
fn events_come_in_the_order_of_their_arrival_and_recv_passes_them_by() {
    let script = |peer: &mut Peer| {
        peer.grant(GRANTED);
        let pong = peer.encoded(&Message::ServerPong { time: -3 });
        let own = crate::protocol::encode_packet;
        let mut custom = Vec::new();
        own(0x2000, b"custom", &peer.cipher, &mut custom);
        let (one, two) = (peer.numbered("bob", "one", 1, 1), peer.numbered("bob", "two", 2, 2));
        peer.write(&[pong, one, custom, two].concat());
        peer.notice(NoticeCode::Replaced);
    };
    let (connect, served) = server(script);
    let mut client = two(&connect);
    served.join().unwrap();
    assert_eq!(event(&mut client), Event::Pong(-3));
    assert!(matches!(event(&mut client), Event::Message(message) if message.text == "one"));
    assert!(matches!(event(&mut client), Event::Custom(packet) if packet.body == b"custom"));
    assert!(matches!(event(&mut client), Event::Message(message) if message.text == "two"));
    assert!(matches!(event(&mut client), Event::Notice(notice) if notice.code == NoticeCode::Replaced));
    assert!(matches!(client.next_event(PATIENCE), Err(ClientError::Closed { .. })));

    let (connect, served) = server(script);
    let mut client = two(&connect);
    served.join().unwrap();
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "one");
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "two");
    assert!(matches!(client.recv(PATIENCE), Err(ClientError::Closed { .. })));
    assert_eq!(event(&mut client), Event::Pong(-3));
    assert_eq!(client.recv_custom(PATIENCE).unwrap().unwrap().body, b"custom");
    assert!(matches!(client.next_arrived(), Ok(Some(Event::Notice(_)))));
}

#[test]
fn a_receipt_is_waited_for_past_everything_else() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        (0..2).for_each(|_| drop(peer.packet().unwrap()));
        let one = peer.numbered("bob", "one", 1, 1);
        peer.write(&one);
        peer.tell(&[2, 1], Status::Stored);
        peer.tell(&[1], Status::Delivered);
        (peer.message(), peer.stream.try_clone().unwrap())
    });
    let mut client = two(&connect);
    assert_eq!(client.send_numbered("bob", "a").unwrap(), 1);
    assert_eq!(client.send_numbered("bob", "b").unwrap(), 2);
    let status = |client: &mut Client, msg_id| {
        client.wait_for_receipt(msg_id, PATIENCE).unwrap().map(|receipt| (receipt.msg_id, receipt.status))
    };
    assert_eq!(status(&mut client, 1), Some((1, Status::Stored)));
    assert_eq!(status(&mut client, 1), Some((1, Status::Delivered)));
    assert_eq!(status(&mut client, 2), Some((2, Status::Stored)));
    assert_eq!(client.wait_for_receipt(1, SHORT).unwrap(), None);
    assert_eq!(client.recv(PATIENCE).unwrap().unwrap().text, "one", "nothing was given out meanwhile");
    assert_eq!(client.recv(SHORT).unwrap(), None);
    assert_eq!(served.join().unwrap().0.as_deref(), Some("ClientAck { seq: 1 }"));
}

#[test]
fn a_round_trip_of_level_2_counts_and_is_not_seen() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        let one = peer.numbered("bob", "one", 1, 10);
        peer.write(&one);
        let packet = peer.packet().unwrap();
        let frame = Frame::parse(&packet, usize::MAX).unwrap().unwrap();
        let Message::Chat(own) = peer.decoder.decode(&peer.cipher, frame).unwrap().message else { panic!() };
        let mut back = Vec::new();
        Message::Chat(Chat { seq: Some(11), ..own }).encode(&peer.cipher, &mut back);
        peer.write(&back);
        peer.tell(&[1], Status::Delivered);
        (peer.ack(), peer.packet())
    });
    let mut client = two(&connect);
    client.roundtrip().unwrap();
    assert!(matches!(event(&mut client), Event::Message(message) if message.text == "one"));
    assert_eq!(client.next_event(SHORT).unwrap(), None);
    assert_eq!(client.unreceipted(), 0);
    drop(client);
    assert_eq!(served.join().unwrap(), (11, None));
}

#[test]
fn a_text_that_the_server_does_not_take_is_not_sent() {
    let (connect, served) = server(|peer| {
        peer.grant(Granted { max_packet_bytes: 200, ..GRANTED });
        let received = peer.message().unwrap();
        (received, peer.packet())
    });
    let mut client = two(&connect);
    let long = "x".repeat(200);
    let too_long = |result: Result<(), ClientError>| {
        assert!(matches!(result, Err(ClientError::NotNumbered { why: Unnumbered::TooLong })), "{result:?}");
    };
    too_long(client.send("bob", &long));
    too_long(client.sender().send("bob", &long));
    client.send("bob", "short").unwrap();
    assert_eq!(client.into_state().unreceipted().len(), 1);
    let (received, end) = served.join().unwrap();
    assert!(received.contains("short") && received.contains("msg_id: Some(1)"), "{received}");
    assert_eq!(end, None);
}

#[test]
fn a_state_that_was_given_out_takes_nothing_more() {
    let (connect, served) = server(|peer| {
        peer.grant(GRANTED);
        std::iter::from_fn(|| peer.packet()).count()
    });
    let client = two(&connect);
    let mut sender = client.sender();
    sender.send("bob", "in time").unwrap();
    let state = client.into_state();
    assert_eq!(state.unreceipted().next().unwrap().text, "in time");
    let late = sender.send("bob", "too late");
    assert!(matches!(late, Err(ClientError::NotNumbered { why: Unnumbered::Retired })), "{late:?}");
    drop(sender);
    assert_eq!(served.join().unwrap(), 1);
}

#[test]
fn a_state_is_its_users_alone_and_damage_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let mut state = SessionState::load_or_new(&file, "alice").unwrap();
    state.add("bob", "hello", 5);
    std::fs::write(directory.path().join("state.new"), "of a run that was killed").unwrap();
    state.save(&file).unwrap();
    state.save(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    assert_eq!(SessionState::load_or_new(&file, "alice").unwrap().drafts().len(), 1);
    let other = SessionState::load_or_new(&file, "bob").unwrap_err();
    assert!(other.to_string().contains("is the state of alice, not of bob"), "{other}");

    let whole = std::fs::read_to_string(&file).unwrap();
    for broken in [
        "",
        &whole[..whole.len() / 2],
        &whole.replace("\"format\":1", "\"format\":2"),
        &whole.replace("\"last_seq\":0", "\"last_seq\":-1"),
        &whole.replace("\"unreceipted\":[]", "\"unreceipted\":[{\"msg_id\":9,\"to\":\"b\",\"text\":\"\",\"time\":0}]"),
    ] {
        std::fs::write(&file, broken).unwrap();
        let error = SessionState::load_or_new(&file, "alice").unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{broken}: {error}");
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}

#[test]
fn what_was_seen_is_bounded_per_sender_and_in_senders() {
    let mut seen = Seen::default();
    for msg_id in 1..=MAX_UNRECEIPTED as u64 + 1 {
        assert!(seen.insert("bob", msg_id));
    }
    assert!(!seen.insert("bob", 2) && !seen.insert("bob", 1025));
    assert!(seen.insert("bob", 1), "the oldest was forgotten");
    (1..MAX_SENDERS).for_each(|nth| assert!(seen.insert(&format!("sender {nth}"), 1)));
    assert!(!seen.insert("bob", 1025), "heard just now");
    assert!(seen.insert("one too many", 1));
    assert!(seen.insert("sender 1", 1), "heard least recently");
    assert!(!seen.insert("bob", 1025));
    assert!(!seen.insert("one too many", 1));
}
