//! Copies of the database, made beside the server and put back, and what waits in it as text.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use chatserver::storage::Storage;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::*;

/// Runs a command about the data in `data`; its exit code, standard output and standard error.
fn about(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = program();
    command.args(arguments).arg("--data").arg(data);
    let Output { status, stdout, stderr } = run(command, "");
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[track_caller]
fn done(data: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = about(data, arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?} printed {out}");
    out
}

#[track_caller]
fn refused(data: &Path, arguments: &[&str], code: i32, why: &str) {
    let (found, out, err) = about(data, arguments);
    assert!(found == code && out.is_empty() && err.contains(why), "{arguments:?}: {found}, {out}{err}");
}

/// Two directories: of a data directory that no server has yet, and of files.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The texts that wait in a database for a user, in order; it must be sound.
#[track_caller]
fn waiting(database: &Path, user: &str) -> Vec<String> {
    let database = Connection::open(database).unwrap();
    let sound: String = database.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut texts = database.prepare("select text from messages where recipient = ? order by seq").unwrap();
    texts.query_map([user], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A stopped server for whose bob these texts wait.
fn stopped_with(texts: &[String]) -> Server {
    let mut server = Server::start_default();
    send_all(&mut server.login("ann"), "bob", texts);
    assert_eq!(server.sigterm().code(), Some(0));
    server
}

#[test]
fn a_backup_beside_a_busy_server_holds_everything_accepted_before() {
    let server = Server::start_default();
    let place = Place::new();
    let accepted = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ann = server.login("ann");
            // Busy, and not about to fill bob's backlog should the other half of this test fail.
            for from in (0..500_000).step_by(100).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                send_all(&mut ann, "bob", &(from..from + 100).map(|number| number.to_string()).collect::<Vec<_>>());
                accepted.fetch_add(100, Ordering::Relaxed);
                assert_eq!(ann.recv(Duration::from_millis(5)).unwrap(), None, "a breath");
            }
        });
        let kept = place.file("kept.db");
        for _ in 0..10 {
            let before = accepted.load(Ordering::Relaxed);
            eventually("more is accepted", || accepted.load(Ordering::Relaxed) > before);
            let before = accepted.load(Ordering::Relaxed);
            done(&server.data(), &["backup", kept.to_str().unwrap()]);
            let texts = waiting(&kept, "bob");
            assert!(texts.len() >= before, "{} of {before}", texts.len());
            assert!(texts.iter().enumerate().all(|(number, text)| *text == number.to_string()));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!((place.names(), mode(&place.file("kept.db"))), (vec!["kept.db".to_owned()], 0o600));
}

#[test]
fn a_server_that_does_not_save_when_asked_gets_no_backup() {
    let server = stopped_with(&numbered("kept", 3));
    let place = Place::new();
    let kept = place.file("kept.db");
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    let older = std::fs::read(&kept).unwrap();
    let listener = UnixListener::bind(server.data().join("ctl.sock")).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&socket).read_line(&mut request).unwrap();
            assert_eq!(request, "save\n");
            socket.write_all(b"{\"error\":\"the disk is full\"}\n").unwrap();
        });
        refused(&server.data(), &["backup", kept.to_str().unwrap()], 1, "would not be complete: the disk is full");
    });
    drop(listener);
    assert_eq!((place.names(), std::fs::read(&kept).unwrap()), (vec!["kept.db".to_owned()], older));
    let said = done(&server.data(), &["backup", kept.to_str().unwrap()]);
    assert!(said.ends_with("bytes, checked; messages that wait: 3\n"), "nobody listens any more: {said}");
    assert_eq!(waiting(&kept, "bob").len(), 3);
}

#[test]
fn a_backup_replaces_nothing_but_a_backup() {
    let server = Server::start_default();
    send_all(&mut server.login("ann"), "bob", &["kept"]);
    for name in ["lock", "chatserver.log", "chatserver.db-wal", "chatserver.db"] {
        let path = server.data().join(name);
        let why = if name == "chatserver.db" { "the server's database itself" } else { "is no backup" };
        refused(&server.data(), &["backup", path.to_str().unwrap()], 1, why);
    }
    assert!(server.start_another().is_err(), "the lock still keeps others away");
}

