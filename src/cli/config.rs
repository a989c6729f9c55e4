//! `chatserver config`: what is in force and why, and a file to begin with.

use std::io::{self, Write};
use std::process::ExitCode;

use super::fail;
use super::serve::SettingsArgs;
use crate::config::{Resolved, markdown, sample};

/// Show, check or begin a configuration
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every setting with its value and where that comes from, or everything that is wrong (exit code 1)
    ///
    /// It looks where the server looks: the file, this shell's environment variables, these flags. The key is not shown.
    Check(SettingsArgs),
    /// Print a configuration file with every setting, its default and its meaning, commented out
    Sample {
        /// As a Markdown table, for documents
        #[arg(long)]
        markdown: bool,
    },
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let text = match args.command {
        Command::Check(settings) => match Resolved::from_sources(&settings.sources()) {
            Ok(resolved) => table(&resolved),
            Err(error) => return fail(error),
        },
        Command::Sample { markdown: true } => markdown(),
        Command::Sample { markdown: false } => sample(),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format!("standard output cannot be written ({error})")),
    }
}

fn table(resolved: &Resolved) -> String {
    let lines = resolved.lines();
    let width = |column: fn(&(&'static str, String, crate::config::Origin)) -> usize| {
        lines.iter().map(column).max().unwrap_or(0)
    };
    let (names, values) = (width(|line| line.0.len()), width(|line| line.1.len()));
    lines.iter().map(|(name, value, origin)| format!("{name:names$}  {value:values$}  {origin}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn every_setting_has_a_line_and_the_key_is_not_shown() {
        let environment = vec![
            ("CHATSERVER_KEY".into(), "secret0123456789".into()),
            ("CHATSERVER_READ_TIMEOUT".into(), "9 s".into()),
        ];
        let sources = Sources { environment, data: Some("/nonexistent/chatserver-test".into()), ..Sources::default() };
        let table = table(&Resolved::from_sources(&sources).unwrap());
        assert!(!table.contains("secret"), "{table}");
        let words = |name: &str| -> Vec<String> {
            let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        assert_eq!(words("read_timeout"), ["read_timeout", "9 s", "CHATSERVER_READ_TIMEOUT"]);
        assert_eq!(words("key"), ["key", "(16 bytes, not shown)", "CHATSERVER_KEY"]);
        assert_eq!(words("data"), ["data", "/nonexistent/chatserver-test", "--data"]);
        assert_eq!(words("save_interval"), ["save_interval", "1 s", "default"]);
    }
}
