//! The world of one run: the disk, the server that runs on it, the users; and the judge, who knows every text and what may be said of it.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shuttle::thread::JoinHandle;

use crate::clock::{Clock, Stamp};
use crate::config::Config;
use crate::connection;
use crate::delivery::Delivery;
use crate::jobs::timer::{self, LastSave};
use crate::protocol::{Cipher, Decoder, Frame, PUBLISHED_KEY, Status};
use crate::server::Shared;
use crate::server::writer::Writers;
use crate::socket::{Down, Socket, read_packet};
use crate::storage::{Disk, Storage};
use crate::sync::{self, below};

/// A line of the run's story.
macro_rules! tell {
    ($($word:tt)*) => {
        $crate::world::add_to_story(format_args!($($word)*))
    };
}
pub(crate) use tell;

thread_local! {
    static STORY: RefCell<String> = const { RefCell::new(String::new()) };
}

pub fn add_to_story(words: fmt::Arguments<'_>) {
    let thread = shuttle::thread::current();
    let name = thread.name().unwrap_or("main");
    // Writing to a string does not fail.
    STORY.with_borrow_mut(|story| writeln!(story, "{name:>12} │ {words}").unwrap_or_default());
}

/// What has happened in the present run, line by line, each with the thread that did it.
pub fn story() -> String {
    STORY.take()
}

/// What is different from run to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name and level of each user.
    pub users: Vec<(&'static str, u32)>,
    /// Connections of each before the last one, which stays until all is settled.
    pub sessions: usize,
    /// Texts that each sends in all.
    pub texts: usize,
    /// Whether a user may write to itself.
    pub to_self: bool,
    /// Only the first user writes.
    pub one_writes: bool,
    /// kill −9s.
    pub crashes: usize,
    /// One save in so many fails; 0 = none.
    pub failing: u32,
    pub outbox_bytes: usize,
    pub socket_bytes: u64,
    pub memory_bytes: usize,
    pub max_writers: usize,
    /// A writer may find a socket stalled at any time.
    pub stalls: bool,
    /// A sender may wait too long for room.
    pub is_impatient: bool,
    /// The system may refuse a thread to a writer.
    pub few_threads: bool,
}

/// One text, from a level-2 sender with a number.
#[derive(Debug)]
struct Text {
    from: usize,
    to: usize,
    msg_id: Option<u64>,
    /// The servers that have accepted it.
    accepted_by: Vec<usize>,
    /// When, by the judge's count.
    accepted_at: Option<u64>,
    receipt: Option<Status>,
    /// The recipient's client has taken it, so often.
    taken: usize,
    /// The recipient's client has acknowledged it, or at level 1 its TCP.
    is_acked: bool,
    /// At level 1: it was in the kernel of a client that crashed, and nothing says that it had waited.
    may_be_lost: bool,
    /// It must arrive.
    is_owed: bool,
}

#[derive(Default)]
struct Ghost {
    texts: Vec<Text>,
    /// Counts events.
    now: u64,
    /// Users in their last session who have nothing more to write.
    idle: usize,
    decoder: Decoder,
}

/// Safe from any thread; its locks are no points of the schedule, and nothing waits under them.
pub struct World {
    pub settings: Settings,
    pub cipher: Cipher,
    pub disk: Arc<Disk>,
    ghost: Mutex<Ghost>,
    running: Mutex<Running>,
    is_final: AtomicBool,
    /// A connection of this round has not ended in order.
    is_rough: AtomicBool,
}

/// The server that runs, and all threads there ever were.
#[derive(Default)]
struct Running {
    incarnation: usize,
    server: Option<Arc<Shared>>,
    sockets: Vec<Arc<Socket>>,
    timers: Vec<JoinHandle<()>>,
    connections: Vec<JoinHandle<()>>,
    accepted: usize,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// The world of the present run.
pub fn current() -> Arc<World> {
    CURRENT.with_borrow(|world| world.clone()).expect("a run has begun")
}

/// A thread of the model.
pub fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    shuttle::thread::Builder::new().name(name).spawn(body).expect("the model has threads")
}

/// A clock that goes back when a server is started again.
struct ModelClock {
    unix_ms: i64,
}