#[test]
fn a_backup_holds_what_a_killed_server_left_in_its_log() {
    let mut server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    send_all(&mut server.login("ann"), "bob", &numbered("kept", 100));
    eventually("they are saved", || server.rows() == 100);
    server.kill9();
    assert!(std::fs::metadata(server.data().join("chatserver.db-wal")).unwrap().len() > 0);
    let place = Place::new();
    done(&server.data(), &["backup", place.file("kept.db").to_str().unwrap()]);
    assert_eq!(place.names(), ["kept.db"]);
    assert_eq!(waiting(&place.file("kept.db"), "bob"), numbered("kept", 100));
    let server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), numbered("kept", 100));
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_under_the_name_and_does_not_disturb_the_next() {
    let server = stopped_with(&vec!["x".repeat(1000); 20_000]);
    let place = Place::new();
    let kept = place.file("kept.db");
    for _ in 0..5 {
        let mut command = program();
        command.arg("backup").arg(&kept).arg("--data").arg(server.data()).stdout(Stdio::null());
        let mut backup = command.spawn().unwrap();
        eventually("it has begun to write", || {
            place.names().iter().any(|name| std::fs::metadata(place.file(name)).is_ok_and(|file| file.len() > 0))
        });
        assert_eq!(backup.try_wait().unwrap(), None, "it was over too soon for this test");
        kill_process(Pid::from_child(&backup), Signal::KILL).unwrap();
        backup.wait().unwrap();
        let left = place.names();
        assert!(left.len() == 1 && left[0].ends_with(".tmp"), "{left:?}");
    }
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    assert_eq!((place.names(), mode(&kept)), (vec!["kept.db".to_owned()], 0o600));
    assert_eq!(waiting(&kept, "bob").len(), 20_000);
}

#[test]
fn what_cannot_be_backed_up_is_told_and_the_older_backup_kept() {
    let server = stopped_with(&numbered("kept", 3));
    let place = Place::new();
    let kept = place.file("kept.db");
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    refused(&place.file("nowhere"), &["backup", kept.to_str().unwrap()], 1, "there is no database");
    refused(&server.data(), &["backup", "/dev/null"], 1, "no ordinary file");
    refused(&server.data(), &["backup", server.db_path().to_str().unwrap()], 1, "the server's database itself");
    refused(&server.data(), &["backup", place.file("none/kept.db").to_str().unwrap()], 1, "No such file or directory");
    let database = std::fs::read(server.db_path()).unwrap();
    std::fs::write(server.db_path(), &database[..database.len() - 5000]).unwrap();
    refused(&server.data(), &["backup", kept.to_str().unwrap()], 1, "is damaged");
    assert_eq!(place.names(), ["kept.db"]);
    assert_eq!(waiting(&kept, "bob"), numbered("kept", 3));
}

#[test]
fn a_backup_restored_on_another_machine_delivers_what_waited() {
    let server = Server::start_default();
    send_all(&mut server.login("ann"), "bob", &numbered("bob's", 500));
    send_all(&mut server.login("ann"), "小红", &numbered("小红's", 500));
    std::fs::write(server.data().join("set-aside.jsonl"), "{}\n").unwrap();
    let place = Place::new();
    let (kept, data) = (place.file("kept.db"), place.file("data"));
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    assert_eq!(place.names(), ["kept.db", "kept.db.set-aside.jsonl"]);
    assert_eq!(mode(&place.file("kept.db.set-aside.jsonl")), 0o600);

    let said = done(&data, &["restore", kept.to_str().unwrap()]);
    assert!(said.lines().count() == 1 && said.ends_with("messages that wait: 1000\n"), "{said}");
    assert_eq!(names(&data), ["chatserver.db", "lock"]);
    assert_eq!((mode(&data), mode(&data.join("chatserver.db")), mode(&data.join("lock"))), (0o700, 0o600, 0o600));
    let other = Server::start(|setup| setup.data(&data));
    assert_eq!(all_texts(&mut other.login("bob")), numbered("bob's", 500));
    assert_eq!(all_texts(&mut other.login("小红")), numbered("小红's", 500));
}

