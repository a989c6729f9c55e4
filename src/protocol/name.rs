//! What a user may be called, and when two names are the same user. It knows neither the registry nor the database.
//!
//! A name is shown to other people, who must be able to tell it from every other name and to type it. So nothing
//! invisible is allowed in it, and two spellings that look the same because Unicode can write one letter in several
//! ways (é as one code point or as two) are one user: names are compared in normalisation form NFC.
//!
//! Not prevented: letters of different scripts that look alike, upper and lower case. Existing users chose such names.
//! Refused although harmless: emoji that are joined from several with U+200D (the family, most professions, the rainbow
//! flag) or that carry a variation selector (❤️ as phones write it); these are invisible characters, and without them
//! the same picture would be another user.
//!
//! Read first: UAX #15 (normalisation forms), UAX #44 §5.7 (the categories), PROTOCOL.md, "Names".

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use regex::Regex;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::language::{Language, say};

/// The longest name, in bytes of UTF-8. Holds for the name as written and for its NFC form: normalising can lengthen a
/// name, and a normalised name must itself be legal.
pub const MAX_NAME_BYTES: usize = 128;

/// Why a name is refused; `Display` is English, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe(Language::English))]
pub enum NameError {
    /// Nothing at all.
    Empty,
    /// More bytes than `MAX_NAME_BYTES`.
    TooLong {
        /// Its length in bytes of UTF-8, as written or in form NFC.
        bytes: usize,
    },
    /// A control character, or one that cannot be seen.
    Invisible(char),
    /// White space before the first or after the last visible character.
    SpaceAtEnds,
}

impl NameError {
    /// A sentence for the user.
    pub fn describe(&self, language: Language) -> String {
        match *self {
            NameError::Empty => say!(language, "a name must not be empty", "用户名不能为空"),
            NameError::TooLong { bytes } => say!(
                language,
                "a name may have at most {MAX_NAME_BYTES} bytes of UTF-8, this one has {bytes}; please choose a shorter one",
                "用户名最长 {MAX_NAME_BYTES} 字节（UTF-8），这个用户名有 {bytes} 字节；请换一个短一些的"
            ),
            NameError::Invisible(character) => {
                let code = u32::from(character);
                say!(
                    language,
                    "a name must not contain invisible or control characters, this one has U+{code:04X}; please leave it out",
                    "用户名不能包含不可见字符或控制字符，这个用户名含有 U+{code:04X}；请将其去掉"
                )
            }
            NameError::SpaceAtEnds => say!(
                language,
                "a name must not begin or end with a space or other white space; please leave it out",
                "用户名的开头和结尾不能是空格或其他空白字符；请将其去掉"
            ),
        }
    }
}

/// A legal user name: as the user wrote it, and the form that is compared. Cheap to clone.
///
/// Two names are equal (`==`, `Hash`) when they are the same user, however each was written.
#[derive(Debug, Clone)]
pub struct UserName {
    written: Arc<str>,
    /// The same allocation as `written` for a name that was written in form NFC, as nearly all are.
    key: Arc<str>,
}

impl UserName {
    /// Checks a name.
    ///
    /// # Errors
    /// The first rule that it breaks; tell the user and refuse what was asked for.
    pub fn parse(name: &str) -> Result<UserName, NameError> {
        check_length(name)?;
        if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
            return Err(NameError::SpaceAtEnds);
        }
        if let Some(invisible) = first_invisible(name) {
            return Err(NameError::Invisible(invisible));
        }
        let normal = normalised(name);
        check_length(&normal)?;
        let written: Arc<str> = name.into();
        let key = match normal {
            Cow::Borrowed(_) => Arc::clone(&written),
            Cow::Owned(normal) => normal.into(),
        };
        Ok(UserName { written, key })
    }

    /// As the user wrote it.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// NFC form: two names are one user exactly when their keys are equal. A key is itself a legal name, and its own key.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }
}

impl PartialEq for UserName {
    fn eq(&self, other: &UserName) -> bool {
        self.key == other.key
    }
}

impl Eq for UserName {}

impl Hash for UserName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// As the user wrote it. Safe to print and to log: it holds no control character.
impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.written)
    }
}

fn check_length(name: &str) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        bytes if bytes > MAX_NAME_BYTES => Err(NameError::TooLong { bytes }),
        _ => Ok(()),
    }
}

/// Most names are printable ASCII, which needs neither the search nor the normalisation.
fn is_printable_ascii(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The first character that has no place in a name: control (Cc) and format characters (Cf, among them the
/// bidirectional overrides), line and paragraph separators, and code points that are shown as nothing.
fn first_invisible(name: &str) -> Option<char> {
    static INVISIBLE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]").expect("a valid pattern")
    });
    if is_printable_ascii(name) {
        return None;
    }
    INVISIBLE.find(name)?.as_str().chars().next()
}

