//! `chatserver bench`: what it says about our server and the floor, and that it sees every fault of a relay that is wrong on purpose.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::Arc;
use std::thread;

use chatserver::protocol::{Chat, Cipher, Decoder, Frame, LoginAnswer, Message, PUBLISHED_KEY};
use parking_lot::Mutex;
use serde_json::Value;

use crate::harness::*;

/// Runs it briefly.
fn bench(words: &str) -> Output {
    let mut command = program();
    command.arg("bench").args(words.split_whitespace());
    run(command, "")
}

/// The same with times that show only that it works; what it said, a workload a line.
#[track_caller]
fn reports(words: &str) -> Vec<Value> {
    let output = bench(&format!("{words} --time 200ms --warm-up 50ms --json"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}: {said}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[track_caller]
fn assert_sensible(report: &Value, target: &str, workload: &str) {
    assert_eq!((report["target"].as_str(), report["workload"].as_str()), (Some(target), Some(workload)), "{report}");
    for fault in ["lost", "duplicated", "reordered", "strange"] {
        assert_eq!(report[fault], 0, "{report}");
    }
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("a number is missing: {report}"));
    let (count, seconds) = (number(&report["count"]), number(&report["seconds"]));
    assert!(count > 0.0 && seconds > 0.0, "{report}");
    assert!((number(&report["per_second"]) - count / seconds).abs() < 1.0, "{report}");
    assert!(number(&report["resident_kib"]) > 1000.0, "{report}");
    let cost = |name: &str| number(&report["cost"][name]);
    assert!((cost("user_us") + cost("system_us") - cost("cpu_us")).abs() < 1e-6, "{report}");
    if workload != "offline" {
        let latencies = ["p50", "p90", "p99", "p999", "max"].map(|name| number(&report["latency_us"][name]));
        assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{report}");
        let distribution = report["distribution_us"].as_array().unwrap();
        let rarest = distribution.last().unwrap();
        assert!(number(&rarest[0]) > 1.0 && number(&rarest[1]) >= latencies[0], "{report}");
    }
    assert!(number(&report["more"]["start_ms"]) > 0.0, "{report}");
}

const TALK: [&str; 6] = ["pingpong", "stream", "fanin", "fanout", "open", "churn"];

#[track_caller]
fn assert_talk(of: &str, target: &str) {
    let reports = reports(&format!("{of} {} --pairs 3 --window 4 --text-bytes 50 --rate 2000", TALK.join(" ")));
    assert_eq!(reports.len(), TALK.len());
    for (report, workload) in reports.iter().zip(TALK) {
        assert_sensible(report, target, workload);
        assert_eq!((&report["pairs"], &report["window"], &report["text_bytes"]), (&3.into(), &4.into(), &50.into()));
        assert_eq!(report["unit"], if workload == "churn" { "logins" } else { "messages" });
    }
    let rate = reports[4]["per_second"].as_f64().unwrap();
    assert!((1000.0..3000.0).contains(&rate), "2,000 a second were asked for: {rate}");
}

#[test]
fn our_server_is_measured_and_found_clean() {
    assert_talk("", "chatserver");
}

#[test]
fn the_floor_is_measured_with_the_same_load() {
    assert_talk("floor", "floor");
}

#[test]
fn idle_users_are_counted_and_a_pair_is_measured_beside_them() {
    let report = &reports("idle --pairs 1 --users 40")[0];
    assert_sensible(report, "chatserver", "idle");
    assert_eq!(report["idle_users"], 40);
    for name in ["logins_per_second", "p99_alone_us", "p99_ratio", "kib_per_user"] {
        assert!(report["more"][name].as_f64().is_some_and(|value| value > 0.0), "{name}: {report}");
    }
    assert!(report["more"]["idle_cpu_ms_per_second"].is_f64(), "{report}");
}

#[test]
fn waiting_messages_are_stored_collected_and_compared_with_sqlite_alone() {
    let report = &reports("offline --messages 3000")[0];
    assert_sensible(report, "chatserver", "offline");
    assert_eq!(report["count"], 3000);
    let more = |name: &str| report["more"][name].as_f64().unwrap_or_else(|| panic!("{name} is missing: {report}"));
    let per_second = ["accepted", "saved", "collected", "raw_inserted", "raw_selected"];
    let per_second = per_second.map(|name| more(&format!("{name}_per_second")));
    assert!(per_second.iter().all(|rate| *rate > 0.0), "{report}");
    assert!(per_second[0] >= per_second[1], "nothing is saved before it is accepted: {report}");
    assert!((more("saved_ratio") - per_second[1] / per_second[3]).abs() < 0.01, "{report}");
    assert!((more("collected_ratio") - per_second[2] / per_second[4]).abs() < 0.01, "{report}");
}

#[test]
fn who_does_not_read_is_written_to_and_does_not_count_as_lost() {
    let report = &reports("slow --pairs 2 --rate 3000")[0];
    assert_sensible(report, "chatserver", "slow");
    assert!(report["more"]["sent_to_the_slow_one"].as_f64().unwrap() >= 100.0, "{report}");
    assert!(report["more"]["p99_ratio"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_server_at_an_address_is_measured_with_its_own_key() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "a key of 24 bytes, yes!!").unwrap();
    let server = Server::start(|setup| setup.set("key", "a key of 24 bytes, yes!!"));
    let words = format!("stream --addr {} --pairs 2 --time 200ms --warm-up 50ms", server.addr());
    let output = bench(&format!("{words} --json --key-file {}", key.path().display()));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), report["lost"].as_u64()), (Some(0), Some(0)), "{report}");
    assert!(report["cost"].is_object(), "its process is on this machine: {report}");
    assert!(report["more"].get("start_ms").is_none(), "somebody else started it: {report}");
    // With the published key it understands nothing, and is not understood.
    let output = bench(&words);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn values_fit_their_names_and_people_read_lines() {
    let words = "pingpong churn --pairs 2 --time 200ms --warm-up 50ms";
    let output = bench(&format!("{words} --csv"));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let value = |line: usize, name: &str| {
        let column = lines[0].iter().position(|head| *head == name).unwrap_or_else(|| panic!("no {name}: {text}"));
        assert_eq!(lines[line].len(), lines[0].len(), "{text}");
        lines[line][column]
    };
    assert_eq!(
        ["target", "workload", "pairs", "unit"].map(|name| value(1, name)),
        ["chatserver", "pingpong", "2", "messages"]
    );
    assert_eq!(["workload", "unit", "lost", "strange"].map(|name| value(2, name)), ["churn", "logins", "0", "0"]);
    assert!(value(1, "more").starts_with("start_ms="), "{text}");
    for name in ["seconds", "per_second", "p50_us", "max_us", "cpu_us", "switches"] {
        assert!(value(1, name).parse::<f64>().is_ok_and(|value| value >= 0.0), "{name}: {text}");
    }

    let directory = tempfile::tempdir().unwrap();
    let picture = directory.path().join("p.png");
    let output = bench(&format!("{words} --plot {}", picture.display()));
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in
        ["chatserver pingpong: ", "chatserver churn: ", "µs of CPU a login", "none lost, none twice, all in order"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    let nowhere = bench(&format!("{words} --plot {}/no/p.png", directory.path().display()));
    assert_eq!(nowhere.status.code(), Some(1));
}

/// What a relay does wrong with one message, the fiftieth that it gets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Loses,
    Repeats,
    /// The next one to the same recipient goes first.
    Overtakes,
    /// Another text.
    Alters,
    /// To somebody else.
    Misleads,
    /// Says what is no packet.
    Babbles,
}

