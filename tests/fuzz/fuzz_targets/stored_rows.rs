//! A database with odd contents, as somebody's hand or a damaged disk leaves it: whatever the rows hold, the real storage and the start of a
//! mailbox read it or refuse it, and no odd row keeps the good ones beside it from their recipients.
//!
//! With the schema as it is, SQLite keeps the types, so every row that is there must be delivered. In every second input the schema was
//! loosened by hand, and anything may be anywhere; then nothing may panic.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use chatserver::clock::SystemClock;
use chatserver::config::Config;
use chatserver::delivery::Delivery;
use chatserver::jobs::timer;
use chatserver::protocol::{Cipher, MAX_NUMBER, Message, PUBLISHED_KEY, UserName};
use chatserver::server::Server;
use chatserver::storage::{
    Batch, DATABASE, Delete, Export, Insert, Row, Seen, SenderUpdate, SentBlock, SentId, Storage, users,
};
use chatserver_fuzz::Input;
use chatserver_fuzz::wire::{Event, Wire};
use libfuzzer_sys::fuzz_target;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};
use tempfile::TempDir;

/// Tables and what their columns hold: t a name or text, i a number, b numbers of messages.
const TABLES: [(&str, &str); 6] = [
    ("messages(recipient, seq, sender, text, client_time, accepted_at, msg_id)", "titTiii"),
    ("users(name, name_key, registered_at, last_seen_at)", "ttii"),
    ("senders(sender, forgotten_upto, reserved_upto, used_at)", "tiii"),
    ("sent(sender, block, ids)", "tib"),
    ("backlog(recipient, messages, bytes)", "tii"),
    ("meta(only_row, seq_floor)", "1i"),
];

const NAMES: [&str; 4] = ["ann", "bob", "é 世界", "e\u{301} 世界"];

/// More rows than an input can have.
const MANY: usize = 10_000;

/// Two empty databases: as the server makes it, and without anything that keeps odd values out.
static TEMPLATES: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = TempDir::new_in("/dev/shm").expect("a directory in memory");
    Storage::open(dir.path()).and_then(|storage| storage.close()).expect("an empty database");
    fs::copy(dir.path().join(DATABASE), dir.path().join("loose")).expect("room in memory");
    let loose = Connection::open(dir.path().join("loose")).expect("the copy");
    loose
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(replace(replace(replace(replace(sql, 'STRICT, WITHOUT', 'WITHOUT'), ' STRICT', ''),
                 ' NOT NULL', ''), ' CHECK (seq BETWEEN 1 AND 9007199254740991)', ''), ' CHECK (only_row = 1)', '') WHERE type = 'table';
             DELETE FROM sqlite_schema WHERE type = 'trigger';
             PRAGMA writable_schema = RESET;",
        )
        .expect("a loosened schema");
    dir
});

static DIR: LazyLock<TempDir> = LazyLock::new(|| TempDir::new_in("/dev/shm").expect("a directory in memory"));

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mode = input.byte();
    let (is_loose, is_served) = (mode & 1 == 1, mode & 30 == 30);
    let template = if is_loose { "loose" } else { DATABASE };
    let path = DIR.path().join(DATABASE);
    for name in [DATABASE, "chatserver.db-wal", "chatserver.db-shm"] {
        let _ = fs::remove_file(DIR.path().join(name));
    }
    fs::copy(TEMPLATES.path().join(template), &path).expect("room in memory");
    let waiting = fill(&path, &mut input);
    if is_loose {
        read_anything(DIR.path());
    } else {
        let is_possible = read_all(DIR.path(), &waiting);
        if is_served && is_possible {
            deliver_all(DIR.path(), &waiting);
        }
        change(DIR.path(), &mut Input::new(data));
    }
});

