//! The screen of `top`: totals, the sessions, the keys. What has no room is left out whole: half a number would be another number.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::{Cell, Paragraph, Row as Line, Table};
use unicode_width::UnicodeWidthStr;

use super::view::{Order, Row, View};
use crate::cli::ctl::sessions::silence;
use crate::cli::table::cut;
use crate::health::size;

/// A column's head, what orders the sessions by it, and whether its cells are numbers.
const COLUMNS: [(&str, Option<Order>, bool); 8] = [
    ("USER", Some(Order::Name), false),
    ("ADDRESS", None, false),
    ("STATE", None, false),
    ("WAITING", Some(Order::Waiting), true),
    ("UNACKED", Some(Order::Unacknowledged), true),
    ("IN/s", Some(Order::In), true),
    ("OUT/s", Some(Order::Out), true),
    ("LAST", Some(Order::Idle), true),
];

const USER: usize = 0;

/// The other columns, the last of which is the first to go: WAITING, IN/s, OUT/s, UNACKED, LAST, STATE, ADDRESS.
const BY_IMPORTANCE: [usize; 7] = [3, 5, 6, 4, 7, 2, 1];

/// A user's name has at least so many cells before another column is shown.
const USER_CELLS: usize = 12;

/// Lines that belong to the sessions, however many totals there are: the head and two rows; and the keys.
const LIST_LINES: usize = 4;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let (width, height) = (usize::from(frame.area().width), usize::from(frame.area().height));
    let mut totals: Vec<String> = totals(view).lines().flat_map(|line| filled(line, width)).collect();
    totals.truncate(height.saturating_sub(LIST_LINES));
    let parts = Layout::vertical([
        Constraint::Length(totals.len() as u16), // at most as many as the terminal has lines
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [head, list, foot] = parts.areas(frame.area());
    frame.render_widget(Paragraph::new(totals.join("\n")), head);
    let cells: Vec<[String; COLUMNS.len()]> = view.rows.iter().map(cells).collect();
    let columns = columns(&cells, view.order, width);
    let rows = cells.iter().map(|cells| line(cells, &columns));
    let table = Table::new(rows, columns.iter().map(|(_, width)| Constraint::Length(*width as u16)))
        .header(header(view, &columns).style(Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1);
    // A terminal that has become higher shows rows, not emptiness below the last one.
    let last_offset = view.rows.len().saturating_sub(usize::from(list.height).saturating_sub(1));
    let offset = view.selected.offset_mut();
    *offset = last_offset.min(*offset);
    frame.render_stateful_widget(table, list, &mut view.selected);
    frame.render_widget(Paragraph::new(keys(view, width)), foot);
}

/// Which row is selected, and what the keys do.
fn keys(view: &View, width: usize) -> String {
    let count = view.rows.len();
    let at = view.selected.selected().map_or(0, |index| (index + 1).min(count));
    let keys = format!("{at} of {count}\tq quit\tsort: n name\tw waiting\tu unacked\ti in\to out\tl last\t↑↓");
    filled(&keys, width).swap_remove(0)
}

/// The items of a text, which tabs divide, on as many lines as it takes.
fn filled(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for item in text.split('\t') {
        let line = lines.last_mut().expect("one at least");
        let gap = match (line.is_empty(), line.ends_with(',')) {
            (true, _) => "",
            (_, true) => " ",
            _ => "  ",
        };
        if line.is_empty() || line.width() + gap.len() + item.width() <= width {
            line.extend([gap, &cut(item, width)]);
        } else {
            lines.push(cut(item, width).into_owned());
        }
    }
    lines
}

/// The columns that have room, and how wide each of them is: all in their order, none too narrow for what stands in it, but for the user's name.
fn columns(rows: &[[String; COLUMNS.len()]], order: Order, width: usize) -> Vec<(usize, usize)> {
    let widest = |column: usize| {
        let (name, by, _) = COLUMNS[column];
        let head = name.len() + usize::from(by.is_some());
        rows.iter().map(|row| row[column].width()).max().unwrap_or(0).max(head)
    };
    let mut left = width.saturating_sub(widest(USER).min(USER_CELLS));
    let mut chosen = vec![(USER, 0)];
    let orders = |column: &usize| COLUMNS[*column].1 == Some(order);
    let of_order = BY_IMPORTANCE.into_iter().filter(orders);
    for column in of_order.chain(BY_IMPORTANCE.into_iter().filter(|column| !orders(column))) {
        let widest = widest(column);
        // What is less important does not come in the place of what is more so.
        let Some(rest) = left.checked_sub(widest + 1) else { break };
        left = rest;
        chosen.push((column, widest));
    }
    chosen.sort_unstable();
    chosen[0].1 = width - chosen.iter().map(|(_, width)| width).sum::<usize>() - (chosen.len() - 1);
    chosen
}

fn totals(view: &View) -> String {
    let bytes = |path: &str| size(view.number(path) as u64);
    let text = |name: &str| view.status[name].as_str().unwrap_or_default().to_owned();
    let draining = if view.status["connections"]["draining"] == true { ",\tDRAINING" } else { "" };
    let failing = view.number("database.failing_for_ms");
    let saves = match failing > 0.0 {
        true => format!("FAILING for {:.0} s", failing / 1000.0),
        false => format!("last took {:.1} ms", view.number("database.last_save_us") / 1000.0),
    };
    let uptime = view.number("uptime_s") as u64;
    // A tab is where a line may be broken.
    format!(
        "chatserver {} on {},\tprocess {},\tup {} h {:02} min{draining}\n\
         users {} (peak {})\tconnections {} of {}\tstrangers {}\twriters {}\n\
         messages/s {:.1} live,\t{:.1} to wait\tlogins/s {:.1}\tCPU {:.1} %\n\
         memory {} resident,\tmessages {} of {}\tthreads {}\n\
         waiting on disk {} ({})\tdatabase {}\tsave: {saves}",
        text("version"),
        text("address"),
        view.number("pid"),
        uptime / 3600,
        uptime / 60 % 60,
        view.number("users.present"),
        view.number("users.peak"),
        view.number("connections.open"),
        view.number("connections.limit"),
        view.number("connections.strangers"),
        view.number("connections.writers"),
        view.rate("counts.relayed"),
        view.rate("counts.waiting"),
        view.rate("counts.logins"),
        view.rate("machine.cpu_us") / 10_000.0,
        bytes("machine.resident_bytes"),
        bytes("memory.used_bytes"),
        bytes("memory.limit_bytes"),
        view.number("machine.threads"),
        view.number("backlog.messages"),
        bytes("backlog.bytes"),
        bytes("database.used_bytes"),
    )
}

/// The columns, with a mark at the one that orders them, on the side of its words where no number stands below.
fn header(view: &View, columns: &[(usize, usize)]) -> Line<'static> {
    let mark = if view.is_reversed { '▲' } else { '▼' };
    let cell = |(column, _): &(usize, usize)| {
        let (name, by, is_number) = COLUMNS[*column];
        aligned(
            match (by == Some(view.order), is_number) {
                (false, _) => name.to_owned(),
                (true, true) => format!("{mark}{name}"),
                (true, false) => format!("{name}{mark}"),
            },
            is_number,
        )
    };
    Line::new(columns.iter().map(cell).collect::<Vec<_>>())
}

fn aligned(text: String, is_number: bool) -> Cell<'static> {
    let side = if is_number { Alignment::Right } else { Alignment::Left };
    Cell::from(Text::from(text).alignment(side))
}

