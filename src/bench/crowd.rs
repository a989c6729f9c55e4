//! Many clients on one thread: an event loop over their sockets, so that what is measured is the server and not its load.
//!
//! What came is reported in a list, each arrival with the time at which it was read; what is to be sent is collected and leaves in one write a
//! client when the caller says `flush`. So a client that has several messages to send sends them together, as a busy client does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use super::dialect::{Dialect, Event, Nonsense};
use super::flow;

/// What is read of one socket at once, bytes.
const READ_BYTES: usize = 256 * 1024;

/// Sockets looked at in one turn.
const EVENTS: usize = 1024;

/// What happened to a client.
#[derive(Debug, Clone, Copy)]
pub struct Happening {
    /// The client's place in the crowd.
    pub client: u32,
    /// Since the crowd's beginning.
    pub at: Duration,
    /// What it was.
    pub what: What,
}

/// What can happen to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Its login was accepted.
    LoggedIn,
    /// A stamped text came.
    Text {
        /// As stamped.
        flow: u32,
        /// As stamped.
        number: u32,
        /// Bytes of the whole text.
        text_bytes: u32,
    },
    /// A text came that nobody wrote.
    Strange,
    /// The server closed the connection, or it broke.
    Closed,
}

struct Client {
    user: u32,
    /// `None`: it has left.
    socket: Option<TcpStream>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that are sent.
    sent: usize,
    /// On the list of those who have something to send.
    is_listed: bool,
    /// The socket was full: the kernel says when it is not.
    is_stuck: bool,
    /// What comes is left where it is.
    is_deaf: bool,
}

