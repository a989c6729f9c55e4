//! A server that is looked at while it works: stopped and continued, traced, held by a debugger. System calls come back with EINTR, time goes on
//! without it; nobody is disconnected, and nothing is lost or comes out of order.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::{Server, eventually};
use crate::load::Load;
use crate::process;

/// Stops and continues the server `times` times; traces it a tenth as often, and has as many looks with gdb.
pub fn run(times: u32, seed: u64) -> Outcome {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = process::start(&place.path().join("data"), |setup| setup);
    let (mut traced, mut debugged, mut missing, mut wrong) = (0, 0, Vec::new(), Vec::new());
    let mut verdict = Load::new("debugger", seed).run(
        server,
        |load, server, dice| {
            for time in 1..=times {
                load.lives().stay_away(dice.millis(0, 100));
                server.signal(Signal::STOP);
                eventually("the server is stopped", || state(&server) == 'T');
                thread::sleep(dice.millis(0, 50));
                server.signal(Signal::CONT);
                if time % 10 == 0 {
                    match trace(&server, dice) {
                        Ok(()) => traced += 1,
                        Err(why) => missing.push(why),
                    }
                    match debug(&server) {
                        Ok(()) => debugged += 1,
                        Err(why) => missing.push(why),
                    }
                    eventually("the server goes on", || state(&server) != 'T' && state(&server) != 't');
                    load.tell(&format!("{time} of {times}"));
                }
            }
            server
        },
        |server| {
            let panicked = server.logged("panicked");
            if panicked > 0 {
                wrong.push(format!("{panicked} threads panicked"));
            }
        },
    );
    wrong.append(&mut verdict.wrong);
    missing.sort();
    missing.dedup();
    let missing = if missing.is_empty() { String::new() } else { format!(" (skipped: {})", missing.join("; ")) };
    let line = format!(
        "debugger: {times} × SIGSTOP and SIGCONT, {traced} × strace, {debugged} × gdb{missing}; texts {}, receipts {}, {verdict}",
        verdict.sent, verdict.receipts,
    );
    Outcome { line, wrong }
}

/// A letter: T = stopped, t = held by a tracer.
fn state(server: &Server) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("the server lives");
    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).expect("a state")
}

/// Every system call of the server is traced for a while.
///
/// # Errors
/// It cannot be traced here.
fn trace(server: &Server, dice: &mut Dice) -> Result<(), String> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-p", &server.pid().to_string()]);
    // Without -qq it would say when it is attached; the threads say it, too.
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut strace = started.map_err(|_| "no strace".to_owned())?;
    let mut words = BufReader::new(strace.stderr.take().expect("it is a pipe"));
    let is_attached = crate::harness::happens_within(Duration::from_secs(10), || {
        is_traced(server) || strace.try_wait().is_ok_and(|ended| ended.is_some())
    });
    if is_attached && is_traced(server) {
        thread::sleep(dice.millis(50, 300));
        kill_process(Pid::from_child(&strace), Signal::TERM).expect("strace runs");
        let _ = strace.wait();
        eventually("strace lets go", || !is_traced(server));
        return Ok(());
    }
    let _ = strace.kill();
    let _ = strace.wait();
    let mut why = String::new();
    let _ = words.read_line(&mut why);
    Err(format!("strace cannot attach: {}", why.trim()))
}

/// Some thread of the server has a tracer.
fn is_traced(server: &Server) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server lives");
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
}

/// gdb holds all threads and lists them.
///
/// # Errors
/// There is none, or it may not.
fn debug(server: &Server) -> Result<(), String> {
    let mut command = Command::new("gdb");
    // Without the symbols of a program that is large when it is not a release.
    command.args(["-nx", "-batch", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off"]);
    command.args(["-p", &server.pid().to_string(), "-ex", "info threads"]);
    let Ok(output) = command.stdin(Stdio::null()).output() else { return Err("no gdb".into()) };
    let listed = String::from_utf8_lossy(&output.stdout);
    // Names of threads are seen by whoever holds them.
    if listed.contains("\"timer\"") { Ok(()) } else { Err("gdb cannot attach".into()) }
}
