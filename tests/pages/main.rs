//! The commands of the documents are run, and what they print is compared with what the documents show.
//!
//! `cargo test --test pages` runs every page below `docs/` that has blocks ```console (page.rs says what can stand in them);
//! `cargo test --test pages -- by-hand` those whose names contain this. `UPDATE_DOCS=1` writes what the commands really print into the
//! pages, where it is not equal to what they show (`UPDATE_DOCS=all`: also where it is). A page `X.zh-CN.md` is a translation: it must have the same blocks as `X.md`, byte for
//! byte, and is not run itself. `PAGES_BIN=DIR` takes the program from there, for example a release build.
//!
//! Each page has a network (so port 8989 is free), processes and a directory of its own; at its end they are all gone.

mod compare;
mod page;
mod terminal;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use compare::Reading;
use page::{Block, Input, Page, Step};
use terminal::{Event, Terminal, World};

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// After so much silence a running command has shown what it has to show: when pages are written, not when they are compared.
const QUIET: Duration = Duration::from_secs(2);

/// Pages whose commands need what no test has: a service manager and a mail relay; hours.
const NOT_RUN: [&str; 2] = ["docs/operating.md", "docs/fuzzing.md"];

const TRANSLATION: &str = ".zh-CN.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_updating() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = compare::trials().into_iter().chain(page::trials()).collect();
    let mut documents = Vec::new();
    find_documents(&root().join("docs"), &mut documents);
    for path in documents {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if name.ends_with(TRANSLATION) {
            trials.push(Trial::test(name, move || translation_matches(&path)));
        } else if !NOT_RUN.contains(&name.as_str()) && Page::read(&path).is_some() {
            trials.push(Trial::test(name, move || run(&path)));
        }
    }
    let mut arguments = Arguments::from_args();
    // Translations are written after what they translate; terminals mostly wait.
    arguments.test_threads = if is_updating() { Some(1) } else { arguments.test_threads.or(Some(3)) };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A translation comes after its original.
