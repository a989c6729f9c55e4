//! The promises about the numbers of level-2 senders: committed with their messages, recognised after a crash, marked when delivered,
//! forgotten in time, and never in the way of a message.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{by_hand, delete, insert, open, saved};
use super::*;

fn id(id: u64) -> SentId {
    SentId { id, hash: id.wrapping_mul(0x9e37_79b9_7f4a_7c15), is_delivered: false }
}

fn delivered(number: u64) -> SentId {
    SentId { is_delivered: true, ..id(number) }
}

fn blocks(ids: &[SentId]) -> Vec<SentBlock> {
    ids.chunk_by(|a, b| a.id / 64 == b.id / 64)
        .map(|ids| SentBlock { block: ids[0].id / 64, ids: ids.to_vec() })
        .collect()
}

fn update(sender: &str, forgotten_upto: u64, ids: &[SentId]) -> SenderUpdate {
    let reserved_upto = ids.last().map_or(forgotten_upto, |last| last.id) + 100;
    SenderUpdate { sender: sender.into(), forgotten_upto, reserved_upto, used_at: 5_000, blocks: blocks(ids) }
}

fn senders(senders: impl IntoIterator<Item = SenderUpdate>) -> Batch {
    Batch { senders: senders.into_iter().collect(), ..Batch::default() }
}

fn numbered(recipient: &str, seq: u64, sender: &str, msg_id: u64) -> Insert {
    let Insert { recipient, row } = insert(recipient, seq, "hello");
    Insert { recipient, row: Row { sender: sender.into(), msg_id: Some(msg_id), ..row } }
}

fn ids(storage: &Storage, sender: &str) -> Vec<SentId> {
    storage.sender(sender).unwrap().ids
}

