//! How a packet is written down: byte by byte, on one line, or as JSON.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::Seen;
use crate::capture::{Direction, Piece};
use crate::protocol::{Explained, Layer};
use crate::terminal::{Style as Paint, escape, paint};

/// How much is shown of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Every byte and its meaning.
    #[default]
    Full,
    /// A line.
    Short,
    /// A line of JSON.
    Json,
}

/// How it is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// How much.
    pub style: Style,
    /// For a terminal that shows them.
    pub colours: bool,
}

/// Where a packet comes from, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct About {
    /// The connection's number, where there may be several.
    pub connection: Option<u64>,
    /// Who sent it.
    pub direction: Option<Direction>,
    /// When it passed.
    pub time: Option<SystemTime>,
}

impl About {
    /// What a capture says.
    pub fn of(piece: &Piece) -> About {
        About { connection: Some(piece.connection.id), direction: Some(piece.direction), time: Some(piece.time) }
    }

    /// Most packets tell who sends them, and all of a stream have one sender.
    pub fn learn(&mut self, seen: &Seen<'_>) {
        if let Seen::Packet { packet, .. } = seen
            && let Some(is_from_client) = packet.is_from_client()
        {
            self.direction.get_or_insert(if is_from_client { Direction::ToServer } else { Direction::ToClient });
        }
    }
}

/// A packet, or what was skipped, written down; ends with a line's end.
pub fn show(seen: &Seen<'_>, about: &About, look: Look) -> String {
    match look.style {
        Style::Full => full(seen, about, look.colours),
        Style::Short => short(seen, about, look.colours),
        Style::Json => serde_json::to_string(&line(seen, about)).expect("strings and numbers") + "\n",
    }
}

/// A packet as `decode --json` has it, in this order.
#[derive(Serialize)]
struct Line {
    offset: u64,
    direction: Option<&'static str>,
    #[serde(rename = "type")]
    kind: Option<u32>,
    name: Option<&'static str>,
    fields: Option<Value>,
    error: Option<String>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
}

fn line(seen: &Seen<'_>, about: &About) -> Line {
    let direction = about.direction.map(|direction| match direction {
        Direction::ToServer => "client-to-server",
        Direction::ToClient => "server-to-client",
    });
    let time = about.time.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    let connection = about.connection;
    match seen {
        Seen::Packet { offset, packet } => Line {
            offset: *offset,
            direction,
            kind: packet.kind,
            name: packet.packet_type().map(|kind| kind.name()),
            fields: Some(packet.json()),
            error: packet.fault.as_ref().map(ToString::to_string),
            time,
            connection,
        },
        Seen::Skipped { offset, bytes, why } => {
            let error = Some(format!("{bytes} bytes {why}"));
            Line { offset: *offset, direction, kind: None, name: None, fields: None, error, time, connection }
        }
    }
}

/// `12:00:01.234  #1  client → server`, as much of it as is known.
fn origin(about: &About, colours: bool) -> String {
    let mut out = String::new();
    if let Some(time) = about.time {
        let _ = write!(out, "{}  ", paint(&clock(time), Paint::Dim, colours));
    }
    if let Some(connection) = about.connection {
        let _ = write!(out, "#{connection}  ");
    }
    out + &match about.direction {
        Some(Direction::ToServer) => paint("client → server", Paint::Cyan, colours),
        Some(Direction::ToClient) => paint("server → client", Paint::Green, colours),
        None => "either way     ".to_owned(),
    }
}

/// The time of day, here.
pub fn clock(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(
        |_| "--:--:--".to_owned(),
        |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
    )
}

fn short(seen: &Seen<'_>, about: &About, colours: bool) -> String {
    let origin = origin(about, colours);
    match seen {
        Seen::Packet { offset, packet } => {
            let summary = escape(&packet.summary()).into_owned();
            let mut words = vec![format!("{offset:>6}"), origin, format!("{:<20}", packet.name()), summary];
            words.extend(packet.fault.as_ref().map(|fault| wrong(fault, colours)));
            words.retain(|word| !word.is_empty());
            format!("{}\n", words.join("  ").trim_end())
        }
        Seen::Skipped { offset, bytes, why } => {
            format!("{offset:>6}  {origin}  {}\n", wrong(format!("{bytes} bytes {why}"), colours))
        }
    }
}

fn wrong(why: impl std::fmt::Display, colours: bool) -> String {
    paint(&format!("✗ {}", escape(&why.to_string())), Paint::Red, colours)
}

fn full(seen: &Seen<'_>, about: &About, colours: bool) -> String {
    let origin = origin(about, colours);
    let (offset, packet) = match seen {
        Seen::Packet { offset, packet } => (*offset, packet),
        Seen::Skipped { offset, bytes, why } => {
            return format!("byte {offset}  {origin}  {}\n\n", wrong(format!("{bytes} bytes {why}"), colours));
        }
    };
    let mut out = format!(
        "byte {offset}  {origin}  {}, {} bytes\n",
        paint(packet.name(), Paint::Bold, colours),
        packet.packet.len()
    );
    layer(&mut out, packet, Layer::Packet, offset, colours);
    if !packet.plain.is_empty() {
        let padding = packet.padding_bytes();
        let _ = writeln!(out, "  decrypted: {} bytes and {padding} of padding", packet.plain.len() - padding);
        layer(&mut out, packet, Layer::Plain, 0, colours);
    }
    if !packet.fields.is_empty() {
        let _ = writeln!(out, "  {} {}", packet.name(), escape(&packet.summary()));
    }
    if let Some(fault) = &packet.fault {
        let _ = writeln!(out, "  {}", wrong(fault, colours));
    }
    out.push('\n');
    out
}

/// The bytes in lines of at most 16, and their meaning behind the first.
fn layer(out: &mut String, packet: &Explained<'_>, layer: Layer, offset: u64, colours: bool) {
    let bytes = if layer == Layer::Packet { packet.packet } else { &packet.plain };
    for part in packet.parts.iter().filter(|part| part.layer == layer) {
        for (index, line) in bytes[part.range.clone()].chunks(16).enumerate() {
            let at = offset + (part.range.start + 16 * index) as u64;
            let _ = write!(out, "  {} ", paint(&format!("{at:08x}"), Paint::Dim, colours));
            for byte in line {
                let _ = write!(out, " {byte:02x}");
            }
            if index == 0 {
                let columns = 3 * (16 - line.len());
                let _ = write!(out, "{:columns$}  {}", "", escape(&part.meaning));
            }
            out.push('\n');
        }
    }
}
