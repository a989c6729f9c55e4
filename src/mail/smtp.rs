//! One attempt to hand a mail to the SMTP server: name, connection, TLS, login, sender, recipients, text, within one deadline.
//!
//! Read first: RFC 5321 §3.3 (a mail transaction) and §4.5.2 (dots at the beginning of a line).

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::commands::{Auth, Data, Ehlo, Mail, Quit, Rcpt, Starttls};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter, ServerInfo};

use super::error::{Fault, MailError, Phase, Refusal, Reply};
use super::wire::Wire;
use crate::config::{MailConfig, Password, Tls};
use crate::language::{Language, say};
use crate::limits;

/// A mail that the server has taken, for one recipient at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its last answer, mostly with a number that its own log has, too.
    pub reply: Reply,
    /// The recipients who do not get it.
    pub refused: Vec<Refusal>,
}

/// How far an attempt has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The server's name has these addresses.
    Found(Vec<SocketAddr>),
    /// This one takes connections.
    Connected(SocketAddr),
    /// The connection is in TLS of this version, and the certificate is good.
    Encrypted(String),
    /// The server took the password of this user.
    LoggedIn(String),
    /// The server takes mail from this sender.
    Sender(String),
    /// The server takes mail for this recipient.
    Recipient(String),
    /// The server does not.
    Refused(Refusal),
}

impl Progress {
    /// It in words.
    pub fn describe(&self, language: Language) -> String {
        match self {
            Progress::Found(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                let addresses = addresses.join(", ");
                say!(language, "the mail server's address: {addresses}", "邮件服务器的地址：{addresses}")
            }
            Progress::Connected(address) => say!(language, "connected to {address}", "已连接到 {address}"),
            Progress::Encrypted(version) => {
                say!(language, "{version}, the certificate is good", "{version}，证书有效")
            }
            Progress::LoggedIn(user) => say!(language, "logged in as {user}", "已用 {user} 登录"),
            Progress::Sender(address) => say!(language, "sender {address}: accepted", "发件人 {address}：已接受"),
            Progress::Recipient(address) => say!(language, "recipient {address}: accepted", "收件人 {address}：已接受"),
            Progress::Refused(Refusal { address, reply }) => {
                say!(language, "recipient {address}: refused ({reply})", "收件人 {address}：被拒绝（{reply}）")
            }
        }
    }
}

/// Makes one attempt, which takes at most `config.timeout`, and the time beyond it that the system's name service takes for the server's
/// name (by default it gives up after 10 s for each of its own servers).
///
/// # Errors
/// Nobody has got the mail; [`MailError::is_transient`] says whether another attempt makes sense. After a loss behind the end of the text the
/// server may have taken it all the same, and another attempt brings it twice.
pub fn send_once(message: &Message, config: &MailConfig) -> Result<Sent, MailError> {
    send_watched(message, config, &mut |_| ())
}

/// The same, and tells how far it has come.
///
/// # Errors
/// As of [`send_once`].
pub fn send_watched(
    message: &Message,
    config: &MailConfig,
    watch: &mut dyn FnMut(Progress),
) -> Result<Sent, MailError> {
    attempt(message, config, watch).map_err(|fault| MailError { server: server(config), fault })
}

/// The server as `HOST:PORT`.
pub(super) fn server(config: &MailConfig) -> String {
    let (host, port) = (&config.host, config.port());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn attempt(message: &Message, config: &MailConfig, watch: &mut dyn FnMut(Progress)) -> Result<Sent, Fault> {
    let deadline = Instant::now() + config.timeout;
    let addresses = resolve(config)?;
    watch(Progress::Found(addresses.clone()));
    let (tcp, address) = connect(&addresses, deadline)?;
    watch(Progress::Connected(address));
    let mut wire = Wire::new(tcp, deadline);
    let sent = converse(&mut wire, message, config, watch);
    wire.hurry(limits::SMTP_QUIT_TIMEOUT);
    // Mere politeness: what was sent is sent.
    let _ = wire.exchange(Quit);
    sent
}

fn resolve(config: &MailConfig) -> Result<Vec<SocketAddr>, Fault> {
    let no_name = |why: String| Fault::NoName { host: config.host.clone(), why };
    let found = (config.host.as_str(), config.port()).to_socket_addrs().map_err(|error| no_name(error.to_string()))?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(no_name("no address".to_owned())) } else { Ok(addresses) }
}

/// The first address that takes a connection. Each may take its share of the time that is left.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<(TcpStream, SocketAddr), Fault> {
    let mut tried = Vec::new();
    let mut timed_out = false;
    for (&address, still) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(still).unwrap_or(u32::MAX);
        // A timeout of zero is not one.
        match TcpStream::connect_timeout(&address, share.max(Duration::from_millis(1))) {
            Ok(tcp) => return Ok((tcp, address)),
            Err(error) => {
                timed_out = error.kind() == std::io::ErrorKind::TimedOut;
                tried.push((address, error.to_string()));
            }
        }
    }
    Err(Fault::NoConnection { tried, timed_out })
}

fn converse(
    wire: &mut Wire,
    message: &Message,
    config: &MailConfig,
    watch: &mut dyn FnMut(Progress),
) -> Result<Sent, Fault> {
    let server = greet(wire, config)?;
    wire.tls_version().into_iter().for_each(|version| watch(Progress::Encrypted(version)));
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        log_in(wire, &server, user, password)?;
        watch(Progress::LoggedIn(user.clone()));
    }
    let refused = address(wire, &server, message, watch)?;
    let reply = hand_over(wire, message)?;
    Ok(Sent { reply, refused })
}

