//! A page: a document with commands, and what they print.
//!
//! ```text
//! ```console                            terminal 1; ```console terminal=bob is another one, that lives on in the same way
//! $ chatserver send --as alice \        a command goes on after a line that ends with \, and in lines that begin with "> "
//!   --to bob hello
//! $ chatserver users                    what follows is what it prints: compare.rs says when that is equal
//! …
//! $ chatserver sned  # exit code 2      a command may fail if it says so
//! ```
//! ```
//!
//! Words behind `console`: `terminal=NAME`; `running`: the last command does not end by itself, the page goes on as soon as the lines have
//! come; `exact`: digits are compared, too; `needs=gdb,strace`: without these programs the block is left out, and that is
//! reported (`variables`: a chatserver with variables in its debug information).
//!
//! A block that does not begin with a command goes on with what its terminal's running command prints. A line `^C`, `^D` or `^Z` presses that
//! key; above it stands what has been printed until then, and below it what comes after it, up to the command's end.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libtest_mimic::Trial;
use regex::Regex;

/// A document and its blocks.
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    /// All of its lines.
    lines: Vec<String>,
    /// Its blocks of commands, in order.
    pub blocks: Vec<Block>,
}

/// One fence.
pub struct Block {
    /// Where it runs.
    pub terminal: String,
    /// Whether its last command goes on.
    pub is_running: bool,
    /// Whether digits count.
    pub is_exact: bool,
    /// The programs without which it cannot run.
    pub needs: Vec<String>,
    /// What is done in it.
    pub steps: Vec<Step>,
    /// The number of its first line, the fence, counted from 1.
    pub line: usize,
    span: Range<usize>,
}

/// One thing that is typed, and what appears after it.
pub struct Step {
    /// What is typed.
    pub input: Input,
    /// What is shown.
    pub shown: Vec<String>,
    /// The number of its first line, counted from 1.
    pub line: usize,
    typed: Vec<String>,
}

/// What is typed.
pub enum Input {
    /// A command.
    Command {
        /// As bash gets it.
        text: String,
        /// What it must end with.
        exit_code: i32,
    },
    /// A control character, for the running command.
    Key(u8),
    /// Nothing: the running command goes on.
    Nothing,
}

impl Page {
    /// Reads a document; `None`: it has no commands.
    pub fn read(path: &Path) -> Option<Page> {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let (mut blocks, mut opened) = (Vec::new(), None);
        for (place, line) in lines.iter().enumerate() {
            match (line.strip_prefix("```"), opened.take()) {
                (Some(words), None) => opened = Some((words, place)),
                (Some(_), Some((words, begin))) => {
                    blocks.extend(Block::parse(words, &lines[begin + 1..place], begin + 1));
                }
                (None, still) => opened = still,
            }
        }
        (!blocks.is_empty()).then(|| Page { path: path.to_owned(), lines, blocks })
    }

    /// The lines of the blocks, fences included.
    pub fn commands(&self) -> Vec<&[String]> {
        self.blocks.iter().map(|block| &self.lines[block.span.start - 1..block.span.end]).collect()
    }

    /// Writes the page with what its steps show now.
    pub fn write(&self) {
        let blocks = self.blocks.iter().map(|block| {
            let steps = block.steps.iter().flat_map(|step| step.typed.iter().chain(&step.shown).cloned());
            (block.span.clone(), steps.collect())
        });
        self.replace(blocks.collect());
    }

    /// Takes over the other page's blocks: a translation has the same ones.
    pub fn write_blocks_of(&self, other: &Page) {
        if self.blocks.len() == other.blocks.len() {
            let blocks = self.blocks.iter().zip(&other.blocks);
            self.replace(
                blocks.map(|(mine, its)| (mine.span.clone(), other.lines[its.span.clone()].to_vec())).collect(),
            );
        }
    }

    fn replace(&self, blocks: Vec<(Range<usize>, Vec<String>)>) {
        let mut lines = self.lines.clone();
        for (span, block) in blocks.into_iter().rev() {
            lines.splice(span, block);
        }
        fs::write(&self.path, lines.join("\n") + "\n").unwrap();
    }
}