fn number(storage: &Storage, sql: &str) -> i64 {
    Connection::open(storage.dir.join(DATABASE)).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_remembered_comes_back_in_order_and_for_each_sender() {
    let (dir, storage) = open();
    assert_eq!(storage.sender("ann").unwrap(), SenderState::default());
    let of_ann: Vec<SentId> = [1, 2, 63, 64, 127, 128, 700, (1 << 53) - 101].map(id).into();
    let mut ann = update("ann", 0, &of_ann);
    ann.blocks.reverse();
    saved(&storage, &senders([ann, update("bob", 4, &[id(5), delivered(6)])]));
    storage.close().unwrap();
    let storage = Storage::open(dir.path()).unwrap();
    let ann = SenderState { forgotten_upto: 0, reserved_upto: (1 << 53) - 1, ids: of_ann };
    assert_eq!(storage.sender("ann").unwrap(), ann);
    let bob = SenderState { forgotten_upto: 4, reserved_upto: 106, ids: vec![id(5), delivered(6)] };
    assert_eq!(storage.sender("bob").unwrap(), bob);
    saved(&storage, &senders([update("bob", 4, &[delivered(5), delivered(6), id(9), id(64)])]));
    assert_eq!(ids(&storage, "bob"), [delivered(5), delivered(6), id(9), id(64)], "a block replaces what was there");
    let other = SentId { hash: 1, ..id(6) };
    saved(&storage, &senders([update("bob", 4, &[id(5), other, id(64)])]));
    assert_eq!(ids(&storage, "bob"), [delivered(5), other, id(64)], "but a delivery is not taken back");
    assert_eq!(storage.sender("ann").unwrap(), ann);
}

#[test]
fn what_is_forgotten_leaves_the_disk_a_block_at_a_time() {
    let (_dir, storage) = open();
    let all: Vec<SentId> = (1..=320).map(id).collect();
    let rows = || number(&storage, "SELECT count(*) FROM sent");
    saved(&storage, &senders([update("ann", 0, &all), update("bob", 0, &all[..1])]));
    assert_eq!(rows(), 7);
    saved(&storage, &senders([update("ann", 126, &[])]));
    assert_eq!(rows(), 6, "127 belongs to the second block, and is remembered");
    assert_eq!(ids(&storage, "ann"), all[126..]);
    saved(&storage, &senders([update("ann", 127, &[])]));
    assert_eq!((rows(), ids(&storage, "ann")), (5, all[127..].to_vec()));
    let empty = SentBlock { block: 3, ids: Vec::new() };
    saved(&storage, &senders([SenderUpdate { blocks: vec![empty], ..update("ann", 127, &[]) }]));
    assert_eq!((rows(), ids(&storage, "ann")), (4, [&all[127..191], &all[255..]].concat()));
    assert_eq!(ids(&storage, "bob"), [id(1)]);
}

#[test]
fn a_person_reads_them_with_hex() {
    let (_dir, storage) = open();
    let sent = [
        SentId { id: 65, hash: 0x0123_4567_89ab_cdef, is_delivered: false },
        SentId { id: 127, hash: u64::MAX, is_delivered: true },
    ];
    saved(&storage, &senders([update("ann", 0, &sent)]));
    let connection = Connection::open(storage.dir.join(DATABASE)).unwrap();
    let told = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    let expected = "00000000000000410123456789ABCDEF01000000000000007FFFFFFFFFFFFFFFFF02";
    assert_eq!(told("SELECT hex(ids) FROM sent WHERE sender = 'ann' AND block = 1"), expected);
    let schema = told("SELECT sql FROM sqlite_schema WHERE name = 'sent'");
    assert!(schema.contains("17 bytes for each number") && schema.contains("01 STORED, 02 DELIVERED"), "{schema}");
    let schema = told("SELECT sql FROM sqlite_schema WHERE name = 'senders'");
    assert!(schema.contains("no number above it was ever seen"), "{schema}");
}

#[test]
fn a_message_and_its_number_are_on_disk_both_or_neither() {
    let (_dir, storage) = open();
    let batch = Batch {
        inserts: vec![numbered("bob", 1, "ann", 1), numbered("bob", 2, "ann", 2)],
        ..senders([update("ann", 0, &[id(1), id(2)])])
    };
    let neither = |what: &str| {
        assert_eq!(storage.backlog("bob").unwrap(), Backlog::default(), "{what}");
        assert_eq!(storage.sender("ann").unwrap(), SenderState::default(), "{what}");
    };
    // A reference to nothing, which is found out at the commit only.
    by_hand(
        &storage,
        "CREATE TABLE p (x PRIMARY KEY); CREATE TABLE c (x REFERENCES p (x) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER t AFTER INSERT ON sent BEGIN INSERT INTO c VALUES (1); END",
    );
    storage.save(&batch).unwrap_err();
    neither("the commit failed");
    by_hand(&storage, "DROP TRIGGER t");

    let limit = |pages: i64| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        storage.connection.lock().as_ref().unwrap().query_row(&sql, [], |_| Ok(())).unwrap();
    };
    limit(storage.used_bytes() as i64 / 4096 + 4);
    let much = Batch {
        inserts: batch.inserts.clone(),
        ..senders([update("ann", 0, &(1..=1_000).map(id).collect::<Vec<_>>())])
    };
    let error = storage.save(&much).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("disk is full"), "{error}");
    neither("the disk was full");
    limit(1 << 20);

    for time in ["once", "again, as after an error reported for a commit that was durable"] {
        assert_eq!(saved(&storage, &batch), Saved::default(), "{time}");
        assert_eq!(storage.backlog("bob").unwrap().messages, 2, "{time}");
        assert_eq!(ids(&storage, "ann"), [id(1), id(2)], "{time}");
    }
}

#[test]
fn the_number_of_a_message_stays_with_it() {
    let (dir, storage) = open();
    let batch =
        Batch { inserts: vec![numbered("bob", 1, "ann", (1 << 53) - 1), insert("bob", 2, "x")], ..Batch::default() };
    saved(&storage, &batch);
    let rows = storage.read("bob", 0, 9, 9, 999).unwrap().0;
    assert_eq!(rows, [batch.inserts[0].row.clone(), batch.inserts[1].row.clone()]);
    let other = |msg_id| Insert { row: Row { msg_id, ..batch.inserts[0].row.clone() }, ..batch.inserts[0].clone() };
    let again = Batch { inserts: vec![other(None), other(Some(7)), batch.inserts[0].clone()], ..Batch::default() };
    assert_eq!(storage.save(&again).unwrap().set_aside, [0, 1], "another number, another message");
    let lines = std::fs::read_to_string(dir.path().join("set-aside.jsonl")).unwrap();
    let kept = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["msg_id"].clone());
    assert_eq!(kept.collect::<Vec<_>>(), [serde_json::Value::Null, 7.into()]);
    by_hand(&storage, "INSERT INTO messages VALUES ('bob', 3, 'ann', 'by hand', 1, 2, -5)");
    assert_eq!(storage.read("bob", 2, 9, 9, 999).unwrap().0[0].msg_id, None);
}

