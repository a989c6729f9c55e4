//! What of a reading needs a hand: what it is, and what to do about it, in words.

use super::{Counts, Status, size};
use crate::language::{Language, say};

/// Milliseconds after which saves that do not succeed are worth an alert.
const SAVES_FAIL_MS: u64 = 60_000;

/// Share of a limit at which it counts as reached.
const NEARLY_ALL: f64 = 0.95;

/// Share of `data_bytes` that a report speaks of.
const MUCH_DATA: f64 = 0.8;

/// Something that needs a hand.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields say what they are
pub enum Finding {
    /// No save has succeeded for so many milliseconds.
    SavesFail { for_ms: u64 },
    /// Messages in memory have reached `memory_bytes`.
    MemoryFull { limit_bytes: u64 },
    /// The process has no descriptors left.
    Descriptors { used: u64, limit: u64 },
    /// The process may start no more threads.
    Threads { used: u64, limit: u64 },
    /// As many connections as may be.
    ConnectionsFull { limit: u64 },
    /// The database has its full size.
    DatabaseFull { limit_bytes: u64 },
    /// Descriptors or threads ran out so many times.
    RanOut { count: u64 },
    /// The database will soon have its full size.
    DatabaseNearlyFull { percent: u64, limit_bytes: u64 },
    /// The database did not answer.
    DatabaseSilent,
    /// Saves failed, and succeeded later.
    SavesFailed { count: u64 },
    /// Connections were refused by a cap on addresses or strangers.
    ConnectionsRefused { count: u64 },
    /// Messages were refused because their recipients' backlogs were full.
    BacklogsFull { count: u64 },
    /// Messages were given up for their age.
    Expired { count: u64 },
    /// Clients with another key, or of another kind, tried.
    WrongKeys { count: u64 },
    /// Connections ended by a fault of the program.
    Panics { count: u64 },
    /// Messages that the database refused.
    SetAside { count: u64 },
    /// Mails that could not be sent.
    MailsFailed { count: u64 },
}

/// What is so bad now that nobody should wait for the next report; `recent` is what was counted since the last look.
pub fn urgent(status: &Status, recent: &Counts) -> Vec<Finding> {
    let (machine, memory, database) = (&status.machine, &status.memory, &status.database);
    let connections = &status.connections;
    let is_door_full =
        recent.refused_max_connections > 0 || connections.limit > 0 && connections.open >= connections.limit;
    let is_memory_full =
        memory.waiting_senders > 0 || memory.used_bytes as f64 >= memory.limit_bytes as f64 * NEARLY_ALL;
    let rules = [
        (database.failing_for_ms >= SAVES_FAIL_MS, Finding::SavesFail { for_ms: database.failing_for_ms }),
        (is_memory_full, Finding::MemoryFull { limit_bytes: memory.limit_bytes as u64 }),
        (
            machine.descriptor_use() >= NEARLY_ALL || recent.failed_accept > 0,
            Finding::Descriptors {
                used: machine.descriptors.unwrap_or(0),
                limit: machine.descriptor_limit.unwrap_or(0),
            },
        ),
        (
            machine.thread_use() >= NEARLY_ALL || recent.failed_thread > 0,
            Finding::Threads { used: machine.threads.unwrap_or(0), limit: machine.thread_limit.unwrap_or(0) },
        ),
        (is_door_full, Finding::ConnectionsFull { limit: connections.limit as u64 }),
        (database.used_bytes >= database.limit_bytes, Finding::DatabaseFull { limit_bytes: database.limit_bytes }),
    ];
    rules.into_iter().filter(|(holds, _)| *holds).map(|(_, finding)| finding).collect()
}

