//! A connection that is kept: the thread "network" receives, pings, and logs in again; the thread that reads lines sends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::super::connection::{PING_INTERVAL, Reconnect};
use super::super::terminal::escape;
use super::screen::Screen;
use crate::client::{Client, ClientError, Connect, Incoming, Sender};
use crate::language::say;

/// Longest wait for the server's close after a good-bye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most messages shown at once.
const BATCH_MESSAGES: usize = 256;

/// The sending end, for the thread that reads lines.
pub(super) struct Link {
    shared: Arc<Shared>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// On its way.
    Now,
    /// Kept until the next login.
    Later,
    /// Kept; the next login waits for the user.
    AfterEnter,
}

/// How it ended.
pub(super) struct Left {
    /// Lines that were kept and never sent.
    pub(super) unsent: usize,
    /// The server confirmed the good-bye with its close, so it has read everything; or there was no connection to end.
    pub(super) clean: bool,
}

struct Shared {
    /// Held while a line is written, at most for the connection's timeout: only the network thread ever waits for it.
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    phase: Phase,
    /// Lines typed while there was no connection: recipient and text.
    unsent: VecDeque<(String, String)>,
}

/// Where the connection stands.
enum Phase {
    /// Logged in.
    Online(Sender),
    /// Waiting for the next attempt, or in it.
    Offline,
    /// Another login with this name is there, most likely: waiting for the user.
    TakenOver,
    /// The user leaves.
    Leaving,
    /// The network thread is gone.
    Ended { clean: bool },
}

impl Link {
    /// Starts the network thread.
    pub(super) fn start(connect: Connect, client: Client, screen: Screen) -> Link {
        let state = State { phase: Phase::Online(client.sender()), unsent: VecDeque::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let network = Network { shared: Arc::clone(&shared), name: client.name().to_owned(), connect, screen };
        thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || network.run(client))
            .expect("a program with one thread can start a second one");
        Link { shared }
    }

    /// Sends a line or keeps it.
    pub(super) fn send(&self, to: &str, text: &str) -> Sent {
        let mut state = self.shared.state.lock();
        let sent = match &mut state.phase {
            Phase::Online(sender) => match sender.send(to, text) {
                Ok(()) => return Sent::Now,
                // The network thread finds out by itself.
                Err(_) => Sent::Later,
            },
            Phase::TakenOver => Sent::AfterEnter,
            Phase::Offline | Phase::Leaving | Phase::Ended { .. } => Sent::Later,
        };
        state.unsent.push_back((to.to_owned(), text.to_owned()));
        sent
    }

    /// Logs in again after a takeover; `false` = there was none.
    pub(super) fn take_back(&self) -> bool {
        let mut state = self.shared.state.lock();
        let taken_over = matches!(state.phase, Phase::TakenOver);
        if taken_over {
            state.phase = Phase::Offline;
            self.shared.changed.notify_all();
        }
        taken_over
    }

    /// Logs out and waits for the server's close, a few seconds at most.
    pub(super) fn leave(self) -> Left {
        let mut state = self.shared.state.lock();
        let before = std::mem::replace(&mut state.phase, Phase::Leaving);
        self.shared.changed.notify_all();
        let mut clean = true;
        if let Phase::Online(mut sender) = before {
            clean = sender.logout().is_ok() && self.wait_for_end(&mut state);
        }
        Left { unsent: state.unsent.len(), clean }
    }

    /// Waits for the network thread; `false` = no clean close in time.
    fn wait_for_end(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let leaving = |state: &mut State| matches!(state.phase, Phase::Leaving);
        self.shared.changed.wait_while_for(state, leaving, GOODBYE_TIMEOUT);
        matches!(state.phase, Phase::Ended { clean: true })
    }
}

/// The user leaves.
struct Leaving;

/// The receiving end, on its own thread.
struct Network {
    shared: Arc<Shared>,
    name: String,
    connect: Connect,
    screen: Screen,
}

impl Network {
    fn run(mut self, client: Client) {
        let lost = self.keep(client);
        let mut state = self.shared.state.lock();
        state.phase = Phase::Ended { clean: matches!(lost, ClientError::Closed { reset: false }) };
        self.shared.changed.notify_all();
    }

    /// Receives, and logs in again whenever the connection is lost, until the user leaves. Gives the last loss.
    fn keep(&mut self, mut client: Client) -> ClientError {
        let mut reconnect = Reconnect::after_login();
        loop {
            let lost = self.receive(&mut client);
            drop(client);
            let taken_over = reconnect.taken_over();
            if self.offline(taken_over).is_err() {
                return lost;
            }
            client = match self.login_again(&lost, taken_over, &mut reconnect) {
                Ok(client) => client,
                Err(Leaving) => return lost,
            };
            reconnect = Reconnect::after_login();
        }
    }