/// Clients of one server. From one thread.
pub struct Crowd<'d> {
    address: SocketAddr,
    dialect: &'d mut dyn Dialect,
    epoll: OwnedFd,
    began: Instant,
    clients: Vec<Client>,
    /// Those with something to send.
    listed: Vec<u32>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl<'d> Crowd<'d> {
    /// Nobody yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(address: SocketAddr, dialect: &'d mut dyn Dialect) -> io::Result<Crowd<'d>> {
        Ok(Crowd {
            address,
            dialect,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            began: Instant::now(),
            clients: Vec::new(),
            listed: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Since the crowd's beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Who was ever in it.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Connects `user` and says its login; gives its place. On loopback the connection is there at once.
    ///
    /// # Errors
    /// Nobody listens, or no descriptor is left.
    pub fn join(&mut self, user: u32) -> io::Result<u32> {
        let place = self.clients.len() as u32;
        self.clients.push(Client {
            user,
            socket: None,
            unread: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            is_listed: false,
            is_stuck: false,
            is_deaf: false,
        });
        self.come_back(place)?;
        Ok(place)
    }

    /// The same for one that has left.
    ///
    /// # Errors
    /// As [`Crowd::join`].
    pub fn come_back(&mut self, place: u32) -> io::Result<()> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(place.into()), flags)?;
        let client = &mut self.clients[place as usize];
        client.socket = Some(socket);
        client.unread.clear();
        client.unsent.clear();
        client.sent = 0;
        (client.is_stuck, client.is_deaf) = (false, false);
        self.dialect.log_in(client.user, &mut client.unsent);
        self.list(place);
        Ok(())
    }

    /// `from` writes `text` to the user `to`, with the next [`Crowd::flush`].
    pub fn write(&mut self, from: u32, to: u32, text: &[u8]) {
        let client = &mut self.clients[from as usize];
        self.dialect.text(client.user, to, text, &mut client.unsent);
        self.list(from);
    }

    /// Says good-bye with the next [`Crowd::flush`]; the server closes.
    pub fn log_out(&mut self, place: u32) {
        let client = &mut self.clients[place as usize];
        self.dialect.log_out(client.user, &mut client.unsent);
        self.list(place);
    }

    /// Says that nothing more comes from it.
    pub fn finish(&mut self, place: u32) {
        if let Some(socket) = &self.clients[place as usize].socket {
            // It may be gone already.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Reads no more: what comes for it fills its socket.
    pub fn stop_reading(&mut self, place: u32) {
        self.clients[place as usize].is_deaf = true;
    }

    /// Bytes that it could not send yet.
    pub fn unsent_bytes(&self, place: u32) -> usize {
        let client = &self.clients[place as usize];
        client.unsent.len() - client.sent
    }

    fn list(&mut self, place: u32) {
        let client = &mut self.clients[place as usize];
        if !client.is_listed {
            client.is_listed = true;
            self.listed.push(place);
        }
    }

    /// Sends what was collected, as far as the sockets take it; the rest goes out in later turns.
    pub fn flush(&mut self) {
        while let Some(place) = self.listed.pop() {
            let client = &mut self.clients[place as usize];
            client.is_listed = false;
            if !client.is_stuck {
                client.send();
            }
        }
    }

    /// Waits until something happens, `patience` at most, and appends what did to `happened`.
    ///
    /// # Errors
    /// The server speaks something else.
    pub fn turn(&mut self, patience: Duration, happened: &mut Vec<Happening>) -> Result<(), Nonsense> {
        self.events.clear();
        let patience = Timespec::try_from(patience).ok();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Nonsense(format!("the kernel does not say what is ready: {error}"))),
        }
        for next in 0..self.events.len() {
            let event = self.events[next];
            let place = event.data.u64() as u32;
            let flags = event.flags;
            if flags.contains(epoll::EventFlags::OUT) && self.clients[place as usize].is_stuck {
                self.clients[place as usize].is_stuck = false;
                self.clients[place as usize].send();
            }
            if flags.intersects(!epoll::EventFlags::OUT) {
                self.read(place, happened)?;
            }
        }
        Ok(())
    }

    /// Reads until nothing is left: the kernel tells of each arrival only once.
    fn read(&mut self, place: u32, happened: &mut Vec<Happening>) -> Result<(), Nonsense> {
        loop {
            let client = &mut self.clients[place as usize];
            let Some(socket) = client.socket.as_mut().filter(|_| !client.is_deaf) else { return Ok(()) };
            match socket.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let at = self.began.elapsed();
                    let dialect = &mut *self.dialect;
                    let answers = client.take(&self.buffer[..count], dialect, |what| {
                        happened.push(Happening { client: place, at, what });
                    })?;
                    if answers {
                        self.list(place);
                    }
                    if count < self.buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.clients[place as usize].socket = None;
        happened.push(Happening { client: place, at: self.began.elapsed(), what: What::Closed });
        Ok(())
    }
}

impl Client {
    fn send(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        while self.sent < self.unsent.len() {
            match socket.write(&self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_stuck = true;
                    return;
                }
                // The reading side tells.
                Err(_) => break,
            }
        }
        self.unsent.clear();
        self.sent = 0;
    }

    /// Takes what is complete, after what was left of earlier reads; `true`: there is something to answer.
    fn take(
        &mut self,
        bytes: &[u8],
        dialect: &mut dyn Dialect,
        mut report: impl FnMut(What),
    ) -> Result<bool, Nonsense> {
        let whole;
        let bytes = if self.unread.is_empty() {
            bytes
        } else {
            self.unread.extend_from_slice(bytes);
            whole = std::mem::take(&mut self.unread);
            &whole
        };
        let (mut done, before) = (0, self.unsent.len());
        while let Some((length, event)) = dialect.take(self.user, &bytes[done..], &mut self.unsent)? {
            done += length;
            match event {
                Event::LoggedIn => report(What::LoggedIn),
                Event::Text(text) => report(match flow::read_stamp(text) {
                    Some((flow, number)) => What::Text { flow, number, text_bytes: text.len() as u32 },
                    None => What::Strange,
                }),
                Event::Other => {}
            }
        }
        self.unread.extend_from_slice(&bytes[done..]);
        Ok(self.unsent.len() > before)
    }
}
