//! The screen of `top`: five lines of totals, the sessions, the keys.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Text;
use ratatui::widgets::{Cell, Paragraph, Row as Line, Table};

use super::view::{Order, Row, View};
use crate::cli::ctl::sessions::silence;
use crate::health::size;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let parts = Layout::vertical([Constraint::Length(5), Constraint::Min(1), Constraint::Length(1)]);
    let [head, list, foot] = parts.areas(frame.area());
    frame.render_widget(Paragraph::new(totals(view)), head);
    let rows: Vec<Line<'_>> = view.rows.iter().map(line).collect();
    let widths = [
        Constraint::Min(12),
        Constraint::Max(21),
        Constraint::Length(11),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    let table = Table::new(rows, widths)
        .header(header(view.order).style(Style::new().add_modifier(Modifier::REVERSED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD))
        .column_spacing(1);
    frame.render_stateful_widget(table, list, &mut view.selected);
    let keys = "q quit  order: n name  w waiting  u unacked  i in  o out  l last  ↑↓ rows";
    frame.render_widget(Paragraph::new(keys), foot);
}

fn totals(view: &View) -> String {
    let bytes = |path: &str| size(view.number(path) as u64);
    let text = |name: &str| view.status[name].as_str().unwrap_or_default().to_owned();
    let draining = if view.status["connections"]["draining"] == true { ", DRAINING" } else { "" };
    let failing = view.number("database.failing_for_ms");
    let saves = match failing > 0.0 {
        true => format!("FAILING for {:.0} s", failing / 1000.0),
        false => format!("last took {:.1} ms", view.number("database.last_save_us") / 1000.0),
    };
    let uptime = view.number("uptime_s") as u64;
    format!(
        "chatserver {} on {}, process {}, up {} h {:02} min{draining}\n\
         users {} (peak {})  connections {} of {}  strangers {}  writers {}\n\
         messages/s {:.1} live, {:.1} to wait  logins/s {:.1}  CPU {:.1} %\n\
         memory {} resident, messages {} of {}  threads {}\n\
         waiting on disk {} ({})  database {}  save: {saves}",
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

/// The columns, with a mark at the one that orders them.
fn header(order: Order) -> Line<'static> {
    let names = [
        ("USER", Some(Order::Name)),
        ("ADDRESS", None),
        ("STATE", None),
        ("WAITING", Some(Order::Waiting)),
        ("UNACKED", Some(Order::Unacknowledged)),
        ("IN/s", Some(Order::In)),
        ("OUT/s", Some(Order::Out)),
        ("LAST", Some(Order::Idle)),
    ];
    let cell = |(index, (name, by)): (usize, (&str, Option<Order>))| {
        let style = if by == Some(order) { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        let side = if index < 3 { Alignment::Left } else { Alignment::Right };
        Cell::from(Text::from(name.to_owned()).alignment(side)).style(style)
    };
    Line::new(names.into_iter().enumerate().map(cell).collect::<Vec<_>>())
}

fn line(row: &Row) -> Line<'_> {
    let right = |text: String| Cell::from(Text::from(text).alignment(Alignment::Right));
    Line::new(vec![
        Cell::from(row.user.as_str()),
        Cell::from(row.address.as_str()),
        Cell::from(row.state.as_str()),
        right(row.waiting.to_string()),
        right(size(row.unacknowledged).replace(' ', "")),
        right(format!("{:.0}", row.rates.0)),
        right(format!("{:.0}", row.rates.1)),
        right(silence(row.idle_ms).replace(' ', "")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::top::view::tests::{sessions, status};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
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
            "WAITING UNACKED   IN/s  OUT/s   LAST",
            "q quit",
        ] {
            assert!(all.contains(words), "{words} is missing:\n{all}");
        }
        assert!(screen[6].starts_with("Ann") && screen[6].contains(" 127.0.0.1:40000 "), "{all}");
        assert!(screen[6].ends_with("0      0B     15      0   1.0s"), "{all}");
        // Wide characters take two cells.
        assert!(screen[7].starts_with('小') && screen[7].contains("disk+writer"), "{all}");
    }

    #[test]
    fn a_tiny_terminal_is_no_panic() {
        for (width, height) in [(1, 1), (10, 3), (200, 6)] {
            drawn(&mut View::new(status(0), sessions(1), Instant::now()), width, height);
        }
    }
}
