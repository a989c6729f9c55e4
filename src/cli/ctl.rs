//! `chatserver ctl`: asks a running server over DIR/ctl.sock.

mod sessions;
#[cfg(feature = "tools")]
mod top;
mod trace;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{DataArg, ctl_client, fail, print};
use crate::language::Language;

/// Ask a running server, over the socket DIR/ctl.sock
///
/// A request is a line of text, its answer a line of JSON. `nc -U DIR/ctl.sock` does the same; sessions, session, trace and top are made readable here.
///
///   status              everything that a report counts, and how the server stands
///   sessions            who is there: where from, since when, what waits, what passed
///   session NAME        the same of one user, also of one who is not there
///   kick NAME           ends that user's connection; what it has not acknowledged waits
///   trace NAME          that user's packets, decoded, a line each, until Ctrl-C
///   log LEVEL           what goes into the log (off, error, warn, info, debug, trace), until the next SIGHUP or start
///   top                 server and sessions on the full screen, every second anew, until q
///   drain, drain off    accepts no connection any more, or again; those who are there go on
///   report, report send the present report, or the same by mail
///   save                everything accepted until now is on disk when it answers
///   help                this list, as the server tells it
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    data: DataArg,

    /// What to ask: status, sessions, trace NAME, help, …
    #[arg(required = true, value_name = "REQUEST")]
    request: Vec<String>,

    /// The answer as it comes, JSON, where it is made readable otherwise
    #[arg(long)]
    json: bool,

    /// How long to wait for the answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// Runs the command: prints the answer; exit code 3 when it is an error.
pub fn run(args: Args) -> ExitCode {
    let request = args.request.join(" ");
    let is_about_one = args.request.len() > 1;
    match args.request[0].as_str() {
        "trace" if is_about_one => return trace::run(&args.data, &request, args.json),
        #[cfg(feature = "tools")]
        "top" if !is_about_one => return top::run(&args.data),
        _ => {}
    }
    let answer = match ask(&args.data, &request, Duration::from_secs(args.timeout)) {
        Ok(answer) => answer,
        Err(why) => return fail(why),
    };
    let is_error = answer.get("error").is_some();
    let text = match args.request[0].as_str() {
        _ if args.json || is_error => format!("{answer}\n"),
        "sessions" => sessions::table(&answer, Language::of_environment(), now_ms()),
        "session" if is_about_one => sessions::one(&answer),
        _ => format!("{answer}\n"),
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
