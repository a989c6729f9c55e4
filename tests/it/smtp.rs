//! SMTP servers for the tests: one that works, with TLS and login, and others that break off, hang or drip.

use std::fmt::Debug;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use chatserver::config::{MailConfig, Password, Tls};
use mailin::response::{AUTH_OK, BAD_MAILBOX, INVALID_CREDENTIALS, OK, TRANSACTION_FAILED};
use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::harness::PATIENCE;

/// User and password of the servers that want a login.
pub const USER: &str = "ops";
pub const PASSWORD: &str = "correct horse";

/// What a server does; by default it takes every mail, without TLS or login.
#[derive(Default)]
pub struct Behaviour {
    pub tls: Option<Tls>,
    pub certificate: Option<Certificate>,
    pub login: Vec<AuthMechanism>,
    /// Refused as a recipient.
    pub no_recipients: Vec<&'static str>,
    /// Refused as the sender.
    pub no_sender: Option<&'static str>,
    /// So many mails are refused with 451 before the first one is taken.
    pub busy: usize,
    /// Every mail is refused with 554.
    pub no_text: bool,
}

/// A mail that a server has taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    pub user: Option<String>,
    pub mail: Vec<u8>,
}

/// A server, for as long as the tests run.
pub struct SmtpServer {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl SmtpServer {
    pub fn start(behaviour: Behaviour) -> SmtpServer {
        let received = Arc::new(Mutex::default());
        let shared = Arc::new(Shared { busy: Mutex::new(behaviour.busy), behaviour, received: Arc::clone(&received) });
        // A client that gives up half-way is what some tests are about.
        let port = script(move |tcp| drop(serve(tcp, &shared)));
        SmtpServer { port, received }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    /// The only mail so far.
    #[track_caller]
    pub fn the_mail(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:?}");
        received.into_iter().next().unwrap()
    }
}

/// A server whose every connection is `serve`d on a thread of its own; its port.
pub fn script(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let (tcp, serve) = (tcp.unwrap(), Arc::clone(&serve));
            thread::spawn(move || serve(tcp));
        }
    });
    port
}

/// A server that accepts connections and says nothing.
pub fn silent() -> u16 {
    script(|mut tcp| drop(tcp.read_to_end(&mut Vec::new())))
}

/// A server that says the first of these at once and one more for each line that it gets; it closes in the middle of what comes after the last.
pub fn parrot(says: &'static [&'static str]) -> u16 {
    script(move |tcp| drop(talk(tcp, says)))
}

/// The same, but it does not close: it reads no more.
pub fn stuck(says: &'static [&'static str]) -> u16 {
    script(move |tcp| {
        let _open = talk(tcp, says);
        thread::park();
    })
}

fn talk(tcp: TcpStream, says: &[&str]) -> io::Result<BufReader<TcpStream>> {
    // It reads no further than it must: what is not read is to stay in the socket.
    let mut reader = BufReader::with_capacity(1, tcp);
    for answer in says {
        reader.get_mut().write_all(answer.as_bytes())?;
        if reader.read_line(&mut String::new())? == 0 {
            break;
        }
    }
    Ok(reader)
}

/// What a client needs for a server on this port.
pub fn config(port: u16, tls: Tls) -> MailConfig {
    MailConfig {
        to: vec!["Ann <ann@example.org>".into(), "bob@example.org".into()],
        from: Some("chat@example.org".into()),
        host: "localhost".into(),
        port,
        tls,
        ca_file: None,
        user: None,
        password: None,
        timeout: PATIENCE,
    }
}

/// The same, with a login.
pub fn with_login(config: MailConfig, password: &str) -> MailConfig {
    MailConfig { user: Some(USER.into()), password: Some(Password::new(password)), ..config }
}

/// A certificate of its own making, and the key for it.
pub struct Certificate {
    der: CertificateDer<'static>,
    key: Vec<u8>,
    /// Where it lies as PEM.
    pub file: PathBuf,
}

/// What is wrong with a certificate, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    Expired,
    Authority,
}

