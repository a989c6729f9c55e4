//! The watch: a thread that looks at the server's health every few seconds. It remembers the past for reports, has them sent in time, and raises alarms.
//!
//! It reads counters and `/proc`, waits for no disk, no mail and no other thread of the server: what may take long (reading what waits on disk, drawing,
//! sending) happens on a thread of its own, at most one of each kind at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::report::{self, Report};
use crate::config::Config;
use crate::health::{Alarm, Counters, Counts, History, News, Status, urgent};
use crate::language::Language;
use crate::limits;
use crate::mail::{Letter, MailError, Post, Sent};
use crate::threads;

/// The shortest step of the chart, in milliseconds; a long period has longer ones.
const STEP_MS: i64 = limits::WATCH_STEP.as_millis() as i64;

/// What the watch looks at: the server, as seen from here. Safe from any thread.
pub trait Watched: Send + Sync + 'static {
    /// The server's readings, without what waits on disk. Waits for no disk.
    fn vital_status(&self) -> Status;
    /// All of its readings. May wait for the disk.
    fn status(&self) -> Status;
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;
    /// Everything that is counted.
    fn counters(&self) -> &Counters;
    /// What remembers the present period.
    fn reporter(&self) -> &Reporter;
    /// Waits for `timeout` or for the server's stop; `true`: it stops.
    fn wait_for_stop(&self, timeout: Duration) -> bool;
}

/// What has happened since the last report that was sent, and the way reports and alerts leave. Safe from any thread.
pub struct Reporter {
    host: String,
    post: Post,
    period: Mutex<Period>, // lock: a leaf
    is_reporting: AtomicBool,
    /// The thread that puts a report together. lock: a leaf.
    writing: Mutex<Option<JoinHandle<()>>>,
}

struct Period {
    /// When it began, Unix milliseconds.
    from: i64,
    /// The counts at that time.
    before: Counts,
    history: History,
    /// The end of the last sample, and the counts then.
    sampled_at: i64,
    sampled: Counts,
    /// The counts at the beginning of that sample.
    sampled_before: Counts,
}

impl Reporter {
    /// A period that begins at `now`, Unix milliseconds. What cannot be sent is kept by `post`.
    pub fn new(now: i64, post: Post) -> Reporter {
        let period = Period {
            from: now,
            before: Counts::default(),
            history: History::new(STEP_MS),
            sampled_at: now,
            sampled: Counts::default(),
            sampled_before: Counts::default(),
        };
        Reporter {
            host: report::host(),
            post,
            period: Mutex::new(period),
            is_reporting: AtomicBool::new(false),
            writing: Mutex::default(),
        }
    }

    /// The most users at one time in the present period.
    pub fn peak(&self, counters: &Counters) -> u64 {
        self.period.lock().history.peak().max(counters.present.peak())
    }

    /// The report on the present period, as of `status`.
    pub fn report(&self, status: Status, language: Language) -> Report {
        let period = self.period.lock();
        let mut history = period.history.clone();
        history.add(period.sampled_at, status.read_at, status.users.present, &status.counts.since(&period.sampled));
        Report {
            language,
            host: self.host.clone(),
            from: period.from,
            counts: status.counts.since(&period.before),
            samples: history.samples().to_vec(),
            status,
        }
    }

    /// Sends the present report. It is put together on a thread of its own and sent on another, which gives `done` the result.
    ///
    /// # Errors
    /// In words, for people: it was not begun, and `done` is not called.
    pub fn send<W: Watched>(
        server: &Arc<W>,
        done: impl FnOnce(Result<Sent, MailError>) + Send + 'static,
    ) -> Result<(), String> {
        if server.reporter().is_reporting.swap(true, SeqCst) {
            return Err("a report is being sent already".into());
        }
        let reporting = Reporting(server.clone());
        let spawned = threads::spawn("report", limits::MAIL_STACK_BYTES, move || {
            let server = reporting.0.clone();
            let config = server.config();
            let report = server.reporter().report(server.status(), config.language);
            let letter = report.letter();
            let sender = server.clone();
            sender.reporter().dispatch(&sender, &letter, &config, move |result| {
                if result.is_ok() {
                    server.reporter().begin_period(&report);
                }
                drop(reporting);
                done(result);
            });
        });
        let writing = spawned.map_err(|error| format!("no thread for it: {error}"))?;
        *server.reporter().writing.lock() = Some(writing);
        Ok(())
    }

