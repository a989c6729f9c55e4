//! The command line: what can be asked of the program, one file per subcommand.
//!
//! Each file exports `Args` (what clap reads; its doc comments are the `--help`) and `run(args)`, which does it and gives the exit code. Nothing in here
//! knows how a session works. The exit codes are the ones in [`EXIT_CODES`], for every command alike; clap itself ends wrong usage with 2.

pub mod backup;
#[cfg(feature = "tools")]
pub mod bench;
pub mod chat;
#[cfg(feature = "tools")]
pub mod completions;
pub mod config;
#[cfg(feature = "tools")]
pub mod conformance;
pub mod connection;
pub mod ctl;
pub mod ctl_client;
#[cfg(feature = "tools")]
pub mod decode;
pub mod export;
pub mod heartbeat;
pub mod key;
pub mod listen;
pub mod mail;
#[cfg(feature = "tools")]
pub mod man;
mod progress;
pub mod report;
pub mod restore;
pub mod send;
pub mod serve;
pub mod signals;
mod table;
#[cfg(feature = "tools")]
pub mod tap;
pub mod users;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::DEFAULT_DATA;

/// A chat server that is hard to lose a message with, and a client for the terminal
///
/// Without a command it is the server: `chatserver` does what `chatserver serve` does.
#[derive(Debug, Parser)]
#[command(name = "chatserver", version, args_conflicts_with_subcommands = true, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Chat(chat::Args),
    Send(send::Args),
    Listen(listen::Args),
    Users(users::Args),
    Report(report::Args),
    Ctl(ctl::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Export(export::Args),
    Config(config::Args),
    Key(key::Args),
    Mail(mail::Args),
    #[cfg(feature = "tools")]
    Bench(bench::Args),
    #[cfg(feature = "tools")]
    Conformance(conformance::Args),
    #[cfg(feature = "tools")]
    Decode(decode::Args),
    #[cfg(feature = "tools")]
    Tap(tap::Args),
    #[cfg(feature = "tools")]
    Completions(completions::Args),
    #[cfg(feature = "tools")]
    Man(man::Args),
}

/// Where a command finds a server's files.
#[derive(Debug, Args)]
pub struct DataArg {
    /// The server's data directory
    #[arg(long, value_name = "DIR", env = "CHATSERVER_DATA", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  chatserver                                 the server; its files are in ./data
  chatserver chat --as Ann --to Bob          a conversation; Bob does the same
  chatserver send --as Ann --to Bob 'hello'  one message, for scripts
  chatserver listen --as Bob --json          what arrives for Bob, a line each
  chatserver users                           who was here, what waits for whom
  chatserver report                          how a running server is
  chatserver backup /backups/monday.db       a copy, also of a running server
  chatserver config check                    the settings, and their origins
  chatserver key new server.key              a key that nobody else has
  chatserver tap --listen 127.0.0.1:8990     each packet as it passes
  chatserver decode session.pcapng           a capture's packets, byte by byte
  chatserver mail test                       whether mails to you arrive";

/// The exit codes, as `--help` tells them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it could not start, or its configuration is wrong
  2  wrong usage
  3  refused by the server
  4  timeout
  5  input could not be read
  130, 143  the server was told twice to stop (SIGINT, SIGTERM)";

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let line = CommandLine::parse();
    match line.command.unwrap_or(Command::Serve(line.serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Send(args) => send::run(args),
        Command::Listen(args) => listen::run(args),
        Command::Users(args) => users::run(args),
        Command::Report(args) => report::run(args),
        Command::Ctl(args) => ctl::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Export(args) => export::run(args),
        Command::Config(args) => config::run(args),
        Command::Key(args) => key::run(args),
        Command::Mail(args) => mail::run(args),
        #[cfg(feature = "tools")]
        Command::Bench(args) => bench::run(args),
        #[cfg(feature = "tools")]
        Command::Conformance(args) => conformance::run(args),
        #[cfg(feature = "tools")]
        Command::Decode(args) => decode::run(args),
        #[cfg(feature = "tools")]
        Command::Tap(args) => tap::run(args),
        #[cfg(feature = "tools")]
        Command::Completions(args) => completions::run(args),
        #[cfg(feature = "tools")]
        Command::Man(args) => man::run(args),
    }
}

/// Writes `text` to standard output. Whoever has read enough and closed it, as `head` does, is no error.
fn print(text: impl AsRef<[u8]>) -> ExitCode {
    match std::io::stdout().write_all(text.as_ref()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(format!("standard output cannot be written ({error})"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says on standard error why it cannot be done; gives exit code 1.
fn fail(why: impl std::fmt::Display) -> ExitCode {
    let mut out = std::io::stderr().lock();
    for line in why.to_string().lines() {
        // Where nobody can read it there is still the exit code.
        let _ = writeln!(out, "chatserver: {line}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves_with_the_same_flags() {
        let flags = ["--listen", "127.0.0.1:0", "--data", "X", "--config", "F", "--allow-published-key"];
        let bare = CommandLine::try_parse_from(["chatserver"].iter().chain(&flags)).unwrap();
        let named = CommandLine::try_parse_from(["chatserver", "serve"].iter().chain(&flags)).unwrap();
        let Some(Command::Serve(served)) = named.command else { panic!("{named:?}") };
        assert!(bare.command.is_none());
        assert_eq!(format!("{:?}", bare.serve), format!("{served:?}"));
        assert!(format!("{served:?}").contains("127.0.0.1:0"));
    }

    #[test]
    fn wrong_usage_has_exit_code_2() {
        for line in [
            vec!["--listen", "nowhere"],
            vec!["--nonsense"],
            vec!["config"],
            vec!["--data", "X", "users"],
            vec!["nonsense"],
        ] {
            let error = CommandLine::try_parse_from(["chatserver"].iter().chain(&line)).expect_err(&line.join(" "));
            assert_eq!(error.exit_code(), 2, "{line:?}: {error}");
        }
    }

    #[test]
    fn help_names_commands_and_exit_codes() {
        let error = CommandLine::try_parse_from(["chatserver", "--help"]).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
        let help = error.to_string();
        for word in ["serve", "chat", "users", "config", "Examples:", "Exit codes:", "--allow-published-key"] {
            assert!(help.contains(word), "{word} is missing:\n{help}");
        }
        // Lines that are aligned by hand are never wrapped by a terminal of the usual width.
        let error = CommandLine::try_parse_from(["chatserver", "ctl", "--help"]).unwrap_err().to_string();
        let (requests, _) = error.split_once("Usage:").unwrap();
        for line in [EXAMPLES, EXIT_CODES, requests].iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
