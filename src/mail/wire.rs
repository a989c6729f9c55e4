//! The way to an SMTP server and back: a socket that keeps one deadline whatever the other side does, TLS over it, and SMTP's lines.
//!
//! It must not know what a mail is. Read first: RFC 5321 §4.2 for answers of several lines, RFC 3207 for STARTTLS.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lettre::transport::smtp::response::Response;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use super::error::{Fault, Phase, Reply, excerpt};
use crate::config::MailConfig;
use crate::limits;

/// A connection to an SMTP server.
pub(super) struct Wire {
    tcp: Bounded,
    tls: Option<ClientConnection>,
    /// What has been read and is not a whole line yet.
    buffer: Vec<u8>,
    /// What the conversation is about, for errors.
    pub phase: Phase,
}

impl Wire {
    /// Everything on it fails behind `deadline`.
    pub fn new(tcp: TcpStream, deadline: Instant) -> Wire {
        Wire { tcp: Bounded { tcp, deadline }, tls: None, buffer: Vec::new(), phase: Phase::Greeting }
    }

    /// From here on in TLS.
    pub fn encrypt(&mut self, config: &MailConfig) -> Result<(), Fault> {
        self.phase = Phase::Tls;
        if !self.buffer.is_empty() {
            // Somebody on the way put words in that would be taken for the server's, behind the handshake.
            return Err(self.not_smtp(&String::from_utf8_lossy(&self.buffer)));
        }
        let host = ServerName::try_from(config.host.clone())
            .map_err(|error| Fault::NoName { host: config.host.clone(), why: error.to_string() })?;
        let tls = ClientConnection::new(Arc::new(client_config(config)?), host);
        let mut tls = tls.map_err(|error| Fault::Tls(error.to_string()))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.tcp).map_err(|error| self.fault(error, config))?;
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// The version of TLS, when there is TLS: `TLSv1_3`.
    pub fn tls_version(&self) -> Option<String> {
        let version = self.tls.as_ref()?.protocol_version()?;
        version.as_str().map(|name| name.replace("TLSv", "TLS ").replace('_', "."))
    }

    /// A command, and the answer, which must be a positive one.
    pub fn ask(&mut self, command: impl Display, refused: impl FnOnce(Reply) -> Fault) -> Result<Response, Fault> {
        let response = self.exchange(command)?;
        if response.is_positive() { Ok(response) } else { Err(refused(Reply::of(&response))) }
    }

    /// A command, and whatever the answer is.
    pub fn exchange(&mut self, command: impl Display) -> Result<Response, Fault> {
        self.write(command.to_string().as_bytes())?;
        self.response()
    }

    /// Writes it all.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let written = match &mut self.tls {
            None => self.tcp.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls, &mut self.tcp);
                stream.write_all(bytes).and_then(|()| stream.flush())
            }
        };
        written.map_err(|error| self.broken(error))
    }

    /// The next answer, of one line or several.
    pub fn response(&mut self) -> Result<Response, Fault> {
        let mut text = String::new();
        loop {
            let line = self.line()?;
            text.push_str(&line);
            // The blank behind the code may be missing when nothing follows it (RFC 5321 §4.2).
            text.push_str(if line.len() == 3 { " \r\n" } else { "\r\n" });
            if line.as_bytes().get(3) != Some(&b'-') {
                return text.parse().map_err(|_| self.not_smtp(&text));
            }
            if text.len() > limits::SMTP_ANSWER_BYTES {
                return Err(self.not_smtp(&text));
            }
        }
    }

    /// The next line, without its end. What is not UTF-8 in it is replaced: it is for people.
    fn line(&mut self) -> Result<String, Fault> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            if self.buffer.len() > limits::SMTP_ANSWER_BYTES {
                return Err(self.not_smtp(&String::from_utf8_lossy(&self.buffer)));
            }
            let mut bytes = [0; 1024];
            let read = match &mut self.tls {
                None => self.tcp.read(&mut bytes),
                Some(tls) => rustls::Stream::new(tls, &mut self.tcp).read(&mut bytes),
            };
            match read {
                Ok(0) => return Err(Fault::Closed(self.phase)),
                Ok(length) => self.buffer.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// Whatever is done from here on takes at most so long.
    pub fn hurry(&mut self, timeout: Duration) {
        self.tcp.deadline = self.tcp.deadline.min(Instant::now() + timeout);
    }

    /// The other side said something that has no place here.
    pub fn not_smtp(&self, said: &str) -> Fault {
        Fault::NotSmtp { phase: self.phase, said: excerpt(said, 80) }
    }

    /// What an error of the handshake means.
    fn fault(&self, error: io::Error, config: &MailConfig) -> Fault {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return self.broken(error);
        };
        let rustls::Error::InvalidCertificate(fault) = tls else { return Fault::Tls(tls.to_string()) };
        match fault {
            // A bad signature: an authority of that name is trusted, but it is another one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::UnknownIssuer,
            CertificateError::NotValidForName => Fault::OtherName { host: config.host.clone(), names: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => {
                Fault::OtherName { host: config.host.clone(), names: presented.iter().map(|name| bare(name)).collect() }
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Fault::Expired,
            // The library has no variant of its own for it.
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => Fault::Authority,
            _ => Fault::Tls(tls.to_string()),
        }
    }

    fn broken(&self, error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::TimedOut => Fault::TimedOut(self.phase),
            io::ErrorKind::UnexpectedEof => Fault::Closed(self.phase),
            _ => Fault::Lost { phase: self.phase, why: error.to_string() },
        }
    }
}

/// A name of a certificate, which the library shows as `DnsName("mail.example.org")`.
fn bare(name: &str) -> String {
    name.split('"').nth(1).unwrap_or(name).to_owned()
}

/// Trusts the system's authorities, and what is in `smtp_ca_file`.
fn client_config(config: &MailConfig) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &config.ca_file {
        let cannot = |why: &dyn Display| Fault::CaFile { path: path.clone(), why: why.to_string() };
        let file = CertificateDer::pem_file_iter(path).map_err(|error| cannot(&error))?;
        let mut any = false;
        for certificate in file {
            roots.add(certificate.map_err(|error| cannot(&error))?).map_err(|error| cannot(&error))?;
            any = true;
        }
        if !any {
            return Err(cannot(&"there is no certificate in it"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Fault::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A socket whose every read and write waits at most until one common deadline, so that a server that sends a byte now and then
/// cannot stretch it.
struct Bounded {
    tcp: TcpStream,
    deadline: Instant,
}

impl Bounded {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Bounded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        self.tcp.read(bytes).map_err(timed_out)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.left()?))?;
        self.tcp.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket's timeout has another name on Linux.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}