#[test]
fn a_restore_keeps_the_database_that_was_there_and_hands_no_number_out_twice() {
    let first = numbered("first", 10);
    let server = stopped_with(&first);
    let place = Place::new();
    let kept = place.file("kept.db");
    done(&server.data(), &["backup", kept.to_str().unwrap()]);

    let mut server = server.restart_with(|setup| setup.set("save_interval", "20 ms"));
    send_all(&mut server.login("ann"), "bob", &numbered("second", 10));
    eventually("they are saved", || server.rows() == 20);
    server.kill9();
    // As if the clock had been far ahead when these numbers were given out.
    let ahead = 1_i64 << 52;
    let database = Connection::open(server.db_path()).unwrap();
    database.execute("update meta set seq_floor = ?", [ahead]).unwrap();
    drop(database);

    let said = done(&server.data(), &["restore", kept.to_str().unwrap()]);
    let old = PathBuf::from(said.lines().nth(1).unwrap().strip_suffix(": the database that was there").unwrap());
    assert!(old.to_str().unwrap().contains("/chatserver.db.replaced-20"), "{said}");
    assert_eq!(mode(&old), 0o600);
    assert_eq!(waiting(&old, "bob"), [first.clone(), numbered("second", 10)].concat());
    let leftovers: Vec<String> =
        names(&server.data()).into_iter().filter(|name| name.contains("-wal") || name.contains("tmp")).collect();
    assert_eq!(leftovers, [""; 0]);

    let server = server.restart();
    send_all(&mut server.login("ann"), "bob", &["third"]);
    eventually("it is saved", || server.rows() == 11);
    let seq: i64 = server.db().query_row("select max(seq) from messages", [], |row| row.get(0)).unwrap();
    assert!(seq > ahead, "{seq}");
    assert_eq!(all_texts(&mut server.login("bob")), [first, vec!["third".to_owned()]].concat());
}

#[test]
fn a_restore_over_a_running_server_is_refused() {
    let server = stopped_with(&numbered("first", 3));
    let place = Place::new();
    let kept = place.file("kept.db");
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    let server = server.restart();
    let why = format!("another server (process {}) uses the data directory", server.pid());
    refused(&server.data(), &["restore", kept.to_str().unwrap()], 1, &why);
    assert_eq!(all_texts(&mut server.login("bob")), numbered("first", 3));
}

#[test]
fn what_is_no_good_backup_is_refused_and_the_database_stays() {
    let server = stopped_with(&numbered("kept", 300));
    let place = Place::new();
    let (kept, bad) = (place.file("kept.db"), place.file("bad.db"));
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    let copy = std::fs::read(&kept).unwrap();
    let restore = ["restore", bad.to_str().unwrap()];
    let before = names(&server.data());

    refused(&server.data(), &restore, 5, "cannot be read");
    for foreign in [&b""[..], b"a shopping list", &b"a longer shopping list\n".repeat(1000)] {
        std::fs::write(&bad, foreign).unwrap();
        refused(&server.data(), &restore, 5, "is no database of a chatserver");
    }
    let mut broken = copy.clone();
    broken[4096..8192].fill(0xa5);
    for damaged in [&copy[..copy.len() - 5000], &broken] {
        std::fs::write(&bad, damaged).unwrap();
        refused(&server.data(), &restore, 5, "is damaged");
    }
    std::fs::remove_file(&bad).unwrap();
    Connection::open(&bad).unwrap().execute_batch("create table users (x); pragma user_version = 1").unwrap();
    refused(&server.data(), &restore, 5, "is no database of a chatserver");
    std::fs::write(&bad, &copy).unwrap();
    Connection::open(&bad).unwrap().pragma_update(None, "user_version", 99).unwrap();
    refused(&server.data(), &restore, 5, "has schema 99; this program knows schemas up to");
    refused(&server.data(), &["restore", server.db_path().to_str().unwrap()], 1, "the server's database itself");

    assert_eq!(names(&server.data()), before);
    assert_eq!(waiting(&server.db_path(), "bob"), numbered("kept", 300));
}

#[test]
fn a_database_in_use_is_not_replaced() {
    let server = stopped_with(&numbered("kept", 3));
    let place = Place::new();
    let kept = place.file("kept.db");
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    let reader = Connection::open(server.db_path()).unwrap();
    reader.execute_batch("begin; select * from messages").unwrap();
    refused(&server.data(), &["restore", kept.to_str().unwrap()], 1, "another program has the database");
    drop(reader);
    done(&server.data(), &["restore", kept.to_str().unwrap()]);
}

