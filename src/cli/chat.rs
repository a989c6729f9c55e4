//! Placeholder, replaced by the client's branch.
use std::process::ExitCode;
/// Placeholder.
#[derive(Debug, clap::Args)]
pub struct Args {}
/// Placeholder.
pub fn run(_args: Args) -> ExitCode {
    todo!()
}
