//! The server: threads, sockets, deadlines. Who may do what when.
//!
//! * `listener` → `admission` (caps) → `connection` (one thread each) → `dispatch` → `handlers`.
//! * `peer` — what a connection's thread knows of the other end; `buffer` — what it reads into.
//! * `custom` — handlers of the embedding program for packet types of its own.
//! * `pace` — how fast somebody may go: token buckets; `complaints` — what the log says of strangers.
//! * `writer` — threads that bring a backlog, or wait for a full socket.
//! * `capacity` — how many connections the machine carries; `status` — how the server stands, `backlog` — what of it the disk knows.
//! * `side_door` — the ways in for those who ask how it stands: `control`, for the operator, with `inside` — who is there, one by one, and what is done about them —
//!   and `tracing` — what passes of one user; `http`, for collectors, with `metrics`, their text.
//!
//! Invariant: nothing in here knows SQL, and no thread writes to a socket but through its outbox, the refusal of a stranger apart.

mod admission;
mod backlog;
mod buffer;
pub mod capacity;
mod complaints;
mod connection;
mod control;
mod custom;
mod dispatch;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
#[cfg(feature = "tools")]
mod http;
mod inside;
mod listener;
#[cfg(feature = "tools")]
mod metrics;
mod pace;
mod peer;
mod side_door;
mod status;
mod tracing;
mod writer;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::clock::SystemClock;
use crate::config::{Config, ConfigError};
use crate::delivery::{Delivery, Session};
use crate::health::{Counters, Status};
use crate::jobs::timer::{self, LastSave, StartWriter};
use crate::jobs::watch::{self, Reporter, Watched};
use crate::limits;
use crate::mail::Post;
use crate::protocol::{Cipher, KeyError};
use crate::storage::{Storage, StorageError};
use crate::threads;
use admission::{Admission, Caps};
use backlog::Backlog;
use capacity::Capacity;
use complaints::Complaints;
use control::Control;
#[cfg(feature = "tools")]
use side_door::SideDoor;
use writer::Writers;

#[cfg(feature = "tools")]
#[doc(hidden)]
pub use connection::counted;
pub use control::SOCKET as CTL_SOCKET;
pub use custom::{Call, HandlerError, Handlers, RegisterError, ReplyError};

/// Why a server did not start: what, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory {0} cannot be used: {1}; create it, or choose another with --data")]
    Data(String, io::Error),
    /// The database cannot be used.
    #[error("the database in {0} cannot be used: {1}")]
    Storage(String, StorageError),
    /// The address cannot be used.
    #[error("cannot listen on {0}: {1}; choose another address with --listen (port 0 takes any free one)")]
    Listen(SocketAddr, io::Error),
    /// The address for HTTP cannot be used.
    #[error("cannot listen on {0} for HTTP: {1}; choose another address in metrics_listen (port 0 takes any free one)")]
    Metrics(SocketAddr, io::Error),
    /// The key has a wrong length.
    #[error("{0}; set `key` in the configuration or CHATSERVER_KEY")]
    Key(#[from] KeyError),
    /// The system does not let us start the threads that every server needs.
    #[error("the system refuses a thread: {0}; raise the limit on tasks (ulimit -u, TasksMax=)")]
    Thread(io::Error),
}

/// What every thread of the server shares. Safe from any thread.
pub struct Shared {
    config: RwLock<Arc<Config>>, // lock: a leaf
    handlers: Handlers,
    delivery: Arc<Delivery>,
    admission: Arc<Admission>,
    complaints: Complaints,
    connections: Arc<Connections>,
    writers: Writers,
    reporter: Reporter,
    backlog: Arc<Backlog>,
    address: SocketAddr,
    started_at: i64,
    thread_limit: Option<u64>,
    is_stopping: AtomicBool,
    is_draining: AtomicBool,
    stop_deadline: Mutex<Option<Instant>>, // lock: a leaf
    stopped: Condvar,
}