#[test]
fn a_delivery_is_noted_on_disk_for_a_sender_who_has_left() {
    let (_dir, storage) = open();
    let (written, key) = ("zoe\u{301}", "zo\u{e9}");
    let all: Vec<SentId> = [1, 2, 3, 64, 65, 200].map(id).into();
    let batch = Batch {
        inserts: vec![
            numbered("bob", 1, written, 1),
            insert("bob", 2, "of level 1"),
            numbered("bob", 3, key, 3),
            numbered("bob", 4, "ann", 2),
            numbered("bob", 5, written, 65),
            numbered("bob", 6, written, 66),
            numbered("bob", 7, " no name ", 2),
            numbered("bob", 8, "stranger", 2),
            numbered("bob", 9, written, 200),
        ],
        ..senders([update(key, 0, &all), update("ann", 0, &[delivered(2), id(3)])])
    };
    assert_eq!(saved(&storage, &batch).delivered, []);
    assert_eq!(ids(&storage, key), all);
    let said = saved(&storage, &Batch { deletes: vec![delete("bob", 8)], ..Batch::default() });
    assert_eq!(said.deleted, [(8, 45)]);
    let expected =
        [(written, 1), (key, 3), ("ann", 2), (written, 65), (written, 66), (" no name ", 2), ("stranger", 2)];
    assert_eq!(said.delivered, expected.map(|(sender, id)| (sender.to_owned(), id)));
    assert_eq!(ids(&storage, key), [delivered(1), id(2), delivered(3), id(64), delivered(65), id(200)]);
    assert_eq!(ids(&storage, "ann"), [delivered(2), id(3)], "it was delivered before");
    assert_eq!(storage.sender("stranger").unwrap(), SenderState::default());

    // Saved and delivered in one batch: the mark comes after the number.
    let batch = Batch {
        inserts: vec![numbered("bob", 10, "ann", 4)],
        deletes: vec![delete("bob", 10)],
        ..senders([update("ann", 0, &[delivered(2), id(3), id(4)])])
    };
    assert_eq!(saved(&storage, &batch).delivered, [(written.to_owned(), 200), ("ann".to_owned(), 4)]);
    assert_eq!(ids(&storage, "ann"), [delivered(2), id(3), delivered(4)]);
    assert_eq!(storage.expire(i64::MIN, 9).unwrap(), []);
}

#[test]
fn a_delete_that_fails_delivers_nothing() {
    let (_dir, storage) = open();
    let batch = Batch {
        inserts: vec![numbered("bob", 1, "ann", 1), numbered("eve", 1, "ann", 2)],
        ..senders([update("ann", 0, &[id(1), id(2)])])
    };
    saved(&storage, &batch);
    by_hand(
        &storage,
        "CREATE TRIGGER t AFTER DELETE ON messages WHEN OLD.recipient = 'bob' BEGIN SELECT RAISE(ABORT, 'stays'); END",
    );
    let said = saved(&storage, &Batch { deletes: vec![delete("bob", 9), delete("eve", 9)], ..Batch::default() });
    assert_eq!((said.deleted, said.delivered), (vec![(0, 0), (1, 5)], vec![("ann".to_owned(), 2)]));
    assert_eq!(ids(&storage, "ann"), [id(1), delivered(2)]);
}

