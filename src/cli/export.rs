//! `chatserver export`: the waiting messages, for people and for other programs.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::FileType;
use serde::Serialize;

use super::progress::{Progress, Unit};
use super::{DataArg, fail};
use crate::protocol::UserName;
use crate::storage::{Export, StorageError, Waiting};
use crate::terminal::{escape, escape_json, utc};

/// Print the messages that wait
///
/// User by user, each user's in the order in which they will be delivered. A line is "TIME FROM to TO: TEXT" with the sender's time in UTC and control
/// characters escaped; with --json it is an object {from, to, text, time, seq, accepted_at, msg_id}: time in Unix seconds by the sender's clock, accepted_at
/// in Unix milliseconds by the server's, msg_id the sender's own number for it, absent where it gave none.
///
/// It reads the database and changes nothing, also beside a running server; what that server holds in memory only (messages of the last second) is not in
/// it yet.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of this user only
    #[arg(long, value_name = "NAME", value_parser = user_key)]
    user: Option<String>,

    /// JSON Lines instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data: DataArg,
}

/// Messages between two looks at the progress.
const PROGRESS_MESSAGES: u64 = 1000;

/// The compared form of a name.
fn user_key(name: &str) -> Result<String, String> {
    UserName::parse(name).map(|name| name.key().to_string()).map_err(|error| error.to_string())
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    match export(&args.data.data, args.user.as_deref(), args.json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Storage(error)) => fail(format!("{error} (--data DIR names the server's data directory)")),
        // `export | head` has seen enough.
        Err(Failed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failed::Output(error)) => fail(format!("standard output cannot be written ({error})")),
    }
}

#[derive(Debug)]
enum Failed {
    Storage(StorageError),
    Output(io::Error),
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Failed {
        Failed::Storage(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Output(error)
    }
}

fn export(data: &Path, user: Option<&str>, json: bool) -> Result<(), Failed> {
    let export = Export::open(data, user)?;
    let total = export.total()?;
    let out = io::stdout().lock();
    // Into a file; beside the messages on one terminal, or beside `less`, a bar would only be in the way.
    let is_file = rustix::fs::fstat(&out).is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_file());
    let progress = is_file.then(|| Progress::new(Unit::Messages));
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    for (done, waiting) in (0..).zip(export) {
        print(&mut out, &waiting?, json)?;
        if let Some(progress) = progress.as_ref().filter(|_| done % PROGRESS_MESSAGES == 0) {
            progress.at(done, total);
        }
    }
    Ok(out.flush()?)
}

/// A message as an object of `--json`.
#[derive(Serialize)]
struct JsonLine<'a> {
    from: &'a str,
    to: &'a str,
    text: &'a str,
    time: i64,
    seq: u64,
    accepted_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg_id: Option<u64>,
}

fn print(out: &mut impl Write, waiting: &Waiting, json: bool) -> io::Result<()> {
    let Waiting { to, row } = waiting;
    let (from, text, time) = (&*row.sender, &*row.text, row.client_time);
    if json {
        let line = JsonLine { from, to, text, time, seq: row.seq, accepted_at: row.accepted_at, msg_id: row.msg_id };
        writeln!(out, "{}", escape_json(&serde_json::to_string(&line)?))
    } else {
        writeln!(out, "{} {} to {}: {}", utc(time), escape(from), escape(to), escape(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Row;

    #[test]
    fn a_message_is_one_line() {
        let row = Row {
            seq: 7,
            sender: "小红".into(),
            text: "你好\n\"\x1b[2J\u{9b}J".into(),
            client_time: 1_407_938_400,
            accepted_at: 1_407_938_400_123,
            msg_id: None,
        };
        let mut waiting = Waiting { to: "[38121920]--> 7".into(), row };
        let printed = |waiting: &Waiting, json| {
            let mut out = Vec::new();
            print(&mut out, waiting, json).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            printed(&waiting, false),
            "2014-08-13T14:00:00Z 小红 to [38121920]--> 7: 你好\\n\"\\u{1b}[2J\\u{9b}J\n"
        );
        let json = "{\"from\":\"小红\",\"to\":\"[38121920]--> 7\",\"text\":\"你好\\n\\\"\\u001b[2J\\u009bJ\",\
                    \"time\":1407938400,\"seq\":7,\"accepted_at\":1407938400123}\n";
        assert_eq!(printed(&waiting, true), json);
        waiting.row.msg_id = Some(41);
        assert_eq!(printed(&waiting, true), json.replace('}', ",\"msg_id\":41}"));
    }
}
