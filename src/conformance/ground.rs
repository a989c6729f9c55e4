//! Where a check stands: the server, names that nobody else has, and connections that are written down.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::bytes::{TIME, Words};
use super::wire::{Fault, Got, Line, Packet, Transcript};
use crate::protocol::{Chat, Cipher, Message};

/// How long a server that was there may take to accept a connection again.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// Whether the reason is on this side: no descriptors, no ports.
fn is_ours(error: &std::io::Error) -> bool {
    let ours = [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::EAGAIN];
    error.raw_os_error().is_some_and(|code| ours.contains(&code))
}

/// Between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Why nothing can be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotJudged {
    /// No connection, or not a byte.
    NoAnswer(String),
    /// It answers, but lets nobody in.
    NoLogin(String),
}

/// The server that is judged.
pub struct Target {
    addr: SocketAddr,
    key: Vec<u8>,
    run: String,
    patience: Duration,
    longest_deadline: Option<Duration>,
    is_gone: AtomicBool,
    granted: Option<u64>,
}

impl Target {
    /// A server at an address. `patience`: how long an answer or a close may take; `longest_deadline`: how long to wait for the server's own
    /// timeouts, where they are to be measured.
    ///
    /// # Errors
    /// The address leads nowhere.
    pub fn new(
        addr: &str,
        key: &[u8],
        patience: Duration,
        longest_deadline: Option<Duration>,
    ) -> Result<Target, NotJudged> {
        let no_address = |why: String| NotJudged::NoAnswer(format!("{addr} leads nowhere: {why}"));
        let mut found = addr.to_socket_addrs().map_err(|error| no_address(error.to_string()))?;
        let addr = found.next().ok_or_else(|| no_address("it has no address".to_owned()))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Names of an earlier run must not have messages waiting for this one.
        let run = format!("{:x}", since.as_micros());
        Ok(Target {
            addr,
            key: key.to_vec(),
            run,
            patience,
            longest_deadline,
            is_gone: AtomicBool::new(false),
            granted: None,
        })
    }

    /// Asks whether somebody is there, and which level is spoken.
    ///
    /// # Errors
    /// Nobody is, or nobody is let in: nothing can be judged.
    pub fn probe(&mut self) -> Result<(), NotJudged> {
        let (no_answer, no_login) = (NotJudged::NoAnswer, NotJudged::NoLogin);
        let addr = self.addr;
        let ground = Ground::new(self, 0);
        let mut line = ground.connect("me").map_err(|_| no_answer(format!("there is no server at {addr}")))?;
        line.send(&Message::ClientLogin {
            name: &ground.name("me"),
            version: 1.0,
            time: TIME,
            level: Some(2),
            last_seq: None,
        });
        let answer = match line.next(self.patience) {
            Ok(Got::Packet(packet)) => packet,
            Ok(Got::Closed) => {
                let why = "the server closes instead of answering a login (do both sides use the same key? --key-file, CHATSERVER_KEY)";
                return Err(no_login(why.to_owned()));
            }
            Ok(Got::Silence) => {
                let why = format!(
                    "the server at {addr} takes a connection and a login, and answers nothing in {:?}",
                    self.patience
                );
                return Err(no_answer(why));
            }
            Err(Fault::Broken(why) | Fault::Unreachable(why)) => return Err(no_login(why)),
        };
        if answer.kind != 2 || answer.number(1) != Some(1) {
            let tips = answer.text(2).unwrap_or_default();
            return Err(no_login(format!("the server lets nobody in: packet type {}, tips_msg {tips:?}", answer.kind)));
        }
        self.granted = answer.number(4).filter(|level| *level >= 2);
        Ok(())
    }

    /// Whether it grants level 2; known after [`Target::probe`].
    pub fn is_level_2(&self) -> bool {
        self.granted.is_some()
    }

    /// Whether its own timeouts are to be waited for.
    pub fn has_time(&self) -> bool {
        self.longest_deadline.is_some()
    }

