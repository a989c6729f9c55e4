//! Sends letters without anybody waiting for it: a thread each, a few tries, and a file for what could not be sent.
//!
//! A letter is written to disk only when its first try has failed: the letter may be about a disk that is stuck.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lettre::Message;
use parking_lot::{Condvar, Mutex};

use super::smtp::server;
use super::{Fault, Letter, MailError, Sent, send_once};
use crate::config::MailConfig;
use crate::logging::one_line;
use crate::{limits, threads};

/// Numbers the letters of this process, so that two of one millisecond have two files.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Where letters are posted. Safe from any thread; clones are the same one.
#[derive(Clone)]
pub struct Post(Arc<Office>);

struct Office {
    dir: PathBuf,
    pauses: Vec<Duration>,
    desk: Mutex<Desk>, // lock: a leaf
    stop: Condvar,
}

#[derive(Default)]
struct Desk {
    stopped: bool,
    under_way: Vec<Arc<Mail>>,
}

/// A letter with its envelope.
struct Mail {
    subject: String,
    message: Message,
    /// The file that it is kept in when it cannot be sent.
    path: PathBuf,
    /// The file is there, whole.
    is_kept: AtomicBool,
    is_sent: AtomicBool,
}

impl Post {
    /// What cannot be sent is kept in the directory `mail` of the data directory. Between the tries of a letter are these pauses; the server
    /// takes [`limits::MAIL_PAUSES`].
    pub fn new(data: &Path, pauses: &[Duration]) -> Post {
        let (desk, stop) = (Mutex::default(), Condvar::new());
        Post(Arc::new(Office { dir: data.join("mail"), pauses: pauses.to_vec(), desk, stop }))
    }

    /// Sends a letter on a thread of its own and returns at once, without touching disk or network; `done` is called on that thread with the result,
    /// at the latest after three times `smtp_timeout` and the pauses (and the name service's time, see [`send_once`]). What happens is logged.
    ///
    /// # Errors
    /// Nobody to write to, too many letters under way, no thread: nothing was begun, and `done` is not called.
    pub fn send(
        &self,
        letter: &Letter,
        config: &MailConfig,
        done: impl FnOnce(Result<Sent, MailError>) + Send + 'static,
    ) -> Result<(), MailError> {
        let now = SystemTime::now();
        let message = letter.message(config, now)?;
        let path = self.0.dir.join(file_name(now, NUMBER.fetch_add(1, Ordering::Relaxed)));
        let subject = one_line(&letter.subject).into_owned();
        let error = |fault| MailError { server: server(config), fault };
        let mail =
            Arc::new(Mail { subject, message, path, is_kept: AtomicBool::new(false), is_sent: AtomicBool::new(false) });
        let under_way = UnderWay::begin(&self.0, mail.clone()).ok_or_else(|| error(Fault::TooMany))?;
        if self.0.desk.lock().stopped {
            // There may be no time for it any more.
            mail.keep();
        }
        let config = config.clone();
        let carry = move || {
            let result = under_way.carry(&config);
            drop(under_way);
            done(result);
        };
        match threads::spawn("mail", limits::MAIL_STACK_BYTES, carry) {
            Ok(_detached) => Ok(()),
            Err(why) => Err(error(Fault::NoThread(why.to_string()))),
        }
    }

    /// For the end of the server: what is under way is written to its files, and nothing is tried again. Waits for the disk, never for a mail
    /// server: threads in the middle of a try end by themselves, and one that succeeds after all removes its file.
    pub fn stop(&self) {
        let under_way = {
            let mut desk = self.0.desk.lock();
            desk.stopped = true;
            desk.under_way.clone()
        };
        self.0.stop.notify_all();
        under_way.iter().for_each(|mail| mail.keep());
    }
}

impl Office {
    /// Waits, unless everything stops: then it says so.
    fn stops_within(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut desk = self.desk.lock();
        while !desk.stopped && !self.stop.wait_until(&mut desk, until).timed_out() {}
        desk.stopped
    }
}

