//! Mail to the operators: a [`Letter`] becomes a MIME message, [`send_once`] hands it to an SMTP server, [`Post`] does that on threads of its own.
//!
//! Nothing in here knows what a letter is about, and nobody in the server waits for anything in here. Addresses, host, password come from the settings
//! only. Read first: `smtp.rs`, which is RFC 5321 §3 from top to bottom; `error.rs` has everything that can go wrong with it.

mod error;
mod post;
mod smtp;
mod wire;

pub use error::{Fault, MailError, Phase, Refusal, Reply};
pub use post::Post;
pub use smtp::{Progress, Sent, send_once, send_watched};

use std::time::SystemTime;

use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::extension::ClientId;

use crate::config::MailConfig;

/// What is written to the operators. Any text stays text, whatever is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letter {
    /// The subject, on one line.
    pub subject: String,
    /// The letter for programs that show no HTML.
    pub text: String,
    /// The same in HTML.
    pub html: Option<String>,
    /// A picture in PNG that the HTML shows as `<img src="cid:chart">`.
    pub image: Option<Vec<u8>>,
}

impl Letter {
    /// The letter as a MIME message from `mail_from` to everybody in `mail_to`.
    ///
    /// # Errors
    /// `mail_to` is empty, or an address is none: the settings are to be corrected.
    pub fn message(&self, config: &MailConfig, date: SystemTime) -> Result<Message, MailError> {
        let error = |fault| MailError { server: smtp::server(config), fault };
        let mailbox = |setting: &'static str, address: &str| {
            let mailbox = address.parse::<Mailbox>();
            mailbox.map_err(|_| error(Fault::Address { setting, address: address.to_owned() }))
        };
        if config.to.is_empty() {
            return Err(error(Fault::Nobody));
        }
        let from = config.from.clone().unwrap_or_else(own_address);
        let mut builder = Message::builder()
            .from(mailbox("mail_from", &from)?)
            .date(date)
            .message_id(None)
            .subject(self.subject.replace(char::is_control, " "))
            // RFC 3834: nobody's holiday notice comes back.
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()));
        for address in &config.to {
            builder = builder.to(mailbox("mail_to", address)?);
        }
        let text = SinglePart::plain(line_ends(&self.text));
        let message = match &self.html {
            None => builder.singlepart(text),
            Some(html) => {
                let html = SinglePart::html(line_ends(html));
                let alternative = MultiPart::alternative().singlepart(text);
                builder.multipart(match &self.image {
                    None => alternative.singlepart(html),
                    Some(png) => {
                        let png_type = ContentType::parse("image/png").expect("a content type");
                        let png = Attachment::new_inline("chart".to_owned()).body(png.clone(), png_type);
                        alternative.multipart(MultiPart::related().singlepart(html).singlepart(png))
                    }
                })
            }
        };
        Ok(message.expect("a sender and a recipient are all that a message needs"))
    }
}

/// The address of this program on this machine.
fn own_address() -> String {
    match ClientId::default() {
        ClientId::Domain(machine) => format!("chatserver@{machine}"),
        _ => "chatserver@localhost".to_owned(),
    }
}

/// With SMTP's line ends only: a carriage return by itself would be one for some mail programs, and none for others. (The library puts them in as
/// well, but one by one into a text that it moves each time.)
fn line_ends(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn config(to: &[&str]) -> MailConfig {
        let to = to.iter().map(|&address| address.to_owned()).collect();
        MailConfig { to, from: Some("chat@example.org".into()), host: "localhost".into(), ..MailConfig::default() }
    }

    #[test]
    fn the_heading_is_complete_and_a_subject_stays_one_line() {
        let letter = Letter { subject: "Ann\r\nBcc: eve@x.org".into(), text: "hello".into(), ..Letter::default() };
        let at = UNIX_EPOCH + Duration::from_secs(1_407_938_400);
        let message = letter.message(&config(&["a@b.org", "小红 <c@d.org>"]), at).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        for line in [
            "From: chat@example.org\r\n",
            "Subject: Ann  Bcc: eve@x.org\r\n",
            "Date: Wed, 13 Aug 2014 14:00:00 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Message-ID: <",
            "\r\n\r\nhello",
        ] {
            assert!(text.contains(line), "{line:?} is missing:\n{text}");
        }
        assert_eq!(message.envelope().to().len(), 2);
        assert!(text.is_ascii(), "{text}");
    }

    #[test]
    fn wrong_addresses_are_named_with_their_setting() {
        let letter = Letter::default();
        let why = |config: &MailConfig| letter.message(config, UNIX_EPOCH).unwrap_err().to_string();
        assert!(why(&config(&[])).contains("set mail_to"));
        let from = MailConfig { from: Some("nobody".into()), ..config(&["a@b.org"]) };
        assert!(why(&from).starts_with("\"nobody\" (mail_from) is not a mail address"), "{}", why(&from));
    }
}