fn normalised(name: &str) -> Cow<'_, str> {
    if is_printable_ascii(name) || is_nfc_quick(name.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(name);
    }
    let normal: String = name.nfc().collect();
    if normal == name { Cow::Borrowed(name) } else { Cow::Owned(normal) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: &str) -> String {
        UserName::parse(name).unwrap().key().to_string()
    }

    #[test]
    fn names_of_existing_clients_are_legal() {
        for name in [
            "1",
            "[38121920]--> 7",
            "hello, 我是一个java程序",
            "小明",
            "Ünal",
            "a b",
            "😀👍🏽🇨🇳",
            "'); DROP TABLE users;--",
        ] {
            let parsed = UserName::parse(name).unwrap();
            assert_eq!(parsed.as_written(), name);
            assert_eq!(&**parsed.key(), name);
            assert_eq!(parsed.to_string(), name);
        }
    }

    #[test]
    fn each_rule_says_what_to_do() {
        let long = "x".repeat(129);
        // 33 letters of 3 bytes that NFC writes with two letters of 3 bytes each.
        let grows = "\u{958}".repeat(33);
        let table = [
            ("", NameError::Empty, "a name must not be empty"),
            (
                &long,
                NameError::TooLong { bytes: 129 },
                "a name may have at most 128 bytes of UTF-8, this one has 129; please choose a shorter one",
            ),
            (
                &grows,
                NameError::TooLong { bytes: 198 },
                "a name may have at most 128 bytes of UTF-8, this one has 198; please choose a shorter one",
            ),
            (
                "A\u{202e}B",
                NameError::Invisible('\u{202e}'),
                "a name must not contain invisible or control characters, this one has U+202E; please leave it out",
            ),
            (
                " A",
                NameError::SpaceAtEnds,
                "a name must not begin or end with a space or other white space; please leave it out",
            ),
        ];
        for (name, error, sentence) in table {
            assert_eq!(UserName::parse(name), Err(error));
            assert_eq!(error.to_string(), sentence);
        }
        assert!(UserName::parse(&"x".repeat(128)).is_ok());
        assert!(UserName::parse(&"\u{958}".repeat(21)).is_ok());
    }

    #[test]
    fn invisible_characters_are_refused_wherever_they_stand() {
        let invisible = [
            '\0',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{85}', // controls
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0001}', // format
            '\u{2028}',
            '\u{2029}', // separators
            '\u{34f}',
            '\u{115f}',
            '\u{3164}',
            '\u{ffa0}',
            '\u{fe0f}',
            '\u{e0100}',
            '\u{2065}',
            '\u{fff0}', // ignorable
        ];
        for c in invisible {
            assert_eq!(UserName::parse(&format!("a{c}b")), Err(NameError::Invisible(c)), "U+{:04X}", u32::from(c));
            assert!(UserName::parse(&format!("{c}ab")).is_err());
            assert!(UserName::parse(&format!("ab{c}")).is_err());
        }
    }

    #[test]
    fn white_space_is_legal_inside_only() {
        for c in [' ', '\u{a0}', '\u{1680}', '\u{2003}', '\u{202f}', '\u{3000}'] {
            assert!(UserName::parse(&format!("a{c}b")).is_ok(), "U+{:04X}", u32::from(c));
            for name in [format!("{c}a"), format!("a{c}"), c.to_string()] {
                assert_eq!(UserName::parse(&name), Err(NameError::SpaceAtEnds), "{name:?}");
            }
        }
    }

    #[test]
    fn two_spellings_of_one_name_are_one_user() {
        let composed = UserName::parse("Andr\u{e9}").unwrap();
        let decomposed = UserName::parse("Andre\u{301}").unwrap();
        assert_eq!(composed, decomposed);
        assert_eq!(composed.key(), decomposed.key());
        assert_ne!(composed.as_written(), decomposed.as_written());
        assert_eq!(key("\u{212b}"), "\u{c5}", "ångström sign");
        assert_ne!(UserName::parse("A"), UserName::parse("a"));
    }

    #[test]
    fn a_normalised_name_is_stored_once() {
        for name in ["plain", "小明", "Andr\u{e9}"] {
            let parsed = UserName::parse(name).unwrap();
            assert!(Arc::ptr_eq(&parsed.written, &parsed.key));
        }
    }

    proptest! {
        /// Hardening: duplicate-name tricks (Unicode) (Spotify 2013).
        #[test]
        fn normalising_twice_changes_nothing(name in "\\PC{1,40}|[a-zA-Zé\u{301}\u{323}\u{958}각각 Å가]{1,30}") {
            if let Ok(parsed) = UserName::parse(&name) {
                let again = UserName::parse(parsed.key()).expect("a key is a legal name");
                prop_assert_eq!(again.key(), parsed.key());
                prop_assert_eq!(again.as_written(), &**parsed.key());
                prop_assert_eq!(again, parsed);
            }
        }

        #[test]
        fn every_string_is_judged_by_the_rules_and_nothing_else(name in any::<String>()) {
            let refused = name.is_empty() || name.len() > MAX_NAME_BYTES || name.nfc().map(char::len_utf8).sum::<usize>() > MAX_NAME_BYTES
                || name.trim() != name || first_invisible(&name).is_some();
            prop_assert_eq!(UserName::parse(&name).is_err(), refused);
        }
    }

    /// Each code point alone: it is refused for what it is, or what normalising makes of it is legal too. (Between and
    /// above these ranges nothing is assigned but private use.)
    #[test]
    fn every_code_point_agrees_with_its_normal_form() {
        for c in ('\0'..='\u{33fff}').chain('\u{e0000}'..='\u{e0fff}') {
            let name = format!("a{c}b");
            match UserName::parse(&name) {
                Ok(parsed) => assert!(UserName::parse(parsed.key()).is_ok(), "U+{:04X}", u32::from(c)),
                Err(error) => assert_eq!(error, NameError::Invisible(c)),
            }
        }
    }
}
