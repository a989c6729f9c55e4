//! Everything that is counted. A counter is a line in the table below: its name, as JSON shows it, and what it counts, as reports say it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::language::Language;
use crate::protocol::ProtocolError;

/// Milliseconds between two log lines about one kind of event.
const SILENCE_MS: u64 = 60_000;

/// One kind of event. Safe from any thread.
#[derive(Debug, Default)]
pub struct Counter {
    total: AtomicU64,
    logged: AtomicU64,
    /// When the last line was written, plus one; 0 = never.
    logged_at_ms: AtomicU64,
}

impl Counter {
    /// So many of them have happened.
    pub fn add(&self, count: u64) {
        self.total.fetch_add(count, Relaxed);
    }

    /// Counts one that comes in bursts; gives the number since the last log line when it is time for one: at the first event, then once a minute.
    pub fn note(&self, now_ms: u64) -> Option<u64> {
        self.add(1);
        let last = self.logged_at_ms.load(Relaxed);
        if last != 0 && now_ms < last - 1 + SILENCE_MS {
            return None;
        }
        self.logged_at_ms.compare_exchange(last, now_ms + 1, Relaxed, Relaxed).ok()?;
        let total = self.total();
        Some(total - self.logged.swap(total, Relaxed))
    }

    /// All of them, since the start.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Those that no line has told of yet, where lines tell of them.
    fn unlogged(&self) -> u64 {
        if self.logged_at_ms.load(Relaxed) == 0 { 0 } else { self.total().saturating_sub(self.logged.load(Relaxed)) }
    }
}

/// A number that goes up and down, and the highest it has been since it was last asked. Safe from any thread.
#[derive(Debug, Default)]
pub struct Gauge {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Gauge {
    /// One more.
    pub fn up(&self) {
        self.peak.fetch_max(self.now.fetch_add(1, Relaxed) + 1, Relaxed);
    }

    /// One less.
    pub fn down(&self) {
        self.now.fetch_sub(1, Relaxed);
    }

    /// The number.
    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// The highest since the last `take_peak`.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed).max(self.now())
    }

    /// The same, and begins anew.
    pub fn take_peak(&self) -> u64 {
        self.peak.swap(self.now(), Relaxed).max(self.now())
    }
}

