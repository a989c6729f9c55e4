//! `src/socket.rs` for the model: a connection as TCP sees it, with the server at one end and a model's client at the other.
//!
//! What the server has sent is `sent` bytes long; up to `acked` it is in the client's kernel, from where the client reads whole packets. The
//! other way whole packets come, `UP_BYTES` each.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

pub use chatserver::protocol::{Reason, Status};
pub use rustix::event::PollFlags;
pub use rustix::io::Errno;

use crate::protocol::{Decoder, Frame, Message, NoticeCode};
use crate::sync::{Condvar, Mutex, below, one_in};
use crate::world::{World, tell};

/// Length of every packet of a client.
pub const UP_BYTES: u64 = 24;

/// From a client.
#[derive(Debug, Clone)]
pub enum Up {
    Login { last_seq: Option<u64> },
    Chat { text: usize, msg_id: Option<u64> },
    Ack(u64),
    Ping,
    Logout,
}

/// From the server.
#[derive(Debug, Clone)]
pub enum Down {
    Answer { is_accepted: bool, last_msg_id: Option<u64> },
    Chat { from: usize, text: usize, msg_id: Option<u64>, seq: Option<u64> },
    Receipt { msg_ids: Vec<u64>, status: Status, reason: Option<Reason> },
    Notice(NoticeCode),
    Pong,
}

pub struct Socket {
    world: Arc<World>,
    /// Whose client.
    pub user: usize,
    /// Of the server.
    pub incarnation: usize,
    /// Bytes that the server's kernel holds unacknowledged.
    room: u64,
    pub state: Mutex<State>,
    pub changed: Condvar,
}

#[derive(Default)]
pub struct State {
    sent: u64,
    pub acked: u64,
    partial: Vec<u8>,
    /// Each with the byte at which it ends.
    packets: VecDeque<(u64, Down)>,
    /// How many of them the client's kernel has.
    in_kernel: usize,
    /// How many of these it had when the client last sent something: to the server a sign that it has read them.
    confirmed: usize,
    ups: VecDeque<Up>,
    arrived: u64,
    /// Reset, by whomever, or the server was killed.
    pub is_broken: bool,
    pub client_fin: bool,
    server_fin: bool,
    is_deaf: bool,
    /// Nobody reads at the other end, and its network is silent.
    is_abandoned: bool,
}

pub fn send(socket: &Socket, bytes: &[u8]) -> Result<usize, Errno> {
    let mut state = socket.state.lock();
    if state.is_broken || state.server_fin || socket.is_dead() {
        return Err(Errno::PIPE);
    }
    let free = (socket.room).saturating_sub(state.sent - state.acked) as usize;
    if free == 0 || one_in(8) && state.sent > state.acked {
        return Err(Errno::AGAIN);
    }
    let count = if one_in(4) { 1 + below(bytes.len()) } else { bytes.len() }.min(free);
    state.take_in(socket, &bytes[..count]);
    socket.changed.notify_all();
    Ok(count)
}

pub fn wait(socket: &Socket, event: PollFlags, timeout: Duration) -> Result<bool, Errno> {
    let mut state = socket.state.lock();
    loop {
        let is_writable = event == PollFlags::OUT && state.sent - state.acked < socket.room;
        let is_over = state.is_broken || state.server_fin && (state.client_fin || state.is_deaf);
        if is_writable || is_over {
            return Ok(true);
        }
        if socket.changed.wait_for(&mut state, timeout).timed_out() {
            return Ok(false);
        }
    }
}

pub fn unacknowledged(socket: &Socket) -> io::Result<u64> {
    let state = socket.state.lock();
    Ok(state.sent - state.acked)
}

pub fn acknowledged(socket: &Socket) -> io::Result<u64> {
    Ok(socket.state.lock().acked)
}

pub fn is_broken(socket: &Socket) -> io::Result<bool> {
    Ok(socket.state.lock().is_broken)
}

pub fn received(socket: &Socket) -> io::Result<u64> {
    Ok(socket.state.lock().arrived)
}

