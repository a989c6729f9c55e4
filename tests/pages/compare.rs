//! Whether what a command printed is what the page shows.
//!
//! Equal are: any two runs of digits (numbers, times, process ids, addresses, words of hexadecimal digits), any two runs of blanks, any two
//! rules of a table; of a hex dump the text on the right does not count. `…` stands for anything in a line; a line `…` for any number of lines. In an `exact` block only `…` and blanks at the
//! end of a line are left.

use std::sync::LazyLock;

use libtest_mimic::Trial;
use regex::Regex;

/// What stands for anything.
pub const ANYTHING: &str = "…";

/// Takes what was printed, line by line, and knows where in the page's lines it may be.
pub struct Reading<'a> {
    shown: &'a [String],
    is_exact: bool,
    /// For each line, and for the end behind the last: whether what has come so far may end right before it.
    may_be_at: Vec<bool>,
}

impl<'a> Reading<'a> {
    /// Before the first line.
    pub fn new(shown: &'a [String], is_exact: bool) -> Reading<'a> {
        let mut reading = Reading { shown, is_exact, may_be_at: vec![false; shown.len() + 1] };
        reading.may_be_at[0] = true;
        reading.step_over_wild_lines();
        reading
    }

    /// One more line was printed. `false`: whatever comes now, it is not what the page shows.
    pub fn take(&mut self, line: &str) -> bool {
        let before = std::mem::replace(&mut self.may_be_at, vec![false; self.shown.len() + 1]);
        for (place, shown) in self.shown.iter().enumerate().filter(|(place, _)| before[*place]) {
            if shown.trim() == ANYTHING {
                self.may_be_at[place] = true;
            } else if line_matches(shown, line, self.is_exact) {
                self.may_be_at[place + 1] = true;
            }
        }
        self.step_over_wild_lines();
        self.may_be_at.contains(&true)
    }

    /// Whether all lines of the page have come.
    pub fn is_complete(&self) -> bool {
        self.may_be_at[self.shown.len()]
    }

    fn step_over_wild_lines(&mut self) {
        for (place, shown) in self.shown.iter().enumerate() {
            self.may_be_at[place + 1] |= self.may_be_at[place] && shown.trim() == ANYTHING;
        }
    }
}

/// Whether a whole output is what the page shows.
pub fn matches(shown: &[String], printed: &[String], is_exact: bool) -> bool {
    let mut reading = Reading::new(shown, is_exact);
    printed.iter().all(|line| reading.take(line)) && reading.is_complete()
}

/// Whether one line is.
pub fn line_matches(shown: &str, printed: &str, is_exact: bool) -> bool {
    let (shown, printed) = if is_exact {
        (shown.trim_end().to_owned(), printed.trim_end().to_owned())
    } else {
        (normalised(shown), normalised(printed))
    };
    let pieces: Vec<&str> = shown.split(ANYTHING).map(|piece| if is_exact { piece } else { piece.trim() }).collect();
    let [first, middle @ .., last] = &pieces[..] else { return printed == shown };
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

fn normalised(line: &str) -> String {
    static DUMP: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("^([ \\t]*(?:0x)?[0-9a-f]{4,8}:(?: {1,2}[0-9a-f]{2,4})+)  .*$").unwrap());
    static NUMBERS: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            // A word of hexadecimal digits with a decimal one among them, or of whole bytes.
            (r"(?-u:\b)(?:0x[0-9a-fA-F]+|[0-9a-fA-F]*[0-9][0-9a-fA-F]*|(?:[a-f][a-f])+)(?-u:\b)", "#"),
            ("[0-9]+", "#"),
            ("#(?:[.,]#)+", "#"),
            ("[-=─═]{2,}", "─"),
        ]
        .map(|(pattern, with)| (Regex::new(pattern).unwrap(), with))
    });
    let line = DUMP.replace(line, "$1");
    let words: Vec<&str> = line.split_whitespace().collect();
    NUMBERS.iter().fold(words.join(" "), |line, (pattern, with)| pattern.replace_all(&line, *with).into_owned())
}

