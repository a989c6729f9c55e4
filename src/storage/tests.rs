//! The promises of storage, each on a database of its own in a temporary directory.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

pub(super) fn insert(recipient: &str, seq: u64, text: &str) -> Insert {
    let row = Row {
        seq,
        sender: "[38121920]--> 7".into(),
        text: text.into(),
        client_time: 1_400_000_000,
        accepted_at: 1_000 + seq as i64,
        msg_id: None,
    };
    Insert { recipient: recipient.into(), row }
}

pub(super) fn delete(recipient: &str, seq: u64) -> Delete {
    Delete { recipient: recipient.into(), seq }
}

fn inserts(inserts: impl IntoIterator<Item = Insert>) -> Batch {
    Batch { inserts: inserts.into_iter().collect(), ..Batch::default() }
}

/// Saves a batch in which nothing is wrong.
pub(super) fn saved(storage: &Storage, batch: &Batch) -> Saved {
    let saved = storage.save(batch).unwrap();
    assert_eq!(saved.set_aside, [0usize; 0]);
    saved
}

pub(super) fn open() -> (TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    (dir, storage)
}

/// What a person at `sqlite3` does.
pub(super) fn by_hand(storage: &Storage, sql: &str) {
    Connection::open(storage.dir.join(DATABASE)).unwrap().execute_batch(sql).unwrap();
}

fn seqs(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| row.seq).collect()
}

fn texts(storage: &Storage, recipient: &str) -> Vec<String> {
    let (rows, complete) = storage.read(recipient, 0, u64::MAX, usize::MAX, usize::MAX).unwrap();
    assert!(complete);
    rows.into_iter().map(|row| row.text).collect()
}

#[test]
fn a_backlog_is_read_in_order_and_apart_from_others() {
    let (_dir, storage) = open();
    let batch = inserts([insert("bob", 3, "c"), insert("ann", 7, "x"), insert("bob", 1, "a"), insert("bob", 2, "b")]);
    saved(&storage, &batch);
    assert_eq!(texts(&storage, "bob"), ["a", "b", "c"]);
    assert_eq!(texts(&storage, "ann"), ["x"]);
    assert_eq!(storage.read("ann", 0, 9, 9, 9).unwrap().0, [batch.inserts[1].row.clone()]);
    assert_eq!(storage.backlog("bob").unwrap(), Backlog { messages: 3, bytes: 3, first_seq: 1, last_seq: 3 });
    assert_eq!(storage.backlog("Bob").unwrap(), Backlog::default());
    assert_eq!(storage.total().unwrap(), Backlog { messages: 4, bytes: 4, first_seq: 0, last_seq: 0 });
}

#[test]
fn complete_means_that_nothing_more_is_in_the_range() {
    let (_dir, storage) = open();
    saved(&storage, &inserts((1..=10).map(|seq| insert("bob", seq * 10, "12345678"))));
    let read = |after, upto, max_rows, max_bytes| {
        let (rows, complete) = storage.read("bob", after, upto, max_rows, max_bytes).unwrap();
        (seqs(&rows), complete)
    };
    assert_eq!(read(0, 30, 99, 999), (vec![10, 20, 30], true), "upto belongs to the range");
    assert_eq!(read(30, 55, 99, 999), (vec![40, 50], true), "after does not");
    assert_eq!(read(0, 30, 3, 999), (vec![10, 20, 30], true), "as many as wanted, and no more there");
    assert_eq!(read(0, 31, 2, 999), (vec![10, 20], false));
    assert_eq!(read(0, 30, 99, 24), (vec![10, 20, 30], true), "exactly the bytes");
    assert_eq!(read(0, 30, 99, 23), (vec![10, 20], false));
    assert_eq!(read(0, 30, 99, 0), (vec![10], false), "at least one row");
    assert_eq!(read(0, 10, 0, 0), (vec![10], true), "at least one row");
    assert_eq!(read(90, u64::MAX, 99, 999), (vec![100], true));
    assert_eq!(read(100, u64::MAX, 99, 999), (vec![], true));
    assert_eq!(read(50, 40, 99, 999), (vec![], true));
}

