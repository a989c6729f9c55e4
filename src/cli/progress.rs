//! How far a long command is, as a bar on standard error if that is a terminal. Without one, or without the feature `tools`: nothing.

#[cfg(feature = "tools")]
use indicatif::{ProgressBar, ProgressStyle};

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    /// Bytes, written as KiB, MiB, …
    Bytes,
    /// Messages.
    Messages,
    /// A share of all that is to be done.
    #[cfg(feature = "tools")]
    Share,
}

/// A bar that is gone when this is dropped.
#[cfg(feature = "tools")]
pub(super) struct Progress(ProgressBar);

#[cfg(feature = "tools")]
impl Progress {
    /// A bar, at nothing of nothing yet. It hides itself where there is no terminal.
    pub(super) fn new(unit: Unit) -> Progress {
        let template = match unit {
            Unit::Bytes => "[{bar:40}] {binary_bytes} of {binary_total_bytes} {msg}",
            Unit::Messages => "[{bar:40}] {human_pos} of {human_len} messages",
            Unit::Share => "[{bar:40}] {msg}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> ");
        Progress(ProgressBar::new(0).with_style(style))
    }

    /// `done` of `total`; at the end, what is left to do is checking.
    pub(super) fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
        if done == total {
            self.0.set_message("(checking)");
            // A bar is drawn so many times a second, and this is the last time that it moves.
            self.0.force_draw();
        }
    }
}

#[cfg(feature = "tools")]
impl Progress {
    /// How much of 1 is done, and what is being done.
    pub(super) fn share(&self, share: f64, what: &str) {
        self.0.set_length(1000);
        self.0.set_position((share.clamp(0.0, 1.0) * 1000.0) as u64);
        self.0.set_message(what.to_owned());
    }
}

#[cfg(feature = "tools")]
impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// No bar.
#[cfg(not(feature = "tools"))]
pub(super) struct Progress;

#[cfg(not(feature = "tools"))]
impl Progress {
    /// Nothing.
    pub(super) fn new(_: Unit) -> Progress {
        Progress
    }

    /// Nothing.
    pub(super) fn at(&self, _done: u64, _total: u64) {}
}
