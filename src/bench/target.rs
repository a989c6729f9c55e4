//! Whom a benchmark measures: a server at an address, or a process that it starts itself, in a temporary directory, and ends again.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::dialect::{Dialect, Level1, Plain};
use super::process::{self, Usage};
use crate::config::Key;
use crate::protocol::Cipher;

/// Whom to measure.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A server that we start.
    Own,
    /// The bare relay, which we start too.
    Floor,
    /// Whatever listens at this `HOST:PORT`.
    At(String),
}

/// A server under test.
pub struct Target {
    /// `chatserver`, `floor`, or what the caller calls it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub dialect: Box<dyn Dialect>,
    /// Its process, if it is one of this machine's and we may look at it.
    pub pid: Option<i32>,
    /// Its data directory, if it is ours.
    pub data: Option<PathBuf>,
    /// How long it took from its start until it listened.
    pub started_within: Option<Duration>,
    own: Option<Own>,
}

struct Own {
    child: Child,
    _directory: Directory,
}

/// A new directory, gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Directory> {
        let path = std::env::temp_dir().join(format!("chatserver-bench-{}-{:x}", std::process::id(), random()?));
        std::fs::create_dir(&path)?;
        Ok(Directory(path))
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Target {
    /// Starts or finds it. `program` is this program, which is also the relay.
    ///
    /// # Errors
    /// It does not start, or the address means nothing.
    pub fn start(kind: &Kind, program: &Path, key: &Key) -> io::Result<Target> {
        let cipher = || Cipher::new(key.bytes()).expect("a key has a legal length");
        match kind {
            Kind::At(address) => {
                let address = resolve(address)?;
                Ok(Target::at("chatserver", address, Box::new(Level1::new(cipher()))))
            }
            Kind::Own => {
                let directory = Directory::new()?;
                let path = directory.0.clone();
                let mut target = Target::spawn(program, directory, |command| {
                    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&path);
                })?;
                target.dialect = Box::new(Level1::new(Cipher::new(Key::published().bytes()).expect("16 bytes")));
                Ok(target)
            }
            Kind::Floor => {
                let mut target = Target::spawn(program, Directory::new()?, |command| {
                    command.args(["bench", "--relay"]);
                })?;
                target.name = "floor".into();
                target.data = None;
                Ok(target)
            }
        }
    }

    /// A server at an address that speaks `dialect`.
    pub fn at(name: &str, address: SocketAddr, dialect: Box<dyn Dialect>) -> Target {
        let pid = process::listener(address);
        Target { name: name.into(), address, dialect, pid, data: None, started_within: None, own: None }
    }

    fn spawn(program: &Path, directory: Directory, arguments: impl FnOnce(&mut Command)) -> io::Result<Target> {
        let mut command = Command::new(program);
        arguments(&mut command);
        // The environment is the caller's, and may have settings in it.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHATSERVER_") {
                command.env_remove(name);
            }
        }
        let began = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line)?;
        let started_within = Some(began.elapsed());
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let Some(address) = address else {
            let status = child.wait()?;
            return Err(io::Error::other(format!("the server under test did not start ({status}): {line}")));
        };
        let (pid, data) = (i32::try_from(child.id()).ok(), Some(directory.0.clone()));
        let dialect = Box::new(Plain::new(Cipher::new(Key::published().bytes()).expect("16 bytes")));
        let own = Some(Own { child, _directory: directory });
        Ok(Target { name: "chatserver".into(), address, dialect, pid, data, started_within, own })
    }

    /// What its process has used; nothing where it cannot be seen.
    pub fn usage(&self) -> Option<Usage> {
        self.pid.and_then(|pid| Usage::read(pid).ok())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        // Nobody needs its data.
        let _ = own.child.kill();
        let _ = own.child.wait();
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let found =
        address.to_socket_addrs().map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    found.into_iter().next().ok_or_else(|| io::Error::other(format!("{address} has no address")))
}