/// Writes rows by hand, and gives what waits: texts by recipient and seq.
fn fill(path: &Path, input: &mut Input<'_>) -> BTreeMap<String, Vec<(i64, String)>> {
    let mut connection = Connection::open(path).expect("the copy");
    connection.pragma_update(None, "synchronous", "OFF").expect("a setting");
    let transaction = connection.transaction().expect("a transaction");
    while !input.is_empty() {
        let (table, columns) = TABLES[input.choice(TABLES.len())];
        let values: Vec<Value<'_>> = columns.chars().map(|column| Value::take(column, input)).collect();
        let marks = vec!["?"; values.len()].join(", ");
        let statement = format!("INSERT OR REPLACE INTO {table} VALUES ({marks})");
        // What the schema does not let in is not there.
        let _ = transaction.execute(&statement, rusqlite::params_from_iter(&values));
    }
    let mut waiting: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
    {
        let query = "SELECT CAST(recipient AS BLOB), seq, CAST(text AS BLOB) FROM messages ORDER BY seq";
        let mut statement = transaction.prepare(query).expect("a query");
        let mut rows = statement.query([]).expect("rows");
        while let Ok(Some(row)) = rows.next() {
            let text = |column| row.get::<_, Vec<u8>>(column).map(String::from_utf8);
            if let (Ok(Ok(recipient)), Ok(seq), Ok(text)) = (text(0), row.get(1), row.get::<_, Vec<u8>>(2)) {
                let text = String::from_utf8_lossy(&text).into_owned();
                waiting.entry(recipient).or_default().push((seq, text));
            }
        }
    }
    transaction.commit().expect("a commit");
    waiting
}

enum Value<'a> {
    Null,
    Number(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(Vec<u8>),
}