/// A mail on the office's list, for as long as this lives.
struct UnderWay {
    office: Arc<Office>,
    mail: Arc<Mail>,
}

impl UnderWay {
    /// `None`: there are as many as may be.
    fn begin(office: &Arc<Office>, mail: Arc<Mail>) -> Option<UnderWay> {
        let mut desk = office.desk.lock();
        if desk.under_way.len() >= limits::MAIL_THREADS {
            return None;
        }
        desk.under_way.push(mail.clone());
        Some(UnderWay { office: office.clone(), mail })
    }

    /// Tries until it is sent, cannot be, or everything stops.
    fn carry(&self, config: &MailConfig) -> Result<Sent, MailError> {
        let Mail { subject, message, path, .. } = &*self.mail;
        let mut pauses = self.office.pauses.iter();
        loop {
            let error = match send_once(message, config) {
                Ok(sent) => {
                    self.mail.forget();
                    log::info!("mail: sent \"{subject}\" ({})", sent.reply);
                    sent.refused.iter().for_each(|refusal| log::warn!("mail: \"{subject}\" not to {refusal}"));
                    return Ok(sent);
                }
                Err(error) => error,
            };
            self.mail.keep();
            let Some(pause) = pauses.next().filter(|_| error.is_transient()) else {
                log::error!("mail: \"{subject}\" is not sent, see {}: {error}", path.display());
                return Err(error);
            };
            log::warn!("mail: \"{subject}\" is tried again in {pause:?}: {error}");
            if self.office.stops_within(*pause) {
                return Err(error);
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.office.desk.lock().under_way.retain(|mail| !Arc::ptr_eq(mail, &self.mail));
    }
}

impl Mail {
    /// Writes its file, unless it is there or the mail has been sent.
    fn keep(&self) {
        if self.is_sent.load(SeqCst) || self.is_kept.load(SeqCst) {
            return;
        }
        // Two may write it at one time, under temporary names of their own: no lock is held while the disk works.
        match write_file(&self.path, &self.message.formatted()) {
            Ok(()) => self.is_kept.store(true, SeqCst),
            Err(why) => log::error!("mail: {} cannot be written ({why}); make room on the disk", self.path.display()),
        }
        if self.is_sent.load(SeqCst) {
            // It was sent while it was written: one of the two removes it.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// It is sent: removes its file, if there is one.
    fn forget(&self) {
        self.is_sent.store(true, SeqCst);
        if self.is_kept.load(SeqCst) {
            // It may have been the oldest of too many.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// In the order of time: Unix milliseconds, all with as many digits.
fn file_name(at: SystemTime, number: u64) -> String {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{at:014}-{number}.eml")
}

/// Under a temporary name first, so that nobody finds half a mail; then the oldest ones make room.
fn write_file(path: &Path, mail: &[u8]) -> io::Result<()> {
    let dir = path.parent().expect("a file in the directory `mail`");
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = path.with_extension(format!("{}.tmp", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(mail).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| remove_oldest(dir, limits::KEPT_MAILS))
}

/// Leaves so many of the files. What a crash left under a temporary name is old some day, too.
fn remove_oldest(dir: &Path, keep: usize) -> io::Result<()> {
    let mut names: Vec<PathBuf> = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "eml" || extension == "tmp"));
    names.sort();
    // Somebody else may have removed one of them.
    names.iter().rev().skip(keep).try_for_each(|path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_kept_mail_is_its_users_alone_and_the_oldest_make_room() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("mail");
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let names: Vec<String> =
            (0..limits::KEPT_MAILS as u64 + 2).map(|n| file_name(at(999_999_990 + n), n)).collect();
        for name in &names {
            write_file(&dir.join(name), b"Subject: x\r\n").unwrap();
        }
        let left = fs::read_dir(&dir).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, names[2..]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(&left[0]))), (0o700, 0o600));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("mail/1.eml");
        fs::create_dir_all(&path).unwrap();
        assert!(write_file(&path, b"x").is_err());
        assert_eq!(fs::read_dir(data.path().join("mail")).unwrap().count(), 1);
    }
}
