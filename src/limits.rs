//! Fixed caps: what an operator need not change. Each has its unit, why this value, and what happens past it.

use std::time::Duration;

/// Rows of one save transaction. Keeps a transaction near 50 ms, so that a stop or a reader never waits long; more rows go into the next one.
pub const SAVE_ROWS: usize = 4096;

/// Bytes of packets of one save transaction (at least one row is taken, however long): with `SAVE_ROWS` the memory that a save needs.
pub const SAVE_BYTES: usize = 1024 * 1024;

/// Rows of one read of a backlog. With `READ_BYTES`, twice, the memory of one writer: the next rows are read while the last are sent.
pub const READ_ROWS: usize = 256;

/// Bytes of text of one read of a backlog (at least one row is read, however long).
pub const READ_BYTES: usize = 128 * 1024;

/// Connections waiting to be accepted. The kernel drops SYNs past it, which costs a client a second; `net.core.somaxconn` may lower it.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Stack of a connection's thread, bytes of address space: pages that are never touched cost nothing.
pub const STACK_BYTES: usize = 256 * 1024;

/// What one message in memory is charged beyond its packet: its entry and its allocation, bytes.
pub const ENTRY_BYTES: usize = 64;

/// What a mailbox kept in memory for a user who is not connected is charged, bytes.
pub const MAILBOX_BYTES: usize = 512;

/// Log lines waiting for the log's thread. Past it lines are dropped and counted: a stopped terminal stops no connection.
pub const LOG_QUEUE_LINES: usize = 4096;

/// Addresses whose logins are counted at one time: at most 12 MiB. Past it those that come new are not counted, until others have been quiet for a minute.
pub const LOGIN_ADDRESSES: usize = 65_536;

/// Log lines about strangers that broke a rule: so many at once, and as many a minute. Past it they are counted, and the next line says how many were left out.
pub const STRANGER_LINES: u64 = 600;

/// How long a connection that was refused or broke a rule is read from after its last answer, so that the answer is not lost to a reset.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Send buffer asked for per socket, bytes (the kernel doubles it and may clamp it to `net.core.wmem_max`). It fills before an outbox does, so that
/// a slow reader is noticed by the socket; what it holds and the peer has not acknowledged stays in the window.
pub const SOCKET_BUFFER_BYTES: usize = 128 * 1024;

/// Sequence numbers reserved on disk ahead of those handed out: none is handed out twice after a crash, even when the clock has gone back. A start
/// skips at most so many, which as microseconds are 17 s of the 228 years left below 2^53.
pub const SEQ_RESERVE: u64 = 1 << 24;

/// Pause before a disk that could not be read is asked again.
pub const DISK_RETRY: Duration = Duration::from_millis(250);

/// Pause before an outbox that is full of replies is looked at again; only while its own client, and nobody else, waits for it.
pub const REPLY_RETRY: Duration = Duration::from_millis(10);

/// First pause after a save that failed; doubled each time up to `SAVE_RETRY_MAX`. Until one succeeds nothing is lost, and senders wait when memory is full.
pub const SAVE_RETRY_MIN: Duration = Duration::from_millis(250);

/// Longest pause between two tries of a save: a disk that is well again is written to within 5 s, however long it was ill.
pub const SAVE_RETRY_MAX: Duration = Duration::from_secs(4);

/// Rows of one expiry transaction.
pub const EXPIRE_ROWS: usize = 4096;

/// Between two alerts about the same kind of trouble. What is still on then is told; what has come and gone in between is in the next report.
pub const ALERT_PAUSE: Duration = Duration::from_secs(600);

/// How long trouble must have been away before an alert says that it is over.
pub const ALERT_CALM: Duration = Duration::from_secs(30);

/// How often the watch looks at the server's health: an alert is at most so late. A look costs about 0.1 ms (before
/// Linux 6.2, 1 µs more for each open descriptor).
pub const WATCH_STEP: Duration = Duration::from_secs(5);

/// Connections to `ctl.sock` at one time; further ones are closed at once.
pub const CTL_CONNECTIONS: usize = 8;

/// What a `trace` may hold that its reader has not taken, bytes of packets with `ENTRY_BYTES` for each. Past it packets are not shown, and counted.
pub const TRACE_BYTES: usize = 1024 * 1024;

/// Connections to `metrics_listen` at one time; further ones are asked for /health only. A collector has one.
pub const HTTP_CONNECTIONS: usize = 8;

/// So many more are answered when they ask for /health, and 503 when they ask for anything else.
pub const HTTP_HEALTH_CONNECTIONS: usize = 4;

/// How long a status waits for what waits on disk; past it that part is missing.
pub const BACKLOG_PATIENCE: Duration = Duration::from_secs(2);

/// Longest head of an HTTP request, bytes; a longer one is answered with 400.
pub const HTTP_HEAD_BYTES: usize = 8 * 1024;

/// How long an HTTP request may take to arrive and its answer to leave, together, from accept on; a slower one is answered with 408, or closed.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest request line on `ctl.sock`, bytes; a longer one ends its connection.
pub const CTL_LINE_BYTES: usize = 1024;

/// How long a connection to `ctl.sock` may say nothing, or take nothing of an answer, before it is closed.
pub const CTL_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a `save` asked for on `ctl.sock` may take before its asker is told that the disk does not take it; the server goes on trying.
pub const CTL_SAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Mails under way at one time, a thread each. One relay that hangs takes few of them; past it a mail is refused with an error that says so.
pub const MAIL_THREADS: usize = 4;

/// Pauses between the tries of one mail, so one try more than there are pauses. A relay that restarts is back within the second one.
pub const MAIL_PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Unsent mails kept in DIR/mail/, some 100 KiB each. Past it the oldest are removed.
pub const KEPT_MAILS: usize = 100;

/// Stack of a mail's thread, bytes of address space: a TLS handshake and the system's name service need more than a connection does.
pub const MAIL_STACK_BYTES: usize = 1024 * 1024;

/// Longest answer of an SMTP server, bytes, all its lines together; RFC 5321 asks for 512 a line. Past it the other side does not speak SMTP.
pub const SMTP_ANSWER_BYTES: usize = 16 * 1024;

/// How long the SMTP server's answer to QUIT is waited for: the mail is accepted or refused by then.
pub const SMTP_QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Numbers of messages remembered for each level-2 sender, with 24 bytes each in memory. So many may be without a receipt: the server reads no further from
/// a sender that has more. An older number is refused as too old.
pub const SENT_IDS: usize = 1024;

/// Numbers reserved on disk ahead of those that a level-2 sender has used. After a crash it is told to begin above them. Of a number that is farther ahead
/// the DELIVERED waits for a save, for example of the first one after a login.
pub const MSG_ID_RESERVE: u64 = 1024;

/// Most messages that one receipt names; more come in the next.
pub const RECEIPT_IDS: usize = 1024;

/// Receipts and pongs for one client beyond the messages in its outbox, bytes. A client that leaves more of them unread is not read from until it reads.
pub const ANSWER_BYTES: usize = 64 * 1024;
