//! A health report: a verdict first, then what the server did since the last one, as text and as HTML with a chart.

#[cfg(feature = "tools")]
mod chart;
mod html;
mod text;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::health::{Counts, Finding, Sample, Status, findings};
use crate::language::{Language, say};
use crate::mail::Letter;

/// Everything that one report tells.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its language.
    pub language: Language,
    /// The machine's name.
    pub host: String,
    /// When its period began, Unix milliseconds; it ends when `status` was read.
    pub from: i64,
    /// How the server stands.
    pub status: Status,
    /// What was counted in the period.
    pub counts: Counts,
    /// The period in steps, for the chart.
    pub samples: Vec<Sample>,
}

impl Report {
    /// What needs a hand, the urgent first.
    pub fn findings(&self) -> Vec<Finding> {
        findings(&self.status, &self.counts)
    }

    /// In a few words: all well, or what needs a hand.
    pub fn verdict(&self) -> String {
        let findings = self.findings();
        match findings.as_slice() {
            [] => say!(self.language, "all well", "一切正常"),
            [one] => one.what(self.language),
            [first, ..] => {
                let (first, more) = (first.what(self.language), findings.len() - 1);
                say!(self.language, "{first}, and {more} more", "{first}，另有 {more} 项")
            }
        }
    }

    /// The subject of the mail.
    pub fn subject(&self) -> String {
        let (host, verdict) = (&self.host, self.verdict());
        say!(self.language, "chatserver on {host}: {verdict}", "{host} 上的 chatserver：{verdict}")
    }

    /// The report as plain text.
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// The report as a mail.
    pub fn letter(&self) -> Letter {
        let image = self.chart();
        let html = html::render(self, image.is_some());
        Letter { subject: self.subject(), text: self.text(), html: Some(html), image }
    }

    /// Users and messages over the period as PNG; `None` without the feature `tools`, or when nothing can be drawn.
    fn chart(&self) -> Option<Vec<u8>> {
        #[cfg(feature = "tools")]
        return if self.samples.is_empty() {
            None
        } else {
            chart::draw(&self.samples).inspect_err(|error| log::warn!("report: no chart: {error}")).ok()
        };
        #[cfg(not(feature = "tools"))]
        None
    }

    /// The period in words.
    fn period(&self) -> String {
        let (from, to) = (date_time(self.from), date_time(self.status.read_at));
        let long = duration((self.status.read_at - self.from).max(0) as u64 / 1000, self.language);
        say!(self.language, "{from} to {to} ({long})", "{from} 至 {to}（{long}）")
    }
}

/// A report's mail as a page for a browser, the chart inside it.
pub fn page(letter: &Letter) -> String {
    let html = letter.html.as_deref().unwrap_or_default();
    match &letter.image {
        Some(png) => html.replace(html::IMAGE, &format!("data:image/png;base64,{}", STANDARD.encode(png))),
        None => html.to_owned(),
    }
}