#[test]
fn texts_come_back_byte_for_byte() {
    let (_dir, storage) = open();
    let nasty = [
        "a'); DROP TABLE messages;--",
        "nul\0inside\0",
        "",
        "👩‍👩‍👧 我是一个java程序",
        "\r\n.\r\n",
        "\u{feff}\u{202e}",
        &"x".repeat(60_000),
    ];
    saved(&storage, &inserts(nasty.iter().zip(1..).map(|(text, seq)| insert("a'); DROP TABLE users;--", seq, text))));
    assert_eq!(texts(&storage, "a'); DROP TABLE users;--"), nasty);
    let bytes = nasty.iter().map(|text| text.len() as u64).sum();
    assert_eq!(storage.total().unwrap().bytes, bytes);
    let saved =
        saved(&storage, &Batch { deletes: vec![delete("a'); DROP TABLE users;--", u64::MAX)], ..Batch::default() });
    assert_eq!(saved.deleted, [(nasty.len() as u64, bytes)]);
}

#[test]
fn deletes_come_after_the_inserts_of_their_batch_and_are_counted() {
    let (_dir, storage) = open();
    saved(&storage, &inserts([insert("bob", 1, "one")]));
    let deletes = vec![delete("bob", 2), delete("nobody", 9), delete("bob", 2)];
    let saved = saved(
        &storage,
        &Batch { inserts: vec![insert("bob", 2, "two!"), insert("bob", 3, "three")], deletes, ..Batch::default() },
    );
    assert_eq!(saved.deleted, [(2, 7), (0, 0), (0, 0)]);
    assert_eq!(texts(&storage, "bob"), ["three"]);
}

#[test]
fn expiry_takes_the_oldest_of_all_users_and_says_whose() {
    let (_dir, storage) = open();
    saved(
        &storage,
        &inserts([insert("bob", 1, "1"), insert("ann", 2, "22"), insert("bob", 3, "333"), insert("ann", 4, "4444")]),
    );
    assert_eq!(storage.oldest_at().unwrap(), Some(1_001));
    let of = |recipient: &str, messages, bytes| Expired { recipient: recipient.into(), messages, bytes };
    assert_eq!(storage.expire(1_001, 99).unwrap(), []);
    assert_eq!(storage.expire(1_004, 2).unwrap(), [of("ann", 1, 2), of("bob", 1, 1)]);
    assert_eq!(storage.expire(1_004, 2).unwrap(), [of("bob", 1, 3)]);
    assert_eq!(storage.oldest_at().unwrap(), Some(1_004));
    assert_eq!(storage.expire(i64::MAX, 99).unwrap(), [of("ann", 1, 4)]);
    assert_eq!((storage.oldest_at().unwrap(), storage.total().unwrap()), (None, Backlog::default()));
}

#[test]
fn a_person_finds_who_waits_since_when() {
    let (_dir, storage) = open();
    let seen = Seen { name: "e\u{301}va".into(), key: "\u{e9}va".into(), at: 5 };
    saved(
        &storage,
        &Batch {
            seen: vec![seen],
            ..inserts([insert("\u{e9}va", 4, "ab"), insert("\u{e9}va", 9, "c"), insert("new", 6, "d")])
        },
    );
    let connection = Connection::open(storage.dir.join(DATABASE)).unwrap();
    let mut statement =
        connection.prepare("SELECT name, messages, bytes, oldest_at FROM waiting ORDER BY oldest_at").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    let rows: Vec<(String, i64, i64, i64)> = rows.map(Result::unwrap).collect();
    assert_eq!(rows, [("e\u{301}va".into(), 2, 3, 1_004), ("new".into(), 1, 1, 1_006)]);
    let error = connection.execute("UPDATE messages SET text = 'longer than it was'", []).unwrap_err();
    assert!(error.to_string().contains("never changed"), "{error}");
}

#[test]
fn everything_is_for_the_owner_only() {
    let (dir, storage) = open();
    by_hand(
        &storage,
        "CREATE TRIGGER t BEFORE INSERT ON messages WHEN NEW.text = 'bad' BEGIN SELECT RAISE(ABORT, 'bad'); END",
    );
    storage.save(&inserts([insert("bob", 1, "bad")])).unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["chatserver.db", "chatserver.db-shm", "chatserver.db-wal", "set-aside.jsonl"]);
}

