//! A bot that answers every message with the same text: `cargo run --example echo -- NAME`, then write to NAME.
//!
//! It shows the two things that every bot needs: a ping in every silence, and a new login after the connection was lost.
//! Two bots that answer each other never stop: that is why it leaves its own messages alone, and why real bots have a rate limit.

use std::time::Duration;

use chatserver::client::{Client, ClientError};
use chatserver::protocol::PUBLISHED_KEY;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "echo".to_owned());
    let addr = std::env::var("CHATSERVER_ADDR").unwrap_or_else(|_| "127.0.0.1:8989".to_owned());
    let connect = Client::connect(addr, PUBLISHED_KEY);
    loop {
        let Err(error) = connect.login(&name).and_then(answer);
        eprintln!("{error}");
        if matches!(error, ClientError::Refused { .. } | ClientError::Key(_)) {
            std::process::exit(3);
        }
        std::thread::sleep(Duration::from_secs(10)); // also keeps two bots of one name from throwing each other out all day
    }
}

/// Answers until the connection is lost.
fn answer(mut client: Client) -> Result<std::convert::Infallible, ClientError> {
    println!("logged in as {}: {}", client.name(), client.welcome());
    loop {
        match client.recv(Duration::from_secs(30))? {
            Some(message) if message.from != message.to => client.send(&message.from, &message.text)?,
            Some(_) => {}
            None => client.ping()?,
        }
    }
}
