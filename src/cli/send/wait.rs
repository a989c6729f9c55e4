//! `chatserver send --wait`: every text has a receipt, or it is told which has none.
//!
//! One thread: it sends, and waits for the receipt of the oldest text. Messages that arrive are left to the next login: nothing in here may ask
//! the client for them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::super::connection::{Reconnect, exit, exit_code, fail, login_failure};
use super::{Args, read_lines};
use crate::client::{Client, ClientError, Connect, Level, MAX_UNRECEIPTED, Receipt, SessionState, Unnumbered};
use crate::language::{Language, say};
use crate::protocol::{Reason, Status};
use crate::terminal::{escape, input_failure};

/// `--timeout` unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest deadline of one login, one write.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the wait for a receipt looks whether there is another line.
const LINE_CHECK: Duration = Duration::from_millis(50);

/// Runs the command. `text`: the only one; `None` = the lines of standard input.
pub(super) fn run(args: &Args, text: Option<String>, language: Language) -> ExitCode {
    let timeout = args.timeout.unwrap_or(TIMEOUT);
    let deadline = Instant::now() + timeout;
    let connect = match args.connection.connect() {
        Ok(connect) => connect.level(Level::Two).timeout(timeout.min(STEP_TIMEOUT)),
        Err(why) => return fail(&why, exit::START),
    };
    let client = match connect.login(&args.name) {
        Ok(client) => client,
        Err(error) => return fail(&login_failure(&error, language), exit_code(&error)),
    };
    let ping_at = Instant::now() + client.ping_interval();
    let mut waiting = Waiting {
        connect,
        link: Link::Up(Box::new(client)),
        reconnect: Reconnect::after_login(),
        ping_at,
        unanswered: VecDeque::new(),
        early: VecDeque::new(),
        to: &args.to,
        timeout,
        deadline,
        refused: false,
        language,
    };
    let input = match text {
        Some(text) => waiting.send(&text).and_then(|()| waiting.finish()).map(|()| None),
        None => waiting.send_lines(&read_lines()),
    };
    waiting.leave(input)
}

/// The connection, or what remains of it.
enum Link {
    Up(Box<Client>),
    Down(SessionState),
}

/// Why to stop before the end.
enum Stop {
    /// A text has no receipt.
    Timeout,
    /// The server cannot do it.
    Error(ClientError),
}

struct Waiting<'a> {
    connect: Connect,
    link: Link,
    reconnect: Reconnect,
    ping_at: Instant,
    /// The numbers of the texts that have no line on standard output yet, in order.
    unanswered: VecDeque<u64>,
    /// Receipts that came before a loss, for texts that were not the oldest.
    early: VecDeque<Receipt>,
    to: &'a str,
    timeout: Duration,
    /// Counts while a text has no receipt.
    deadline: Instant,
    /// One of the texts was.
    refused: bool,
    language: Language,
}

