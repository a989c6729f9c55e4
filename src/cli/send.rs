//! `chatserver send`: one text, or many, for scripts. With `--wait` see `wait`.

mod wait;

use std::io::{self, BufRead, Read};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use super::connection::{ConnectionArgs, exit, exit_code, fail, recipient_name};
use super::listen;
use crate::client::{Client, ClientError};
use crate::config::parse_duration;
use crate::language::{Language, say};
use crate::terminal::input_failure;

/// Lines read ahead of the network, and most that are written at once.
const BATCH_LINES: usize = 256;

const EXIT_CODES: &str = "Exit codes:
  0  sent, and read by the server; with --wait: every text has a receipt
  1  no connection, or it was lost before the server had read everything; with --wait: the server gives no receipts
  3  the server refused the login, or with --wait a text
  4  the server did not answer in time; with --wait: a text has no receipt
  5  standard input could not be read";

/// Send a text to a user and exit
///
/// Success means that the server has read everything. It keeps the text for a recipient who is not there.
///
/// With --wait success means more: every text is on the server's disk, or has been taken in by its recipient. For each text, in order,
/// a line says which: "stored" or "delivered", or "refused: " and why. A lost connection is made again, and what has no receipt is sent
/// again; no text arrives twice at a recipient of level 2.
///
/// Sending as NAME logs in as NAME: a connection that NAME has elsewhere is closed, and messages that wait for NAME are
/// delivered here. They are printed on standard output as `listen` prints them, so that they are not lost; with --wait they stay where
/// they are. Better give a script a name of its own.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct Args {
    /// Who sends: log in with this name
    #[arg(long = "as", value_name = "NAME")]
    name: String,

    /// Who gets it
    #[arg(long, value_name = "NAME", value_parser = recipient_name)]
    to: String,

    /// The text; "-" takes it from standard input, all of it as one text, without the line end at its end
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: String,

    /// With "-": every line of standard input is a text of its own, sent as it is read
    #[arg(long)]
    lines: bool,

    /// Wait for the receipt of every text
    #[arg(long)]
    wait: bool,

    /// With --wait: how long at most, 30s unless told otherwise: 500ms, 2min. With --lines, since the last line
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    timeout: Option<Duration>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let language = Language::of_environment();
    if args.lines && args.text != "-" {
        let why = language
            .pick("--lines reads standard input: write - as the text", "--lines 读取标准输入：请把文本参数写成 -");
        return fail(why, 2);
    }
    // Read first: what cannot be read must not close another connection of that name.
    let text = match (args.lines, args.text.as_str()) {
        (true, _) => None,
        (false, "-") => match read_text() {
            Ok(text) => Some(text),
            Err(error) => return fail(&input_failure(&error, language), exit::INPUT),
        },
        (false, text) => Some(text.to_owned()),
    };
    if args.wait {
        return wait::run(&args, text, language);
    }
    let mut client = match args.connection.login(&args.name, language) {
        Ok(client) => client,
        Err(code) => return code,
    };
    let sent = match text {
        Some(text) => client.send(&args.to, &text).map(|()| None),
        None => send_lines(&mut client, &args.to, &read_lines()),
    };
    let input = match sent {
        Ok(input) => input,
        Err(error) => return send_failure(&error, language),
    };
    match client.logout() {
        Ok(arrived) => {
            let _ = arrived.iter().try_for_each(|message| listen::print(&mut io::stdout().lock(), message, false));
        }
        Err(error) => return send_failure(&error, language),
    }
    input.map_or(ExitCode::SUCCESS, |error| fail(&input_failure(&error, language), exit::INPUT))
}

/// All of standard input, without one line end at its end.
fn read_text() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(without_line_end(text))
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// The lines of standard input, from a thread that waits for them: the connection needs its pings meanwhile. Ends with the input,
/// or with its first error.
fn read_lines() -> Receiver<io::Result<String>> {
    let (to_sender, lines) = mpsc::sync_channel(BATCH_LINES);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let failed = line.is_err();
            if to_sender.send(line).is_err() || failed {
                break;
            }
        }
    });
    lines
}

/// Sends line by line, what is there already in one write. Gives the error that ended the input, if it was one.
fn send_lines(
    client: &mut Client,
    to: &str,
    lines: &Receiver<io::Result<String>>,
) -> Result<Option<io::Error>, ClientError> {
    loop {
        let first = match lines.recv_timeout(client.ping_interval()) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                client.ping()?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        };
        for line in std::iter::once(first).chain(lines.try_iter().take(BATCH_LINES)) {
            match line {
                Ok(text) => client.queue(to, &text),
                Err(error) => return client.flush().map(|()| Some(error)),
            }
        }
        client.flush()?;
    }
}

fn send_failure(error: &ClientError, language: Language) -> ExitCode {
    let why = error.describe(language);
    let why = say!(
        language,
        "{why}; it is not known whether the server has read everything",
        "{why}；无法确定服务器是否已读取全部内容"
    );
    fail(&why, exit_code(error))
}
