//! `chatserver listen`: what arrives for a user, a line each, for scripts.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::connection::{ConnectionArgs, Reconnect, exit, exit_code, fail, login_failure, notice_words};
use super::heartbeat::Heartbeat;
use crate::client::{Client, ClientError, Connect, Event, Incoming, Level, SessionState, StateError};
use crate::config::parse_duration;
use crate::language::{Language, say};
use crate::protocol::NoticeCode;
use crate::terminal::{escape, escape_json, print_note, utc};

/// How often the wait for a message looks whether Ctrl-C was pressed.
const INTERRUPT_CHECK: Duration = Duration::from_millis(200);

const EXIT_CODES: &str = "Exit codes:
  0  N messages printed, or interrupted with Ctrl-C
  1  no connection at the start, or the file of --state cannot be used
  3  refused by the server, or taken over by another login
  4  --timeout has passed";

/// Print what arrives for a user, a line per message
///
/// A line is "TIME FROM: TEXT" with the sender's time in UTC and control characters escaped. With --json it is an object
/// {from, to, text, time, msg_id, seq}: time in Unix seconds; msg_id and seq are null at level 1 of the protocol.
///
/// Listening as NAME closes a connection that NAME has elsewhere. When the connection is lost it is made again, after 1 s, 2 s,
/// 4 s and so on up to 30 s, without an end. When another login of the same name takes over, listen stops, so that two programs do
/// not throw each other out for ever. A server of level 1 does not tell: there a connection that ends within 5 s of its login
/// counts as taken over.
///
/// At level 2 each message is acknowledged when its line is written, and none is printed twice, whatever breaks. With --state that
/// holds across restarts of listen, too: FILE says what was printed, and is written before each acknowledgement.
///
/// At level 1, and with --count, what has arrived beyond N when the server takes the logout is delivered, but not printed; standard
/// error says how many there were.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct Args {
    /// Whose messages: log in with this name
    #[arg(long = "as", value_name = "NAME")]
    name: String,

    /// JSON Lines instead of text
    #[arg(long)]
    json: bool,

    /// Stop after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop after this time in all, with exit code 4: 30s, 500ms, 2min, 1h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,

    /// Remember in this file what was printed, so that a restart does not print it again. Made when it is not there; one for each NAME
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let language = Language::of_environment();
    let state = match &args.state {
        None => SessionState::new(&args.name),
        Some(file) => match SessionState::load_or_new(file, &args.name) {
            Ok(state) => state,
            Err(error) => return fail(&error.describe(language), exit::START),
        },
    };
    let mut listener = Listener {
        remaining: args.count,
        json: args.json,
        deadline: args.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        interrupted: interrupt_flag(),
        state_file: args.state,
        language,
    };
    let (connect, mut client) = match args.connection.resume(state, language) {
        Ok(connected) => connected,
        Err(code) => return code,
    };
    let mut reconnect = Reconnect::after_login();
    loop {
        let lost = match listener.listen(&mut client) {
            Ok(End::Replaced(why)) => return listener.give_way(client, &why),
            Ok(end) => return listener.leave(client, &end),
            Err(ClientError::State(error)) => return fail(&error.describe(language), exit::START),
            Err(error) => error.describe(language),
        };
        if client.level() == Level::One && reconnect.taken_over() {
            let name = escape(&args.name);
            let why = say!(
                language,
                "{lost} right after the login: most likely another program has logged in as {name}",
                "刚登录就断开（{lost}）：很可能另一个程序也以 {name} 登录了"
            );
            return fail(&why, exit::REFUSED);
        }
        print_note(&say!(language, "{lost}; connecting again", "{lost}；正在重新连接"));
        let state = client.into_state();
        if let Err(error) = listener.save(&state) {
            return fail(&error.describe(language), exit::START);
        }
        client = match listener.login_again(&connect, state, &mut reconnect) {
            Ok(client) => client,
            Err(End::Timeout) => return ExitCode::from(exit::TIMEOUT),
            Err(_) => return ExitCode::SUCCESS,
        };
        reconnect = Reconnect::after_login();
        print_note(language.pick("connected again", "已重新连接"));
    }
}

/// Why to stop.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// All messages asked for are printed.
    Count,
    /// `--timeout` has passed.
    Timeout,
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads our output any more.
    Output,
    /// Another login has taken over; the words for it.
    Replaced(String),
}

struct Listener {
    /// Messages still to be printed; `None` = no limit.
    remaining: Option<u64>,
    json: bool,
    deadline: Option<Instant>,
    interrupted: Arc<AtomicBool>,
    state_file: Option<PathBuf>,
    language: Language,
}

impl Listener {
    /// Prints what arrives until there is a reason to stop; `Err` = the connection is lost.
    fn listen(&mut self, client: &mut Client) -> Result<End, ClientError> {
        if let Some(file) = &self.state_file {
            client.keep_in(file);
        }
        let mut heartbeat = Heartbeat::new(client);
        loop {
            if let Some(end) = self.end() {
                return Ok(end);
            }
            let event = client.next_event(self.wait())?;
            match &event {
                Some(Event::Message(message)) => {
                    self.remaining = self.remaining.map(|left| left - 1);
                    if print(&mut io::stdout().lock(), message, self.json).is_err() {
                        return Ok(End::Output);
                    }
                }
                Some(Event::Notice(notice)) => {
                    let words = notice_words(notice, client.name(), self.language);
                    if notice.code == NoticeCode::Replaced {
                        return Ok(End::Replaced(words));
                    }
                    print_note(&words);
                }
                Some(Event::Receipt(_) | Event::Pong(_) | Event::Custom(_)) | None => {}
            }
            heartbeat.beat(client)?;
        }
    }