#[test]
fn a_damaged_database_is_replaced_with_all_that_belongs_to_it() {
    let mut server = Server::start_default();
    send_all(&mut server.login("ann"), "bob", &numbered("kept", 3));
    let place = Place::new();
    let kept = place.file("kept.db");
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    server.kill9();
    std::fs::write(server.db_path(), "a shopping list\n".repeat(1000)).unwrap();
    std::fs::write(server.data().join("chatserver.db-wal"), "a log that must not be taken for the new one's").unwrap();
    let said = done(&server.data(), &["restore", kept.to_str().unwrap()]);
    let old = said.lines().nth(1).unwrap().strip_suffix(": the database that was there").unwrap();
    assert!(std::fs::read(old).unwrap().starts_with(b"a shopping list"));
    assert!(std::fs::read(format!("{old}-wal")).unwrap().starts_with(b"a log"));
    let server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), numbered("kept", 3));
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_database_or_the_new() {
    let kept_texts = vec!["x".repeat(1000); 20_000];
    let server = stopped_with(&kept_texts);
    let place = Place::new();
    let (kept, data) = (place.file("kept.db"), place.file("data"));
    done(&server.data(), &["backup", kept.to_str().unwrap()]);
    let old = Server::start(|setup| setup.data(&data).set("save_interval", "20 ms"));
    send_all(&mut old.login("ann"), "bob", &["old"]);
    eventually("it is saved", || old.rows() == 1);
    drop(old);
    let is_there = |part: &str| names(&data).iter().any(|name| name.contains(part));
    // At two points: the copy is on its way; the old database has its second name.
    for point in [".tmp", ".replaced-"] {
        let mut command = program();
        command.arg("restore").arg(&kept).arg("--data").arg(&data).stdout(Stdio::null());
        let mut restore = command.spawn().unwrap();
        eventually(point, || is_there(point) || restore.try_wait().unwrap().is_some());
        kill_process(Pid::from_child(&restore), Signal::KILL).unwrap();
        restore.wait().unwrap();
        let server = Server::start(|setup| setup.data(&data));
        let found = server.rows();
        assert!(found == 1 || found == 20_000, "{found}");
        let sound: String = server.db().query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }
    done(&data, &["restore", kept.to_str().unwrap()]);
    assert!(!is_there(".tmp"));
    assert_eq!(waiting(&data.join("chatserver.db"), "bob").len(), 20_000);
}

#[test]
fn an_export_is_every_waiting_message_in_order() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    ann.send_at("bob", "one\n\"行\"", 7).unwrap();
    send_all(&mut ann, "bob", &numbered("bob's", 2000));
    send_all(&mut ann, "zoe\u{301}", &["only"]);
    drop(server.login("ann"));
    eventually("they are saved", || server.rows() == 2002);
    let data = server.data();
    let lines: Vec<String> = done(&data, &["export", "--json"]).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2002);
    assert!(
        lines[0].starts_with("{\"from\":\"ann\",\"to\":\"bob\",\"text\":\"one\\n\\\"行\\\"\",\"time\":7,\"seq\":"),
        "{}",
        lines[0]
    );
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = objects.iter().map(|line| line["text"].as_str().unwrap()).collect();
    let sent = [vec!["one\n\"行\"".to_owned()], numbered("bob's", 2000), vec!["only".to_owned()]].concat();
    assert_eq!(texts, sent);
    assert!(objects[..2001].is_sorted_by(|one, two| one["seq"].as_u64() < two["seq"].as_u64()));
    assert!(objects.iter().all(|line| line["accepted_at"].as_i64() > Some(1_700_000_000_000)));

    assert_eq!(done(&data, &["export", "--user", "zo\u{e9}", "--json"]).lines().count(), 1);
    assert!(done(&data, &["export", "--user", "zoe\u{301}"]).ends_with(" ann to zo\u{e9}: only\n"));
    assert!(done(&data, &["export"]).starts_with("1970-01-01T00:00:07Z ann to bob: one\\n\"行\"\n"));
    assert_eq!(done(&data, &["export", "--user", "nobody", "--json"]), "");
    refused(&data, &["export", "--user", "a\nb"], 2, "error: ");
    let place = Place::new();
    refused(&place.file("data"), &["export", "--json"], 1, "there is no database");
    assert_eq!(place.names(), [""; 0]);
    Storage::open(place.dir.path()).unwrap().close().unwrap();
    assert_eq!(done(place.dir.path(), &["export", "--json"]), "");
}

#[test]
fn an_export_that_nobody_reads_to_its_end_ends_quietly() {
    let server = stopped_with(&vec!["x".repeat(1000); 2000]);
    let mut command = program();
    command.args(["export", "--json", "--data"]).arg(server.data()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut export = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(export.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"from\":\"ann\""), "{line}");
    let Output { status, stderr, .. } = export.wait_with_output().unwrap();
    assert_eq!((status.code(), stderr), (Some(0), Vec::new()));
}