/// A relay that speaks level 1, and the sockets of who is there.
struct Relay {
    fault: Fault,
    online: HashMap<String, TcpStream>,
    chats: u32,
    held: Option<(String, Vec<u8>)>,
}

/// Starts one; gives where it listens. It ends with the tests.
fn relay(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let relay = Arc::new(Mutex::new(Relay { fault, online: HashMap::new(), chats: 0, held: None }));
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let relay = relay.clone();
            thread::spawn(move || converse(socket, &relay));
        }
    });
    addr
}

fn converse(mut socket: TcpStream, relay: &Mutex<Relay>) {
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let (mut unread, mut bytes, mut decoder) = (Vec::new(), [0; 4096], Decoder::default());
    while let Ok(count @ 1..) = socket.read(&mut bytes) {
        unread.extend_from_slice(&bytes[..count]);
        while let Some(frame) = Frame::parse(&unread, usize::MAX).unwrap() {
            let length = frame.packet.len();
            match decoder.decode(&cipher, frame).unwrap().message {
                Message::ClientLogin { name, .. } => {
                    let answer = LoginAnswer { login: true, ..LoginAnswer::default() };
                    relay.lock().online.insert(name.to_owned(), socket.try_clone().unwrap());
                    let _ = socket.write_all(&packet(&Message::ServerAcceptLogin(answer)));
                }
                Message::Chat(chat) => relay.lock().chat(chat),
                other => panic!("not from a benchmark: {other:?}"),
            }
            unread.drain(..length);
        }
    }
}

