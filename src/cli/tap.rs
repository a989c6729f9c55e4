//! `chatserver tap`: every packet between clients and a server, as it passes, and mischief on purpose.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{ConnectionArgs, exit, fail};
use super::decode::{LookArgs, Side};
use crate::config::parse_duration;
use crate::decode::Style;
use crate::protocol::Cipher;
use crate::tap::{Flip, Mischief, Stop, Tap, Watcher};

const EXAMPLES: &str = "\
Examples:
  chatserver tap --listen 127.0.0.1:8990                    and clients use --addr 127.0.0.1:8990
  chatserver tap --listen 127.0.0.1:8990 --full             every byte explained
  chatserver tap --listen 127.0.0.1:8990 --one-byte         each byte in a segment of its own
  chatserver tap --listen 127.0.0.1:8990 --from client --flip 20
                                                            bit 0 of the client's byte 20 turned over
  chatserver tap --listen 127.0.0.1:8990 --pcap t.pcap      and wireshark t.pcap

Exit codes:
  0  ended with Ctrl-C
  1  it cannot listen there, or the key or the capture's file cannot be used
  2  wrong usage";

/// Show every packet between clients and a server, and misbehave on purpose
///
/// Clients connect to the tap, the tap connects to the server for each of them. What passes is shown as it passes: when, which connection, which way,
/// what it says; with --json a line, too, for each {event}: opened, closed, spoilt. With the options below the heading Mischief it does what networks and
/// broken programs do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,

    /// Where clients connect; with port 0 the first line says which it became
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,

    #[command(flatten)]
    look: LookArgs,

    /// Also each read, and each write, with its number of bytes
    #[arg(long)]
    reads: bool,

    /// Write what passed to a capture that Wireshark opens: one segment for each write
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,

    #[command(flatten)]
    mischief: MischiefArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Mischief")]
struct MischiefArgs {
    /// Only to what this side sends; otherwise to both
    #[arg(long, value_enum)]
    from: Option<Side>,

    /// Each byte in a segment of its own, 5 ms after the one before
    #[arg(long, conflicts_with = "join")]
    one_byte: bool,

    /// N packets in one write; those that are there after 200 ms, or when they are 64 KiB, go without the others
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    join: Option<u32>,

    /// Pass everything on so much later: 100ms, 2s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    delay: Option<Duration>,

    /// Turn over a bit of byte OFFSET of the direction: its lowest, or BIT (0 to 7). May be given several times
    #[arg(long, value_name = "OFFSET[:BIT]")]
    flip: Vec<Flip>,

    /// After N bytes of a direction reset the connection (RST), towards both sides
    #[arg(long, value_name = "N", conflicts_with_all = ["close_after", "silent_after"])]
    cut_after: Option<u64>,

    /// After N bytes of a direction close it in order (FIN), towards both sides
    #[arg(long, value_name = "N", conflicts_with = "silent_after")]
    close_after: Option<u64>,

    /// After N bytes of a direction pass on nothing more, either way, and close nothing
    #[arg(long, value_name = "N")]
    silent_after: Option<u64>,
}

impl MischiefArgs {
    fn mischief(&self) -> Mischief {
        let stops = [(self.cut_after, Stop::Cut), (self.close_after, Stop::Close), (self.silent_after, Stop::Silence)];
        Mischief {
            only: self.from.map(Side::direction),
            one_byte: self.one_byte,
            join: self.join.map(|packets| packets as usize),
            delay: self.delay.unwrap_or_default(),
            flips: self.flip.clone(),
            stop: stops.into_iter().find_map(|(after, stop)| after.map(|after| (after, stop))),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    match prepare(&args) {
        Ok((tap, listener)) => {
            tap.serve(&listener, args.connection.addr());
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why, exit::START),
    }
}

fn prepare(args: &Args) -> Result<(Tap, TcpListener), String> {
    let key = args.connection.key()?;
    let cipher = Cipher::new(key.bytes()).expect("a key has a key's length");
    let capture = args.pcap.as_ref().map(|path| {
        let file = File::create(path).map_err(|error| format!("{} cannot be written ({error})", path.display()))?;
        Ok::<_, String>(Box::new(file) as Box<dyn io::Write + Send>)
    });
    let (look, max_packet_bytes) = (args.look.look(Style::Short), args.look.max_packet_bytes());
    let watcher =
        Watcher::new(cipher, max_packet_bytes, look, args.reads, Box::new(io::stdout()), capture.transpose()?);
    let watcher = watcher.map_err(|error| format!("the capture cannot be begun ({error})"))?;
    let listener =
        TcpListener::bind(&args.listen).map_err(|error| format!("{} cannot be listened on ({error})", args.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // Every record and line is written by then: they are flushed one by one.
    ctrlc::set_handler(|| std::process::exit(0)).map_err(|error| error.to_string())?;
    let begun = format!("listening on {address}, passing on to {}", args.connection.addr());
    watcher.print(&if args.look.json { format!("{}\n", serde_json::json!({ "event": begun })) } else { begun + "\n" });
    Ok((Tap { mischief: args.mischief.mischief(), watcher: Arc::new(watcher) }, listener))
}