/// What a report on a period with these counts has to say, the urgent first.
pub fn findings(status: &Status, period: &Counts) -> Vec<Finding> {
    let database = &status.database;
    let used = database.used_bytes as f64 / database.limit_bytes.max(1) as f64;
    let others = [
        (
            (MUCH_DATA..1.0).contains(&used),
            Finding::DatabaseNearlyFull { percent: (used * 100.0) as u64, limit_bytes: database.limit_bytes },
        ),
        (status.backlog.is_none(), Finding::DatabaseSilent),
        (period.saves_failed > 0, Finding::SavesFailed { count: period.saves_failed }),
        (
            period.failed_accept + period.failed_thread > 0,
            Finding::RanOut { count: period.failed_accept + period.failed_thread },
        ),
        (period.refused_connections() > 0, Finding::ConnectionsRefused { count: period.refused_connections() }),
        (period.refused_backlog > 0, Finding::BacklogsFull { count: period.refused_backlog }),
        (period.expired > 0, Finding::Expired { count: period.expired }),
        (period.error_body > 0, Finding::WrongKeys { count: period.error_body }),
        (period.panics > 0, Finding::Panics { count: period.panics }),
        (period.set_aside > 0, Finding::SetAside { count: period.set_aside }),
        (period.mails_failed > 0, Finding::MailsFailed { count: period.mails_failed }),
    ];
    let others = others.into_iter().filter(|(holds, _)| *holds).map(|(_, finding)| finding);
    // What was counted long ago is not urgent any more.
    let urgent = urgent(status, &Counts::default()).into_iter();
    urgent.chain(others).collect()
}

