//! A server that is wrong on purpose, as first servers are: `cargo run --example wrong_server`, and then
//! `chatserver conformance --addr 127.0.0.1:9000` finds its six faults. Everything else it does right.
//!
//! | fault | found by |
//! |---|---|
//! | 1: it trusts the sender that a packet names | the group `sender`; `protobuf/a chat with its sender twice` |
//! | 2: of the padding it looks at the last byte alone | `cipher`: `right but for`, `counting up`, `ANSI X9.23`, `is wrong`, … |
//! | 3: it answers packets of unknown types and goes on | `types`, level 1; `stream/an unknown type`; `greetings/… PostgreSQL` |
//! | 4: it delivers what waits from the newest to the oldest | `offline`: everything with several texts; `takeover/what was waiting` |
//! | 5: it forgets what waits as soon as it is written | `offline/what was waiting`, `offline/the same`; `takeover/what was waiting` |
//! | 6: a sender's thread waits for its recipient's socket | `chat/a recipient that does not read` |

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::NoPadding};
use chatserver::protocol::{
    Chat, Cipher, Decoder, Frame, LoginAnswer, Message, PUBLISHED_KEY, UserName, encode_packet,
};

type Socket = Arc<Mutex<TcpStream>>;

#[derive(Default)]
struct Users {
    online: HashMap<Arc<str>, Socket>,
    waiting: HashMap<Arc<str>, Vec<Vec<u8>>>,
}

type Shared = Arc<Mutex<Users>>;

#[allow(dead_code)] // The test that shows its faults includes this file and calls `serve`.
fn main() -> std::io::Result<()> {
    serve(&TcpListener::bind("127.0.0.1:9000")?);
    Ok(())
}

/// Serves until the program ends.
pub fn serve(listener: &TcpListener) {
    let users = Shared::default();
    for socket in listener.incoming().flatten() {
        let users = users.clone();
        thread::spawn(move || {
            let mut user = None;
            let _ = converse(&socket, &users, &mut user);
            if let Some((name, mine)) = user {
                let mut users = lock(&users);
                if users.online.get(&name).is_some_and(|present| Arc::ptr_eq(present, &mine)) {
                    users.online.remove(&name);
                }
            }
            let _ = socket.shutdown(Shutdown::Both);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Executes packets until one of them is wrong: `None`.
fn converse(mut socket: &TcpStream, users: &Shared, user: &mut Option<(Arc<str>, Socket)>) -> Option<()> {
    let cipher = Cipher::new(PUBLISHED_KEY).ok()?;
    let (mut unread, mut bytes, mut decoder) = (Vec::new(), [0; 4096], Decoder::default());
    loop {
        while let Some(frame) = Frame::parse(&unread, if user.is_some() { 65_536 } else { 1_024 }).ok()? {
            let length = frame.packet.len();
            if user.is_some() && !matches!(frame.kind, 1..=5) {
                let _ = lock(&user.as_ref()?.1).write_all(&answer(false, "what is that?", &cipher)); // fault 3
            } else {
                let resealed = reseal(frame, &cipher)?;
                let decoded = decoder.decode(&cipher, Frame::parse(&resealed, 65_536).ok()??).ok()?;
                match decoded.message {
                    Message::ClientLogin { name, .. } if user.is_none() => {
                        *user = Some(log_in(name, socket, users, &cipher)?)
                    }
                    Message::Chat(chat) => relay(chat, users, user.as_ref()?, &cipher)?,
                    Message::ClientPing { .. } if user.is_some() => {}
                    _ => return None,
                }
            }
            unread.drain(..length);
        }
        match socket.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(count) => unread.extend_from_slice(&bytes[..count]),
        }
    }
}

/// Takes the padding off as its last byte says, and seals what is left rightly. Fault 2.
fn reseal(frame: Frame<'_>, cipher: &Cipher) -> Option<Vec<u8>> {
    let mut plain = frame.body().to_vec();
    cbc::Decryptor::<aes::Aes128>::new(PUBLISHED_KEY.into(), PUBLISHED_KEY.into())
        .decrypt_padded::<NoPadding>(&mut plain)
        .ok()?;
    let padding = usize::from(*plain.last()?);
    let message = plain.get(..plain.len().checked_sub(padding).filter(|_| padding <= 16)?)?;
    let mut packet = Vec::new();
    encode_packet(frame.kind, message, cipher, &mut packet);
    Some(packet)
}

fn answer(login: bool, tips: &str, cipher: &Cipher) -> Vec<u8> {
    let mut packet = Vec::new();
    Message::ServerAcceptLogin(LoginAnswer { login, tips, time: 0, granted: None }).encode(cipher, &mut packet);
    packet
}

fn log_in(name: &str, mut socket: &TcpStream, users: &Shared, cipher: &Cipher) -> Option<(Arc<str>, Socket)> {
    let Ok(name) = UserName::parse(name) else {
        let _ = socket.write_all(&answer(false, "please choose another name", cipher));
        return None;
    };
    let mine = Arc::new(Mutex::new(socket.try_clone().ok()?));
    let mut writing = lock(&mine); // whoever finds it online waits until what waited is written
    let mut users = lock(users);
    if let Some(old) = users.online.insert(name.key().clone(), mine.clone()) {
        thread::spawn(move || lock(&old).shutdown(Shutdown::Both));
    }
    let waiting = users.waiting.remove(name.key()).unwrap_or_default(); // fault 5
    drop(users);
    let _ = writing.write_all(&answer(true, "welcome", cipher));
    for packet in waiting.iter().rev() {
        let _ = writing.write_all(packet); // fault 4
    }
    drop(writing);
    Some((name.key().clone(), mine))
}

fn relay(chat: Chat<'_>, users: &Shared, (name, mine): &(Arc<str>, Socket), cipher: &Cipher) -> Option<()> {
    // Fault 1: nobody compares chat.from with the name.
    let (Ok(to), true) = (UserName::parse(chat.to), chat.text.len() <= 60_000) else { return Some(()) };
    let mut packet = Vec::new();
    Message::Chat(Chat { msg_id: None, seq: None, ..chat }).encode(cipher, &mut packet);
    let mut users = lock(users);
    users.online.get(name).filter(|present| Arc::ptr_eq(present, mine))?; // replaced: nothing more is executed
    let Some(recipient) = users.online.get(to.key()).cloned() else {
        users.waiting.entry(to.key().clone()).or_default().push(packet);
        return Some(());
    };
    drop(users);
    let _ = lock(&recipient).write_all(&packet); // fault 6
    Some(())
}
