//! No threads left, or no memory mappings for another one. The running server's limit on threads is lowered; or strace lets the calls fail that
//! a new thread's stack needs, all of them, or one in the middle of a thread's beginning. Who knocks is sent away, who is in goes on. Then there are threads
//! again, and the next one is served. At last a server with few threads is filled to its computed cap.
//!
//! Root is not held to a limit on threads, so it gives the server to another user for that.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use chatserver::client::Connection;
use rustix::process::getuid;

use crate::Outcome;
use crate::hardening::{Fault, at_rest, until_at_rest};
use crate::harness::{Server, Setup};
use crate::process;
use crate::scarce::{Insiders, Need, at_the_cap, until_served};

/// Threads of a server whose computed cap is `scarce::CAP`.
const FEW: &str = "--nproc=278";

/// What is not to be had: threads by the limit on them (`None`), or mappings by these failing calls.
const WANTS: [Option<(&str, &str)>; 6] = [
    None,
    Some(("mmap", "error=ENOMEM")),
    Some(("mprotect", "error=ENOMEM")),
    // In each thread the first call, or the second: stack and guard are there, and what comes then is not.
    Some(("mmap", "error=ENOMEM:when=1")),
    Some(("mmap", "error=ENOMEM:when=2")),
    Some(("mprotect", "error=ENOMEM:when=2")),
];

/// Leaves a server without threads `times` times.
pub fn run(times: u32, _seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let user = User::new(place.path());
    let mut server = process::start(&place.path().join("data"), |setup| user.owns(setup, &[]));
    let mut insiders = Insiders::of(&server);
    let mut need = Need::default();
    for time in 0..times {
        let before = at_rest(&server);
        let want = WANTS[time as usize % WANTS.len()];
        let name = match want {
            None => format!("time {time}, threads"),
            Some((calls, fault)) => format!("time {time}, {calls} {fault}"),
        };
        without(&server, &user, &name, want, &mut insiders, &mut need);
        until_at_rest(&server, &before);
    }
    insiders.finish(&server, &mut need);
    let status = server.sigterm();
    if !status.success() {
        need.wrong.push(format!("at the end SIGTERM: {status}"));
    }
    let cap = match user.is_limited_alone() {
        true => {
            let data = place.path().join("cap");
            at_the_cap(|setup| user.owns(setup.data(&data), &["prlimit", FEW]), &mut need.wrong)
        }
        false => "the computed cap was not tried: only root can give the server a user of its own".into(),
    };
    let line = format!("threads: {times} times without threads or mappings, no abort, {}; {cap}", need.line());
    Outcome { line, wrong: need.wrong }
}

fn without(
    server: &Server,
    user: &User,
    name: &str,
    want: Option<(&str, &str)>,
    insiders: &mut Insiders,
    need: &mut Need,
) {
    let failed = || process::number(&process::ask(&server.data(), "status").expect("a status"), "counts.failed_thread");
    let failed_before = failed();
    let mut knocked: Vec<Connection> = Vec::new();
    let mut knock = || knocked.push(server.connect().open().expect("the kernel takes it"));
    match want {
        None => {
            let before = user.limit_threads(server, "1");
            insiders.go_on(server, name, need, &mut knock);
            user.limit_threads(server, &before);
        }
        Some((calls, fault)) => {
            let fault = Fault::inject(server, "threads", calls, fault).expect("strace is there and may be used");
            insiders.go_on(server, name, need, &mut knock);
            fault.end();
        }
    }
    until_served(server, name, need);
    // A thread may find the stack of an earlier one, and needs fewer calls then.
    let is_certain = want.is_none_or(|(_, fault)| !fault.contains("when"));
    if is_certain && failed() == failed_before {
        need.wrong.push(format!("{name}: every thread could be started"));
    }
}

/// Whom the server runs as.
struct User {
    /// Nobody else runs anything as this one; `None`: as ourselves.
    own: Option<u32>,
    /// A copy of the program, where that user may read it.
    program: PathBuf,
}

impl User {
    /// For servers whose files are in `place`.
    fn new(place: &Path) -> User {
        let program = place.join("chatserver");
        let own = getuid().is_root().then(|| 60_000 + std::process::id() % 5_000);
        if own.is_some() {
            fs::copy(env!("CARGO_BIN_EXE_chatserver"), &program).expect("there is room for a copy");
            chown(place, own, own).expect("root gives files away");
        }
        User { own, program }
    }

    /// Has this user run the server, with `limits` as the beginning of its command.
    fn owns<'s>(&self, setup: &'s mut Setup, limits: &[&str]) -> &'s mut Setup {
        let Some(own) = self.own else { return setup.wrapper(limits) };
        // The program that follows is replaced by the copy.
        let (rights, limits, program) = (rights_of(own).join(" "), limits.join(" "), self.program.display());
        let script = format!("shift; exec {rights} {limits} '{program}' \"$@\"");
        setup.wrapper(&["sh", "-c", &script, "sh"])
    }

    /// Sets the running server's soft limit, and gives the one before. Not even root may do that to others everywhere: its user does.
    fn limit_threads(&self, server: &Server, soft: &str) -> String {
        let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("it runs");
        let before = limits.lines().find_map(|line| line.strip_prefix("Max processes")).expect("it is among them");
        let mut words = self.own.map_or(Vec::new(), rights_of);
        words.extend(["prlimit".into(), format!("--pid={}", server.pid()), format!("--nproc={soft}:")]);
        let set = Command::new(&words[0]).args(&words[1..]).status().expect("util-linux is there");
        assert!(set.success(), "{words:?}: {set}");
        before.split_whitespace().next().expect("the soft limit").to_owned()
    }

    /// Whether a limit on this user's threads is one on the server's alone.
    fn is_limited_alone(&self) -> bool {
        self.own.is_some()
    }
}

/// The beginning of a command that this user is to run.
fn rights_of(user: u32) -> Vec<String> {
    vec!["setpriv".into(), format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()]
}
