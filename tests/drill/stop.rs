//! SIGTERM in the middle of everything: the server ends in time and in order, and nothing that it had accepted is lost. And SIGHUP, four times as
//! often, with configurations that are good, wrong, or not there: nobody is disconnected, and what is wrong changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chatserver::protocol::{Reason, Status};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::{PATIENCE, Server, happens_within};
use crate::load::Load;
use crate::person::{Event, Level, Person};
use crate::process;

/// The deadline of a stop, and what saving and closing may take beyond it.
const SHUTDOWN_TIMEOUT: &str = "2 s";
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// SIGHUPs for each SIGTERM.
const RELOADS: u32 = 4;

/// Longer than any text of the load.
const MIN_TEXT_BYTES: usize = 30_000;

/// What SIGHUP finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Good,
    WrongValue,
    UnknownName,
    NoToml,
    Missing,
    Empty,
    Truncated,
    NotUtf8,
    Directory,
    /// A link to itself: nobody can open it, not even root.
    Unreadable,
    NoDescriptors,
}

const ALL: &[Found] = &[
    Found::Good,
    Found::WrongValue,
    Found::Missing,
    Found::UnknownName,
    Found::Empty,
    Found::Good,
    Found::Truncated,
    Found::NotUtf8,
    Found::NoToml,
    Found::Unreadable,
    Found::Directory,
    Found::NoDescriptors,
];

/// Stops the server `times` times.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path().join("data");
    fs::create_dir(&data).expect("a directory");
    let mut settings = Settings { file: data.join("chatserver.toml"), max_text_bytes: MIN_TEXT_BYTES };
    settings.write(&settings.text());
    let server =
        process::start(&data, |setup| setup.set("shutdown_timeout", SHUTDOWN_TIMEOUT).set("log_level", "info"));
    let (mut slowest, mut wrong, mut changed, mut refused) = (Duration::ZERO, Vec::new(), 0, 0);
    let mut verdict = Load::new("stop", seed).run(
        server,
        |load, mut server, dice| {
            for time in 1..=times {
                load.lives().stay_away(dice.millis(50, 1000));
                load.promise_accepted();
                load.lives().end();
                let began = Instant::now();
                let status = server.sigterm();
                let took = began.elapsed();
                slowest = slowest.max(took);
                if status.code() != Some(0) || took > ENDS_WITHIN {
                    wrong.push(format!("SIGTERM {time}: {status} after {:.2} s", took.as_secs_f64()));
                }
                wrong.extend(left_over(&data).map(|file| format!("SIGTERM {time} leaves {file} behind")));
                server = server.restart();
                load.lives().begin(&server);
                load.tell(&format!("stop {time} of {times}"));
            }
            for time in 0..times * RELOADS {
                load.lives().stay_away(dice.millis(0, 100));
                let found = ALL[time as usize % ALL.len()];
                match settings.reload(&server, found, dice) {
                    Ok(()) if found == Found::Good => changed += 1,
                    Ok(()) => refused += 1,
                    Err(why) => wrong.push(format!("SIGHUP {}, {found:?}: {why}", time + 1)),
                }
                if time % 20 == 19 {
                    load.tell(&format!("SIGHUP {} of {}", time + 1, times * RELOADS));
                }
            }
            server
        },
        |_| {},
    );
    wrong.append(&mut verdict.wrong);
    let line = format!(
        "stop: {times} × SIGTERM, each within {:.2} s, {} × SIGHUP, {changed} changed what they should, {refused} refused with a reason and without \
         effect; texts {}, receipts {}, {verdict}",
        slowest.as_secs_f64(),
        times * RELOADS,
        verdict.sent,
        verdict.receipts,
    );
    Outcome { line, wrong }
}

/// The database's files that a stop should have removed.
fn left_over(data: &Path) -> impl Iterator<Item = &'static str> {
    ["chatserver.db-wal", "chatserver.db-shm"].into_iter().filter(|name| data.join(name).exists())
}

/// The configuration file, and what should be in force.
struct Settings {
    file: PathBuf,
    max_text_bytes: usize,
}

impl Settings {
    /// The last line is a text, so that a file that is cut there is not a good one.
    fn text(&self) -> String {
        format!("max_text_bytes = {}\nsave_interval = \"1 s\"\n", self.max_text_bytes)
    }