impl Clock for ModelClock {
    fn now(&self) -> Stamp {
        let mono_ms = sync::now_ms();
        Stamp { mono_ms, unix_ms: self.unix_ms + mono_ms as i64 }
    }
}

impl World {
    /// A world with a server in it.
    pub fn begin(settings: Settings) -> Arc<World> {
        sync::reset_clock();
        STORY.take();
        let world = Arc::new(World {
            settings,
            cipher: Cipher::new(PUBLISHED_KEY).expect("it is one"),
            disk: Arc::default(),
            ghost: Mutex::default(),
            running: Mutex::default(),
            is_final: AtomicBool::new(false),
            is_rough: AtomicBool::new(false),
        });
        CURRENT.with_borrow_mut(|current| *current = Some(world.clone()));
        world.start();
        world
    }

    fn ghost(&self) -> MutexGuard<'_, Ghost> {
        self.ghost.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn name(&self, user: usize) -> &'static str {
        self.settings.users[user].0
    }

    pub fn is_level_2(&self, user: usize) -> bool {
        self.settings.users[user].1 == 2
    }

    pub fn user(&self, name: &str) -> usize {
        self.settings.users.iter().position(|(known, _)| *known == name).expect("a user of this world")
    }

    /// Starts a server on the disk.
    fn start(self: &Arc<Self>) {
        let settings = &self.settings;
        let day = Duration::from_secs(86_400);
        let config = Config {
            write_stall_timeout: if settings.stalls { Duration::from_secs(30) } else { day },
            memory_wait_timeout: if settings.is_impatient { Duration::from_secs(30) } else { day },
            save_interval: Duration::from_millis(200),
            receipt_interval: Duration::from_millis(20),
            expire_after: Duration::ZERO,
            outbox_bytes: settings.outbox_bytes,
            memory_bytes: settings.memory_bytes,
            max_packet_bytes: 256,
            max_writers: settings.max_writers,
            ..Config::default()
        };
        let storage = Storage::new(self.disk.clone(), 0);
        let clock = Box::new(ModelClock { unix_ms: 1_000_000 + below(1000) as i64 });
        let cipher = Cipher::new(PUBLISHED_KEY).expect("it is one");
        let delivery = Arc::new(Delivery::new(&config, cipher, storage, clock).expect("the floor can be read"));
        timer::reserve_seqs(&delivery).expect("the disk does not fail yet");
        delivery.storage.failing.store(settings.failing, SeqCst);
        let shared = Arc::new(Shared {
            writers: Writers::new(config.max_writers),
            config: Arc::new(config),
            delivery: delivery.clone(),
            is_stopping: sync::AtomicBool::new(false),
        });
        let (server, writers) = (shared.clone(), shared);
        let incarnation = {
            let mut running = self.running();
            running.incarnation += 1;
            running.server = Some(server);
            running.incarnation
        };
        let timer = spawn(format!("timer {incarnation}"), move || {
            timer::timer_loop(&delivery, &writers, Duration::ZERO, &parking_lot::Mutex::new(LastSave::default()));
        });
        self.running().timers.push(timer);
    }

    /// A connection to the server that runs, or to the next one.
    pub fn connect(self: &Arc<Self>, user: usize) -> Arc<Socket> {
        let (server, socket, number) = loop {
            let mut running = self.running();
            if let Some(server) = running.server.clone() {
                let socket = Arc::new(Socket::new(self.clone(), user, running.incarnation));
                running.sockets.push(socket.clone());
                running.accepted += 1;
                break (server, socket, running.accepted);
            }
            drop(running);
            shuttle::thread::yield_now();
        };
        let (world, near) = (self.clone(), socket.clone());
        let thread = spawn(format!("{} {number}", self.name(user)), move || connection::serve(world, server, near));
        self.running().connections.push(thread);
        socket
    }

    /// kill −9, and another start. What the dead server's threads do is seen by nobody any more; they come to their ends.
    pub fn crash(self: &Arc<Self>) {
        tell!("kill -9");
        let server = {
            let mut running = self.running();
            running.incarnation += 1;
            running.server.take().expect("one runs")
        };
        server.delivery.storage.is_dead.store(true, SeqCst);
        self.disk.recover();
        self.forget_what_was_in_memory();
        self.sockets().iter().for_each(|socket| socket.kill());
        server.is_stopping.store(true, sync::Ordering::SeqCst);
        server.delivery.stop();
        server.delivery.agenda.stop(std::time::Instant::now());
        self.start();
    }

    pub fn incarnation(&self) -> usize {
        self.running().incarnation
    }

    pub fn server(&self) -> Arc<Shared> {
        self.running().server.clone().expect("one always runs")
    }

    /// The run goes to its end: the disk fails no more.
    pub fn calm_down(&self) {
        self.server().delivery.storage.failing.store(0, SeqCst);
    }

    /// Another round of last sessions.
    pub fn begin_round(&self) {
        self.is_final.store(false, SeqCst);
        self.is_rough.store(false, SeqCst);
        self.ghost().idle = 0;
    }

    /// A connection has ended; `is_orderly`: at its client's wish, who had read everything.
    pub fn ended(&self, is_orderly: bool) {
        self.is_rough.fetch_or(!is_orderly, SeqCst);
    }

    /// Perhaps not all acks of this round have come.
    pub fn is_rough(&self) -> bool {
        self.is_rough.load(SeqCst)
    }

    /// A user has nothing more to write.
    pub fn is_idle(&self) {
        self.ghost().idle += 1;
    }

    /// Everything has been said, and has arrived.
    pub fn is_settled(&self) -> bool {
        self.is_final.load(SeqCst)
    }

    pub fn sockets(&self) -> Vec<Arc<Socket>> {
        self.running().sockets.clone()
    }

    /// Nobody's network answers any more. Waits for all connections to end.
    pub fn join_connections(&self) {
        self.sockets().iter().for_each(|socket| socket.kill());
        loop {
            let Some(thread) = self.running().connections.pop() else { break };
            thread.join().expect("no thread panics");
        }
        self.running().sockets.clear();
    }

    /// Waits for all timers, which were told to stop.
    pub fn join_timers(&self) {
        loop {
            let Some(thread) = self.running().timers.pop() else { break };
            thread.join().expect("no thread panics");
        }
    }

    pub fn parse(&self, frame: Frame<'_>) -> Down {
        let mut decoder = std::mem::take(&mut self.ghost().decoder);
        let down = read_packet(self, &mut decoder, frame);
        self.ghost().decoder = decoder;
        down
    }
}

