//! A connection that is kept: the thread "network" receives, pings, and logs in again; the thread that reads lines sends.
//!
//! At level 2 the client remembers what has no receipt, and sends it again after the next login. What it has not taken, because there
//! was no connection, waits here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::super::connection::{Reconnect, notice_words};
use super::super::heartbeat::Heartbeat;
use super::screen::{Mark, Screen};
use crate::client::{
    Awaited, Client, ClientError, Connect, Event, Level, MAX_UNRECEIPTED, Receipt, Sender, SessionState, Unnumbered,
};
use crate::language::{Language, say};
use crate::protocol::{NoticeCode, Reason, Status};
use crate::terminal::escape;

/// Longest wait for the server's close after a good-bye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the receipts of the last lines.
const RECEIPTS_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Given up: the server does not take so much.
    TooLong,
}

/// How it ended.
pub(super) struct Left {
    /// Lines that were kept and never sent.
    pub(super) unsent: usize,
    /// Level 2: lines that were sent, or kept by the client, and have no receipt.
    pub(super) unreceipted: usize,
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
    /// What the last connection of level 2 left without a receipt.
    unreceipted: usize,
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

impl State {
    fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }
}

impl Link {
    /// Starts the network thread.
    pub(super) fn start(connect: Connect, client: Client, screen: Screen) -> Link {
        let state = State { phase: Phase::Online(client.sender()), unsent: VecDeque::new(), unreceipted: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (name, stored) = (client.name().to_owned(), VecDeque::new());
        let network = Network { shared: Arc::clone(&shared), name, connect, screen, stored };
        thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || network.run(client))
            .expect("a program with one thread can start a second one");
        Link { shared }
    }

