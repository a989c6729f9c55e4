//! What the client commands share: where the server is, the key, exit codes, and when to try again.
//!
//! It must not know what a command sends or prints.

use std::env::VarError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::client::{Client, ClientError, Connect, Level, Notice, SessionState};
use crate::config::Key;
use crate::language::{Language, say};
use crate::protocol::{NameError, NoticeCode, UserName};
use crate::terminal::{escape, print_note};

/// Where the key is when no file is named. Not an option with a default of clap's: `--help` would show its value.
const KEY_VARIABLE: &str = "CHATSERVER_KEY";

/// A connection that ends sooner after its login was most likely taken over by another program with the same name.
/// Trying again at once would have the two throw each other out for ever.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(5);

/// Exit codes of the client commands, in one place with their meaning.
pub mod exit {
    /// It could not start: address, key, no connection.
    pub const START: u8 = 1;
    /// The server refused.
    pub const REFUSED: u8 = 3;
    /// It took too long.
    pub const TIMEOUT: u8 = 4;
    /// Standard input could not be read.
    pub const INPUT: u8 = 5;
}

/// Where the server is and the key that it shares with its clients.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectionArgs {
    /// The server
    #[arg(long, value_name = "HOST:PORT", env = "CHATSERVER_ADDR", default_value = "127.0.0.1:8989")]
    addr: String,

    /// File with the pre-shared key: 16, 24 or 32 bytes of text, or "hex:" and twice as many digits.
    /// Without it the environment variable CHATSERVER_KEY counts, and without that the published key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl ConnectionArgs {
    /// Where the server is.
    #[cfg(feature = "tools")]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Reads the key. Nothing is connected yet.
    ///
    /// # Errors
    /// A sentence for the user: the key cannot be read or has an illegal length. Exit with [`exit::START`].
    pub fn connect(&self) -> Result<Connect, String> {
        Ok(Client::connect(self.addr.as_str(), self.key()?.bytes()))
    }

    /// The key.
    ///
    /// # Errors
    /// As [`ConnectionArgs::connect`].
    pub fn key(&self) -> Result<Key, String> {
        read_key(self.key_file.as_deref())
    }

    /// Connects and logs in at level 1, or says why not.
    ///
    /// # Errors
    /// The exit code; the reason is printed already.
    pub fn login(&self, name: &str, language: Language) -> Result<Client, ExitCode> {
        let connect = self.connect().map_err(|why| fail(&why, exit::START))?;
        connect.login(name).map_err(|error| fail(&login_failure(&error, language), exit_code(&error)))
    }

    /// Connects and logs in at level 2, or at level 1 where the server has no other, or says why not.
    ///
    /// # Errors
    /// The exit code; the reason is printed already.
    pub fn resume(&self, state: SessionState, language: Language) -> Result<(Connect, Client), ExitCode> {
        let connect = self.connect().map_err(|why| fail(&why, exit::START))?.level(Level::Two);
        match connect.resume(state) {
            Ok(client) => Ok((connect, client)),
            Err(failed) => Err(fail(&login_failure(&failed.1, language), exit_code(&failed.1))),
        }
    }
}

/// The key of this file, or of the environment, or the published one.
///
/// # Errors
/// As [`ConnectionArgs::connect`].
pub fn read_key(file: Option<&Path>) -> Result<Key, String> {
    Ok(match (file, std::env::var(KEY_VARIABLE)) {
        (Some(path), _) => Key::read(path).map_err(|fault| fault.to_string())?,
        (None, Ok(text)) => Key::parse(&text).map_err(|fault| format!("{KEY_VARIABLE}: {fault}"))?,
        (None, Err(VarError::NotPresent)) => Key::published(),
        (None, Err(VarError::NotUnicode(_))) => {
            return Err(format!("{KEY_VARIABLE} is not UTF-8; write the key as \"hex:\" and digits"));
        }
    })
}

/// Checks a recipient's name here, because a server of level 1 cannot tell a sender that it is illegal.
///
/// # Errors
/// What is wrong with it.
pub fn recipient_name(name: &str) -> Result<String, NameError> {
    UserName::parse(name).map(|_| name.to_owned())
}