/// The judge.
impl World {
    /// A client is about to send a text that is new.
    pub fn write(&self, from: usize, to: usize, msg_id: Option<u64>) -> usize {
        let mut ghost = self.ghost();
        ghost.texts.push(Text {
            from,
            to,
            msg_id,
            accepted_by: Vec::new(),
            accepted_at: None,
            receipt: None,
            taken: 0,
            is_acked: false,
            may_be_lost: false,
            is_owed: false,
        });
        ghost.texts.len() - 1
    }

    pub fn recipient(&self, text: usize) -> usize {
        self.ghost().texts[text].to
    }

    /// The judge's count of events.
    pub fn now(&self) -> u64 {
        let mut ghost = self.ghost();
        ghost.now += 1;
        ghost.now
    }

    /// A server has accepted it.
    pub fn accepted(&self, text: usize, incarnation: usize) {
        let is_alive = incarnation == self.incarnation();
        let now = self.now();
        let mut ghost = self.ghost();
        let one = &mut ghost.texts[text];
        assert!(!one.accepted_by.contains(&incarnation), "text {text} is accepted twice by one server: {one:?}");
        one.accepted_by.push(incarnation);
        if is_alive {
            one.is_owed = true;
            one.accepted_at.get_or_insert(now);
        }
    }

    /// The server has sent this. What it says must be true now.
    pub fn told(&self, user: usize, incarnation: usize, down: &Down) {
        if incarnation != self.incarnation() {
            return;
        }
        let Down::Receipt { msg_ids, status, .. } = down else { return };
        assert!(self.is_level_2(user), "a receipt for a level-1 client");
        let mut ghost = self.ghost();
        for msg_id in msg_ids {
            let known = ghost.texts.iter().position(|text| text.from == user && text.msg_id == Some(*msg_id));
            let number = known.expect("a receipt names a message that was sent");
            let is_on_disk = self.disk.content().rows.values().any(|row| row.text == number.to_string());
            let text = &mut ghost.texts[number];
            match status {
                Status::Stored => assert!(is_on_disk || text.is_acked, "STORED, and not on disk: {number} {text:?}"),
                Status::Delivered => assert!(text.is_acked, "DELIVERED, and not acknowledged: {number} {text:?}"),
                Status::Refused => panic!("nothing may be refused here: {number} {text:?} {down:?}"),
            }
            // It is on its way to the sender, or lost with the connection: the promise holds from when it is read.
        }
    }

