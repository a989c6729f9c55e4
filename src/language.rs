//! The two languages of what people read: refusals, the terminal client, mails. The log and `--help` are English.
//!
//! A sentence stands in both languages where it is used, so that neither can be forgotten, and its parts are checked by the compiler.

/// In which language people are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese, in simplified characters.
    Chinese,
}

impl Language {
    /// The language's code, as in the setting `language`.
    pub fn code(self) -> &'static str {
        self.pick("en", "zh")
    }

    /// The language of this code.
    pub fn of_code(code: &str) -> Option<Language> {
        [Language::English, Language::Chinese].into_iter().find(|language| language.code() == code)
    }

    /// The language of the person at this terminal: CHATSERVER_LANGUAGE, or else the first of LC_ALL, LC_MESSAGES and LANG that is set.
    pub fn of_environment() -> Language {
        Language::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Language {
        if let Some(language) = variable("CHATSERVER_LANGUAGE").and_then(|code| Language::of_code(&code)) {
            return language;
        }
        let locale =
            ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(variable).find(|locale| !locale.is_empty());
        if locale.is_some_and(|locale| locale.starts_with("zh")) { Language::Chinese } else { Language::English }
    }

    /// The one of the two that is in this language.
    pub fn pick<T>(self, english: T, chinese: T) -> T {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}

/// A sentence in one of two languages: `say!(language, "{n} left", "还剩 {n} 条")`. Both have the same placeholders, or it does not compile.
macro_rules! say {
    ($language:expr, $english:literal, $chinese:literal $(, $argument:expr)* $(,)?) => {{
        const _: () = assert!($crate::language::have_same_placeholders($english, $chinese));
        match $language {
            $crate::language::Language::English => format!($english $(, $argument)*),
            $crate::language::Language::Chinese => format!($chinese $(, $argument)*),
        }
    }};
}
pub(crate) use say;

/// Whether each `{…}` of one sentence stands in the other, too.
pub(crate) const fn have_same_placeholders(one: &str, other: &str) -> bool {
    has_placeholders_of(one.as_bytes(), other.as_bytes()) && has_placeholders_of(other.as_bytes(), one.as_bytes())
}

const fn has_placeholders_of(sentence: &[u8], other: &[u8]) -> bool {
    let mut rest = other;
    while let Some((placeholder, behind)) = next_placeholder(rest) {
        if !contains(sentence, placeholder) {
            return false;
        }
        rest = behind;
    }
    true
}

/// The first `{…}`, and what is behind it.
const fn next_placeholder(sentence: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut begin = 0;
    while begin < sentence.len() && sentence[begin] != b'{' {
        begin += 1;
    }
    let mut end = begin;
    while end < sentence.len() {
        end += 1;
        if sentence[end - 1] == b'}' {
            let (upto, behind) = sentence.split_at(end);
            return Some((upto.split_at(begin).1, behind));
        }
    }
    None
}

const fn contains(sentence: &[u8], part: &[u8]) -> bool {
    let mut begin = 0;
    while begin + part.len() <= sentence.len() {
        let mut length = 0;
        while length < part.len() && sentence[begin + length] == part[length] {
            length += 1;
        }
        if length == part.len() {
            return true;
        }
        begin += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Language {
        Language::from_variables(|name| {
            variables.iter().find(|variable| variable.0 == name).map(|variable| variable.1.to_owned())
        })
    }

    #[test]
    fn the_terminals_language_is_that_of_its_locale_unless_it_is_named() {
        assert_eq!(of(&[]), Language::English);
        assert_eq!(of(&[("LANG", "zh_CN.UTF-8")]), Language::Chinese);
        assert_eq!(of(&[("LC_ALL", ""), ("LANG", "zh_CN.UTF-8")]), Language::Chinese);
        assert_eq!(of(&[("LC_ALL", "C.UTF-8"), ("LANG", "zh_CN.UTF-8")]), Language::English);
        assert_eq!(of(&[("CHATSERVER_LANGUAGE", "zh"), ("LC_ALL", "C")]), Language::Chinese);
        assert_eq!(of(&[("CHATSERVER_LANGUAGE", "fr"), ("LANG", "zh_TW")]), Language::Chinese);
    }

    #[test]
    fn a_sentence_is_said_in_either_language() {
        let (name, messages) = ("Ann", 3);
        let say = |language| say!(language, "{messages} for {name}", "{name} 有 {messages} 条");
        assert_eq!((say(Language::English), say(Language::Chinese)), ("3 for Ann".into(), "Ann 有 3 条".into()));
        assert_eq!(Language::of_code("zh").map(Language::code), Some("zh"));
        assert_eq!(Language::of_code("de"), None);
    }

    #[test]
    fn a_placeholder_that_one_language_forgets_is_found() {
        for (english, chinese, same) in [
            ("no", "无", true),
            ("{n} for {name}", "{name} 有 {n} 条", true),
            ("{} left", "还剩 {}", true),
            ("U+{code:04X}", "U+{code:04X}", true),
            ("U+{code:04X}", "U+{code}", false),
            ("{n} for {name}", "有 {n} 条", false),
            ("{n} left", "还剩 {m} 条", false),
            ("one left", "还剩 {n} 条", false),
        ] {
            assert_eq!(have_same_placeholders(english, chinese), same, "{english} / {chinese}");
        }
    }
}