impl Relay {
    fn chat(&mut self, chat: Chat<'_>) {
        self.chats += 1;
        let whole = packet(&Message::Chat(chat));
        if self.chats != 50 {
            self.send(chat.to, &whole);
            if self.held.as_ref().is_some_and(|(to, _)| to == chat.to) {
                let (to, held) = self.held.take().unwrap();
                self.send(&to, &held);
            }
            return;
        }
        match self.fault {
            Fault::Loses => {}
            Fault::Repeats => self.send(chat.to, &[&whole[..], &whole].concat()),
            Fault::Overtakes => self.held = Some((chat.to.to_owned(), whole)),
            Fault::Alters => self.send(chat.to, &packet(&Message::Chat(Chat { text: "something else", ..chat }))),
            Fault::Misleads => self.send(chat.from, &whole),
            Fault::Babbles => self.send(chat.to, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        }
    }

    fn send(&mut self, to: &str, bytes: &[u8]) {
        // A benchmark that has seen enough closes.
        let _ = self.online.get_mut(to).unwrap().write_all(bytes);
    }
}

/// All at once: for what does not come it waits ten seconds.
#[test]
fn one_message_lost_repeated_overtaken_altered_or_misled_is_seen_and_exit_code_3() {
    let all = [Fault::Loses, Fault::Repeats, Fault::Overtakes, Fault::Alters, Fault::Misleads, Fault::Babbles];
    let runs = all.map(|fault| {
        let words = format!("stream --addr {} --pairs 2 --window 8 --time 200ms --warm-up 50ms --json", relay(fault));
        (fault, thread::spawn(move || bench(&words)))
    });
    for (fault, run) in runs {
        let output = run.join().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{fault:?}: {out}{err}");
        if fault == Fault::Babbles {
            assert!(err.contains("no packet of this protocol and key"), "{err}");
            continue;
        }
        let report: Value = serde_json::from_str(&out).unwrap();
        let found = ["lost", "duplicated", "reordered", "strange"].map(|name| report[name].as_u64().unwrap());
        let expected = match fault {
            Fault::Loses => [1, 0, 0, 0],
            Fault::Repeats => [0, 1, 0, 0],
            Fault::Overtakes => [0, 0, 1, 0],
            Fault::Alters | Fault::Misleads => [1, 0, 0, 1],
            Fault::Babbles => unreachable!("above"),
        };
        assert_eq!(found, expected, "{fault:?}: {report}");
    }
}

#[test]
fn nobody_there_is_exit_code_4_and_wrong_usage_2() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(bench(&format!("stream --addr {addr}")).status.code(), Some(4));
    for words in [
        "nonsense",
        "stream --pairs 0",
        "stream --text-bytes 3",
        "stream --text-bytes 100000",
        "stream --time never",
        "stream --json --csv",
        "stream --key-file somewhere",
        "floor offline",
        "floor stream --addr 127.0.0.1:1",
    ] {
        let output = bench(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words}: {said}");
        assert!(!said.is_empty(), "{words}");
    }
}

#[allow(dead_code)] // Its `main` is not ours.
#[path = "../../examples/bench_mqtt.rs"]
mod bench_mqtt;

/// The bytes by hand, from MQTT 3.1.1: sections 3.1, 3.8, 3.3 and 3.4.
#[test]
fn the_broker_is_spoken_to_as_the_standard_says() {
    use bench_mqtt::Mqtt;
    use chatserver::bench::{Dialect, Event};

    let (mut mqtt, mut out) = (Mqtt::new(1), Vec::new());
    mqtt.log_in(7, &mut out);
    let connect = b"\x10\x18\0\x04MQTT\x04\x02\0\0\0\x0cbench-000007";
    let subscribe = b"\x82\x11\0\x01\0\x0cbench-000007\x01";
    assert_eq!(out, [&connect[..], subscribe].concat());
    let take = |mqtt: &mut Mqtt, bytes: &[u8]| {
        let mut reply = Vec::new();
        let taken =
            mqtt.take(7, bytes, &mut reply).map(|taken| taken.map(|(length, event)| (length, format!("{event:?}"))));
        (taken.map_err(|nonsense| nonsense.to_string()), reply)
    };
    let said = |length, event: Event<'_>| (Ok(Some((length, format!("{event:?}")))), Vec::new());
    assert_eq!(take(&mut mqtt, b"\x20\x02\0\0\x90"), said(4, Event::Other));
    assert_eq!(take(&mut mqtt, b"\x90\x03\0\x01\x01"), said(5, Event::LoggedIn));
    assert_eq!(take(&mut mqtt, b"\x40\x02\0\x01"), said(4, Event::Other));
    for refused in [&b"\x20\x02\0\x05"[..], b"\x90\x03\0\x01\x80", b"\xe0\0", b"\x40\xff\xff\xff\xff"] {
        assert!(take(&mut mqtt, refused).0.is_err(), "{refused:?}");
    }

    let text = [b'a'; 200];
    out.clear();
    mqtt.text(7, 8, &text, &mut out);
    assert_eq!(out[..19], b"\x32\xd8\x01\0\x0cbench-000008\0\x02"[..]);
    for end in 0..out.len() {
        assert_eq!(take(&mut mqtt, &out[..end]), (Ok(None), Vec::new()), "{end} bytes");
    }
    let (taken, reply) = take(&mut mqtt, &out);
    assert_eq!(taken, Ok(Some((out.len(), format!("{:?}", Event::Text(&text))))));
    assert_eq!(reply, b"\x40\x02\0\x02", "what arrived with QoS 1 is acknowledged");

    let (mut without, mut bytes) = (Mqtt::new(0), Vec::new());
    without.text(7, 8, b"short", &mut bytes);
    assert_eq!(bytes, b"\x30\x13\0\x0cbench-000008short");
    assert_eq!(take(&mut without, &bytes), said(21, Event::Text(b"short")));
    bytes.clear();
    without.log_out(7, &mut bytes);
    assert_eq!(bytes, b"\xe0\0");
}