#[test]
fn one_sender_s_fault_stops_no_message_and_no_other_sender() {
    let (_dir, storage) = open();
    by_hand(
        &storage,
        "CREATE TRIGGER t BEFORE INSERT ON sent WHEN NEW.sender = 'bad' BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    );
    let unordered = SentBlock { block: 0, ids: vec![id(2), id(1)] };
    let elsewhere = SentBlock { block: 1, ids: vec![id(2)] };
    let with = |sender: &str, block| SenderUpdate { blocks: vec![block], ..update(sender, 0, &[]) };
    let batch = Batch {
        inserts: vec![numbered("eve", 1, "bad", 1), numbered("eve", 2, "ann", 1)],
        ..senders([
            update("bad", 0, &[id(1)]),
            update("ann", 0, &[id(1)]),
            with("unordered", unordered),
            with("elsewhere", elsewhere),
            SenderUpdate { reserved_upto: 1 << 53, ..update("far", 0, &[]) },
            update("bob", 0, &[id(7)]),
        ])
    };
    assert_eq!(saved(&storage, &batch).senders_failed, [0, 2, 3, 4]);
    assert_eq!(storage.backlog("eve").unwrap().messages, 2);
    assert_eq!((ids(&storage, "ann"), ids(&storage, "bob")), (vec![id(1)], vec![id(7)]));
    for sender in ["bad", "unordered", "elsewhere", "far"] {
        assert_eq!(storage.sender(sender).unwrap(), SenderState::default(), "{sender}");
    }
    by_hand(&storage, "DROP TRIGGER t");
    assert_eq!(saved(&storage, &senders([update("bad", 0, &[id(1)])])), Saved::default());
    assert_eq!(ids(&storage, "bad"), [id(1)]);
    by_hand(&storage, "DROP TABLE sent");
    let batch = Batch { inserts: vec![numbered("eve", 3, "ann", 2)], ..senders([update("ann", 0, &[id(2)])]) };
    assert_eq!(saved(&storage, &batch).senders_failed, [0]);
    let said = saved(&storage, &Batch { deletes: vec![delete("eve", 3)], ..Batch::default() });
    assert_eq!((said.deleted, said.delivered.len()), (vec![(3, 15)], 3));
}

#[test]
fn a_damaged_row_is_used_as_far_as_it_can_be_read() {
    let entry = |id: u64, state: u8| {
        let SentId { hash, .. } = super::senders_tests::id(id);
        let mut bytes = [id.to_be_bytes(), hash.to_be_bytes()].concat();
        bytes.push(state);
        bytes
    };
    let good = || vec![entry(64, 1), entry(70, 2)];
    let with = |more: Vec<u8>| [good().concat(), more].concat();
    let damages = [
        with(entry(71, 1)[..16].to_vec()),
        with([entry(69, 1), entry(71, 1)].concat()),
        with(entry(70, 1)),
        with(entry(128, 1)),
        with(entry(71, 0)),
        with(entry(71, 3)),
        with(vec![0]),
    ];
    for (which, damage) in damages.into_iter().enumerate() {
        let (_dir, storage) = open();
        let batch = Batch {
            inserts: vec![numbered("bob", 1, "ann", 64)],
            ..senders([update("ann", 0, &[id(3), id(64), id(200)])])
        };
        saved(&storage, &batch);
        let hex: String = damage.iter().map(|byte| format!("{byte:02x}")).collect();
        by_hand(&storage, &format!("UPDATE sent SET ids = x'{hex}' WHERE block = 1"));
        assert_eq!(ids(&storage, "ann"), [id(3), id(64), delivered(70), id(200)], "damage {which}");
        let said = saved(&storage, &Batch { deletes: vec![delete("bob", 1)], ..Batch::default() });
        assert_eq!(said.delivered, [("ann".to_owned(), 64)]);
        assert_eq!(ids(&storage, "ann"), [id(3), delivered(64), delivered(70), id(200)], "damage {which}");
        let length = number(&storage, "SELECT length(ids) FROM sent WHERE block = 1");
        assert_eq!(length, 34, "a row that is written is whole again");
    }
    let (_dir, storage) = open();
    by_hand(
        &storage,
        "INSERT INTO senders VALUES ('ann', -1, 1, 1);
         INSERT INTO sent VALUES ('ann', -7, x'00'), ('ann', 9223372036854775807, x'01'), ('ann', 0, x'');",
    );
    let state = SenderState { reserved_upto: 1, ..SenderState::default() };
    assert_eq!(storage.sender("ann").unwrap(), state, "what was written by hand keeps nobody out");
    saved(&storage, &senders([update("ann", 0, &[id(3)])]));
    assert_eq!(ids(&storage, "ann"), [id(3)]);
}

#[test]
fn senders_who_use_no_numbers_are_forgotten_a_few_at_a_time() {
    let (_dir, storage) = open();
    let many: Vec<SentId> = (1..=150).map(id).collect();
    let used = |sender: &str, used_at| SenderUpdate { used_at, ..update(sender, 0, &many) };
    saved(&storage, &senders(["a", "b", "c", "d", "e"].map(|name| used(name, if name == "c" { 20 } else { 10 }))));
    let remembered = || {
        let of = |name: &&str| !storage.sender(name).unwrap().ids.is_empty();
        ["a", "b", "c", "d", "e"].into_iter().filter(of).collect::<String>()
    };
    let after_expiry = |before, most| {
        assert_eq!(storage.expire(before, most).unwrap(), []);
        remembered()
    };
    assert_eq!(after_expiry(10, 99), "abcde");
    assert_eq!(after_expiry(11, 3), "bcde", "three rows a call");
    assert_eq!(after_expiry(11, 2), "cde");
    assert_eq!(after_expiry(11, 4), "c", "five rows in two senders are more than four: the second was begun before");
    let forgotten = SenderState { forgotten_upto: 250, reserved_upto: 250, ids: Vec::new() };
    assert_eq!(storage.sender("e").unwrap(), forgotten);
    assert_eq!(number(&storage, "SELECT count(*) FROM sent"), 3);
    // Around, and around again: who comes back is found however few are looked at in a call.
    saved(&storage, &senders([used("b", 30)]));
    let mut calls = 0;
    while storage.expire(31, 2).unwrap().is_empty() && !remembered().is_empty() && calls < 10 {
        calls += 1;
    }
    assert_eq!(remembered(), "");
    let mut later = update("e", 250, &[id(251)]);
    later.used_at = 99;
    saved(&storage, &senders([later]));
    assert_eq!((after_expiry(99, 99), ids(&storage, "e")), ("e".to_owned(), vec![id(251)]));
}

#[test]
fn a_sender_whose_name_is_no_utf_8_is_forgotten_like_others_and_holds_nobody_up() {
    let (_dir, storage) = open();
    saved(&storage, &senders([SenderUpdate { used_at: 10, ..update("\u{10ffff}", 0, &[id(1)]) }]));
    by_hand(
        &storage,
        "INSERT INTO senders VALUES (CAST(x'F1F1' AS TEXT), 0, 1, 10), (CAST(x'61FF' AS TEXT), 0, 1, 10);
         INSERT INTO sent VALUES (CAST(x'F1F1' AS TEXT), 0, x'01');",
    );
    for _ in 0..3 {
        assert_eq!(storage.expire(11, 1).unwrap(), []);
    }
    assert_eq!(number(&storage, "SELECT count(*) FROM sent"), 0);
}

/// A step of the property test; senders are 0 to 2, recipients 0 and 1.
#[derive(Debug, Clone)]
enum Step {
    /// (sender, recipient, distance to the sender's last number), then how much of which recipient's rows is acknowledged, in percent.
    Save(Vec<(usize, usize, u64)>, usize, u64),
    /// The last batch again, as after an error reported for a commit that was durable.
    Again,
    /// Part of the time so far, in percent.
    Expire(i64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec((0..3usize, 0..2usize, 1..40u64), 0..20), 0..2usize, 0..=100u64).prop_map(|(sent, recipient, part)| Step::Save(sent, recipient, part)),
        1 => Just(Step::Again),
        1 => (0..=100i64).prop_map(Step::Expire),
        1 => Just(Step::Reopen),
    ]
}

