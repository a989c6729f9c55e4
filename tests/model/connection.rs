//! A connection's thread, after `src/server/connection.rs`: the same calls in the same order, with the real handlers, over the model's socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::{Flushed, HungUp, Session};
use crate::protocol::{Chat, Message};
use crate::server::Shared;
use crate::server::admission::Ticket;
use crate::server::handlers::{ack, chat, login, logout, ping};
use crate::server::peer::{Ending, Flow, Peer, Run, Touched};
use crate::socket::{Socket, UP_BYTES, Up};
use crate::world::{World, tell};

/// Rounds of what the server does for a second.
const LINGER_ROUNDS: usize = 3;

const STEP: Duration = Duration::from_millis(5);

struct Connection {
    world: Arc<World>,
    socket: Arc<Socket>,
    peer: Peer,
    unread: VecDeque<Up>,
    read_bytes: u64,
    /// The texts of the present run, and their packets.
    run: (VecDeque<usize>, Vec<u8>),
}

/// The body of the thread.
pub fn serve(world: Arc<World>, shared: Arc<Shared>, socket: Arc<Socket>) {
    let peer = Peer {
        config: shared.config(),
        id: 0,
        address: ([127, 0, 0, 1], 1).into(),
        socket: socket.clone(),
        ticket: Ticket,
        session: None,
        now: shared.delivery.now(),
        recipient: None,
        run: Run::default(),
        touched: Touched::new(shared.clone()),
        shared,
    };
    let mut connection =
        Connection { world, socket, peer, unread: VecDeque::new(), read_bytes: 0, run: Default::default() };
    let ending = connection.read_loop();
    tell!("ends: {ending}");
    connection.end(&ending);
    connection.world.ended(matches!(ending, Ending::Fin | Ending::Logout));
    if let Some((_, mailbox)) = connection.peer.recipient.take() {
        connection.peer.shared.delivery.release(mailbox);
    }
    connection.socket.close();
}

impl Connection {
    fn read_loop(&mut self) -> Ending {
        loop {
            if let Some(ending) = self.execute_all() {
                return ending;
            }
            self.peer.touched.flush();
            match self.socket.read(None) {
                Err(error) => return Ending::Lost(error.to_string()),
                Ok(ups) if ups.is_empty() => return self.silence(),
                Ok(ups) => {
                    self.read_bytes += UP_BYTES * ups.len() as u64;
                    self.unread.extend(ups);
                    self.peer.now = self.peer.shared.delivery.now();
                }
            }
        }
    }

    fn execute_all(&mut self) -> Option<Ending> {
        let mut is_heard = false;
        let ending = loop {
            let Some(up) = self.unread.front().cloned() else { break None };
            match self.execute(up) {
                Flow::Next => {}
                Flow::End(ending) => break Some(ending),
                Flow::Wait => match self.peer.wait_for_room() {
                    None => continue,
                    Some(ending) => break Some(ending),
                },
            }
            is_heard = true;
            self.unread.pop_front();
        };
        let ending = self.accept_run().or(ending);
        if let Some(session) = self.peer.session.as_ref().filter(|session| is_heard && session.wants_word()) {
            let executed_bytes = self.read_bytes - UP_BYTES * self.unread.len() as u64;
            let (now, owed) = (self.peer.now, &mut self.peer.touched.owed);
            session.mailbox.heard(session, executed_bytes, now, &self.peer.shared.delivery, owed);
        }
        ending
    }

    fn accept_run(&mut self) -> Option<Ending> {
        loop {
            let flow = self.watch(None, chat::accept_run);
            match flow {
                Flow::Next => return None,
                Flow::End(ending) => return Some(ending),
                Flow::Wait => {
                    if let Some(ending) = self.peer.wait_for_room() {
                        return Some(ending);
                    }
                }
            }
        }
    }

    /// Tells the world which texts `call` accepts: those of the run in their order, then `last`, unless it joins the run.
    fn watch(&mut self, last: Option<usize>, call: impl FnOnce(&mut Peer, &[u8]) -> Flow) -> Flow {
        let was_closed = self.peer.session.as_ref().is_some_and(|session| session.is_closed());
        let (texts, packets) = &mut self.run;
        let count = |peer: &Peer| peer.touched.relayed + peer.touched.waiting;
        let (before, held) = (count(&self.peer), self.peer.run.packets_bytes());
        assert_eq!(held, packets.len());
        let flow = call(&mut self.peer, packets);
        let of_run = texts.len().saturating_sub(self.peer.run.len());
        // What was counted is given away by a flush, after which a message that has to wait is not accepted.
        let is_last_accepted = count(&self.peer).saturating_sub(before) > of_run as u64;
        for text in texts.drain(..of_run).chain(last.filter(|_| is_last_accepted)) {
            tell!("accepted: {text}");
            assert!(!was_closed, "text {text} is accepted from a session that was closed");
            self.world.accepted(text, self.socket.incarnation);
        }
        let left = packets.len().saturating_sub(self.peer.run.packets_bytes());
        packets.drain(..left);
        flow
    }

