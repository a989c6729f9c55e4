//! `ctl top` on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::control::Ctl;
use crate::harness::*;

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// A terminal of our own, of 80 by 24, with `ctl top` on it.
struct Terminal {
    top: Child,
    keys: File,
    side: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn top(server: &Server) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let slave = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&slave).unwrap();
        let mut command = program();
        command.args(["ctl", "top", "--data"]).arg(server.data()).env("TERM", "xterm");
        let top = command.stdin(open()).stdout(open()).stderr(Stdio::from(open())).spawn().unwrap();
        let (side, keys) = (open(), File::from(master));
        let (mut from, screen) = (keys.try_clone().unwrap(), Arc::new(Mutex::new(String::new())));
        let shown = screen.clone();
        std::thread::spawn(move || {
            let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
            // The terminal's last user has gone: an error on Linux.
            while let Ok(count @ 1..) = from.read(&mut part) {
                bytes.extend_from_slice(&part[..count]);
                *shown.lock() = String::from_utf8_lossy(&bytes).into_owned();
            }
        });
        Terminal { top, keys, side, screen }
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let is_shown = happens_within(PATIENCE, || self.screen.lock().contains(text));
        assert!(is_shown, "{text:?} is missing:\n{:?}", self.screen.lock());
    }

    fn is_cooked(&self) -> bool {
        tcgetattr(&self.side).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// It has ended with this code and given the terminal back.
    #[track_caller]
    fn ends(&mut self, code: i32) {
        let mut status = None;
        eventually("top ends", || {
            status = self.top.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(code), "{:?}", self.screen.lock());
        self.shows(LEAVE);
        assert!(self.is_cooked(), "lines and echo are as they were");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.top.kill();
        let _ = self.top.wait();
    }
}

#[test]
fn top_shows_who_is_there_and_gives_the_terminal_back() {
    let server = Server::start_default();
    let mut ann = server.login("annabel");
    let mut terminal = Terminal::top(&server);
    // Between words the cursor is moved.
    for words in [ENTER, "annabel", env!("CARGO_PKG_VERSION"), server.addr(), "connections", "quit"] {
        terminal.shows(words);
    }
    assert!(!terminal.is_cooked());
    // It is live: who comes later is seen without a key.
    let _bob = server.login("bobby");
    terminal.shows("bobby");
    terminal.keys.write_all(b"n\x1b[B").unwrap();
    ann.roundtrip().unwrap();
    terminal.keys.write_all(b"q").unwrap();
    terminal.ends(0);
}

#[test]
fn top_ends_with_the_server_with_a_signal_and_with_ctrl_c() {
    let mut server = Server::start_default();
    let _ann = server.login("annabel");
    let mut interrupted = Terminal::top(&server);
    interrupted.shows("annabel");
    interrupted.keys.write_all(b"\x03").unwrap();
    interrupted.ends(0);
    let mut told = Terminal::top(&server);
    told.shows("annabel");
    kill_process(Pid::from_child(&told.top), Signal::TERM).unwrap();
    told.ends(0);
    let mut last = Terminal::top(&server);
    last.shows("annabel");
    Ctl::of(&server).ask("save");
    server.kill9();
    last.shows("the server has ended");
    last.ends(1);
    // Without a terminal there is nothing to draw on.
    let mut command = program();
    command.args(["ctl", "top", "--data"]).arg(server.data());
    let output = run(command, "");
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("needs a terminal"));
}
