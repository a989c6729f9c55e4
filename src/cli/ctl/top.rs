//! `ctl top`: the server and its sessions on the full screen, every second anew, like top(1).
//!
//! Everything comes over `ctl.sock`: two questions a second. The terminal is given back whatever ends this: `q`, Ctrl-C, a signal, the server's end, a panic.

mod screen;
mod view;

use std::io::{BufRead, BufReader, ErrorKind, IsTerminal};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;

use super::no_server;
use crate::cli::{DataArg, ctl_client, fail};
use crate::{limits, threads};
use view::View;

/// From one look at the server to the next.
const STEP: Duration = Duration::from_secs(1);

/// How long a look may take: then the server hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a reading that has come is looked for.
const KEYS_STEP: Duration = Duration::from_millis(200);

/// Status and sessions.
type Look = Result<(Value, Value), String>;

const ENDED: &str = "the server has ended";

/// Until the person or the server ends it; exit code 1 when it was the server.
pub fn run(data: &DataArg) -> ExitCode {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return fail("top needs a terminal; for a script there are `ctl status` and `ctl sessions --json`");
    }
    let socket = match ctl_client::connect(&data.data).and_then(|socket| socket.ok_or_else(|| no_server(data))) {
        Ok(socket) => socket,
        Err(why) => return fail(why),
    };
    // Before the terminal is taken: a server that refuses, or hangs, is told of on the usual screen.
    let mut source = Source { lines: BufReader::new(socket) };
    let shown = source.look().and_then(|(status, sessions)| {
        let is_ended = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
            signal_hook::flag::register(signal, is_ended.clone())
                .map_err(|error| format!("the signal handlers cannot be installed ({error}); try again"))?;
        }
        let looks = look_on(source).map_err(|error| format!("there is no thread to ask the server ({error})"))?;
        let view = View::new(status, sessions, Instant::now());
        let terminal = ratatui::try_init().map_err(|error| format!("the terminal cannot be used ({error})"))?;
        let result = show(view, &looks, terminal, &is_ended);
        ratatui::restore();
        result
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(why),
    }
}

fn show(
    mut view: View,
    looks: &Receiver<Look>,
    mut terminal: ratatui::DefaultTerminal,
    is_ended: &AtomicBool,
) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("the terminal cannot be used ({error})");
    while !is_ended.load(Relaxed) {
        terminal.draw(|frame| screen::draw(frame, &mut view)).map_err(cannot)?;
        let is_key = event::poll(KEYS_STEP).or_else(interrupted).map_err(cannot)?;
        if is_key
            && let Event::Key(key) = event::read().map_err(cannot)?
            && key.kind != KeyEventKind::Release
        {
            let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if is_control => return Ok(()),
                code => view.press(code),
            }
        }
        match looks.try_recv() {
            Ok(look) => {
                let (status, sessions) = look?;
                view.renew(status, sessions, Instant::now());
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(ENDED.into()),
        }
    }
    Ok(())
}

/// Asks again and again in a thread of its own: the keys answer also when the server does not. It ends with the program, or with the first failure.
fn look_on(mut source: Source) -> std::io::Result<Receiver<Look>> {
    let (out, looks) = sync_channel(0);
    threads::spawn("looks", limits::MAIL_STACK_BYTES, move || {
        loop {
            std::thread::sleep(STEP);
            let look = source.look();
            let is_last = look.is_err();
            if out.send(look).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(looks)
}

/// Of a server that was killed, or closed the socket before the request.
fn is_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

/// A signal, or a terminal that has changed its size, is no key.
fn interrupted(error: std::io::Error) -> std::io::Result<bool> {
    if error.kind() == ErrorKind::Interrupted { Ok(false) } else { Err(error) }
}

/// The server's socket.
struct Source {
    lines: BufReader<UnixStream>,
}

impl Source {
    /// Status and sessions, as they are now.
    fn look(&mut self) -> Result<(Value, Value), String> {
        Ok((self.ask("status")?, self.ask("sessions")?))
    }

    fn ask(&mut self, request: &str) -> Result<Value, String> {
        let socket = self.lines.get_mut();
        let asked = socket
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| ctl_client::write_request(socket, request));
        let mut line = String::new();
        match asked.and_then(|()| self.lines.read_line(&mut line)) {
            Ok(_) if !line.ends_with('\n') => Err(ENDED.into()),
            Err(error) if is_end(&error) => Err(ENDED.into()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(format!("the server has not answered for {} s; its log says what holds it up", PATIENCE.as_secs()))
            }
            Err(error) => Err(format!("the server does not answer any more ({error})")),
            Ok(_) => {
                let answer: Value = serde_json::from_str(&line)
                    .map_err(|error| format!("the server's answer is no JSON ({error}): {line}"))?;
                match answer["error"].as_str() {
                    Some(why) => Err(format!("the server refuses: {why}")),
                    None => Ok(answer),
                }
            }
        }
    }
}
