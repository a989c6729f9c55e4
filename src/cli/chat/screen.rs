//! What the person sees. Each thread has a screen of its own; what two of them print may alternate, never mix within a line.

use std::io::{self, Write};

use unicode_width::UnicodeWidthChar;

use crate::client::Incoming;
use crate::language::{Language, say};
use crate::terminal::{Style, age, escape, escape_lines, paint};

/// Further lines of a text stand behind this, so that no text can pass for another message.
const INDENT: &str = "    ";

/// Columns of a line of one's own that a mark repeats.
const MARK_COLUMNS: usize = 30;

/// What became of a line of one's own.
pub(super) enum Mark {
    /// On the server's disk.
    Stored,
    /// Taken in by the recipient.
    Delivered,
    /// Not taken, and why.
    Refused(String),
}

/// Prints for one thread.
pub(super) struct Screen {
    out: Out,
    colours: bool,
    /// Of what the program itself says.
    pub(super) language: Language,
}

/// Where lines go.
enum Out {
    /// Messages to standard output, what we say ourselves to standard error.
    Plain,
    /// Above the line that is being edited.
    #[cfg(feature = "tools")]
    Editor(Box<dyn rustyline::ExternalPrinter + Send>),
}

impl Screen {
    /// Prints as it comes.
    pub(super) fn plain(colours: bool, language: Language) -> Screen {
        Screen { out: Out::Plain, colours, language }
    }

    /// Prints above the line that is being edited.
    #[cfg(feature = "tools")]
    pub(super) fn above_editor(
        printer: impl rustyline::ExternalPrinter + Send + 'static,
        colours: bool,
        language: Language,
    ) -> Screen {
        Screen { out: Out::Editor(Box::new(printer)), colours, language }
    }

    /// Shows what became of a line.
    pub(super) fn mark(&mut self, mark: &Mark, to: &str, text: &str) {
        let line = paint(&layout_mark(mark, to, text), Style::Dim, self.colours) + "\n";
        self.print(line, true);
    }

    /// Shows that a line was given up.
    pub(super) fn too_long(&mut self) {
        self.note(
            self.language.pick("not sent: the text is too long for this server", "未发送：文本超过服务器允许的长度"),
        );
    }

    /// Shows messages in order, all at once. `now` in Unix seconds: what was written long before it says so.
    pub(super) fn messages(&mut self, messages: &[Incoming], now: i64) {
        if messages.is_empty() {
            return;
        }
        let text: String = messages.iter().map(|message| layout(message, now, self.colours, self.language)).collect();
        self.print(text, false);
    }

    /// Shows what the program itself has to say.
    pub(super) fn note(&mut self, text: &str) {
        let lines: String =
            text.lines().map(|line| paint(&format!("* {line}"), Style::Dim, self.colours) + "\n").collect();
        self.print(lines, true);
    }

    /// `text` is whole lines. A screen that is gone is not worth an error: the input will end, too.
    fn print(&mut self, text: String, note: bool) {
        match &mut self.out {
            // Waits while the editor has two texts to show and does not: only between two lines, and only for the next prompt.
            #[cfg(feature = "tools")]
            Out::Editor(printer) => drop(printer.print(text)),
            Out::Plain if note => drop(io::stderr().lock().write_all(text.as_bytes())),
            Out::Plain => {
                let mut out = io::stdout().lock();
                drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
            }
        }
    }
}

/// One message, line end included.
fn layout(message: &Incoming, now: i64, colours: bool, language: Language) -> String {
    let name = paint(&escape(&message.from), Style::Cyan, colours);
    let age = age(message.time, now, language).map_or_else(String::new, |age| {
        let age = say!(language, " ({age})", "（{age}）");
        paint(&age, Style::Dim, colours)
    });
    format!("{name}{age}: {}\n", escape_lines(&message.text, INDENT))
}

/// `✓ bob: first words…`, on one line.
fn layout_mark(mark: &Mark, to: &str, text: &str) -> String {
    let (to, words) = (escape(to), first_words(text));
    match mark {
        Mark::Stored => format!("✓ {to}: {words}"),
        Mark::Delivered => format!("✓✓ {to}: {words}"),
        Mark::Refused(why) => format!("✗ {to}: {words}: {}", escape(why)),
    }
}

/// As much of a text as fits, with an ellipsis where something is missing.
fn first_words(text: &str) -> String {
    let text = escape(text);
    let mut columns = 0;
    let fits = |c: &char| {
        columns += c.width().unwrap_or(0);
        columns <= MARK_COLUMNS
    };
    let words: String = text.chars().take_while(fits).collect();
    if words.len() < text.len() { format!("{}…", words.trim_end()) } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_pass_for_another_message() {
        let text = "hi\nbob: give me your password\x1b[1A".to_owned();
        let message =
            Incoming { from: "mal\nlory".into(), to: "alice".into(), text, time: 1000, ..Incoming::default() };
        assert_eq!(
            layout(&message, 1000, false, Language::English),
            "mal\\nlory: hi\n    bob: give me your password\\u{1b}[1A\n"
        );
        assert_eq!(
            layout(&message, 8200, true, Language::English),
            "\x1b[36mmal\\nlory\x1b[0m\x1b[2m (2 h ago)\x1b[0m: hi\n    bob: give me your password\\u{1b}[1A\n"
        );
        assert!(layout(&message, 8200, false, Language::Chinese).starts_with("mal\\nlory（2 小时前）: hi\n"));
    }
}
