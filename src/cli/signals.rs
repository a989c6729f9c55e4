//! Signals that stop the server. With the log they are the only process-wide state, and only `serve` installs them.
//!
//! SIGINT comes through ctrlc; SIGTERM and SIGHUP through signal-hook, since ctrlc cannot tell which signal came. SIGHUP is logged and changes nothing:
//! a server must not end because the terminal that started it was closed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The wish to stop, as it arrives from outside.
pub struct StopSignal {
    stop: Receiver<&'static str>,
}

impl StopSignal {
    /// From now on SIGINT and SIGTERM no longer end the process: the first of them ends [`StopSignal::wait`], the second ends the process at once, with
    /// exit code 130 or 143. Once per process.
    ///
    /// # Errors
    /// The system refuses a handler or its thread.
    pub fn install() -> io::Result<StopSignal> {
        let (sender, stop) = channel();
        let interrupt = Stopper { stopping: Arc::default(), stop: sender };
        let terminate = interrupt.clone();
        ctrlc::set_handler(move || interrupt.stop(SIGINT, "SIGINT")).map_err(io::Error::other)?;
        let mut signals = Signals::new([SIGTERM, SIGHUP])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in &mut signals {
                match signal {
                    SIGTERM => terminate.stop(SIGTERM, "SIGTERM"),
                    _ => log::info!("SIGHUP: nothing to do, the server goes on; SIGINT or SIGTERM stops it"),
                }
            }
        })?;
        Ok(StopSignal { stop })
    }

    /// Waits until the server is to stop; gives the signal's name.
    pub fn wait(&self) -> &'static str {
        self.stop.recv().unwrap_or("the end of the signal handlers")
    }
}

#[derive(Clone)]
struct Stopper {
    stopping: Arc<AtomicBool>,
    stop: Sender<&'static str>,
}

impl Stopper {
    fn stop(&self, signal: i32, name: &'static str) {
        if self.stopping.swap(true, Ordering::Relaxed) {
            // As the shell reports a process that a signal ended.
            std::process::exit(128 + signal);
        }
        let _ = self.stop.send(name);
    }
}
