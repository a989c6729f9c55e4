//! `chatserver mail test`: sends one mail with the server's settings and says in words how far it came.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use super::connection::exit;
use super::fail;
use super::serve::SettingsArgs;
use crate::config::{Config, MailConfig};
use crate::language::{Language, say};
use crate::mail::{Letter, MailError, send_watched};

/// Try the settings for mail
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send a test mail to mail_to, and say step by step what happens
    ///
    /// It looks where the server looks: the file, this shell's environment variables, these flags. One attempt, of at most smtp_timeout. Exit code 1:
    /// the settings are wrong, or no mail server is there; 3: it refused, or broke off; 4: it did not answer in time.
    Test(SettingsArgs),
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let Command::Test(settings) = args.command;
    let config = match Config::load(&settings.sources()) {
        Ok(config) => config.mail,
        Err(error) => return fail(error),
    };
    let language = Language::of_environment();
    match send_test(&config, language) {
        Ok(code) => code,
        Err(error) => {
            fail(error.describe(language));
            exit_code(&error)
        }
    }
}

fn send_test(config: &MailConfig, language: Language) -> Result<ExitCode, MailError> {
    let message = test_letter(language).message(config, SystemTime::now())?;
    let sent = send_watched(&message, config, &mut |progress| tell(&progress.describe(language)))?;
    let reply = &sent.reply;
    tell(&say!(language, "the mail server has taken the mail ({reply})", "邮件服务器已收下邮件（{reply}）"));
    Ok(if sent.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::REFUSED) })
}

fn test_letter(language: Language) -> Letter {
    Letter {
        subject: language.pick("chatserver: a test mail", "chatserver：测试邮件").to_owned(),
        text: language
            .pick(
                "This is what you asked for with `chatserver mail test`.\nReports and alerts of the server will come the same way.\n",
                "这是用 `chatserver mail test` 请求的测试邮件。\n服务器的报告和告警将以同样的方式送达。\n",
            )
            .to_owned(),
        ..Letter::default()
    }
}

fn exit_code(error: &MailError) -> ExitCode {
    if error.is_unasked() {
        ExitCode::from(exit::START)
    } else if error.is_timeout() {
        ExitCode::from(exit::TIMEOUT)
    } else {
        ExitCode::from(exit::REFUSED)
    }
}

/// A line on standard output. Where nobody reads it there is still the exit code.
fn tell(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
