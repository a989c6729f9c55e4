//! `chatserver completions`: what a shell needs to complete commands and flags, made from the command line's definitions.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{generate, shells};

use super::{CommandLine, print};

/// Print the completions for a shell
///
/// For bash: chatserver completions bash > ~/.local/share/bash-completion/completions/chatserver
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    print(script(args.shell))
}

fn script(shell: Shell) -> Vec<u8> {
    let (mut command, name, mut script) = (CommandLine::command(), "chatserver", Vec::new());
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, name, &mut script),
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_every_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            for command in CommandLine::command().get_subcommands() {
                let words: Vec<&str> =
                    std::iter::once(command).chain(command.get_subcommands()).map(|c| c.get_name()).collect();
                assert!(words.iter().all(|word| script.contains(word)), "{shell:?}: {words:?}");
            }
            assert!(script.contains("allow-published-key"), "{shell:?}");
        }
    }
}
