//! The server as a service: what the manager is told and when, and what is made from the command line for shells and readers.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::control::Ctl;
use crate::harness::*;

/// A service manager: the socket that NOTIFY_SOCKET names.
struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, dir }
    }

    /// Starts a server that tells this manager how it is.
    fn start(&self) -> Server {
        self.start_watched("3600000000")
    }

    /// The same, when it expects a sign of life within `WATCHDOG_USEC`.
    fn start_watched(&self, watchdog_usec: &str) -> Server {
        let variable = format!("NOTIFY_SOCKET={}", self.dir.path().join("notify").display());
        let watchdog = format!("WATCHDOG_USEC={watchdog_usec}");
        Server::start(|setup| setup.wrapper(&["env", &variable, &watchdog]))
    }

    /// What it is told next; it must be told something.
    #[track_caller]
    fn told(&self) -> String {
        let mut datagram = [0; 256];
        let length = self.socket.recv(&mut datagram).expect("the server tells how it is");
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }
}

#[test]
fn the_manager_is_told_when_it_listens_and_when_it_stops() {
    let manager = Manager::new();
    let mut server = manager.start();
    assert_eq!(manager.told(), "READY=1\n");
    // Told after it listens: nobody who waited for that is refused.
    server.login("ann").roundtrip().unwrap();
    assert_eq!(server.sigterm().code(), Some(0));
    assert_eq!(manager.told(), "STOPPING=1\n");
}

#[test]
fn the_manager_is_told_that_it_drains() {
    let manager = Manager::new();
    let server = manager.start();
    assert_eq!(manager.told(), "READY=1\n");
    let mut ctl = Ctl::of(&server);
    ctl.ask("drain");
    assert_eq!(manager.told(), "STATUS=draining: no more connections are accepted\n");
    ctl.ask("drain off");
    assert_eq!(manager.told(), "STATUS=serving\n");
}

#[test]
fn the_manager_hears_that_it_lives_also_while_signals_come() {
    let manager = Manager::new();
    let server = manager.start_watched("200000");
    assert_eq!(manager.told(), "READY=1\n");
    assert_eq!((manager.told(), manager.told()), ("WATCHDOG=1\n".into(), "WATCHDOG=1\n".into()));
    drop(server);
    // Nothing but signals wakes this one.
    let manager = Manager::new();
    let server = manager.start();
    assert_eq!(manager.told(), "READY=1\n");
    for _ in 0..3 {
        server.signal(rustix::process::Signal::HUP);
        assert!(manager.told().starts_with("RELOADING=1\n"));
        assert_eq!((manager.told(), manager.told()), ("READY=1\n".into(), "WATCHDOG=1\n".into()));
    }
}

#[test]
fn a_server_that_does_not_listen_is_not_ready() {
    let manager = Manager::new();
    let server = manager.start();
    assert_eq!(manager.told(), "READY=1\n");
    // The second one on the same directory refuses to start; it must not have said that it is ready.
    assert!(server.start_another().is_err());
    drop(server);
    manager.socket.set_nonblocking(true).unwrap();
    assert!(
        manager.socket.recv(&mut [0; 256]).is_err(),
        "a killed server says nothing, nor does one that did not start"
    );
}

#[test]
fn a_manager_that_is_gone_is_no_reason_not_to_serve() {
    let manager = Manager::new();
    std::fs::remove_file(manager.dir.path().join("notify")).unwrap();
    let mut server = manager.start();
    server.wait_for_log("the service manager cannot be told how the server is");
    Pair::of(&server, "ann", "bob").chat();
    assert_eq!(server.sigterm().code(), Some(0));
}

/// The standard output of a command that succeeds.
#[track_caller]
fn printed(mut command: Command, arguments: &[&str]) -> String {
    command.args(arguments);
    let output = run(command, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[cfg(feature = "tools")]
#[test]
fn bash_completes_commands_and_flags() {
    let script = printed(program(), &["completions", "bash"]);
    let complete = |words: &str| {
        let last = words.split(' ').count() - 1;
        // As bash calls it: the words of the line, and the number of the one that is to be completed.
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}{}) COMP_CWORD={last}\n\
             _chatserver chatserver \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            if words.ends_with(' ') { "''" } else { "" }
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &ask]);
        let answer = printed(bash, &[]);
        answer.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = complete("chatserver ");
    for command in ["serve", "chat", "send", "listen", "users", "config", "completions", "man"] {
        assert!(commands.iter().any(|word| word == command), "{command}: {commands:?}");
    }
    assert_eq!(complete("chatserver us"), ["users"]);
    assert_eq!(complete("chatserver config sh"), ["show"]);
    assert_eq!(complete("chatserver serve --allow"), ["--allow-published-key"]);
    assert_eq!(complete("chatserver completions z"), ["zsh"]);
}

#[cfg(feature = "tools")]
#[test]
fn the_manual_page_is_printed() {
    let page = printed(program(), &["man"]);
    assert!(page.contains(".TH CHATSERVER 1 ") && page.contains(".SS \"chatserver config show\"\n"), "{page}");
}

#[test]
fn what_config_show_prints_starts_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program();
    command.env("CHATSERVER_READ_TIMEOUT", "61 s").env("CHATSERVER_KEY", "0123456789abcdef");
    let shown = printed(command, &["config", "show"]);
    assert!(shown.contains("read_timeout = \"61 s\"") && !shown.contains("0123456789abcdef"), "{shown}");
    let file = dir.path().join("shown.toml");
    std::fs::write(&file, shown).unwrap();
    let file = file.to_str().unwrap();
    let checked = printed(program(), &["config", "check", "--config", file]);
    let line = checked.lines().find(|line| line.starts_with("read_timeout ")).unwrap();
    assert!(line.contains("61 s") && line.contains("shown.toml:"), "{line}");
    Server::start(|setup| setup.argument("--config").argument(file)).login("ann").roundtrip().unwrap();
}

#[test]
fn config_check_says_which_limit_binds_and_how_to_raise_it() {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=500", env!("CARGO_BIN_EXE_chatserver"), "config", "check", "--data", "/nonexistent/data"]);
    let checked = printed(command, &[]);
    // 80 % of 500, without 64 for other files.
    assert!(checked.contains("Up to 336 connections at one time"), "{checked}");
    let binds = checked.lines().skip_while(|line| !line.starts_with("connections  ")).nth(1).unwrap();
    assert!(binds.contains("the descriptor limit (ulimit -n, LimitNOFILE=) = 500"), "{binds}");
}
