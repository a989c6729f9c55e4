//! `chatserver serve`, and plain `chatserver`: configuration, data directory, log, signals, and then the server until it is told to stop.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, flock};

use super::fail;
use super::signals::{Wish, Wishes};
use crate::config::{Config, Origin, Resolved, Sources};
use crate::heap;
use crate::logging::{self, Logging};
use crate::notify;
use crate::server::{Server, Stopped};

/// Run the server
///
/// It prints "listening on ADDRESS" as its first line on standard output and logs to standard error and to DIR/chatserver.log. Ctrl-C or SIGTERM stops it:
/// what is on its way is delivered or saved first. A second one stops it at once. SIGHUP opens the log anew and reads the configuration again; what is
/// wrong there is logged and changes nothing.
///
/// Settings come from DIR/chatserver.toml or --config FILE, from environment variables (CHATSERVER_ and the setting's name in upper case) and from these
/// flags, each stronger than the one before. `chatserver config sample` prints all of them with their meaning.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,

    /// Address and port to listen on; port 0 takes any free one [default: 127.0.0.1:8989]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    listen: Option<SocketAddr>,

    /// Listen beyond this machine although the key is the published one: everybody can read everything
    #[arg(long)]
    allow_published_key: bool,
}

/// Where the settings come from.
#[derive(Debug, clap::Args)]
pub struct SettingsArgs {
    /// Configuration file [default: DIR/chatserver.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory of the database, the log and the lock [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl SettingsArgs {
    /// These flags beside this process's environment.
    pub fn sources(self) -> Sources {
        Sources { file: self.config, data: self.data, ..Sources::of_process() }
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, like 127.0.0.1:8989 or [::1]:8989".to_owned())
}

/// Runs the command: returns when the server has stopped.
pub fn run(args: Args) -> ExitCode {
    heap::set_up();
    let sources =
        Sources { listen: args.listen, allow_published_key: args.allow_published_key, ..args.settings.sources() };
    let resolved = match Resolved::from_sources(&sources) {
        Ok(resolved) => resolved,
        Err(error) => return fail(error),
    };
    // Everything that this process creates is its user's alone, whatever library creates it.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let (_lock, log, wishes) = match prepare(&resolved.config) {
        Ok(prepared) => prepared,
        Err(why) => return fail(why),
    };
    log_start(&resolved);
    let code = serve(Running { sources, resolved, log, wishes });
    log::logger().flush();
    code
}

/// What must be in place before the server: its directory, the lock on it, the log, the signals.
fn prepare(config: &Config) -> Result<(File, Logging, Wishes), String> {
    create_directory(&config.data)?;
    let lock = lock_directory(&config.data, "stop it, or give this one a directory of its own with --data DIR")?;
    let file = config.data.join(logging::FILE_NAME);
    let log = logging::start(config.log_level, &file).map_err(|error| {
        format!(
            "the log {} cannot be opened ({error}); correct its permissions, or name another directory with --data DIR",
            file.display()
        )
    })?;
    let wishes = Wishes::install()
        .map_err(|error| format!("the signal handlers cannot be installed ({error}); start the server again"))?;
    Ok((lock, log, wishes))
}

/// The directory with mode 0700; one that is there keeps its mode.
pub(super) fn create_directory(dir: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        format!("the data directory {} cannot be created ({error}); name another with --data DIR", dir.display())
    })
}

/// File name of the lock in the data directory.
pub(super) const LOCK: &str = "lock";

/// The lock that keeps a second server away. It lasts as long as the file is open, so a killed server leaves none behind. `advice` ends
/// the sentence that is given when it is held.
pub(super) fn lock_directory(dir: &Path, advice: &str) -> Result<File, String> {
    let path = dir.join(LOCK);
    let cannot = |error: io::Error| {
        format!(
            "the lock {} cannot be taken ({error}); correct its permissions, or name another directory with --data DIR",
            path.display()
        )
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(cannot)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let process = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            return Err(format!("another server{process} uses the data directory {}; {advice}", dir.display()));
        }
        Err(error) => return Err(cannot(error.into())),
    }
    // Only for people, and for the message above.
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(cannot)?;
    Ok(file)
}

fn log_start(resolved: &Resolved) {
    log::info!("chatserver {} starts, process {}", env!("CARGO_PKG_VERSION"), std::process::id());
    match &resolved.file {
        Some(file) => log::info!("configuration: {}", file.display()),
        None => {
            log::info!("configuration: there is no {}", resolved.config.data.join(crate::config::FILE_NAME).display())
        }
    }
    for (name, value, origin) in resolved.lines().into_iter().filter(|line| line.2 != Origin::Default) {
        log::info!("configuration: {name} = {value} ({origin})");
    }
    if let Some(file) = resolved.exposed() {
        let file = file.display();
        log::warn!(
            "there is a secret in {file}, and other users can read it: chmod 600 {file}, or use key_file and smtp_password_file"
        );
    }
    warn_of_others(&resolved.config.data);
}

