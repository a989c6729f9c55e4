//! A command that runs beside the test, on pipes or on a terminal of its own. What it prints is collected.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::*;

/// Killed when it is dropped.
pub struct Running {
    pub child: Child,
    keys: Box<dyn Write>,
    enter: char,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    /// They end with the command.
    collectors: Vec<JoinHandle<()>>,
}

impl Running {
    /// On pipes.
    pub fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, printing) = collect(child.stdout.take().unwrap());
        let (err, noting) = collect(child.stderr.take().unwrap());
        let keys = Box::new(child.stdin.take().unwrap());
        Running { child, keys, enter: '\n', out, err, collectors: vec![printing, noting] }
    }

    /// Presses keys.
    pub fn presses(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) {
        self.presses(&format!("{line}{}", self.enter));
    }

    /// What it has printed, on a terminal also what it wrote to standard error.
    pub fn out(&self) -> String {
        self.out.lock().clone()
    }

    /// Waits until `text` is on standard output.
    #[track_caller]
    pub fn prints(&self, text: &str) {
        let is_there = happens_within(PATIENCE, || self.out.lock().contains(text));
        assert!(is_there, "{text:?} is missing:\n{}\nstandard error:\n{}", self.out(), self.err());
    }

    /// Waits until `text` is on standard error.
    #[track_caller]
    pub fn notes(&self, text: &str) {
        let is_there = happens_within(PATIENCE, || self.err.lock().contains(text));
        assert!(is_there, "{text:?} is missing:\n{}\nstandard output:\n{}", self.err(), self.out());
    }

    /// What it has written to standard error.
    pub fn err(&self) -> String {
        self.err.lock().clone()
    }

    /// Waits until it ends, with this code.
    #[track_caller]
    pub fn ends(&mut self, code: i32) {
        let has_ended = happens_within(PATIENCE, || self.child.try_wait().unwrap().is_some());
        assert!(has_ended, "it runs on:\n{}", self.out());
        self.collectors.drain(..).for_each(|collector| collector.join().unwrap());
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{}{}", self.out(), self.err());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::<Mutex<String>>::default();
    let collected = text.clone();
    let collector = thread::spawn(move || {
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        // A terminal whose last user has gone gives an error on Linux.
        while let Ok(count @ 1..) = from.read(&mut part) {
            bytes.extend_from_slice(&part[..count]);
            *collected.lock() = String::from_utf8_lossy(&bytes).into_owned();
        }
    });
    (text, collector)
}

/// A terminal of 80 by 24.
pub struct Terminal {
    keys: File,
    side: File,
}

impl Terminal {
    /// With nobody at it.
    pub fn open() -> Terminal {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        tcsetwinsize(&keys, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let side = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let side = File::options().read(true).write(true).open(side).unwrap();
        Terminal { keys: File::from(keys), side }
    }

    /// Starts a command on it.
    pub fn start(&self, mut command: Command) -> Running {
        let side = || self.side.try_clone().unwrap();
        let child = command.env("TERM", "xterm").stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let (out, _) = collect(self.keys.try_clone().unwrap());
        let keys = Box::new(self.keys.try_clone().unwrap());
        Running { child, keys, enter: '\r', out, err: Arc::default(), collectors: Vec::new() }
    }

    /// Lines and echo are as they were at first.
    pub fn is_cooked(&self) -> bool {
        tcgetattr(&self.side).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}
