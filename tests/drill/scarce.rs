//! What goes on while a server has no descriptors or no threads left, and what it may cost; and a server that is filled up to the cap that it has
//! computed for itself.

use std::net::TcpStream;
use std::time::{Duration, Instant, UNIX_EPOCH};

use chatserver::client::{Client, ClientError};

use crate::disk;
use crate::hardening::deaf;
use crate::harness::{PATIENCE, Pair, Server, Setup, happens_within, next};
use crate::ledger::{Ledger, Levels};
use crate::person::{Level, Person};

/// How long one time of need lasts.
const LASTS: Duration = Duration::from_millis(1500);

/// So often somebody knocks.
const KNOCKS_EVERY: Duration = Duration::from_millis(50);

/// More than this of a core the server may not use meanwhile.
const CPU_SHARE: f64 = 0.05;

/// How soon the next one must be served when there is room again.
pub const SERVED_WITHIN: Duration = Duration::from_secs(1);

/// What the times of need have shown.
#[derive(Default)]
pub struct Need {
    /// The most that the server used in one, as a share of a core.
    cpu: f64,
    /// Its most log lines in one.
    lines: usize,
    /// The slowest round between two who were in.
    live: Duration,
    /// The longest that somebody had to wait after one.
    pub served: Duration,
    pub wrong: Vec<String>,
}

impl Need {
    /// `at most 0.7 % of a core and 1 log lines in 1.5 s, …`.
    pub fn line(&self) -> String {
        let Need { cpu, lines, live, served, .. } = self;
        format!(
            "at most {:.1} % of a core and {lines} log lines in {:.1} s, live within {} ms, served again within {} ms",
            cpu * 100.0,
            LASTS.as_secs_f64(),
            live.as_millis(),
            served.as_millis()
        )
    }
}

/// Users who are in, and write to each other and to somebody who is not.
pub struct Insiders {
    pair: Pair,
    near: Person,
    far: Person,
    writer: Person,
    ledger: Ledger,
}

/// Channels of the insiders' books.
const LIVE: usize = 0;
const ABSENT: usize = 1;

impl Insiders {
    /// They log in.
    pub fn of(server: &Server) -> Insiders {
        let both = Levels { sender: Level::Two, recipient: Level::Two };
        let people = ["near", "far", "writer"].map(|name| {
            let mut person = Person::new(name, Level::Two);
            person.log_in(&server.connect()).expect("there is room for it");
            person
        });
        let [near, far, writer] = people;
        Insiders { pair: Pair::of(server, "healthy", "happy"), near, far, writer, ledger: Ledger::new(vec![both; 2]) }
    }

