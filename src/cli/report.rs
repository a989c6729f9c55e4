//! `chatserver report`: the health report of a running server, now.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::{DataArg, ctl, fail, print};
use crate::language::Language;

/// Print the present health report of a running server
///
/// It tells of the time since the last report that was mailed, or since the start. Printing it sends nothing and begins no new period.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DataArg,

    /// Send it by mail now, as the server would by itself
    #[arg(long, conflicts_with_all = ["html", "eml", "language"])]
    send: bool,

    /// Write it to FILE as a page for a browser, with its chart
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write it to FILE as the mail that would be sent
    #[arg(long, value_name = "FILE")]
    eml: Option<PathBuf>,

    /// Its language: en or zh [default: the server's]
    #[arg(long, value_name = "LANGUAGE", value_parser = ["en", "zh"])]
    language: Option<String>,
}

/// The server reads its database for a report; three tries to send a mail take longer.
const REPORT_TIMEOUT: Duration = Duration::from_secs(60);
const SEND_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let done = if args.send { send(&args.data) } else { show(&args) };
    done.unwrap_or_else(fail)
}

fn send(data: &DataArg) -> Result<ExitCode, String> {
    let answer = ctl::ask(data, "report send", SEND_TIMEOUT)?;
    if let Some(error) = answer["error"].as_str() {
        fail(format!("the report was not sent: {error}"));
        return Ok(ExitCode::from(3));
    }
    let refused = answer["refused"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let refused: String = refused.map(|recipient| format!("not to {recipient}\n")).collect();
    let language = Language::of_environment();
    Ok(print(format!("{}\n{refused}", language.pick("The report is sent.", "报告已发送。"))))
}

fn show(args: &Args) -> Result<ExitCode, String> {
    let request = ["report"].into_iter().chain(args.language.as_deref()).collect::<Vec<_>>().join(" ");
    let answer = ctl::ask(&args.data, &request, REPORT_TIMEOUT)?;
    let part = |name: &str| {
        answer[name].as_str().ok_or_else(|| {
            let why = answer[format!("{name}_error")].as_str().or(answer["error"].as_str());
            why.unwrap_or("the server's answer has no report").to_owned()
        })
    };
    if let Some(file) = &args.html {
        write(file, part("html")?)?;
    }
    if let Some(file) = &args.eml {
        write(file, part("eml")?)?;
    }
    if args.html.is_some() || args.eml.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(print(part("text")?))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{} cannot be written ({error})", file.display()))
}
