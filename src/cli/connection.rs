//! What the client commands share: where the server is, the key, exit codes, and when to try again.
//!
//! It must not know what a command sends or prints.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::terminal::{escape, print_note};
use crate::client::{Client, ClientError, Connect};
use crate::protocol::{Cipher, PUBLISHED_KEY, UserName};

/// Pause between two pings: four in the server's default read timeout of 120 s.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);

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
    /// Reads the key. Nothing is connected yet.
    ///
    /// # Errors
    /// A sentence for the user: the key cannot be read or has an illegal length. Exit with [`exit::START`].
    pub fn connect(&self) -> Result<Connect, String> {
        let key = match (&self.key_file, std::env::var_os("CHATSERVER_KEY")) {
            (Some(path), _) => read_key_file(path)?,
            (None, Some(text)) => parse_key(text.as_encoded_bytes()).map_err(|why| format!("CHATSERVER_KEY: {why}"))?,
            (None, None) => PUBLISHED_KEY.to_vec(),
        };
        Ok(Client::connect(self.addr.as_str(), &key))
    }

    /// Connects and logs in, or says why not.
    ///
    /// # Errors
    /// The exit code; the reason is printed already.
    pub fn login(&self, name: &str) -> Result<(Connect, Client), ExitCode> {
        let connect = self.connect().map_err(|why| fail(&why, exit::START))?;
        match connect.login(name) {
            Ok(client) => Ok((connect, client)),
            Err(error) => Err(fail(&login_failure(&error), exit_code(&error))),
        }
    }
}

fn read_key_file(path: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path).map_err(|error| format!("cannot read the key file {}: {error}", path.display()))?;
    parse_key(&text).map_err(|why| format!("key file {}: {why}", path.display()))
}

/// A key as people write it: its bytes with an optional end of line, or `hex:` and digits.
fn parse_key(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let key = match text.strip_prefix(b"hex:") {
        Some(digits) => {
            parse_hex(digits).ok_or("after \"hex:\" only an even number of hexadecimal digits may follow")?
        }
        None => text.to_vec(),
    };
    match Cipher::new(&key) {
        Ok(_) => Ok(key),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    digits
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u8::try_from(value(high)? << 4 | value(low)?).ok(),
            _ => None,
        })
        .collect()
}

/// Checks a recipient's name here, because a server of level 1 cannot tell a sender that it is illegal.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn recipient_name(name: &str) -> Result<String, String> {
    UserName::parse(name).map(|_| name.to_owned()).map_err(|error| error.to_string())
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
pub fn login_failure(error: &ClientError) -> String {
    let why = escape(&error.to_string()).into_owned();
    match error {
        ClientError::Connect { .. } => {
            format!("{why} (is the server running there? `chatserver` starts one; --addr says where)")
        }
        ClientError::Closed { .. } | ClientError::Protocol(_) => {
            format!("{why} instead of answering the login (do both sides use the same key? --key-file, CHATSERVER_KEY)")
        }
        _ => why,
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

/// A length of time as people write it: `500ms`, `30s`, `30 s`, `2 min`, `1 h`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number and a unit, as in 30s, 500ms, 2min, 1h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a whole number before the unit, as in 30s".to_owned())?;
    number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_people_write_them() {
        assert_eq!(parse_key(b"12345abcdef67890").unwrap(), PUBLISHED_KEY);
        assert_eq!(parse_key(b"12345abcdef67890\n").unwrap(), PUBLISHED_KEY);
        assert_eq!(parse_key(b"12345abcdef67890\r\n").unwrap(), PUBLISHED_KEY);
        assert_eq!(parse_key(b"hex:31323334356162636465663637383930").unwrap(), PUBLISHED_KEY);
        assert_eq!(parse_key(&[7; 32]).unwrap(), [7; 32]);
        assert!(parse_key(b"hex:3132333435616263646566363738393").unwrap_err().contains("hexadecimal"));
        assert!(parse_key(b"hex:3132333435616263646566363738393g").unwrap_err().contains("hexadecimal"));
        assert!(parse_key(b"too short").unwrap_err().contains("16, 24 or 32"));
        assert!(parse_key(b"").is_err());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2 min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["30", "", "s", "-1s", "1.5s", "18446744073709551615h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut reconnect = Reconnect::after_login();
        let pauses: Vec<u64> = (0..7).map(|_| reconnect.next_pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(reconnect.taken_over());
        assert!(!reconnect.taken_over(), "only a login can be taken over");
    }
}