/// A part of the table, for reports.
pub struct Group {
    /// Its heading.
    pub title: &'static str,
    /// What is counted, and how many of it.
    pub rows: Vec<(&'static str, u64)>,
}

macro_rules! counters {
    ($($title:literal $title_zh:literal { $($name:ident $meaning:literal $meaning_zh:literal,)* })*) => {
        /// One counter for each kind of event. Safe from any thread.
        #[derive(Debug, Default)]
        pub struct Counters {
            /// Users who are logged in.
            pub present: Gauge,
            $($(#[doc = $meaning] pub $name: Counter,)*)*
        }

        /// The counters' values at one time, or what was added between two.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
        pub struct Counts {
            $($(#[doc = $meaning] pub $name: u64,)*)*
        }

        impl Counters {
            /// Their values.
            pub fn read(&self) -> Counts {
                Counts { $($($name: self.$name.total(),)*)* }
            }

            /// At the end: logs what no line has told of yet.
            pub fn log_rest(&self) {
                for (counter, meaning) in [$($((&self.$name, $meaning),)*)*] {
                    if counter.unlogged() > 0 {
                        log::warn!("{} {meaning}: not told of yet", counter.unlogged());
                    }
                }
            }
        }

        impl Counts {
            /// What was added since `earlier`.
            pub fn since(&self, earlier: &Counts) -> Counts {
                Counts { $($($name: self.$name.saturating_sub(earlier.$name),)*)* }
            }

            /// The whole table: each one's name, what it counts, and its value.
            pub fn table(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$($((stringify!($name), $meaning, self.$name),)*)*]
            }

            /// The whole table in words, with its headings.
            pub fn groups(&self, language: Language) -> Vec<Group> {
                vec![$(Group {
                    title: language.pick($title, $title_zh),
                    rows: vec![$((language.pick($meaning, $meaning_zh), self.$name),)*],
                },)*]
            }
        }
    };
}

counters! {
    "Connections" "连接" {
        accepted "connections accepted" "接受的连接",
        refused_max_connections "refused: max_connections reached" "拒绝：达到 max_connections",
        refused_max_per_address "refused: max_per_address reached" "拒绝：达到 max_per_address",
        refused_max_strangers "refused: max_strangers reached" "拒绝：达到 max_strangers",
        refused_max_strangers_per_address "refused: max_strangers_per_address reached" "拒绝：达到 max_strangers_per_address",
        refused_draining "refused: the server drains" "拒绝：服务器正在排空",
        gone "gone before they were accepted" "接受之前已断开",
        failed_accept "failed: error of accept (mostly no descriptors)" "失败：accept 出错（多为描述符不足）",
        failed_thread "failed: no thread to be had" "失败：无法创建线程",
    }
    "Sessions" "会话" {
        logins "logins" "登录",
        takeovers "takeovers (a new login replaced an older one)" "顶替（新登录替换旧连接）",
        login_timeouts "no login in time" "登录超时",
        logins_refused_name "logins refused: name against the rules" "登录被拒：用户名不合规则",
        logins_refused_rate "logins refused: max_logins_per_address reached" "登录被拒：达到 max_logins_per_address",
        logins_refused_memory "logins refused: memory full" "登录被拒：内存已满",
        logins_refused_disk "logins refused: database not readable" "登录被拒：数据库无法读取",
        logouts "logouts" "主动登出",
        closed_by_client "closed by the client" "客户端关闭",
        lost "connections lost" "连接中断",
        idle "silent for read_timeout" "超过 read_timeout 没有数据",
        packet_timeouts "packets begun and not completed in time" "数据包未按时收完",
        hung_up "hung up on (took nothing for write_stall_timeout)" "主动挂断（超过 write_stall_timeout 不接收）",
        kicked "kicked by the operator" "被管理员断开",
        no_room "closed: waited too long for memory" "关闭：等待内存超时",
        paused "not read for a while: max_packets_per_second or max_bytes_per_second reached" "暂停读取：达到 max_packets_per_second 或 max_bytes_per_second",
        panics "faults of the program (a connection, a thread or a save ended)" "程序错误（连接、线程或一次保存因此结束）",
    }
    "Messages" "消息" {
        relayed "relayed live" "实时转发",
        waiting "kept for a recipient who was absent or slow" "收件人不在线或太慢而暂存",
        acknowledged "deliveries acknowledged (a message that came again counts again)" "已确认的投递（重复投递重复计数）",
        stored "stored on disk" "写入磁盘",
        delivered_from_disk "delivered from storage" "从存储投递",
        expired "expired" "过期",
        set_aside "set aside: refused by the database" "被数据库拒收而另存",
        refused_name "refused: nobody can have the recipient's name" "拒收：收件人名称不可能存在",
        refused_text "refused: text longer than max_text_bytes" "拒收：正文超过 max_text_bytes",
        refused_backlog "refused: the recipient's backlog is full" "拒收：收件人待收消息已满",
        refused_id "refused: msg_id used before or too old" "拒收：msg_id 已使用或过旧",
        refused_database "refused: the database has reached data_bytes" "拒收：数据库达到 data_bytes",
    }
    "Protocol errors" "协议错误" {
        error_length "announced length out of range" "包长超出范围",
        error_other_protocol "another protocol (HTTP, TLS, SSH, …)" "其他协议（HTTP、TLS、SSH 等）",
        error_body "body that cannot be opened (wrong key, or malformed)" "包体无法解读（密钥不符或格式错误）",
        error_type "unknown packet type" "未知的包类型",
        error_direction "packet type that only a server sends" "只应由服务器发送的包类型",
        error_not_logged_in "packet before the login" "登录前的数据包",
        error_second_login "second login on one connection" "同一连接重复登录",
        error_forged_sender "sender not the user who logged in" "发送者不是登录用户",
    }
    "Disk and mail" "磁盘与邮件" {
        saves "saves" "保存次数",
        saves_failed "failed saves" "保存失败",
        disk_errors "mailboxes that could not be read when they were wanted" "需要时无法读取的信箱",
        mails_sent "mails sent" "已发送邮件",
        mails_failed "mails that could not be sent" "未能发送的邮件",
    }
}

impl Counters {
    /// The counter of what this error is.
    pub fn protocol_error(&self, error: &ProtocolError) -> &Counter {
        match error {
            ProtocolError::TooShort { .. } | ProtocolError::TooLong { .. } => &self.error_length,
            ProtocolError::OtherProtocol { .. } => &self.error_other_protocol,
            ProtocolError::Unaligned { .. } | ProtocolError::BadBody => &self.error_body,
            ProtocolError::UnknownType { .. } => &self.error_type,
            ProtocolError::WrongDirection { .. } => &self.error_direction,
            ProtocolError::NotLoggedIn { .. } => &self.error_not_logged_in,
            ProtocolError::SecondLogin => &self.error_second_login,
            ProtocolError::ForgedSender => &self.error_forged_sender,
        }
    }
}

impl Counts {
    /// Messages that were not taken.
    pub fn refused_messages(&self) -> u64 {
        self.refused_name + self.refused_text + self.refused_backlog + self.refused_database
    }

    /// Connections that a cap refused.
    pub fn refused_connections(&self) -> u64 {
        self.refused_max_connections
            + self.refused_max_per_address
            + self.refused_max_strangers
            + self.refused_max_strangers_per_address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_line_and_the_next_minute_tells_the_rest() {
        let burst = Counter::default();
        assert_eq!(burst.note(0), Some(1));
        assert!((1..1000).all(|ms| burst.note(ms).is_none()));
        assert_eq!(burst.unlogged(), 999);
        assert_eq!(burst.note(60_000), Some(1000));
        assert_eq!((burst.total(), burst.unlogged()), (1001, 0));
        let quiet = Counter::default();
        quiet.add(5);
        assert_eq!((quiet.total(), quiet.unlogged()), (5, 0));
    }

    #[test]
    fn a_gauge_remembers_its_peak_until_it_is_taken() {
        let gauge = Gauge::default();
        (0..3).for_each(|_| gauge.up());
        gauge.down();
        assert_eq!((gauge.now(), gauge.peak()), (2, 3));
        assert_eq!((gauge.take_peak(), gauge.take_peak()), (3, 2));
    }

    #[test]
    fn counts_are_compared_and_told_in_both_languages() {
        let counters = Counters::default();
        counters.logins.add(2);
        let before = counters.read();
        counters.logins.add(3);
        let since = counters.read().since(&before);
        assert_eq!(since, Counts { logins: 3, ..Counts::default() });
        let row = |language: Language| {
            let groups = since.groups(language);
            (groups[1].title, groups[1].rows[0])
        };
        assert_eq!(row(Language::English), ("Sessions", ("logins", 3)));
        assert_eq!(row(Language::Chinese), ("会话", ("登录", 3)));
    }
}
