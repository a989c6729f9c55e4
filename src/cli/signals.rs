//! Signals that stop the server, or have it look at its configuration and its log again. With the log they are the only process-wide state, and only `serve` installs them.
//!
//! SIGINT comes through ctrlc; SIGTERM and SIGHUP through signal-hook, since ctrlc cannot tell which signal came. SIGHUP never ends the
//! server, not even when it means that the terminal which started it was closed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A wish from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Stop; with the name of the signal.
    Stop(&'static str),
    /// Open the log anew and read the configuration again (SIGHUP).
    Reload,
}

/// Wishes, as they arrive.
pub struct Wishes {
    wishes: Receiver<Wish>,
    /// A `Reload` is on its way: more of them would say nothing new.
    reloading: Arc<AtomicBool>,
}

impl Wishes {
    /// From now on SIGINT, SIGTERM and SIGHUP no longer end the process: they arrive here. A second SIGINT or SIGTERM ends the process at once, with
    /// exit code 130 or 143. Once per process.
    ///
    /// # Errors
    /// The system refuses a handler or its thread.
    pub fn install() -> io::Result<Wishes> {
        let (sender, wishes) = channel();
        let interrupt = Stopper { stopping: Arc::default(), wishes: sender };
        let terminate = interrupt.clone();
        ctrlc::set_handler(move || interrupt.stop(SIGINT, "SIGINT")).map_err(io::Error::other)?;
        let reloading = Arc::<AtomicBool>::default();
        let reload = reloading.clone();
        let mut signals = Signals::new([SIGTERM, SIGHUP])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in &mut signals {
                match signal {
                    SIGTERM => terminate.stop(SIGTERM, "SIGTERM"),
                    _ if reload.swap(true, Ordering::SeqCst) => {}
                    // When nobody listens any more the process ends.
                    _ => drop(terminate.wishes.send(Wish::Reload)),
                }
            }
        })?;
        Ok(Wishes { wishes, reloading })
    }

    /// Waits for a wish, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<Wish> {
        match self.wishes.recv_timeout(timeout) {
            Ok(wish) => {
                if wish == Wish::Reload {
                    self.reloading.store(false, Ordering::SeqCst);
                }
                Some(wish)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Wish::Stop("the end of the signal handlers")),
        }
    }
}

#[derive(Clone)]
struct Stopper {
    stopping: Arc<AtomicBool>,
    wishes: Sender<Wish>,
}

impl Stopper {
    fn stop(&self, signal: i32, name: &'static str) {
        if self.stopping.swap(true, Ordering::Relaxed) {
            // As the shell reports a process that a signal ended.
            std::process::exit(128 + signal);
        }
        let _ = self.wishes.send(Wish::Stop(name));
    }
}
