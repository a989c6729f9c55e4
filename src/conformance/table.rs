//! The table of malformed packets: TOML into cases. docs/conformance.md says how to write one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::case::{Case, End, State};
use super::{Body, Check, Needs};

/// The files, each a group; compiled in, so that the program needs none of them.
macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../tests/data/malformed/", $name, ".toml")))),*]
    };
}

const FILES: &[(&str, &str)] = files!(
    "lengths" "small" "types" "cipher" "protobuf" "utf8" "login" "names" "sender" "texts" "numbers" "greetings" "logout" "stream" "unfinished"
);

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The rule that they all are about.
    about: String,
    /// They wait for the server's own timeouts.
    #[serde(default)]
    slow: bool,
    case: Vec<Written>,
}

/// A case as it is written; it stands for one case for each of its states and each value of `for`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    /// What goes wrong where the rule is broken; `about` is added.
    why: Option<String>,
    state: OneOrMany<State>,
    /// The bytes; several parts are one write.
    send: OneOrMany<String>,
    /// How the bytes are cut: lengths of the pieces, the last for all that are left.
    pieces: Option<Vec<usize>>,
    expect: End,
    /// What comes back before that.
    #[serde(default)]
    answers: Vec<String>,
    /// The texts that `$you` gets.
    #[serde(default)]
    relayed: Vec<String>,
    /// The notice's code before a close at level 2: 4 unless said otherwise, 0 = no notice.
    notice: Option<u32>,
    /// The name that a login in the bytes has, where it is not `$me`.
    login: Option<String>,
    #[serde(default, rename = "for")]
    over: Over,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Clone> OneOrMany<T> {
    fn to_vec(&self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(many) => many.clone(),
        }
    }
}

/// Values for the place `{}`; of a table, the keys stand in the name and the values in the bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Over {
    #[default]
    Nothing,
    Numbers(Vec<i64>),
    Words(Vec<String>),
    Named(BTreeMap<String, String>),
}

impl Over {
    /// What stands in the name, and what in the bytes.
    fn values(&self) -> Vec<(String, String)> {
        match self {
            Over::Nothing => vec![(String::new(), String::new())],
            Over::Numbers(numbers) => numbers.iter().map(|number| (number.to_string(), number.to_string())).collect(),
            Over::Words(words) => words.iter().map(|word| (word.clone(), word.clone())).collect(),
            Over::Named(named) => named.iter().map(|(label, value)| (label.clone(), value.clone())).collect(),
        }
    }
}

/// The cases of all files.
///
/// # Panics
/// If a file is wrong: they are compiled in, and tested.
pub fn checks() -> Vec<Check> {
    FILES
        .iter()
        .flat_map(|(group, text)| parse(group, text).unwrap_or_else(|error| panic!("{group}.toml: {error}")))
        .collect()
}

fn parse(group: &'static str, text: &str) -> Result<Vec<Check>, toml::de::Error> {
    let file: File = toml::from_str(text)?;
    let mut checks = Vec::new();
    for written in &file.case {
        for (label, value) in written.over.values() {
            for state in written.state.to_vec() {
                checks.push(check(group, &file, written, (&label, &value), state));
            }
        }
    }
    Ok(checks)
}

fn check(group: &'static str, file: &File, written: &Written, (label, value): (&str, &str), state: State) -> Check {
    let fill = |text: &String| text.replace("{}", value);
    let case = Case {
        state,
        send: written.send.to_vec().iter().map(fill).collect::<Vec<_>>().join(" "),
        pieces: written.pieces.clone().unwrap_or_default(),
        end: written.expect,
        answers: written.answers.iter().map(fill).collect(),
        relayed: written.relayed.iter().map(fill).collect(),
        notice: written.notice,
        login: written.login.as_ref().map(fill),
        is_slow: file.slow,
    };
    let needs = match (state.is_level_2(), file.slow) {
        (false, false) => Needs::Nothing,
        (true, false) => Needs::Level2,
        (false, true) => Needs::Time,
        (true, true) => Needs::Level2AndTime,
    };
    let why = match &written.why {
        Some(why) => format!("{} {}", why.trim(), file.about.trim()),
        None => file.about.trim().to_owned(),
    };
    let name = format!("{}, {}", written.name.replace("{}", label), state.words());
    Check { group, name, why, needs, body: Body::Case(Box::new(case)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::bytes::{Words, encode, pattern};
    use crate::protocol::{Cipher, PUBLISHED_KEY};

    #[test]
    fn every_file_of_the_table_is_compiled_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/malformed");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap().replace(".toml", ""))
            .collect();
        let mut known: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn all_bytes_of_the_table_can_be_made() {
        let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
        let words = Words { me: "me-1", you: "you-1", absent: "absent-1", cipher: &cipher, wrong: &cipher };
        for check in checks() {
            let Body::Case(case) = &check.body else { panic!("{} is no case", check.name) };
            encode(&case.send, &words).unwrap_or_else(|error| panic!("{}: {error}", check.full_name()));
            for answer in &case.answers {
                let (_, fields) =
                    pattern(answer, &words).unwrap_or_else(|error| panic!("{}: {error}", check.full_name()));
                assert!(crate::conformance::wire::fields(&fields).is_some(), "{}: {answer}", check.full_name());
            }
            for text in &case.relayed {
                assert!(encode(text, &words).is_ok(), "{}: {text}", check.full_name());
            }
        }
    }

    #[test]
    fn a_case_with_values_is_a_case_for_each() {
        let text = r#"
            about = "Rules."
            [[case]]
            name = "a length of {}"
            why = "Because."
            state = ["stranger", "level 2"]
            for = [0, 7]
            send = 'u32({})'
            expect = "close"
            [[case]]
            name = "{} in a name"
            state = "level 1"
            for = { "a space" = '20', "a tab" = '09' }
            send = ['plain(5,', '{})']
            expect = "open"
        "#;
        let checks = parse("test", text).unwrap();
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        let expected = [
            "a length of 0, stranger",
            "a length of 0, level 2",
            "a length of 7, stranger",
            "a length of 7, level 2",
            "a space in a name, level 1",
            "a tab in a name, level 1",
        ];
        assert_eq!(names, expected);
        let Body::Case(last) = &checks[5].body else { panic!() };
        assert_eq!((last.send.as_str(), checks[0].why.as_str()), ("plain(5, 09)", "Because. Rules."));
        assert!(parse("test", &format!("{text}\nnonsense = 1")).is_err());
    }
}