/// How the server stands, as rows of what and how much.
fn standing(status: &Status, language: Language) -> Vec<(&'static str, String)> {
    let Status { users, connections, memory, database, machine, .. } = status;
    let size = crate::health::size;
    let unknown = || language.pick("unknown", "未知").to_owned();
    let of = |used: Option<u64>, limit: Option<u64>| match (used, limit) {
        (Some(used), Some(limit)) => say!(language, "{used} of {limit}", "{used} / 上限 {limit}"),
        (Some(used), None) => used.to_string(),
        _ => unknown(),
    };
    let peak = users.peak;
    let present = users.present;
    let backlog = status.backlog.map_or_else(unknown, |backlog| {
        let (messages, bytes) = (backlog.messages, size(backlog.bytes));
        match backlog.oldest_at.filter(|_| messages > 0) {
            Some(oldest_at) => {
                let age = duration((status.read_at - oldest_at).max(0) as u64 / 1000, language);
                say!(
                    language,
                    "{messages} messages, {bytes}; the oldest waits for {age}",
                    "{messages} 条，{bytes}；最早的已等待 {age}"
                )
            }
            None => say!(language, "none", "无"),
        }
    });
    let last_save = match database.last_save_at {
        0 => say!(language, "none yet", "尚无"),
        at => {
            let (time, took) = (date_time(at), database.last_save_us as f64 / 1000.0);
            say!(language, "{time}, took {took:.1} ms", "{time}，用时 {took:.1} 毫秒")
        }
    };
    let load = machine.load.map_or_else(unknown, |load| {
        let processors = machine.processors.unwrap_or(1);
        let [one, five, fifteen] = load;
        say!(
            language,
            "{one:.2}, {five:.2}, {fifteen:.2} (1, 5, 15 min; {processors} processors)",
            "{one:.2}、{five:.2}、{fifteen:.2}（1、5、15 分钟；{processors} 个处理器）"
        )
    });
    vec![
        (
            language.pick("users", "用户"),
            say!(language, "{present} present, at most {peak}", "当前 {present} 人，峰值 {peak} 人"),
        ),
        (language.pick("connections", "连接"), of(Some(connections.open as u64), Some(connections.limit as u64))),
        (language.pick("waiting messages", "待收消息"), backlog),
        (
            language.pick("messages in memory", "内存中的消息"),
            of_sizes(memory.used_bytes as u64, memory.limit_bytes as u64, language),
        ),
        (language.pick("database", "数据库"), of_sizes(database.used_bytes, database.limit_bytes, language)),
        (language.pick("last save", "最近一次保存"), last_save),
        (language.pick("uptime", "运行时间"), duration(status.uptime_s, language)),
        (language.pick("version", "版本"), status.version.to_owned()),
        (language.pick("resident memory", "常驻内存"), machine.resident_bytes.map_or_else(unknown, size)),
        (language.pick("threads", "线程"), of(machine.threads, machine.thread_limit)),
        (language.pick("descriptors", "文件描述符"), of(machine.descriptors, machine.descriptor_limit)),
        (language.pick("load", "负载"), load),
    ]
}

/// An alert: what has begun or is over, and what to do.
pub fn alert(begun: &[Finding], over: &[Finding], status: &Status, host: &str, language: Language) -> Letter {
    let first = begun.first().or(over.first()).map(|finding| finding.what(language)).unwrap_or_default();
    let subject = match begun {
        [] => say!(language, "chatserver on {host}: over: {first}", "{host} 上的 chatserver：已恢复：{first}"),
        _ => say!(language, "chatserver on {host}: ALERT: {first}", "{host} 上的 chatserver：告警：{first}"),
    };
    let mut text = String::new();
    for finding in begun {
        text += &format!("{}\n  {}\n\n", finding.what(language), finding.remedy(language));
    }
    for finding in over {
        let what = finding.what(language);
        text += &say!(language, "Over: {what}\n\n", "已恢复：{what}\n\n");
    }
    text += &text::table(&standing(status, language));
    Letter { subject, text, html: None, image: None }
}

/// The machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn of_sizes(used: u64, limit: u64, language: Language) -> String {
    let (used, limit) = (crate::health::size(used), crate::health::size(limit));
    say!(language, "{used} of {limit}", "{used} / 上限 {limit}")
}

/// A time in the machine's time zone.
fn date_time(unix_ms: i64) -> String {
    zoned(unix_ms).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn zoned(unix_ms: i64) -> Zoned {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::system())
}

/// A number of seconds in at most two units.
fn duration(seconds: u64, language: Language) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => say!(language, "{rest} s", "{rest} 秒"),
        (0, 0, _) => say!(language, "{minutes} min {rest} s", "{minutes} 分 {rest} 秒"),
        (0, _, _) => say!(language, "{hours} h {minutes} min", "{hours} 小时 {minutes} 分"),
        _ => say!(language, "{days} d {hours} h", "{days} 天 {hours} 小时"),
    }
}

#[cfg(test)]
mod tests;
