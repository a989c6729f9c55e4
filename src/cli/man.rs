//! `chatserver man`: the manual page, one for all commands, made from the command line's definitions.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{CommandLine, EXAMPLES, EXIT_CODES, fail, print};

/// Print the manual page, chatserver(1)
///
/// To read it: chatserver man | man -l -
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: Args) -> ExitCode {
    match page() {
        Ok(page) => print(page),
        Err(error) => fail(format!("standard output cannot be written ({error})")),
    }
}

fn page() -> io::Result<Vec<u8>> {
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let man = manual(&command);
    // Not the library's: it drops the empty date, and what follows takes its place.
    writeln!(page, ".TH CHATSERVER 1 \"\" \"chatserver {}\"", env!("CARGO_PKG_VERSION"))?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    Roff::new().control("SH", ["COMMANDS"]).to_writer(&mut page)?;
    for subcommand in command.get_subcommands() {
        describe(subcommand, &mut page)?;
    }
    for (heading, text) in [("EXAMPLES", EXAMPLES), ("EXIT STATUS", EXIT_CODES)] {
        Roff::new().control("SH", [heading]).to_writer(&mut page)?;
        // The first line is the text's own heading.
        as_it_stands(text.lines().skip(1), &mut page)?;
    }
    Ok(page)
}

/// With clap's own usage lines: they name the values of flags.
fn manual(command: &Command) -> Man {
    let usage = command.clone().render_usage().to_string();
    Man::new(command.clone().override_usage(usage.trim_start_matches("Usage: ").to_owned()))
}

/// A command's part of the page, and those of its own commands.
fn describe(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    Roff::new().control("SS", [name]).to_writer(page)?;
    let (man, mut parts) = (manual(command), Vec::new());
    man.render_synopsis_section(&mut parts)?;
    Roff::new().control("PP", []).to_writer(&mut parts)?;
    man.render_description_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    // Sections are for a page of its own; here these are paragraphs.
    for line in String::from_utf8_lossy(&parts).lines().filter(|line| !line.starts_with(".SH ")) {
        writeln!(page, "{line}")?;
    }
    if let Some(text) = command.get_after_long_help().or(command.get_after_help()) {
        Roff::new().control("PP", []).to_writer(page)?;
        as_it_stands(text.to_string().lines(), page)?;
    }
    command.get_subcommands().try_for_each(|subcommand| describe(subcommand, page))
}

/// Lines that are not filled to paragraphs.
fn as_it_stands<'t>(lines: impl Iterator<Item = &'t str>, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("nf", []);
    lines.for_each(|line| _ = roff.text([roman(line)]));
    roff.control("fi", []).to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(command: &Command) -> Vec<String> {
        let own = command.get_bin_name().unwrap().to_owned();
        std::iter::once(own).chain(command.get_subcommands().flat_map(names)).collect()
    }

    #[test]
    fn every_command_and_flag_has_its_place_on_the_page() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        let mut command = CommandLine::command().disable_help_subcommand(true);
        command.build();
        let commands: Vec<String> = command.get_subcommands().flat_map(names).collect();
        assert!(commands.len() > 8, "{commands:?}");
        for command in &commands {
            assert!(page.contains(&format!(".SS \"{command}\"\n")), "{command}\n{page}");
        }
        for (index, heading) in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "EXAMPLES"].iter().enumerate()
        {
            let found = page.lines().filter(|line| line.starts_with(".SH ")).nth(index);
            assert!(found.is_some_and(|line| line.contains(heading)), "{heading}: {found:?}");
        }
        for text in ["\\-\\-allow\\-published\\-key", "CHATSERVER_KEY", "refused by the server"] {
            assert!(page.contains(text), "{text}\n{page}");
        }
    }
}
