//! `chatserver key new`: a key that nobody else has.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::rand::{GetRandomFlags, getrandom};

use super::{fail, print};
use crate::terminal::print_note;

/// Make a pre-shared key
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new key from the system's random numbers, and print it or write it to FILE
    ///
    /// The server and all its clients must have the same one: `key_file = "FILE"` in the server's configuration, --key-file FILE for the client commands.
    /// A file is made with mode 0600; one that is there already is left alone (exit code 1), since whatever was encrypted with its key needs it.
    New {
        /// The file to make; without it the key is printed
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// AES-128, AES-192 or AES-256
        #[arg(long, value_name = "BITS", default_value = "256", value_parser = ["128", "192", "256"])]
        bits: String,
        /// Letters and digits instead of "hex:" and digits, for clients that take the key as text (a letter has 6 bits, not 8)
        #[arg(long)]
        text: bool,
    },
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let Command::New { file, bits, text } = args.command;
    let bytes = bits.parse::<usize>().expect("one of three numbers") / 8;
    let key = match new_key(bytes, text) {
        Ok(key) => key + "\n",
        Err(error) => return fail(format!("the system gives no random numbers ({error})")),
    };
    let Some(path) = file else { return print(key) };
    match write_new(&path, &key) {
        Ok(()) => {
            print_note(&format!(
                "{} holds a new key. Server: key_file = \"{}\". Clients: --key-file {}",
                path.display(),
                path.display(),
                path.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fail(format!("{} is there already and stays as it is; name another file, or move it away", path.display()))
        }
        Err(error) => fail(format!("the key file {} cannot be written ({error})", path.display())),
    }
}

/// 64 of them, so that no letter is more likely than another.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn new_key(bytes: usize, text: bool) -> io::Result<String> {
    let mut random = vec![0; bytes];
    // At most 256 bytes, which come whole or not at all.
    getrandom(&mut random, GetRandomFlags::empty())?;
    Ok(match text {
        true => random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 64)])).collect(),
        false => random.iter().fold("hex:".to_owned(), |key, byte| format!("{key}{byte:02x}")),
    })
}

/// Not half a key, whatever happens: what could not be written whole is removed.
fn write_new(path: &Path, key: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = std::fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;

    #[test]
    fn a_new_key_is_a_key_and_no_two_are_alike() {
        for (bytes, text) in [(16, true), (16, false), (24, true), (24, false), (32, true), (32, false)] {
            let (one, two) = (new_key(bytes, text).unwrap(), new_key(bytes, text).unwrap());
            assert_ne!(one, two);
            assert_eq!(Key::parse(&one).unwrap().bytes().len(), bytes, "{one}");
            assert_eq!(text, one.len() == bytes && !one.starts_with("hex:"));
        }
    }
}
