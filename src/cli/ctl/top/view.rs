//! What `top` shows: two readings of the server, what happened in between, and in which order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Instant;

use ratatui::crossterm::event::KeyCode;
use ratatui::widgets::TableState;
use serde_json::Value;

use crate::cli::ctl::sessions::state;
use crate::terminal::escape;

/// By what the sessions are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Name,
    Waiting,
    Unacknowledged,
    In,
    Out,
    Idle,
}

impl Order {
    /// The key that chooses it.
    fn of(key: char) -> Option<Order> {
        Some(match key {
            'n' => Order::Name,
            'w' => Order::Waiting,
            'u' => Order::Unacknowledged,
            'i' => Order::In,
            'o' => Order::Out,
            'l' => Order::Idle,
            _ => return None,
        })
    }
}

/// A session, as a row shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub connection: u64,
    pub user: String,
    pub address: String,
    pub state: String,
    pub waiting: u64,
    pub unacknowledged: u64,
    pub packets: (u64, u64),
    /// Packets a second, in and out.
    pub rates: (f64, f64),
    pub idle_ms: i64,
}

/// Everything on the screen.
pub struct View {
    pub status: Value,
    pub rows: Vec<Row>,
    pub order: Order,
    pub is_reversed: bool,
    pub selected: TableState,
    before: Option<Value>,
    seconds: f64,
    read_at: Instant,
}

impl View {
    /// A first reading: rates follow with the second.
    pub fn new(status: Value, sessions: Value, now: Instant) -> View {
        let mut view = View {
            rows: rows(&sessions, &status, &[], 1.0),
            status,
            order: Order::In,
            is_reversed: false,
            selected: TableState::new().with_selected(0),
            before: None,
            seconds: 1.0,
            read_at: now,
        };
        view.sort();
        view
    }

    /// The next reading.
    pub fn renew(&mut self, status: Value, sessions: Value, now: Instant) {
        self.seconds = now.duration_since(self.read_at).as_secs_f64().max(0.001);
        self.rows = rows(&sessions, &status, &self.rows, self.seconds);
        self.before = Some(std::mem::replace(&mut self.status, status));
        self.read_at = now;
        self.sort();
    }

    /// A number of the status: `users.present`. What is not known is 0.
    pub fn number(&self, path: &str) -> f64 {
        number(&self.status, path)
    }

    /// What a number that only grows has grown by in a second.
    pub fn rate(&self, path: &str) -> f64 {
        self.before.as_ref().map_or(0.0, |before| ((self.number(path) - number(before, path)) / self.seconds).max(0.0))
    }

    /// Another order, or another row; the key of the present order turns it round.
    pub fn press(&mut self, key: KeyCode) {
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.selected.select_previous(),
            KeyCode::Down | KeyCode::Char('j') => self.selected.select_next(),
            KeyCode::PageUp => self.selected.scroll_up_by(10),
            KeyCode::PageDown => self.selected.scroll_down_by(10),
            KeyCode::Home => self.selected.select_first(),
            KeyCode::End => self.selected.select_last(),
            KeyCode::Char(key) => {
                if let Some(order) = Order::of(key) {
                    self.is_reversed = order == self.order && !self.is_reversed;
                    self.order = order;
                    self.sort();
                }
            }
            _ => {}
        }
    }

    /// Names from A on, numbers from the highest on; what is equal by name.
    fn sort(&mut self) {
        let (order, is_reversed) = (self.order, self.is_reversed);
        self.rows.sort_by(|one, other| {
            let by = match order {
                Order::Name => Ordering::Equal,
                Order::Waiting => other.waiting.cmp(&one.waiting),
                Order::Unacknowledged => other.unacknowledged.cmp(&one.unacknowledged),
                Order::In => other.rates.0.total_cmp(&one.rates.0),
                Order::Out => other.rates.1.total_cmp(&one.rates.1),
                Order::Idle => other.idle_ms.cmp(&one.idle_ms),
            };
            let by = by.then_with(|| one.user.cmp(&other.user));
            if is_reversed { by.reverse() } else { by }
        });
    }
}