    /// The report is with its readers: the next one begins where it ends. What was counted meanwhile is the next one's.
    fn begin_period(&self, report: &Report) {
        let mut period = self.period.lock();
        period.from = report.status.read_at;
        period.before = report.status.counts;
        period.history.forget_until(report.status.read_at);
    }

    /// Posts a letter and counts what becomes of it. `done` is called in any case, here or on the letter's own thread.
    fn dispatch<W: Watched>(
        &self,
        server: &Arc<W>,
        letter: &Letter,
        config: &Config,
        done: impl FnOnce(Result<Sent, MailError>) + Send + 'static,
    ) {
        let (counting, done) = (server.clone(), Arc::new(Mutex::new(Some(done))));
        let finish = move |result: Result<Sent, MailError>| {
            let counters = counting.counters();
            if result.is_ok() { &counters.mails_sent } else { &counters.mails_failed }.add(1);
            let done = done.lock().take();
            if let Some(done) = done {
                done(result);
            }
        };
        let at_once = finish.clone();
        if let Err(error) = self.post.send(letter, &config.mail, finish) {
            log::error!("mail: \"{}\" is not sent: {error}", letter.subject);
            at_once(Err(error));
        }
    }

    /// For the end of the server: what is under way is kept in its files. Waits for the disk, never for a mail server.
    pub fn stop(&self) {
        let writing = self.writing.lock().take();
        if let Some(writing) = writing {
            let _ = writing.join();
        }
        self.post.stop();
    }

    fn sample(&self, status: &Status, peak: u64) -> Counts {
        let mut period = self.period.lock();
        let recent = status.counts.since(&period.sampled);
        let from = period.sampled_at;
        period.history.add(from, status.read_at, peak, &recent);
        period.sampled_before = period.sampled;
        (period.sampled_at, period.sampled) = (status.read_at, status.counts);
        recent
    }

    /// What was counted up to `counts` since the watch's last look but one: of the last seconds, and at least of one whole step.
    pub fn recent(&self, counts: &Counts) -> Counts {
        counts.since(&self.period.lock().sampled_before)
    }
}

/// A report on its way, however that ends.
struct Reporting<W: Watched>(Arc<W>);

impl<W: Watched> Drop for Reporting<W> {
    fn drop(&mut self) {
        self.0.reporter().is_reporting.store(false, SeqCst);
    }
}

/// The body of the watch's thread: until the server stops.
pub fn watch_loop<W: Watched>(server: &Arc<W>) {
    let mut alarm = Alarm::default();
    let untold: Arc<Mutex<Vec<News>>> = Arc::default();
    let began_at = Instant::now();
    let mut reported_at = began_at;
    while !server.wait_for_stop(step(&server.config())) {
        let config = server.config();
        let status = server.vital_status();
        let recent = server.reporter().sample(&status, server.counters().present.take_peak());
        let now_ms = began_at.elapsed().as_millis() as u64;
        std::mem::take(&mut *untold.lock()).iter().for_each(|news| alarm.untell(news, now_ms));
        let news = alarm.look(urgent(&status, &recent), now_ms);
        if !news.is_empty() {
            tell(server, news, &status, &config, &untold);
        }
        let sends_reports = !config.report_interval.is_zero() && !config.mail.to.is_empty();
        let is_due = sends_reports && reported_at.elapsed() >= config.report_interval;
        // One that is still on its way delays the next; its counts are in that one if it fails.
        if is_due && !server.reporter().is_reporting.load(SeqCst) {
            reported_at = Instant::now();
            if let Err(why) = Reporter::send(server, |_| ()) {
                log::error!("report: not sent: {why}; the next one tells of this period too");
            }
        }
    }
}

/// How long the watch sleeps: not so long that a short `report_interval` is overslept.
fn step(config: &Config) -> Duration {
    match config.report_interval {
        Duration::ZERO => limits::WATCH_STEP,
        interval => limits::WATCH_STEP.min(interval),
    }
}

fn tell<W: Watched>(server: &Arc<W>, news: News, status: &Status, config: &Config, untold: &Arc<Mutex<Vec<News>>>) {
    for finding in &news.begun {
        log::error!("alert: {}; {}", finding.what(Language::English), finding.remedy(Language::English));
    }
    for finding in &news.over {
        log::warn!("alert is over: {}", finding.what(Language::English));
    }
    if config.mail.to.is_empty() {
        return;
    }
    let reporter = server.reporter();
    let letter: Letter = report::alert(&news.begun, &news.over, status, &reporter.host, config.language);
    let untold = untold.clone();
    reporter.dispatch(server, &letter, config, move |result| {
        if result.is_err() {
            untold.lock().push(news);
        }
    });
}