/// The head and the tail that the page shows of a long output, `…` between them, with new lines in them. A line with `…` in it that matches stays as it is.
pub fn renewed(shown: &[String], printed: &[String], is_exact: bool) -> Vec<String> {
    let is_wild = |line: &String| line.trim() == ANYTHING;
    let (head, tail) = match (shown.iter().position(is_wild), shown.iter().rposition(is_wild)) {
        (Some(first), Some(last)) if first + shown.len() - last - 1 < printed.len() => (first, shown.len() - last - 1),
        _ => (printed.len(), 0),
    };
    let kept = |shown: Option<&String>, printed: &String| match shown {
        Some(shown) if shown.contains(ANYTHING) && !is_wild(shown) && line_matches(shown, printed, is_exact) => {
            shown.clone()
        }
        _ => printed.trim_end().to_owned(),
    };
    let mut lines: Vec<String> =
        printed[..head].iter().enumerate().map(|(place, line)| kept(shown.get(place), line)).collect();
    if head < printed.len() {
        lines.push(ANYTHING.to_owned());
        let (printed, shown) = (&printed[printed.len() - tail..], &shown[shown.len() - tail..]);
        lines.extend(printed.iter().zip(shown).map(|(printed, shown)| kept(Some(shown), printed)));
    }
    lines
}

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("compare: a line", || {
            let equal = [
                ("PID 12  alice", "PID 7 alice"),
                ("0x00007fb7ceb88fa8 in accept4 (fd=13)", "0x00005 in accept4 (fd=9)"),
                ("1,024 bytes, 0.5 %", "99 bytes, 12 %"),
                ("00 00 ae 5e1f", "00 12 0b abcd"),
                ("2026-11-22T17:17:39Z alice: hi", "1999-01-01T00:00:00Z alice: hi"),
                ("… in accept4 (…)", "  6 Thread \"accept\" in accept4 (fd=3)"),
                ("a … c … e", "a b c d e"),
                ("…", "anything"),
                ("00000010: 9dcc 064c  .%..", "00000000: abcd ef01  abc…"),
                ("\t0x0030:  8daf e8  ..", "\t0x0040:  0000 00  (a"),
                ("┌──────┬──┐", "┌───┬──────────┐"),
            ];
            let different = [
                ("alice", "bob"),
                ("delivered", "stored"),
                ("1 message", "none"),
                ("a … c", "a b d"),
                ("a … c", "a"),
                ("ab…ba", "aba"),
                ("exit", "exits"),
                ("00000010: 9dcc 064c  .%..", "00000000: abcd  ab"),
                ("", "x"),
            ];
            for (shown, printed) in equal {
                assert!(line_matches(shown, printed, false), "{shown:?} is {printed:?}");
            }
            for (shown, printed) in different {
                assert!(!line_matches(shown, printed, false), "{shown:?} is not {printed:?}");
            }
            assert!(line_matches("id 12 …", "id 12 x", true) && !line_matches("id 12", "id 13", true));
            Ok(())
        }),
        Trial::test("compare: an output", || {
            let lines = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
            for (shown, printed, is_equal) in [
                ("a b", "a b", true),
                ("a b", "a", false),
                ("a", "a b", false),
                ("", "", true),
                ("", "a", false),
                ("…", "", true),
                ("a … d", "a b c d", true),
                ("a … d", "a d", true),
                ("a … d", "a b c", false),
                ("… b … d", "a b b c d", true),
                ("… b", "a b c", false),
            ] {
                assert_eq!(matches(&lines(shown), &lines(printed), false), is_equal, "{shown:?}, {printed:?}");
            }
            let (shown, printed) = (lines("ready …"), lines("ready then more"));
            let mut reading = Reading::new(&shown, false);
            assert!(!reading.is_complete() && reading.take(&printed[0]) && reading.is_complete());
            for (shown, printed, expected) in [
                ("", "a b", "a b"),
                ("a x", "a b", "a b"),
                ("a … y z", "a b c d e", "a … d e"),
                ("a…", "abc", "a…"),
                ("a … b … c", "a 1 2 3 c", "a … c"),
                ("a … z", "a z", "a z"),
                ("x … z", "a", "a"),
            ] {
                assert_eq!(renewed(&lines(shown), &lines(printed), false), lines(expected), "{shown:?}, {printed:?}");
            }
            Ok(())
        }),
    ]
}
