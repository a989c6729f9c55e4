//! What the server needs to know to send mail.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secret::read_secret;

/// Whom the server writes to, and through which SMTP server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailConfig {
    /// The operators; nobody = no mail is sent.
    pub to: Vec<String>,
    /// The sender's address; `None` = chatserver@ and the machine's name.
    pub from: Option<String>,
    /// The SMTP server's name or address.
    pub host: String,
    /// Its port; 0 = the usual one: 25, or 587 with STARTTLS, or 465 with TLS.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// A file with certificates, in PEM, that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The user to log in as; `None` = without login.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// How long one attempt may take in all.
    pub timeout: Duration,
}

impl MailConfig {
    /// The port in force.
    pub fn port(&self) -> u16 {
        match (self.port, self.tls) {
            (0, Tls::None) => 25,
            (0, Tls::StartTls) => 587,
            (0, Tls::Tls) => 465,
            (port, _) => port,
        }
    }
}

/// How an SMTP connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// Not at all.
    None,
    /// It begins in the clear and changes to TLS, or fails.
    #[default]
    StartTls,
    /// TLS from its first byte.
    Tls,
}

impl Tls {
    /// As in the setting `smtp_tls`.
    pub fn code(self) -> &'static str {
        match self {
            Tls::None => "none",
            Tls::StartTls => "starttls",
            Tls::Tls => "tls",
        }
    }

    /// The one with this code.
    pub fn of_code(code: &str) -> Option<Tls> {
        [Tls::None, Tls::StartTls, Tls::Tls].into_iter().find(|tls| tls.code() == code)
    }
}

/// A password. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// This one.
    pub fn new(password: &str) -> Password {
        Password(password.to_owned())
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// The file cannot be read, others can read it, or its first line is empty.
    pub fn read(path: &Path) -> Result<Password, String> {
        let bytes = read_secret("password file", path).map_err(|fault| fault.to_string())?;
        let text = String::from_utf8(bytes)
            .map_err(|_| format!("the password file {} is not UTF-8 text; save it as UTF-8", path.display()))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Password::new(line)),
            _ => Err(format!("the password file {} is empty; write the password on its first line", path.display())),
        }
    }

    /// The password itself: for the SMTP server alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_its_first_line_and_no_message_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "top secret\r\nrest\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let password = Password::read(&path).unwrap();
        assert_eq!((password.reveal(), format!("{password:?}").as_str()), ("top secret", "Password(…)"));
        std::fs::write(&path, "\n").unwrap();
        assert!(Password::read(&path).unwrap_err().ends_with("is empty; write the password on its first line"));
        assert!(Password::read(dir.path()).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn a_port_that_is_not_set_is_the_usual_one() {
        let port = |tls, port| MailConfig { tls, port, ..MailConfig::default() }.port();
        assert_eq!(
            [port(Tls::None, 0), port(Tls::StartTls, 0), port(Tls::Tls, 0), port(Tls::Tls, 9)],
            [25, 587, 465, 9]
        );
    }
}
