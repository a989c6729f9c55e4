//! Instructions per message of the path that every message takes: frame, open, decode, route, push. Counted by callgrind, so that the figure does
//! not depend on how busy the machine is, and compared with the committed one.
//!
//! `make guard` fails when an input costs more than 5 % more than `tests/bench/path.toml` says; `make guard UPDATE=1` writes the figures anew. What
//! is counted is `Connection::execute_all` of a server in this process: everything between a read and the write that it leads to, 32 packets to a
//! read as under load. Not counted are the two system calls, the acknowledgements that follow, and the saves.
//!
//! callgrind has the processor's AES instructions, but neither its wide ones (VAES) nor AVX-512. Two runs differ by 0.2 % at most: by four instructions where a
//! name happens to lie across two pages, and by what the timer's thread has saved meanwhile. Another compiler, or another libc, may make some percent.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs, thread};

use chatserver::config::Config;
use chatserver::protocol::{Chat, Cipher, Decoder, Frame, Message, PUBLISHED_KEY};
use chatserver::server::Server;
use chatserver::server::counted::Counted;

/// Beyond this a figure has become worse, in percent of the committed one.
const TOLERANCE: f64 = 5.0;

/// Batches before those that are counted: buffers have grown by then, and of a level-2 sender 1,024 numbers are remembered, so that one is
/// forgotten for each new one.
const WARM_UP: usize = 40;

/// Batches that are counted.
const COUNTED: usize = 64;

/// From one save to the next, in batches: a level-2 sender's numbers must be reserved on disk.
const SAVED_EVERY: usize = 8;

/// callgrind counts a string instruction once for each byte, so that long copies, for which glibc prefers it, would seem dear: here they are loops.
const LOOPS: &str = "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// Functions that are named for each input.
const DEAREST: usize = 10;

const PATIENCE: Duration = Duration::from_secs(10);

/// What one user sends to another.
struct Input {
    name: &'static str,
    text_bytes: usize,
    /// The protocol level of the sender and of the recipient.
    levels: (u32, u32),
    /// Packets that are written to the recipient at one time.
    batch: usize,
}

const INPUTS: [Input; 6] = [
    Input { name: "10 bytes, level 1 to 1", text_bytes: 10, levels: (1, 1), batch: 32 },
    Input { name: "100 bytes, level 1 to 1", text_bytes: 100, levels: (1, 1), batch: 32 },
    Input { name: "10,000 bytes, level 1 to 1", text_bytes: 10_000, levels: (1, 1), batch: 4 },
    Input { name: "100 bytes, level 1 to 2", text_bytes: 100, levels: (1, 2), batch: 32 },
    Input { name: "100 bytes, level 2 to 1", text_bytes: 100, levels: (2, 1), batch: 32 },
    Input { name: "100 bytes, level 2 to 2", text_bytes: 100, levels: (2, 2), batch: 32 },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--execute") {
        execute(Path::new(&arguments[at + 1]));
        return ExitCode::SUCCESS;
    }
    match guard(arguments.iter().any(|argument| argument == "--update")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The committed figures.
#[derive(serde::Deserialize)]
struct Figures {
    rustc: String,
    instructions: BTreeMap<String, f64>,
}

/// What callgrind counted for an input.
struct Profile {
    total: u64,
    functions: BTreeMap<String, u64>,
}

/// Counts all inputs, and compares the figures with the committed ones or, if `update`, commits them; `false`: one has become worse.
fn guard(update: bool) -> Result<bool, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/path.toml");
    let known: Figures =
        toml::from_str(&fs::read_to_string(&file).unwrap_or_else(|_| "rustc = ''\n[instructions]".into()))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    let rustc = rustc_version();
    if !update && known.rustc != rustc {
        println!(
            "the committed figures are of {}; this is {rustc}, whose code may be some percent better or worse",
            known.rustc
        );
    }
    let (mut is_fine, mut lines) = (true, String::new());
    for (input, profile) in INPUTS.iter().zip(profiles()?) {
        let messages = (COUNTED * input.batch) as f64;
        let figure = (profile.total as f64 / messages * 10.0).round() / 10.0;
        lines += &format!("\"{}\" = {figure:.1}\n", input.name);
        let (beside, verdict) = match known.instructions.get(input.name) {
            Some(committed) => {
                let percent = (figure / committed - 1.0) * 100.0;
                (format!("committed {committed:.1}, {percent:+.1} %"), verdict(percent))
            }
            None => ("not committed yet".into(), Verdict::Worse),
        };
        println!("{}: instructions per message: {figure:.1} ({beside}){}", input.name, verdict.words());
        is_fine &= verdict != Verdict::Worse;
        let mut functions: Vec<(String, u64)> = profile.functions.into_iter().collect();
        functions.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (name, cost) in functions.iter().take(DEAREST) {
            println!("  {:>10.1}  {}", *cost as f64 / messages, name.chars().take(120).collect::<String>());
        }
    }
    if update {
        let head = "# Instructions per message, as `make guard UPDATE=1` has counted them; what is counted is said in path.rs.\n";
        let text = format!("{head}rustc = \"{rustc}\"\n\n[instructions]\n{lines}");
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        println!("written to {}", file.display());
    }
    Ok(is_fine || update)
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Worse,
    Same,
    Better,
}