impl Block {
    /// `words` stand behind the fence at line `line`, counted from 1, and `lines` below it.
    fn parse(words: &str, lines: &[String], line: usize) -> Option<Block> {
        let mut words = words.split_whitespace();
        words.next().filter(|&word| word == "console")?;
        let span = line..line + lines.len();
        let mut block = Block {
            terminal: "1".into(),
            is_running: false,
            is_exact: false,
            needs: Vec::new(),
            steps: Vec::new(),
            line,
            span,
        };
        for word in words {
            match word.split_once('=') {
                Some(("terminal", name)) => block.terminal = name.to_owned(),
                Some(("needs", programs)) => block.needs = programs.split(',').map(str::to_owned).collect(),
                None if word == "running" => block.is_running = true,
                None if word == "exact" => block.is_exact = true,
                _ => panic!("line {line}: {word:?} behind ```console means nothing"),
            }
        }
        block.steps = steps(lines, line + 1);
        if block.steps.is_empty() {
            block.steps.push(Step { input: Input::Nothing, shown: Vec::new(), line, typed: Vec::new() });
        }
        Some(block)
    }
}

fn steps(lines: &[String], first: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_command_open = false;
    for (place, line) in lines.iter().enumerate() {
        let begun = |input, typed| Step { input, shown: Vec::new(), line: first + place, typed };
        let is_continued = steps.last().is_some_and(|step| {
            matches!(step.input, Input::Command { .. }) && step.shown.is_empty() && line.starts_with("> ")
        });
        if is_command_open || is_continued {
            steps.last_mut().unwrap().go_on(line);
        } else if let Some(command) = line.strip_prefix("$ ") {
            let text = command.to_owned();
            steps.push(begun(Input::Command { text, exit_code: 0 }, vec![line.clone()]));
        } else if let Some(key) = key(line) {
            steps.push(begun(Input::Key(key), vec![line.clone()]));
        } else {
            if steps.is_empty() {
                steps.push(begun(Input::Nothing, Vec::new()));
            }
            steps.last_mut().unwrap().shown.push(line.clone());
            continue;
        }
        is_command_open = line.ends_with('\\');
    }
    steps.iter_mut().for_each(Step::read_exit_code);
    steps
}

fn key(line: &str) -> Option<u8> {
    match line {
        "^C" => Some(3),
        "^D" => Some(4),
        "^Z" => Some(26),
        _ => None,
    }
}

impl Step {
    /// One more line of the command.
    fn go_on(&mut self, line: &str) {
        if let Input::Command { text, .. } = &mut self.input {
            *text = format!("{text}\n{}", line.strip_prefix("> ").unwrap_or(line));
        }
        self.typed.push(line.to_owned());
    }

    fn read_exit_code(&mut self) {
        static DECLARED: LazyLock<Regex> = LazyLock::new(|| Regex::new("# exit code ([0-9]+)").unwrap());
        if let Input::Command { text, exit_code } = &mut self.input {
            *exit_code = DECLARED.captures(text).map_or(0, |found| found[1].parse().unwrap());
        }
    }
}

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![Trial::test("page: a block", || {
        let text = "ready\n$ one \\\ntwo\nout\n> not typed\n$ cat <<E  # exit code 7\n> in\nout\n\n^C\nend";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let block = Block::parse("console terminal=b needs=gdb,ss running", &lines, 10).unwrap();
        assert!(block.terminal == "b" && block.is_running && !block.is_exact && block.needs == ["gdb", "ss"]);
        let seen: Vec<(String, usize, Vec<&str>)> = block
            .steps
            .iter()
            .map(|step| {
                let input = match &step.input {
                    Input::Command { text, exit_code } => format!("{text} = {exit_code}"),
                    Input::Key(key) => format!("key {key}"),
                    Input::Nothing => String::new(),
                };
                (input, step.line, step.shown.iter().map(String::as_str).collect())
            })
            .collect();
        let expected = [
            (String::new(), 11, vec!["ready"]),
            ("one \\\ntwo = 0".into(), 12, vec!["out", "> not typed"]),
            ("cat <<E  # exit code 7\nin = 7".into(), 16, vec!["out", ""]),
            ("key 3".into(), 20, vec!["end"]),
        ];
        assert_eq!(seen, expected);
        assert!(Block::parse("text", &lines, 1).is_none());
        Ok(())
    })]
}