impl Shared {
    /// The configuration in force. A connection keeps the one of its beginning.
    fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(SeqCst)
    }

    /// No connection is accepted any more; those that are there go on.
    fn is_draining(&self) -> bool {
        self.is_draining.load(SeqCst)
    }

    /// When a stop gives up waiting for sockets.
    fn stop_deadline(&self) -> Instant {
        self.stop_deadline.lock().unwrap_or_else(Instant::now)
    }

    /// From now on the server stops, and has until `deadline` for its sockets.
    fn begin_stop(&self, deadline: Instant) {
        {
            // Under the lock that `wait_for_stop` waits with: nobody misses it.
            let mut stop_deadline = self.stop_deadline.lock();
            *stop_deadline = Some(deadline);
            self.is_stopping.store(true, SeqCst);
        }
        self.stopped.notify_all();
        self.delivery.memory.wake_all();
        self.delivery.traces.wake_all();
    }

    /// Waits for `timeout` or for the stop; `true`: the server stops.
    fn wait_for_stop(&self, timeout: Duration) -> bool {
        let mut deadline = self.stop_deadline.lock();
        let _timed_out = self.stopped.wait_while_for(&mut deadline, |_| !self.is_stopping(), timeout);
        self.is_stopping()
    }
}

impl StartWriter for Arc<Shared> {
    fn start_writer(&self, session: Arc<Session>) {
        self.writers.start(session, self);
    }
}

impl Watched for Shared {
    fn vital_status(&self) -> Status {
        Shared::vital_status(self)
    }

    fn status(&self) -> Status {
        Shared::status(self)
    }

    fn config(&self) -> Arc<Config> {
        Shared::config(self)
    }

    fn counters(&self) -> &Counters {
        &self.delivery.counters
    }

    fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    fn wait_for_stop(&self, timeout: Duration) -> bool {
        Shared::wait_for_stop(self, timeout)
    }
}

/// The open connections, so that a stop can wake and await them.
#[derive(Default)]
struct Connections {
    open: Mutex<HashMap<u64, Arc<TcpStream>>>, // lock: a leaf
    closed: Condvar,
}

/// A connection's place among the open ones; dropping it gives it back. It is the last thing that a connection's thread lets go of, and holds nothing else
/// of the server.
struct Place {
    id: u64,
    connections: Arc<Connections>,
}

impl Connections {
    fn add(self: &Arc<Self>, id: u64, socket: Arc<TcpStream>) -> Place {
        self.open.lock().insert(id, socket);
        Place { id, connections: self.clone() }
    }

    fn shut(&self, how: Shutdown) {
        for socket in self.open.lock().values() {
            // An error means that it is gone already.
            let _: io::Result<()> = socket.shutdown(how);
        }
    }

    /// Waits until all are closed; gives the number of those that are not.
    fn wait_until_closed(&self, deadline: Instant) -> usize {
        let mut open = self.open.lock();
        while !open.is_empty() && !self.closed.wait_until(&mut open, deadline).timed_out() {}
        open.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        let socket = open.remove(&self.id);
        if open.is_empty() {
            self.connections.closed.notify_all();
        }
        // Closing it takes the kernel a while.
        drop(open);
        drop(socket);
    }
}

/// What a stop found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Messages that reached their recipients while the server stopped.
    pub delivered: u64,
    /// Messages that the last save wrote.
    pub saved: u64,
    /// Messages that could not be saved; 0 unless the disk failed.
    pub unsaved: u64,
}

/// A running server. Dropping it without `stop` leaves its threads running.
pub struct Server {
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
    accept: JoinHandle<()>,
    timer: JoinHandle<()>,
    watch: JoinHandle<()>,
    /// `None`: the socket could not be made, which the log tells.
    control: Option<Control>,
    #[cfg(feature = "tools")]
    http: Option<SideDoor<TcpStream>>,
    last_save: Arc<Mutex<LastSave>>, // lock: a leaf
}

