//! Power loss: kill −9, and all is gone that was not synced. `unsynced.rs` keeps what is left; it is preloaded into the server.
//!
//! Every second time only a part of it is gone, by dice, in blocks of 4 KiB: a disk is free to write what nobody has synced. Then once more
//! with what `synchronous=NORMAL` would leave: that must lose something, or nothing of this would show anything.
//!
//! First of all the library itself is examined: a process writes, syncs, renames and removes, the power fails, and what is left is compared.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::Setup;
use crate::kill9::kill;
use crate::load::Load;

/// The drill's first argument when it is the process that is examined.
pub const PROBE: &str = "probe-of-power-loss";

/// Blocks of this size are written or not, as a whole.
const BLOCK_BYTES: usize = 4096;

/// Loses power `times` times, then a few times more as NORMAL would have it.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    // As the kernel names it in /proc/self/fd.
    let place = place.path().canonicalize().expect("it is there");
    let library = build(&place);
    let mut wrong = examine(&library, &place);
    eprintln!("power: the library was examined");

    let mut losses = 0;
    let full = Shadow::new(&place.join("full"), &library, false);
    let report = kill(
        Load::new("power", seed),
        times,
        &full.data,
        |setup| full.prepare(setup),
        |_, dice| {
            losses += 1;
            full.lose_power((losses % 2 == 0).then_some(dice));
        },
    );
    wrong.extend(report.wrong.iter().cloned());

    let few = times.min(5);
    let normal = Shadow::new(&place.join("normal"), &library, true);
    let would = kill(
        Load::new("power, synchronous=NORMAL", seed),
        few,
        &normal.data,
        |setup| normal.prepare(setup),
        |_, _| normal.lose_power(None),
    );
    let (lost, receipts) = (would.verdict.lost_receipts, would.verdict.receipts);
    let normal = match lost {
        0 => format!("synchronous=NORMAL would have lost nothing in {few} losses this time"),
        _ => format!("synchronous=NORMAL would have lost {lost} of {receipts} receipts in {few} losses"),
    };
    Outcome { line: format!("power: {times} losses, {}; {normal}", report.line()), wrong }
}

/// Builds the library that is preloaded.
fn build(place: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drill/unsynced.rs");
    let library = place.join("libunsynced.so");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-D", "warnings", "-o"]);
    let built = command.arg(&library).arg(source).status().expect("rustc can be started: it is in PATH or in RUSTC");
    assert!(built.success(), "{source} cannot be compiled");
    library
}

/// A data directory, and what would be left of it.
struct Shadow {
    data: PathBuf,
    shadow: PathBuf,
    library: PathBuf,
    is_normal: bool,
}

impl Shadow {
    fn new(place: &Path, library: &Path, is_normal: bool) -> Shadow {
        let (data, shadow) = (place.join("data"), place.join("shadow"));
        fs::create_dir_all(&data).expect("a directory");
        fs::create_dir_all(shadow.join("kept")).expect("a directory");
        Shadow { data, shadow, library: library.to_owned(), is_normal }
    }

    /// What the environment of a process must hold, as `env` takes it.
    fn environment(&self) -> Vec<String> {
        let mode = if self.is_normal { "normal" } else { "full" };
        let path = |path: &Path| path.to_str().expect("a temporary directory has a name in UTF-8").to_owned();
        vec![
            format!("LD_PRELOAD={}", path(&self.library)),
            format!("UNSYNCED_DIR={}", path(&self.data)),
            format!("UNSYNCED_SHADOW={}", path(&self.shadow)),
            format!("UNSYNCED_MODE={mode}"),
        ]
    }

    fn prepare<'s>(&self, setup: &'s mut Setup) -> &'s mut Setup {
        let mut words = vec!["env".to_owned()];
        words.extend(self.environment());
        setup.wrapper(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The process is dead; makes of the directory what is left of it. With dice, unsynced blocks may be there or not.
    fn lose_power(&self, mut dice: Option<&mut Dice>) {
        let names =
            fs::read_to_string(self.shadow.join("names")).expect("the library was at work, and the directory synced");
        let mut left = Vec::new();
        for line in names.lines() {
            let (number, name) = line.split_once(' ').expect("a number and a name");
            let synced = fs::read(self.shadow.join(number)).unwrap_or_default();
            let content = match &mut dice {
                Some(dice) => mixture(&synced, &self.content(number, name), dice),
                None => synced,
            };
            left.push((name.to_owned(), content));
        }
        for entry in fs::read_dir(&self.data).expect("the directory is read") {
            fs::remove_file(entry.expect("the directory is read").path()).expect("it has no directories in it");
        }
        fs::remove_dir_all(&self.shadow).expect("the shadow goes");
        fs::create_dir_all(self.shadow.join("kept")).expect("a directory");
        // What is left is on disk: the next loss begins with it.
        let mut names = String::new();
        for (name, content) in left {
            let path = self.data.join(&name);
            fs::write(&path, &content).expect("a file is written");
            let number = path.metadata().expect("it is there").ino();
            fs::write(self.shadow.join(number.to_string()), &content).expect("its copy is written");
            names.push_str(&format!("{number} {name}\n"));
        }
        fs::write(self.shadow.join("names"), names).expect("the names are written");
    }

    /// What is in a file, synced or not; it may have another name now, or none.
    fn content(&self, number: &str, name: &str) -> Vec<u8> {
        let is_it = |path: &PathBuf| path.metadata().is_ok_and(|found| found.ino().to_string() == number);
        let mut paths = vec![self.data.join(name), self.shadow.join("kept").join(number)];
        paths
            .extend(fs::read_dir(&self.data).expect("the directory is read").map(|entry| entry.expect("it is").path()));
        let path = paths.into_iter().find(is_it).expect("a file that was there is there or was kept");
        fs::read(path).expect("it is read")
    }
}