    /// Through a time of need: they go on, while every now and then somebody knocks. `name` is that of the need.
    pub fn go_on(&mut self, server: &Server, name: &str, need: &mut Need, mut knock: impl FnMut()) {
        let (cpu, lines, begun) = (server.cpu(), server.log().lines().count(), Instant::now());
        while begun.elapsed() < LASTS {
            let round = Instant::now();
            self.pair.chat();
            need.live = need.live.max(round.elapsed());
            if let Err(error) = self.write() {
                return need.wrong.push(format!("{name}: somebody who was in lost the connection: {error}"));
            }
            knock();
            std::thread::sleep(KNOCKS_EVERY);
        }
        let share = (server.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
        let log = server.log();
        let new: Vec<&str> = log.lines().skip(lines).collect();
        // An alert is told once, when it is due, and not for each who knocks.
        let lines = new.iter().filter(|line| !line.contains("alert")).count();
        need.cpu = need.cpu.max(share);
        need.lines = need.lines.max(lines);
        if share > CPU_SHARE {
            need.wrong.push(format!("{name}: the server used {:.1} % of a core", share * 100.0));
        }
        if lines as f64 > LASTS.as_secs_f64().ceil() {
            need.wrong.push(format!("{name}: {lines} log lines in {LASTS:?}: {new:?}"));
        }
    }

    fn write(&mut self) -> Result<(), ClientError> {
        disk::chat(&mut self.near, &mut self.far, &self.ledger, LIVE, 1)?;
        let mark = self.ledger.next(ABSENT, false);
        self.writer.send("absent", &mark.text(0))?;
        disk::until_receipted(&mut self.writer, ABSENT, &self.ledger, Duration::ZERO).map(drop)
    }

    /// After all of it: whoever was absent gets everything.
    pub fn finish(mut self, server: &Server, need: &mut Need) {
        let finished = disk::until_receipted(&mut self.writer, ABSENT, &self.ledger, PATIENCE)
            .and_then(|_| disk::take_all(&mut Person::new("absent", Level::Two), ABSENT, &self.ledger, server));
        need.wrong.extend(finished.err().map(|error| format!("at the end: {error}")));
        need.wrong.extend(self.ledger.judge().wrong);
    }
}

/// Waits until somebody new can log in; more than `SERVED_WITHIN` is wrong.
pub fn until_served(server: &Server, name: &str, need: &mut Need) {
    let begun = Instant::now();
    let is_served = happens_within(PATIENCE, || server.connect().login("newcomer").is_ok());
    need.served = need.served.max(begun.elapsed());
    if !is_served || begun.elapsed() > SERVED_WITHIN {
        need.wrong.push(format!("{name}: served again only after {:?}", begun.elapsed()));
    }
}

/// How many connections the servers of `at_the_cap` are to compute for themselves.
pub const CAP: usize = 96;

/// Of these, recipients who do not read, each with a writer. Two chat.
pub const WRITERS: usize = CAP - 2;

/// Texts that wait for each who does not read; more than the sockets between take.
const BACKLOG: usize = 6;

/// A server whose computed cap is `CAP` is filled to it, with a writer at work for everybody who does not read; gives the words for the line.
pub fn at_the_cap(prepare: impl FnOnce(&mut Setup) -> &mut Setup, wrong: &mut Vec<String>) -> String {
    let mut server =
        Server::start(|setup| prepare(setup.set("max_writers", &WRITERS.to_string()).set("log_level", "info")));
    let computed = format!("up to {CAP} connections");
    // The log has a thread of its own.
    if !happens_within(PATIENCE, || server.logged(&computed) > 0) {
        wrong.push(format!("the cap is not as computed: no \"{computed}\" in the log"));
    }
    // What waits is put where it waits: to send so much takes long.
    server.sigterm();
    let texts: Vec<String> = (0..BACKLOG).map(|number| format!("{number:<60000}")).collect();
    leave_waiting(&server, &texts).expect("the schema is as ever");
    let mut server = server.restart();
    let mut pair = Pair::of(&server, "healthy", "happy");
    let is_empty = happens_within(PATIENCE, || server.connection_threads().len() == 2);
    let deaf: Vec<TcpStream> = (0..WRITERS).map(|number| deaf(&server, &format!("deaf {number}"))).collect();
    let writers = || server.threads().iter().filter(|name| name.starts_with("w:")).count();
    let is_full = happens_within(PATIENCE, || writers() == WRITERS);
    if !is_empty || !is_full {
        wrong.push(format!("at the cap: {} of {WRITERS} writers are at work", writers()));
    }
    let threads = server.threads().len();
    for _ in 0..20 {
        pair.chat();
        let refused = server.connect().open().and_then(|mut one| one.read_to_close(PATIENCE));
        wrong.extend(refused.err().map(|error| format!("one more than the cap is not refused: {error}")));
    }
    let refusals = || server.logged("refused, max_connections is reached");
    // The log has a thread of its own.
    happens_within(PATIENCE, || refusals() > 0);
    if refusals() != 1 {
        wrong.push(format!("{} lines tell of refused connections", refusals()));
    }
    drop(deaf);
    if !happens_within(PATIENCE, || server.connection_threads().len() == 2) {
        wrong.push(format!("after the cap these threads stay: {:?}", server.connection_threads()));
    }
    pair.chat();
    let mut one: Client = server.login("deaf 0");
    wrong.extend(texts.iter().any(|text| next(&mut one).text != *text).then(|| "the backlog has changed".to_owned()));
    let status = server.sigterm();
    if !status.success() {
        wrong.push(format!("at the cap, SIGTERM: {status}"));
    }
    format!("at the computed cap {CAP} connections, {WRITERS} writers, {threads} threads, one more refused")
}

/// Puts these texts on the disk of a server that is not running, for everybody who will not read.
fn leave_waiting(server: &Server, texts: &[String]) -> rusqlite::Result<()> {
    let mut database = rusqlite::Connection::open(server.db_path())?;
    let transaction = database.transaction()?;
    let query = "insert into messages (recipient, seq, sender, text, client_time, accepted_at) values (?, ?, 'sender', ?, 0, ?)";
    let now = UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_millis() as i64;
    for number in 0..WRITERS {
        for (seq, text) in (1..).zip(texts) {
            transaction.execute(query, rusqlite::params![format!("deaf {number}"), seq, text, now])?;
        }
    }
    transaction.commit()
}
