//! What the comparisons share: one workload against one side, in a process of its own, and tables of what came out.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use chatserver::bench::Report;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chatserver");

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The bare relay.
    Floor,
    /// This project's server.
    Us,
    /// mosquitto, with this quality of service.
    Mosquitto(u8),
}

impl Side {
    /// At the head of a column.
    pub fn name(self) -> &'static str {
        match self {
            Side::Floor => "floor",
            Side::Us => "chatserver",
            Side::Mosquitto(0) => "mosquitto QoS 0",
            Side::Mosquitto(_) => "mosquitto QoS 1",
        }
    }

    /// Those that can be measured here.
    pub fn here(has_mosquitto: bool) -> Vec<Side> {
        let all = [Side::Floor, Side::Us, Side::Mosquitto(0), Side::Mosquitto(1)];
        all.into_iter().filter(|side| has_mosquitto || !matches!(side, Side::Mosquitto(_))).collect()
    }

    /// Plays one workload against a new process of this side.
    ///
    /// # Errors
    /// It did not start, or there is no result; a sentence.
    pub fn play(self, arguments: &[String]) -> Result<Report, String> {
        let mut command;
        let _broker;
        if let Side::Mosquitto(qos) = self {
            let broker = Mosquitto::start().map_err(|error| format!("mosquitto: {error}"))?;
            command = Command::new(example()?);
            command.args(["--addr", &format!("127.0.0.1:{}", broker.port), "--qos", &qos.to_string()]);
            _broker = broker;
        } else {
            command = Command::new(PROGRAM);
            command.arg("bench").args((self == Side::Floor).then_some("floor"));
        }
        let output = command.args(arguments).arg("--json").output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        let line = String::from_utf8_lossy(&output.stdout);
        let report: Report = serde_json::from_str(line.trim())
            .map_err(|_| format!("{} {}: no result: {}", self.name(), arguments.join(" "), said.trim()))?;
        match report.is_clean() {
            true => Ok(report),
            false => Err(format!(
                "{} {}: {} lost, {} twice, {} out of order, {} that nobody wrote",
                self.name(),
                arguments.join(" "),
                report.lost,
                report.duplicated,
                report.reordered,
                report.strange
            )),
        }
    }
}

/// Beside the program, in its own folder.
fn example() -> Result<PathBuf, String> {
    let path = Path::new(PROGRAM).with_file_name("examples").join("bench_mqtt");
    match path.exists() {
        true => Ok(path),
        false => Err("the example is not built: cargo build --release --example bench_mqtt".into()),
    }
}

/// What it is told beside its address: it keeps nothing on disk, and drops nothing for a limit.
pub const MOSQUITTO_SETTINGS: &str = "\
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 0
max_inflight_bytes 0
max_queued_messages 0
max_queued_bytes 0
max_connections -1
connection_messages false
log_dest none
";

/// A broker of our own, ended when dropped.
struct Mosquitto {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Mosquitto {
    fn start() -> io::Result<Mosquitto> {
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let file = directory.path().join("mosquitto.conf");
        std::fs::write(&file, format!("listener {port} 127.0.0.1\n{MOSQUITTO_SETTINGS}"))?;
        let child =
            Command::new("mosquitto").arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut mosquitto = Mosquitto { child, port, _directory: directory };
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if mosquitto.child.try_wait()?.is_some() || Instant::now() > until {
                return Err(io::Error::other("it does not listen"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(mosquitto)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its version, if it is installed.
pub fn mosquitto_version() -> Option<String> {
    let output = Command::new("mosquitto").arg("-h").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next()?.strip_prefix("mosquitto version ").map(str::to_owned)
}

/// The server on a data directory that is there already, ended when dropped: how long it took until it listened.
pub struct Server {
    /// Its process.
    pub child: Child,
    /// From its start until it listened.
    pub started_within: Duration,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// It did not start.
    pub fn start(data: &Path) -> io::Result<Server> {
        let began = Instant::now();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let server = Server { child, started_within: began.elapsed() };
        match line.starts_with("listening on ") {
            true => Ok(server),
            false => Err(io::Error::other("the server did not start")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It stops as an operator stops it: the next start has nothing to repair.
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The middle one, or the mean of the two in the middle. `None`: there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Three digits that count, thousands apart; nothing for nothing.
pub fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".into() };
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        size if size >= 100.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A table in Markdown; the first column is words.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" }.into()).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(head) + &line(&rule) + &rows
}

/// The machine, in a line.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, |count| count.get());
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory: u64 = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{cpus} × {model}, {} GiB, Linux {}", memory.div_ceil(1 << 20), kernel.trim())
}

/// A picture, written where the caller wants it.
///
/// # Errors
/// There is nothing to draw, or the file cannot be written.
pub fn draw(path: &Path, panels: &[chatserver::bench::Panel]) -> Result<(), Box<dyn std::error::Error>> {
    Ok(std::fs::write(path, chatserver::bench::draw(panels)?)?)
}

/// The exit code of a program that has counted its failures.
pub fn end(result: Result<usize, Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(0) => return ExitCode::SUCCESS,
        Ok(failures) => eprintln!("{failures} runs have no result"),
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
