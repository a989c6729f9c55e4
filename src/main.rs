//! The program: everything it does is in `cli`, one file per subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    chatserver::cli::run()
}