    fn end(&self) -> Option<End> {
        if self.remaining == Some(0) {
            Some(End::Count)
        } else if self.interrupted.load(Ordering::Relaxed) {
            Some(End::Interrupted)
        } else if self.deadline.is_some_and(|at| Instant::now() >= at) {
            Some(End::Timeout)
        } else {
            None
        }
    }

    /// Until something other than a message may want attention.
    fn wait(&self) -> Duration {
        self.deadline.map_or(INTERRUPT_CHECK, |at| at.saturating_duration_since(Instant::now()).min(INTERRUPT_CHECK))
    }

    /// Tries until it succeeds or there is a reason to stop.
    fn login_again(
        &self,
        connect: &Connect,
        mut state: SessionState,
        reconnect: &mut Reconnect,
    ) -> Result<Client, End> {
        loop {
            let next_attempt = Instant::now() + reconnect.next_pause();
            while Instant::now() < next_attempt {
                if let Some(end) = self.end() {
                    return Err(end);
                }
                std::thread::sleep(self.wait());
            }
            match connect.resume(state) {
                Ok(client) => return Ok(client),
                Err(failed) => {
                    let error;
                    (state, error) = *failed;
                    print_note(&login_failure(&error, self.language));
                }
            }
        }
    }

    /// Logs out politely and says what can no longer be printed.
    fn leave(&self, client: Client, end: &End) -> ExitCode {
        // What was given out last was not printed: it must come again. At level 1 nothing does.
        if *end == End::Output && client.level() == Level::Two {
            return ExitCode::SUCCESS;
        }
        let (state, left) = client.leave();
        if let Err(error) = self.save(&state) {
            return fail(&error.describe(self.language), exit::START);
        }
        let arrived = match left {
            Ok(arrived) => arrived,
            Err(error) if *end == End::Count => return fail(&error.describe(self.language), exit_code(&error)),
            Err(_) => Vec::new(),
        };
        match end {
            End::Count | End::Output if !arrived.is_empty() => {
                let more = arrived.len();
                print_note(&say!(
                    self.language,
                    "{more} more had arrived and are not printed",
                    "另有 {more} 条消息已到达，没有打印"
                ));
            }
            End::Count | End::Output | End::Replaced(_) => {}
            End::Timeout | End::Interrupted => {
                let _ = arrived.iter().try_for_each(|message| print(&mut io::stdout().lock(), message, self.json));
            }
        }
        if *end == End::Timeout { ExitCode::from(exit::TIMEOUT) } else { ExitCode::SUCCESS }
    }

    /// After a takeover there is nobody to say good-bye to.
    fn give_way(&self, client: Client, why: &str) -> ExitCode {
        match self.save(&client.into_state()) {
            Ok(()) => fail(why, exit::REFUSED),
            Err(error) => fail(&error.describe(self.language), exit::START),
        }
    }

    fn save(&self, state: &SessionState) -> Result<(), StateError> {
        self.state_file.as_ref().map_or(Ok(()), |file| state.save(file))
    }
}

/// Set when Ctrl-C is pressed.
fn interrupt_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    // Without a handler Ctrl-C still ends the program, just without a logout.
    let _ = ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed));
    flag
}

/// A message as an object of `--json`.
#[derive(Serialize)]
struct JsonLine<'a> {
    from: &'a str,
    to: &'a str,
    text: &'a str,
    time: i64,
    msg_id: Option<u64>,
    seq: Option<u64>,
}

/// Writes a message as one line and flushes.
///
/// # Errors
/// Nobody reads `out` any more.
pub(super) fn print(out: &mut impl Write, message: &Incoming, json: bool) -> io::Result<()> {
    let Incoming { from, to, text, time, msg_id, seq } = message;
    if json {
        let line = serde_json::to_string(&JsonLine { from, to, text, time: *time, msg_id: *msg_id, seq: *seq })?;
        writeln!(out, "{}", escape_json(&line))?;
    } else {
        writeln!(out, "{} {}: {}", utc(*time), escape(from), escape(text))?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool) -> String {
        let message = Incoming {
            from: "[38121920]--> 7".into(),
            to: "小红".into(),
            text: "你好\n\"\x1b[2J".into(),
            time: 1_407_938_400,
            ..Incoming::default()
        };
        let mut out = Vec::new();
        print(&mut out, &message, json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(printed(false), "2014-08-13T14:00:00Z [38121920]--> 7: 你好\\n\"\\u{1b}[2J\n");
        let json = "{\"from\":\"[38121920]--> 7\",\"to\":\"小红\",\"text\":\"你好\\n\\\"\\u001b[2J\",\
                    \"time\":1407938400,\"msg_id\":null,\"seq\":null}\n";
        assert_eq!(printed(true), json);
    }
}
