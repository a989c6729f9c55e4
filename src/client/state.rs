//! What a client of level 2 must remember from one connection to the next, and, if it wants, from one run to the next: what it has
//! taken in, and what it has sent without a receipt so far.
//!
//! The only file of this room that knows the disk. It must not know a socket or a clock.
//! Read first: PROTOCOL.md, "Level 2".

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::language::{Language, say};
use crate::protocol::{MAX_NUMBER, UserName};

/// Most messages without a receipt, and most numbers remembered per sender: as many as a server remembers for each sender.
pub const MAX_UNRECEIPTED: usize = 1024;

/// Most senders whose numbers are remembered. Past it the one who was heard least recently is forgotten.
pub const MAX_SENDERS: usize = 4096;

/// Of the file. A later program may write another one, which this one refuses.
const FORMAT: u32 = 1;

/// A message that was sent and has no receipt yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreceipted {
    /// Its number.
    pub msg_id: u64,
    /// The recipient.
    pub to: String,
    /// The text.
    pub text: String,
    /// Unix seconds.
    pub time: i64,
}

/// A message that was never written to a server, and so has no number yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// The recipient.
    pub to: String,
    /// The text.
    pub text: String,
    /// Unix seconds.
    pub time: i64,
}

/// A user's side of level 2, between two connections. [`Connect::resume`](super::Connect::resume) takes it,
/// [`Client::into_state`](super::Client::into_state) gives it back.
///
/// Two programs that log in with one name need a state each, and take over from each other as ever: what one has taken in the other
/// does not get again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Stored")]
pub struct SessionState {
    pub(super) name: String,
    pub(super) taken: Taken,
    pub(super) sent: Sent,
    pub(super) drafts: VecDeque<Draft>,
}

impl SessionState {
    /// Of a user who has taken in nothing and sent nothing.
    pub fn new(name: &str) -> SessionState {
        SessionState { name: name.to_owned(), ..SessionState::default() }
    }

    /// The name that it logs in with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The highest `seq` that was taken in; 0 = none.
    pub fn last_seq(&self) -> u64 {
        self.taken.last_seq
    }

    /// The highest `msg_id` that was used; 0 = none.
    pub fn last_msg_id(&self) -> u64 {
        self.sent.highest
    }

    /// What was sent and has no receipt, oldest first; at most [`MAX_UNRECEIPTED`].
    pub fn unreceipted(&self) -> impl ExactSizeIterator<Item = &Unreceipted> {
        self.sent.pending.iter()
    }

    /// What is to be sent after those, oldest first. It gets its numbers when it is written: which ones are free only the login tells.
    pub fn drafts(&self) -> impl ExactSizeIterator<Item = &Draft> {
        self.drafts.iter()
    }

    /// Adds a message, to be sent after the next login. `time` in Unix seconds.
    pub fn add(&mut self, to: &str, text: &str, time: i64) {
        self.drafts.push_back(Draft { to: to.to_owned(), text: text.to_owned(), time });
    }

    /// Reads the file that [`SessionState::save`] wrote, or starts anew when there is none.
    ///
    /// # Errors
    /// As [`SessionState::load`], and [`StateError::OtherUser`].
    pub fn load_or_new(path: &Path, name: &str) -> Result<SessionState, StateError> {
        let state = match SessionState::load(path) {
            Err(StateError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(SessionState::new(name));
            }
            loaded => loaded?,
        };
        if user_key(&state.name) != user_key(name) {
            return Err(StateError::OtherUser { path: path.to_owned(), name: state.name, wanted: name.to_owned() });
        }
        Ok(state)
    }

    /// Reads the file that [`SessionState::save`] wrote.
    ///
    /// # Errors
    /// [`StateError::Read`], [`StateError::Damaged`]. Without the file's content messages that were acknowledged may be shown again and
    /// those without a receipt are not sent again: only a person can decide to go on without it, by moving it away.
    pub fn load(path: &Path) -> Result<SessionState, StateError> {
        let bytes = std::fs::read(path).map_err(|source| StateError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StateError::Damaged { path: path.to_owned(), why: error.to_string() })
    }

    /// Writes it to a file that only its owner may read: under a temporary name first, then renamed, both made durable. After a crash,
    /// or a loss of power, there is the old file or the new one. One program at a time writes a file.
    ///
    /// # Errors
    /// [`StateError::Write`]: the old file is still there, unless only the last step failed.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        write_file(path, &encode(&self.name, &self.taken, &self.sent, &self.drafts))
    }
}

impl Serialize for SessionState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        stored(&self.name, &self.taken, &self.sent, &self.drafts).serialize(serializer)
    }
}

/// What the file holds, from parts that need not stand together.
pub(super) fn encode(name: &str, taken: &Taken, sent: &Sent, drafts: &VecDeque<Draft>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(&stored(name, taken, sent, drafts)).expect("numbers and strings are JSON");
    bytes.push(b'\n');
    bytes
}

/// Writes the whole file or leaves the old one. See [`SessionState::save`].
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    replace_file(path, bytes).map_err(|source| StateError::Write { path: path.to_owned(), source })
}

fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // Of a run that was killed. Made afresh, so that it is ours and nobody else may read it.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// What was taken in.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    /// The highest `seq`.
    pub(super) last_seq: u64,
    pub(super) seen: Seen,
}

/// What was sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent {
    /// The highest `msg_id` used.
    pub(super) highest: u64,
    /// Without a receipt, in the order of their numbers.
    pub(super) pending: VecDeque<Unreceipted>,
}

/// The numbers of the messages that were taken in, by sender.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    senders: HashMap<String, SeenFrom>,
    /// Grows with each message: who was heard when.
    heard: u64,
}