const NAMES: [(&str, &str); 3] = [("ann", "ann"), ("zoe\u{301}", "zo\u{e9}"), ("7", "7")];

/// How many numbers of a sender are remembered in the property test.
const KEPT: usize = 20;

/// What a server knows of the three senders, and what is on disk for the two recipients: (recipient, seq) → (sender as written, number).
#[derive(Default)]
struct Model {
    senders: [SenderState; 3],
    used_at: [i64; 3],
    rows: BTreeMap<(String, u64), (String, u64)>,
    seq: u64,
    now: i64,
}

impl Model {
    fn batch(&mut self, sent: Vec<(usize, usize, u64)>, acking: usize, part: u64) -> Batch {
        let mut batch = Batch::default();
        self.now += 1;
        let mut changed = BTreeMap::<usize, Vec<u64>>::new();
        for (sender, recipient, distance) in sent {
            self.seq += 1;
            let state = &mut self.senders[sender];
            let next = state.ids.last().map_or(state.reserved_upto, |last| last.id) + distance;
            state.ids.push(id(next));
            batch.inserts.push(numbered(&format!("r{recipient}"), self.seq, NAMES[sender].0, next));
            changed.entry(sender).or_default().push(next / 64);
        }
        for (sender, changed) in changed {
            let state = &mut self.senders[sender];
            for gone in state.ids.drain(..state.ids.len().saturating_sub(KEPT)) {
                state.forgotten_upto = gone.id;
            }
            state.reserved_upto = state.ids.last().map_or(0, |last| last.id).next_multiple_of(50);
            self.used_at[sender] = self.now;
            let mut blocks = blocks(&state.ids);
            blocks.retain(|block| changed.contains(&block.block));
            let (forgotten_upto, reserved_upto) = (state.forgotten_upto, state.reserved_upto);
            let sender = NAMES[sender].1.into();
            batch.senders.push(SenderUpdate { sender, forgotten_upto, reserved_upto, used_at: self.now, blocks });
        }
        batch.deletes.push(delete(&format!("r{acking}"), self.seq * part / 100));
        batch
    }

