//! `chatserver chat`: two people and a terminal.
//!
//! Two threads: this one waits for lines (`input`), the thread "network" waits for messages and keeps the connection (`link`). Both
//! print through a `screen` of their own. Nothing in here knows a socket or a packet: that is `crate::client`'s.

mod input;
mod link;
mod screen;

use std::process::ExitCode;

use self::input::{Input, Line};
use self::link::{Left, Link, Sent};
use self::screen::Screen;
use super::connection::{ConnectionArgs, exit, fail, recipient_name};
use crate::client::SessionState;
use crate::language::{Language, say};
use crate::terminal::{escape, print_note};

/// What `/help` shows, and in English part of `--help`.
const COMMANDS: &str = "  /to NAME   write to NAME from now on (/to alone: to whom?)
  /help      the list of commands
  /quit      leave; so do Ctrl-D and Ctrl-C
  //text     send /text";

const COMMANDS_IN_CHINESE: &str = "  /to 用户名  从现在起发给该用户（只输入 /to：查看当前收件人）
  /help       显示命令列表
  /quit       退出；也可以按 Ctrl-D 或 Ctrl-C
  //文本      发送“/文本”";

const EXIT_CODES: &str = "Exit codes:
  0  left
  1  no connection, or lines that could not be sent
  3  refused by the server
  4  the server did not answer in time, or lines have no receipt";

/// Chat with people, interactively
///
/// Type a line and press Enter: it goes to the present recipient, whom the prompt shows. Lines that begin with a slash are
/// commands, listed below.
///
/// A line that the server has on its disk is marked with ✓, one that its recipient has taken in with ✓✓, one that the server refuses with ✗ and
/// its reason. A server of level 1 of the protocol tells nothing of that.
///
/// A lost connection is made again by itself. Lines typed meanwhile are kept and sent then, and those that have no mark are sent again;
/// nothing comes twice.
///
/// When another program logs in with the same name, the server closes the older connection. It is only taken back when you press
/// Enter, so that two programs do not throw each other out for ever. A server of level 1 does not tell: there a connection that ends
/// within 5 s of its login counts as taken over.
///
/// The line history is in $XDG_STATE_HOME/chatserver/history (~/.local/state/chatserver/history), readable for you only. Colours
/// are used on a terminal, unless NO_COLOR is set. When standard input is not a terminal, lines are read without editing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("Commands while chatting:\n{COMMANDS}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// Your name
    #[arg(long = "as", value_name = "NAME")]
    name: String,

    /// Whom to write to at first
    #[arg(long, value_name = "NAME", value_parser = recipient_name)]
    to: Option<String>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let language = Language::of_environment();
    let (connect, client) = match args.connection.resume(SessionState::new(&args.name), language) {
        Ok(connected) => connected,
        Err(code) => return code,
    };
    let (mut input, mut screen, network_screen) = input::open(language);
    let (addr, name, welcome) = (escape(connect.addr()), escape(client.name()), escape(client.welcome()));
    screen.note(&say!(
        language,
        "connected to {addr} as {name}: {welcome}",
        "已连接 {addr}，以 {name} 登录：{welcome}"
    ));
    screen.note(language.pick("/help shows the commands, /quit leaves", "输入 /help 查看命令，/quit 退出"));
    let mut chat = Chat { link: Link::start(connect, client, network_screen), screen, to: args.to };
    chat.converse(&mut input);
    // Before the good-bye: a network thread that waits for the editor to show something must not wait for ever.
    drop(input);
    chat.leave()
}

/// The conversation, as the thread that reads lines sees it.
struct Chat {
    link: Link,
    screen: Screen,
    to: Option<String>,
}

impl Chat {
    /// Takes lines until the user leaves.
    fn converse(&mut self, input: &mut Input) {
        while let Line::Typed(line) = input.next(&self.prompt()) {
            match Command::parse(&line) {
                Command::Nothing => self.take_back(),
                Command::Text(text) => self.send(text),
                Command::To(name) => self.address(name),
                Command::Help => self.screen.note(self.language().pick(COMMANDS, COMMANDS_IN_CHINESE)),
                Command::Quit => return,
                Command::Unknown(word) => {
                    let word = escape(word);
                    self.screen.note(&say!(
                        self.language(),
                        "there is no command {word}: /help lists them, /{word} sends it as a text",
                        "没有命令 {word}：/help 列出全部命令；要原样发送，请输入 /{word}"
                    ));
                }
            }
        }
    }