impl Waiting<'_> {
    /// Sends the lines as they come, and prints what becomes of them. Gives the error that ended the input, if it was one.
    fn send_lines(&mut self, lines: &Receiver<io::Result<String>>) -> Result<Option<io::Error>, Stop> {
        loop {
            let line = match self.unanswered.len() {
                0 => self.wait_for_line(lines),
                MAX_UNRECEIPTED.. => Err(TryRecvError::Empty),
                _ => lines.try_recv(),
            };
            match line {
                Ok(Ok(text)) => {
                    self.deadline = Instant::now() + self.timeout;
                    self.send(&text)?;
                }
                Ok(Err(error)) => return self.finish().map(|()| Some(error)),
                Err(TryRecvError::Empty) => self.take_receipt(LINE_CHECK)?,
                Err(TryRecvError::Disconnected) => return self.finish().map(|()| None),
            }
        }
    }

    /// Nothing else is to be done: waits for the next line as long as the server needs no ping.
    fn wait_for_line(&mut self, lines: &Receiver<io::Result<String>>) -> Result<io::Result<String>, TryRecvError> {
        let Link::Up(client) = &mut self.link else {
            // The next line brings a new login.
            return lines.recv().map_err(|_| TryRecvError::Disconnected);
        };
        match lines.recv_timeout(client.ping_interval()) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Disconnected) => Err(TryRecvError::Disconnected),
            Err(RecvTimeoutError::Timeout) => {
                if client.ping().is_err() {
                    self.lose();
                }
                Err(TryRecvError::Empty)
            }
        }
    }

    /// Waits until every text has its line.
    fn finish(&mut self) -> Result<(), Stop> {
        while !self.unanswered.is_empty() {
            self.take_receipt(self.timeout)?;
        }
        Ok(())
    }

    fn send(&mut self, text: &str) -> Result<(), Stop> {
        let msg_id = self.number(text)?;
        self.unanswered.push_back(msg_id);
        Ok(())
    }

    /// Sends a text, and gives its number. When the connection is lost over it, the next one sends it again.
    fn number(&mut self, text: &str) -> Result<u64, Stop> {
        let to = self.to;
        match self.connected()?.send_numbered(to, text) {
            Ok(msg_id) => Ok(msg_id),
            Err(error) => {
                self.lose();
                match &self.link {
                    Link::Down(state) if !matches!(error, ClientError::NotNumbered { .. }) => {
                        // There was room, so it has got its number.
                        state.unreceipted().last().map(|message| message.msg_id).ok_or(Stop::Error(error))
                    }
                    _ => Err(Stop::Error(error)),
                }
            }
        }
    }

    /// Waits for the oldest text's receipt, `wait` at most, and prints what it says.
    fn take_receipt(&mut self, wait: Duration) -> Result<(), Stop> {
        let Some(msg_id) = self.unanswered.front().copied() else { return Ok(()) };
        let wait = wait.min(self.deadline.saturating_duration_since(Instant::now()));
        if wait.is_zero() {
            return Err(Stop::Timeout);
        }
        let received = match self.early.iter().position(|receipt| receipt.msg_id == msg_id) {
            Some(nth) => Ok(self.early.swap_remove_back(nth)),
            None => self.wait_for_receipt(msg_id, wait)?,
        };
        match received {
            Ok(Some(receipt)) => self.answer(receipt),
            Ok(None) => Ok(()),
            Err(_) => {
                self.lose();
                Ok(())
            }
        }
    }

    fn wait_for_receipt(&mut self, msg_id: u64, wait: Duration) -> Result<Result<Option<Receipt>, ClientError>, Stop> {
        self.connected()?;
        let ping_at = self.ping_at;
        let Link::Up(client) = &mut self.link else { return Ok(Ok(None)) };
        if Instant::now() >= ping_at {
            self.ping_at = Instant::now() + client.ping_interval();
            if let Err(lost) = client.ping() {
                return Ok(Err(lost));
            }
        }
        Ok(client.wait_for_receipt(msg_id, wait.min(self.ping_at.saturating_duration_since(Instant::now()))))
    }

    /// Prints what became of the oldest text.
    fn answer(&mut self, receipt: Receipt) -> Result<(), Stop> {
        let line = match (receipt.status, receipt.message) {
            (Status::Stored, _) => "stored".to_owned(),
            (Status::Delivered, _) => "delivered".to_owned(),
            // Another program of this name took the number while we were away. So this text was not taken: it gets another number.
            (Status::Refused, Some(message)) if receipt.reason == Some(Reason::IdUsed) => {
                self.unanswered[0] = self.number(&message.text)?;
                return Ok(());
            }
            (Status::Refused, _) => {
                self.refused = true;
                let words =
                    receipt.reason.map(|reason| reason.describe(self.language)).filter(|words| !words.is_empty());
                format!("refused: {}", escape(&words.or(receipt.text).unwrap_or_default()))
            }
        };
        self.unanswered.pop_front();
        // Whoever closed standard output still wants the texts sent.
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        Ok(())
    }

    /// The connection is lost; what has no receipt is not, and neither are the receipts that came.
    fn lose(&mut self) {
        if let Link::Up(client) = &mut self.link {
            for msg_id in &self.unanswered {
                self.early.extend(client.wait_for_receipt(*msg_id, Duration::ZERO).unwrap_or_default());
            }
        }
        if let Link::Up(client) = std::mem::replace(&mut self.link, Link::Down(SessionState::default())) {
            self.link = Link::Down(client.into_state());
        }
    }

    /// The connection, made again if it is lost: that sends everything again that has no receipt.
    fn connected(&mut self) -> Result<&mut Client, Stop> {
        let deadline = self.deadline;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Link::Down(state) = &mut self.link {
            std::thread::sleep(self.reconnect.next_pause().min(left()));
            if left().is_zero() {
                return Err(Stop::Timeout);
            }
            let connect = self.connect.clone().timeout(left().min(STEP_TIMEOUT));
            match connect.resume(std::mem::take(state)) {
                Ok(client) => {
                    self.ping_at = Instant::now() + client.ping_interval();
                    self.link = Link::Up(Box::new(client));
                    self.reconnect = Reconnect::after_login();
                }
                // Also when it is a refusal: a server that is short of memory or disk recovers.
                Err(failed) => *state = failed.0,
            }
        }
        match &mut self.link {
            Link::Up(client) if client.level() == Level::Two => Ok(client),
            _ => Err(Stop::Error(ClientError::NotNumbered { why: Unnumbered::LevelOne })),
        }
    }

    fn leave(self, input: Result<Option<io::Error>, Stop>) -> ExitCode {
        let language = self.language;
        match input {
            Ok(input) => {
                if let Link::Up(client) = self.link {
                    // Everything has a receipt: whether the server says good-bye changes nothing.
                    let _ = client.leave();
                }
                match input {
                    Some(error) => fail(&input_failure(&error, language), exit::INPUT),
                    None if self.refused => ExitCode::from(exit::REFUSED),
                    None => ExitCode::SUCCESS,
                }
            }
            Err(Stop::Timeout) => {
                let count = self.unanswered.len();
                let why = say!(
                    language,
                    "no receipt in time for {count} of the texts: it is not known whether they will arrive",
                    "{count} 条文本没有及时收到回执：无法确定是否会送达"
                );
                fail(&why, exit::TIMEOUT)
            }
            Err(Stop::Error(error)) => fail(&escape(&error.describe(language)), exit_code(&error)),
        }
    }
}