/// The server's side.
impl Socket {
    pub fn new(world: Arc<World>, user: usize, incarnation: usize) -> Socket {
        let room = world.settings.socket_bytes;
        Socket { world, user, incarnation, room, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Its server was killed.
    fn is_dead(&self) -> bool {
        self.incarnation != self.world.incarnation()
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut state = self.state.lock();
        state.server_fin |= how != Shutdown::Read;
        state.is_deaf |= how != Shutdown::Write;
        self.changed.notify_all();
        Ok(())
    }

    /// What has arrived, waiting for it. Empty: the end of the stream. Error: it was reset.
    pub fn read(&self, timeout: Option<Duration>) -> io::Result<Vec<Up>> {
        let mut state = self.state.lock();
        loop {
            if self.is_dead() || state.is_broken && one_in(2) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if !state.ups.is_empty() {
                let count = 1 + below(state.ups.len());
                return Ok(state.ups.drain(..count).collect());
            }
            if state.is_broken {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if state.client_fin || state.is_deaf {
                return Ok(Vec::new());
            }
            match timeout {
                None => self.changed.wait(&mut state),
                Some(timeout) => {
                    if self.changed.wait_for(&mut state, timeout).timed_out() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// The descriptor is closed: with a reset if the client has sent what was not read.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_broken |= !state.ups.is_empty();
        state.server_fin = true;
        state.is_deaf = true;
        self.changed.notify_all();
    }
}

impl State {
    fn take_in(&mut self, socket: &Socket, bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        self.partial.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(frame) = Frame::parse(&self.partial[done..], 1 << 20).expect("the server keeps to the protocol")
        {
            let length = frame.packet.len();
            let down = socket.world.parse(frame);
            tell!("server → {}: {down:?}", socket.world.name(socket.user));
            socket.world.told(socket.user, socket.incarnation, &down);
            let end = self.sent - (self.partial.len() - done - length) as u64;
            self.packets.push_back((end, down));
            done += length;
        }
        self.partial.drain(..done);
    }
}

/// The client's side.
impl Socket {
    /// Sends; into the void if the connection is gone.
    pub fn put(&self, up: Up) {
        let mut state = self.state.lock();
        if !state.is_broken && !state.client_fin {
            tell!("{} → server: {up:?}", self.world.name(self.user));
            state.ups.push_back(up);
            state.arrived += UP_BYTES;
            state.confirmed = state.in_kernel;
            self.changed.notify_all();
        }
    }

    /// The network brings some of what is under way, perhaps all.
    fn carry(&self, state: &mut State) {
        let under_way = state.sent - state.acked;
        if under_way == 0 || state.is_broken || state.is_abandoned {
            return;
        }
        state.acked += if one_in(3) { 1 + below(under_way as usize) as u64 } else { under_way };
        while let Some((end, down)) = state.packets.get(state.in_kernel)
            && *end <= state.acked
        {
            if let Down::Chat { text, .. } = down {
                self.world.in_kernel(*text, self.user);
            }
            state.in_kernel += 1;
        }
        self.changed.notify_all();
    }

    /// The next packet, waiting for it if `waits`, or for the run's end. `Err`: there will be none.
    pub fn receive(&self, waits: bool) -> Result<Option<Down>, ()> {
        let mut state = self.state.lock();
        loop {
            self.carry(&mut state);
            if state.in_kernel > 0 {
                state.in_kernel -= 1;
                state.confirmed = state.confirmed.saturating_sub(1);
                return Ok(state.packets.pop_front().map(|(_, down)| down));
            }
            if state.is_broken || state.server_fin && state.acked == state.sent {
                return Err(());
            }
            if state.sent > state.acked {
                continue;
            }
            if !waits || self.world.is_settled() {
                return Ok(None);
            }
            self.changed.wait(&mut state);
        }
    }

    /// The client ends its stream in order, and reads on.
    pub fn finish(&self) {
        self.state.lock().client_fin = true;
        self.changed.notify_all();
    }

    /// The client reads no more: reset, or the network falls silent. Gives the texts that its kernel had acknowledged and it has not read, each
    /// with whether it sent something afterwards.
    pub fn give_up(&self, is_reset: bool) -> Vec<(usize, bool)> {
        let mut state = self.state.lock();
        state.is_broken |= is_reset;
        state.is_abandoned = true;
        self.changed.notify_all();
        let unread = state.packets.iter().take(state.in_kernel).enumerate();
        let confirmed = state.confirmed;
        let text = |(index, (_, down)): (usize, &(u64, Down))| match down {
            Down::Chat { text, .. } => Some((*text, index < confirmed)),
            _ => None,
        };
        unread.filter_map(text).collect()
    }

    /// The server is dead: some of what was under way may have come.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        if one_in(2) {
            self.carry(&mut state);
        }
        state.is_broken = true;
        self.changed.notify_all();
    }

    pub fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }
}

/// What a packet says.
pub fn read_packet(world: &World, decoder: &mut Decoder, frame: Frame<'_>) -> Down {
    match decoder.decode(&world.cipher, frame).expect("the server keeps to the protocol").message {
        Message::ServerAcceptLogin(answer) => {
            Down::Answer { is_accepted: answer.login, last_msg_id: answer.granted.map(|granted| granted.last_msg_id) }
        }
        Message::Chat(chat) => {
            let text = chat.text.parse().expect("every text is its number");
            Down::Chat { from: world.user(chat.from), text, msg_id: chat.msg_id, seq: chat.seq }
        }
        Message::ServerReceipt(receipt) => {
            Down::Receipt { msg_ids: receipt.msg_ids.to_vec(), status: receipt.status, reason: receipt.reason }
        }
        Message::ServerNotice { code, .. } => Down::Notice(code),
        Message::ServerPong { .. } => Down::Pong,
        other => panic!("the server sends {other:?}"),
    }
}