fn line(cells: &[String; COLUMNS.len()], columns: &[(usize, usize)]) -> Line<'static> {
    let cell =
        |(column, width): &(usize, usize)| aligned(cut(&cells[*column], *width).into_owned(), COLUMNS[*column].2);
    Line::new(columns.iter().map(cell).collect::<Vec<_>>())
}

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    [
        row.user.clone(),
        row.address.clone(),
        row.state.clone(),
        row.waiting.to_string(),
        size(row.unacknowledged).replace(' ', ""),
        format!("{:.0}", row.rates.0),
        format!("{:.0}", row.rates.1),
        silence(row.idle_ms).replace(' ', ""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::top::view::tests::{sessions, status};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    fn drawn(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(usize::from(width)).map(|line| line.concat().trim_end().to_owned()).collect()
    }

    #[test]
    fn eighty_columns_have_room_for_everything() {
        let begin = Instant::now();
        let mut view = View::new(status(100), sessions(10), begin);
        view.renew(status(300), sessions(40), begin + Duration::from_secs(2));
        let screen = drawn(&mut view, 80, 24);
        let all = screen.join("\n");
        for words in [
            "chatserver 0.1.0 on 127.0.0.1:8989, process 7, up 1 h 02 min, DRAINING",
            "users 2 (peak 3)  connections 3 of 1000  strangers 1  writers 0",
            "messages/s 100.0 live, 0.0 to wait  logins/s 0.0  CPU 10.0 %",
            "memory 20 MiB resident, messages 1 MiB of 256 MiB  threads 12",
            "waiting on disk 5 (50 B)  database 4 KiB  save: last took 1.5 ms",
            "STATE        WAITING  UNACKED ▼IN/s  OUT/s  LAST",
            "q quit",
        ] {
            assert!(all.contains(words), "{words} is missing:\n{all}");
        }
        assert!(screen[6].starts_with("Ann") && screen[6].contains(" 127.0.0.1:40000 "), "{all}");
        assert!(screen[6].ends_with("  0       0B    15      0  1.0s"), "{all}");
        // Wide characters take two cells.
        assert!(screen[7].starts_with('小') && screen[7].contains("disk+writer"), "{all}");
    }

    /// So many sessions with numbers of seven and more digits.
    fn crowd(count: u64) -> Value {
        let session = |number: u64| {
            json!({
                "user": format!("a user with a long name {number:02}"), "connection": number, "address": "192.168.100.100:54321",
                "live": true, "writer": true, "waiting": 12_345_678 + number, "unacknowledged_bytes": 0, "outbox_bytes": 0,
                "packets_in": 0, "packets_out": 0, "last_packet_at": 9_000,
            })
        };
        json!({ "sessions": (0..count).map(session).collect::<Vec<_>>() })
    }

    #[test]
    fn a_narrow_terminal_shows_fewer_columns_and_no_half_number() {
        let mut view = View::new(status(300), crowd(31), Instant::now());
        for (width, heads) in [
            (40, "USER WAITING ▼IN/s OUT/s"),
            (60, "USER WAITING UNACKED ▼IN/s OUT/s LAST"),
            (120, "USER ADDRESS STATE WAITING UNACKED ▼IN/s OUT/s LAST"),
        ] {
            let screen = drawn(&mut view, width, 24);
            let all = screen.join("\n");
            let head = screen.iter().position(|line| line.starts_with("USER")).expect("the head");
            assert_eq!(screen[head].split_whitespace().collect::<Vec<_>>().join(" "), heads, "{all}");
            let first = &screen[head + 1];
            assert!(first.starts_with("a user with ") && first.contains(" 12345678 "), "{all}");
            assert_eq!(first.contains(" 192.168.100.100:54321 "), width == 120, "{all}");
            // Totals are broken between items, never within one.
            for words in
                ["DRAINING", "connections 3 of 1000", "messages 1 MiB of 256 MiB", "database 4 KiB", "threads 12"]
            {
                assert!(all.contains(words), "{words} is missing:\n{all}");
            }
            assert!(screen[23].starts_with("1 of 31  q quit"), "{all}");
        }
    }

    #[test]
    fn a_terminal_that_grows_is_filled_and_the_selected_row_is_reversed() {
        let mut view = View::new(status(0), crowd(31), Instant::now());
        view.press(KeyCode::End);
        let screen = drawn(&mut view, 80, 12);
        assert!(screen[10].contains("12345708") && screen[11].starts_with("31 of 31"), "{}", screen.join("\n"));
        let mut terminal = Terminal::new(TestBackend::new(80, 30)).unwrap();
        terminal.draw(|frame| draw(frame, &mut view)).unwrap();
        let is_reversed = |line: u16| terminal.backend().buffer()[(0, line)].modifier.contains(Modifier::REVERSED);
        // Five totals, the head, 23 rows to the last one, the keys.
        assert_eq!((0..30).filter(|line| is_reversed(*line)).collect::<Vec<_>>(), [5, 28]);
        assert!(drawn(&mut view, 80, 30)[6].contains("12345686"));
    }

    #[test]
    fn a_tiny_terminal_is_no_panic() {
        for (width, height) in [(1, 1), (10, 3), (200, 6)] {
            drawn(&mut View::new(status(0), sessions(1), Instant::now()), width, height);
        }
    }
}