    /// Sends a line or keeps it. Waits while so many lines wait for room already that more would only fill the memory.
    pub(super) fn send(&self, to: &str, text: &str) -> Sent {
        let mut state = self.shared.state.lock();
        let is_full = |state: &mut State| state.is_online() && state.unsent.len() >= MAX_UNRECEIPTED;
        self.shared.changed.wait_while(&mut state, is_full);
        let is_first = state.unsent.is_empty();
        let sent = match &mut state.phase {
            Phase::Online(sender) if is_first && sender.unreceipted() < MAX_UNRECEIPTED => {
                match sender.send(to, text) {
                    Ok(()) => return Sent::Now,
                    Err(ClientError::NotNumbered { why: Unnumbered::TooLong }) => return Sent::TooLong,
                    // The network thread finds out by itself.
                    Err(error) if is_kept(&error, sender) => return Sent::Later,
                    Err(_) => Sent::Later,
                }
            }
            // The network thread sends it when receipts come.
            Phase::Online(sender) if sender.level() == Level::Two => Sent::Now,
            Phase::TakenOver => Sent::AfterEnter,
            Phase::Online(_) | Phase::Offline | Phase::Leaving | Phase::Ended { .. } => Sent::Later,
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

    /// Waits for receipts, logs out and waits for the server's close, a few seconds at most each.
    pub(super) fn leave(self) -> Left {
        let deadline = Instant::now() + RECEIPTS_TIMEOUT;
        let mut state = self.shared.state.lock();
        let is_sending = |state: &mut State| state.is_online() && !state.unsent.is_empty();
        self.shared.changed.wait_while_until(&mut state, is_sending, deadline);
        let mut unreceipted = 0;
        if let Phase::Online(sender) = &state.phase {
            let sender = sender.clone();
            // The network thread needs it when the connection is lost meanwhile.
            MutexGuard::unlocked(&mut state, || {
                unreceipted = sender.wait_for_receipts(deadline.saturating_duration_since(Instant::now()));
            });
        }
        let before = std::mem::replace(&mut state.phase, Phase::Leaving);
        self.shared.changed.notify_all();
        let mut clean = true;
        match before {
            Phase::Online(mut sender) => {
                clean = sender.logout().is_ok() && self.wait_for_end(&mut state);
                if matches!(state.phase, Phase::Ended { .. }) {
                    unreceipted = state.unreceipted;
                }
            }
            _ => unreceipted = state.unreceipted,
        }
        Left { unsent: state.unsent.len(), unreceipted, clean }
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
    /// Own lines that are stored and may yet be delivered: number, recipient, text.
    stored: VecDeque<(u64, String, String)>,
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
            let (lost, replaced) = self.receive(&mut client);
            // A server of level 1 does not tell.
            let guessed = client.level() == Level::One && reconnect.taken_over();
            let state = client.into_state();
            if self.offline(replaced || guessed, &state).is_err() {
                return lost;
            }
            client = match self.login_again(&lost, replaced || guessed, state, &mut reconnect) {
                Ok(client) => client,
                Err(Leaving) => return lost,
            };
            reconnect = Reconnect::after_login();
        }
    }

    /// Shows what arrives until the connection is lost; also gives whether the server said that another login has taken over.
    fn receive(&mut self, client: &mut Client) -> (ClientError, bool) {
        let mut replaced = false;
        let mut heartbeat = Heartbeat::new(client);
        let mut arrived = Vec::new();
        loop {
            let taken = take_batch(client, heartbeat.wait(), &mut arrived);
            // What comes after the good-bye can no longer be acknowledged, and comes again: it is shown then.
            let is_shown = client.level() == Level::One || !self.is_leaving();
            replaced |= self.show(arrived.drain(..), is_shown);
            if let Err(lost) = taken {
                return (lost, replaced);
            }
            self.send_waiting(client);
            if let Err(lost @ ClientError::Timeout { what: Awaited::Pong }) = heartbeat.beat(client) {
                // Of another error the next look at the connection tells, after all that came before.
                return (lost, replaced);
            }
        }
    }

    /// Shows messages, marks for own lines, and notices, in order; `true` = another login has taken over.
    fn show(&mut self, events: impl Iterator<Item = Event>, are_messages_shown: bool) -> bool {
        let mut replaced = false;
        let mut messages = Vec::new();
        for event in events {
            if let Event::Message(message) = event {
                messages.push(message);
                continue;
            }
            if are_messages_shown {
                self.screen.messages(&messages, unix_time());
            }
            messages.clear();
            match event {
                Event::Receipt(receipt) => self.mark(receipt),
                // Told with the loss of the connection.
                Event::Notice(notice) if notice.code == NoticeCode::Replaced => replaced = true,
                Event::Notice(notice) => {
                    let words = notice_words(&notice, &self.name, self.screen.language);
                    self.screen.note(&words);
                }
                Event::Message(_) | Event::Pong(_) | Event::Custom(_) => {}
            }
        }
        if are_messages_shown {
            self.screen.messages(&messages, unix_time());
        }
        replaced
    }

    /// Shows what became of an own line.
    fn mark(&mut self, receipt: Receipt) {
        let line = match receipt.message {
            Some(message) => Some((message.to, message.text)),
            None => {
                let nth = self.stored.iter().position(|(msg_id, ..)| *msg_id == receipt.msg_id);
                nth.and_then(|nth| self.stored.remove(nth)).map(|(_, to, text)| (to, text))
            }
        };
        // One that is not known here: told already.
        let Some((to, text)) = line else { return };
        match receipt.status {
            Status::Stored => {
                self.screen.mark(&Mark::Stored, &to, &text);
                self.stored.truncate(MAX_UNRECEIPTED - 1);
                self.stored.push_front((receipt.msg_id, to, text));
            }
            Status::Delivered => self.screen.mark(&Mark::Delivered, &to, &text),
            // Another program of this name took the number meanwhile. So the line was not taken: it gets another number.
            Status::Refused if receipt.reason == Some(Reason::IdUsed) => {
                self.shared.state.lock().unsent.push_back((to, text));
            }
            Status::Refused => {
                let why = refusal_words(receipt.reason, receipt.text, self.screen.language);
                self.screen.mark(&Mark::Refused(why), &to, &text);
            }
        }
    }

    /// Sends lines for which there was no room, as far as there is now.
    fn send_waiting(&mut self, client: &Client) {
        let mut state = self.shared.state.lock();
        let State { phase: Phase::Online(sender), unsent, .. } = &mut *state else { return };
        while client.level() == Level::Two && client.unreceipted() < MAX_UNRECEIPTED {
            let Some((to, text)) = unsent.pop_front() else { return };
            self.shared.changed.notify_all();
            match sender.send(&to, &text) {
                Ok(()) => {}
                Err(ClientError::NotNumbered { why: Unnumbered::TooLong }) => self.screen.too_long(),
                Err(error) => {
                    if !is_kept(&error, sender) {
                        unsent.push_front((to, text));
                    }
                    return;
                }
            }
        }
    }

    fn is_leaving(&self) -> bool {
        matches!(self.shared.state.lock().phase, Phase::Leaving)
    }

    /// Notes that there is no connection.
    fn offline(&self, taken_over: bool, session: &SessionState) -> Result<(), Leaving> {
        let mut state = self.shared.state.lock();
        state.unreceipted = session.unreceipted().len() + session.drafts().len();
        if matches!(state.phase, Phase::Leaving) {
            return Err(Leaving);
        }
        state.phase = if taken_over { Phase::TakenOver } else { Phase::Offline };
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Tries until it succeeds, with growing pauses; after a takeover only when the user wants it.
    fn login_again(
        &mut self,
        lost: &ClientError,
        taken_over: bool,
        mut session: SessionState,
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
            match self.connect.resume(session) {
                Ok(client) => return self.online(client),
                Err(failed) => {
                    let error;
                    (session, error) = *failed;
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
        // Where there is no room now, there is when receipts come.
        while client.unreceipted() < MAX_UNRECEIPTED
            && let Some((to, text)) = state.unsent.pop_front()
        {
            match sender.send(&to, &text) {
                Ok(()) => kept += 1,
                Err(ClientError::NotNumbered { why: Unnumbered::TooLong }) => self.screen.too_long(),
                // When the connection breaks again, the line stays for the next one: the receiving side sees the end.
                Err(error) => {
                    if !is_kept(&error, &sender) {
                        state.unsent.push_front((to, text));
                    }
                    break;
                }
            }
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

/// Whether a line whose send has failed is remembered by the client: at level 2, unless the error says that it was not taken.
fn is_kept(error: &ClientError, sender: &Sender) -> bool {
    let not_taken = matches!(error, ClientError::NotNumbered { .. } | ClientError::Timeout { what: Awaited::Receipts });
    sender.level() == Level::Two && !not_taken
}

/// Why a line was refused: in our words, or in the server's.
fn refusal_words(reason: Option<Reason>, text: Option<String>, language: Language) -> String {
    let words = reason.map(|reason| reason.describe(language)).filter(|words| !words.is_empty());
    words.or(text).unwrap_or_default()
}

/// Waits for something and takes what arrived with it. Only the next call acknowledges it: it is on the screen by then.
fn take_batch(client: &mut Client, wait: Duration, arrived: &mut Vec<Event>) -> Result<(), ClientError> {
    arrived.extend(client.next_event(wait)?);
    while !arrived.is_empty() && arrived.len() < BATCH_MESSAGES {
        match client.next_arrived()? {
            Some(event) => arrived.push(event),
            None => break,
        }
    }
    Ok(())
}

fn unix_time() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
