//! `chatserver ctl`: asks a running server over DIR/ctl.sock.

use std::process::ExitCode;
use std::time::Duration;

use super::{DataArg, ctl_client, fail, print};

/// Ask a running server, over the socket DIR/ctl.sock
///
/// A request is a line of text, its answer a line of JSON: status (everything that a report counts), report (the present report as text and HTML), report
/// send (by mail, now), save (everything accepted until now is on disk when it answers), help. `nc -U DIR/ctl.sock` does the same.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DataArg,

    /// What to ask: status, report, save, help, …
    #[arg(required = true, value_name = "REQUEST")]
    request: Vec<String>,

    /// How long to wait for the answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// Runs the command: prints the answer; exit code 3 when it is an error.
pub fn run(args: Args) -> ExitCode {
    match ask(&args.data, &args.request.join(" "), Duration::from_secs(args.timeout)) {
        Ok(answer) => {
            let printed = print(format!("{answer}\n"));
            if answer.get("error").is_some() { ExitCode::from(3) } else { printed }
        }
        Err(why) => fail(why),
    }
}

/// The server's answer to a request, as JSON.
///
/// # Errors
/// In words: no server runs there, or it does not answer.
pub fn ask(data: &DataArg, request: &str, timeout: Duration) -> Result<serde_json::Value, String> {
    let answer = ctl_client::ask(&data.data, request, timeout)?.ok_or_else(|| {
        format!(
            "no server runs on the data directory {}; start one, or name its directory with --data DIR",
            data.data.display()
        )
    })?;
    serde_json::from_str(&answer).map_err(|error| format!("the server's answer is no JSON ({error}): {answer}"))
}
