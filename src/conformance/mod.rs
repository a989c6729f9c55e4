//! Checks any server of this protocol from outside: the table of malformed packets, and the behaviour that PROTOCOL.md promises.
//!
//! For people who write a server of their own. [`all`] gives the checks, [`Target::probe`] finds out whether there is a server and which
//! level it speaks, [`run`] carries the checks out, many at a time, each with connections and user names of its own. A check that fails says
//! what was expected, what came instead, why it matters, and every byte that went over its connections (`explain`).
//!
//! Nothing in here knows the server of this crate: neither its rooms nor its settings, only the wire. `tests/data/malformed` has the table,
//! `bytes` its language, `case` carries a line of it out; `behaviour` has the checks that take more than bytes in, bytes out.

mod behaviour;
pub mod bytes;
mod case;
mod explain;
mod grade;
mod ground;
mod run;
mod table;
pub mod wire;

pub use explain::{explain, hex};
pub use grade::{Grade, Tally};
pub use ground::{Ground, NotJudged, Target};
pub use run::{Finding, Verdict, run};
pub use wire::Fault;

use case::Case;

/// What a check needs of the server or of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// That the server grants level 2.
    Level2,
    /// That its user has the time to wait for the server's own timeouts.
    Time,
    /// Both.
    Level2AndTime,
}

/// One check.
pub struct Check {
    /// The group that it is counted in: the name of a file of the table, or of a part of the behaviour.
    pub group: &'static str,
    /// Unique within its group.
    pub name: String,
    /// The rule behind it, and what goes wrong where it is broken.
    pub why: String,
    /// What it needs.
    pub needs: Needs,
    body: Body,
}

enum Body {
    Case(Box<Case>),
    Code(fn(&Ground<'_>) -> Result<(), Fault>),
}

impl Check {
    /// `GROUP/NAME`, as `--only` takes it and reports show it.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    fn carry_out(&self, ground: &Ground<'_>) -> Result<(), Fault> {
        match &self.body {
            Body::Case(case) => case.carry_out(ground),
            Body::Code(code) => code(ground),
        }
    }
}

/// All checks there are: the table's, then the behaviour's.
pub fn all() -> Vec<Check> {
    table::checks().into_iter().chain(behaviour::checks()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn there_are_enough_checks_and_each_has_a_name_of_its_own() {
        let (table, behaviour) = (table::checks().len(), behaviour::checks().len());
        assert!(table >= 500, "{table} cases in the table");
        assert!(behaviour >= 40, "{behaviour} checks of behaviour");
        let mut names = HashSet::new();
        for check in all() {
            assert!(names.insert(check.full_name()), "twice: {}", check.full_name());
            assert!(!check.why.trim().is_empty(), "{} does not say why", check.full_name());
        }
    }
}