    /// The sender has read a receipt.
    pub fn receipted(&self, user: usize, msg_id: u64, status: Status) {
        let mut ghost = self.ghost();
        let text = ghost.texts.iter_mut().find(|text| text.from == user && text.msg_id == Some(msg_id));
        let text = text.expect("a receipt names a message that was sent");
        text.receipt = Some(status);
        text.is_owed = true;
    }

    /// The text is in the kernel of its level-1 recipient.
    pub fn in_kernel(&self, text: usize, user: usize) {
        if !self.is_level_2(user) {
            self.ghost().texts[text].is_acked = true;
        }
    }

    /// The recipient's client has shown it.
    pub fn taken(&self, text: usize, user: usize) {
        let mut ghost = self.ghost();
        let from = ghost.texts[text].from;
        assert_eq!(ghost.texts[text].to, user, "text {text} for somebody else");
        ghost.texts[text].taken += 1;
        if self.is_level_2(user) {
            assert_eq!(ghost.texts[text].taken, 1, "text {text} is shown twice");
        }
        if ghost.texts[text].taken == 1 {
            let later = |(number, one): &(usize, &Text)| *number > text && one.from == from && one.to == user;
            let early = ghost.texts.iter().enumerate().filter(later).find(|(_, one)| one.taken > 0);
            assert!(early.is_none(), "text {text} comes after {early:?}");
        }
    }

    /// The level-2 recipient has said that it has it.
    pub fn acked(&self, texts: impl Iterator<Item = usize>) {
        let mut ghost = self.ghost();
        texts.for_each(|text| ghost.texts[text].is_acked = true);
    }

    /// A level-1 client has crashed or fallen silent, with this in its kernel, in a session whose login the judge saw at `login_at`.
    pub fn crashed_with(&self, texts: &[(usize, bool)], login_at: u64) {
        let mut ghost = self.ghost();
        for (text, is_confirmed) in texts {
            let text = &mut ghost.texts[*text];
            // What had certainly waited when the session began, and was not confirmed by a sign of life, must come again.
            text.may_be_lost |= *is_confirmed || text.accepted_at.is_none_or(|at| at > login_at);
        }
    }

    /// Whether everything has arrived that must, and every level-2 sender has its receipts.
    pub fn is_complete(&self) -> bool {
        self.ghost().texts.iter().all(|text| {
            let has_receipt = text.msg_id.is_none() || text.receipt.is_some();
            let has_arrived = !text.is_owed || text.taken > 0 || text.may_be_lost;
            has_receipt && has_arrived
        })
    }

    /// Tells everybody if the run is complete, as far as is known.
    pub fn settle(&self) {
        let all_idle = self.ghost().idle == self.settings.users.len();
        if all_idle && self.is_complete() && !self.is_final.swap(true, SeqCst) {
            tell!("settled");
            self.sockets().iter().for_each(|socket| socket.wake());
        }
    }

    fn forget_what_was_in_memory(&self) {
        let content = self.disk.content();
        for (number, text) in self.ghost().texts.iter_mut().enumerate() {
            let is_on_disk = content.rows.values().any(|row| row.text == number.to_string());
            text.is_owed &= text.receipt.is_some() || is_on_disk;
        }
    }

    /// What is wrong when nothing goes on.
    pub fn describe(&self) -> String {
        let ghost = self.ghost();
        ghost.texts.iter().enumerate().map(|(number, text)| format!("{number}: {text:?}\n")).collect()
    }
}