/// Prints why and gives the exit code.
pub fn fail(why: &str, code: u8) -> ExitCode {
    print_note(why);
    ExitCode::from(code)
}

/// The exit code that an error means.
pub fn exit_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Refused { .. } => exit::REFUSED,
        ClientError::Timeout { .. } => exit::TIMEOUT,
        _ => exit::START,
    }
}

/// Why a login failed, and what to do about it. The server's own words are escaped.
pub fn login_failure(error: &ClientError, language: Language) -> String {
    let why = error.describe(language);
    let why = escape(&why);
    match error {
        ClientError::Connect { .. } => say!(
            language,
            "{why} (is the server running there? `chatserver` starts one; --addr says where)",
            "{why}（那里的服务器在运行吗？`chatserver` 启动服务器，--addr 指定地址）"
        ),
        ClientError::Closed { .. } | ClientError::Protocol(_) => say!(
            language,
            "{why} instead of answering the login (do both sides use the same key? --key-file, CHATSERVER_KEY; or it is full, drained or stopping)",
            "{why}，而没有应答登录（两边的密钥一致吗？见 --key-file、CHATSERVER_KEY；也可能是服务器已满、正在排空或停止）"
        ),
        _ => why.into_owned(),
    }
}

/// What the server has said before it closes, or goes on, in words. Those of a code that is not known here are the server's own, escaped.
pub fn notice_words(notice: &Notice, name: &str, language: Language) -> String {
    match notice.code {
        NoticeCode::Replaced => {
            let name = escape(name);
            say!(language, "another program has logged in as {name}", "另一个程序也以 {name} 登录了")
        }
        NoticeCode::LoginTimeout => say!(language, "the login took too long", "登录超时"),
        NoticeCode::Idle => say!(language, "the server has heard nothing for too long", "服务器太久没有收到数据"),
        NoticeCode::BadPacket => {
            say!(language, "the server could not read what was sent to it", "服务器无法解读收到的数据")
        }
        NoticeCode::ForgedSender => say!(
            language,
            "the server got a message whose sender is somebody else",
            "服务器收到了发送者与登录名不符的消息"
        ),
        NoticeCode::Rate => say!(language, "too much was sent in too short a time", "发送过于频繁"),
        NoticeCode::Stopping => say!(language, "the server is stopping", "服务器正在停止"),
        NoticeCode::TooSlow => {
            say!(language, "what was ready here was not taken in fast enough", "接收速度过慢，跟不上服务器的发送")
        }
        NoticeCode::Overloaded => say!(language, "the server is overloaded", "服务器过载"),
        NoticeCode::Kicked => say!(language, "an operator has ended the connection", "管理员断开了连接"),
        NoticeCode::AckTooHigh => say!(
            language,
            "the server's numbers are behind ours: an older database was restored there, most likely",
            "服务器的编号落后于本地：服务器很可能恢复了较旧的数据库"
        ),
        NoticeCode::Other(code) => {
            let text = escape(&notice.text);
            say!(language, "the server says (code {code}): {text}", "服务器通知（代码 {code}）：{text}")
        }
    }
}

/// When to try again after a connection was lost.
#[derive(Debug)]
pub struct Reconnect {
    logged_in_at: Option<Instant>,
    pause: Duration,
}

impl Reconnect {
    const FIRST_PAUSE: Duration = Duration::from_secs(1);
    const LONGEST_PAUSE: Duration = Duration::from_secs(30);

    /// As after a login just now.
    pub fn after_login() -> Reconnect {
        Reconnect { logged_in_at: Some(Instant::now()), pause: Reconnect::FIRST_PAUSE }
    }

    /// The connection of the last login has ended: was it taken over, most likely?
    pub fn taken_over(&mut self) -> bool {
        self.logged_in_at.take().is_some_and(|at| at.elapsed() < TAKEOVER_WITHIN)
    }

    /// How long to wait before the next attempt: 1 s, 2 s, 4 s … 30 s.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(Reconnect::LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut reconnect = Reconnect::after_login();
        let pauses: Vec<u64> = (0..7).map(|_| reconnect.next_pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(reconnect.taken_over());
        assert!(!reconnect.taken_over(), "only a login can be taken over");
    }
}