    /// In its place, under its name at once.
    fn write(&self, text: &(impl AsRef<[u8]> + ?Sized)) {
        self.remove();
        let new = self.file.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &self.file)).expect("the configuration is written");
    }

    /// Whatever is there.
    fn remove(&self) {
        if fs::remove_file(&self.file).is_err() {
            let _ = fs::remove_dir(&self.file);
        }
    }

    /// SIGHUP, with this in the file's place. Ok: what should be in force is, and a line says why.
    fn reload(&mut self, server: &Server, found: Found, dice: &mut Dice) -> Result<(), String> {
        let text = self.text();
        let mut no_descriptors = None;
        match found {
            Found::Good => {
                self.max_text_bytes = MIN_TEXT_BYTES + dice.roll(5_000) as usize;
                self.write(&self.text());
            }
            Found::WrongValue => self.write("max_text_bytes = \"many\"\n"),
            Found::UnknownName => self.write(&format!("{text}max_texts = 3\n")),
            Found::NoToml => self.write(&format!("{text}[[[\n")),
            Found::Missing => self.remove(),
            Found::Empty => self.write(""),
            Found::Truncated => self.write(&text[..text.len() - 2 - dice.roll(4) as usize]),
            Found::NotUtf8 => self.write(&[text.as_bytes(), b"# \xff\xfe\n"].concat()),
            Found::Directory => {
                self.remove();
                fs::create_dir(&self.file).expect("a directory");
            }
            Found::Unreadable => {
                self.remove();
                symlink(&self.file, &self.file).expect("a link");
            }
            // The file is another one, so that it would show if it were read.
            Found::NoDescriptors => {
                self.write(&format!("max_text_bytes = {}\n", self.max_text_bytes + 1));
                no_descriptors = Some(NoDescriptors::of(server));
            }
        }
        let sign = if found == Found::Good { "configuration read again" } else { "the configuration stays as it was" };
        let before = (server.logged(sign), server.log().lines().count());
        server.signal(Signal::HUP);
        let is_heeded = happens_within(PATIENCE, || server.logged(sign) > before.0);
        drop(no_descriptors);
        if !is_heeded {
            return Err(format!("no line with {sign:?} came"));
        }
        let reasons = server.log().lines().skip(before.1).filter(|line| line.contains("SIGHUP: ")).count();
        if reasons < 2 {
            return Err("no line says what has changed, or why nothing has".into());
        }
        let outcome = self.is_in_force(server);
        self.write(&self.text());
        outcome
    }

    /// A new connection may write a text as long as it should be able to, and no longer one.
    fn is_in_force(&self, server: &Server) -> Result<(), String> {
        let mut person = Person::new("probe", Level::Two);
        person.log_in(&server.connect()).map_err(|error| error.to_string())?;
        let mut answers = Vec::new();
        for bytes in [self.max_text_bytes, self.max_text_bytes + 1] {
            person.send("probe", &"x".repeat(bytes)).map_err(|error| error.to_string())?;
            answers.push(answer(&mut person)?);
        }
        person.say_goodbye_and_wait();
        match answers[..] {
            [None, Some(Reason::TooLong)] => Ok(()),
            _ => {
                Err(format!("texts of max_text_bytes = {} and one more are answered {answers:?}", self.max_text_bytes))
            }
        }
    }
}

/// Why what was sent last is refused, if it is.
fn answer(person: &mut Person) -> Result<Option<Reason>, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        match person.next(until.saturating_duration_since(Instant::now())).map_err(|error| error.to_string())? {
            Some(Event::Receipt(receipt)) if receipt.status == Status::Refused => return Ok(receipt.reason),
            Some(Event::Receipt(_)) if person.unreceipted() == 0 => return Ok(None),
            Some(_) => {}
            None => return Err("no receipt came".into()),
        }
    }
}

/// A server that can open nothing until this is dropped.
struct NoDescriptors {
    pid: Pid,
    before: Rlimit,
}

impl NoDescriptors {
    fn of(server: &Server) -> NoDescriptors {
        let pid = Pid::from_raw(server.pid().cast_signed()).expect("a process");
        let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("the server lives");
        let maximum = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
        let maximum = maximum.split_whitespace().nth(1).and_then(|number| number.parse().ok());
        let before = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(0), maximum });
        NoDescriptors { pid, before: before.expect("the limit of one's own process can be lowered") }
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        let again = prlimit(Some(self.pid), Resource::Nofile, self.before);
        again.expect("the limit was as high before");
    }
}