    /// Shows what arrives until the connection is lost.
    fn receive(&mut self, client: &mut Client) -> ClientError {
        let mut ping_at = Instant::now() + PING_INTERVAL;
        let mut arrived = Vec::new();
        loop {
            let taken = take_batch(client, ping_at.saturating_duration_since(Instant::now()), &mut arrived);
            if !arrived.is_empty() {
                self.screen.messages(&arrived, unix_time());
                arrived.clear();
            }
            if let Err(lost) = taken {
                return lost;
            }
            if Instant::now() >= ping_at {
                if let Err(lost) = client.ping() {
                    return lost;
                }
                ping_at = Instant::now() + PING_INTERVAL;
            }
        }
    }

    /// Notes that there is no connection.
    fn offline(&self, taken_over: bool) -> Result<(), Leaving> {
        let mut state = self.shared.state.lock();
        if matches!(state.phase, Phase::Leaving) {
            return Err(Leaving);
        }
        state.phase = if taken_over { Phase::TakenOver } else { Phase::Offline };
        Ok(())
    }

    /// Tries until it succeeds, with growing pauses; after a takeover only when the user wants it.
    fn login_again(
        &mut self,
        lost: &ClientError,
        taken_over: bool,
        reconnect: &mut Reconnect,
    ) -> Result<Client, Leaving> {
        let language = self.screen.language;
        let mut pause = reconnect.next_pause();
        if taken_over {
            let name = escape(&self.name);
            self.screen.note(&say!(
                language,
                "Another login as {name} has taken over; press Enter to take it back, /quit to leave",
                "{name} 已在另一处登录，此处连接被取代；按回车重新登录，/quit 退出"
            ));
            self.wait_for_user()?;
        } else {
            let (why, seconds) = (lost.describe(language), pause.as_secs());
            self.screen.note(&say!(
                language,
                "{why}; connecting again in {seconds} s",
                "{why}；{seconds} 秒后重新连接"
            ));
            self.pause(pause)?;
        }
        loop {
            match self.connect.login(&self.name) {
                Ok(client) => return self.online(client),
                Err(error) => {
                    pause = reconnect.next_pause();
                    let (why, seconds) = (error.describe(language), pause.as_secs());
                    let why = escape(&why);
                    self.screen.note(&say!(
                        language,
                        "{why}; next attempt in {seconds} s",
                        "{why}；{seconds} 秒后重试"
                    ));
                }
            }
            self.pause(pause)?;
        }
    }

    /// Sends what was kept, in order, before anything that is typed now.
    fn online(&mut self, client: Client) -> Result<Client, Leaving> {
        let mut state = self.shared.state.lock();
        if matches!(state.phase, Phase::Leaving) {
            return Err(Leaving);
        }
        let mut sender = client.sender();
        let mut kept = 0;
        while let Some((to, text)) = state.unsent.front() {
            // When the connection breaks again, the line stays for the next one: the receiving side sees the end.
            if sender.send(to, text).is_err() {
                break;
            }
            state.unsent.pop_front();
            kept += 1;
        }
        state.phase = Phase::Online(sender);
        drop(state);
        let language = self.screen.language;
        let sent = match kept {
            0 => String::new(),
            1 => language.pick("; the line that you typed meanwhile is sent", "；期间输入的 1 行已发送").to_owned(),
            _ => say!(language, "; the {kept} lines that you typed meanwhile are sent", "；期间输入的 {kept} 行已发送"),
        };
        self.screen.note(&say!(language, "connected again{sent}", "已重新连接{sent}"));
        Ok(client)
    }

    fn wait_for_user(&self) -> Result<(), Leaving> {
        let mut state = self.shared.state.lock();
        self.shared.changed.wait_while(&mut state, |state| matches!(state.phase, Phase::TakenOver));
        if matches!(state.phase, Phase::Leaving) { Err(Leaving) } else { Ok(()) }
    }

    fn pause(&self, pause: Duration) -> Result<(), Leaving> {
        let mut state = self.shared.state.lock();
        let staying = |state: &mut State| !matches!(state.phase, Phase::Leaving);
        let stayed = self.shared.changed.wait_while_for(&mut state, staying, pause).timed_out();
        if stayed { Ok(()) } else { Err(Leaving) }
    }
}

/// Waits for a message and takes those that arrived with it.
fn take_batch(client: &mut Client, wait: Duration, arrived: &mut Vec<Incoming>) -> Result<(), ClientError> {
    let mut wait = wait;
    while arrived.len() < BATCH_MESSAGES {
        match client.recv(wait)? {
            Some(message) => arrived.push(message),
            None => break,
        }
        wait = Duration::ZERO;
    }
    Ok(())
}

fn unix_time() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