impl Certificate {
    pub fn new(dir: &Path, name: &str, flaw: Flaw) -> Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        match flaw {
            Flaw::None => {}
            Flaw::Expired => params.not_after = date_time_ymd(2014, 8, 13),
            Flaw::Authority => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = dir.join(format!("{name}-{flaw:?}.pem"));
        std::fs::write(&file, certificate.pem()).unwrap();
        Certificate { der: certificate.der().clone(), key: key.serialize_der(), file }
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        Arc::new(builder.with_no_client_auth().with_single_cert(vec![self.der.clone()], key).unwrap())
    }
}

struct Shared {
    behaviour: Behaviour,
    busy: Mutex<usize>,
    received: Arc<Mutex<Vec<Received>>>,
}

/// One conversation.
struct Clerk {
    shared: Arc<Shared>,
    now: Received,
}

impl Clerk {
    fn login(&mut self, user: &str, password: &str) -> Response {
        if (user, password) != (USER, PASSWORD) {
            return INVALID_CREDENTIALS;
        }
        self.now.user = Some(user.to_owned());
        AUTH_OK
    }
}

impl Handler for Clerk {
    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        self.login(user, password)
    }

    fn auth_login(&mut self, user: &str, password: &str) -> Response {
        self.login(user, password)
    }

    fn mail(&mut self, _: std::net::IpAddr, _: &str, from: &str) -> Response {
        self.now.from = from.to_owned();
        if self.shared.behaviour.no_sender == Some(from) { BAD_MAILBOX } else { OK }
    }

    fn rcpt(&mut self, to: &str) -> Response {
        if self.shared.behaviour.no_recipients.contains(&to) {
            return Response::custom(550, "no such user here".into());
        }
        self.now.to.push(to.to_owned());
        OK
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.now.mail.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        if self.shared.behaviour.no_text {
            return TRANSACTION_FAILED;
        }
        let mut busy = self.shared.busy.lock();
        if *busy > 0 {
            *busy -= 1;
            return Response::custom(451, "try again later".into());
        }
        self.shared.received.lock().push(self.now.clone());
        Response::custom(250, "OK id=1".into())
    }
}

fn serve(tcp: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let Behaviour { tls, certificate, login, .. } = &shared.behaviour;
    let ip = tcp.peer_addr()?.ip();
    let mut link = Link { tcp, tls: None, buffer: Vec::new() };
    let mut builder = SessionBuilder::new("mail.test");
    for mechanism in login {
        builder.enable_auth(mechanism.clone());
    }
    match tls {
        Some(Tls::StartTls) => builder.enable_start_tls(),
        _ => builder.insecure_enable_plaintext_auth(),
    };
    let mut session = builder.build(ip, Clerk { shared: Arc::clone(shared), now: Received::default() });
    if *tls == Some(Tls::Tls) {
        link.encrypt(certificate.as_ref().unwrap())?;
    }
    link.answer(&session.greeting())?;
    loop {
        let line = link.line()?;
        let response = session.process(&line);
        match response.action {
            Action::NoReply => {}
            Action::Reply => link.answer(&response)?,
            Action::Close => return link.answer(&response),
            Action::UpgradeTls => {
                link.answer(&response)?;
                link.encrypt(certificate.as_ref().unwrap())?;
                session.tls_active();
            }
        }
    }
}

/// The server's side of a connection.
struct Link {
    tcp: TcpStream,
    tls: Option<ServerConnection>,
    buffer: Vec<u8>,
}

impl Link {
    fn encrypt(&mut self, certificate: &Certificate) -> io::Result<()> {
        let mut tls = ServerConnection::new(certificate.server_config()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.tcp)?;
        }
        self.tls = Some(tls);
        Ok(())
    }

    fn answer(&mut self, response: &Response) -> io::Result<()> {
        let mut bytes = Vec::new();
        response.write_to(&mut bytes)?;
        match &mut self.tls {
            None => self.tcp.write_all(&bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls, &mut self.tcp);
                stream.write_all(&bytes)?;
                stream.flush()
            }
        }
    }

    /// The next line, with its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                return Ok(self.buffer.drain(..=end).collect());
            }
            let mut bytes = [0; 4096];
            let length = match &mut self.tls {
                None => self.tcp.read(&mut bytes)?,
                Some(tls) => rustls::Stream::new(tls, &mut self.tcp).read(&mut bytes)?,
            };
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&bytes[..length]);
        }
    }
}
