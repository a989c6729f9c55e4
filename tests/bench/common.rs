//! What the benchmarks share: a server process of their own, what it uses, and clients that log in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chatserver::protocol::{Chat, Cipher, Message, PUBLISHED_KEY};

/// A process under test, ended when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Process {
    /// The server, in a directory of its own.
    pub fn server() -> Process {
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatserver"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data.path());
        Process::start(command, data)
    }

    /// A command whose first line says `listening on ADDR`.
    pub fn start(mut command: Command, data: tempfile::TempDir) -> Process {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the process starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a first line");
        let address = line.trim().trim_start_matches("listening on ").parse().expect("an address");
        Process { child, address, _data: data }
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn cipher() -> Cipher {
    Cipher::new(PUBLISHED_KEY).expect("16 bytes")
}

/// A connection that has logged in and read its answer.
pub fn log_in(address: SocketAddr, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("a socket");
    let mut login = Vec::new();
    Message::ClientLogin { name, version: 1.0, time: 0, level: None, last_seq: None }.encode(&cipher(), &mut login);
    stream.write_all(&login).expect("writes");
    read_packet(&mut stream);
    stream
}

/// Reads one packet and gives its length.
pub fn read_packet(stream: &mut TcpStream) -> usize {
    let mut header = [0; 8];
    stream.read_exact(&mut header).expect("a header");
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    stream.read_exact(&mut vec![0; length - 8]).expect("a body");
    length
}

/// A sealed message.
pub fn message(from: &str, to: &str, text: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    Message::Chat(Chat { from, to, text, time: 1_700_000_000, ..Chat::default() }).encode(&cipher(), &mut packet);
    packet
}

/// The value below which `share` of the values lie.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