fn find_documents(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort_by_key(|path| (path.to_string_lossy().ends_with(TRANSLATION), path.clone()));
    for path in entries {
        if path.is_dir() {
            find_documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

fn translation_matches(path: &Path) -> Result<(), Failed> {
    let original = PathBuf::from(path.to_str().unwrap().replace(TRANSLATION, ".md"));
    let (Some(translated), Some(page)) = (Page::read(path), Page::read(&original)) else {
        let has_commands = |path: &Path| Page::read(path).is_some();
        return if has_commands(path) == has_commands(&original) {
            Ok(())
        } else {
            Err("only one has commands".into())
        };
    };
    if is_updating() {
        translated.write_blocks_of(&page);
        return Ok(());
    }
    for (mine, original) in translated.commands().iter().zip(page.commands()) {
        if *mine != original {
            return Err(format!("this block:\n{}\nshould be:\n{}", mine.join("\n"), original.join("\n")).into());
        }
    }
    match (translated.blocks.len(), page.blocks.len()) {
        (mine, its) if mine == its => Ok(()),
        (mine, its) => Err(format!("{mine} blocks with commands, the original has {its}").into()),
    }
}

/// What was left out is told on standard error. How the program was built is a choice; whatever else is wanting counts as skipped.
fn left_out(page: &Path, line: usize, missing: &str) {
    let how = if missing == "variables" { "left out" } else { "skipped" };
    eprintln!("{how}: {}:{line}: no {missing}", page.strip_prefix(root()).unwrap().display());
}

fn run(path: &Path) -> Result<(), Failed> {
    let mut page = Page::read(path).unwrap();
    let world = match World::new(root()) {
        Ok(world) => world,
        Err(why) => {
            left_out(path, 1, &why);
            return Ok(());
        }
    };
    let ended = run_blocks(&mut page, &world);
    if is_updating() {
        page.write();
    }
    ended
}

fn run_blocks(page: &mut Page, world: &World) -> Result<(), Failed> {
    let (path, mut terminals) = (page.path.clone(), BTreeMap::new());
    for block in &mut page.blocks {
        if let Some(program) = block.needs.iter().find(|program| !world.has(program)) {
            left_out(&path, block.line, program);
            continue;
        }
        let terminal = terminals.entry(block.terminal.clone()).or_insert_with(|| {
            let mut terminal = world.terminal();
            terminal.prepare(Instant::now() + PATIENCE);
            terminal
        });
        run_block(block, terminal).map_err(|why| format!("{}:{why}", path.strip_prefix(root()).unwrap().display()))?;
    }
    Ok(())
}

fn run_block(block: &mut Block, terminal: &mut Terminal) -> Result<(), String> {
    let mut steps = block.steps.iter_mut().peekable();
    while let Some(step) = steps.next() {
        let goes_on = steps.peek().map_or(block.is_running, |next| matches!(next.input, Input::Key(_)));
        begin(step, terminal).map_err(|why| format!("{}: {why}", step.line))?;
        let (printed, end) = if goes_on { read_on(step, block.is_exact, terminal) } else { read_to_end(terminal) };
        let is_shown = compare::matches(&step.shown, &printed, block.is_exact);
        if is_updating() && (!is_shown || is_renewing(step, goes_on)) {
            step.shown = compare::renewed(&step.shown, &printed, block.is_exact);
        } else if !is_shown {
            return Err(difference(step, &printed, block.is_exact));
        }
        let is_key = matches!(step.input, Input::Key(_));
        match end {
            Event::End(code) if code == terminal.exit_code || is_key && code > 128 => {}
            Event::End(code) => {
                let printed = printed.join("\n");
                let declare = "a command that is meant to fail says so in a comment: # exit code N";
                return Err(format!("{}: exit code {code} ({declare})\n{}\n{printed}", step.line, typed(step)));
            }
            Event::Silence if goes_on => {}
            _ => return Err(format!("{}: not at its end after {PATIENCE:?}: {}", step.line, typed(step))),
        }
    }
    Ok(())
}

/// Whether what is shown is written anew although it matches: not where lines were chosen by hand.
fn is_renewing(step: &Step, goes_on: bool) -> bool {
    let chosen = step.shown.iter().filter(|line| line.trim() == compare::ANYTHING).count() > 1;
    std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "all") && !goes_on && !chosen
}

fn begin(step: &Step, terminal: &mut Terminal) -> Result<(), String> {
    match &step.input {
        Input::Command { text, exit_code } => {
            let deadline = Instant::now() + PATIENCE;
            while terminal.is_busy {
                if terminal.next(deadline) == Event::Silence {
                    return Err(format!("the command before this one has not ended after {PATIENCE:?}"));
                }
            }
            terminal.type_line(text, *exit_code);
        }
        Input::Key(_) | Input::Nothing if !terminal.is_busy => return Err("no command runs here".into()),
        Input::Key(key) => terminal.press(*key),
        Input::Nothing => {}
    }
    Ok(())
}

/// Everything up to the command's end, without blank lines at either side.
fn read_to_end(terminal: &mut Terminal) -> (Vec<String>, Event) {
    let (deadline, mut printed) = (Instant::now() + PATIENCE, Vec::new());
    let end = loop {
        match terminal.next(deadline) {
            Event::Line(line) => printed.push(line),
            Event::Silence => {
                printed.push(terminal.begun());
                break Event::Silence;
            }
            end => break end,
        }
    };
    let begin = printed.iter().position(|line| !line.trim().is_empty()).unwrap_or(printed.len());
    let end_of_text = printed.iter().rposition(|line| !line.trim().is_empty()).map_or(begin, |last| last + 1);
    (printed[begin..end_of_text].to_vec(), end)
}

/// Until the lines that are shown have come, or cannot come any more.
fn read_on(step: &Step, is_exact: bool, terminal: &mut Terminal) -> (Vec<String>, Event) {
    let (deadline, mut printed) = (Instant::now() + PATIENCE, Vec::new());
    let mut reading = Reading::new(&step.shown, is_exact);
    let mut may_match = true;
    while !(may_match && reading.is_complete()) || is_updating() && step.shown.is_empty() {
        if !may_match && !is_updating() {
            break;
        }
        match terminal.next(if is_updating() { Instant::now() + QUIET } else { deadline }) {
            Event::Line(line) => {
                may_match &= reading.take(&line);
                printed.push(line);
            }
            end => return (printed, end),
        }
    }
    (printed, Event::Silence)
}

fn typed(step: &Step) -> String {
    match &step.input {
        Input::Command { text, .. } => format!("$ {text}"),
        Input::Key(_) => "after a key".into(),
        Input::Nothing => "the running command".into(),
    }
}

/// Both, and where they part.
fn difference(step: &Step, printed: &[String], is_exact: bool) -> String {
    let mut out = format!("{}: {}\n", step.line, typed(step));
    let mut reading = Reading::new(&step.shown, is_exact);
    let same = printed.iter().take_while(|line| reading.take(line)).count();
    out.push_str("the page shows:\n");
    step.shown.iter().for_each(|line| writeln!(out, "  | {line}").unwrap());
    out.push_str("it printed:\n");
    for (place, line) in printed.iter().enumerate() {
        let mark = if place == same { "≠" } else { " " };
        writeln!(out, "{mark} | {line}").unwrap();
    }
    if same == printed.len() {
        out.push_str("≠ and nothing after it\n");
    }
    out
}