#[test]
fn one_bad_row_is_set_aside_and_stops_no_other() {
    let (dir, storage) = open();
    // The second fires inside the counting trigger, when the row itself is already in.
    by_hand(
        &storage,
        "CREATE TRIGGER a BEFORE INSERT ON messages WHEN NEW.text = 'bad' BEGIN SELECT RAISE(ABORT, 'no such text'); END",
    );
    by_hand(
        &storage,
        "CREATE TRIGGER b AFTER UPDATE ON backlog WHEN NEW.bytes > 1000 BEGIN SELECT RAISE(ABORT, 'too much'); END",
    );
    let long = "x".repeat(1_001);
    let rows = [
        insert("bob", 1, "one"),
        insert("bob", 2, "bad"),
        insert("ann", u64::MAX, "far"),
        insert("ann", 1 << 53, "off"),
        insert("bob", 3, &long),
        insert("bob", 4, "four"),
    ];
    let saved = storage.save(&Batch { deletes: vec![delete("bob", 1)], ..inserts(rows) }).unwrap();
    assert_eq!(saved, Saved { set_aside: vec![1, 2, 3, 4], deleted: vec![(1, 3)], ..Saved::default() });
    assert_eq!(texts(&storage, "bob"), ["four"]);
    assert_eq!(storage.backlog("bob").unwrap(), Backlog { messages: 1, bytes: 4, first_seq: 4, last_seq: 4 });
    assert_eq!(storage.total().unwrap().messages, 1);
    let lines = std::fs::read_to_string(dir.path().join("set-aside.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept: Vec<_> = lines
        .iter()
        .map(|line| {
            (line["recipient"].as_str().unwrap(), line["seq"].as_u64().unwrap(), line["text"].as_str().unwrap())
        })
        .collect();
    assert_eq!(kept, [("bob", 2, "bad"), ("ann", u64::MAX, "far"), ("ann", 1 << 53, "off"), ("bob", 3, long.as_str())]);
    assert_eq!((&lines[0]["error"], &lines[0]["sender"]), (&"no such text".into(), &"[38121920]--> 7".into()));
}

#[test]
fn a_bad_database_is_an_error_and_sets_nothing_aside() {
    let (dir, storage) = open();
    by_hand(&storage, "DROP TABLE backlog");
    let error = storage.save(&inserts([insert("bob", 1, "one"), insert("bob", 2, "two")])).unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("backlog"), "{error}");
    assert!(!dir.path().join("set-aside.jsonl").exists());
}

#[test]
fn a_row_that_is_there_already_is_left_alone_unless_it_is_another() {
    let (_dir, storage) = open();
    let batch = inserts([insert("bob", 1, "one"), insert("bob", 2, "two")]);
    saved(&storage, &batch);
    saved(&storage, &batch);
    assert_eq!(storage.backlog("bob").unwrap(), Backlog { messages: 2, bytes: 6, first_seq: 1, last_seq: 2 });
    let saved = storage.save(&inserts([insert("bob", 2, "another"), insert("bob", 3, "three")])).unwrap();
    assert_eq!(saved.set_aside, [0], "an accepted message does not vanish");
    assert_eq!(texts(&storage, "bob"), ["one", "two", "three"]);
}

#[test]
fn another_programs_lock_delays_and_loses_nothing() {
    let (dir, storage) = open();
    storage.connection.lock().as_ref().unwrap().busy_timeout(Duration::ZERO).unwrap();
    saved(&storage, &inserts([insert("bob", 1, "one")]));
    let other = Connection::open(dir.path().join(DATABASE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = Batch { deletes: vec![delete("bob", 1)], ..inserts([insert("bob", 2, "two")]) };
    let error = storage.save(&batch).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("locked by another program"), "{error}");
    assert!(storage.expire(i64::MAX, 9).unwrap_err().is_retryable());
    assert_eq!(texts(&storage, "bob"), ["one"], "reading goes on");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(saved(&storage, &batch).deleted, [(1, 3)]);
    assert_eq!(texts(&storage, "bob"), ["two"]);
}

#[test]
fn a_full_disk_keeps_the_batch_for_the_next_try() {
    let (dir, storage) = open();
    saved(&storage, &inserts([insert("bob", 1, "one")]));
    let used = storage.used_bytes();
    let limit = |pages: i64| {
        storage
            .connection
            .lock()
            .as_ref()
            .unwrap()
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap()
    };
    limit(used as i64 / 4096 + 10);
    let text = "x".repeat(60_000);
    let batch = Batch {
        deletes: vec![delete("bob", 1)],
        ..inserts([insert("ann", 1 << 60, "bad")].into_iter().chain((2..9).map(|seq| insert("bob", seq, &text))))
    };
    for _ in 0..3 {
        let error = storage.save(&batch).unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("disk is full"), "{error}");
        assert_eq!((texts(&storage, "bob"), storage.used_bytes()), (vec!["one".to_owned()], used));
    }
    limit(1 << 20);
    assert_eq!(storage.save(&batch).unwrap(), Saved { set_aside: vec![0], deleted: vec![(1, 3)], ..Saved::default() });
    assert_eq!(storage.backlog("bob").unwrap(), Backlog { messages: 7, bytes: 420_000, first_seq: 2, last_seq: 8 });
    assert!(storage.used_bytes() > used + 420_000);
    let lines = std::fs::read_to_string(dir.path().join("set-aside.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 1);
}

#[test]
fn lines_of_a_batch_that_was_not_committed_are_taken_back() {
    let (dir, storage) = open();
    let batch = inserts([insert("bob", u64::MAX, "bad")]);
    let refused = || [set_aside::Refused { index: 0, error: rusqlite::Error::InvalidQuery }];
    drop(set_aside::append(dir.path(), &batch, &refused()).unwrap());
    set_aside::append(dir.path(), &batch, &refused()).unwrap().undo();
    assert_eq!(std::fs::read_to_string(dir.path().join("set-aside.jsonl")).unwrap().lines().count(), 1);
    std::fs::remove_file(dir.path().join("set-aside.jsonl")).unwrap();
    std::fs::create_dir(dir.path().join("set-aside.jsonl")).unwrap();
    let error = storage.save(&inserts([insert("bob", 1, "good"), insert("bob", u64::MAX, "bad")])).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("set-aside.jsonl"), "{error}");
    assert_eq!(texts(&storage, "bob"), [""; 0], "a row is not given up before it is written down elsewhere");
}

#[test]
fn the_write_ahead_log_stays_small_and_ends_with_the_server() {
    let (dir, storage) = open();
    let log = dir.path().join("chatserver.db-wal");
    let text = "x".repeat(1_000);
    for round in 0..60 {
        saved(
            &storage,
            &Batch {
                deletes: vec![delete("bob", round * 500)],
                ..inserts((1..=500).map(|n| insert("bob", round * 500 + n, &text)))
            },
        );
        assert_eq!(storage.read("bob", round * 500, u64::MAX, 9, usize::MAX).unwrap().0.len(), 9);
    }
    assert!(std::fs::metadata(&log).unwrap().len() <= LOG_BYTES as u64);
    assert!(storage.used_bytes() < 4_000_000, "the pages of deleted rows are used again: {}", storage.used_bytes());
    storage.checkpoint().unwrap();
    storage.close().unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [DATABASE]);
}

#[test]
fn a_killed_server_loses_nothing_that_was_saved() {
    let (dir, storage) = open();
    saved(&storage, &inserts([insert("bob", 1, "one")]));
    let copy = tempfile::tempdir().unwrap();
    for name in [DATABASE, "chatserver.db-wal"] {
        // A copy made by another process: no descriptor of the open database is closed in this one.
        let done = std::process::Command::new("cp").arg(dir.path().join(name)).arg(copy.path()).status().unwrap();
        assert!(done.success());
    }
    assert_eq!(texts(&Storage::open(copy.path()).unwrap(), "bob"), ["one"]);
}

#[test]
fn counts_that_were_changed_by_hand_hide_no_message_and_keep_nobody_out() {
    let (dir, storage) = open();
    saved(
        &storage,
        &inserts([insert("ann", 1, "a"), insert("ann", 2, "b"), insert("bob", 3, "c"), insert("carol", 4, "d")]),
    );
    by_hand(
        &storage,
        "UPDATE backlog SET messages = -1, bytes = -9223372036854775808 WHERE recipient = 'ann';
         DELETE FROM backlog WHERE recipient = 'bob';
         UPDATE backlog SET messages = 9223372036854775807, bytes = 9223372036854775807 WHERE recipient = 'carol';
         INSERT INTO backlog VALUES ('dave', 9223372036854775807, 9223372036854775807), ('eve', -1, -1);
         INSERT INTO users SELECT recipient, recipient, 1, 1 FROM backlog",
    );
    // The rows say that something waits.
    assert_eq!(storage.backlog("ann").unwrap(), Backlog { messages: 1, bytes: 0, first_seq: 1, last_seq: 2 });
    assert_eq!(storage.backlog("bob").unwrap(), Backlog { messages: 1, bytes: 0, first_seq: 3, last_seq: 3 });
    assert_eq!(storage.backlog("dave").unwrap(), Backlog::default(), "and that nothing does");
    assert_eq!(storage.backlog("eve").unwrap(), Backlog::default());
    assert!(storage.total().unwrap().messages >= 1 << 40);
    assert_eq!(super::users(dir.path()).unwrap().len(), 4);
    let exported = super::Export::open(dir.path(), None).unwrap();
    assert_eq!(exported.map(|waiting| waiting.unwrap().row.seq).collect::<Vec<_>>(), [1, 2, 4]);
}