/// Blocks of the one or the other.
fn mixture(synced: &[u8], written: &[u8], dice: &mut Dice) -> Vec<u8> {
    let length = if dice.is_one_in(2) { synced.len() } else { written.len() };
    let mut mixed = Vec::with_capacity(length);
    while mixed.len() < length {
        let from = if dice.is_one_in(2) { synced } else { written };
        let (begin, end) = (mixed.len(), (mixed.len() + BLOCK_BYTES).min(length));
        mixed.extend_from_slice(&from[begin.min(from.len())..end.min(from.len())]);
        // A file that is longer than what was written into it.
        mixed.resize(end, 0);
    }
    mixed
}

/// Has a process do all kinds of things to files, loses power, and compares.
fn examine(library: &Path, place: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for is_normal in [false, true] {
        let shadow = Shadow::new(&place.join(format!("probe-{is_normal}")), library, is_normal);
        let mut command = Command::new("env");
        command.args(shadow.environment()).arg(std::env::current_exe().expect("this program has a path"));
        command.arg(PROBE).arg(&shadow.data).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the process starts");
        let mut said = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut said).expect("it says something");
        process.kill().expect("it runs");
        process.wait().expect("it ends");
        assert_eq!(said, "done\n", "the process that is examined");
        shadow.lose_power(None);
        let content = |name: &str| fs::read_to_string(shadow.data.join(name)).ok();
        let mut expect = |name: &str, found: Option<String>, expected: Option<&str>| {
            if found.as_deref() != expected {
                wrong.push(format!("of {name} is left {found:?}, not {expected:?} (NORMAL: {is_normal})"));
            }
        };
        for (name, expected) in LEFT {
            expect(name, content(name), *expected);
        }
        let database = rusqlite::Connection::open(shadow.data.join("rows.db")).expect("the database opens");
        let rows = database.query_row("select group_concat(row) from rows", [], |row| row.get(0)).expect("it is read");
        // The first was in a checkpoint.
        expect("the database", rows, Some(if is_normal { "1" } else { "1,2" }));
    }
    wrong
}

/// What must be left of what the probe writes.
const LEFT: &[(&str, Option<&str>)] = &[
    ("synced", Some("synced")),
    ("overwritten", Some("before")),
    ("written at its end", Some("once")),
    ("cut", Some("0123456789")),
    ("cut and synced", Some("0123")),
    ("cut and written", Some("01\0\0\0x")),
    ("truncated", Some("all of it")),
    ("named only", Some("")),
    ("never named", None),
    ("old name", Some("renamed")),
    ("new name", None),
    ("replaced", Some("by nothing")),
    ("removed", Some("not quite")),
    ("removed and synced", None),
];

/// The process that is examined: it writes into this directory and waits to be killed.
pub fn probe(dir: Option<OsString>) -> ! {
    write_all_kinds(Path::new(&dir.expect("a directory"))).expect("files are written");
    println!("done");
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(1);
}

fn write_all_kinds(dir: &Path) -> std::io::Result<()> {
    // First, for SQLite syncs the directory when its log begins, and the names of all files with it.
    rows(&dir.join("rows.db")).map_err(std::io::Error::other)?;
    let write = |name: &str, content: &str| -> std::io::Result<fs::File> {
        let mut file = fs::File::create(dir.join(name))?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        Ok(file)
    };
    let mut appended = write("synced", "synced")?;
    let overwritten = write("overwritten", "before")?;
    write("written at its end", "once")?;
    let cut = write("cut", "0123456789")?;
    let cut_and_synced = write("cut and synced", "0123456789")?;
    let cut_and_written = write("cut and written", "0123456789")?;
    write("truncated", "all of it")?;
    fs::write(dir.join("named only"), "never synced")?;
    write("old name", "renamed")?;
    write("replacement", "new")?;
    write("replaced", "by nothing")?;
    write("removed", "not quite")?;
    write("removed and synced", "gone")?;
    fs::remove_file(dir.join("removed and synced"))?;
    fs::File::open(dir)?.sync_all()?;

    appended.write_all(b" and not")?;
    overwritten.write_all_at(b"after", 0)?;
    fs::OpenOptions::new().append(true).open(dir.join("written at its end"))?.write_all(b" and twice")?;
    cut.set_len(4)?;
    cut_and_synced.set_len(4)?;
    cut_and_synced.sync_data()?;
    cut_and_written.set_len(2)?;
    cut_and_written.write_all_at(b"x", 5)?;
    cut_and_written.sync_all()?;
    write("never named", "although it was synced")?;
    fs::File::create(dir.join("truncated"))?.write_all(b"none")?;
    fs::rename(dir.join("old name"), dir.join("new name"))?;
    fs::rename(dir.join("replacement"), dir.join("replaced"))?;
    fs::remove_file(dir.join("removed"))?;
    // The number of the removed one must not go to this.
    write("a new one", "after one was removed")?;
    Ok(())
}

/// One row in a checkpoint, a second committed, a third not.
fn rows(path: &Path) -> rusqlite::Result<()> {
    let database = rusqlite::Connection::open(path)?;
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "full")?;
    database.execute_batch("create table rows (row); insert into rows values (1); pragma wal_checkpoint")?;
    database.execute_batch("insert into rows values (2)")?;
    database.execute_batch("begin; insert into rows values (3)")?;
    // The third is on its way into the log.
    database.cache_flush()?;
    std::mem::forget(database);
    Ok(())
}