/// Whoever may write into the directory may replace the database.
fn warn_of_others(dir: &Path) {
    match std::fs::metadata(dir) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            log::warn!(
                "other users may enter the data directory {}; make it yours alone: chmod 700 {}",
                dir.display(),
                dir.display()
            );
        }
        _ => {}
    }
}

/// What the server was started with, and what reaches it from outside.
struct Running {
    sources: Sources,
    resolved: Resolved,
    log: Logging,
    wishes: Wishes,
}

fn serve(mut running: Running) -> ExitCode {
    let server = match Server::start(running.resolved.config.clone()) {
        Ok(server) => server,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    announce(server.local_addr());
    notify::ready();
    // Not inside the log line: a level below info does not evaluate it.
    let signal = running.serve_until_stopped(&server);
    log::info!("{signal}: stopping");
    notify::stopping();
    let Stopped { delivered, saved, unsaved } = server.stop();
    log::info!("stopped: {delivered} messages delivered, {saved} saved");
    if unsaved > 0 {
        log::error!("{unsaved} accepted messages could not be saved and are lost; the lines above say why");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Running {
    /// Heeds wishes and tells the service manager that the server is alive, until it is to stop; gives the signal's name.
    fn serve_until_stopped(&mut self, server: &Server) -> &'static str {
        let pulse = notify::watchdog_interval();
        let mut is_stuck = false;
        loop {
            match self.wishes.wait(pulse.unwrap_or(Duration::MAX)) {
                Some(Wish::Stop(signal)) => return signal,
                Some(Wish::Reload) => {
                    notify::reloading();
                    self.log.reopen();
                    self.reload(server);
                    notify::ready();
                }
                None => {}
            }
            // Whatever the disk or a mail server does, this thread waits for neither.
            if server.responds() {
                is_stuck = false;
                notify::alive();
            } else if !std::mem::replace(&mut is_stuck, true) {
                log::error!(
                    "the server does not respond: a lock is stuck; the service manager is no longer told that it is alive"
                );
            }
        }
    }

    /// Reads the configuration again. What is wrong with it is logged, and changes nothing.
    fn reload(&mut self, server: &Server) {
        let resolved = match self.read_again() {
            Ok(resolved) => resolved,
            Err(why) => {
                for line in why.lines() {
                    log::error!("SIGHUP: {line}");
                }
                log::error!("SIGHUP: the log is opened anew, the configuration stays as it was");
                return;
            }
        };
        match server.reload(&resolved.config) {
            Ok(waiting) => {
                self.log.set_level(resolved.config.log_level);
                let before = self.resolved.lines();
                let changed = resolved.lines().into_iter().zip(before).filter(|(new, old)| new.1 != old.1);
                for ((name, value, origin), (_, old, _)) in changed {
                    let when = if waiting.contains(&name) { "; takes effect at the next start" } else { "" };
                    log::info!("SIGHUP: {name} = {value} ({origin}), was {old}{when}");
                }
                if waiting.contains(&"key") {
                    log::info!("SIGHUP: a new key takes effect at the next start");
                }
                log::info!("SIGHUP: log opened anew, configuration read again");
                self.resolved = resolved;
            }
            Err(error) => log::error!("SIGHUP: {error}; the configuration stays as it was"),
        }
    }

    /// The configuration as it is now. A file that was there and is gone or empty is a mistake of whoever writes it, not the wish for defaults.
    fn read_again(&self) -> Result<Resolved, String> {
        if let Some(file) = &self.resolved.file
            && std::fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir())
        {
            return Err(format!("{} is no ordinary file and can be read at the start only", file.display()));
        }
        let resolved = Resolved::from_sources(&self.sources).map_err(|error| error.to_string())?;
        match (&self.resolved.file, &resolved.file) {
            (Some(before), None) => Err(format!("{} is not there any more", before.display())),
            (_, Some(file)) if resolved.is_blank => Err(format!("{} is empty", file.display())),
            _ => Ok(resolved),
        }
    }
}

/// The line that scripts wait for. A standard output that nobody reads is no reason not to serve.
fn announce(address: SocketAddr) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "listening on {address}").and_then(|()| out.flush()) {
        log::warn!("standard output cannot be written ({error}); listening on {address}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        create_directory(&data).unwrap();
        create_directory(&data).unwrap();
        let first = lock_directory(&data, "stop it").unwrap();
        let refused = lock_directory(&data, "stop it").unwrap_err();
        let expected = format!(
            "another server (process {}) uses the data directory {}; stop it",
            std::process::id(),
            data.display()
        );
        assert!(refused.starts_with(&expected), "{refused}");
        drop(first);
        lock_directory(&data, "stop it").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join("lock"))), (0o700, 0o600));
    }

    #[test]
    fn what_cannot_be_created_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let why = create_directory(&file.join("data")).unwrap_err();
        assert!(why.contains("file/data cannot be created") && why.ends_with("--data DIR"), "{why}");
    }
}