impl Server {
    /// Opens the database, listens, and starts the threads.
    ///
    /// # Errors
    /// One sentence for the operator. Nothing is left running.
    pub fn start(config: Config) -> Result<Server, StartError> {
        Server::start_with(config, Handlers::new())
    }

    /// The same, with handlers for packet types of the embedding program's own.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(config: Config, handlers: Handlers) -> Result<Server, StartError> {
        let cipher = Cipher::new(config.key.bytes())?;
        let data = config.data.display().to_string();
        let private = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data);
        private.map_err(|error| StartError::Data(data.clone(), error))?;
        let capacity = Capacity::compute(&config);
        let storage = Storage::open(&config.data).map_err(|error| StartError::Storage(data.clone(), error))?;
        let waiting = storage.total().map_err(|error| StartError::Storage(data.clone(), error))?;
        let delivery = Delivery::new(&config, cipher, storage, Box::new(SystemClock::new()))
            .and_then(|delivery| timer::reserve_seqs(&delivery).map(|()| delivery))
            .map_err(|error| StartError::Storage(data.clone(), error))?;
        let listener = listener::listen(config.listen).map_err(|error| StartError::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
        #[cfg(feature = "tools")]
        let http = http::listen(config.metrics_listen)?;
        let started_at = delivery.now().unix_ms;
        log::info!("listening on {address}");
        log::info!(
            "up to {} connections ({}), {} writers",
            capacity.connections(),
            capacity.bound_by(),
            config.max_writers
        );
        for warning in capacity.warnings() {
            log::warn!("{warning}");
        }
        log::info!(
            "database {data}/chatserver.db, {} bytes in use; waiting messages: {}",
            delivery.storage.used_bytes(),
            waiting.messages
        );
        let shared = Arc::new(Shared {
            handlers,
            delivery: Arc::new(delivery),
            admission: Admission::new(Caps {
                connections: capacity.connections(),
                per_address: config.max_per_address,
                strangers: config.max_strangers,
                strangers_per_address: config.max_strangers_per_address,
                logins_per_address: config.max_logins_per_address,
                exempt: config.exempt_addresses.clone(),
            }),
            complaints: Complaints::new(Instant::now()),
            connections: Arc::default(),
            writers: Writers::new(config.max_writers),
            reporter: Reporter::new(started_at, Post::new(&config.data, &limits::MAIL_PAUSES)),
            backlog: Arc::default(),
            address,
            started_at,
            thread_limit: capacity.threads(),
            is_stopping: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            stop_deadline: Mutex::new(None),
            stopped: Condvar::new(),
            config: RwLock::new(Arc::new(config)),
        });
        let server = Server::spawn(shared, listener, address).map_err(StartError::Thread)?;
        #[cfg(feature = "tools")]
        let server = server.with_http(http);
        Ok(server)
    }

    /// Answers on `listener`, too. Without a thread for it the server goes on without it.
    #[cfg(feature = "tools")]
    fn with_http(mut self, listener: Option<TcpListener>) -> Server {
        let started = listener.map(|listener| http::open(listener, &self.shared)).transpose();
        self.http = started.unwrap_or_else(|error| {
            log::error!("no thread for metrics_listen: {error}; the server goes on without it");
            None
        });
        self
    }

    fn spawn(shared: Arc<Shared>, listener: TcpListener, address: SocketAddr) -> io::Result<Server> {
        let (listener, last_save) = (Arc::new(listener), Arc::new(Mutex::new(LastSave::default())));
        let (writers, report) = (shared.clone(), last_save.clone());
        let config = shared.config();
        let expire_after = config.expire_after;
        let timer = threads::spawn("timer", limits::STACK_BYTES, move || {
            timer::timer_loop(&writers.delivery, &writers, expire_after, &report)
        })?;
        let (door, context) = (listener.clone(), shared.clone());
        let accept = match threads::spawn("accept", limits::STACK_BYTES, move || listener::accept_loop(&door, &context))
        {
            Ok(accept) => accept,
            Err(error) => {
                shared.delivery.agenda.stop(Instant::now());
                let _ = timer.join();
                return Err(error);
            }
        };
        let watched = shared.clone();
        let watch = match threads::spawn("watch", limits::MAIL_STACK_BYTES, move || watch::watch_loop(&watched)) {
            Ok(watch) => watch,
            Err(error) => {
                shared.begin_stop(Instant::now());
                let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
                let _ = accept.join();
                shared.delivery.agenda.stop(Instant::now());
                let _ = timer.join();
                return Err(error);
            }
        };
        let control = Control::start(&shared, &config.data).inspect_err(|error| {
            log::warn!("{}/{}: {error}; the server goes on without it", config.data.display(), control::SOCKET);
        });
        Ok(Server {
            shared,
            listener,
            address,
            accept,
            timer,
            watch,
            control: control.ok(),
            #[cfg(feature = "tools")]
            http: None,
            last_save,
        })
    }

    /// Where it listens; with the port that was chosen when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How it stands, and everything that it has counted. Waits for the disk, at most for `limits::BACKLOG_PATIENCE`.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Saves everything that was accepted before, and returns when it is on disk.
    ///
    /// # Errors
    /// Why it is not, in words; nothing is lost, the server goes on trying.
    pub fn save(&self, timeout: Duration) -> Result<(), String> {
        self.shared.delivery.agenda.save(timeout)
    }

    /// Takes over what can change while it runs, and gives the names of the settings whose new values wait for the next start. Connections keep the deadlines and
    /// sizes of their beginning.
    ///
    /// # Errors
    /// What is wrong with the new configuration; nothing has changed.
    pub fn reload(&self, new: &Config) -> Result<Vec<&'static str>, ConfigError> {
        let shared = &self.shared;
        new.check()?;
        let (next, waiting) = shared.config().reloaded(new)?;
        shared.admission.set_caps(|caps| {
            caps.per_address = next.max_per_address;
            caps.strangers = next.max_strangers;
            caps.strangers_per_address = next.max_strangers_per_address;
            caps.logins_per_address = next.max_logins_per_address;
            caps.exempt.clone_from(&next.exempt_addresses);
        });
        *shared.config.write() = Arc::new(next);
        Ok(waiting)
    }

    /// None of the locks that all connections share is stuck. Returns within a few seconds; waits for no disk, no socket and no other thread's work.
    pub fn responds(&self) -> bool {
        self.shared.responds()
    }

    /// Stops accepting, executes what has arrived, delivers what is in the outboxes up to `shutdown_timeout`, saves the rest, closes the database.
    pub fn stop(self) -> Stopped {
        let Server {
            shared,
            listener,
            accept,
            timer,
            watch,
            control,
            last_save,
            #[cfg(feature = "tools")]
            http,
            ..
        } = self;
        let deadline = Instant::now() + shared.config().shutdown_timeout;
        let acked_before = shared.delivery.counters.acknowledged.total();
        shared.begin_stop(deadline);
        if let Some(control) = control {
            control.stop();
        }
        #[cfg(feature = "tools")]
        if let Some(http) = http {
            http.close();
        }
        // On Linux this wakes a thread that waits in accept.
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        let _ = accept.join();
        shared.connections.shut(Shutdown::Read);
        if shared.connections.wait_until_closed(deadline) > 0 {
            shared.connections.shut(Shutdown::Both);
            shared.connections.wait_until_closed(Instant::now() + limits::LINGER_TIMEOUT);
        }
        let _ = watch.join();
        shared.delivery.stop();
        shared.delivery.agenda.stop(deadline);
        let _ = timer.join();
        // After the messages: a mail that is written to disk must not take their time.
        shared.reporter.stop();
        shared.delivery.counters.log_rest();
        let LastSave { saved, unsaved } = *last_save.lock();
        Stopped { delivered: shared.delivery.counters.acknowledged.total() - acked_before, saved, unsaved }
    }
}
