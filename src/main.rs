//! stub
use std::process::ExitCode;

use chatserver::cli::{chat, listen, send};
use clap::Parser;

#[derive(Parser)]
enum Command {
    Chat(chat::Args),
    Send(send::Args),
    Listen(listen::Args),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Chat(args) => chat::run(args),
        Command::Send(args) => send::run(args),
        Command::Listen(args) => listen::run(args),
    }
}
