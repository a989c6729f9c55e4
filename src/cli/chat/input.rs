//! Where typed lines come from: an editor with a history on a terminal (feature `tools`), else standard input as it is.

use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver};

use super::screen::Screen;
use crate::language::Language;
use crate::terminal::{colours_wanted, input_failure, print_note};

/// A source of lines.
pub(super) enum Input {
    #[cfg(feature = "tools")]
    Editor(Box<editor::Editor>),
    Plain(Receiver<Line>),
}

/// What came.
pub(super) enum Line {
    /// A line, without its end.
    Typed(String),
    /// No more lines: the end of the input, Ctrl-D or Ctrl-C.
    End,
}

/// The best input that there is, and a screen for each of two threads that suits it.
pub(super) fn open(language: Language) -> (Input, Screen, Screen) {
    let colours = colours_wanted();
    #[cfg(feature = "tools")]
    if let Some((editor, here, network)) = editor::open(colours, language) {
        return (Input::Editor(Box::new(editor)), here, network);
    }
    let screen = || Screen::plain(colours, language);
    (Input::Plain(plain_lines(language)), screen(), screen())
}

impl Input {
    /// Waits for a line.
    pub(super) fn next(&mut self, prompt: &str) -> Line {
        match self {
            #[cfg(feature = "tools")]
            Input::Editor(editor) => editor.next(prompt),
            // Without an editor a prompt would only stand in the way of what arrives.
            Input::Plain(lines) => {
                let _ = prompt;
                lines.recv().unwrap_or(Line::End)
            }
        }
    }
}

/// Lines of standard input from a thread of their own, so that Ctrl-C can come in between.
fn plain_lines(language: Language) -> Receiver<Line> {
    let (typed, lines) = mpsc::sync_channel(1);
    let interrupted = typed.clone();
    // Without a handler Ctrl-C still ends the program, just without a good-bye.
    let _ = ctrlc::set_handler(move || drop(interrupted.send(Line::End)));
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let line = line.map_or_else(|error| cannot_read(&error, language), Line::Typed);
            if typed.send(line).is_err() {
                return;
            }
        }
        let _ = typed.send(Line::End);
    });
    lines
}

fn cannot_read(error: &io::Error, language: Language) -> Line {
    print_note(&input_failure(error, language));
    Line::End
}

#[cfg(feature = "tools")]
mod editor {
    use std::fs::DirBuilder;
    use std::io::{self, IsTerminal};
    use std::os::unix::fs::DirBuilderExt;
    use std::path::PathBuf;

    use rustyline::{ColorMode, Config, DefaultEditor};

    use super::{Language, Line, Screen};
    use crate::terminal::{Style, paint};

    /// Lines kept in the history.
    const HISTORY_LINES: usize = 1000;

    /// A line editor on the terminal.
    pub(in super::super) struct Editor {
        editor: DefaultEditor,
        history: Option<PathBuf>,
        colours: bool,
    }

    /// `None` = this is not a terminal on which lines can be edited.
    pub(super) fn open(colours: bool, language: Language) -> Option<(Editor, Screen, Screen)> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let color_mode = if colours { ColorMode::Enabled } else { ColorMode::Disabled };
        let config = Config::builder().max_history_size(HISTORY_LINES).ok()?.color_mode(color_mode).build();
        let mut editor = DefaultEditor::with_config(config).ok()?;
        let here = Screen::above_editor(editor.create_external_printer().ok()?, colours, language);
        let network = Screen::above_editor(editor.create_external_printer().ok()?, colours, language);
        let history = history_file();
        if let Some(file) = &history {
            // The first time there is none.
            let _ = editor.load_history(file);
        }
        Some((Editor { editor, history, colours }, here, network))
    }

    impl Editor {
        pub(super) fn next(&mut self, prompt: &str) -> Line {
            let painted = paint(prompt, Style::Green, self.colours);
            match self.editor.readline(&(prompt, painted.as_str())) {
                Ok(line) => {
                    self.remember(&line);
                    Line::Typed(line)
                }
                Err(_) => Line::End,
            }
        }

        /// At once, so that a closed terminal window loses nothing. A history that cannot be written is no reason to disturb a talk.
        fn remember(&mut self, line: &str) {
            if self.editor.add_history_entry(line).unwrap_or(false)
                && let Some(file) = &self.history
            {
                let _ = self.editor.append_history(file);
            }
        }
    }

    /// As the XDG base directory specification says; its directory is made for us only, the editor makes the file 0600.
    fn history_file() -> Option<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
        let directory = state.join("chatserver");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
        Some(directory.join("history"))
    }
}
