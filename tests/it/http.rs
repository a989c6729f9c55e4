//! `metrics_listen`: the figures over HTTP.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use chatserver::limits;
use regex::Regex;
use serde_json::Value;

use crate::control::{Ctl, number, status};
use crate::harness::*;
use crate::network::is_silent;

/// A server with HTTP, and its address.
fn server() -> (Server, String) {
    let server = Server::start(|setup| setup.set("metrics_listen", "127.0.0.1:0"));
    let address = address_of(&server);
    (server, address)
}

/// Where it answers HTTP.
fn address_of(server: &Server) -> String {
    let line = server.wait_for_log("HTTP on http://");
    line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned()
}

/// The answer to these bytes: its head and its body.
fn ask(address: &str, request: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    (head.to_owned(), body.to_owned())
}

fn get(address: &str, path: &str) -> (String, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

/// The threads for HTTP: the one that listens, and one for each request.
fn http_threads(server: &Server) -> usize {
    server.threads().iter().filter(|name| *name == "http").count()
}

/// What `look` sees while this many silent connections, which are given as well, have places. On a busy machine one of them may have had its time before
/// all is seen: then anew.
fn beside_silent<T>(server: &Server, address: &str, count: usize, look: impl Fn() -> T) -> (Vec<TcpStream>, T) {
    let mut seen = None;
    eventually("silent connections have all places while somebody looks", || {
        eventually("the connections before are done", || http_threads(server) == 1);
        let silent: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        if happens_within(limits::HTTP_TIMEOUT / 4, || http_threads(server) == 1 + count) {
            let result = look();
            if silent.iter().all(is_silent) {
                seen = Some((silent, result));
            }
        }
        seen.is_some()
    });
    seen.unwrap()
}

/// The names of all samples.
fn names(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

#[test]
fn metrics_has_every_figure_of_status() {
    let (server, address) = server();
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &numbered("kept", 3));
    Ctl::of(&server).ask("save");
    let (head, text) = get(&address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", text.len())) && text.ends_with("\n# EOF\n"), "{head}");
    let status = status(&server);
    let known = names(&text);
    let mut missing = Vec::new();
    for name in status["counts"].as_object().unwrap().keys() {
        let name = format!("chatserver_{name}_total");
        if !known.contains(&name) {
            missing.push(name);
        }
    }
    let units = [("_us", "_seconds"), ("_ms", "_seconds"), ("_s", "_seconds"), ("_at", "_timestamp_seconds")];
    for (group, figures) in status.as_object().unwrap().iter().filter(|(group, _)| *group != "counts") {
        for (figure, value) in figures.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let name = format!("chatserver_{group}_{figure}");
            let unit = units.iter().find_map(|(short, long)| Some(format!("{}{long}", name.strip_suffix(short)?)));
            let name = unit.unwrap_or(name);
            if !known.contains(&name) && !known.contains(&format!("{name}_total")) {
                missing.push(format!("{name} = {value}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?} are not in\n{text}");
    let backlog = format!("chatserver_backlog_messages {}", number(&status, "backlog.messages"));
    assert!(number(&status, "backlog.messages") >= 3, "{status}");
    for sample in ["chatserver_users_present 1", &backlog, "chatserver_logins_total 1"] {
        assert!(text.lines().any(|line| line == sample), "{sample} is missing:\n{text}");
    }
    // The format: a family's lines stand together, each sample belongs to the family before it, and no family comes twice.
    let (mut families, mut family) = (BTreeSet::new(), String::new());
    let sample = Regex::new(r#"^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+$"#).unwrap();
    for line in text.lines().take_while(|line| *line != "# EOF") {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{family} comes twice");
            }
            None if line.starts_with('#') => assert_eq!(line.split(' ').nth(2), Some(&*family), "{line}"),
            None => {
                let name = line.split(['{', ' ']).next().unwrap();
                let suffix = name.strip_prefix(&*family).unwrap_or_else(|| panic!("{line} is not of {family}"));
                assert!(["", "_total", "_info"].contains(&suffix) && sample.is_match(line), "{line}");
            }
        }
    }
}

#[test]
fn health_says_whether_the_server_needs_a_hand() {
    let (server, address) = server();
    let (head, body) = get(&address, "/health");
    let health: Value = serde_json::from_str(&body).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && health["verdict"] == "ok", "{head}\n{body}");
    Ctl::of(&server).ask("drain");
    let (head, body) = get(&address, "/health");
    let health: Value = serde_json::from_str(&body).unwrap();
    assert!(head.starts_with("HTTP/1.1 503 ") && health["verdict"] == "draining", "{head}\n{body}");
}

/// Nobody has been refused yet, but whoever comes next will be.
#[test]
fn health_says_that_no_place_is_left() {
    let server = Server::start(|setup| setup.set("metrics_listen", "127.0.0.1:0").set("max_connections", "2"));
    let address = address_of(&server);
    let verdict = || serde_json::from_str::<Value>(&get(&address, "/health").1).unwrap();
    let _ann = server.login("ann");
    assert_eq!(verdict()["verdict"], "ok");
    let bob = server.login("bob");
    let health = verdict();
    assert_eq!((&health["verdict"], &health["findings"][0]["name"]), (&"trouble".into(), &"connections-full".into()));
    drop(bob);
    eventually("there is a place again", || verdict()["verdict"] == "ok");
}

#[test]
fn what_is_no_request_is_refused_and_keeps_nobody_waiting() {
    let (server, address) = server();
    let status_of = |request: &str| {
        let (head, _) = ask(&address, request);
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status_of("GET / HTTP/1.1\r\n\r\n"), "404");
    assert_eq!(status_of("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), "405");
    assert_eq!(status_of("nonsense\r\n\r\n"), "400");
    assert_eq!(status_of(&format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000))), "400");
    let (head, body) = ask(&address, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty() && !head.contains("Content-Length: 0"), "{head}");
    assert_eq!(status_of(&format!("GET http://{address}/health HTTP/1.1\r\n\r\n")), "200", "as a proxy asks");
    // As many as may be, silent ones: others are told of the server's health, and of nothing else.
    let others = || (status_of("GET /health HTTP/1.1\r\n\r\n"), status_of("GET /metrics HTTP/1.1\r\n\r\n"));
    let (silent, seen) = beside_silent(&server, &address, limits::HTTP_CONNECTIONS, others);
    assert_eq!(seen, ("200".into(), "503".into()));
    drop(silent);
    // These are not without end either. What is past them is closed at once, and after two seconds there is room again.
    let all = limits::HTTP_CONNECTIONS + limits::HTTP_HEALTH_CONNECTIONS;
    let late = || TcpStream::connect(&address).unwrap().read(&mut [0; 1]).unwrap_or(0);
    let (silent, read) = beside_silent(&server, &address, all, late);
    assert_eq!(read, 0, "there is no place");
    Pair::of(&server, "ann", "bob").chat();
    let mut answer = String::new();
    (&silent[0]).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    drop(silent);
    eventually("there is room again", || {
        let mut socket = TcpStream::connect(&address).unwrap();
        let mut answer = String::new();
        let asked = socket.write_all(b"GET /health HTTP/1.0\r\n\r\n").and_then(|()| socket.read_to_string(&mut answer));
        asked.is_ok() && answer.contains(" 200 OK")
    });
}

#[test]
fn without_the_setting_there_is_no_http_and_an_address_in_use_is_told() {
    let server = Server::start_default();
    assert_eq!((server.logged("HTTP on"), http_threads(&server)), (0, 0));
    let mut taken = program();
    let dir = tempfile::tempdir().unwrap();
    taken.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(dir.path());
    taken.env("CHATSERVER_METRICS_LISTEN", server.addr());
    let output = run(taken, "");
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && why.contains("for HTTP") && why.contains("metrics_listen"), "{why}");
}

/// The dashboard asks for nothing that is not there.
#[test]
fn the_dashboard_names_figures_that_there_are() {
    let (server, address) = server();
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &["kept"]);
    Ctl::of(&server).ask("save");
    let known = names(&get(&address, "/metrics").1);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/grafana/chatserver.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["type"] == "datasource"), "a data source is chosen at the import");
    let name = Regex::new(r"chatserver_[a-z_0-9]+").unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            for found in name.find_iter(query) {
                asked += 1;
                assert!(known.contains(found.as_str()), "{} asks for {}", panel["title"], found.as_str());
            }
        }
    }
    assert!(asked > 20, "{asked}");
}
