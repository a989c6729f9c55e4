//! `chatserver users`: who was here and what waits for whom, from the database; a server may be running beside it.

use std::process::ExitCode;

use super::table::aligned;
use super::{DataArg, fail, print};
use crate::language::{Language, say};
use crate::logging::one_line;
use crate::storage::{self, UserLine};
use crate::terminal::utc;
use serde::Serialize;

/// List the users: registered, last seen, and what waits for each
///
/// It reads the database and changes nothing, also beside a running server; what that server holds in memory only (messages of the last second) is not in
/// it yet. Times are UTC.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// JSON Lines: {name, registered_at, last_seen_at, waiting_messages, waiting_bytes}, times in Unix milliseconds
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data: DataArg,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let users = match storage::users(&args.data.data) {
        Ok(users) => users,
        Err(error) => {
            return fail(format!("{error} (--data DIR names the server's data directory)"));
        }
    };
    let text = if args.json { json_lines(&users) } else { table(&users, Language::of_environment()) };
    print(text)
}

/// A user as an object of `--json`.
#[derive(Serialize)]
struct JsonLine<'a> {
    name: &'a str,
    registered_at: Option<i64>,
    last_seen_at: Option<i64>,
    waiting_messages: u64,
    waiting_bytes: u64,
}

fn json_lines(users: &[UserLine]) -> String {
    let line = |user: &UserLine| {
        let line = JsonLine {
            name: &user.name,
            registered_at: user.registered_at.into(),
            last_seen_at: user.last_seen_at.into(),
            waiting_messages: user.waiting_messages,
            waiting_bytes: user.waiting_bytes,
        };
        serde_json::to_string(&line).expect("text and numbers are JSON") + "\n"
    };
    users.iter().map(line).collect()
}

fn table(users: &[UserLine], language: Language) -> String {
    let head = language
        .pick(["NAME", "REGISTERED", "LAST SEEN", "WAITING"], ["用户名", "注册时间", "最近在线", "等待的消息"])
        .map(str::to_owned);
    let rows = users.iter().map(|user| row(user, language));
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    aligned(&rows, &[])
}

fn row(user: &UserLine, language: Language) -> [String; 4] {
    let bytes = user.waiting_bytes;
    let waiting = match user.waiting_messages {
        0 => "-".to_owned(),
        1 => say!(language, "1 message, {bytes} bytes", "1 条，{bytes} 字节"),
        more => say!(language, "{more} messages, {bytes} bytes", "{more} 条，{bytes} 字节"),
    };
    [one_line(&user.name).into_owned(), moment(user.registered_at), moment(user.last_seen_at), waiting]
}

/// Unix milliseconds to the second; a dash for a user who never logged in.
fn moment(at: impl Into<Option<i64>>) -> String {
    at.into().map_or("-".to_owned(), |at: i64| utc(at.div_euclid(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    fn users() -> Vec<UserLine> {
        let user = |name: &str, waiting_messages, waiting_bytes| UserLine {
            name: name.to_owned(),
            registered_at: 1_407_938_400_000,
            last_seen_at: 1_407_938_460_999,
            waiting_messages,
            waiting_bytes,
        };
        vec![user("[38121920]--> 7", 0, 0), user("小红", 2, 600)]
    }

    #[test]
    fn the_table_is_aligned_by_columns_of_the_terminal() {
        for (language, registered, waiting) in [
            (Language::English, "REGISTERED", "2 messages, 600 bytes\n"),
            (Language::Chinese, "注册时间", "2 条，600 字节\n"),
        ] {
            let table = table(&users(), language);
            let at: Vec<usize> = table
                .lines()
                .zip([registered.to_owned(), utc(1_407_938_400), utc(1_407_938_400)])
                .map(|(line, second)| line.split_once(&second).unwrap().0.width())
                .collect();
            assert_eq!(at, [17, 17, 17], "{table}");
            assert!(table.ends_with(waiting), "{table}");
            assert!(table.contains(&format!("{}  -\n", utc(1_407_938_460))), "{table}");
        }
    }

    #[test]
    fn json_is_a_line_each_in_utf8() {
        let expected = "{\"name\":\"小红\",\"registered_at\":1407938400000,\"last_seen_at\":1407938460999,\"waiting_messages\":2,\"waiting_bytes\":600}";
        assert_eq!(json_lines(&users()).lines().nth(1), Some(expected));
        assert_eq!(json_lines(&[]), "");
    }
}
