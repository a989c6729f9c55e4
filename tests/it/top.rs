//! `ctl top` on a terminal.

use rustix::process::{Pid, Signal, kill_process};

use crate::control::Ctl;
use crate::harness::*;
use crate::running::{Running, Terminal};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// `ctl top` on a terminal of its own.
fn top(server: &Server) -> (Terminal, Running) {
    let terminal = Terminal::open();
    let mut command = program();
    command.args(["ctl", "top", "--data"]).arg(server.data());
    let top = terminal.start(command);
    (terminal, top)
}

/// It has ended with this code and given the terminal back.
#[track_caller]
fn gives_back((terminal, mut top): (Terminal, Running), code: i32) {
    top.ends(code);
    top.prints(LEAVE);
    assert!(terminal.is_cooked(), "lines and echo are as they were");
}

#[test]
fn top_shows_who_is_there_and_gives_the_terminal_back() {
    let server = Server::start_default();
    let mut ann = server.login("annabel");
    let (terminal, mut top) = top(&server);
    // Between words the cursor is moved.
    for words in [ENTER, "annabel", env!("CARGO_PKG_VERSION"), server.addr(), "connections", "quit"] {
        top.prints(words);
    }
    assert!(!terminal.is_cooked());
    // It is live: who comes later is seen without a key.
    let _bob = server.login("bobby");
    top.prints("bobby");
    top.presses("n\x1b[B");
    ann.roundtrip().unwrap();
    top.presses("q");
    gives_back((terminal, top), 0);
}

#[test]
fn top_ends_with_the_server_with_a_signal_and_with_ctrl_c() {
    let mut server = Server::start_default();
    let _ann = server.login("annabel");
    let mut interrupted = top(&server);
    interrupted.1.prints("annabel");
    interrupted.1.presses("\x03");
    gives_back(interrupted, 0);
    let told = top(&server);
    told.1.prints("annabel");
    kill_process(Pid::from_child(&told.1.child), Signal::TERM).unwrap();
    gives_back(told, 0);
    let last = top(&server);
    last.1.prints("annabel");
    Ctl::of(&server).ask("save");
    server.kill9();
    last.1.prints("the server has ended");
    gives_back(last, 1);
    // Without a terminal there is nothing to draw on.
    let mut command = program();
    command.args(["ctl", "top", "--data"]).arg(server.data());
    let output = run(command, "");
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("needs a terminal"));
}