impl Finding {
    /// Its kind, in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Finding::SavesFail { .. } => "saves-fail",
            Finding::MemoryFull { .. } => "memory-full",
            Finding::Descriptors { .. } => "descriptors",
            Finding::Threads { .. } => "threads",
            Finding::ConnectionsFull { .. } => "connections-full",
            Finding::DatabaseFull { .. } => "database-full",
            Finding::RanOut { .. } => "ran-out",
            Finding::DatabaseNearlyFull { .. } => "database-nearly-full",
            Finding::DatabaseSilent => "database-silent",
            Finding::SavesFailed { .. } => "saves-failed",
            Finding::ConnectionsRefused { .. } => "connections-refused",
            Finding::BacklogsFull { .. } => "backlogs-full",
            Finding::Expired { .. } => "expired",
            Finding::WrongKeys { .. } => "wrong-keys",
            Finding::Panics { .. } => "panics",
            Finding::SetAside { .. } => "set-aside",
            Finding::MailsFailed { .. } => "mails-failed",
        }
    }

    /// What it is.
    pub fn what(&self, language: Language) -> String {
        match *self {
            Finding::SavesFail { for_ms } => {
                let seconds = for_ms / 1000;
                say!(language, "no save to disk has succeeded for {seconds} s", "已有 {seconds} 秒未能成功写盘")
            }
            Finding::MemoryFull { limit_bytes } => {
                let limit = size(limit_bytes);
                say!(language, "the memory for messages ({limit}) is full", "消息内存（{limit}）已满")
            }
            Finding::Descriptors { used, limit } => {
                say!(
                    language,
                    "file descriptors run out: {used} of {limit} in use",
                    "文件描述符即将耗尽：已用 {used}，上限 {limit}"
                )
            }
            Finding::Threads { used, limit } => {
                say!(language, "threads run out: {used} of {limit} in use", "线程即将耗尽：已用 {used}，上限 {limit}")
            }
            Finding::ConnectionsFull { limit } => {
                say!(
                    language,
                    "all {limit} connections were taken, further ones are refused",
                    "{limit} 个连接已全部占用，新连接被拒绝"
                )
            }
            Finding::DatabaseFull { limit_bytes } => {
                let limit = size(limit_bytes);
                say!(
                    language,
                    "the database has reached data_bytes ({limit}); messages to absent users are refused",
                    "数据库已达到 data_bytes（{limit}），发给离线用户的消息被拒收"
                )
            }
            Finding::RanOut { count } => {
                say!(language, "descriptors or threads ran out {count} times", "文件描述符或线程曾耗尽 {count} 次")
            }
            Finding::DatabaseNearlyFull { percent, limit_bytes } => {
                let limit = size(limit_bytes);
                say!(
                    language,
                    "the database has {percent} % of data_bytes ({limit})",
                    "数据库已用 data_bytes（{limit}）的 {percent}%"
                )
            }
            Finding::DatabaseSilent => {
                say!(language, "the database did not answer", "数据库没有响应")
            }
            Finding::SavesFailed { count } => {
                say!(
                    language,
                    "{count} saves failed; all was saved later or is still being tried",
                    "{count} 次保存失败；已在之后补存或仍在重试"
                )
            }
            Finding::ConnectionsRefused { count } => say!(
                language,
                "{count} connections were refused by a cap (on all, per address, or on strangers)",
                "{count} 个连接因总数、单地址或未登录连接数上限被拒绝"
            ),
            Finding::BacklogsFull { count } => {
                say!(
                    language,
                    "{count} messages were refused: their recipients' backlogs are full",
                    "{count} 条消息被拒收：收件人的待收消息已满"
                )
            }
            Finding::Expired { count } => {
                say!(
                    language,
                    "{count} messages expired before their recipients came",
                    "{count} 条消息在收件人上线前过期"
                )
            }
            Finding::WrongKeys { count } => {
                say!(language, "{count} connections sent what cannot be opened", "{count} 个连接发来无法解读的数据")
            }
            Finding::Panics { count } => {
                say!(language, "{count} connections ended by a fault of the program", "{count} 个连接因程序错误而结束")
            }
            Finding::SetAside { count } => {
                say!(
                    language,
                    "{count} messages were refused by the database and set aside",
                    "{count} 条消息被数据库拒收，已另存"
                )
            }
            Finding::MailsFailed { count } => {
                say!(language, "{count} mails could not be sent", "{count} 封邮件未能发送")
            }
        }
    }

    /// What to do about it.
    pub fn remedy(&self, language: Language) -> &'static str {
        match self {
            Finding::SavesFail { .. } => language.pick(
                "Look at the disk (df -h, dmesg) and at the ERROR lines of the log. Nothing is lost while the server runs: do not stop it before the disk works.",
                "请检查磁盘（df -h、dmesg）与日志中的 ERROR 行。服务器运行期间消息不会丢失：磁盘恢复之前请勿停止它。",
            ),
            Finding::MemoryFull { .. } => language.pick(
                "Senders wait until the disk has caught up. If it lasts: look at the disk, or raise memory_bytes.",
                "发送者会等待磁盘赶上。若持续如此：请检查磁盘，或调高 memory_bytes。",
            ),
            Finding::Descriptors { .. } => {
                language.pick("Raise the limit: LimitNOFILE= in the service, or ulimit -n.", "请调高上限：服务单元中的 LimitNOFILE=，或 ulimit -n。")
            }
            Finding::Threads { .. } | Finding::RanOut { .. } => language.pick(
                "Raise the limit that binds; `chatserver config check` names it (TasksMax=, ulimit -u, kernel.threads-max, vm.max_map_count).",
                "请调高起作用的上限；`chatserver config check` 会指出是哪一个（TasksMax=、ulimit -u、kernel.threads-max、vm.max_map_count）。",
            ),
            Finding::ConnectionsFull { .. } => language.pick(
                "`chatserver config check` says which limit binds and how to raise it.",
                "`chatserver config check` 会说明是哪个上限在起作用，以及如何调高。",
            ),
            Finding::DatabaseFull { .. } | Finding::DatabaseNearlyFull { .. } => language.pick(
                "Raise data_bytes, or lower expire_after; `chatserver users` shows for whom so much waits.",
                "请调高 data_bytes，或缩短 expire_after；`chatserver users` 可以看到是谁积压了消息。",
            ),
            Finding::DatabaseSilent => {
                language.pick("Look at the disk (df -h, dmesg) and at the ERROR lines of the log.", "请检查磁盘（df -h、dmesg）与日志中的 ERROR 行。")
            }
            Finding::SavesFailed { .. } => {
                language.pick("The ERROR lines of the log say why.", "原因见日志中的 ERROR 行。")
            }
            Finding::ConnectionsRefused { .. } => language.pick(
                "The log names the addresses and the cap; `chatserver config check` says how to raise the one on all. Many users behind one address: add it to exempt_addresses, or raise max_per_address.",
                "日志中有相关地址。若多个用户共用一个地址：把它加入 exempt_addresses，或调高 max_per_address。",
            ),
            Finding::BacklogsFull { .. } => language.pick(
                "`chatserver users` shows whose; raise backlog_messages or backlog_bytes if they are to wait.",
                "`chatserver users` 可以看到是谁；若需继续保留，请调高 backlog_messages 或 backlog_bytes。",
            ),
            Finding::Expired { .. } => {
                language.pick("Raise expire_after if they are to wait longer.", "若需保留更久，请调高 expire_after。")
            }
            Finding::WrongKeys { .. } => language.pick(
                "A client with another key, or somebody who tries: the log names the addresses.",
                "可能是密钥不一致的客户端，或有人在试探：日志中有相关地址。",
            ),
            Finding::Panics { .. } => language.pick(
                "Please report the log's ERROR lines with \"panicked\" to the authors.",
                "请把日志中带有 panicked 的 ERROR 行报告给作者。",
            ),
            Finding::SetAside { .. } => {
                language.pick("They are in DIR/set-aside.jsonl; the log says why.", "它们保存在 DIR/set-aside.jsonl；原因见日志。")
            }
            Finding::MailsFailed { .. } => {
                language.pick("They are kept in DIR/mail/; `chatserver mail test` says what is wrong.", "它们保存在 DIR/mail/；`chatserver mail test` 会说明问题所在。")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{BacklogStatus, ConnectionStatus, DatabaseStatus, Machine, MemoryStatus};

    fn well() -> Status {
        Status {
            backlog: Some(BacklogStatus::default()),
            memory: MemoryStatus { limit_bytes: 1000, ..MemoryStatus::default() },
            database: DatabaseStatus { limit_bytes: 1000, ..DatabaseStatus::default() },
            ..Status::default()
        }
    }

    fn names(findings: Vec<Finding>) -> Vec<&'static str> {
        findings.iter().map(Finding::name).collect()
    }

    #[test]
    fn all_well_finds_nothing() {
        assert_eq!(findings(&well(), &Counts { relayed: 10, accepted: 3, ..Counts::default() }), []);
    }

    #[test]
    fn each_limit_is_found_when_it_is_reached_and_not_before() {
        let none = Counts::default();
        let with = |change: fn(&mut Status)| {
            let mut status = well();
            change(&mut status);
            names(urgent(&status, &none))
        };
        assert_eq!(with(|status| status.database.failing_for_ms = 59_999), [""; 0]);
        assert_eq!(with(|status| status.database.failing_for_ms = 60_000), ["saves-fail"]);
        assert_eq!(with(|status| status.memory.used_bytes = 949), [""; 0]);
        assert_eq!(with(|status| status.memory.used_bytes = 950), ["memory-full"]);
        assert_eq!(with(|status| status.memory.waiting_senders = 1), ["memory-full"]);
        assert_eq!(with(|status| status.database.used_bytes = 1000), ["database-full"]);
        let door = |open| Status { connections: ConnectionStatus { open, limit: 10, ..Default::default() }, ..well() };
        assert_eq!(names(urgent(&door(9), &none)), [""; 0]);
        // Nobody was refused lately: who comes next will be.
        assert_eq!(names(urgent(&door(10), &none)), ["connections-full"]);
        let machine =
            |descriptors| Machine { descriptors: Some(descriptors), descriptor_limit: Some(100), ..Machine::default() };
        assert_eq!(names(urgent(&Status { machine: machine(94), ..well() }, &none)), [""; 0]);
        assert_eq!(names(urgent(&Status { machine: machine(95), ..well() }, &none)), ["descriptors"]);
        let recent = Counts { failed_accept: 1, failed_thread: 1, refused_max_connections: 1, ..none };
        assert_eq!(names(urgent(&well(), &recent)), ["descriptors", "threads", "connections-full"]);
    }

    #[test]
    fn a_report_speaks_of_what_is_no_reason_for_an_alert() {
        let status = Status { database: DatabaseStatus { used_bytes: 850, ..well().database }, ..well() };
        let period = Counts { expired: 2, refused_max_strangers: 1, panics: 1, ..Counts::default() };
        let found = findings(&status, &period);
        assert_eq!(names(found.clone()), ["database-nearly-full", "connections-refused", "expired", "panics"]);
        assert!(urgent(&status, &period).is_empty());
        assert_eq!(found[0].what(Language::English), "the database has 85 % of data_bytes (1000 B)");
        assert!(found.iter().all(|finding| finding.remedy(Language::Chinese).ends_with('。')));
    }
}
