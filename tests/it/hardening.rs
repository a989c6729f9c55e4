//! Faults from outside, for the modules `hardening_*`: system calls that fail (strace), a network that is gone (`network.rs`), a seeded
//! dice. A test whose tool is missing says so on standard error, one line that begins with `skipped:`, past the capture of test output,
//! so that whoever runs the suite can count these lines.
//!
//! Read first: strace(1) on `inject`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::*;
use crate::wire;

/// Says that a test was not run, and why.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// System calls of a running server that fail until this is dropped.
pub struct Fault {
    strace: Child,
    pid: Pid,
}

impl Fault {
    /// Makes system calls fail in all threads of the server: `"fsync,fdatasync"`, `"error=EIO"` (strace's words). `None`, and a line
    /// about `test`, where there is no strace, or where it may not be used.
    pub fn inject(server: &Server, test: &str, calls: &str, fault: &str) -> Option<Fault> {
        Fault::attach(&["-f", "-p", &server.pid().to_string()], test, calls, fault)
    }

    /// The same in the one thread of this name: others are not slowed down, and `when=` counts its calls alone.
    pub fn inject_in(server: &Server, thread: &str, test: &str, calls: &str, fault: &str) -> Option<Fault> {
        let named =
            |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread);
        let mut found = None;
        // One that was just started has its parent's name.
        eventually("a thread has this name", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
            found = tasks.filter_map(|task| Some(task.ok()?.path())).find(named);
            found.is_some()
        });
        let task = found.unwrap();
        Fault::attach(&["-p", &task.file_name().unwrap().to_string_lossy()], test, calls, fault)
    }

    fn attach(whom: &[&str], test: &str, calls: &str, fault: &str) -> Option<Fault> {
        let mut command = Command::new("strace");
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")]).args(whom);
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(mut strace) = started else {
            skipped(test, "no strace");
            return None;
        };
        let pid = Pid::from_child(&strace);
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
        // It says so when it holds all threads.
        let mut said = String::new();
        if !lines.by_ref().inspect(|line| said.push_str(line)).any(|line| line.contains(" attached")) {
            let _ = strace.wait();
            skipped(test, &format!("strace cannot attach: {said}"));
            return None;
        }
        thread::spawn(move || lines.for_each(drop));
        Some(Fault { strace, pid })
    }

    /// The calls succeed again.
    pub fn end(self) {}
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets all threads go on before it ends.
        let _ = kill_process(self.pid, Signal::TERM);
        let _ = self.strace.wait();
    }
}

/// A file system of a few MiB, unmounted when dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// One of `size` ("2m"). `None`, and a line about `test`, where that is not allowed.
    pub fn mount(test: &str, size: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"], &dir);
        if !mounted {
            skipped(test, "no right to mount a file system");
            return None;
        }
        Some(SmallDisk(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives it more room, or less.
    pub fn resize(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], &self.0));
    }
}

fn mount(options: &[&str], dir: &tempfile::TempDir) -> bool {
    let done = Command::new("mount").args(options).arg(dir.path()).output();
    done.is_ok_and(|output| output.status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold files.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// What a server holds for its connections. The database's readers, threads and files, come when they are needed and stay.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings {
    sockets: usize,
    threads: Vec<String>,
}

impl Holdings {
    fn of(server: &Server) -> Holdings {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
        let sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count();
        let threads = server.threads().into_iter().filter(|name| name != "reader").collect();
        Holdings { sockets, threads }
    }
}

/// What it holds when it has no more to do, and each of its threads has got its name.
pub fn at_rest(server: &Server) -> Holdings {
    eventually("the server is asleep", || is_asleep(server));
    Holdings::of(server)
}

/// The server has no more to do: its processor time stands still.
pub fn is_asleep(server: &Server) -> bool {
    let before = server.cpu();
    thread::sleep(Duration::from_millis(50));
    server.cpu() == before
}

/// Waits until the server holds again what it held at rest.
#[track_caller]
pub fn until_at_rest(server: &Server, at_rest: &Holdings) {
    let is_at_rest = happens_within(PATIENCE, || Holdings::of(server) == *at_rest);
    assert!(is_at_rest, "at rest it was {at_rest:?}, now it is {:?}", Holdings::of(server));
}

/// Somebody who logs in, reads nothing but the beginning of the answer, and has a small buffer.
pub fn deaf(server: &Server, name: &str) -> TcpStream {
    let socket: OwnedFd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    let address: SocketAddr = server.addr().parse().unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&wire::login(name)).unwrap();
    socket.read_exact(&mut [0; 8]).unwrap();
    socket
}

/// Numbers that look random and are the same in each run (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        (self.next() % sides as u64) as usize
    }

    /// `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