    fn execute(&mut self, up: Up) -> Flow {
        let user = self.socket.user;
        let name = self.world.name(user);
        if !matches!(up, Up::Chat { .. })
            && let Some(ending) = self.accept_run()
        {
            return Flow::End(ending);
        }
        match up {
            Up::Login { last_seq } => {
                let level = if self.world.is_level_2(user) { Some(2) } else { None };
                login::handle_login(&mut self.peer, name, level, last_seq)
            }
            Up::Chat { text, msg_id } => {
                let words = text.to_string();
                let to = self.world.name(self.world.recipient(text));
                let chat = Chat { from: name, to, text: &words, time: 1, msg_id, seq: None };
                let mut packet = Vec::new();
                Message::Chat(Chat { msg_id: None, ..chat }).encode(&self.peer.shared.delivery.cipher, &mut packet);
                let exact = msg_id.is_none().then_some(&packet[..]);
                let held = self.peer.run.packets_bytes();
                let flow = self.watch(Some(text), |peer, before| chat::handle_chat(peer, chat, exact, before));
                if self.peer.run.packets_bytes() > held {
                    self.run.0.push_back(text);
                    self.run.1.extend_from_slice(&packet);
                }
                flow
            }
            Up::Ack(seq) => ack::handle_ack(&mut self.peer, seq),
            Up::Ping => ping::handle_ping(&mut self.peer, 1),
            Up::Logout => logout::handle_logout(),
        }
    }

    fn silence(&self) -> Ending {
        let session = self.peer.session.as_ref();
        let hung_up = session.and_then(|session| session.outbox.hung_up());
        match (session, hung_up) {
            (Some(session), _) if session.is_closed() => Ending::of_closed(session),
            _ if self.peer.shared.is_stopping() => Ending::Stopping,
            (_, Some(why)) => Ending::of_hung_up(why),
            (Some(session), _) if session.outbox.is_broken() => Ending::Lost("it was reset".into()),
            _ => Ending::Fin,
        }
    }

    fn end(&mut self, ending: &Ending) {
        self.peer.touched.flush();
        match self.peer.session.clone() {
            Some(session) => self.end_session(&session, ending),
            None => {
                // A refused login: its answer is read first.
                let _ = self.socket.shutdown(std::net::Shutdown::Write);
                self.discard();
            }
        }
    }

    fn end_session(&mut self, session: &Arc<Session>, ending: &Ending) {
        let took_leave = matches!(ending, Ending::Fin | Ending::Logout);
        let shared = self.peer.shared.clone();
        let delivery = &shared.delivery;
        session.mailbox.suspend(session, took_leave);
        session.close();
        let notice = ending.notice(self.peer.config.language).filter(|_| session.is_level_2());
        if let Some((code, text)) = &notice {
            let mut packet = Vec::new();
            Message::ServerNotice { code: *code, text }.encode(&delivery.cipher, &mut packet);
            session.write_receipts(&delivery.cipher);
            session.outbox.push_answer(&packet);
        }
        match ending {
            Ending::Stopping => self.settle(session),
            Ending::Replaced | Ending::Kicked | Ending::HungUp(_) if notice.is_some() => self.settle(session),
            Ending::Logout | Ending::Protocol(_) | Ending::NoRoom => {
                if notice.is_some() {
                    self.write_rest(session);
                }
                session.outbox.finish();
                self.discard();
            }
            _ => {}
        }
        let now = delivery.now();
        let owed = &mut self.peer.touched.owed;
        session.mailbox.detach(session, now, delivery, owed);
        self.peer.touched.flush();
        session.outbox.hang_up(HungUp::TooSlow);
        shared.writers.forget(session);
    }

    fn write_rest(&self, session: &Session) {
        let mut scratch = Vec::new();
        if session.outbox.flush(&mut scratch) == Flushed::NeedsWriter {
            let _ = session.outbox.drain(&mut scratch, STEP, false);
            session.outbox.resign_writer();
        }
    }

    fn settle(&mut self, session: &Session) {
        let mut scratch = Vec::new();
        self.write_rest(session);
        for _ in 0..LINGER_ROUNDS {
            if session.outbox.is_settled() || session.outbox.pause(STEP) {
                break;
            }
            if session.outbox.flush(&mut scratch) == Flushed::NeedsWriter {
                session.outbox.resign_writer();
            }
        }
        session.outbox.finish();
    }

    fn discard(&mut self) {
        for _ in 0..LINGER_ROUNDS {
            match self.socket.read(Some(STEP)) {
                Ok(ups) if !ups.is_empty() => {}
                _ => return,
            }
        }
    }
}
