//! How a packet is written down: byte by byte, on one line, or as JSON.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::Seen;
use crate::capture::{Direction, Piece};
use crate::protocol::{Explained, Layer};
use crate::terminal::{Style as Paint, escape, escape_json, paint};

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
    /// The terminal's width; `None`: there is none, and lines have any length.
    pub columns: Option<usize>,
}

/// Where a packet comes from, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct About {
    /// The connection's number, where there may be several.
    pub connection: Option<u64>,
    /// Who sent it.
    pub direction: Option<Direction>,
    /// The direction is known from elsewhere, and not from what packets were seen.
    pub is_certain: bool,
    /// Packets of both sides came in one stream.
    pub is_mixed: bool,
    /// When it passed.
    pub time: Option<SystemTime>,
}

impl About {
    /// What a capture says.
    pub fn of(piece: &Piece) -> About {
        About { connection: Some(piece.connection.id), time: Some(piece.time), ..About::from(piece.direction) }
    }

    /// Of a stream whose sender is known.
    pub fn from(direction: Direction) -> About {
        About { direction: Some(direction), is_certain: true, ..About::default() }
    }

    /// Most packets tell who sends them, and those of a stream have one sender, unless somebody has put both sides into one.
    pub fn learn(&mut self, seen: &Seen<'_>) {
        let Seen::Packet { packet, .. } = seen else { return };
        if self.is_certain {
            return;
        }
        let told = packet.is_from_client().map(|is| if is { Direction::ToServer } else { Direction::ToClient });
        if self.connection.is_some() {
            // One side of a connection, whoever opened it.
            if told.is_some() {
                (self.direction, self.is_certain) = (told, true);
            }
            return;
        }
        self.is_mixed |= told.is_some() && self.direction.is_some() && told != self.direction;
        match told {
            Some(_) => self.direction = told,
            None if self.is_mixed => self.direction = None,
            None => {}
        }
    }
}

/// A packet, or what was skipped, written down; ends with a line's end.
pub fn show(seen: &Seen<'_>, about: &About, look: Look) -> String {
    match look.style {
        Style::Full => full(seen, about, look),
        Style::Short => short(seen, about, look),
        Style::Json => {
            let line = serde_json::to_string(&line(seen, about)).expect("strings and numbers");
            format!("{}\n", escape_json(&line))
        }
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
    let direction = about.direction.map(Direction::words);
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
        Some(direction @ Direction::ToServer) => paint(direction.arrow(), Paint::Cyan, colours),
        Some(direction @ Direction::ToClient) => paint(direction.arrow(), Paint::Green, colours),
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

fn short(seen: &Seen<'_>, about: &About, look: Look) -> String {
    let colours = look.colours;
    let origin = origin(about, colours);
    match seen {
        Seen::Packet { offset, packet } => {
            let summary = escape(&packet.summary()).into_owned();
            let mut words = vec![
                format!("{offset:>6}"),
                origin,
                if look.is_narrow() { packet.name().to_owned() } else { format!("{:<20}", packet.name()) },
                summary,
            ];
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

fn full(seen: &Seen<'_>, about: &About, look: Look) -> String {
    let colours = look.colours;
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
    layer(&mut out, packet, Layer::Packet, offset, look);
    if !packet.plain.is_empty() {
        let padding = packet.padding_bytes();
        let _ = writeln!(out, "  decrypted: {} bytes and {padding} of padding", packet.plain.len() - padding);
        layer(&mut out, packet, Layer::Plain, 0, look);
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

/// The bytes in lines of at most 16, on a narrow terminal 8, and their meaning behind them.
fn layer(out: &mut String, packet: &Explained<'_>, layer: Layer, offset: u64, look: Look) {
    let bytes = if layer == Layer::Packet { packet.packet } else { &packet.plain };
    let in_line = if look.is_narrow() { 8 } else { 16 };
    // Behind the offset and the bytes.
    let margin = 12 + 3 * in_line;
    let columns = look.columns.filter(|_| look.is_narrow());
    let width = columns.map_or(usize::MAX, |columns| columns.saturating_sub(margin + 1).max(20));
    for part in packet.parts.iter().filter(|part| part.layer == layer) {
        let meaning = escape(&part.meaning);
        let mut words = wrapped(&meaning, width).into_iter();
        for (index, line) in bytes[part.range.clone()].chunks(in_line).enumerate() {
            let at = offset + (part.range.start + in_line * index) as u64;
            let _ = write!(out, "  {} ", paint(&format!("{at:08x}"), Paint::Dim, look.colours));
            for byte in line {
                let _ = write!(out, " {byte:02x}");
            }
            if let Some(words) = words.next() {
                let blanks = 3 * (in_line - line.len());
                let _ = write!(out, "{:blanks$}  {words}", "");
            }
            out.push('\n');
        }
        for words in words {
            let _ = writeln!(out, "{:margin$} {words}", "");
        }
    }
}

/// In lines of at most `width` columns, broken between words where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.width() + word.trim_end().width() > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(word);
        }
    }
    lines.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
    lines
}

impl Look {
    /// Sixteen bytes in a line would leave no room for what they mean.
    fn is_narrow(self) -> bool {
        self.columns.is_some_and(|columns| columns < 120)
    }
}
