//! A mail server in every kind of trouble, while reports are asked for again and again: dead, refusing, silent, dropping the line, each at each step
//! of the conversation, or slow. A chat server for each trouble: its users notice nothing, it leaks nothing, and it stops in time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Outcome;
use crate::harness::{PATIENCE, Pair, Server, happens_within};
use crate::holdings::Holdings;
use crate::{process, smtp};

/// The deadline of a stop, and what saving and closing may take beyond it.
const SHUTDOWN_TIMEOUT: &str = "2 s";
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// One try of a mail takes no longer.
const SMTP_TIMEOUT: &str = "700 ms";

/// A report is asked for so often.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The longest that two texts of a healthy pair, one each way, may take.
const LONGEST: Duration = Duration::from_secs(2);

/// What a mail server says at each step of a conversation.
const STEPS: &[(&str, &str)] = &[
    ("the greeting", "220 mail.test\r\n"),
    ("EHLO", "250 mail.test\r\n"),
    ("MAIL", "250 OK\r\n"),
    ("RCPT", "250 OK\r\n"),
    ("DATA", "354 go on\r\n"),
    ("the text", "250 OK\r\n"),
];

/// What is wrong with a mail server, at which step.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Dead,
    Busy(usize),
    Refusing(usize),
    Silent(usize),
    Dropping(usize),
    Slow,
}

impl Trouble {
    fn all() -> Vec<Trouble> {
        let each = [Trouble::Busy, Trouble::Refusing, Trouble::Silent, Trouble::Dropping];
        let at_steps = each.iter().flat_map(|trouble| (0..STEPS.len()).map(trouble));
        [Trouble::Dead, Trouble::Slow].into_iter().chain(at_steps).collect()
    }

    /// `Silent at MAIL`.
    fn name(self) -> String {
        let at = |what: &str, step: usize| format!("{what} at {}", STEPS[step].0);
        match self {
            Trouble::Dead => "dead".into(),
            Trouble::Slow => "slow".into(),
            Trouble::Busy(step) => at("busy", step),
            Trouble::Refusing(step) => at("refusing", step),
            Trouble::Silent(step) => at("silent", step),
            Trouble::Dropping(step) => at("dropping", step),
        }
    }

    /// A mail server with this trouble, for as long as the drill runs; its port.
    fn begin(self) -> u16 {
        match self {
            // Nobody listens where somebody has just ceased to.
            Trouble::Dead => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                listener.local_addr().expect("it is bound").port()
            }
            _ => smtp::script(move |tcp| drop(self.talk(tcp))),
        }
    }

    /// One conversation.
    fn talk(self, tcp: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(tcp);
        for (step, (_, says)) in STEPS.iter().enumerate() {
            let mut says = *says;
            match self {
                Trouble::Busy(at) if at == step => says = "451 try again later\r\n",
                Trouble::Refusing(at) if at == step => says = "554 no\r\n",
                Trouble::Silent(at) if at == step => {
                    lines.read_to_end(&mut Vec::new())?;
                    return Ok(());
                }
                Trouble::Dropping(at) if at == step => return Ok(()),
                Trouble::Slow => return drip(lines.get_mut(), says),
                _ => {}
            }
            lines.get_mut().write_all(says.as_bytes())?;
            // Its commands are one line each, its text ends with a dot.
            let mut line = String::new();
            while lines.read_line(&mut line)? > 0 && step == 4 && line != ".\r\n" {
                line.clear();
            }
            if line.starts_with("QUIT") {
                return lines.get_mut().write_all(b"221 bye\r\n");
            }
        }
        Ok(())
    }
}

