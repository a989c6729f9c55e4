//! The database against a model in memory: whatever was saved, saved again, acknowledged, expired, or deleted by hand, what is read,
//! counted and reported is the truth.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{by_hand, delete, insert, open, saved};
use super::*;

/// A step of the property test; users are 0 to 2.
#[derive(Debug, Clone)]
enum Step {
    /// (user, text length) in order, then the part of the user's rows to acknowledge, in percent.
    Save(Vec<(usize, usize)>, usize, u64),
    /// The last batch again, as after an error reported for a commit that was durable.
    Again,
    /// Part of the age range in percent, and the most rows.
    Expire(i64, usize),
    /// Somebody deletes every nth row with `sqlite3`.
    ByHand(i64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec((0..3usize, 0..40usize), 0..12), 0..3usize, 0..=100u64).prop_map(|(rows, user, part)| Step::Save(rows, user, part)),
        1 => Just(Step::Again),
        1 => (0..=100i64, 0..6usize).prop_map(|(part, most)| Step::Expire(part, most)),
        1 => (2..5i64).prop_map(Step::ByHand),
        1 => Just(Step::Reopen),
    ]
}

/// What should be on disk: (recipient, seq) → row.
type Model = BTreeMap<(String, u64), Row>;

fn sizes<'a>(rows: impl Iterator<Item = (&'a (String, u64), &'a Row)>) -> Backlog {
    rows.fold(Backlog::default(), |sum, ((_, seq), row)| Backlog {
        messages: sum.messages + 1,
        bytes: sum.bytes + row.text.len() as u64,
        first_seq: if sum.messages == 0 { *seq } else { sum.first_seq },
        last_seq: *seq,
    })
}

fn remove(model: &mut Model, gone: impl Fn(&(String, u64), &Row) -> bool) -> (u64, u64) {
    let removed = sizes(model.iter().filter(|(key, row)| gone(key, row)));
    model.retain(|key, row| !gone(key, row));
    (removed.messages, removed.bytes)
}

fn save_both(storage: &Storage, model: &mut Model, batch: &Batch) {
    for insert in &batch.inserts {
        model.insert((insert.recipient.to_string(), insert.row.seq), insert.row.clone());
    }
    let expected: Vec<_> =
        batch.deletes.iter().map(|d| remove(model, |key, _| key.0 == *d.recipient && key.1 <= d.seq)).collect();
    assert_eq!(saved(storage, batch).deleted, expected);
}

fn expire_both(storage: &Storage, model: &mut Model, before: i64, most: usize) {
    let expired = storage.expire(before, most).unwrap();
    let mut old: Vec<_> = model
        .iter()
        .filter(|(_, row)| row.accepted_at < before)
        .map(|(key, row)| (row.accepted_at, key.clone()))
        .collect();
    old.sort();
    old.truncate(most);
    for user in ["u0", "u1", "u2"] {
        let removed = remove(model, |key, _| key.0 == user && old.iter().any(|(_, old)| old == key));
        let said = expired
            .iter()
            .find(|expired| expired.recipient == user)
            .map_or((0, 0), |expired| (expired.messages, expired.bytes));
        assert_eq!(said, removed);
    }
}

fn agree(storage: &Storage, model: &Model) {
    for user in ["u0", "u1", "u2"] {
        let of_user = || model.iter().filter(|(key, _)| key.0 == user);
        assert_eq!(storage.backlog(user).unwrap(), sizes(of_user()));
        let rows = storage.read(user, 0, u64::MAX, usize::MAX, usize::MAX).unwrap().0;
        assert_eq!(rows, of_user().map(|(_, row)| row.clone()).collect::<Vec<_>>());
    }
    assert_eq!(storage.total().unwrap(), Backlog { first_seq: 0, last_seq: 0, ..sizes(model.iter()) });
    assert_eq!(storage.oldest_at().unwrap(), model.values().map(|row| row.accepted_at).min());
    let empty = "SELECT count(*) FROM backlog WHERE messages = 0";
    assert_eq!(
        storage.readers.read(|connection| connection.query_row(empty, [], |row| row.get::<_, i64>(0))).unwrap(),
        0
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_counters_are_the_truth_after_anything(steps in prop::collection::vec(step(), 1..30)) {
        let (dir, mut storage) = open();
        let (mut model, mut last, mut seq) = (Model::new(), Batch::default(), 0);
        for step in steps {
            match step {
                Step::Save(rows, user, part) => {
                    let rows = rows.into_iter().map(|(user, length)| {
                        seq += 1;
                        insert(&format!("u{user}"), seq, &"é".repeat(length))
                    });
                    last = Batch { inserts: rows.collect(), deletes: vec![delete(&format!("u{user}"), seq * part / 100)], ..Batch::default() };
                    save_both(&storage, &mut model, &last);
                }
                Step::Again => {
                    save_both(&storage, &mut model, &last);
                }
                Step::Expire(part, most) => expire_both(&storage, &mut model, 1_000 + seq as i64 * part / 100, most),
                Step::ByHand(nth) => {
                    by_hand(&storage, &format!("DELETE FROM messages WHERE seq % {nth} = 0"));
                    remove(&mut model, |key, _| key.1 as i64 % nth == 0);
                }
                Step::Reopen => {
                    storage.close().unwrap();
                    storage = Storage::open(dir.path()).unwrap();
                }
            }
            agree(&storage, &model);
        }
    }
}
