//! `chatserver ctl`: asks a running server over DIR/ctl.sock.

mod sessions;
#[cfg(feature = "tools")]
mod top;
mod trace;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{DataArg, ctl_client, fail, print};
use crate::config::parse_duration;
use crate::language::Language;
use crate::terminal::{columns, escape_json};

/// What is asked of a user.
const OF_A_USER: [&str; 3] = ["session", "kick", "trace"];

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  no server runs there, it ended, or it has not answered in time
  2  wrong usage, also a NAME that is missing
  3  the server's answer is an error: nobody of that name was ever here, it
     does not know the request, or cannot do it now";

/// Ask a running server, over the socket DIR/ctl.sock
///
/// A request is a line of text, its answer a line of JSON; `nc -U DIR/ctl.sock`
/// does the same. sessions, session, trace and top are made readable here.
///
///   status               what a report counts, and how the server stands
///   sessions             who is there: where from, since when, what waits, what
///                        passed; on a narrow terminal some columns are left out
///   session NAME         the same of one user, also of one who is not there
///   kick NAME            ends that user's connection; what it has not
///                        acknowledged waits
///   trace NAME           that user's packets, decoded, a line each, until Ctrl-C
///   log                  what goes into the log now
///   log LEVEL            sets that (off, error, warn, info, debug, trace), until
///                        the next SIGHUP or start
///   top                  server and sessions on the full screen, every second
///                        anew. Keys: q ends it; n w u i o l order the sessions
///                        by name, waiting, unacked, in, out, last (again: the
///                        other way round); ↑ ↓ move by one, PgUp PgDn by ten,
///                        Home End to the first or last
///   drain, drain off     accepts no connection any more, or again; those who
///                        are there go on
///   report, report send  the present report, or the same by mail
///   save                 everything accepted until now is on disk when it answers
///   help                 this list, as the server tells it
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    data: DataArg,

    /// What to ask: status, sessions, trace NAME, help, …
    #[arg(required = true, value_name = "REQUEST")]
    request: Vec<String>,

    /// The answer as it comes, JSON, where it is made readable otherwise
    #[arg(long)]
    json: bool,

    /// sessions: all columns, however narrow the terminal is
    #[arg(long)]
    wide: bool,

    /// How long to wait for the answer; a number alone is seconds
    #[arg(long, value_name = "TIME", default_value = "5min", value_parser = patience)]
    timeout: Duration,
}

/// A duration of at most a day.
fn patience(text: &str) -> Result<Duration, String> {
    let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let duration = if is_bare { parse_duration(&format!("{text} s")) } else { parse_duration(text) }?;
    let is_possible = (1..=86_400_000).contains(&duration.as_millis());
    if is_possible { Ok(duration) } else { Err("it is more than 0 and at most 1 d".into()) }
}

/// Runs the command: prints the answer; exit code 3 when it is an error.
pub fn run(args: Args) -> ExitCode {
    let request = args.request.join(" ");
    let is_about_one = args.request.len() > 1;
    match args.request[0].as_str() {
        word if !is_about_one && OF_A_USER.contains(&word) => {
            let _ = fail(format!("{word} needs a NAME: chatserver ctl {word} NAME"));
            return ExitCode::from(2);
        }
        "trace" if is_about_one => return trace::run(&args.data, &request, args.json, args.timeout),
        #[cfg(feature = "tools")]
        "top" if !is_about_one => return top::run(&args.data),
        _ => {}
    }
    let answer = match ask(&args.data, &request, args.timeout) {
        Ok(answer) => answer,
        Err(why) => return fail(why),
    };
    let is_error = answer.get("error").is_some();
    let text = match args.request[0].as_str() {
        _ if args.json || is_error => format!("{}\n", escape_json(&answer.to_string())),
        "sessions" => {
            let width = if args.wide { None } else { columns() };
            sessions::table(&answer, Language::of_environment(), now_ms(), width)
        }
        "session" if is_about_one => sessions::one(&answer),
        _ => format!("{}\n", escape_json(&answer.to_string())),
    };
    let printed = print(text);
    if is_error { ExitCode::from(3) } else { printed }
}

/// The server's answer to a request, as JSON.
///
/// # Errors
/// In words: no server runs there, or it does not answer.
pub fn ask(data: &DataArg, request: &str, timeout: Duration) -> Result<Value, String> {
    let answer = ctl_client::ask(&data.data, request, timeout)?.ok_or_else(|| no_server(data))?;
    serde_json::from_str(&answer).map_err(|error| format!("the server's answer is no JSON ({error}): {answer}"))
}

fn no_server(data: &DataArg) -> String {
    format!(
        "no server runs on the data directory {}; start one, or name its directory with --data DIR",
        data.data.display()
    )
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_duration_and_a_bare_number_seconds() {
        let read = ["300", "250 ms", "5min", "1d"].map(|text| patience(text).unwrap().as_millis());
        assert_eq!(read, [300_000, 250, 300_000, 86_400_000]);
        for text in ["", "0", "0 s", "2 d", "soon", "-1", "99999999999999999999"] {
            assert!(patience(text).is_err(), "{text}");
        }
    }
}