#[derive(Debug, Clone, Default)]
struct SeenFrom {
    /// As they came; the oldest goes first.
    msg_ids: VecDeque<u64>,
    highest: u64,
    heard: u64,
}

impl Seen {
    /// Notes a message; `false` = it was there already.
    pub(super) fn insert(&mut self, from: &str, msg_id: u64) -> bool {
        self.heard += 1;
        let key = user_key(from);
        if !self.senders.contains_key(&key) && self.senders.len() >= MAX_SENDERS {
            self.forget_one();
        }
        let sender = self.senders.entry(key).or_default();
        sender.heard = self.heard;
        sender.insert(msg_id)
    }

    /// Looks at all: only for a sender who is new when there are very many.
    fn forget_one(&mut self) {
        let quietest = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(key, _)| key.clone());
        if let Some(key) = quietest {
            self.senders.remove(&key);
        }
    }
}

impl SeenFrom {
    fn insert(&mut self, msg_id: u64) -> bool {
        // Numbers grow: most often there is nothing to search.
        if msg_id <= self.highest && self.msg_ids.contains(&msg_id) {
            return false;
        }
        if self.msg_ids.len() >= MAX_UNRECEIPTED {
            self.msg_ids.pop_front();
        }
        self.msg_ids.push_back(msg_id);
        self.highest = self.highest.max(msg_id);
        true
    }
}

/// Two spellings of one user's name are one user.
fn user_key(name: &str) -> String {
    UserName::parse(name).map_or_else(|_| name.to_owned(), |name| name.key().to_string())
}

/// The file's content, borrowed or owned.
#[derive(Serialize)]
struct StoredRef<'a> {
    format: u32,
    name: &'a str,
    last_seq: u64,
    last_msg_id: u64,
    unreceipted: &'a VecDeque<Unreceipted>,
    drafts: &'a VecDeque<Draft>,
    /// Whoever was heard last stands last.
    seen: Vec<SenderRef<'a>>,
}

#[derive(Serialize)]
struct SenderRef<'a> {
    from: &'a str,
    msg_ids: &'a VecDeque<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    name: String,
    last_seq: u64,
    last_msg_id: u64,
    unreceipted: VecDeque<Unreceipted>,
    drafts: VecDeque<Draft>,
    seen: Vec<Sender>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sender {
    from: String,
    msg_ids: Vec<u64>,
}

fn stored<'a>(name: &'a str, taken: &'a Taken, sent: &'a Sent, drafts: &'a VecDeque<Draft>) -> StoredRef<'a> {
    let mut senders: Vec<_> = taken.seen.senders.iter().collect();
    senders.sort_unstable_by_key(|(_, sender)| sender.heard);
    let seen = senders.into_iter().map(|(from, sender)| SenderRef { from, msg_ids: &sender.msg_ids }).collect();
    let (last_seq, last_msg_id, unreceipted) = (taken.last_seq, sent.highest, &sent.pending);
    StoredRef { format: FORMAT, name, last_seq, last_msg_id, unreceipted, drafts, seen }
}

impl TryFrom<Stored> for SessionState {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<SessionState, &'static str> {
        if stored.format != FORMAT {
            return Err("another version of the program wrote it");
        }
        let numbers = || stored.unreceipted.iter().map(|message| message.msg_id);
        let grow = numbers().zip(numbers().skip(1)).all(|(one, next)| one < next);
        let highest = numbers().next_back().unwrap_or(0);
        if !grow
            || highest > stored.last_msg_id
            || stored.unreceipted.len() > MAX_UNRECEIPTED
            || numbers().any(|n| n == 0)
        {
            return Err("the numbers of its messages do not fit together");
        }
        if stored.last_seq > MAX_NUMBER || stored.last_msg_id > MAX_NUMBER {
            return Err("a number in it is too great");
        }
        let mut seen = Seen::default();
        for sender in stored.seen {
            for msg_id in sender.msg_ids {
                seen.insert(&sender.from, msg_id);
            }
        }
        Ok(SessionState {
            name: stored.name,
            taken: Taken { last_seq: stored.last_seq, seen },
            sent: Sent { highest: stored.last_msg_id, pending: stored.unreceipted },
            drafts: stored.drafts,
        })
    }
}

/// Why a state cannot be read or written; `Display` is English.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.describe(Language::English))]
pub enum StateError {
    /// The file cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The file cannot be written.
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The file is not what was written.
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// The file is another user's.
    OtherUser {
        /// Which.
        path: PathBuf,
        /// Whose.
        name: String,
        /// Who was to log in.
        wanted: String,
    },
}

impl StateError {
    /// A sentence for the person at the terminal.
    pub fn describe(&self, language: Language) -> String {
        match self {
            StateError::Read { path, source } => {
                let path = path.display();
                say!(language, "cannot read the state in {path}: {source}", "无法读取状态文件 {path}：{source}")
            }
            StateError::Write { path, source } => {
                let path = path.display();
                say!(language, "cannot write the state to {path}: {source}", "无法写入状态文件 {path}：{source}")
            }
            StateError::Damaged { path, why } => {
                let path = path.display();
                say!(
                    language,
                    "{path} is not a state that can be used: {why}; move it away to start anew",
                    "{path} 不是可用的状态文件：{why}；如要重新开始，请将其移走"
                )
            }
            StateError::OtherUser { path, name, wanted } => {
                let path = path.display();
                say!(
                    language,
                    "{path} is the state of {name}, not of {wanted}: give each user a file of its own",
                    "{path} 是 {name} 的状态文件，不是 {wanted} 的：每个用户请使用各自的文件"
                )
            }
        }
    }
}
