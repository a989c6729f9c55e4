//! What happens by itself: saves, reports, alerts.
//!
//! * `timer` — the thread that saves what has waited.
//! * `watch` — the thread that looks at the server's health every few seconds: it remembers the past for reports, and raises alarms.
//! * `report` — one report: what it says, as text, as HTML, with a chart.
//!
//! Nothing of the watch waits for the timer, whose thread may be stuck in a sync, nor for a mail.

pub mod report;
pub mod timer;
pub mod watch;