fn verdict(percent: f64) -> Verdict {
    match percent {
        _ if percent > TOLERANCE => Verdict::Worse,
        _ if percent < -TOLERANCE => Verdict::Better,
        _ => Verdict::Same,
    }
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Verdict::Worse => {
                ": TOO MANY; make the path cheaper, or say in the change why it must be dearer and run `make guard UPDATE=1`"
            }
            Verdict::Same => "",
            Verdict::Better => ": better; `make guard UPDATE=1` keeps it so",
        }
    }
}

fn rustc_version() -> String {
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-V").output();
    output.map_or("an unknown compiler".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Executes this program under callgrind, which writes a file at the end of each input.
fn profiles() -> Result<Vec<Profile>, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("a temporary directory: {error}"))?;
    let out = directory.path().join("callgrind.out");
    let program = env::current_exe().map_err(|error| format!("our own path: {error}"))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--vgdb=no", "--dump-line=no", "--compress-strings=no", "--compress-pos=no"]);
    command.args(["--toggle-collect=*Counted*execute_counted*", "--dump-before=*input_ends*"]);
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(program).arg("--execute").arg(directory.path());
    command.env("GLIBC_TUNABLES", LOOPS);
    let ended =
        command.output().map_err(|error| format!("valgrind cannot be started ({error}): apt-get install valgrind"))?;
    if !ended.status.success() {
        return Err(format!("under valgrind: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr)));
    }
    let file = |number| PathBuf::from(format!("{}.{number}", out.display()));
    (1..=INPUTS.len()).map(|number| profile(&file(number))).collect()
}

/// Reads what callgrind wrote: after a line `fn=` come lines of that function's own cost, but the line after a `calls=` is its callee's.
fn profile(file: &Path) -> Result<Profile, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut profile = Profile { total: 0, functions: BTreeMap::new() };
    let (mut function, mut is_callees) = (String::new(), false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            name.clone_into(&mut function);
        } else if line.starts_with("calls=") {
            is_callees = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            let cost = cost.ok_or_else(|| format!("{}: not understood: {line}", file.display()))?;
            if !std::mem::take(&mut is_callees) {
                profile.total += cost;
                *profile.functions.entry(function.clone()).or_default() += cost;
            }
        }
    }
    if profile.total == 0 {
        return Err(format!("{}: nothing was counted", file.display()));
    }
    Ok(profile)
}

/// All inputs on one server, whose data is in `directory`.
fn execute(directory: &Path) {
    // Nothing but the inputs moves: the timer saves when it is told to.
    let hour = Duration::from_secs(3600);
    let config = Config {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        data: directory.join("data"),
        save_interval: hour,
        receipt_interval: hour,
        report_interval: Duration::ZERO,
        ..Config::default()
    };
    let server = Server::start(config).expect("the server starts");
    for (number, input) in INPUTS.iter().enumerate() {
        let mut conversation = Conversation::begin(&server, number as u64, input);
        (0..WARM_UP).for_each(|_| conversation.go_on(&server, Counted::execute));
        (0..COUNTED).for_each(|_| conversation.go_on(&server, Counted::execute_counted));
        input_ends(number);
    }
}

/// Here callgrind writes down what it has counted.
#[inline(never)]
fn input_ends(number: usize) {
    std::hint::black_box(number);
}

/// Two users of whom one writes to the other.
struct Conversation<'i> {
    input: &'i Input,
    cipher: Cipher,
    text: String,
    sender: User,
    recipient: User,
    batches: usize,
}

/// Both ends of a connection.
struct User {
    name: String,
    near: Counted,
    far: TcpStream,
    unread: Vec<u8>,
    decoder: Decoder,
}

