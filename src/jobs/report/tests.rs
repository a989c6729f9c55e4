//! What a report says, in both languages.

use super::*;
use crate::health::{BacklogStatus, DatabaseStatus, Machine, MemoryStatus, UserStatus};

fn report(language: Language) -> Report {
    let status = Status {
        version: "0.1.0",
        started_at: 1_795_000_000_000,
        read_at: 1_795_000_000_000 + 90_061_000,
        uptime_s: 90_061,
        users: UserStatus { present: 12, peak: 34 },
        backlog: Some(BacklogStatus { messages: 5, bytes: 2048, oldest_at: Some(1_795_000_000_000) }),
        memory: MemoryStatus { used_bytes: 0, limit_bytes: 256 << 20, waiting_senders: 0 },
        database: DatabaseStatus { used_bytes: 3 << 20, limit_bytes: 10 << 30, ..DatabaseStatus::default() },
        machine: Machine { threads: Some(40), thread_limit: Some(16_000), ..Machine::default() },
        ..Status::default()
    };
    let counts = Counts { relayed: 1_234_567, logins: 7, ..Counts::default() };
    Report { language, host: "chat<1>".into(), from: status.started_at, status, counts, samples: Vec::new() }
}

#[test]
fn the_verdict_comes_first_and_says_what_to_do() {
    let well = report(Language::English);
    assert_eq!(well.subject(), "chatserver on chat<1>: all well");
    assert_eq!(report(Language::Chinese).subject(), "chat<1> 上的 chatserver：一切正常");
    let mut ill = report(Language::English);
    ill.counts.expired = 3;
    assert_eq!(ill.verdict(), "3 messages expired before their recipients came");
    ill.status.memory.waiting_senders = 1;
    assert_eq!(ill.verdict(), "the memory for messages (256 MiB) is full, and 1 more");
    ill.language = Language::Chinese;
    assert_eq!(ill.verdict(), "消息内存（256 MiB）已满，另有 1 项");
    let text = ill.text();
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in\n{text}"));
    assert!(place("已满") < place("调高 memory_bytes") && place("调高 memory_bytes") < place("当前状态"));
}

#[test]
fn the_text_has_what_happened_and_how_the_server_stands() {
    let text = report(Language::English).text();
    for row in [
        "users               12 present, at most 34\n",
        "waiting messages    5 messages, 2 KiB; the oldest waits for 1 d 1 h\n",
        "database            3 MiB of 10 GiB\n",
        "last save           none yet\n",
        "uptime              1 d 1 h\n",
        "threads             40 of 16000\n",
        "descriptors         unknown\n",
        "logins  7\n",
        "relayed live  1234567\n",
        "Protocol errors in this period\n  nothing\n",
    ] {
        assert!(text.contains(row), "{row:?} is not in\n{text}");
    }
    let chinese = report(Language::Chinese).text();
    assert!(chinese.contains("待收消息      5 条，2 KiB；最早的已等待 1 天 1 小时\n"), "{chinese}");
}

#[test]
fn the_page_escapes_what_it_is_given_and_fetches_nothing() {
    for language in [Language::English, Language::Chinese] {
        let page = page(&report(language).letter());
        assert!(page.contains("chat&lt;1&gt;") && !page.contains("chat<1>"), "{page}");
        assert!(page.contains("1,234,567") && page.contains(language.pick("All well", "一切正常")), "{page}");
        assert!(!page.contains("http") && !page.contains("<script"), "{page}");
        // Nothing to draw: no picture, and none that is missing.
        assert!(!page.contains("<img"), "{page}");
    }
}

#[test]
fn an_alert_says_what_begins_and_what_is_over() {
    let status = report(Language::English).status;
    let (full, slow) = (Finding::MemoryFull { limit_bytes: 1 << 20 }, Finding::SavesFail { for_ms: 61_000 });
    let begun = alert(&[full], std::slice::from_ref(&slow), &status, "h", Language::English);
    assert_eq!(begun.subject, "chatserver on h: ALERT: the memory for messages (1 MiB) is full");
    assert!(
        begun.text.contains("raise memory_bytes") && begun.text.contains("Over: no save to disk"),
        "{}",
        begun.text
    );
    let over = alert(&[], &[slow], &status, "h", Language::Chinese);
    assert_eq!(over.subject, "h 上的 chatserver：已恢复：已有 61 秒未能成功写盘");
}
