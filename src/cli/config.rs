//! `chatserver config`: what is in force and why, and a file to begin with.

use std::io::Write;
use std::process::ExitCode;

use super::serve::SettingsArgs;
use super::{fail, print};
use crate::config::{Resolved, markdown, sample};
use crate::server::capacity::Capacity;

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
    /// It looks where the server looks: the file, this shell's environment variables, these flags. The key is not shown. Then it says how many connections
    /// this machine carries, which of its limits says so, and how to raise each; a limit that is too low for max_connections is a warning on standard error.
    Check(SettingsArgs),
    /// Print the settings in force as a configuration file, each with its origin
    ///
    /// What it prints can be used again, with --config FILE. Secrets are not in it: a comment says which are missing.
    Show(SettingsArgs),
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
        Command::Check(settings) => Resolved::from_sources(&settings.sources()).map(|resolved| {
            let capacity = Capacity::compute(&resolved.config);
            warn(&capacity.warnings());
            table(&resolved) + "\n" + &limits(&capacity)
        }),
        Command::Show(settings) => Resolved::from_sources(&settings.sources()).map(|resolved| resolved.to_toml()),
        Command::Sample { markdown: true } => Ok(markdown()),
        Command::Sample { markdown: false } => Ok(sample()),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return fail(error),
    };
    print(text)
}

fn table(resolved: &Resolved) -> String {
    let lines = resolved.lines();
    let width = |column: fn(&(&'static str, String, crate::config::Origin)) -> usize| {
        lines.iter().map(column).max().unwrap_or(0)
    };
    let (names, values) = (width(|line| line.0.len()), width(|line| line.1.len()));
    lines.iter().map(|(name, value, origin)| format!("{name:names$}  {value:values$}  {origin}\n")).collect()
}

/// What works, but not as asked for: a line each on standard error.
fn warn(lines: &[String]) {
    let mut out = std::io::stderr().lock();
    for line in lines {
        // Where nobody can read it the table says it too.
        let _ = writeln!(out, "chatserver: warning: {line}");
    }
}

/// How many connections, and the limits, the one that binds first.
fn limits(capacity: &Capacity) -> String {
    let mut text = format!(
        "Up to {} connections at one time, bound by the first of these limits. They are this shell's: a service has its own, and\n\
         the server's log says at its start which one binds.\n\n\
         connections  limit, and how to raise it\n",
        capacity.connections()
    );
    for limit in &capacity.limits {
        text += &format!("{:>11}  {} = {}\n{:13}{}\n", limit.connections, limit.name, limit.value, "", limit.remedy);
    }
    text
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

    #[test]
    fn the_limit_that_binds_comes_first_with_its_remedy() {
        let config = crate::config::Config { max_connections: 1, ..Default::default() };
        let text = limits(&Capacity::compute(&config));
        assert!(text.starts_with("Up to 1 connections at one time"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.iter().position(|line| line.starts_with("connections ")).unwrap() + 1;
        assert_eq!(lines[first].trim(), "1  max_connections = 1");
        assert!(lines[first + 1].contains("0 = as many as the other limits allow"), "{text}");
        assert!(text.contains("vm.max_map_count = ") && text.contains("LimitNOFILE=NUMBER"), "{text}");
    }
}
