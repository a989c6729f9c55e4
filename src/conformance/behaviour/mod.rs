//! The checks that take more than bytes in, bytes out: who gets what, when, in which order, and who takes over from whom.
//!
//! One file per group. Each check is a function; its name in the list is the promise, its sentence the reason.

mod chat;
mod deadlines;
mod level2;
mod offline;
mod takeover;

use super::ground::Ground;
use super::wire::Fault;
use super::{Body, Check, Needs};

type Code = fn(&Ground<'_>) -> Result<(), Fault>;

/// A check of behaviour: its name, why, what it needs, and the function.
struct Promise(&'static str, &'static str, Code);

/// All of them.
pub fn checks() -> Vec<Check> {
    let groups: [(&'static str, Needs, &[Promise]); 6] = [
        ("chat", Needs::Nothing, chat::PROMISES),
        ("offline", Needs::Nothing, offline::PROMISES),
        ("takeover", Needs::Nothing, takeover::PROMISES),
        ("level 2", Needs::Level2, level2::PROMISES),
        ("deadlines", Needs::Time, deadlines::PROMISES),
        ("deadlines", Needs::Level2AndTime, deadlines::PROMISES_OF_LEVEL_2),
    ];
    let mut checks = Vec::new();
    for (group, needs, promises) in groups {
        checks.extend(promises.iter().map(|Promise(name, why, code)| Check {
            group,
            name: (*name).to_owned(),
            why: (*why).to_owned(),
            needs,
            body: Body::Code(*code),
        }));
    }
    checks
}

/// `count` texts, each different: `label 1`, `label 2`, …
fn numbered(label: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{label} {number}")).collect()
}
