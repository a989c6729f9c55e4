//! `chatserver backup`: a copy of the database, with everything that a running server has accepted until now.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::ctl_client::{self, SOCKET};
use super::progress::{Progress, Unit};
use super::serve::LOCK;
use super::{DataArg, fail, print};
use crate::delivery::STOPS;
use crate::storage::{self, Copied};

/// How long a server may take to save what it holds in memory: all of it, on a slow disk.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a server that starts or stops may be without a control socket.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How often such a server is asked again.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// Copy the database to FILE, also while the server runs
///
/// The copy is one file, readable by its owner only: users, waiting messages, and the numbers that must not be given out again. It holds every message that
/// was accepted before the backup began: a running server is asked to save first, and if it cannot, there is no backup. The copy is checked page by page;
/// only then it gets its name, and replaces an older FILE at one stroke. If the server has ever set messages aside (DIR/set-aside.jsonl), these lie beside
/// it as FILE.set-aside.jsonl.
///
/// The configuration, with its key, is not in it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write it: a file, on any disk with room for it
    file: PathBuf,

    #[command(flatten)]
    data: DataArg,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let Args { file, data: DataArg { data } } = args;
    if let Err(why) = save_first(&data, START_TIMEOUT) {
        return fail(why);
    }
    let copied = {
        // Gone before anything is said.
        let progress = Progress::new(Unit::Bytes);
        storage::backup(&data, &file, &mut |done, total| progress.at(done, total))
    };
    let copied = match copied {
        Ok(copied) => copied,
        Err(error) => return fail(format!("{error}; there is no new backup")),
    };
    let Copied { messages, bytes, beside } = copied;
    let mut text = format!("{}: {bytes} bytes, checked; messages that wait: {messages}\n", file.display());
    if let Some(beside) = beside {
        text += &format!("{}: what the server had set aside\n", beside.display());
    }
    print(text)
}

/// Has a running server save what it holds in memory only. A server that starts or stops is waited for: it may not listen.
fn save_first(data: &Path, start_timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + start_timeout;
    loop {
        let why = match ctl_client::ask(data, "save", SAVE_TIMEOUT) {
            Ok(Some(answer)) if !answer.contains(STOPS) => return saved(&answer),
            Ok(None) if !is_locked(data)? => return Ok(()),
            Ok(_) => format!(
                "a server uses the data directory {}, but does not listen on its {SOCKET}, so that it cannot be asked to save first; \
                 its log says why, and a stopped server can be backed up, too",
                data.display()
            ),
            // A server that stops breaks off in the middle.
            Err(why) => why,
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        std::thread::sleep(ASK_INTERVAL);
    }
}

/// `{"saved": N}`, or why not.
fn saved(answer: &str) -> Result<(), String> {
    let answer: serde_json::Value = serde_json::from_str(answer)
        .map_err(|error| format!("the server's answer to \"save\" is no JSON ({error})"))?;
    match (answer.get("saved"), answer.get("error").and_then(serde_json::Value::as_str)) {
        (Some(_), None) => Ok(()),
        (_, Some(why)) => Err(format!("the server could not save, so that a backup would not be complete: {why}")),
        (None, None) => {
            Err(format!("the server's answer to \"save\" is {answer}; use its own version of this program"))
        }
    }
}

/// Whether a server, or a restore, is at work in the directory.
fn is_locked(data: &Path) -> Result<bool, String> {
    let path = data.join(LOCK);
    let cannot =
        |error: io::Error| format!("{} cannot be looked at ({error}); run this as the server's user", path.display());
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(cannot(error)),
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(cannot(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_server_that_cannot_save_or_be_asked_makes_no_backup() {
        assert_eq!(saved("{\"saved\":0}"), Ok(()));
        let refused = saved("{\"error\":\"the disk is full\"}").unwrap_err();
        assert!(refused.ends_with("would not be complete: the disk is full"), "{refused}");
        assert!(saved("{}").is_err() && saved("yes").is_err());

        let dir = tempfile::tempdir().unwrap();
        assert_eq!(save_first(dir.path(), Duration::ZERO), Ok(()), "nobody is there");
        let lock = File::create(dir.path().join(LOCK)).unwrap();
        assert_eq!(save_first(dir.path(), Duration::ZERO), Ok(()), "nobody is there any more");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let refused = save_first(dir.path(), Duration::ZERO).unwrap_err();
        assert!(refused.contains("does not listen on its ctl.sock"), "{refused}");
    }

    #[test]
    fn a_server_that_is_about_to_listen_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let lock = File::create(dir.path().join(LOCK)).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| save_first(dir.path(), Duration::from_secs(30)));
            let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
            // One that stops in the middle of an answer, and one that answers.
            drop(listener.accept().unwrap());
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&socket).read_line(&mut request).unwrap();
            socket.write_all(b"{\"saved\":1}\n").unwrap();
            assert_eq!(asked.join().unwrap(), Ok(()));
        });
    }
}
