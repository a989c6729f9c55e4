//! `chatserver decode`: the packets in a file, explained.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::connection::{exit, fail, read_key};
use crate::capture::Direction;
use crate::config::parse_bytes;
use crate::decode::{Count, DecodeError, Format, Look, Options, Style, decode};
use crate::protocol::Cipher;
use crate::terminal::{colours_wanted, columns, print_note};

const EXAMPLES: &str = "\
Examples:
  echo 00000018000000012dec0164f5d0f73f95aec7b45e1f808c | chatserver decode -
                                                        a packet as hexadecimal text
  chatserver decode session.bin                         the bytes of one direction
  chatserver decode --short session.pcapng              a capture, a line for each packet
  tcpdump -i lo -U -w - port 8989 | chatserver decode --short -    as they pass

Exit codes:
  0  every packet was understood, or there was none
  1  the key cannot be used
  5  the input cannot be read, or something in it was not understood; what could be shown has been";

/// Show the packets in a file, byte by byte
///
/// The input is hexadecimal text, the raw bytes of one direction of a connection, or a capture (pcap or pcapng, of which the TCP streams are put together).
/// For each packet: its offset in the stream, the header's bytes beside their meaning, the encrypted body, the body in plaintext with every tag and length
/// explained, and the message. What cannot be explained is shown as far as that goes, with the reason and the place.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    look: LookArgs,

    /// What the file holds, where its beginning does not tell
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Of a capture: only connections to this port
    #[arg(long)]
    port: Option<u16>,

    /// Of bytes: who sent them; without it each packet's type tells, as far as it does
    #[arg(long, value_enum)]
    from: Option<Side>,

    /// File with the pre-shared key: 16, 24 or 32 bytes of text, or "hex:" and twice as many digits.
    /// Without it the environment variable CHATSERVER_KEY counts, and without that the published key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// How packets are shown.
#[derive(Debug, clap::Args)]
pub struct LookArgs {
    /// Every byte of each packet and its meaning: `decode` without an option
    #[arg(long, conflicts_with_all = ["short", "json"])]
    full: bool,

    /// A line for each packet: `tap` without an option
    #[arg(long, conflicts_with = "json")]
    short: bool,

    /// A line of JSON for each packet: {offset, direction, type, name, fields, error}, of `tap` and of a capture also time (Unix seconds) and connection
    #[arg(long)]
    pub json: bool,

    /// Longest packet, header included; where more is announced there is no packet
    #[arg(long, value_name = "SIZE", default_value = "64 KiB", value_parser = parse_bytes)]
    max_packet_bytes: u64,
}

impl LookArgs {
    /// As was asked, or else as `usual`, on the present terminal.
    pub fn look(&self, usual: Style) -> Look {
        let asked = [(self.full, Style::Full), (self.short, Style::Short), (self.json, Style::Json)];
        let style = asked.into_iter().find_map(|(is_asked, style)| is_asked.then_some(style)).unwrap_or(usual);
        Look { style, colours: colours_wanted(), columns: columns() }
    }

    /// The longest packet.
    pub fn max_packet_bytes(&self) -> usize {
        usize::try_from(self.max_packet_bytes).unwrap_or(usize::MAX)
    }
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// The client
    Client,
    /// The server
    Server,
}

impl Side {
    /// The direction of what it sends.
    pub fn direction(self) -> Direction {
        if self == Side::Client { Direction::ToServer } else { Direction::ToClient }
    }
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let key = match read_key(args.key_file.as_deref()) {
        Ok(key) => key,
        Err(why) => return fail(&why, exit::START),
    };
    let input: Box<dyn Read> = match open(&args.file) {
        Ok(input) => input,
        Err(error) => return fail(&format!("{} cannot be opened ({error})", args.file.display()), exit::INPUT),
    };
    let options = Options {
        cipher: Arc::new(Cipher::new(key.bytes()).expect("a key has a key's length")),
        max_packet_bytes: args.look.max_packet_bytes(),
        format: args.format,
        port: args.port,
        from: args.from.map(Side::direction),
        look: args.look.look(Style::Full),
    };
    match decode(input, &options, &mut io::stdout().lock()) {
        Ok(count) => {
            notes(&count, &args);
            if count.faults > 0 { ExitCode::from(exit::INPUT) } else { ExitCode::SUCCESS }
        }
        // Whoever has read enough closes the pipe.
        Err(DecodeError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(DecodeError::Output(error)) => fail(&format!("standard output cannot be written ({error})"), exit::START),
        Err(error) => fail(&format!("{}: {error}", args.file.display()), exit::INPUT),
    }
}

fn notes(count: &Count, args: &Args) {
    if count.faults > 0 {
        print_note(&format!("{} of {} packets were not understood", count.faults, count.packets.max(count.faults)));
    }
    if count.unpadded > 0 && count.unpadded == count.packets {
        print_note(
            "none of them ends as a decrypted packet does: --key-file names the key, if it is not the published one",
        );
    }
    if count.is_mixed {
        print_note("both sides' packets are mixed here, so of some nobody can say who sent them");
    }
    if count.packets == 0 {
        let to_port = args.port.map_or(String::new(), |port| format!(" to port {port}"));
        print_note(&format!("there is no packet{to_port} in {}", args.file.display()));
    }
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) })
}
