//! Where a page runs: a network, processes and a directory of its own, and terminals with an interactive bash on each.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

/// What a page finds in its directory.
const LINKED: [&str; 6] = ["contrib", "docs", "examples", "tests", "proto", "Makefile"];

/// Stands around the exit code of a command that has ended.
const MARK: char = '\u{1e}';

/// The first process of a page's own processes. When it ends, all of them end.
pub struct World {
    first: Child,
    /// The first process ends when this is closed, so also when the test is killed.
    _alive: ChildStdin,
    rights: &'static [&'static str],
    dir: TempDir,
    path: String,
}

impl World {
    /// `Err` says what is missing for it.
    pub fn new(root: &Path) -> Result<World, String> {
        let dir = tempfile::tempdir().unwrap();
        for part in ["home", "bin", "chatserver"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        for name in LINKED.iter().filter(|name| root.join(name).exists()) {
            symlink(root.join(name), dir.path().join("chatserver").join(name)).unwrap();
        }
        // A name without a place is what PATH has: a script of that name would find itself.
        if let Some(python) = std::env::var("PYTHON").ok().filter(|python| python.contains('/')) {
            let script = dir.path().join("bin/python3");
            fs::write(&script, format!("#!/bin/sh\nexec '{python}' \"$@\"\n")).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let built = Path::new(env!("CARGO_BIN_EXE_chatserver")).parent().unwrap();
        let programs = std::env::var_os("PAGES_BIN").map_or(built.to_owned(), PathBuf::from);
        let inherited = std::env::var("PATH").unwrap_or_default();
        let path = format!(
            "{}:{}:{}:{inherited}:/usr/sbin:/sbin",
            dir.path().join("bin").display(),
            programs.display(),
            programs.join("examples").display()
        );
        let rights: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mut command = Command::new("unshare");
        command.args(rights).args(["--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
        command.args(["bash", "-c", "ip link set lo up && echo ready && read -r _"]).env("PATH", &path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut first = command.spawn().map_err(|error| format!("unshare ({error})"))?;
        let mut said = String::new();
        BufReader::new(first.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "ready\n" {
            first.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            first.wait().unwrap();
            return Err(format!("network and processes of its own: {}", said.trim()));
        }
        let alive = first.stdin.take().unwrap();
        Ok(World { first, _alive: alive, rights, dir, path })
    }

    /// Whether the page's bash finds this program; `cryptography` is a package of its python3, `variables` are in a program's debug information.
    pub fn has(&self, program: &str) -> bool {
        let question = match program {
            "cryptography" => "python3 -c 'import cryptography'".to_owned(),
            "variables" => {
                "gdb -batch -ex 'whatis chatserver::delivery::outbox::Outbox' $(command -v chatserver)".to_owned()
            }
            program => format!("command -v {program}"),
        };
        let mut command = Command::new("bash");
        command.args(["-c", &question]).env("PATH", &self.path);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// One more terminal.
    pub fn terminal(&self) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = PathBuf::from(ptsname(&master, Vec::new()).unwrap().into_string().unwrap());
        let end = || Stdio::from(File::options().read(true).write(true).open(&slave).unwrap());
        let namespace = |kind| format!("/proc/{}/ns/{kind}", self.first.id());
        let mut command = Command::new("nsenter");
        if !self.rights.is_empty() {
            command.args(["--preserve-credentials", &format!("--user={}", namespace("user"))]);
        }
        command.arg(format!("--net={}", namespace("net"))).arg(format!("--mount={}", namespace("mnt")));
        command.arg(format!("--pid={}", namespace("pid_for_children")));
        command.args(["setsid", "--ctty", "bash", "--noediting", "--norc", "-i"]);
        command.env_clear().envs([
            ("PATH", self.path.as_str()),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("TERM", "dumb"),
            ("PS1", ""),
            ("PS2", ""),
            // Printed where a person sees the prompt.
            ("PROMPT_COMMAND", r#"printf '\036%d\036' "$?""#),
        ]);
        // A toolchain is found where it is, also with another home.
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        for (name, default) in [("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")] {
            command.env(name, std::env::var_os(name).unwrap_or_else(|| home.join(default).into()));
        }
        command.env("HOME", self.dir.path().join("home"));
        // Where there is no HOME of the user's, these say where rustc and python3 really are.
        let tools = ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "PYENV_ROOT"];
        command.envs(tools.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        let bash = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let keys = File::from(master);
        let (sender, screen) = channel();
        let mut from = keys.try_clone().unwrap();
        thread::spawn(move || {
            let mut part = [0; 4096];
            // The terminal's last user has gone: an error on Linux.
            while let Ok(count @ 1..) = from.read(&mut part) {
                if sender.send(part[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { bash, keys, screen, unread: Vec::new(), is_busy: true, exit_code: 0 }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

/// A terminal and what is on it.
pub struct Terminal {
    bash: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    unread: Vec<u8>,
    /// Whether a command runs on it.
    pub is_busy: bool,
    /// What the running command must end with.
    pub exit_code: i32,
}

/// What appears on a terminal.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// A line.
    Line(String),
    /// The command ended with this exit code.
    End(i32),
    /// Nothing, up to the deadline.
    Silence,
}

impl Terminal {
    /// What is typed does not appear, for the page has it already; lines are as long as a page's.
    pub fn prepare(&mut self, deadline: Instant) {
        while self.next(deadline) != Event::End(0) {}
        self.type_line("stty -echo -opost cols 130 rows 40; unset HISTFILE; cd ~/../chatserver", 0);
        while self.next(deadline) != Event::End(0) {}
    }

    /// Types a command.
    pub fn type_line(&mut self, command: &str, exit_code: i32) {
        self.keys.write_all(format!("{command}\n").as_bytes()).unwrap();
        self.is_busy = true;
        self.exit_code = exit_code;
    }

    /// Presses a key.
    pub fn press(&mut self, key: u8) {
        self.keys.write_all(&[key]).unwrap();
    }

    /// What appears next.
    pub fn next(&mut self, deadline: Instant) -> Event {
        loop {
            if let Some(event) = self.event() {
                return event;
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.unread.extend(bytes),
                Err(RecvTimeoutError::Timeout) => return Event::Silence,
                Err(RecvTimeoutError::Disconnected) => return Event::End(-1),
            }
        }
    }

    fn event(&mut self) -> Option<Event> {
        let at = self.unread.iter().position(|&byte| byte == b'\n' || byte == MARK as u8)?;
        if at == 0 && self.unread[0] == MARK as u8 {
            let end = 1 + self.unread[1..].iter().position(|&byte| byte == MARK as u8)?;
            let code = String::from_utf8_lossy(&self.unread[1..end]).parse().unwrap_or(-1);
            self.unread.drain(..=end);
            self.is_busy = false;
            return Some(Event::End(code));
        }
        let line = String::from_utf8_lossy(&self.unread[..at]).trim_end_matches('\r').to_owned();
        self.unread.drain(..at + usize::from(self.unread[at] == b'\n'));
        Some(Event::Line(line))
    }

    /// What has been printed of a line that is not complete.
    pub fn begun(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}