/// A byte a second.
fn drip(tcp: &mut TcpStream, says: &str) -> io::Result<()> {
    for byte in says.bytes() {
        tcp.write_all(&[byte])?;
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// One server stops at a time, so that none waits for the others' disk. lock: by itself.
static STOPS: Mutex<()> = Mutex::new(());

/// What became of one chat server.
struct Report {
    tries: usize,
    kept: usize,
    longest: Duration,
    stop: Duration,
    wrong: Vec<String>,
}

/// Asks each chat server `times` times for a report.
pub fn run(times: u32, _: u64) -> Outcome {
    let troubles = Trouble::all();
    let reports: Vec<Report> = thread::scope(|scope| {
        let all: Vec<_> = troubles.iter().map(|trouble| scope.spawn(move || suffer(*trouble, times))).collect();
        all.into_iter().map(|one| one.join().expect("a chat server's thread")).collect()
    });
    let most = |of: fn(&Report) -> Duration| reports.iter().map(of).max().unwrap_or_default().as_secs_f64();
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let line = format!(
        "mail: {} troubles, in each {times} reports asked for, {} tries failed, {} mails kept; longest wait of a chatting pair {:.0} ms, slowest stop {:.2} s, \
         threads and descriptors back in {} of {}",
        troubles.len(),
        sum(|report| report.tries),
        sum(|report| report.kept),
        most(|report| report.longest) * 1000.0,
        most(|report| report.stop),
        reports.iter().filter(|report| report.wrong.is_empty()).count(),
        troubles.len(),
    );
    let wrong = troubles.iter().zip(reports);
    let wrong = wrong.flat_map(|(trouble, report)| {
        let name = trouble.name();
        report.wrong.into_iter().map(move |wrong| format!("mail server {name}: {wrong}"))
    });
    Outcome { line, wrong: wrong.collect() }
}

fn suffer(trouble: Trouble, times: u32) -> Report {
    let place = tempfile::tempdir().expect("a temporary directory");
    let port = trouble.begin();
    let mut server = process::start(&place.path().join("data"), |setup| {
        setup
            .set("shutdown_timeout", SHUTDOWN_TIMEOUT)
            .set("mail_to", "ops@example.org")
            .set("mail_from", "chat@example.org")
            .set("smtp_host", "127.0.0.1")
            .set("smtp_port", &port.to_string())
            .set("smtp_tls", "none")
            .set("smtp_timeout", SMTP_TIMEOUT)
    });
    let mut pair = Pair::of(&server, "healthy", "happy");
    pair.chat();
    let before = Holdings::at_rest(&server);
    let (mut longest, mut wrong) = (Duration::ZERO, Vec::new());
    for _ in 0..times {
        // Who asks does not wait for the answer: one comes when the last try has failed.
        let _asked = ask(&server.data());
        let until = Instant::now() + ASK_EVERY;
        while Instant::now() < until {
            let began = Instant::now();
            pair.chat();
            longest = longest.max(began.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
    }
    let tries = || server.logged("mail: \"");
    if !happens_within(PATIENCE, || tries() > 0) {
        wrong.push("no line says that a mail is not sent".into());
    }
    // A mail may wait for its next try: that is a thread; and whoever asked for it is answered later, by another, over a socket.
    let mut now = before.clone();
    let is_back = happens_within(PATIENCE, || {
        now = Holdings::of(&server);
        if take(&mut now.threads, "mail") {
            let _ = take(&mut now.threads, "ctl") && take(&mut now.descriptors, "socket");
        }
        now == before
    });
    if !is_back {
        wrong.push(format!("before it held {before:?}, now {now:?}"));
    }
    if longest > LONGEST {
        wrong.push(format!("a healthy pair waited {longest:?}"));
    }
    if server.logged("panicked") > 0 {
        wrong.push("a thread panicked".into());
    }
    pair.chat();
    let tries = tries();
    // Once more, so that it stops in the middle of a mail.
    let one_at_a_time = STOPS.lock();
    let asked = ask(&server.data());
    let began = Instant::now();
    let ended = server.sigterm();
    let stop = began.elapsed();
    drop((asked, one_at_a_time));
    if ended.code() != Some(0) || stop > ENDS_WITHIN {
        wrong.push(format!("SIGTERM: {ended} after {stop:?}"));
    }
    let kept = kept(&server);
    if kept == 0 {
        wrong.push("no mail is kept in DIR/mail".into());
    }
    Report { tries, kept, longest, stop, wrong }
}

/// Asks for a report to be sent.
fn ask(data: &Path) -> UnixStream {
    let mut socket = UnixStream::connect(data.join("ctl.sock")).expect("the server's socket");
    socket.write_all(b"report send\n").expect("the server reads");
    socket
}

/// Removes one of these; `false`: there is none.
fn take(names: &mut Vec<String>, name: &str) -> bool {
    let place = names.iter().position(|known| known == name);
    place.map(|place| names.remove(place)).is_some()
}

fn kept(server: &Server) -> usize {
    std::fs::read_dir(server.data().join("mail")).map_or(0, Iterator::count)
}