impl<'a> Value<'a> {
    /// Mostly what belongs into a column of this kind.
    fn take(column: char, input: &mut Input<'a>) -> Value<'a> {
        let byte = input.byte();
        match (byte, column) {
            (0..200, '1') => Value::Number(1),
            (0..200, 't') => Value::Text(NAMES[usize::from(byte) % NAMES.len()].as_bytes()),
            (0..200, 'i') => Value::Number(i64::from(byte)),
            (0..200, 'b') => Value::Blob(numbers(input)),
            (0..200, _) | (200..220, _) => Value::Text(input.string()),
            (220..240, _) => Value::Number(input.number() as i64),
            (240..246, _) => Value::Blob(input.string().to_vec()),
            (246..250, _) => Value::Real(f64::from_bits(input.number())),
            (250..=255, _) => Value::Null,
        }
    }
}

/// A row of `sent`, good or nearly: entries of 17 bytes.
fn numbers(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..input.byte() % 8 {
        bytes.extend(input.number().to_be_bytes());
        bytes.extend([7; 8]);
        bytes.push(input.byte() % 4);
    }
    bytes
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Number(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Everything that reads, on a database in which anything may be.
fn read_anything(dir: &Path) {
    let _ = users(dir);
    let _ = Export::open(dir, None).map(|export| export.take(MANY).filter(Result::is_ok).count());
    let Ok(storage) = Storage::open(dir) else { return };
    let (_, _) = (storage.total(), storage.oldest_at());
    for name in NAMES {
        let (_, _) = (storage.backlog(name), storage.sender(name));
        let _ = storage.read(name, 0, u64::MAX, 3, 100);
    }
    let _ = storage.expire(100, 3);
    let Some(delivery) = delivery(dir, storage) else { return };
    for name in NAMES.map(key) {
        if let Ok(mailbox) = delivery.mailbox(&name) {
            let _ = mailbox.ledger(&delivery);
            delivery.release(mailbox);
        }
    }
    let _ = delivery.storage.close();
}

/// The way a server and its mailboxes start.
fn delivery(dir: &Path, storage: Storage) -> Option<Delivery> {
    let config = Config { data: dir.to_owned(), ..Config::default() };
    let cipher = Cipher::new(PUBLISHED_KEY).expect("16 bytes");
    let delivery = Delivery::new(&config, cipher, storage, Box::new(SystemClock::new())).ok()?;
    timer::reserve_seqs(&delivery).ok()?;
    Some(delivery)
}

fn key(name: &str) -> Arc<str> {
    UserName::parse(name).expect("a good name").key().clone()
}

/// With the schema as it is every row is read, as a writer reads it: batch after batch, in order. `false`: no server can start.
fn read_all(dir: &Path, waiting: &BTreeMap<String, Vec<(i64, String)>>) -> bool {
    let storage = Storage::open(dir).expect("the schema is ours");
    storage.total().expect("counts");
    storage.oldest_at().expect("a time");
    for (recipient, expected) in waiting {
        let backlog = storage.backlog(recipient).expect("a count");
        let (mut after, mut read) = (0, Vec::new());
        loop {
            let (rows, is_complete) = storage.read(recipient, after, u64::MAX, 3, 100).expect("rows");
            assert!(rows.iter().zip(rows.iter().skip(1)).all(|(one, next)| one.seq < next.seq));
            assert!(is_complete || rows.last().is_some_and(|row| row.seq > after), "each read goes on");
            after = rows.last().map_or(after, |row| row.seq);
            read.extend(rows.into_iter().map(|row| (row.seq as i64, row.text)));
            if is_complete {
                break;
            }
        }
        assert_eq!(&read, expected, "no odd row keeps the good ones back");
        assert!(backlog.messages == 0 || backlog.last_seq == after, "{backlog:?}");
    }
    for name in NAMES {
        storage.sender(name).expect("a sender is not kept out");
    }
    let exported = Export::open(dir, None).expect("the schema is ours").take(MANY);
    exported.for_each(|waiting| drop(waiting.expect("a row")));
    users(dir).expect("users");
    // Where numbers begin may be out of range, too: then a server says so, and does not start.
    let is_floor_possible = storage.seq_floor().is_ok_and(|floor| floor <= MAX_NUMBER);
    let Some(delivery) = delivery(dir, storage) else {
        assert!(!is_floor_possible);
        return false;
    };
    for (recipient, expected) in waiting {
        let Some(name) = UserName::parse(recipient).ok().filter(|name| **name.key() == **recipient) else { continue };
        let mailbox = delivery.mailbox(name.key()).expect("a mailbox");
        mailbox.ledger(&delivery).expect("a ledger");
        delivery.release(mailbox);
        assert!(!expected.is_empty());
    }
    delivery.storage.close().expect("the log is folded in");
    true
}

/// And it comes to its recipient, from a whole server.
fn deliver_all(dir: &Path, waiting: &BTreeMap<String, Vec<(i64, String)>>) {
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        data: dir.to_owned(),
        expire_after: std::time::Duration::ZERO,
        ..Config::default()
    };
    let server = Server::start(config).expect("a server starts on it");
    for (recipient, expected) in waiting {
        let Some(name) = UserName::parse(recipient).ok().filter(|name| **name.key() == **recipient) else { continue };
        let mut wire = Wire::connect(server.local_addr());
        let (name, mut next) = (name.as_written(), 0);
        let login = Message::ClientLogin { name, version: 1.0, time: 1, level: None, last_seq: None };
        wire.send(&wire.packet(&login));
        while next < expected.len() {
            let event = wire.next(|message| {
                if let Message::Chat(chat) = message {
                    assert_eq!(chat.text, expected[next].1);
                    next += 1;
                }
            });
            assert!(matches!(event, Event::Packet(())), "the server has closed on {name}");
        }
        // It breaks off, so that all of it stays for what follows.
        wire.reset();
    }
    server.stop();
}

/// A save on top of it: what is new is taken, or set aside, and nothing else fails.
fn change(dir: &Path, input: &mut Input<'_>) {
    let storage = Storage::open(dir).expect("the schema is ours");
    let [seq, id, upto, floor] = [(); 4].map(|()| input.number());
    let name = key(NAMES[input.choice(NAMES.len())]);
    let row =
        |seq| Row { seq, sender: "ann".into(), text: "new".into(), client_time: 1, accepted_at: 1, msg_id: Some(id) };
    let inserts: Vec<_> =
        [seq, seq.saturating_add(1)].map(|seq| Insert { recipient: name.clone(), row: row(seq) }).into();
    let ids = vec![SentId { id, hash: 7, is_delivered: false }];
    let blocks = vec![SentBlock { block: id / 64, ids }];
    let update = SenderUpdate { sender: name.clone(), forgotten_upto: upto, reserved_upto: id, used_at: 1, blocks };
    let batch = Batch {
        inserts,
        senders: vec![update],
        deletes: vec![Delete { recipient: name.clone(), seq: upto }],
        seen: vec![Seen { name: name.clone(), key: name, at: 1 }],
        seq_floor: Some(floor % MAX_NUMBER),
    };
    let saved = storage.save(&batch).expect("one bad row stops no save");
    assert!(saved.set_aside.len() <= 2 && saved.senders_failed.len() <= 1 && saved.deleted.len() == 1);
    storage.expire(100, 3).expect("an expiry");
    storage.close().expect("the log is folded in");
}
