//! `chatserver restore`: a backup takes the place of the database of a server that does not run.

use std::path::PathBuf;
use std::process::ExitCode;

use rustix::fs::Mode;

use super::connection::exit;
use super::progress::{Progress, Unit};
use super::serve::{create_directory, lock_directory};
use super::{DataArg, fail, print};
use crate::clock::{Clock, SystemClock};
use crate::storage::{self, Copied, StorageError};
use crate::terminal::utc;

const EXIT_CODES: &str = "Exit codes:
  0  restored
  1  a server runs in DIR, or DIR cannot be written
  5  FILE cannot be read, is damaged, is no backup, or is of a newer version";

/// Put a backup into the place of the database; the server must be stopped
///
/// FILE is copied, and the copy is checked page by page before anything else is touched. The database that was there is kept beside it as
/// DIR/chatserver.db.replaced-DATE, and can be restored in turn. When this is interrupted, by whatever, the old database is in place, or the new one.
///
/// What was delivered since the backup was made is delivered again; what was accepted since then is in the kept database only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct Args {
    /// A file that `chatserver backup` wrote
    file: PathBuf,

    #[command(flatten)]
    data: DataArg,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let Args { file, data: DataArg { data } } = args;
    let unreadable = |why: String| (fail(why), ExitCode::from(exit::INPUT)).1;
    if let Err(error) = std::fs::File::open(&file) {
        return unreadable(format!("{} cannot be read ({error})", file.display()));
    }
    // The lock, and what else is new, is its user's alone.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let locked = create_directory(&data).and_then(|()| lock_directory(&data, "stop it, then restore"));
    let _lock = match locked {
        Ok(lock) => lock,
        Err(why) => return fail(why),
    };
    let stamp = stamp(SystemClock::new().now().unix_ms);
    let copied = {
        // Gone before anything is said.
        let progress = Progress::new(Unit::Bytes);
        storage::restore(&data, &file, &stamp, &mut |done, total| progress.at(done, total))
    };
    let copied = match copied {
        Ok(copied) => copied,
        Err(error @ (StorageError::Newer { .. } | StorageError::Foreign { .. } | StorageError::Damaged { .. })) => {
            return unreadable(error.to_string());
        }
        Err(error) => return fail(error),
    };
    let Copied { messages, bytes, beside } = copied;
    let mut text = format!(
        "{}: restored from {}, {bytes} bytes, checked; messages that wait: {messages}\n",
        data.join(storage::DATABASE).display(),
        file.display()
    );
    if let Some(kept) = beside {
        text += &format!("{}: the database that was there\n", kept.display());
    }
    print(text)
}

/// Unix milliseconds for a file name: `20140813T140000.123Z`.
fn stamp(unix_ms: i64) -> String {
    let seconds = utc(unix_ms / 1000).replace(['-', ':', 'Z'], "");
    format!("{seconds}.{:03}Z", unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_has_the_moment_in_it() {
        assert_eq!(stamp(1_407_938_400_023), "20140813T140000.023Z");
    }
}