/// Up to where the server listens to us, in TLS if that is wanted.
fn greet(wire: &mut Wire, config: &MailConfig) -> Result<ServerInfo, Fault> {
    if config.tls == Tls::Tls {
        wire.encrypt(config)?;
    }
    wire.phase = Phase::Greeting;
    let greeting = wire.response()?;
    if !greeting.is_positive() {
        return Err(Fault::Greeting(Reply::of(&greeting)));
    }
    let server = hello(wire)?;
    if config.tls != Tls::StartTls {
        return Ok(server);
    }
    if !server.supports_feature(Extension::StartTls) {
        return Err(Fault::NoStartTls);
    }
    wire.ask(Starttls, Fault::Greeting)?;
    wire.encrypt(config)?;
    // What it offered in the clear may have been another's words.
    hello(wire)
}

fn hello(wire: &mut Wire) -> Result<ServerInfo, Fault> {
    let response = wire.ask(Ehlo::new(ClientId::default()), Fault::Greeting)?;
    ServerInfo::from_response(&response).map_err(|error| wire.not_smtp(&error.to_string()))
}

fn log_in(wire: &mut Wire, server: &ServerInfo, user: &str, password: &Password) -> Result<(), Fault> {
    wire.phase = Phase::Login;
    let mechanism = server.get_auth_mechanism(DEFAULT_MECHANISMS).ok_or(Fault::NoLogin)?;
    let credentials = Credentials::new(user.to_owned(), password.reveal().to_owned());
    let mut command = Auth::new(mechanism, credentials.clone(), None);
    // The mechanism LOGIN is asked for the user, then for the password.
    for _ in 0..3 {
        let command_now = command.map_err(|error| wire.not_smtp(&error.to_string()))?;
        let response = wire.ask(command_now, Fault::Login)?;
        if !response.has_code(334) {
            return Ok(());
        }
        command = Auth::new_from_response(mechanism, credentials.clone(), &response);
    }
    Err(wire.not_smtp("334"))
}

/// Names the sender and the recipients; gives those who are refused, when one at least is not.
fn address(
    wire: &mut Wire,
    server: &ServerInfo,
    message: &Message,
    watch: &mut dyn FnMut(Progress),
) -> Result<Vec<Refusal>, Fault> {
    wire.phase = Phase::Sender;
    let envelope = message.envelope();
    let mut parameters = Vec::new();
    if let Some(address) = envelope.from().into_iter().chain(envelope.to()).find(|address| !is_ascii(address)) {
        if !server.supports_feature(Extension::SmtpUtfEight) {
            return Err(Fault::NotAscii(address.to_string()));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    let sender = envelope.from().map(ToString::to_string).unwrap_or_default();
    wire.ask(Mail::new(envelope.from().cloned(), parameters), |reply| Fault::Sender {
        address: sender.clone(),
        reply,
    })?;
    watch(Progress::Sender(sender));
    wire.phase = Phase::Recipients;
    let mut refused = Vec::new();
    for recipient in envelope.to() {
        let response = wire.exchange(Rcpt::new(recipient.clone(), Vec::new()))?;
        if response.is_positive() {
            watch(Progress::Recipient(recipient.to_string()));
        } else {
            let refusal = Refusal { address: recipient.to_string(), reply: Reply::of(&response) };
            watch(Progress::Refused(refusal.clone()));
            refused.push(refusal);
        }
    }
    if refused.len() == envelope.to().len() { Err(Fault::Recipients(refused)) } else { Ok(refused) }
}

fn is_ascii(address: &lettre::Address) -> bool {
    AsRef::<str>::as_ref(address).is_ascii()
}

fn hand_over(wire: &mut Wire, message: &Message) -> Result<Reply, Fault> {
    wire.phase = Phase::Text;
    let go = wire.ask(Data, Fault::Text)?;
    if !go.has_code(354) {
        // Without it the text would be taken for commands.
        return Err(wire.not_smtp(&Reply::of(&go).to_string()));
    }
    wire.write(&with_end(&message.formatted()))?;
    wire.phase = Phase::Answer;
    let response = wire.response()?;
    let reply = Reply::of(&response);
    if response.is_positive() { Ok(reply) } else { Err(Fault::Text(reply)) }
}

/// The mail with a second dot before each line that begins with one, and with the dot that ends it.
fn with_end(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + 64);
    for line in mail.split_inclusive(|&byte| byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_mail_ends_it() {
        assert_eq!(with_end(b"a\r\n.\r\n.b\r\nc."), b"a\r\n..\r\n..b\r\nc.\r\n.\r\n");
        assert_eq!(with_end(b"a\n.\nb\r\n"), b"a\n..\nb\r\n.\r\n");
        assert_eq!(with_end(b""), b"\r\n.\r\n");
    }

    #[test]
    fn a_server_is_named_with_its_port() {
        let of = |host: &str, tls| server(&MailConfig { host: host.into(), tls, ..MailConfig::default() });
        assert_eq!((of("mx", Tls::StartTls), of("::1", Tls::None)), ("mx:587".into(), "[::1]:25".into()));
    }
}
