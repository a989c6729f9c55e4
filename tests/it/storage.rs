//! The data directory: whose it is, what is in it, and what happens when somebody else holds the database.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;

use crate::harness::*;

#[test]
fn a_directory_has_one_server() {
    let server = Server::start_default();
    let refused = server.start_another().err().expect("a second server must not start");
    assert_eq!(refused.status.code(), Some(1));
    let sentence = format!(
        "chatserver: another server (process {}) uses the data directory {}; stop it, or give this one a directory of its own with --data DIR\n",
        server.pid(),
        server.data().display()
    );
    assert_eq!(refused.log, sentence);
    Pair::of(&server, "ann", "bob").chat();
}

#[test]
fn a_killed_server_leaves_no_lock_behind() {
    let mut server = Server::start_default();
    server.kill9();
    Pair::of(&server.restart(), "ann", "bob").chat();
}

#[test]
fn a_database_of_a_newer_version_is_refused_untouched() {
    let mut server = Server::start_default();
    server.sigterm();
    let db = Connection::open(server.db_path()).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    db.close().unwrap();
    let before = std::fs::read(server.db_path()).unwrap();
    let refused = server.start_another().err().expect("it must not start");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.log.contains("has schema 99; this program knows schemas up to 2: use the newer chatserver"),
        "{}",
        refused.log
    );
    assert!(std::fs::read(server.db_path()).unwrap() == before);
}

#[test]
fn a_file_that_is_no_database_is_refused_with_a_sentence() {
    let mut server = Server::start_default();
    server.sigterm();
    std::fs::write(server.db_path(), "this is a shopping list, not a database\n".repeat(100)).unwrap();
    let refused = server.start_another().err().expect("it must not start");
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.log.contains("the database is damaged: stop the server, keep a copy"), "{}", refused.log);
}

/// Hardening: secrets readable or logged (Mosquitto CVE-2017-9868).
#[test]
fn only_its_user_can_read_what_it_writes() {
    let server = Server::start_default();
    send_all(&mut server.login("ann"), "bob", &["a secret"]);
    eventually("it is saved", || server.rows() == 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.data()), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(server.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(
        names,
        ["chatserver.db", "chatserver.db-shm", "chatserver.db-wal", "chatserver.log", "ctl.sock", "lock"]
    );
}

/// Hardening: SQL injection (ejabberd 26.07).
#[test]
fn texts_and_names_are_never_sql() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let nasty = ["a'); DROP TABLE messages; --", "\"", "' OR '1'='1", "%_\\", "\u{1}\0\u{7f}", "?1 :a @b $c"];
    for name in nasty.iter().filter(|name| !name.contains('\0')) {
        let mut sender = server.login(name);
        send_all(&mut sender, name, &[""; 0]);
        send_all(&mut sender, "bob'; DELETE FROM users; --", &nasty);
    }
    let expected = nasty.len() * (nasty.len() - 1);
    eventually("they are saved", || server.rows() == expected as i64);
    let server = server.restart();
    let mut bob = server.login("bob'; DELETE FROM users; --");
    for sender in nasty.iter().filter(|name| !name.contains('\0')) {
        for text in nasty {
            let message = next(&mut bob);
            assert_eq!((message.from.as_str(), message.text.as_str()), (*sender, text));
        }
    }
}

#[test]
fn a_person_can_read_the_database_beside_the_server() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    ann.send_at("bob", "first", 7).unwrap();
    ann.send_at("bob", "秒", 8).unwrap();
    eventually("both are saved", || server.rows() == 2);
    let db = server.db();
    let (name, messages, bytes, oldest): (String, i64, i64, i64) = db
        .query_row("select name, messages, bytes, oldest_at from waiting", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap();
    assert_eq!((name.as_str(), messages, bytes), ("bob", 2, 8));
    let (seqs, times): (i64, i64) = db
        .query_row(
            "select count(distinct seq), sum(client_time) from messages where sender = 'ann' and accepted_at >= ?",
            [oldest],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!((seqs, times), (2, 15));
    for (pragma, value) in [("journal_mode", "wal"), ("integrity_check", "ok")] {
        assert_eq!(db.query_row(&format!("pragma {pragma}"), [], |row| row.get::<_, String>(0)).unwrap(), value);
    }
}

#[test]
fn a_lock_held_by_another_program_loses_nothing_and_is_told() {
    let mut server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    ann.roundtrip().unwrap();
    let holder = Connection::open(server.db_path()).unwrap();
    holder.busy_timeout(PATIENCE).unwrap();
    holder.execute_batch("begin immediate").unwrap();
    let mut sent = numbered("while it is locked", 500);
    send_all(&mut ann, "bob", &sent);
    Pair::of(&server, "eve", "joe").chat();
    server.wait_for_log("the database is locked by another program");
    send_all(&mut ann, "bob", &["still accepted"]);
    sent.push("still accepted".into());
    assert_eq!(server.rows(), 0);
    holder.execute_batch("rollback").unwrap();
    holder.close().unwrap();
    server.wait_for_log("saving works again");
    eventually("all are saved", || server.rows_of("bob") == 501);
    server.kill9();
    let server = server.restart();
    assert_eq!(all_texts(&mut server.login("bob")), sent);
}

/// By hand, or by another program: its number is above all that the server has reserved.
#[test]
fn a_row_from_elsewhere_with_a_high_number_stops_nobody() {
    let mut server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    send_all(&mut server.login("ann"), "bob", &["first"]);
    assert_eq!(server.sigterm().code(), Some(0));
    let db = Connection::open(server.db_path()).unwrap();
    let an_hour_later = "insert into messages
        select recipient, seq + 3600000000, sender, 'from elsewhere', client_time, accepted_at, msg_id from messages";
    assert_eq!(db.execute(an_hour_later, []).unwrap(), 1);
    db.close().unwrap();
    let server = server.restart();
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &["last"]);
    assert_eq!(all_texts(&mut server.login("bob")), ["first", "from elsewhere", "last"]);
}

#[test]
fn a_reader_that_never_ends_does_not_stop_the_server() {
    let server = Server::start(|setup| setup.set("save_interval", "20 ms"));
    let mut ann = server.login("ann");
    send_all(&mut ann, "bob", &["first"]);
    eventually("it is saved", || server.rows() == 1);
    let reader = server.db();
    reader.execute_batch("begin; select * from messages").unwrap();
    send_all(&mut ann, "bob", &numbered("more", 1000));
    eventually("they are saved all the same", || server.rows() == 1001);
    assert_eq!(all_texts(&mut server.login("bob")).len(), 1001);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let data = "/proc/no-such-process/data";
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data", data]);
    let output = run(command, "");
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains(data) && why.trim_end().ends_with("name another with --data DIR"), "{why}");
    assert_eq!(output.stdout, b"");
}