    fn save(&mut self, storage: &Storage, batch: &Batch) {
        for Insert { recipient, row } in &batch.inserts {
            self.rows.insert((recipient.to_string(), row.seq), (row.sender.clone(), row.msg_id.unwrap()));
        }
        let said = saved(storage, batch);
        let acked = &batch.deletes[0];
        let mut expected = Vec::new();
        self.rows.retain(|(recipient, seq), sent| {
            let is_kept = *recipient != *acked.recipient || *seq > acked.seq;
            if !is_kept {
                expected.push(sent.clone());
                let sender = NAMES.iter().position(|(written, _)| *written == sent.0).unwrap();
                for known in self.senders[sender].ids.iter_mut().filter(|known| known.id == sent.1) {
                    known.is_delivered = true;
                }
            }
            is_kept
        });
        assert_eq!(said, Saved { deleted: said.deleted.clone(), delivered: expected, ..Saved::default() });
    }

    fn expire(&mut self, storage: &Storage, before: i64) {
        assert_eq!(storage.expire(before, 1_000).unwrap(), []);
        for (state, used_at) in self.senders.iter_mut().zip(self.used_at) {
            if used_at < before {
                state.forgotten_upto = state.reserved_upto;
                state.ids.clear();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_remembered_on_disk_is_what_the_server_knows(steps in prop::collection::vec(step(), 1..30)) {
        let (dir, mut storage) = open();
        let (mut model, mut last) = (Model::default(), None);
        for step in steps {
            match step {
                Step::Save(sent, recipient, part) => {
                    let batch = model.batch(sent, recipient, part);
                    model.save(&storage, &batch);
                    last = Some(batch);
                }
                Step::Again => {
                    if let Some(batch) = &last {
                        model.save(&storage, batch);
                    }
                }
                Step::Expire(part) => {
                    // Rows are accepted at 1,000 and later: none of them is old enough.
                    model.expire(&storage, model.now * part / 100);
                    last = None;
                }
                Step::Reopen => {
                    storage.close().unwrap();
                    storage = Storage::open(dir.path()).unwrap();
                }
            }
            for (state, (_, key)) in model.senders.iter().zip(NAMES) {
                assert_eq!(&storage.sender(key).unwrap(), state);
            }
        }
    }
}
