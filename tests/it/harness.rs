//! Runs the real program for one test: starts it on a free port in a directory of its own, reads its log, looks at its process, stops
//! or kills it, starts it again on the same directory.
//!
//! ```ignore
//! let server = Server::start(|setup| setup.set("login_timeout", "1 s"));
//! let mut ann = server.login("ann");
//! ann.send("bob", "hello").unwrap();
//! ann.roundtrip().unwrap();                      // a barrier: the server has executed everything before it
//! server.wait_for_log("logged in");
//! let server = server.restart();                 // SIGTERM, and the same directory again
//! ```
//!
//! A test that panics prints the server's log. A server is killed when its test ends, however that ends.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chatserver::client::{Client, Connect, Incoming};
use chatserver::protocol::{Cipher, Message, PUBLISHED_KEY};
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// For what is expected to come: only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at again.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics with `what` when it does not within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(happens_within(PATIENCE, condition), "did not happen within {PATIENCE:?}: {what}");
}

/// Whether `condition` comes to hold within `timeout`.
pub fn happens_within(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOOK);
    }
}

/// The program, without whatever `CHATSERVER_…` the environment of the tests has; it speaks English.
pub fn program() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_chatserver")))
}

/// A command that no setting reaches through the environment.
pub fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CHATSERVER_")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a command to its end, with a bound; `input` is its standard input.
pub fn run(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Whoever does not read its input has ended by itself; then its exit code says why.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let pid = Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let mut stdout = child.stdout.take().unwrap();
    let out = thread::spawn(move || read_all(&mut stdout));
    let err = read_all(&mut child.stderr.take().unwrap());
    let out = out.join().unwrap();
    drop(ended);
    watch.join().unwrap();
    Output { status: child.wait().unwrap(), stdout: out, stderr: err }
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

/// How a server is started.
#[derive(Clone, Default)]
pub struct Setup {
    settings: Vec<(String, String)>,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    listen: Option<String>,
    data: Option<PathBuf>,
}

impl Setup {
    /// A setting by its name in the configuration file; it travels as `CHATSERVER_NAME`.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Setup {
        self.settings.push((format!("CHATSERVER_{}", name.to_uppercase()), value.to_owned()));
        self
    }

    /// One more argument of `serve`.
    pub fn argument(&mut self, argument: &str) -> &mut Setup {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A command in front of the program: `["strace", "-f", …]`, `["prlimit", "--nofile=64"]`.
    pub fn wrapper(&mut self, words: &[&str]) -> &mut Setup {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Instead of `127.0.0.1:0`.
    pub fn listen(&mut self, address: &str) -> &mut Setup {
        self.listen = Some(address.to_owned());
        self
    }

    /// Instead of a directory of its own: a file system prepared by the test. It is not removed.
    pub fn data(&mut self, dir: &Path) -> &mut Setup {
        self.data = Some(dir.to_owned());
        self
    }

    fn command(&self, data: &Path) -> Command {
        let mut words = self.wrapper.clone();
        words.push(env!("CARGO_BIN_EXE_chatserver").to_owned());
        let mut command = without_settings(Command::new(&words[0]));
        command.args(&words[1..]).args([
            "serve",
            "--listen",
            self.listen.as_deref().unwrap_or("127.0.0.1:0"),
            "--data",
        ]);
        command.arg(data).args(&self.arguments);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A start that did not succeed.
#[derive(Debug)]
pub struct NotStarted {
    /// How the program ended.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub log: String,
}

/// A running server.
pub struct Server {
    child: Child,
    pid: Pid,
    addr: String,
    log: Arc<Log>,
    setup: Setup,
    dir: Arc<TempDir>,
    is_over: bool,
}

impl Server {
    /// Starts one and waits until it listens.
    #[track_caller]
    pub fn start(prepare: impl FnOnce(&mut Setup) -> &mut Setup) -> Server {
        let mut setup = Setup::default();
        prepare(&mut setup);
        Server::start_in(setup, Arc::new(tempfile::tempdir().unwrap())).unwrap_or_else(|failed| {
            panic!("the server did not start, {}:\n{}", failed.status, failed.log);
        })
    }

    /// One with the default settings.
    #[track_caller]
    pub fn start_default() -> Server {
        Server::start(|setup| setup)
    }

    /// Tries to start a second one on this one's directory, with the same settings.
    pub fn start_another(&self) -> Result<Server, NotStarted> {
        Server::start_in(self.setup.clone(), self.dir.clone())
    }

    fn start_in(setup: Setup, dir: Arc<TempDir>) -> Result<Server, NotStarted> {
        let data = setup.data.clone().unwrap_or_else(|| dir.path().join("data"));
        let mut child = setup.command(&data).spawn().unwrap();
        let log = Log::of(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(addr) = line.strip_prefix("listening on ") else {
            assert_eq!(line, "", "the first line of standard output");
            let status = child.wait().unwrap();
            log.wait_for_end();
            return Err(NotStarted { status, log: log.text() });
        };
        let addr = addr.trim_end().replace("0.0.0.0", "127.0.0.1");
        thread::spawn(move || read_all(&mut stdout));
        // Under a wrapper the child is the wrapper; the lock says who the server is.
        let pid = std::fs::read_to_string(data.join("lock")).unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        Ok(Server { child, pid, addr, log, setup, dir, is_over: false })
    }

    /// `HOST:PORT`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.setup.data.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    /// The way in for a client; a waiting client gives up before a test's patience does.
    pub fn connect(&self) -> Connect {
        Client::connect(self.addr.as_str(), PUBLISHED_KEY).timeout(PATIENCE)
    }

    /// A logged-in client.
    #[track_caller]
    pub fn login(&self, name: &str) -> Client {
        self.connect().login(name).unwrap_or_else(|error| panic!("{name} cannot log in: {error}"))
    }

    /// A bare socket; a read that waits longer than [`PATIENCE`] is an error.
    pub fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// The server's own process, also under a wrapper.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Resident memory, KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Open sockets: of connections, and the one that listens.
    pub fn sockets(&self) -> usize {
        let descriptors = std::fs::read_dir(self.proc("fd")).unwrap();
        let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// The names of the threads that connections and their writers have, sorted. A thread that was just started has its parent's name: compare with
    /// the names that are expected, never with an earlier answer.
    pub fn connection_threads(&self) -> Vec<String> {
        let own = [
            "chatserver",
            "accept",
            "timer",
            "log",
            "signals",
            "ctrl-c",
            "reader",
            "watch",
            "ctl",
            "report",
            "mail",
            "http",
        ];
        self.threads().into_iter().filter(|name| !own.contains(&name.as_str())).collect()
    }

    /// The names of the threads, sorted.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(self.proc("task")).unwrap();
        // A thread may end between the two looks.
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        let mut names: Vec<String> = names.map(|name| name.trim_end().to_owned()).collect();
        names.sort();
        names
    }

    /// Whether a thread has this name: the first 15 bytes of a user's, for one who is there.
    pub fn has_thread(&self, name: &str) -> bool {
        self.threads().iter().any(|thread| thread == name)
    }

    /// CPU time of all threads so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn proc(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.pid()))
    }

    /// Waits for a log line that contains `pattern` and gives the first one, from whenever it is.
    #[track_caller]
    pub fn wait_for_log(&self, pattern: &str) -> String {
        self.log.wait_for(pattern).unwrap_or_else(|| panic!("no log line with {pattern:?}"))
    }

    /// The log so far: what a person sees on standard error.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// How many log lines so far contain `pattern`.
    pub fn logged(&self, pattern: &str) -> usize {
        self.log().lines().filter(|line| line.contains(pattern)).count()
    }

    /// The database, read-only, beside the server.
    pub fn db(&self) -> rusqlite::Connection {
        use rusqlite::OpenFlags;
        let db = rusqlite::Connection::open_with_flags(self.db_path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        db
    }

    /// Where the database is.
    pub fn db_path(&self) -> PathBuf {
        self.data().join("chatserver.db")
    }

    /// Rows of `messages` at present: what waits on disk, for all users.
    pub fn rows(&self) -> i64 {
        self.db().query_row("select count(*) from messages", [], |row| row.get(0)).unwrap()
    }

    /// Rows of `messages` of one user, who is named as in `name_key`.
    pub fn rows_of(&self, name: &str) -> i64 {
        self.db().query_row("select count(*) from messages where recipient = ?", [name], |row| row.get(0)).unwrap()
    }

    /// Sends a signal and returns at once.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for the end and gives the exit status; panics when it does not end within `timeout`.
    #[track_caller]
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let ended = happens_within(timeout, || self.child.try_wait().unwrap().is_some());
        assert!(ended, "the server runs on after {timeout:?}");
        self.is_over = true;
        self.log.wait_for_end();
        self.child.wait().unwrap()
    }

    /// SIGTERM, and the exit status.
    #[track_caller]
    pub fn sigterm(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(PATIENCE)
    }

    /// SIGKILL: what is not on disk is gone.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        let status = self.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9));
    }

    /// Stops it (exit code 0) unless it is over already, and starts it again with the same settings on the same directory.
    #[track_caller]
    pub fn restart(self) -> Server {
        self.restart_with(|setup| setup)
    }

    /// The same, after a change of the settings.
    #[track_caller]
    pub fn restart_with(mut self, change: impl FnOnce(&mut Setup) -> &mut Setup) -> Server {
        if !self.is_over {
            let status = self.sigterm();
            assert_eq!(status.code(), Some(0), "the exit after SIGTERM");
        }
        let mut setup = self.setup.clone();
        change(&mut setup);
        Server::start_in(setup, self.dir.clone()).unwrap_or_else(|failed| {
            panic!("the server did not start again, {}:\n{}", failed.status, failed.log);
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut end = String::from("it ran until the test ended");
        match self.child.try_wait() {
            Ok(Some(status)) => end = format!("it had ended by itself or by the test: {status}"),
            _ => {
                let _ = kill_process(self.pid, Signal::KILL);
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if thread::panicking() {
            self.log.wait_for_end();
            eprintln!("log of the server {} (process {}), {end}:\n{}", self.addr, self.pid(), self.log.text());
        }
    }
}

/// What the server wrote to standard error, collected by a thread.
#[derive(Default)]
struct Log {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    fn of(stderr: impl Read + Send + 'static) -> Arc<Log> {
        let log = Arc::new(Log::default());
        let mine = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                mine.state.lock().0.push(String::from_utf8_lossy(&line).into_owned());
                mine.changed.notify_all();
            }
            mine.state.lock().1 = true;
            mine.changed.notify_all();
        });
        log
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.state.lock().0.iter().for_each(|line| writeln!(text, "{line}").unwrap());
        text
    }

    fn wait_for(&self, pattern: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        loop {
            if let Some(line) = state.0.iter().find(|line| line.contains(pattern)) {
                return Some(line.clone());
            }
            if state.1 || self.changed.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
    }

    fn wait_for_end(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        while !state.1 && !self.changed.wait_until(&mut state, deadline).timed_out() {}
    }
}

/// Two clients whose conversation nothing may disturb.
pub struct Pair {
    one: Client,
    two: Client,
    rounds: u64,
}

impl Pair {
    /// Logs in two users of these names.
    #[track_caller]
    pub fn of(server: &Server, one: &str, two: &str) -> Pair {
        Pair { one: server.login(one), two: server.login(two), rounds: 0 }
    }

    /// A message each way must arrive.
    #[track_caller]
    pub fn chat(&mut self) {
        self.rounds += 1;
        let text = format!("round {}", self.rounds);
        for _ in 0..2 {
            self.one.send(self.two.name(), &text).unwrap();
            assert_eq!(next(&mut self.two).text, text, "what {} reads", self.two.name());
            std::mem::swap(&mut self.one, &mut self.two);
        }
    }
}

/// The next message, which must come.
#[track_caller]
pub fn next(client: &mut Client) -> Incoming {
    match client.recv(PATIENCE) {
        Ok(Some(message)) => message,
        other => panic!("{} should receive a message: {other:?}", client.name()),
    }
}

/// The texts of the next `count` messages, which must come.
#[track_caller]
pub fn texts(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| next(client).text).collect()
}

/// All texts that the server has for the client at this moment: a barrier, then what came before it.
#[track_caller]
pub fn all_texts(client: &mut Client) -> Vec<String> {
    client.roundtrip().unwrap();
    std::iter::from_fn(|| client.recv(Duration::ZERO).unwrap()).map(|message| message.text).collect()
}

/// `count` texts, each different, in order: `label 0`, `label 1`, …
pub fn numbered(label: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{label} {number}")).collect()
}

/// Sends the texts; when it returns the server has accepted them all.
#[track_caller]
pub fn send_all(client: &mut Client, to: &str, texts: &[impl AsRef<str>]) {
    for batch in texts.chunks(256) {
        batch.iter().for_each(|text| client.queue(to, text.as_ref()));
        client.flush().unwrap();
    }
    client.roundtrip().unwrap();
}

/// The server must close, cleanly or by a reset.
#[track_caller]
pub fn expect_close(client: &mut Client) {
    let end = client.connection().read_to_close(PATIENCE);
    assert!(end.is_ok(), "{} should be closed: {end:?}", client.name());
}

/// A message as a packet with the published key.
pub fn packet(message: &Message<'_>) -> Vec<u8> {
    let mut packet = Vec::new();
    message.encode(&Cipher::new(PUBLISHED_KEY).unwrap(), &mut packet);
    packet
}