    /// Whether it has stopped to accept connections since.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// The key, for explaining what was said.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The names of one check, and its ciphers.
pub struct Names {
    me: String,
    you: String,
    absent: String,
    cipher: Rc<Cipher>,
    wrong: Rc<Cipher>,
}

impl Names {
    /// For the table's language.
    pub fn as_words(&self) -> Words<'_> {
        Words { me: &self.me, you: &self.you, absent: &self.absent, cipher: &self.cipher, wrong: &self.wrong }
    }
}

/// Where one check stands. Not shared with another one.
pub struct Ground<'a> {
    target: &'a Target,
    number: usize,
    cipher: Rc<Cipher>,
    wrong: Rc<Cipher>,
    transcript: Transcript,
}

impl Ground<'_> {
    /// For the check of this number.
    ///
    /// # Panics
    /// If the target's key has no length that AES has.
    pub fn new(target: &Target, number: usize) -> Ground<'_> {
        let other: Vec<u8> = target.key.iter().map(|byte| byte ^ 0x55).collect();
        let cipher = |key: &[u8]| Rc::new(Cipher::new(key).expect("a key that was checked"));
        let transcript = Rc::new(RefCell::new(Vec::new()));
        Ground { target, number, cipher: cipher(&target.key), wrong: cipher(&other), transcript }
    }

    /// The name of a user in this check: nobody else has it, in this run or in another one.
    pub fn name(&self, who: &str) -> String {
        format!("{who}-{}-{}", self.target.run, self.number)
    }

    /// The words of the table's language.
    pub fn words(&self) -> Names {
        let (cipher, wrong) = (self.cipher.clone(), self.wrong.clone());
        Names { me: self.name("me"), you: self.name("you"), absent: self.name("absent"), cipher, wrong }
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        self.target.patience
    }

    /// How long the server's own timeouts are waited for.
    pub fn longest_deadline(&self) -> Duration {
        self.target.longest_deadline.unwrap_or(self.target.patience)
    }

    /// What was said so far.
    pub fn transcript(&self) -> Transcript {
        self.transcript.clone()
    }

    /// A connection that says nothing yet.
    ///
    /// # Errors
    /// The server is gone.
    pub fn connect(&self, who: &'static str) -> Result<Line, Fault> {
        let deadline = Instant::now() + CONNECT_PATIENCE;
        loop {
            let gone = |error: std::io::Error| Fault::Unreachable(format!("the server accepts no connection: {error}"));
            match TcpStream::connect_timeout(&self.target.addr, CONNECT_PATIENCE) {
                Ok(socket) => {
                    return Line::new(who, self.name(who), socket, self.cipher.clone(), self.transcript.clone());
                }
                Err(error) if Instant::now() >= deadline && is_ours(&error) => {
                    return Err(Fault::Broken(format!(
                        "this machine, not the server, has no connection to give: {error}"
                    )));
                }
                Err(error) if Instant::now() >= deadline || self.target.is_gone() => {
                    self.target.is_gone.store(true, Ordering::Relaxed);
                    return Err(gone(error));
                }
                // A server may be busy, or just starting again.
                Err(_) => thread::sleep(BETWEEN_TRIES),
            }
        }
    }

    /// A user of level 1, named after `who`.
    ///
    /// # Errors
    /// The login was not answered, or refused.
    pub fn login(&self, who: &'static str) -> Result<Line, Fault> {
        let mut line = self.connect(who)?;
        self.log_in(&mut line, None)?;
        Ok(line)
    }

    /// A user of level 2.
    ///
    /// # Errors
    /// As [`Ground::login`], or level 2 was not granted.
    pub fn login_2(&self, who: &'static str) -> Result<Line, Fault> {
        let mut line = self.connect(who)?;
        let answer = self.log_in(&mut line, Some(2))?;
        if answer.number(4) != Some(2) {
            return Err(format!("level 2 was granted before, but not to {who} now").into());
        }
        line.is_level_2 = true;
        Ok(line)
    }

    /// Logs a connection in with its own name; gives the answer.
    ///
    /// # Errors
    /// As [`Ground::login`].
    pub fn log_in(&self, line: &mut Line, level: Option<u32>) -> Result<Packet, Fault> {
        self.log_in_as(line, &line.name.clone(), level, None)
    }

    /// Logs a connection in.
    ///
    /// # Errors
    /// As [`Ground::login`].
    pub fn log_in_as(
        &self,
        line: &mut Line,
        name: &str,
        level: Option<u32>,
        last_seq: Option<u64>,
    ) -> Result<Packet, Fault> {
        line.name = name.to_owned();
        line.send(&Message::ClientLogin { name, version: 1.0, time: TIME, level, last_seq });
        let answer = line.packet_of(2, "the answer to a login", self.patience())?;
        match answer.number(1) {
            Some(1) => Ok(answer),
            _ => Err(format!("the login was refused: {:?}", answer.text(2).unwrap_or_default()).into()),
        }
    }

    /// Sends a text.
    pub fn say(&self, from: &mut Line, to: &str, text: &str) {
        let name = from.name.clone();
        from.send(&Message::Chat(Chat { from: &name, to, text, time: TIME, ..Chat::default() }));
    }

    /// Sends texts with one write.
    pub fn say_all(&self, from: &mut Line, to: &str, texts: &[String]) {
        let name = from.name.clone();
        let chats: Vec<Message<'_>> = texts
            .iter()
            .map(|text| Message::Chat(Chat { from: &name, to, text, time: TIME, ..Chat::default() }))
            .collect();
        from.send_all(&chats);
    }

    /// The next text, which must come.
    ///
    /// # Errors
    /// Something else came, or nothing.
    pub fn hear(&self, line: &mut Line) -> Result<String, Fault> {
        let packet = line.packet_of(5, "a text", self.patience())?;
        packet.text(3).ok_or_else(|| "a chat packet without field 3, the text".into())
    }

    /// These texts and no others, in this order: a text to oneself follows them.
    ///
    /// # Errors
    /// Others came, or in another order.
    pub fn hear_exactly(&self, line: &mut Line, texts: &[impl AsRef<str>]) -> Result<(), Fault> {
        for (index, expected) in texts.iter().enumerate() {
            let text = self.hear(line)?;
            if text != expected.as_ref() {
                let expected = expected.as_ref();
                return Err(format!("text number {} should be {expected:?}, but {text:?} came", index + 1).into());
            }
        }
        self.hear_nothing(line)
    }

    /// Nothing waits for this user: a text to oneself comes next.
    ///
    /// # Errors
    /// Something else comes.
    pub fn hear_nothing(&self, line: &mut Line) -> Result<(), Fault> {
        let name = line.name.clone();
        self.say(line, &name, "to myself");
        match self.hear(line)? {
            text if text == "to myself" => Ok(()),
            text => Err(format!("{text:?} came, and should not").into()),
        }
    }

    /// Everything that this user has sent is executed when it returns: a text to oneself has come back.
    ///
    /// # Errors
    /// As [`Ground::hear_nothing`].
    pub fn barrier(&self, line: &mut Line) -> Result<(), Fault> {
        self.hear_nothing(line)
    }

    /// At level 2: everything that this user has sent is executed when it returns: a ping was answered.
    ///
    /// # Errors
    /// Something else came.
    pub fn ping_2(&self, line: &mut Line) -> Result<(), Fault> {
        line.send(&Message::ClientPing { ping: true, time: TIME });
        line.packet_of(104, "the answer to a ping", self.patience()).map(drop)
    }

    /// A login packet of level 1.
    pub fn login_packet(&self, name: &str) -> Vec<u8> {
        let mut packet = Vec::new();
        Message::ClientLogin { name, version: 1.0, time: TIME, level: None, last_seq: None }
            .encode(&self.cipher, &mut packet);
        packet
    }

    /// A logout packet.
    pub fn logout(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        Message::ClientLogout { logout: true, time: TIME }.encode(&self.cipher, &mut packet);
        packet
    }

    /// Logs out and waits for the close: everything sent before is executed then.
    ///
    /// # Errors
    /// The server does not close.
    pub fn log_out(&self, mut line: Line) -> Result<(), Fault> {
        line.write(&self.logout());
        line.closed(self.patience())
    }
}
