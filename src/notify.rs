//! What the service manager is told: systemd, or whoever started the server with NOTIFY_SOCKET. The protocol is in sd_notify(3).
//!
//! Where nobody asked to be told, every function does nothing. Safe from any thread; they wait only if the manager's socket is full.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// The server listens.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The server has begun to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The server has begun to read its configuration again; [`ready`] says that it is done.
pub fn reloading() {
    // The time is what `Type=notify-reload` (systemd 253) wants beside it.
    let told = NotifyState::monotonic_usec_now().and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]));
    warn_of(told);
}

/// The server is alive: at least every [`watchdog_interval`], or the manager ends it and starts it again.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is to be called: half of what the manager waits (`WatchdogSec=`). `None` = it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2).filter(|interval| !interval.is_zero())
}

/// What the server does, as `systemctl status` shows it.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

fn tell(state: &[NotifyState<'_>]) {
    warn_of(sd_notify::notify(state));
}

/// A manager that cannot be told is no reason not to serve.
fn warn_of(told: io::Result<()>) {
    if let Err(error) = told {
        log::warn!(
            "the service manager cannot be told how the server is ({error}); does the socket in NOTIFY_SOCKET exist?"
        );
    }
}