fn number(status: &Value, path: &str) -> f64 {
    path.split('.').fold(status, |value, name| &value[name]).as_f64().unwrap_or(0.0)
}

fn rows(sessions: &Value, status: &Value, before: &[Row], seconds: f64) -> Vec<Row> {
    let before: HashMap<u64, (u64, u64)> = before.iter().map(|row| (row.connection, row.packets)).collect();
    let now = status["read_at"].as_i64().unwrap_or(0);
    let row = |session: &Value| {
        let number = |name: &str| session[name].as_u64().unwrap_or(0);
        let (connection, packets) = (number("connection"), (number("packets_in"), number("packets_out")));
        let earlier = before.get(&connection).copied().unwrap_or(packets);
        let rate = |now: u64, earlier: u64| now.saturating_sub(earlier) as f64 / seconds;
        Row {
            connection,
            user: escape(session["user"].as_str().unwrap_or_default()).into_owned(),
            address: session["address"].as_str().unwrap_or_default().to_owned(),
            state: state(session),
            waiting: number("waiting"),
            unacknowledged: number("unacknowledged_bytes") + number("outbox_bytes"),
            packets,
            rates: (rate(packets.0, earlier.0), rate(packets.1, earlier.1)),
            idle_ms: (now - session["last_packet_at"].as_i64().unwrap_or(now)).max(0),
        }
    };
    sessions["sessions"].as_array().map_or_else(Vec::new, |all| all.iter().map(row).collect())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    /// A status in which so many messages were relayed.
    pub fn status(relayed: u64) -> Value {
        json!({
            "version": "0.1.0", "address": "127.0.0.1:8989", "pid": 7, "uptime_s": 3723, "read_at": 10_000,
            "users": { "present": 2, "peak": 3 },
            "connections": { "open": 3, "strangers": 1, "limit": 1000, "writers": 0, "draining": relayed > 100 },
            "memory": { "used_bytes": 1_048_576, "limit_bytes": 268_435_456, "waiting_senders": 0 },
            "backlog": { "messages": 5, "bytes": 50, "oldest_at": 1 },
            "database": { "used_bytes": 4096, "limit_bytes": 1_000_000, "last_save_us": 1500, "failing_for_ms": 0 },
            "machine": { "resident_bytes": 20_971_520, "cpu_us": relayed * 1000, "threads": 12, "descriptors": 20 },
            "counts": { "relayed": relayed, "waiting": 0, "logins": 3 },
        })
    }

    /// Ann has sent so many packets; 小红 is silent and slow.
    pub fn sessions(packets: u64) -> Value {
        let session = |user: &str, connection: u64, packets: u64, waiting: u64| {
            json!({
                "user": user, "connection": connection, "address": "127.0.0.1:40000", "live": waiting == 0, "writer": waiting > 0,
                "waiting": waiting, "outbox_bytes": waiting, "unacknowledged_bytes": 0, "packets_in": packets, "packets_out": 1,
                "last_packet_at": 9_000,
            })
        };
        json!({ "sessions": [session("小红", 1, 2, 9), session("Ann", 2, packets, 0)] })
    }

    #[test]
    fn rates_are_what_two_readings_differ_by() {
        let begin = Instant::now();
        let mut view = View::new(status(100), sessions(10), begin);
        assert_eq!((view.rate("counts.relayed"), view.rows[0].rates), (0.0, (0.0, 0.0)));
        view.renew(status(300), sessions(40), begin + Duration::from_secs(2));
        assert_eq!((view.rate("counts.relayed"), view.number("users.present")), (100.0, 2.0));
        assert_eq!((&*view.rows[0].user, view.rows[0].rates.0, view.rows[0].idle_ms), ("Ann", 15.0, 1000));
    }

    #[test]
    fn a_key_chooses_the_order_and_the_same_key_turns_it_round() {
        let mut view = View::new(status(0), sessions(10), Instant::now());
        let mut first = |key: char| {
            view.press(KeyCode::Char(key));
            view.rows[0].user.clone()
        };
        assert_eq!([first('w'), first('w'), first('n'), first('x'), first('n')], ["小红", "Ann", "Ann", "Ann", "小红"]);
    }
}