    fn prompt(&self) -> String {
        match &self.to {
            Some(name) => format!("{}> ", escape(name)),
            None => self.language().pick("(/to NAME)> ", "(/to 用户名)> ").to_owned(),
        }
    }

    fn language(&self) -> Language {
        self.screen.language
    }

    fn send(&mut self, text: &str) {
        let language = self.language();
        let Some(to) = &self.to else {
            return self.screen.note(
                language
                    .pick("not sent: choose a recipient first, with /to NAME", "未发送：请先用“/to 用户名”选择收件人"),
            );
        };
        match self.link.send(to, text) {
            Sent::Now => {}
            Sent::Later => self.screen.note(
                language.pick("not connected: kept, and sent after the next login", "未连接：已保留，重新登录后发送"),
            ),
            Sent::TooLong => self.screen.too_long(),
            Sent::AfterEnter => self.screen.note(language.pick(
                "another login has taken over: kept, and sent when you press Enter on an empty line",
                "已被另一处登录取代：已保留，在空行按回车重新登录后发送",
            )),
        }
    }

    fn address(&mut self, name: &str) {
        let language = self.language();
        if name.is_empty() {
            let nobody = language.pick("nobody yet: /to NAME", "尚未选择，请用“/to 用户名”");
            let to = self.to.as_deref().map_or(nobody.into(), escape);
            return self.screen.note(&say!(language, "writing to {to}", "当前收件人：{to}"));
        }
        match recipient_name(name) {
            Ok(name) => self.to = Some(name),
            Err(why) => self.screen.note(&why.describe(language)),
        }
    }

    /// Enter on an empty line.
    fn take_back(&mut self) {
        if self.link.take_back() {
            self.screen.note(self.language().pick("connecting again", "正在重新连接"));
        }
    }

    fn leave(self) -> ExitCode {
        let language = self.language();
        let Left { unsent, unreceipted, clean } = self.link.leave();
        if unreceipted > 0 {
            print_note(&say!(
                language,
                "{unreceipted} of your lines have no receipt: it is not known whether they will arrive",
                "有 {unreceipted} 行没有收到回执：无法确定是否会送达"
            ));
        }
        match unsent {
            0 if unreceipted > 0 => ExitCode::from(exit::TIMEOUT),
            0 if clean => ExitCode::SUCCESS,
            0 => fail(
                language.pick(
                    "the server did not confirm the good-bye: what was typed last may not have arrived",
                    "服务器没有确认退出：最后输入的内容可能没有送达",
                ),
                exit::TIMEOUT,
            ),
            unsent => fail(
                &say!(
                    language,
                    "{unsent} of your lines were not sent: there was no connection",
                    "有 {unsent} 行没有发送：当时没有连接"
                ),
                exit::START,
            ),
        }
    }
}

/// What a typed line means.
#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    /// White space.
    Nothing,
    /// To be sent.
    Text(&'a str),
    /// A new recipient; empty = only asks.
    To(&'a str),
    /// `/help`.
    Help,
    /// `/quit`.
    Quit,
    /// The first word, with its slash.
    Unknown(&'a str),
}

impl Command<'_> {
    fn parse(line: &str) -> Command<'_> {
        if line.trim().is_empty() {
            return Command::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else {
            return Command::Text(line);
        };
        if command.starts_with('/') {
            return Command::Text(command);
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match word {
            "to" => Command::To(rest.trim()),
            "help" | "?" => Command::Help,
            "quit" | "exit" | "q" => Command::Quit,
            _ => Command::Unknown(&line[..=word.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_texts_or_commands() {
        let meanings = [
            ("", Command::Nothing),
            ("  \t", Command::Nothing),
            ("hello /quit", Command::Text("hello /quit")),
            (" /quit", Command::Text(" /quit")),
            ("//quit now", Command::Text("/quit now")),
            ("/to [38121920]--> 7 ", Command::To("[38121920]--> 7")),
            ("/to", Command::To("")),
            ("/help", Command::Help),
            ("/quit", Command::Quit),
            ("/tо bob", Command::Unknown("/tо")), // a Cyrillic о
            ("/", Command::Unknown("/")),
        ];
        for (line, meaning) in meanings {
            assert_eq!(Command::parse(line), meaning, "{line}");
        }
    }
}