impl<'i> Conversation<'i> {
    fn begin(server: &Server, number: u64, input: &'i Input) -> Conversation<'i> {
        let cipher = Cipher::new(PUBLISHED_KEY).expect("16 bytes");
        let user = |id: u64, side, level| User::log_in(server, id, format!("guard-{number}-{side}"), level, &cipher);
        let sender = user(2 * number, 'a', input.levels.0);
        let recipient = user(2 * number + 1, 'b', input.levels.1);
        let text = "x".repeat(input.text_bytes);
        Conversation { input, cipher, text, sender, recipient, batches: 0 }
    }

    /// One batch, from its sending to its acknowledgement.
    fn go_on(&mut self, server: &Server, execute: fn(&mut Counted)) {
        let packets = self.packets();
        let charged_bytes = self.sender.near.charged_bytes();
        let mut rest = &packets[..];
        while !rest.is_empty() {
            rest = &rest[self.sender.near.read(rest)..];
            execute(&mut self.sender.near);
            self.sender.near.flush();
        }
        let seq = self.recipient.receive(self.input.batch, &self.cipher, &self.text);
        if let Some(seq) = seq {
            self.recipient.bring(&Message::ClientAck { seq }, &self.cipher);
        }
        while !self.recipient.near.has_settled(charged_bytes) {
            thread::yield_now();
        }
        self.recipient.near.flush();
        self.batches += 1;
        if self.input.levels.0 == 2 && self.batches.is_multiple_of(SAVED_EVERY) {
            server.save(PATIENCE).expect("the disk takes it");
        }
        self.sender.near.flush();
        self.sender.discard();
    }

    /// The packets of a batch. A level-2 sender numbers them.
    fn packets(&self) -> Vec<u8> {
        let mut packets = Vec::new();
        for number in 0..self.input.batch {
            let msg_id = (self.input.levels.0 == 2).then(|| (self.batches * self.input.batch + number + 1) as u64);
            let (from, to, text) = (&*self.sender.name, &*self.recipient.name, &*self.text);
            let chat = Chat { from, to, text, time: 1_700_000_000, msg_id, ..Chat::default() };
            Message::Chat(chat).encode(&self.cipher, &mut packets);
        }
        packets
    }
}

impl User {
    fn log_in(server: &Server, id: u64, name: String, level: u32, cipher: &Cipher) -> User {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let near = listener.accept().expect("somebody has connected").0;
        near.set_nodelay(true).expect("a socket");
        far.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let near = Counted::new(server, id, near).expect("it is connected");
        let mut user = User { name: name.clone(), near, far, unread: Vec::new(), decoder: Decoder::default() };
        let level = (level > 1).then_some(level);
        user.bring(&Message::ClientLogin { name: &name, version: 1.0, time: 0, level, last_seq: None }, cipher);
        while user.next(cipher, |message| assert!(matches!(message, Message::ServerAcceptLogin(_)))).is_none() {
            user.read();
        }
        user
    }

    /// The server gets this from the user.
    fn bring(&mut self, message: &Message<'_>, cipher: &Cipher) {
        let mut packet = Vec::new();
        message.encode(cipher, &mut packet);
        assert_eq!(self.near.read(&packet), packet.len());
        self.near.execute();
        self.near.flush();
    }

    /// Receives so many messages with this text, and gives the last one's `seq`.
    fn receive(&mut self, messages: usize, cipher: &Cipher, text: &str) -> Option<u64> {
        let (mut received, mut seq) = (0, None);
        while received < messages {
            let taken = self.next(cipher, |message| match message {
                Message::Chat(chat) => {
                    assert_eq!(chat.text, text);
                    seq = chat.seq;
                }
                other => panic!("{other:?} is no text"),
            });
            match taken {
                Some(()) => received += 1,
                None => self.read(),
            }
        }
        seq
    }

    /// Takes the next packet, if it is there.
    fn next<R>(&mut self, cipher: &Cipher, take: impl FnOnce(&Message<'_>) -> R) -> Option<R> {
        let frame = Frame::parse(&self.unread, usize::MAX).expect("the server sends packets")?;
        let length = frame.packet.len();
        let result = take(&self.decoder.decode(cipher, frame).expect("the server sends good messages").message);
        self.unread.drain(..length);
        Some(result)
    }

    fn read(&mut self) {
        // Asked for each time, since the kernel forgets it: what was read is acknowledged at once.
        let _ = rustix::net::sockopt::set_tcp_quickack(&self.far, true);
        let mut bytes = [0; 16 * 1024];
        let count = self.far.read(&mut bytes).expect("the server says something");
        assert!(count > 0, "the server closed the connection");
        self.unread.extend_from_slice(&bytes[..count]);
    }

    /// Forgets what has arrived.
    fn discard(&mut self) {
        self.far.set_nonblocking(true).expect("a socket");
        loop {
            match self.far.read(&mut [0; 16 * 1024]) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.far.set_nonblocking(false).expect("a socket");
    }
}
